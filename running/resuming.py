"""Resuming a training run from its checkpoint."""

from typing import Any

from agents import Agent
from errors import UserError
from options import Run
from running.directory import check_same
from running.released import known_as
from running.streams import print_message
from storage.checkpoint import Checkpoint, check_network, check_training, damaged, read_checkpoint
from storage.files import MODEL
from storage.history import check_records


def find_checkpoint(run: Run) -> Checkpoint | None:
    """Checkpoint in the directory of a run, or None.

    Raises:
        UserError: it cannot be read, is damaged, or was made with other options.
    """
    path = run.save_path / MODEL
    if not path.exists():
        return None
    checkpoint = read_checkpoint(path, run.table)
    check_same(run, path, checkpoint.options)
    try:
        check_training(checkpoint.training)
    except ValueError as error:
        raise damaged(path, error) from None
    done = len(checkpoint.training["epochs"]) + (checkpoint.training["step"] > 0)
    if done > run.epochs:
        raise UserError(f"{path} has come to epoch {done} already: give --epochs {done} or more")
    return checkpoint


def restore(agent: Agent, checkpoint: Checkpoint, code: str) -> list[dict[str, Any]]:
    """Bring an agent to the step of a checkpoint.

    Args:
        agent: a new agent.
        checkpoint: what `find_checkpoint` returned; its options are those of the run.
        code: fingerprint of the present code.

    Returns:
        the sessions of the run so far.

    Raises:
        UserError: the checkpoint does not fit the network or the data.
    """
    run, training = agent.run, checkpoint.training
    path = run.save_path / MODEL
    network = checkpoint.network
    check_network(path, network, agent.model)
    if run.keep == "best":
        network = training.get("network")
        check_network(path, network, agent.model, "training.network")
    try:
        check_records(training["epochs"], len(agent.names))
        agent.resume(network, training)
        if run.keep == "best":
            agent.resume_kept(checkpoint.network, training.get("kept"))
    except ValueError as error:
        other_code = known_as(checkpoint.code, run.spec) != code
        raise damaged(path, f"training.{error}", other_code) from error
    if len(agent.epochs) < run.epochs:
        num_steps = agent.plan.steps_per_epoch
        print_message(f"resuming after epoch {len(agent.epochs)} and {agent.step} steps of {num_steps}")
    return [session | {"code": known_as(session["code"], run.spec)} for session in training["sessions"]]
