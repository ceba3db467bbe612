"""Augmentation and AdamW against slow and obvious versions."""

import copy
import io
import json
import math

import numpy as np
import pytest
import torch
from helpers import NARROW, error_line, make, one_line, result_of, train_epochs, write_data
from test_agents import LearntAgent, StopAfter

from agents import Agent
from data import DataSet, augmented
from options import OPTIONS, grouping, make_run, read_options
from running.stopping import Stopped
from running.training import train

# Augmentation


def slow_augmented(images: torch.Tensor, key: tuple[int, ...]) -> torch.Tensor:
    """Image by image: a window of the image in a frame of zeros, maybe from right to left."""
    random = np.random.default_rng(key)
    count, channels, side, _ = images.shape
    margin = max(1, side // 8)
    downs, rights = random.integers(0, 2 * margin + 1, (2, count, 1))[:, :, 0]
    mirrored = random.integers(0, 2, count) if channels == 3 else np.zeros(count)
    made = []
    for image, down, right, mirror in zip(images.numpy(), downs, rights, mirrored, strict=True):
        framed = np.zeros((channels, side + 2 * margin, side + 2 * margin), dtype=np.float32)
        framed[:, margin : margin + side, margin : margin + side] = image
        window = framed[:, down : down + side, right : right + side]
        made.append(torch.from_numpy((window[:, :, ::-1] if mirror else window).copy()))
    return torch.stack(made)


@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 32), (3, 8), (3, 4), (1, 17)])
def test_images_are_augmented_as_by_a_loop_over_them(channels, side):
    images = torch.randn(30, channels, side, side)
    before = images.clone()
    got = augmented(images, (1, 2, 3))
    assert torch.equal(got, slow_augmented(images, (1, 2, 3)))
    assert torch.equal(images, before)
    assert got.dtype == torch.float32
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert not torch.equal(got, augmented(images, (1, 2, 4)))


