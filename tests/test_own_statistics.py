"""Scores with per-task batch-norm statistics, against a slow version.

Runs record them.
"""

import copy
import json
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from disturbed import Training
from helpers import NARROW, NUM_HIDDEN, SmallEncoder, make, result_of, write_data
from torch import nn

from agents import Agent
from data import DataSet, Split, load
from models import Dimensions, Model
from options import OPTIONS, make_run
from running.stopping import Stopped, StopSignals
from running.training import train
from scoring import Scorer, Scores
from storage.history import read_history

TABLE = [[0, 1, 2, -1, -1], [-1, -1, 0, 1, -1], [-1, -1, -1, 0, 1]]
"""Three tasks that share some classes, but not all."""


@pytest.fixture(scope="module")
def own_file(tmp_path_factory) -> Path:
    """A data set of the user's own; its tasks have 74, 38 and 21 training images."""
    return write_data(tmp_path_factory.mktemp("data") / "own.npz", [30, 20, 24, 14, 7], size=8, tasks=TABLE)


@pytest.fixture(scope="module")
def own(own_file) -> DataSet:
    run = make_run("train", {"data": own_file, "setting": 3, "batch_size": 16})
    return load(run.spec, Path(), 8, torch.device("cpu"))


# Against a slow version


class DropoutEncoder(SmallEncoder):
    """Draws in training."""

    def forward(self, images):
        return super().forward(F.dropout(images, 0.5, self.training))


class FrozenEncoder(SmallEncoder):
    """The statistics of its first normalisation stay as they are, in training too."""

    def train(self, mode: bool = True):
        super().train(mode)
        self.layers[1].eval()
        return self


class BatchEncoder(SmallEncoder):
    """Its last normalisation keeps no statistics: it always takes those of the batch."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__(dimensions)
        self.layers[4] = nn.BatchNorm2d(16, track_running_stats=False)


def small(encoder: type) -> partial:
    return partial(Model, encoder=encoder, num_hidden=NUM_HIDDEN)


def slow_features(layers, images, statistics, seen) -> torch.Tensor:
    """What some layers make of images, by the textbook.

    Args:
        statistics: mean and variance of the normalisations that do not take those of the batch, by number.
        seen: gets the mean and the unbiased variance of the batch in each normalisation that does.
    """
    for number, layer in enumerate(layers):
        if isinstance(layer, nn.Conv2d):
            images = F.conv2d(images, layer.weight, layer.bias, layer.stride, padding=1)
        elif isinstance(layer, nn.ReLU):
            images = images.clamp(min=0)
        else:
            values = images.transpose(0, 1).flatten(1)
            mean, var = statistics.get(number, (values.mean(dim=1), values.var(dim=1, correction=0)))
            if number not in statistics:
                seen.setdefault(number, []).append((values.mean(dim=1), values.var(dim=1, correction=1)))
            scale = layer.weight / (var + layer.eps).sqrt()
            images = (images - mean[:, None, None]) * scale[:, None, None] + layer.bias[:, None, None]
    return F.adaptive_avg_pool2d(images, 2).flatten(1)


@torch.no_grad()
def slow_scores(agent: Agent, batch_size: int) -> tuple[list[torch.Tensor], list[float]]:
    """The features of each task's test images and the accuracy of its head, by the definition."""
    model, data = copy.deepcopy(agent.model).eval(), agent.data
    layers, fixed = model.encoder.layers, {}
    if isinstance(model.encoder, FrozenEncoder):
        fixed = {1: (layers[1].running_mean, layers[1].running_var)}
    all_features, accuracy = [], []
    for task, numbers in enumerate(data.tasks.tolist()):
        train, test = (
            [i for i, label in enumerate(split.labels.tolist()) if numbers[label] >= 0]
            for split in (data.train, data.test)
        )
        batches = [train[start : start + batch_size] for start in range(0, len(train), batch_size)]
        full = [batch for batch in batches if len(batch) == batch_size] or [train]
        seen: dict[int, list] = {}
        for batch in full:
            slow_features(layers, data.train.batch(torch.tensor(batch))[0], fixed, seen)
        average = {
            number: tuple(torch.stack(values).mean(dim=0) for values in zip(*pairs, strict=True))
            for number, pairs in seen.items()
            if layers[number].track_running_stats
        }
        inputs, labels = data.test.batch(torch.tensor(test))
        features = slow_features(layers, inputs, fixed | average, {})
        right = model.heads[task](features).argmax(dim=1) == torch.tensor(numbers)[labels]
        all_features.append(features)
        accuracy.append(right.double().mean().item())
    return all_features, accuracy


