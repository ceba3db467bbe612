"""Scores with the batch-norm statistics of training batches, against a slow version.

Runs record them, and which images are answered rightly.
"""

import base64
import copy
import itertools
import json
import math
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
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
from running.printing import print_scores
from running.stopping import Stopped, StopSignals
from running.training import train
from storage.history import read_history

TABLE = [[0, 1, 2, -1, -1], [-1, -1, 0, 1, -1], [-1, -1, -1, 0, 1]]
"""Three tasks that share some classes, but not all."""

WAYS = [[0, -1, 1, -1, 2, -1, 3], [-1, 0, 1, -1, -1, 2, 3], [-1, -1, -1, 0, 1, 2, 3]]
"""Three tasks to which the classes belong in every way that there is."""

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def own_file(tmp_path_factory) -> Path:
    """A data set of the user's own; its tasks have 74, 38 and 21 training images."""
    return write_data(tmp_path_factory.mktemp("data") / "own.npz", [30, 20, 24, 14, 7], size=8, tasks=TABLE)


@pytest.fixture(scope="module")
def own(own_file) -> DataSet:
    run = make_run("train", {"data": own_file, "setting": 3, "batch_size": 16})
    return load(run.spec, Path(), 8, CPU)


@pytest.fixture(scope="module")
def data(own, cifar10, cifar100, tmp_path_factory) -> dict[str, DataSet]:
    data = {"own": own, "cifar10": cifar10, "cifar100": cifar100}
    files = {
        "few": ([30, 20, 24, 3, 2], TABLE),
        "ways": ([9] * 7, WAYS),
        "two": ([30, 20, 24, 14], [[0, 1, -1, -1], [-1, -1, 0, 1]]),
    }
    for name, (counts, table) in files.items():
        file = write_data(tmp_path_factory.mktemp("data") / f"{name}.npz", counts, size=8, tasks=table)
        run = make_run("train", {"data": file, "setting": 3, "batch_size": 4})
        data[name] = load(run.spec, Path(), 8, CPU)
    return data


class DropoutEncoder(SmallEncoder):
    """Draws in training."""

    def forward(self, images):
        return super().forward(F.dropout(images, 0.5, self.training))


class DrawingEncoder(SmallEncoder):
    """Draws in evaluation, too."""

    def forward(self, images):
        return super().forward(images + 0 * torch.rand(1))


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


class PlainEncoder(nn.Module):
    """Has no batch normalisation."""

    num_features = 3

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()

    def forward(self, images):
        return images.mean(dim=(2, 3))


def small(encoder: type) -> partial:
    return partial(Model, encoder=encoder, num_hidden=NUM_HIDDEN)


# The slow version: the batches


