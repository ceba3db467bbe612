"""The best epoch is kept in the model file, and changes nothing else."""

import copy
import json
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import NARROW, UNSCORED, error_line, one_line, result_of, write_data
from test_agents import StopAfter

import agents
import models
from agents import make_agent
from data import load
from options import OPTIONS, grouping, make_run
from running.stopping import Stopped
from running.training import train
from storage.history import read_history

EPOCHS = 5
STEPS = 5
"""Of an epoch."""


@pytest.fixture(scope="module")
def own_file(tmp_path_factory) -> Path:
    """A data set that cannot be learnt, so that accuracy rises and falls."""
    labels = np.random.RandomState(0).permutation(np.repeat(np.arange(3), 20))
    return write_data(tmp_path_factory.mktemp("data") / "own.npz", [20, 20, 20], size=8, train_labels=labels)


def given(file: Path, **more: object) -> dict:
    options = {"data": file, "setting": 5, "batch_size": 8, "momentum": 0.9, "lr": 0.3, "epochs": EPOCHS}
    return options | {"validation": 0.3, "keep": "best", "seed": 6} | more


def words(**options: object) -> list[object]:
    """Options as on the command line."""
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def start(path: Path, file: Path, steps: int = 10**9, **more: object) -> None:
    more = {"save_path": path, "resume": True, "save_history": True} | more
    train(make_run("train", given(file, **more)), StopAfter(steps), NARROW, 3600)


@pytest.fixture(scope="module")
def whole(own_file, tmp_path_factory) -> Path:
    """A run that nobody has stopped."""
    path = tmp_path_factory.mktemp("whole")
    start(path, own_file)
    return path


def content_of(path: Path) -> dict:
    return torch.load(path / "model.pt", weights_only=True)


def weights(state: dict[str, torch.Tensor]) -> bytes:
    return b"".join(tensor.contiguous().numpy().tobytes() for tensor in state.values())


def test_the_kept_epoch_is_that_of_a_loop_that_remembers_the_best(own_file, whole):
    run = make_run("train", given(own_file, keep="last"))
    agent = make_agent(load(run.spec, Path(), 8, torch.device("cpu")), run, NARROW)
    best, kept, states = -1.0, None, []
    for record in agent.train(EPOCHS):
        mean = sum(record["accuracy"]) / 3
        states.append(copy.deepcopy(agent.model.state_dict()))
        if mean > best + 1e-12:
            best, kept = mean, record["epoch"]
    assert 1 < kept < EPOCHS  # or the test would show less
    history, content = json.loads((whole / "history.json").read_text()), content_of(whole)
    assert history["kept_epoch"] == kept
    assert weights(content["model"]) == weights(states[kept - 1])
    assert weights(content["training"]["network"]) == weights(states[-1])
    assert [epoch["accuracy"] for epoch in history["epochs"]] == [each["accuracy"] for each in agent.epochs]
    assert history["right"] == agent.scores.right
    assert history["as_trained"]["right"] == agent.evaluate_as_trained().right


def test_the_first_of_equals_is_kept(own_file):
    run = make_run("train", given(own_file, save_model=True))
    agent = make_agent(load(run.spec, Path(), 8, torch.device("cpu")), run, NARROW)
    assert agent.kept_epoch is None
    accuracies = [[0.1, 0.2, 0.4], [0.5, 0.3, 0.1], [0.1, 0.5, 0.3], [0.3, 0.1, 0.5], [0.4, 0.2, 0.2]]
    found = []
    for accuracy in accuracies:
        agent.epochs.append({"accuracy": accuracy})
        found.append(agent.kept_epoch)
    assert found == [1, 2, 2, 2, 2]
    agent.run = run.changed(keep="last")
    assert agent.kept_epoch is None


def test_the_last_weights_and_everything_else_are_those_of_a_run_without(own_file, whole, tmp_path):
    start(tmp_path, own_file, keep="last")
    (last, plain), (kept, history) = result_of(tmp_path), result_of(whole)
    assert last == weights(content_of(whole)["training"]["network"]) != kept
    assert plain.pop("kept_epoch") is None
    assert history.pop("kept_epoch")
    assert plain == history
    records = [read_history(path / "history.json", OPTIONS) for path in (tmp_path, whole)]
    assert grouping(OPTIONS, records[0].options) == grouping(OPTIONS, records[1].options)


MOMENTS = [(2, STEPS - 1), (2 * STEPS + 3, STEPS), (4 * STEPS, 3, 4)]
"""After how many steps and batches of an evaluation each session is stopped."""