def own_scores(agent: Agent, batch_size: int) -> tuple[list[torch.Tensor], Scores | None]:
    """The same by the scorer: features, caught as they leave the encoder, and scores."""
    caught = []

    def catch(encoder, _, features) -> None:
        if not any(layer.training for layer in encoder.layers):
            caught.append(features)

    hook = agent.model.encoder.register_forward_hook(catch)
    scores = agent.scorer.with_own_statistics(agent.model, agent.data.train, batch_size)
    hook.remove()
    return caught, scores


@pytest.mark.parametrize(
    ("encoder", "batch_size"),
    [
        (SmallEncoder, 16),  # 4, 2 and 1 full batches, and images that are left out of each task
        (SmallEncoder, 30),  # 2 and 1, and a task whose images fill none
        (DropoutEncoder, 16),
        (FrozenEncoder, 16),
        (BatchEncoder, 16),
    ],
)
def test_own_statistics_are_those_of_a_slow_version_batch_by_batch(own, encoder, batch_size):
    agent = make(3, own, small(encoder), batch_size=16, lr=0.02)
    agent.train_steps(7)
    features, accuracy = slow_scores(agent, batch_size)
    got, scores = own_scores(agent, batch_size)
    torch.testing.assert_close(got, features, rtol=1e-3, atol=1e-4)
    assert scores.accuracy == accuracy
    again, scores_again = own_scores(agent, batch_size)
    assert all(torch.equal(one, other) for one, other in zip(got, again, strict=True))
    assert scores_again == scores
    shared = [agent.model.eval().encoder(own.test.batch(torch.arange(len(own.test)))[0])]
    assert (shared[0][: len(features[0])] - features[0]).abs().max() > 0.01


def test_an_agent_gives_them_over_its_batch_size_and_in_its_precision(whole_cifar100):
    agent = make(3, whole_cifar100, batch_size=48, precision="bf16")
    agent.train_steps(10)
    expected = agent.scorer.with_own_statistics(agent.model, whole_cifar100.train, 48, "bf16")
    computed = []
    agent.model.encoder.register_forward_hook(lambda _, __, made: computed.append((len(made), made.dtype)))
    assert agent.evaluate_with_own_statistics() == expected
    assert set(computed) == {(48, torch.bfloat16), (80, torch.bfloat16)}  # 160 and 80 images of each task
    assert len(computed) == 20 * (3 + 1)


def test_one_training_image_of_one_pixel_at_the_end_is_enough(own):
    first = [int((own.train.labels == label).nonzero()[0]) for label in (1, 4)]  # one of each task
    train, test = (
        Split(split.images[which, :, ::2, ::2], split.labels[which], own.spec)
        for split, which in ((own.train, first), (own.test, slice(None)))
    )
    table = own.tasks[[0, 2]]
    model = make(3, own, batch_size=16).model
    scores = Scorer(test, table, table).with_own_statistics(model, train, 16)
    assert all(0 < share <= 1 for share in scores.accuracy)


def test_they_change_nothing(own):
    agent = make(3, own, small(DropoutEncoder), batch_size=16)
    agent.train_steps(3)
    agent.model.heads[2].append(nn.Dropout())
    tensors = {**agent.model.state_dict(keep_vars=True)}
    before = {name: (tensor.clone(), tensor.stride()) for name, tensor in tensors.items()}
    layers = [layer for layer in agent.model.modules() if isinstance(layer, nn.BatchNorm2d)]
    generator = torch.get_rng_state()
    for training in (True, False):
        agent.model.train(training)
        agent.evaluate_with_own_statistics()
        after = agent.model.state_dict(keep_vars=True)
        assert all(after[name] is tensor for name, tensor in tensors.items())
        for name, (value, stride) in before.items():
            assert torch.equal(after[name], value)
            assert after[name].stride() == stride
        assert torch.equal(torch.get_rng_state(), generator)
        assert {module.training for module in agent.model.modules()} == {training}
        assert {layer.momentum for layer in layers} == {0.1}


