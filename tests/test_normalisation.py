"""What is normalised together in a training step, against slow versions."""

import copy
import json
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers import NARROW, NUM_HIDDEN, SmallEncoder, assert_descended, error_line, make, one_line, write_data
from torch import nn

from agents import Agent
from models import BATCH_NORMALISATION, Dimensions, Model, encode_apart, make_model, normalise_by_groups
from options import make_run
from settings import ENCODERS, HEADS, SETTINGS

TABLE = [[0, 1, 2, -1, -1], [-1, -1, 0, 1, -1], [-1, -1, -1, 0, 1]]


def norms(module: nn.Module) -> list:
    """The batch normalisations, in order."""
    return [layer for layer in module.modules() if isinstance(layer, BATCH_NORMALISATION)]


# Apart


def separate_steps(agent: Agent, step: int) -> tuple[Model, dict[int, tuple[float, Model]]]:
    """The mean of the steps that each sampled task would make by itself.

    Returns:
        a copy of the model with the mean of the gradients; for each task its share of the batch and a copy
        whose running statistics are those of its images.
    """
    drawn = agent.plan.sampled(1)[step].tolist()
    images = torch.from_numpy(agent.plan.indices(1)[step]).view(len(drawn), -1)
    mean, alone = copy.deepcopy(agent.model), {}
    for task in dict.fromkeys(drawn):
        places = [place for place, other in enumerate(drawn) if other == task]
        inputs, labels = agent.data.train.batch(images[places].flatten())
        network, share = copy.deepcopy(agent.model), len(places) / len(drawn)
        for layer in norms(network):
            layer.momentum = 1.0  # so that the running statistics are the batch's
        loss = F.cross_entropy(network.heads[task](network.encoder(inputs)), agent.data.tasks[task][labels])
        loss.backward()
        alone[task] = share, network
        for into, parameter in zip(mean.parameters(), network.parameters(), strict=True):
            if parameter.grad is not None:
                into.grad = (0 if into.grad is None else into.grad) + share * parameter.grad
    return mean, alone


@pytest.mark.parametrize(
    ("setting", "options"),
    [
        (3, {"tasks_per_step": 2, "seed": 28}),
        (4, {"tasks_per_step": 8}),
        (3, {"tasks_per_step": "all", "batch_size": 80}),
        (3, {"tasks_per_step": 4, "seed": 8, "momentum": 0.5}),
    ],
)
def test_a_step_apart_has_the_mean_gradient_and_mean_statistics_of_separate_steps(cifar100, setting, options):
    agent = make(setting, cifar100, normalisation="apart", lr=0.25, **options)
    draws = agent.plan.sampled(1).tolist()
    twice = [len(set(drawn)) < len(drawn) for drawn in draws]
    steps = range(twice.index(True) + 1) if True in twice else range(2)
    assert (True in twice) == (options["tasks_per_step"] != "all")
    agent.train_steps(0)
    for step in steps:
        before = copy.deepcopy(agent.model)
        mean, alone = separate_steps(agent, step)
        agent.train_steps(1)
        if "momentum" not in options:
            assert_descended(agent, mean, 0.25)
        for parameter, expected in zip(agent.model.parameters(), mean.parameters(), strict=True):
            grads = [0 * parameter if each.grad is None else each.grad for each in (parameter, expected)]
            torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-5)
        each = [(share, norms(network.encoder)) for share, network in alone.values()]
        for number, (now, was) in enumerate(
            zip(norms(agent.model.encoder), norms(before.encoder), strict=True)
        ):
            for name in ("running_mean", "running_var"):
                found = sum(share * getattr(layers[number], name) for share, layers in each)
                expected = 0.9 * getattr(was, name) + 0.1 * found
                torch.testing.assert_close(getattr(now, name), expected, rtol=1e-4, atol=1e-6)
            assert now.momentum == 0.1
        for task, (now, was) in enumerate(zip(norms(agent.model.heads), norms(before.heads), strict=True)):
            expected = was.running_mean
            if task in alone:
                expected = 0.9 * expected + 0.1 * norms(alone[task][1].heads[task])[0].running_mean
            torch.testing.assert_close(now.running_mean, expected, rtol=1e-4, atol=1e-5)