@pytest.mark.parametrize("stops", MOMENTS, ids=str)
def test_a_run_that_is_stopped_and_resumed_keeps_the_same_epoch(own_file, whole, tmp_path, stops):
    stopped = 0
    for steps in (*stops, 10**9):
        try:
            start(tmp_path, own_file, steps)
        except Stopped:
            stopped += 1
    assert stopped == len(stops)
    assert result_of(tmp_path) == result_of(whole)
    found, expected = content_of(tmp_path), content_of(whole)
    assert weights(found["training"]["network"]) == weights(expected["training"]["network"])
    assert found["inference"] == expected["inference"]
    assert found["training"]["kept"] == expected["training"]["kept"] == {"extra": {}, "weights": None}


def test_a_finished_run_is_extended_from_its_last_weights(own_file, whole, tmp_path):
    start(tmp_path, own_file, epochs=EPOCHS - 1)
    start(tmp_path, own_file)
    assert result_of(tmp_path) == result_of(whole)


def test_a_checkpoint_always_holds_the_best_epoch_so_far(own_file, tmp_path):
    """The present network before there is any."""
    seen = []

    class Watching(StopAfter):
        def check(self) -> None:
            if (tmp_path / "model.pt").exists():
                content = content_of(tmp_path)
                history = json.loads((tmp_path / "history.json").read_text())
                seen.append((history["kept_epoch"], weights(content["model"])))
            super().check()

    options = given(own_file, save_path=tmp_path, save_model=True, save_history=True)
    train(make_run("train", options), Watching(10**9), NARROW, 0)
    assert len({epoch for epoch, _ in seen}) > 1
    for (before, one), (after, other) in pairwise(seen):
        assert (before == after) == (one == other)
    with pytest.raises(Stopped):
        start(tmp_path / "begun", own_file, 2)
    content = content_of(tmp_path / "begun")
    assert weights(content["model"]) == weights(content["training"]["network"])


def test_what_uses_the_model_uses_the_kept_epoch(program, own_file, whole):
    history = json.loads((whole / "history.json").read_text())
    kept, last = (history["epochs"][epoch - 1]["accuracy"] for epoch in (history["kept_epoch"], EPOCHS))
    assert kept != last
    line = ("--data", own_file, "--setting", 5, "--save_path", whole)
    path = whole / "p.npz"
    assert program("--eval", *line, "--predictions", path).accuracy == f"Accuracy: {kept}"
    predictions, images = np.load(path), np.load(own_file)["train_images"]
    found = models.load(whole / "model.pt", NARROW).answers(torch.from_numpy(images).permute(0, 3, 1, 2))
    for task, logits in enumerate(found.values()):
        expected = logits[predictions[f"indices_{task}"]]
        np.testing.assert_allclose(predictions[f"logits_{task}"], expected, rtol=1e-4, atol=1e-4)
    again = program("--train", *words(**given(own_file)), "--resume", "--save_history", "--save_path", whole)
    assert again.accuracy == f"Accuracy: {last}"
    path.unlink()