class PlainEncoder(nn.Module):
    """Has no batch normalisation."""

    num_features = 3

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()

    def forward(self, images):
        return images.mean(dim=(2, 3))


def test_there_are_none_where_they_mean_nothing(cifar10, cifar100):
    assert make(3, cifar100, small(PlainEncoder)).evaluate_with_own_statistics() is None
    for setting, data in (
        (0, cifar100),
        (1, cifar100),
        (2, cifar100),
        (3, cifar10),
        (4, cifar10),
        (5, cifar10),
    ):
        task = 1 if setting == 2 else None
        assert make(setting, data, task=task).evaluate_with_own_statistics() is None


# In runs


def options_for(path: Path, file: Path, **more: object) -> dict[str, object]:
    given = {"data": file, "setting": 3, "batch_size": 8, "lr": 0.02, "epochs": 2}
    given |= {"resume": True, "save_history": True}
    return given | {"save_path": path} | more


def start(path: Path, file: Path, signals: StopSignals | None = None, **more: object) -> None:
    """Do a run in this process."""
    train(make_run("train", options_for(path, file, **more)), signals or StopSignals(), NARROW, 3600)


def history_of(path: Path) -> dict:
    return json.loads((path / "history.json").read_text())


def said(mean: float, shared: float, kind: str = "accuracy") -> str:
    return (
        f"re-estimating the encoder's statistics alone, see docs/files.md: mean {kind} over 3 tasks "
        f"{mean:.4f} ({shared:.4f} as usual)"
    )


@pytest.mark.parametrize(("validation", "kind"), [(0, "accuracy"), (0.25, "validation accuracy")])
def test_a_run_records_them_and_an_evaluation_says_the_same(program, own_file, tmp_path, validation, kind):
    options = ("--data", own_file, "--setting", 4, "--save_path", tmp_path)
    training = ("--batch_size", 8, "--epochs", 2, "--lr", 0.02, "--validation", validation, "--save_history")
    trained = program("--train", *options, *training, "--resume")
    own, last = history_of(tmp_path)["own_statistics"], history_of(tmp_path)["epochs"][-1]
    assert set(own) == {"accuracy", "balanced_accuracy"}
    line = said(sum(own["accuracy"]) / 3, sum(last["accuracy"]) / 3, kind)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    again = program("--train", *options, *training, "--resume")
    evaluated, in_smaller_batches = (
        program("--eval", *options),
        program("--eval", *options, "--batch_size", 5),
    )
    for done in (trained, again, evaluated):
        assert done.err.splitlines().count(line) == 1
    for done in (trained, again, evaluated, in_smaller_batches):
        assert done.code == 0
        assert done.out == trained.out
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    given = {"data": own_file, "setting": 4, "batch_size": 8, "validation": validation}
    parts = make_run("train", given)
    agent = make(4, load(parts.spec, Path(), 8, torch.device("cpu")), batch_size=8)
    agent.model.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True)["model"])
    assert own["accuracy"] == slow_scores(agent, 8)[1]
    in_fives = said(sum(slow_scores(agent, 5)[1]) / 3, sum(last["accuracy"]) / 3, kind)
    assert in_smaller_batches.err.splitlines().count(in_fives) == 1


def test_a_run_of_another_kind_records_none_and_says_nothing(program, own_file, tmp_path):
    options = ("--setting", 2, "--task", 0, "--data", own_file, "--batch_size", 16, "--epochs", 1)
    trained = program("--train", *options, "--save_history", "--save_path", tmp_path)
    assert trained.code == 0
    assert "re-estimating" not in trained.err
    assert history_of(tmp_path)["own_statistics"] is None


@pytest.fixture(scope="module")
def whole(own_file, tmp_path_factory) -> tuple:
    """What a run of two epochs leaves when it is left alone."""
    path = tmp_path_factory.mktemp("whole")
    start(path, own_file)
    return result_of(path)


