"""What a run prints: results to standard output, messages to standard error."""

from collections.abc import Sequence
from statistics import fmean

from running.streams import give


def give_title(title: str, synthetic: bool) -> None:
    """Say in the results that their images are generated, where they are."""
    if synthetic:
        give(f"{title[0].upper()}{title[1:]}: these images are generated")


def accuracy_line(setting: int, accuracy: Sequence[float]) -> str:
    """Accuracies as they are printed: a number for settings 0 and 2, else a list of one per task."""
    return f"Accuracy: {accuracy[0] if setting in (0, 2) else list(accuracy)}"


def summary(
    tasks: Sequence[str], accuracy: Sequence[float], constant_accuracy: Sequence[float], scored_on: str
) -> str:
    """What accuracies mean, in a line: their mean, that of a constant answer, and the extremes.

    Args:
        tasks: names.
        accuracy: of each task.
        constant_accuracy: what always giving its commonest answer scores in each task.
        scored_on: `test` or `validation`: the images that the accuracies are of.
    """
    kind = _kind(scored_on)
    constant = f"; always giving the commonest answer scores {fmean(constant_accuracy):.4f}"
    if len(tasks) == 1:
        return f"{kind} ({tasks[0]}) {accuracy[0]:.4f}{constant}"
    ranked = sorted(zip(accuracy, tasks, strict=True))
    (worst, worst_name), (best, best_name) = ranked[0], ranked[-1]
    return (
        f"mean {kind} over {len(tasks)} tasks {fmean(accuracy):.4f}{constant}; "
        f"best task {best_name} {best:.4f}, worst {worst_name} {worst:.4f}"
    )


def summary_of_own_statistics(own: Sequence[float], shared: Sequence[float], scored_on: str) -> str:
    """What re-estimating the encoder's normalisation statistics for each task changes, in a line.

    Args:
        own: accuracy of each task with these statistics, under heads that keep theirs.
        shared: accuracy of each task as usual.
        scored_on: as in `summary`.
    """
    count = f"{len(own)} task{'s' * (len(own) > 1)}"
    return (
        f"re-estimating the encoder's statistics alone, see docs/files.md: mean {_kind(scored_on)} "
        f"over {count} {fmean(own):.4f} ({fmean(shared):.4f} as usual)"
    )


def _kind(scored_on: str) -> str:
    return "validation accuracy" if scored_on == "validation" else "accuracy"