def test_apart_runs_the_encoder_once_for_each_sampled_task_and_gives_another_step(cifar100):
    apart, together = (
        make(3, cifar100, tasks_per_step=4, normalisation=name) for name in ("apart", "together")
    )
    seen = []
    apart.model.encoder.register_forward_hook(lambda _, images, __: seen.append(len(images[0])))
    drawn = apart.plan.sampled(1)[0].tolist()
    for agent in (apart, together):
        agent.train_steps(1)
    assert seen == [8 * drawn.count(task) for task in dict.fromkeys(drawn)]
    assert apart.losses[0] != pytest.approx(together.losses[0].item(), rel=1e-3)


class Partly(SmallEncoder):
    """The first normalisation is frozen in training, the second averages plainly and fails at will."""

    fails = False

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__(dimensions)
        self.layers[4].momentum = None

    def train(self, mode: bool = True):
        super().train(mode)
        self.layers[1].eval()
        return self

    def forward(self, images):
        if self.fails and len(images) == 3:
            raise ValueError("too few")
        return super().forward(images)


def test_slices_leave_frozen_statistics_and_every_momentum_alone():
    torch.manual_seed(0)
    model = Model(Dimensions(3, 8, [2]), Partly).train()
    encoder = model.encoder
    first, second = norms(encoder)
    slices = [torch.randn(size, 3, 8, 8) for size in (2, 3, 4)]
    encode_apart(model, slices, [0] * 3)
    assert torch.equal(first.running_mean, torch.zeros(8))
    assert (first.momentum, second.momentum) == (0.1, None)
    assert second.running_mean.any()
    second.momentum = 0.2
    encoder.fails = True
    with pytest.raises(ValueError, match="too few"):
        encode_apart(model, slices, [0] * 3)
    assert (first.momentum, second.momentum) == (0.1, 0.2)


@pytest.mark.parametrize("setting", range(7))
def test_apart_is_recorded_as_together_where_a_step_has_one_set_of_images(cifar10, setting):
    def recorded(normalisation: str, **more: object) -> str:
        task = {"task": 1} if SETTINGS[setting].kind == "single-task" else {}
        given = {"setting": setting, "normalisation": normalisation, **task, **more}
        return make_run("train", given, spec=cifar10.spec).recorded["normalisation"]

    assert recorded("apart") == recorded("together") == "together"
    assert recorded("group") == "group"
    if SETTINGS[setting].samples_tasks:
        assert recorded("apart", tasks_per_step=1) == "together"
        assert recorded("apart", tasks_per_step=4) == "apart"
        assert recorded("together", tasks_per_step=4) == "together"


def test_apart_does_not_go_with_compiled_code(program):
    options = ("--train", "--setting", 3, "--tasks_per_step", 4, "--compile", "--save_path", "/dev/null/none")
    refused = program(*options, "--save_model", "--normalisation", "apart")
    assert (refused.code, one_line(refused)) == (2, True)
    assert "--normalisation apart" in refused.err
    for other in ("together", "group"):
        assert "--compile" not in program(*options, "--save_model", "--normalisation", other).err


# By groups


@pytest.mark.parametrize("setting", [0, 2, 3, 5])
def test_with_groups_no_image_depends_on_others(cifar10, setting):
    agent = make(setting, cifar10, normalisation="group", task=1 if setting == 2 else None)
    agent.train_steps(2)
    model = agent.model.train()
    images = cifar10.train.batch(torch.arange(0, 320, 40))[0]
    with torch.no_grad():
        features = model.encoder(images)
        for i in range(len(images)):
            alone = model.encoder(images[i : i + 1])
            torch.testing.assert_close(alone[0], features[i], rtol=1e-4, atol=1e-5)
            for head in model.heads:
                torch.testing.assert_close(head(alone)[0], head(features)[i], rtol=1e-3, atol=1e-4)
    assert agent.evaluate_as_trained() is None
    assert not list(model.buffers())


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("head", HEADS)
def test_with_groups_every_batch_normalisation_is_replaced_and_nothing_else_changes(encoder, head):
    torch.manual_seed(0)
    model = make_model(Dimensions(3, 8, [2, 3]), encoder, head)
    for number, layer in enumerate(norms(model)):
        layer.eps = 0.001 * (1 + number)
    before = dict(copy.deepcopy(model).named_modules())
    normalise_by_groups(model)
    assert len(dict(model.named_modules())) == len(before)
    for name, layer in model.named_modules():
        was = before[name]
        if isinstance(was, BATCH_NORMALISATION):
            assert type(layer) is nn.GroupNorm
            assert (layer.num_groups, layer.num_channels, layer.eps) == (8, was.num_features, was.eps)
            assert layer.affine == was.affine
        else:
            assert type(layer) is type(was)
            own = zip(layer.parameters(recurse=False), was.parameters(recurse=False), strict=True)
            assert all(torch.equal(*pair) for pair in own)


