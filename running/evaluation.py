"""Entry point of --eval: scores the model in --save_path."""

from pathlib import Path
from typing import Any

import numpy as np

from agents import Agent, Network, make_agent
from errors import UserError
from options import Run, as_given
from running.directory import check_predictions
from running.printing import accuracy_line, print_scores
from running.provenance import code_of, warn_of_other_code
from running.released import known_as
from running.setup import load_data
from running.streams import print_message, print_result
from scoring import Prediction
from settings import SETTINGS
from storage.checkpoint import check_network, damaged, read_checkpoint
from storage.checks import FieldError
from storage.files import MODEL, made, replacing

NO_TRAINING = {"loss": "mean", "optimizer": "sgd", "momentum": 0.0}
"""Options of an agent that does not train: it needs no other packages, and no memory for an optimizer."""


def evaluate(run: Run, network: Network | None = None) -> None:
    """Evaluate the model in --save_path and print the result.

    Args:
        run: options of the evaluation.
        network: makes the model; default: that of --encoder and --head.

    Raises:
        UserError: there is no model, or none that can be evaluated as asked.
    """
    if run.predictions is None:
        _evaluate(run, network, None)
        return
    check_predictions(run)
    with made(run.predictions.parent, "--predictions"):
        _evaluate(run, network, [])


def _evaluate(run: Run, network: Network | None, predictions: list[Prediction] | None) -> None:
    """Evaluate as `evaluate` does, with a list that gets the predictions to write."""
    path = run.save_path / MODEL
    checkpoint = read_checkpoint(path, run.table)
    check_fits(run, path, checkpoint.options)
    from_model = {
        option.name: checkpoint.options[option.name]
        for option in run.table
        if option.from_model and run.values[option.name] is None
    }
    warn_of_other_code(path, known_as(checkpoint.code, run.spec), code_of(network))
    run = run.changed(**from_model, **NO_TRAINING)
    options = {o.name: checkpoint.options[o.name] for o in run.table if o.decides == "training"}
    trained = run.changed(**options | {"precision": run.precision} | NO_TRAINING)
    data = load_data(run, checkpoint.options["validation"] or 0.0)
    agent = make_agent(data, trained, network)
    check_network(path, checkpoint.network, agent.model)
    try:
        agent.load(checkpoint.network, extra_state(checkpoint.training))
    except FieldError as error:
        raise damaged(path, f"training.{error}") from None
    scored = make_agent(data, run, lambda _: agent.scored_model)
    accuracy = scored.evaluate(progress=True, predictions=predictions).accuracy
    as_trained = agent.evaluate_as_trained(progress=True, scorer=scored.scorer)
    constant = scored.scorer.constant_accuracy
    again = as_trained.accuracy if as_trained else None
    if predictions is not None:
        _write_predictions(run, scored, predictions)
    print_scores(scored.names, accuracy, constant, again, run.spec.scored_on)
    print_result(accuracy_line(run.setting, accuracy))


def _write_predictions(run: Run, scored: Agent, predictions: list[Prediction]) -> None:
    """Write the file of --predictions.

    Raises:
        UserError: it cannot be written.
    """
    numbers = {name: number for number, name in enumerate(scored.data.spec.tasks)}
    arrays: dict[str, Any] = {}
    for place, (name, prediction) in enumerate(zip(scored.names, predictions, strict=True)):
        number = numbers.get(name, place)
        arrays[f"indices_{number}"] = scored.data.test_indices[prediction.indices].numpy()
        for each in ("logits", "answers", "labels"):
            arrays[f"{each}_{number}"] = getattr(prediction, each).numpy()
    with replacing(run.predictions) as file:
        np.savez(file, **arrays)
    print_message(f"saved the predictions in {run.predictions}")


def extra_state(training: object) -> object:
    """The agent's state that goes with the network of a checkpoint; none in one of version 2.1."""
    if not isinstance(training, dict):
        return {}
    kept = training.get("kept", training)
    return kept.get("extra", {}) if isinstance(kept, dict) else kept


def check_fits(run: Run, path: Path, trained: dict[str, Any]) -> None:
    """Check that a model can be evaluated as the options ask.

    Args:
        run: options of the evaluation.
        path: where the model is.
        trained: options that it was trained with.

    Raises:
        UserError: it is another kind of model, or was trained on other images.
    """
    setting = trained["setting"]
    kind, wanted = SETTINGS[setting].kind, SETTINGS[run.setting].kind
    if kind != wanted:
        raise UserError(
            f"{path} is a {kind} model, trained with --setting {setting}, and --setting {run.setting} "
            f"evaluates {wanted} models: change --setting or --save_path"
        )
    for option in run.table:
        asked, was = run.values[option.name], trained[option.name]
        taken = option.from_model and asked is None
        on_test = option.name == "validation" and asked == 0  # any model may be scored on test images
        alike = option.name == "normalisation" and "group" not in (asked, was)  # the same network
        insists = option.decides == "data" or option.from_model
        if insists and not (taken or on_test or alike) and option.differs(asked, was):
            how = as_given(option.name, was)
            if option.name == "data" and isinstance(was, str):
                how = "with --data on a file {} of another content ({})".format(*was.rsplit("#", 1))
            raise UserError(f"{path} was trained {how}: evaluate it like that, or change --save_path")
