"""The lines that a run prints about its scores."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from running.streams import print_message, print_result
from settings import SETTINGS

FAR = 0.05
"""How much lower than as trained a mean accuracy as usual is said to be far lower."""


def print_if_synthetic(title: str, synthetic: bool) -> None:
    """Print among the results that images are generated, if they are."""
    if synthetic:
        print_result(f"{title[0].upper()}{title[1:]}: these images are generated")


def accuracy_line(setting: int, accuracy: Sequence[float]) -> str:
    """Last line of a result.

    It has one number, or a list with one per task.
    """
    return f"Accuracy: {accuracy[0] if SETTINGS[setting].single_score else list(accuracy)}"


def print_epoch(record: Mapping[str, Any], num_epochs: int, learning_rate: float, scored_on: str) -> None:
    """Print what an epoch came to and how long it took.

    Args:
        record: record of the epoch.
        num_epochs: number of epochs of the run.
        learning_rate: learning rate of the epoch's first step.
        scored_on: `test` or `validation`: the images that the accuracies are of.
    """
    accuracy, losses = record["accuracy"], record["test_loss"]
    kind = f"{'mean ' * (len(accuracy) > 1)}{'validation ' * (scored_on == 'validation')}accuracy"
    scored = f", {scored_on} loss {fmean(losses):.4f}" if None not in losses else ""
    print_message(
        f"epoch {record['epoch']} of {num_epochs}: {kind} {fmean(accuracy):.4f}, training loss "
        f"{record['loss']:.4f}{scored}, learning rate {learning_rate:.4g}, "
        f"{record['seconds'] + record['evaluation_seconds']:.1f} seconds"
    )


def print_scores(
    tasks: Sequence[str],
    accuracy: Sequence[float],
    constant_accuracy: Sequence[float],
    as_trained: Sequence[float] | None,
    scored_on: str,
) -> None:
    """Print what the accuracies mean.

    These are their mean, a constant answer's, the extremes, and those as trained.

    Args:
        tasks: names of the tasks.
        accuracy: accuracy of each task.
        constant_accuracy: for each task, the accuracy of always giving its commonest answer.
        as_trained: accuracy of each task with batch-norm statistics estimated again, or None.
        scored_on: `test` or `validation`: the images that the accuracies are of.
    """
    kind = "validation accuracy" if scored_on == "validation" else "accuracy"
    mean = fmean(accuracy)
    constant = f"; always giving the commonest answer scores {fmean(constant_accuracy):.4f}"
    if len(tasks) == 1:
        print_message(f"{kind} ({tasks[0]}) {accuracy[0]:.4f}{constant}")
    else:
        ranked = sorted(zip(accuracy, tasks, strict=True))
        (worst, worst_name), (best, best_name) = ranked[0], ranked[-1]
        print_message(
            f"mean {kind} over {len(tasks)} tasks {mean:.4f}{constant}; "
            f"best task {best_name} {best:.4f}, worst {worst_name} {worst:.4f}"
        )
    if as_trained:
        count = f" over {len(tasks)} tasks" if len(tasks) > 1 else ""
        again = fmean(as_trained)
        print_message(
            f"as trained (batch-norm statistics of batches like those of training, see docs/files.md): "
            f"{'mean ' * (len(tasks) > 1)}{kind}{count} {again:.4f}, as usual {mean:.4f}"
        )
        if again - mean > FAR:
            print_message(
                "as usual is far lower: it takes the running averages that training leaves behind, which "
                "have not settled after few steps, and in settings 3 and 4 mix tasks that differ"
            )