def test_a_layer_under_two_names_is_replaced_under_both():
    layer = nn.BatchNorm1d(16)
    network = nn.Sequential(nn.Linear(4, 16), layer, nn.ReLU(), nn.Linear(16, 16), layer)
    normalise_by_groups(network)
    assert type(network[1]) is nn.GroupNorm
    assert network[4] is network[1]


class Twelve(SmallEncoder):
    """Has a layer of 12 channels."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__(dimensions)
        self.layers[3], self.layers[4] = nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12)
        self.layers.append(nn.Conv2d(12, 16, 1))


def test_channels_that_do_not_split_into_groups_are_told_in_a_line(program, tmp_path):
    file = write_data(tmp_path / "own.npz", [20, 20], size=8)
    options = ("--train", "--data", file, "--setting", 0, "--batch_size", 8, "--epochs", 1)
    network = partial(Model, encoder=Twelve, num_hidden=NUM_HIDDEN)
    refused = program(*options, "--normalisation", "group", network=network)
    assert "8 equal groups, and a layer has 12" in error_line(refused)
    assert program(*options, network=network).code == 0


# What the model says


def test_an_evaluation_takes_the_network_from_the_model_and_refuses_another(program, tmp_path):
    file = write_data(tmp_path / "own.npz", [8, 8], size=8)
    chosen = {"encoder": "cnn_fc", "head": "linear", "normalisation": "group"}
    common = ("--data", file, "--setting", 3, "--save_path", tmp_path)
    words = [word for name, value in chosen.items() for word in (f"--{name}", value)]
    training = ("--batch_size", 8, "--epochs", 1, "--save_model", "--save_history")
    assert program("--train", *common, *training, *words, network=None).code == 0
    accuracy = json.loads((tmp_path / "history.json").read_text())["epochs"][-1]["accuracy"]
    for given in ((), words):
        assert program("--eval", *common, *given, network=None).accuracy == f"Accuracy: {accuracy}"
    for name, others in {"encoder": ENCODERS, "head": HEADS, "normalisation": ("together", "apart")}.items():
        for other in others:
            if other != chosen[name]:
                refused = program("--eval", *common, f"--{name}", other, network=None)
                assert f"was trained --{name} {chosen[name]}" in error_line(refused)
                assert one_line(refused)


@pytest.mark.parametrize("trained", ["together", "apart"])
def test_together_and_apart_are_the_same_network_to_an_evaluation(program, tmp_path, trained):
    file = write_data(tmp_path / "own.npz", [30, 20, 24, 14, 7], size=8, tasks=TABLE)
    common = ("--data", file, "--setting", 3, "--save_path", tmp_path)
    training = ("--batch_size", 8, "--tasks_per_step", 2, "--epochs", 1, "--lr", 0.02)
    how = ("--normalisation", trained, "--resume", "--save_history")
    done = program("--train", *common, *training, *how)
    assert done.code == 0
    (line,) = (line for line in done.err.splitlines() if line.startswith("as trained"))
    for given in ((), ("--normalisation", "together"), ("--normalisation", "apart")):
        evaluated = program("--eval", *common, *given)
        assert evaluated.out == done.out
        assert line in evaluated.err.splitlines()  # by the batches of the training, whatever is given
    assert "was trained" in error_line(program("--eval", *common, "--normalisation", "group"))
    other = {"together": "apart", "apart": "together"}[trained]
    resumed = program("--train", *common, *training, "--resume", "--normalisation", other)
    assert f"--normalisation {trained}, not --normalisation {other}" in error_line(resumed)


def test_a_resumed_run_apart_ends_with_the_same_bits(cifar100):
    def agent() -> Agent:
        return make(3, cifar100, NARROW, tasks_per_step=4, normalisation="apart", momentum=0.9, lr=0.02)

    whole, parts, resumed = agent(), agent(), agent()
    whole.train_steps(6)
    parts.train_steps(3)
    resumed.resume(copy.deepcopy(parts.model.state_dict()), copy.deepcopy(parts.state()))
    resumed.train_steps(3)
    values = zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True)
    assert all(torch.equal(*pair) for pair in values)
