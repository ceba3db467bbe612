"""Runs that an older program has begun, whose files lack what came later."""

import json
from pathlib import Path

import pytest
import torch
from helpers import NARROW, error_line, result_of, write_data
from test_agents import StopAfter

from options import OPTIONS, grouping, make_run
from running.stopping import Stopped
from running.training import train
from storage.history import read_history

TABLE = [[0, 1, 2, -1, -1], [-1, -1, 0, 1, -1], [-1, -1, -1, 0, 1]]

NEW_OPTIONS = {
    "note",
    "normalisation",
    "optimizer",
    "augment",
    "encoder",
    "head",
    "gradients",
    "keep",
    "predictions",
}
NEW_IN_TRAINING = {"hits", "gradients", "extra"}
NEW_IN_EPOCHS = {"test_loss", "train_accuracy"}
NEW_IN_HISTORIES = {"right", "as_trained", "kept_epoch"}

STEPS = 7
"""Of an epoch."""

PARTS = 4
"""Of the test images, by the tasks that they belong to."""


@pytest.fixture(scope="module")
def own_file(tmp_path_factory) -> Path:
    """A data set of the user's own; its tasks have 4, 2 and 1 batches of 16 training images."""
    return write_data(tmp_path_factory.mktemp("data") / "own.npz", [30, 20, 24, 14, 7], size=8, tasks=TABLE)


def start(path: Path, file: Path, steps: int = 10**9, **more: object) -> None:
    options = {"data": file, "setting": 3, "batch_size": 16, "momentum": 0.9, "lr": 0.02, "epochs": 3}
    options |= {"save_path": path, "resume": True, "save_history": True}
    train(make_run("train", options | more), StopAfter(steps), NARROW, 3600)


@pytest.fixture(scope="module")
def whole(own_file, tmp_path_factory) -> Path:
    """A run that nobody has stopped."""
    path = tmp_path_factory.mktemp("whole")
    start(path, own_file)
    return path


def without(names: set[str], content: dict) -> dict:
    """The content without what has these names, all of which are there."""
    assert names <= content.keys()
    return {name: value for name, value in content.items() if name not in names}


def make_old(path: Path, version: int) -> None:
    """Give the files of a run what an older program wrote."""

    def old_options(options: dict) -> dict:
        assert options["loss"] == "mean"
        return without(NEW_OPTIONS, options) | {"loss": None, "version": "2.1.0"}

    def old_epochs(epochs: list[dict]) -> list[dict]:
        return [without(NEW_IN_EPOCHS, epoch) for epoch in epochs]

    sessions = "sittings" if version == 2 else "sessions"
    model = torch.load(path / "model.pt", weights_only=True)
    training = without(NEW_IN_TRAINING | {"sessions"}, model["training"])
    training |= {"epochs": old_epochs(training["epochs"]), sessions: model["training"]["sessions"]}
    model = without({"inference"}, model)
    model |= {"format": version, "options": old_options(model["options"]), "training": training}
    torch.save(model, path / "model.pt")
    history = json.loads((path / "history.json").read_text())
    old = without(NEW_IN_HISTORIES | {"sessions"}, history) | {sessions: history["sessions"]}
    old |= {"format": version, "options": old_options(history["options"])}
    old |= {"epochs": old_epochs(history["epochs"]), "own_statistics": None}
    (path / "history.json").write_text(json.dumps(old))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    ("stop", "begun"),
    [(3, 0), (STEPS + 2, 0), (STEPS + PARTS + 3, 1)],
    ids=["in the first epoch", "in its evaluation", "in the second epoch"],
)
def test_a_run_that_an_older_program_began_is_resumed_to_the_bit(
    own_file, tmp_path, whole, version, stop, begun
):
    """`begun` is the number of epochs that were finished."""
    with pytest.raises(Stopped):
        start(tmp_path, own_file, stop)
    make_old(tmp_path, version)
    start(tmp_path, own_file)
    (weights, history), (expected_weights, expected) = result_of(tmp_path), result_of(whole)
    assert weights == expected_weights
    for number, (epoch, other) in enumerate(zip(history["epochs"], expected["epochs"], strict=True)):
        if number < begun:
            assert epoch == without(NEW_IN_EPOCHS, other)
        elif number == begun:  # its first steps were not counted
            assert epoch == other | {"train_accuracy": [None] * 3}
        else:
            assert epoch == other
            assert any(epoch["train_accuracy"])
    for part in (history, expected):
        del part["epochs"]
    assert history == expected
    recorded = [read_history(path / "history.json", OPTIONS) for path in (tmp_path, whole)]
    assert len({str(grouping(OPTIONS, each.options)) for each in recorded}) == 1
    assert {session["code"] for each in recorded for session in each.sessions} == {
        recorded[1].sessions[0]["code"]
    }


@pytest.mark.parametrize("version", [2, 3])
def test_a_finished_run_of_an_older_program_is_grouped_with_new_ones_and_extended(
    program, own_file, tmp_path, whole, version
):
    start(tmp_path, own_file, epochs=2)
    make_old(tmp_path, version)
    old, new = (read_history(path / "history.json", OPTIONS) for path in (tmp_path, whole))
    keys = [grouping(OPTIONS, each.options) for each in (old, new)]
    assert keys[0] == keys[1] | {"epochs": 2}
    assert (old.right, old.as_trained) == (None, None)
    command = (
        "--train",
        "--data",
        own_file,
        "--setting",
        3,
        "--batch_size",
        16,
        "--momentum",
        0.9,
        "--lr",
        0.02,
    )
    command += ("--save_path", tmp_path, "--save_history", "--resume", "--epochs", 2)
    before = (tmp_path / "history.json").read_bytes()
    again = program(*command)
    assert (again.code, (tmp_path / "history.json").read_bytes()) == (0, before)
    assert again.accuracy == f"Accuracy: {old.epochs[-1]['accuracy']}"
    evaluated = program("--eval", "--data", own_file, "--setting", 3, "--save_path", tmp_path)
    assert evaluated.accuracy == again.accuracy
    assert "as trained" in evaluated.err
    for more in (("--augment",), ("--normalisation", "group"), ("--head", "linear"), ("--note", "mine")):
        assert more[0] in error_line(program(*command, *more))
    start(tmp_path, own_file)
    assert result_of(tmp_path)[0] == result_of(whole)[0]