def first_batches(images: Sequence[int], size: int, key: tuple[int, ...]) -> list[np.ndarray]:
    """Batches of the first pass of a stream and, where these are fewer than 20, of the next passes."""
    if len(images) < size:
        return [np.array(images)]
    batches: list[np.ndarray] = []
    for number in itertools.count():
        order = np.random.default_rng((*key, number)).permutation(images)
        batches += [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
        if len(batches) >= 20:
            return batches if number == 0 else batches[:20]
    raise AssertionError


def endless(images: Sequence[int], size: int, key: tuple[int, ...]) -> Iterator[np.ndarray]:
    for number in itertools.count():
        order = np.random.default_rng((*key, number)).permutation(images)
        yield from (order[start : start + size] for start in range(0, len(order) - size + 1, size))


def first_mixed_batches(agent: Agent, members: list[list[int]], share: int) -> list[np.ndarray]:
    """The batches of the first steps of a training: of an epoch, or 20 if it has fewer."""
    seed, size = agent.run.seed, agent.run.batch_size
    streams = [endless(images, share, (seed, 0, task)) for task, images in enumerate(members)]
    weights = np.array(agent.run.weights or [1.0] * len(members))
    num_steps = sum(len(images) // size for images in members)
    batches: list[np.ndarray] = []
    for epoch in itertools.count(1):
        shape = (num_steps, size // share)
        drawn = np.random.default_rng((seed, 1, epoch)).choice(len(members), shape, p=weights / weights.sum())
        if agent.run.tasks_per_step == "all":
            drawn = np.array([range(len(members))] * num_steps)
        batches += [np.concatenate([next(streams[task]) for task in step]) for step in drawn]
        if len(batches) >= 20:
            return batches if epoch == 1 else batches[:20]
    raise AssertionError


# The slow version: the network


def textbook(layers, values: torch.Tensor, statistics: dict, seen: dict) -> torch.Tensor:
    """What some layers make of images or features.

    Args:
        statistics: mean and variance of the normalisations that do not take those of the batch, by number.
        seen: gets the mean and the unbiased variance of the batch in each normalisation that does.
    """
    for number, layer in enumerate(layers):
        if isinstance(layer, nn.Conv2d):
            values = F.conv2d(values, layer.weight, layer.bias, layer.stride, padding=1)
        elif isinstance(layer, nn.Linear):
            values = values @ layer.weight.T + layer.bias
        elif isinstance(layer, nn.ReLU):
            values = values.clamp(min=0)
        else:
            rows = values.transpose(0, 1).flatten(1)
            mean, var = statistics.get(number, (rows.mean(dim=1), rows.var(dim=1, correction=0)))
            if number not in statistics:
                seen.setdefault(number, []).append((rows.mean(dim=1), rows.var(dim=1, correction=1)))
            shape = (-1, *[1] * (values.ndim - 2))
            scale = layer.weight / (var + layer.eps).sqrt()
            values = (values - mean.view(shape)) * scale.view(shape) + layer.bias.view(shape)
    return values


def averaged(layers, seen: dict) -> dict:
    """Mean over the batches of the statistics of those layers that keep any."""
    return {
        number: tuple(torch.stack(values).mean(dim=0) for values in zip(*pairs, strict=True))
        for number, pairs in seen.items()
        if layers[number].track_running_stats
    }


def sources_of(agent: Agent, members: list[list[int]]) -> list[tuple[list[int], int, list[int], int]]:
    """For each scored task: its numbers, its head, the images of its batches, the number of their stream."""
    data, setting = agent.data, agent.run.setting
    everything = list(range(len(data.train)))
    if setting == 0:
        return [(list(range(data.spec.num_classes)), 0, everything, 0)]
    if setting == 2:
        return [(data.tasks[agent.run.task].tolist(), 0, members[agent.run.task], 0)]
    rows = data.tasks.tolist()
    if setting in (3, 4):  # those that share all images share the stream of the first
        return [(row, task, members[task], members.index(members[task])) for task, row in enumerate(rows)]
    return [(row, 0 if setting == 1 else task, everything, 0) for task, row in enumerate(rows)]


@torch.no_grad()
def slow_scores(agent: Agent) -> tuple[list[list[bool]], list[float]]:
    """Which images of each task are answered rightly, and its mean loss, by the definition."""
    data, run, layers = agent.data, agent.run, agent.model.encoder.layers
    fixed = {}
    if isinstance(agent.model.encoder, FrozenEncoder):
        fixed = {1: (layers[1].running_mean, layers[1].running_var)}

    def features_of(split, images, statistics, seen) -> torch.Tensor:
        values = textbook(layers, split.batch(torch.tensor(images))[0], statistics, seen)
        return F.adaptive_avg_pool2d(values, 2).flatten(1)

    members = [
        [i for i, label in enumerate(data.train.labels.tolist()) if row[label] >= 0] for row in data.tasks
    ]
    slices = len(members) if run.tasks_per_step == "all" else run.tasks_per_step or 1
    share = run.batch_size // slices
    mixed = slices > 1 and run.normalisation == "together"
    settled = fixed
    if mixed:
        seen: dict[int, list] = {}
        for batch in first_mixed_batches(agent, members, share):
            features_of(data.train, batch, fixed, seen)
        settled = fixed | averaged(layers, seen)
    right, losses = [], []
    for numbers, number, images, stream in sources_of(agent, members):
        head, seen, seen_by_head = agent.model.heads[number], {}, {}
        for batch in first_batches(images, share, (run.seed, 0, stream)):
            textbook(head, features_of(data.train, batch, settled, seen), {}, seen_by_head)
        tested = [i for i, label in enumerate(data.test.labels.tolist()) if numbers[label] >= 0]
        features = features_of(data.test, tested, settled | averaged(layers, seen), {})
        logits = textbook(head, features, averaged(head, seen_by_head), {})
        labels = data.test.labels[tested].tolist()
        answers, loss = answers_and_loss(agent, logits, numbers, labels)
        right.append([answer == numbers[label] for answer, label in zip(answers, labels, strict=True)])
        losses.append(loss)
    return right, losses


def answers_and_loss(
    agent: Agent, logits: torch.Tensor, numbers: list[int], labels: list[int]
) -> tuple[list[int], float]:
    """The answers to a task, image by image, and the mean of -log of the right answer's probability."""
    answers, losses = [], []
    classes = [c for c, number in enumerate(numbers) if number >= 0]
    for row, label in zip(logits.double().tolist(), labels, strict=True):
        if agent.run.setting == 1:  # a logit per class, of which those of the task count
            answers.append(numbers[max(classes, key=row.__getitem__)])
            odds = [(numbers[c], math.exp(row[c])) for c in classes]
        else:
            answers.append(row.index(max(row)))
            odds = [(number, math.exp(logit)) for number, logit in enumerate(row)]
        of_right = sum(odd for number, odd in odds if number == numbers[label])
        losses.append(-math.log(of_right / sum(odd for _, odd in odds)))
    return answers, fmean(losses)


def decoded(right: str, count: int) -> list[bool]:
    """Which of a task's images are answered rightly."""
    bits = np.unpackbits(np.frombuffer(base64.b64decode(right), dtype=np.uint8))
    assert (len(bits) == -(-count // 8) * 8, bits[count:].any()) == (True, False)
    return bits[:count].astype(bool).tolist()


# Scores against the slow version

CASES = {
    "0, more than 20 batches": ("own", 0, {"batch_size": 4}),
    "0, fewer": ("own", 0, {"batch_size": 30}),
    "1": ("own", 1, {"batch_size": 30}),
    "1, classes that share an answer": ("cifar10", 1, {}),
    "2": ("own", 2, {"task": 1, "batch_size": 8}),
    "3": ("own", 3, {"batch_size": 16}),
    "3, more than 20 batches": ("own", 3, {"batch_size": 2}),
    "3, tasks that share all images": ("cifar10", 3, {}),
    "3, two together": ("own", 3, {"batch_size": 16, "tasks_per_step": 2}),
    "3, two together, more than 20 steps": ("own", 3, {"batch_size": 4, "tasks_per_step": 2}),
    "3, two together that share all images": ("cifar10", 3, {"tasks_per_step": 2}),
    "3, all": ("own", 3, {"batch_size": 15, "tasks_per_step": "all"}),
    "3, two apart": ("own", 3, {"batch_size": 16, "tasks_per_step": 2, "normalisation": "apart"}),
    "3, all apart": ("own", 3, {"batch_size": 15, "tasks_per_step": "all", "normalisation": "apart"}),
    "3, classes that belong in many ways": ("ways", 3, {"batch_size": 16}),
    "4, another seed": ("own", 4, {"batch_size": 16, "seed": 5}),
    "4, a task without a full batch": ("own", 4, {"batch_size": 30, "weights": [1, 2, 0]}),
    "4, four together": ("own", 4, {"batch_size": 16, "tasks_per_step": 4}),
    "4, four together, a task of few images": (
        "few", 4, {"batch_size": 24, "tasks_per_step": 4, "weights": [1, 2, 0]}
    ),
    "5": ("cifar10", 5, {}),
    "6": ("cifar10", 6, {"augment": True}),
}  # fmt: skip


def trained(data: DataSet, setting: int, encoder: type = SmallEncoder, **options) -> Agent:
    """An agent after a few steps, in mid-epoch."""
    agent = make(setting, data, small(encoder), lr=0.02, **options)
    agent.train_steps(min(4, agent.plan.steps_per_epoch))
    return agent


@pytest.mark.parametrize("case", CASES)
def test_scores_as_trained_are_those_of_a_slow_version_batch_by_batch(data, case):
    name, setting, options = CASES[case]
    agent = trained(data[name], setting, **options)
    right, losses = slow_scores(agent)
    scores = agent.evaluate_as_trained()
    assert scores.loss == pytest.approx(losses, rel=2e-4)
    assert [decoded(bits, len(row)) for bits, row in zip(scores.right, right, strict=True)] == right
    assert scores.accuracy == pytest.approx([np.mean(row) for row in right])
    assert scores.loss != pytest.approx(agent.evaluate().loss, rel=1e-2)
    assert agent.evaluate_as_trained() == scores


@pytest.mark.parametrize("encoder", [DropoutEncoder, FrozenEncoder, BatchEncoder])
@pytest.mark.parametrize("tasks_per_step", [1, 2])
def test_only_layers_that_train_and_keep_statistics_get_new_ones(data, encoder, tasks_per_step):
    agent = trained(data["two"], 3, encoder, batch_size=16, tasks_per_step=tasks_per_step)
    right, losses = slow_scores(agent)
    scores = agent.evaluate_as_trained()
    assert scores.loss == pytest.approx(losses, rel=2e-4)
    assert [decoded(bits, len(row)) for bits, row in zip(scores.right, right, strict=True)] == right


def test_the_statistics_are_computed_in_the_precision_of_the_run(own):
    agent = trained(own, 3, batch_size=16, precision="bf16")
    computed = set()
    agent.model.encoder.register_forward_hook(lambda _, __, made: computed.add(made.dtype))
    assert agent.evaluate_as_trained().loss != trained(own, 3, batch_size=16).evaluate_as_trained().loss
    assert computed == {torch.bfloat16}


@pytest.mark.parametrize("tasks_per_step", [1, 2])
def test_tasks_that_share_all_images_share_the_pass(cifar10, tasks_per_step):
    agent = make(3, cifar10, tasks_per_step=tasks_per_step)
    seen = []
    agent.model.encoder.register_forward_hook(lambda _, images, __: seen.append(len(images[0])))
    agent.evaluate_as_trained()
    mixed = 100 if tasks_per_step == 2 else 0  # an epoch of ten tasks, each of 320 images
    assert seen == [32] * mixed + [32 // tasks_per_step] * 20 + [160]


@pytest.mark.parametrize("tasks_per_step", [1, 2])
def test_heads_without_statistics_are_shown_no_batch(own, tasks_per_step):
    agent = make(
        3,
        own,
        partial(Model, encoder=SmallEncoder, head=nn.Linear),
        batch_size=16,
        tasks_per_step=tasks_per_step,
    )
    seen, answered = [], []
    agent.model.encoder.register_forward_hook(lambda _, images, __: seen.append(len(images[0])))
    for head in agent.model.heads:
        head.register_forward_hook(lambda _, features, __: answered.append(len(features[0])))
    agent.evaluate_as_trained()
    tests = [int((own.tasks[task][own.test.labels] >= 0).sum()) for task in range(3)]
    assert sum(answered) == sum(tests)
    batches = 3 * [16] * 20 if tasks_per_step == 1 else [16] * 20  # of each task, or of mixed steps
    assert sum(seen) == sum(batches) + sum(tests)


def test_one_training_image_at_the_end_is_enough(tmp_path):
    table = [[0, 1, -1, -1], [-1, -1, 0, 1]]
    file = write_data(tmp_path / "one.npz", [20, 20, 1, 1], size=8, tasks=table)
    data = load(make_run("train", {"data": file, "setting": 3, "batch_size": 2}).spec, Path(), 8, CPU)
    keep = data.train.labels < 3
    rest = Split(data.train.images[keep, :, ::2, ::2], data.train.labels[keep], data.spec)
    test = Split(data.test.images[:, :, ::2, ::2], data.test.labels, data.spec)
    agent = make(4, replace(data, train=rest, test=test), batch_size=16, weights=[1, 0])
    assert [len(source.images) for source in agent.plan.sources] == [40, 1]
    scores = agent.evaluate_as_trained()  # its last maps have one pixel
    assert all(0 <= share <= 1 for share in scores.accuracy)
    assert None not in scores.loss


@pytest.mark.parametrize("case", ["0, fewer", "3", "3, two together", "3, all apart"])
def test_they_change_nothing_even_if_they_are_stopped(data, case):
    name, setting, options = CASES[case]
    agent = trained(data[name], setting, DrawingEncoder, **options)
    tensors = {**agent.model.state_dict(keep_vars=True)}
    before = {name: (tensor.clone(), tensor.stride()) for name, tensor in tensors.items()}
    layers = [layer for layer in agent.model.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    layers[1].momentum = 0.25
    generator = torch.get_rng_state()
    calls = []
    agent.evaluate_as_trained(pause=lambda: calls.append(1))
    for training, stop in itertools.product((True, False), (1, 21, len(calls), None)):
        left = itertools.repeat(None) if stop is None else iter(range(stop - 1))

        def pause(left=left) -> None:
            if next(left, "over") == "over":
                raise KeyboardInterrupt

        agent.model.train(training)
        if stop is None:
            agent.evaluate_as_trained(pause=pause)
        else:
            with pytest.raises(KeyboardInterrupt):
                agent.evaluate_as_trained(pause=pause)
        after = agent.model.state_dict(keep_vars=True)
        assert all(after[name] is tensor for name, tensor in tensors.items())
        for name, (value, stride) in before.items():
            assert torch.equal(after[name], value)
            assert after[name].stride() == stride
        assert torch.equal(torch.get_rng_state(), generator)
        assert {module.training for module in agent.model.modules()} == {training}
        assert [layer.momentum for layer in layers] == [0.25 if i == 1 else 0.1 for i in range(len(layers))]


def test_training_goes_on_as_without_them(own):
    def weights(scored: bool) -> bytes:
        agent = trained(own, 3, DropoutEncoder, batch_size=16, tasks_per_step=2)
        if scored:
            agent.evaluate_as_trained()
        agent.train_steps(3)
        return b"".join(value.numpy().tobytes() for value in agent.model.state_dict().values())

    assert weights(scored=True) == weights(scored=False)


class NoNormHead(nn.Linear):
    """A head without normalisation."""

    def __init__(self, num_features: int, num_classes: int, num_hidden: int) -> None:
        super().__init__(num_features, num_classes)


def test_there_are_none_without_batch_normalisation(cifar10, own):
    plain = partial(Model, encoder=PlainEncoder, head=NoNormHead, num_hidden=8)
    for setting in (0, 1, 2, 3, 5):
        task = 1 if setting == 2 else None
        assert make(setting, cifar10, plain, task=task).evaluate_as_trained() is None
    assert make(3, cifar10, partial(NARROW, encoder=PlainEncoder)).evaluate_as_trained() is not None
    assert make(3, cifar10, partial(NARROW, head=NoNormHead)).evaluate_as_trained() is not None
    assert make(3, own, batch_size=16, normalisation="group").evaluate_as_trained() is None


@pytest.mark.parametrize(("name", "setting"), [("own", 3), ("ways", 3), ("cifar10", 1), ("cifar100", 0)])
@torch.inference_mode()
def test_the_images_that_are_answered_rightly_as_usual_are_those_recorded(data, name, setting):
    agent = trained(data[name], setting, batch_size=16)
    scores, model = agent.evaluate(), copy.deepcopy(agent.model).eval()
    features = model.encoder(agent.data.test.batch(torch.arange(len(agent.data.test)))[0])
    labels = agent.data.test.labels.tolist()
    table = agent.data.tasks.tolist() if setting else [list(range(100))]
    for task, numbers in enumerate(table):
        head = model.heads[task if setting == 3 else 0]
        members = [i for i, label in enumerate(labels) if numbers[label] >= 0]
        answers, loss = answers_and_loss(
            agent, head(features[members]), numbers, [labels[i] for i in members]
        )
        right = [answer == numbers[labels[i]] for answer, i in zip(answers, members, strict=True)]
        assert decoded(scores.right[task], len(members)) == right
        assert scores.accuracy[task] == sum(right) / len(right)
        assert scores.loss[task] == pytest.approx(loss, rel=1e-4)


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


def said(again: Sequence[float], usual: Sequence[float], kind: str = "accuracy") -> str:
    """What a run says of accuracies as trained and as usual."""
    over = f"mean {kind} over {len(again)} tasks" if len(again) > 1 else kind
    return (
        "as trained (batch-norm statistics of batches like those of training, see docs/files.md): "
        f"{over} {fmean(again):.4f}, as usual {fmean(usual):.4f}"
    )


@pytest.mark.parametrize(("as_trained", "is_far"), [(0.56, True), (0.54, False), (0.3, False), (None, False)])
def test_an_accuracy_as_usual_that_is_far_lower_is_explained(capfd, as_trained, is_far):
    again = None if as_trained is None else [as_trained - 0.1, as_trained + 0.1]
    print_scores(["a", "b"], [0.4, 0.6], [0.5, 0.5], again, "test")
    assert ("as usual is far lower" in capfd.readouterr().err) == is_far


def scored(path: Path, file: Path, slow_setting: int | None = None, **more: object) -> list[list[bool]]:
    """Which images the model of a run answers rightly as trained, by the slow version.

    Args:
        slow_setting: the setting whose tasks are scored; default: that of the run.
        more: other options than the model was trained with.
    """
    content = torch.load(path / "model.pt", weights_only=True)
    names = ("setting", "batch_size", "seed", "tasks_per_step", "normalisation", "weights", "task")
    given = {name: content["options"][name] for name in names}
    if slow_setting is not None:
        given |= {"setting": slow_setting}
    run = make_run("train", {"data": file, "validation": content["options"]["validation"]} | given)
    agent = make(data=load(run.spec, Path(), 8, CPU, **more), **given)
    agent.model.load_state_dict(content["model"])
    return slow_scores(agent)[0]


@pytest.mark.parametrize("options", [(), ("--validation", 0.25)], ids=["test", "validation"])
@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_records_them_and_an_evaluation_says_the_same(program, own_file, tmp_path, options, steps):
    common = ("--data", own_file, "--save_path", tmp_path)
    training = ("--setting", 4, "--batch_size", 8, "--epochs", 2, "--lr", 0.02, "--tasks_per_step", steps)
    trained = program("--train", *common, *training, *options, "--save_history", "--resume")
    history = history_of(tmp_path)
    again, last = history["as_trained"], history["epochs"][-1]
    assert set(again) == {"accuracy", "balanced_accuracy", "right"}
    line = said(again["accuracy"], last["accuracy"], "validation accuracy" if options else "accuracy")
    right = scored(tmp_path, own_file)
    assert [decoded(bits, len(row)) for bits, row in zip(again["right"], right, strict=True)] == right
    assert again["accuracy"] == [fmean(row) for row in right]
    for accuracy, bits, row in zip(last["accuracy"], history["right"], right, strict=True):
        assert fmean(decoded(bits, len(row))) == pytest.approx(accuracy)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = [trained, program("--train", *common, *training, *options, "--save_history", "--resume")]
    other_ways = (
        (),
        ("--setting", 4, "--batch_size", 5),
        ("--setting", 3, "--tasks_per_step", 7),
        ("--seed", 3),
    )
    done += [program("--eval", *common, "--setting", 3, *more) for more in other_ways]
    for each in done:
        assert (each.code, each.out) == (0, trained.out)
        assert each.err.splitlines().count(line) == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(("trained_in", "scored_in"), [(0, 1), (1, 0)])
def test_an_evaluation_in_another_setting_keeps_the_batches_of_the_training(
    program, own_file, tmp_path, trained_in, scored_in
):
    common = ("--data", own_file, "--save_path", tmp_path)
    training = ("--setting", trained_in, "--batch_size", 30, "--epochs", 2, "--lr", 0.05, "--seed", 2)
    assert program("--train", *common, *training, "--save_model", "--save_history").code == 0
    evaluated = program("--eval", *common, "--setting", scored_in)
    right = scored(tmp_path, own_file, scored_in)
    usual = json.loads(evaluated.accuracy.removeprefix("Accuracy: "))
    usual = usual if isinstance(usual, list) else [usual]
    assert said([fmean(row) for row in right], usual) in evaluated.err.splitlines()


def test_a_model_of_sampled_tasks_is_scored_as_trained_in_the_setting_of_summed_losses_too(program, tmp_path):
    file = write_data(tmp_path / "shared.npz", [30, 20, 14], size=8)
    for setting, batch_size in ((3, 8), (5, 32)):
        common = ("--data", file, "--save_path", tmp_path / str(setting))
        training = ("--setting", setting, "--batch_size", batch_size, "--epochs", 1, "--lr", 0.02)
        assert program("--train", *common, *training, "--save_model", "--save_history").code == 0
        history = history_of(tmp_path / str(setting))
        line = said(history["as_trained"]["accuracy"], history["epochs"][-1]["accuracy"])
        for other in (3, 4, 5, 6):
            assert line in program("--eval", *common, "--setting", other).err.splitlines()


def test_images_that_training_held_out_are_not_used_to_score_on_test_images(program, own_file, tmp_path):
    common = ("--data", own_file, "--save_path", tmp_path, "--setting", 3)
    training = ("--batch_size", 8, "--epochs", 1, "--lr", 0.02, "--validation", 0.4)
    assert program("--train", *common, *training, "--save_model").code == 0
    evaluated = program("--eval", *common, "--validation", 0)
    right = scored(tmp_path, own_file, on_test=True)
    assert [len(row) for row in right] == [15 + 10 + 12, 12 + 7, 7 + 3]
    usual = json.loads(evaluated.accuracy.removeprefix("Accuracy: "))
    line = said([fmean(row) for row in right], usual)
    assert line in evaluated.err.splitlines()
    whole = load(make_run("train", {"data": own_file, "setting": 3, "batch_size": 8}).spec, Path(), 8, CPU)
    agent = make(3, whole, batch_size=8)
    agent.model.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True)["model"])
    assert said([fmean(row) for row in slow_scores(agent)[0]], usual) != line


def test_a_single_task_has_one_number_and_a_network_without_normalisation_none(program, own_file, tmp_path):
    options = ("--setting", 2, "--task", 0, "--data", own_file, "--batch_size", 16, "--epochs", 1)
    for name, more in (("usual", ()), ("group", ("--normalisation", "group"))):
        path = tmp_path / name
        trained = program("--train", *options, *more, "--save_history", "--save_path", path)
        assert trained.code == 0
        history = history_of(path)
        if more:
            assert history["as_trained"] is None
            assert "as trained" not in trained.err
        else:
            line = said(history["as_trained"]["accuracy"], history["epochs"][-1]["accuracy"])
            assert line in trained.err.splitlines()
        assert len(history["right"]) == 1


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
    assert (first["as_trained"], first["right"]) != (whole[1]["as_trained"], whole[1]["right"])


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
        assert "after the last epoch, before scoring with batch-norm statistics" in str(raised.value)
        assert "--resume continues from there" in str(raised.value)
    history, model = history_of(tmp_path), (tmp_path / "model.pt").read_bytes()
    found = [history[name] for name in ("finished", "as_trained", "right")]
    assert (found, len(history["epochs"])) == ([False, None, None], 2)
    capsys.readouterr()
    start(tmp_path, own_file)
    assert "resuming after epoch" not in capsys.readouterr().err
    assert result_of(tmp_path) == whole
    assert None not in (whole[1]["as_trained"], whole[1]["right"])
    assert (tmp_path / "model.pt").read_bytes() == model
    assert [session["epoch"] for session in history_of(tmp_path)["sessions"]] == [0, 2]


def test_a_run_without_a_model_that_is_stopped_before_them_says_what_it_takes(own_file, tmp_path):
    with pytest.raises(Stopped, match=r"saved the history in .*; resuming takes --save_model"):
        start(tmp_path, own_file, StopIn(tmp_path, Stopped(signal.SIGTERM)), resume=False)


@pytest.mark.processes
def test_a_run_killed_in_the_middle_of_them_is_resumed(own_file, tmp_path):
    options = ("--data", str(own_file), "--epochs", "1")
    path = tmp_path / "run"
    kill = ("as_trained", 300, (signal.SIGKILL,))
    assert Training(path, "3", *options, disturbance=kill).code == -signal.SIGKILL
    assert history_of(path)["finished"] is False
    resumed = Training(path, "3", *options)
    assert resumed.code == 0
    assert "as trained (batch-norm" in resumed.output
    history = history_of(path)
    assert (history["finished"], len(history["epochs"])) == (True, 1)
    assert history["as_trained"]["accuracy"]


def test_an_extension_that_ends_between_its_model_and_its_history_gets_its_history(own_file, tmp_path, whole):
    start(tmp_path, own_file, epochs=1)
    before = (tmp_path / "history.json").read_bytes()
    start(tmp_path, own_file, epochs=2)
    (tmp_path / "history.json").write_bytes(before)
    start(tmp_path, own_file, epochs=2)
    assert result_of(tmp_path) == whole


HALF = {"accuracy": [0.5] * 3, "balanced_accuracy": [0.5] * 3}


def test_what_an_old_program_re_estimated_of_the_encoder_alone_is_read_past(own_file, tmp_path):
    start(tmp_path, own_file, epochs=1)
    path, content = tmp_path / "history.json", history_of(tmp_path)
    del content["as_trained"], content["right"]
    path.write_text(json.dumps(content | {"own_statistics": HALF}))
    history = read_history(path, OPTIONS)
    assert (history.as_trained, history.right) == (None, None)
    assert "own_statistics" not in vars(history)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"as_trained": wrong} for wrong in (3, [], {}, {"accuracy": [0.5] * 3}, HALF)),
        {"as_trained": HALF | {"right": ["AA=="] * 2}},
        {"as_trained": HALF | {"balanced_accuracy": [0.5] * 2, "right": ["AA=="] * 3}},
        {"as_trained": HALF | {"right": ["?"] * 3}},
        {"right": ["AA=="] * 2},
        {"right": [3] * 3},
    ],
)
def test_a_history_with_wrong_ones_is_refused(own_file, tmp_path, wrong):
    start(tmp_path, own_file, epochs=1)
    path, content = tmp_path / "history.json", history_of(tmp_path)
    path.write_text(json.dumps(content | {"as_trained": HALF | {"right": ["AA=="] * 3}}))
    read_history(path, OPTIONS)
    path.write_text(json.dumps(content | wrong))
    with pytest.raises(ValueError, match="is not a history"):
        read_history(path, OPTIONS)
