"""Entry point of --eval: scores the model in --save_path."""

from pathlib import Path
from typing import Any

from agents import Network
from errors import UserError
from options import Run, as_given
from running.printing import accuracy_line, print_scores
from running.provenance import code_of, warn_of_other_code
from running.released import known_as
from running.setup import set_up
from running.streams import print_result
from settings import SETTINGS
from storage.checkpoint import check_network, read_checkpoint
from storage.files import MODEL


def evaluate(run: Run, network: Network | None = None) -> None:
    """Evaluate the model in --save_path and print the result.

    Args:
        run: options of the evaluation.
        network: makes the model; default: models.Model.

    Raises:
        UserError: there is no model, or none that can be evaluated as asked.
    """
    path = run.save_path / MODEL
    checkpoint = read_checkpoint(path, run.table)
    check_fits(run, path, checkpoint.options)
    unless_given = {
        option.name: checkpoint.options[option.name]
        for option in run.table
        if option.from_model and run.values[option.name] is None
    }
    warn_of_other_code(path, known_as(checkpoint.code, run.spec), code_of(network))
    run = run.changed(loss=None, **unless_given)  # packages that a loss needs may be missing
    agent = set_up(run, network)
    check_network(path, checkpoint.network, agent.model)
    agent.model.load_state_dict(checkpoint.network)
    accuracy = agent.evaluate(progress=True).accuracy
    own = agent.evaluate_with_own_statistics(progress=True)
    constant = agent.scorer.constant_accuracy
    print_scores(agent.names, accuracy, constant, own.accuracy if own else None, run.spec.scored_on)
    print_result(accuracy_line(run.setting, accuracy))


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
        if option.decides == "data" and not taken and not on_test and option.differs(asked, was):
            raise UserError(
                f"{path} was trained {as_given(option.name, was)}: evaluate it like that, or change "
                f"--save_path"
            )