def test_a_run_that_is_extended_ends_as_one_in_one_go(own_file, tmp_path, whole):
    start(tmp_path, own_file, epochs=1)
    first = history_of(tmp_path)
    start(tmp_path, own_file, epochs=2)
    assert result_of(tmp_path) == whole
    assert first["own_statistics"] != whole[1]["own_statistics"]


class StopIn(StopSignals):
    """Stops, or breaks off, at some check after the last epoch has been saved."""

    def __init__(self, path: Path, stop: BaseException, epochs: int = 2) -> None:
        super().__init__()
        self.path, self.stop, self.epochs = path, stop, epochs
        self.left = 3

    def check(self) -> None:
        path = self.path / "history.json"
        self.left -= path.exists() and len(history_of(self.path)["epochs"]) == self.epochs
        if self.left == 0:
            raise self.stop


@pytest.mark.parametrize(
    "stop", [Stopped(signal.SIGTERM), SystemError("broken off")], ids=["stopped", "broken"]
)
def test_a_run_that_ends_before_them_is_resumed_without_training(own_file, tmp_path, whole, stop, capsys):
    with pytest.raises(type(stop)) as raised:
        start(tmp_path, own_file, StopIn(tmp_path, stop))
    if isinstance(stop, Stopped):
        assert "after the last epoch, before scoring with each task's own batch-norm" in str(raised.value)
        assert "--resume continues from there" in str(raised.value)
    history, model = history_of(tmp_path), (tmp_path / "model.pt").read_bytes()
    assert (history["finished"], history["own_statistics"], len(history["epochs"])) == (False, None, 2)
    capsys.readouterr()
    start(tmp_path, own_file)
    assert "resuming after epoch" not in capsys.readouterr().err
    assert result_of(tmp_path) == whole
    assert (tmp_path / "model.pt").read_bytes() == model
    assert [sitting["epoch"] for sitting in history_of(tmp_path)["sessions"]] == [0, 2]


def test_a_run_without_a_model_that_is_stopped_before_them_says_what_it_takes(own_file, tmp_path):
    with pytest.raises(Stopped, match=r"saved the history in .*; resuming takes --save_model"):
        start(tmp_path, own_file, StopIn(tmp_path, Stopped(signal.SIGTERM)), resume=False)


def test_a_run_killed_in_the_middle_of_them_is_resumed(own_file, tmp_path):
    options = ("--data", str(own_file), "--epochs", "1")
    path = tmp_path / "run"
    kill = ("with_own_statistics", 300, (signal.SIGKILL,))
    assert Training(path, "3", *options, disturbance=kill).code == -signal.SIGKILL
    assert history_of(path)["finished"] is False
    resumed = Training(path, "3", *options)
    assert resumed.code == 0
    assert "re-estimating the encoder's statistics alone" in resumed.output
    history = history_of(path)
    assert (history["finished"], len(history["epochs"])) == (True, 1)
    assert history["own_statistics"]["accuracy"]


def test_an_extension_that_ends_between_its_model_and_its_history_gets_its_history(own_file, tmp_path, whole):
    start(tmp_path, own_file, epochs=1)
    before = (tmp_path / "history.json").read_bytes()
    start(tmp_path, own_file, epochs=2)
    (tmp_path / "history.json").write_bytes(before)
    start(tmp_path, own_file, epochs=2)
    assert result_of(tmp_path) == whole


@pytest.mark.parametrize(
    "wrong",
    [3, [], {}, {"accuracy": [0.5] * 3}, {"accuracy": [0.5] * 3, "balanced_accuracy": [0.5] * 2}, ...],
)
def test_a_history_is_read_with_them_or_without(own_file, tmp_path, whole, wrong):
    start(tmp_path, own_file, epochs=1)
    path, content = tmp_path / "history.json", history_of(tmp_path)
    if wrong is ...:  # a file of a program that knew nothing of them
        del content["own_statistics"]
        path.write_text(json.dumps(content))
        assert read_history(path, OPTIONS).own_statistics is None
    else:
        path.write_text(json.dumps(content | {"own_statistics": wrong}))
        with pytest.raises(ValueError, match="is not a history"):
            read_history(path, OPTIONS)