@pytest.mark.parametrize(("channels", "side", "margin"), [(3, 32, 4), (1, 32, 4), (3, 4, 1), (3, 17, 2)])
def test_every_place_comes_up_and_half_of_the_images_are_mirrored_if_they_have_colour(channels, side, margin):
    places = torch.arange(1.0, 1 + side * side).view(1, 1, side, side)
    corners, mirrored = [], 0
    middle = slice(margin, margin + side - 2 * margin)  # which every window has some of
    for image in augmented(places.expand(4000, channels, side, side), (7,)):
        assert all(torch.equal(image[0], other) for other in image)
        row = image[0, side // 2]
        shown = row[row > 0]
        backwards = bool(shown[0] > shown[-1])
        mirrored += backwards
        unmirrored = image[0].flip(1) if backwards else image[0]
        first = int(unmirrored[middle.start, middle.start]) - 1
        corners.append((first // side - middle.start, first % side - middle.start))
    assert {down for down, _ in corners} == set(range(-margin, margin + 1))
    assert {right for _, right in corners} == set(range(-margin, margin + 1))
    assert len(set(corners)) > 0.9 * min(4000, (2 * margin + 1) ** 2)
    assert 1800 < mirrored < 2200 if channels == 3 else mirrored == 0


def seen_by(agent: Agent) -> list[torch.Tensor]:
    """A list that gets the images that the encoder gets in training."""
    seen: list[torch.Tensor] = []

    def see(encoder, images) -> None:
        if encoder.training:
            seen.append(images[0].clone())

    agent.model.encoder.register_forward_pre_hook(see)
    return seen


@pytest.mark.parametrize(("setting", "options"), [(0, {}), (3, {"tasks_per_step": 4}), (5, {})])
def test_the_seed_the_epoch_and_the_step_decide_how_images_are_augmented(cifar10, setting, options):
    agent = make(setting, cifar10, augment=True, seed=3, lr=0.01, batch_size=160, **options)
    seen, per_epoch = seen_by(agent), agent.plan.steps_per_epoch
    train_epochs(agent, 1)
    agent.train_steps(2)
    for epoch, step in ((0, 0), (0, 1), (1, 1)):
        plain = cifar10.train.batch(torch.from_numpy(agent.plan.indices(epoch + 1)[step]))[0]
        assert torch.equal(seen[epoch * per_epoch + step], slow_augmented(plain, (3, 2, epoch, step)))


def test_images_are_augmented_before_they_are_encoded_apart(cifar10):
    agent = make(3, cifar10, augment=True, tasks_per_step=4, normalisation="apart", seed=1)
    seen, drawn = seen_by(agent), agent.plan.sampled(1)[0].tolist()
    agent.train_steps(1)
    plain = cifar10.train.batch(torch.from_numpy(agent.plan.indices(1)[0]))[0]
    slices = slow_augmented(plain, (1, 2, 0, 0)).split(8)
    for task, images in zip(dict.fromkeys(drawn), seen, strict=True):
        expected = [part for other, part in zip(drawn, slices, strict=True) if other == task]
        assert torch.equal(images, torch.cat(expected))


@pytest.mark.parametrize("loss", ["mean", "famo"])
def test_an_augmented_run_that_is_resumed_ends_with_the_same_bits(cifar10, loss):
    pytest.importorskip("torchjd")

    def agent() -> Agent:
        return make(5, cifar10, augment=True, loss=loss, batch_size=64, lr=0.05, momentum=0.5)

    whole, parts, plain = agent(), agent(), make(5, cifar10, loss=loss, batch_size=64, lr=0.05, momentum=0.5)
    train_epochs(whole, 1)
    whole.train_steps(4)
    train_epochs(parts, 1)
    parts.train_steps(2)
    resumed, file = agent(), io.BytesIO()
    torch.save([parts.model.state_dict(), parts.state()], file)
    file.seek(0)
    resumed.resume(*torch.load(file, weights_only=True))
    resumed.train_steps(2)
    train_epochs(plain, 1)
    plain.train_steps(4)
    states = [agent.model.state_dict() for agent in (whole, resumed, plain)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not torch.equal(states[0]["encoder.layers.0.weight"], states[2]["encoder.layers.0.weight"])
    assert torch.equal(whole.losses[:4], resumed.losses[:4])


def test_a_second_look_at_a_step_sees_the_same_images(cifar10):
    pytest.importorskip("torchjd")
    agent = make(5, cifar10, augment=True, loss="famo")
    seen = seen_by(agent)
    agent.train_steps(3)
    assert len(seen) == 6
    assert all(torch.equal(seen[i], seen[i + 1]) for i in (0, 2, 4))
    assert not torch.equal(seen[0], seen[2])


@pytest.mark.parametrize(
    ("setting", "options"),
    [
        (0, {}),
        (3, {}),
        (3, {"tasks_per_step": 4}),
        (3, {"tasks_per_step": 4, "normalisation": "apart"}),
        (5, {}),
    ],
)
def test_tests_and_statistics_take_images_as_they_are(cifar10, setting, options):
    agents = [make(setting, cifar10, augment=augment, **options) for augment in (True, False)]
    agents[0].train_steps(5)
    agents[1].model.load_state_dict(agents[0].model.state_dict())
    assert agents[0].evaluate() == agents[1].evaluate()
    assert agents[0].evaluate_as_trained() == agents[1].evaluate_as_trained()


def test_augmentation_is_recorded_and_insisted_on(program, tmp_path):
    file = write_data(tmp_path / "own.npz", [16, 16], size=8)
    common = ("--train", "--data", file, "--setting", 0, "--batch_size", 8, "--save_path", tmp_path)
    common += ("--resume", "--save_history")
    assert program(*common, "--epochs", 1, "--augment").code == 0
    assert json.loads((tmp_path / "history.json").read_text())["options"]["augment"] is True
    assert "with --augment, not without --augment" in error_line(program(*common, "--epochs", 2))
    assert program(*common, "--epochs", 2, "--augment").code == 0
    recorded = [make_run("train", {"setting": 0, "augment": given}).recorded for given in (True, False)]
    assert grouping(OPTIONS, recorded[0]) != grouping(OPTIONS, recorded[1])
    older = {name: value for name, value in recorded[1].items() if name != "augment"}
    assert read_options(older, OPTIONS) == recorded[1]


# AdamW


@torch.no_grad()
def assert_steps_are_adamw(
    agent: Agent, parameters: dict[str, torch.Tensor], rates: list[float], decays: dict
):
    """Train some steps, each of which must move every parameter as the paper says.

    Args:
        parameters: the parameters by name.
        rates: learning rate of each step.
        decays: weight decay of each parameter.
    """
    means = {name: torch.zeros_like(value) for name, value in parameters.items()}
    squares, times = copy.deepcopy(means), dict.fromkeys(parameters, 0)
    for rate in rates:
        before = {name: value.clone() for name, value in parameters.items()}
        with torch.enable_grad():
            agent.train_steps(1)
        for name, value in parameters.items():
            if value.grad is None:
                assert torch.equal(value, before[name])
                continue
            times[name] += 1
            means[name] = 0.9 * means[name] + 0.1 * value.grad
            squares[name] = 0.999 * squares[name] + 0.001 * value.grad**2
            mean, square = means[name] / (1 - 0.9 ** times[name]), squares[name] / (1 - 0.999 ** times[name])
            expected = before[name] * (1 - rate * decays[name]) - rate * mean / (square.sqrt() + 1e-8)
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("setting", "options"),
    [
        (5, {}),
        (5, {"weight_decay": 0.5}),
        (0, {"schedule": "cosine", "epochs": 1, "weight_decay": 0.1}),
        (3, {"weight_decay": 0.1}),  # heads are first trained at different steps
    ],
)
def test_adamw_moves_each_parameter_as_its_paper_says(cifar10, setting, options):
    agent = make(setting, cifar10, optimizer="adamw", lr=0.02, **options)
    total = agent.plan.steps_per_epoch
    rates = [
        0.02 * ((1 + math.cos(math.pi * i / total)) / 2 if "schedule" in options else 1) for i in range(5)
    ]
    parameters = dict(agent.model.named_parameters())
    assert_steps_are_adamw(
        agent, parameters, rates, dict.fromkeys(parameters, options.get("weight_decay", 0))
    )


def test_adamw_does_not_decay_what_combines_the_losses(cifar10):
    options = {"setting": 5, "batch_size": 32, "optimizer": "adamw", "lr": 0.05, "weight_decay": 0.5}
    agent = LearntAgent(cifar10, make_run("train", options, spec=cifar10.spec), NARROW)
    parameters = {**dict(agent.model.named_parameters()), **dict(agent.combiner.named_parameters())}
    decays = {name: 0.0 if name == "log_variances" else 0.5 for name in parameters}
    assert_steps_are_adamw(agent, parameters, [0.05] * 4, decays)
    assert agent.combiner.log_variances.any()


def test_a_run_of_adamw_that_stops_before_every_head_was_trained_ends_with_the_same_bits(tmp_path):
    table = [[0, 1, -1, -1], [-1, -1, 0, 1], [0, -1, 1, -1], [-1, 0, -1, 1]]
    file = write_data(tmp_path / "own.npz", [16, 12, 14, 8], size=8, tasks=table)

    def start(path, steps: int) -> None:
        options = {"data": file, "setting": 3, "batch_size": 8, "optimizer": "adamw", "weight_decay": 0.1}
        options |= {"epochs": 2, "save_path": tmp_path / path, "resume": True, "save_history": True}
        train(make_run("train", options), StopAfter(steps), NARROW, 3600)

    start("whole", 10**9)
    with pytest.raises(Stopped):
        start("parts", 2)
    state = torch.load(tmp_path / "parts" / "model.pt", weights_only=True)["training"]
    steps = [buffers["step"].item() for buffers in state["optimizer"]["state"].values()]
    assert {0.0, 2.0} <= set(steps)
    start("parts", 10**9)
    assert result_of(tmp_path / "parts") == result_of(tmp_path / "whole")


def test_a_stopped_run_of_adamw_goes_on_as_one_in_one_go(cifar100):
    def agent(data: DataSet) -> Agent:
        return make(4, data, optimizer="adamw", tasks_per_step=2, seed=6)

    whole, parts, resumed = (agent(cifar100) for _ in range(3))
    whole.train_steps(12)
    parts.train_steps(4)
    trained = set(parts.plan.sampled(1)[:4].ravel().tolist())
    assert set(parts.plan.sampled(1)[4:12].ravel().tolist()) - trained
    resumed.resume(copy.deepcopy(parts.model.state_dict()), copy.deepcopy(parts.state()))
    resumed.train_steps(8)
    values = zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True)
    assert all(torch.equal(*pair) for pair in values)


def test_momentum_is_refused_beside_adamw_and_recorded_as_null(program):
    for momentum in (0, 0.9):
        refused = program("--train", "--optimizer", "adamw", "--momentum", momentum)
        assert (refused.code, one_line(refused)) == (2, True)
        assert "--momentum does not go with --optimizer adamw" in refused.err
    adamw, sgd = (make_run("train", {"optimizer": name}).recorded for name in ("adamw", "sgd"))
    assert (adamw["momentum"], sgd["momentum"]) == (None, 0.0)
    assert read_options(adamw, OPTIONS) == adamw
    with pytest.raises(ValueError, match=r"^options\.momentum is 0\.9$"):
        read_options(adamw | {"momentum": 0.9}, OPTIONS)


def test_each_optimizer_has_a_learning_rate_of_its_own():
    for given, expected in (({}, 0.1), ({"optimizer": "sgd"}, 0.1), ({"optimizer": "adamw"}, 0.001)):
        assert make_run("train", given).lr == expected
        assert make_run("train", given | {"lr": 0.05}).lr == 0.05


def test_another_optimizer_is_refused_by_a_run_that_goes_on(program, tmp_path):
    file = write_data(tmp_path / "own.npz", [16, 16], size=8)
    common = (
        "--train",
        "--data",
        file,
        "--setting",
        0,
        "--batch_size",
        8,
        "--save_path",
        tmp_path,
        "--resume",
    )
    assert program(*common, "--epochs", 1, "--optimizer", "adamw").code == 0
    refused = error_line(program(*common, "--epochs", 2))
    for words in ("--optimizer adamw, not --optimizer sgd", "--lr 0.001, not --lr 0.1"):
        assert words in refused
    assert program("--eval", "--data", file, "--setting", 0, "--save_path", tmp_path).code == 0