class Averaged(agents.SummedLossAgent):
    """Scores a moving average of the weights, which is saved besides the network."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        average = torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
        self.average = torch.optim.swa_utils.AveragedModel(self.model, multi_avg_fn=average, use_buffers=True)

    def after_step(self) -> None:
        self.average.update_parameters(self.model)

    @property
    def scored_model(self) -> models.Model:
        return self.average.module

    def get_extra_state(self) -> dict:
        return self.average.state_dict()

    def set_extra_state(self, state: dict) -> None:
        self.average.load_state_dict(state)


def test_what_is_scored_in_place_of_the_network_is_kept_with_it(program, own_file, tmp_path, monkeypatch):
    monkeypatch.setattr(agents, "SummedLossAgent", Averaged)
    start(tmp_path / "whole", own_file, seed=2)
    for steps in (3 * STEPS + 10, 10**9):
        with suppress(Stopped):
            start(tmp_path / "parts", own_file, steps, seed=2)
    assert result_of(tmp_path / "parts") == result_of(tmp_path / "whole")
    states = [content_of(tmp_path / name) for name in ("whole", "parts")]
    for state in states:
        assert weights(state["inference"]["weights"]) == weights(state["training"]["kept"]["weights"])
        assert weights(state["inference"]["weights"]) != weights(state["model"])
        assert weights(state["inference"]["weights"]) == weights(states[0]["inference"]["weights"])
        assert weights(state["training"]["extra"]) == weights(states[0]["training"]["extra"])
    history = json.loads((tmp_path / "parts" / "history.json").read_text())
    kept, last = (history["epochs"][epoch - 1]["accuracy"] for epoch in (history["kept_epoch"], EPOCHS))
    assert kept != last
    path = tmp_path / "p.npz"
    line = ("--data", own_file, "--setting", 5, "--save_path", tmp_path / "parts", "--predictions", path)
    assert program("--eval", *line).accuracy == f"Accuracy: {kept}"
    images = torch.from_numpy(np.load(own_file)["train_images"]).permute(0, 3, 1, 2)
    for task, logits in enumerate(
        models.load(tmp_path / "parts" / "model.pt", NARROW).answers(images).values()
    ):
        predictions = np.load(path)
        expected = logits[predictions[f"indices_{task}"]]
        np.testing.assert_allclose(predictions[f"logits_{task}"], expected, rtol=1e-4, atol=1e-4)


def test_the_last_line_is_the_last_epochs_and_a_message_says_which_is_kept(program, own_file, tmp_path):
    line = ("--train", *words(**given(own_file)), *UNSCORED)
    done = program(*line, "--save_model", "--save_history", "--save_path", tmp_path)
    history = json.loads((tmp_path / "history.json").read_text())
    assert done.accuracy == f"Accuracy: {history['epochs'][-1]['accuracy']}"
    kept = history["kept_epoch"]
    mean = np.mean(history["epochs"][kept - 1]["accuracy"])
    assert f"keeps the network of epoch {kept} of {EPOCHS}, " in done.err
    assert f"whose mean validation accuracy is {mean:.4f}" in done.err
    alone = program(*line, "--epochs", 1)
    assert "keeps" not in alone.err


def test_resume_insists_on_it_and_it_needs_held_out_images(program, own_file, whole, tmp_path):
    before = (whole / "model.pt").read_bytes()
    for keep, line in (("last", whole), ("best", tmp_path)):
        if keep == "best":
            start(tmp_path, own_file, keep="last", epochs=1)
        options = words(**given(own_file, keep=keep, epochs=1 if keep == "best" else EPOCHS))
        for file in ("history.json", "model.pt"):
            refused = program("--train", *options, "--resume", "--save_path", line)
            assert f"{file} was made with other options (--keep" in error_line(refused)
            if file == "history.json":
                (line / file).rename(line / "aside")
        (line / "aside").rename(line / "history.json")
    assert (whole / "model.pt").read_bytes() == before
    refused = program("--train", *words(**given(own_file, validation=0)))
    assert (refused.code, "--keep best" in refused.err, one_line(refused)) == (2, True, True)
    line = ("--train", *words(**given(own_file)))
    refused = program(*line, "--save_history", "--save_path", tmp_path)
    assert (refused.code, "add --save_model" in refused.err, one_line(refused)) == (2, True, True)
    refused = program("--train", "--data", own_file, "--setting", 3, "--keep", "first")
    assert (refused.code, one_line(refused)) == (2, True)


WRONG = {
    "no last network": lambda training: training.pop("network"),
    "another last network": lambda training: training["network"].popitem(),
    "a last network that is not finite": lambda training: training["network"].update(
        {"heads.0.3.bias": torch.tensor([torch.nan, 0])}
    ),
    "nothing kept": lambda training: training.pop("kept"),
    "weights where there are no others": lambda training: training["kept"].update(weights={}),
    "more kept": lambda training: training["kept"].update(more=1),
    "other things kept": lambda training: training["kept"].update(extra={"x": torch.ones(1)}),
    "no dictionary kept": lambda training: training.update(kept=[1]),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_damaged_file_is_refused_in_a_line(program, own_file, whole, tmp_path, what):
    content = content_of(whole)
    WRONG[what](content["training"])
    torch.save(content, tmp_path / "model.pt")
    line = words(**given(own_file, epochs=9))
    said = error_line(program("--train", *line, "--resume", "--save_path", tmp_path))
    assert "training.network" in said or "training.kept" in said


@pytest.mark.parametrize("value", [0, EPOCHS + 1, "1", True, 1.0, [1]])
def test_a_history_with_a_wrong_kept_epoch_is_refused(whole, tmp_path, value):
    content = json.loads((whole / "history.json").read_text())
    (tmp_path / "history.json").write_text(json.dumps(content | {"kept_epoch": value}))
    with pytest.raises(ValueError, match="kept_epoch is"):
        read_history(tmp_path / "history.json", OPTIONS)
