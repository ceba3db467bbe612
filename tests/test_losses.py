"""The methods of the literature against slow versions of their papers.

They are compared on one scale, and resumed.
"""

import copy
import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers import SMALL, error_line, make, one_line, train_epochs
from torch import Tensor, nn

from agents import Agent, SummedLossAgent, make_agent
from data import DataSet, load
from errors import UserError
from losses import Combiner, make_combiner
from models import Dimensions, Model
from options import make_run
from settings import LOSSES
from storage.checks import named_tensors
from tasks import DATA_SETS

if find_spec("torchjd") is None:
    pytest.skip("there is no torchjd", allow_module_level=True)

AGGREGATIONS = [name for name, loss in LOSSES.items() if loss.aggregates]

CPU = torch.device("cpu")


class TinyEncoder(nn.Sequential):
    """A convolution, of channels-last weights as the program's, and a linear layer."""

    num_features = 32

    def __init__(self, dimensions: Dimensions) -> None:
        convolution = nn.Conv2d(dimensions.channels, 8, kernel_size=3, stride=3)
        super().__init__(convolution, nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 32))


TINY = partial(Model, encoder=TinyEncoder, num_hidden=8)


@pytest.fixture(scope="module")
def data() -> dict[int, DataSet]:
    """The stand-in's images with other questions, each true of half of the classes: 2, 4 and 10 of them."""
    rows = {f"task {t}": tuple(int((c - 3 * t) % 10 < 5) for c in range(10)) for t in range(10)}
    spec = replace(DATA_SETS[0].stand_in, tasks=rows, train_counts=(32,) * 10, test_counts=(16,) * 10)
    specs = (replace(spec, tasks=dict(list(rows.items())[:count])) for count in (2, 4, 10))
    return {len(s.tasks): load(s, Path(), 8, CPU) for s in specs}


def agent_of(loss: str, data: DataSet, **options) -> Agent:
    """An agent of setting 5 with the tiny network."""
    return make(5, data, TINY, loss=loss, **options)


def bytes_of(state: object) -> bytes:
    """A state as model.pt holds it."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def weights_of(agent: Agent) -> bytes:
    return b"".join(value.numpy().tobytes() for value in agent.model.state_dict().values())


def resumed(content: bytes, data: DataSet, loss: str, **options) -> Agent:
    """Another agent that goes on from what one has saved."""
    torch.manual_seed(1)
    agent = agent_of(loss, data, **options)
    agent.resume(*torch.load(io.BytesIO(content), weights_only=True))
    return agent


def change(now: nn.Module, before: nn.Module) -> Tensor:
    """What has been added to the parameters of a module, in a row."""
    pairs = zip(now.parameters(), before.parameters(), strict=True)
    return torch.cat([(new - old).detach().flatten() for new, old in pairs])


# A whole training


@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_learns_and_a_stopped_run_ends_with_the_same_bits(data, loss):
    options = {"batch_size": 64, "lr": 1.0, "momentum": 0.1}
    whole = agent_of(loss, data[4], **options)
    train_epochs(whole, 1)
    whole.train_steps(2)
    content = bytes_of([whole.model.state_dict(), whole.state()])
    train_epochs(whole, 2)
    parts = resumed(content, data[4], loss, **options)
    train_epochs(parts, 2)
    assert weights_of(parts) == weights_of(whole)
    assert bytes_of(parts.state()["combination"]) == bytes_of(whole.state()["combination"])
    assert [epoch["loss"] for epoch in parts.epochs] == [epoch["loss"] for epoch in whole.epochs]
    for epoch in whole.epochs:  # the loss is that of the mean, whatever forms the update
        assert epoch["loss"] == pytest.approx(np.mean(epoch["task_loss"]), rel=1e-5)
    assert np.mean(whole.epochs[-1]["balanced_accuracy"]) > 0.6


def test_an_epoch_whose_evaluation_is_stopped_ends_once(data):
    options = {"batch_size": 64, "lr": 1.0}
    whole, parts = (agent_of("dwa", data[2], **options) for _ in range(2))
    train_epochs(whole, 4)
    train_epochs(parts, 1)
    calls = iter(range(parts.plan.steps_per_epoch))  # one for each step, and the next for the evaluation

    def pause() -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(parts.train(2, pause))
    assert (len(parts.epochs), parts.step) == (1, parts.plan.steps_per_epoch)
    content = bytes_of([parts.model.state_dict(), parts.state()])
    parts = resumed(content, data[2], "dwa", **options)
    train_epochs(parts, 3)
    assert weights_of(parts) == weights_of(whole)


def test_no_two_losses_give_the_same_weights_but_those_that_are_one_by_definition(data):
    changes = {}
    for loss in LOSSES:
        agent = agent_of(loss, data[4], batch_size=160, lr=1.0)
        before = copy.deepcopy(agent.model)
        train_epochs(agent, 3)  # the first two of dwa are those of the mean
        changes[loss] = change(agent.model, before)
    alike = {
        (one, other)
        for one, other in combinations(sorted(LOSSES), 2)
        if (changes[one] - changes[other]).norm() < 1e-3 * changes[one].norm()
    }
    assert alike == {("imtl_l", "uw")}


# Aggregations

FACTORS = {"pcgrad": 10, "gradvac": 10, "graddrop": 10, "config": 10, "cagrad": 1.5}
"""How many times the gradient each gives where those of ten tasks agree; the others give it once."""

CLASSES = {
    "mgda": ("MGDA", {}),
    "pcgrad": ("PCGrad", {}),
    "gradvac": ("GradVac", {}),
    "graddrop": ("GradDrop", {}),
    "cagrad": ("CAGrad", {"c": 0.5}),
    "imtl_g": ("IMTLG", {}),
    "aligned_mtl": ("AlignedMTL", {}),
    "fairgrad": ("FairGrad", {"alpha": 2.0}),
    "nash_mtl": ("NashMTL", {"n_tasks": 10}),
    "upgrad": ("UPGrad", {}),
    "config": ("ConFIG", {}),
}
"""By loss, TorchJD's class and its arguments."""


@pytest.fixture
def aggregation() -> ModuleType:
    """TorchJD's methods, which take seconds to import."""
    return import_module("torchjd.aggregation")


def gradient_of(parameters) -> Tensor:
    """All gradients in a row."""
    return torch.cat([parameter.grad.flatten() for parameter in parameters])


def slow_losses(model: Model, data: DataSet, agent: Agent) -> list[Tensor]:
    """Those of the agent's next step, each of a forward pass of its own."""
    inputs, labels = data.train.batch(torch.from_numpy(agent.plan.indices(1)[agent.step]))
    return [
        nn.functional.cross_entropy(head(model.encoder(inputs)), data.tasks[task][labels])
        for task, head in enumerate(model.heads)
    ]


@pytest.mark.parametrize("loss", AGGREGATIONS)
def test_an_aggregation_steps_along_what_it_makes_of_a_full_gradient_for_each_task(data, aggregation, loss):
    name, arguments = CLASSES[loss]
    agent, slow = agent_of(loss, data[10], lr=0.25), getattr(aggregation, name)(**arguments)
    for step in range(2):  # in the second some remember the first
        reference = copy.deepcopy(agent.model)
        rows = []
        for task_loss in slow_losses(reference, data[10], agent):
            reference.encoder.zero_grad()
            task_loss.backward()
            rows.append(gradient_of(reference.encoder.parameters()))
        torch.manual_seed(step)
        expected = slow(torch.stack(rows)) / FACTORS.get(loss, 1)
        torch.manual_seed(step)
        agent.train_steps(1)
        got = gradient_of(agent.model.encoder.parameters())
        assert (got - expected).norm() < 2e-3 * expected.norm()
        places = [parameter.numel() for parameter in reference.encoder.parameters()]
        pairs = zip(agent.model.encoder.parameters(), reference.encoder.parameters(), strict=True)
        for (now, before), gradient in zip(pairs, got.split(places), strict=True):
            torch.testing.assert_close(now, before - 0.25 * gradient.view_as(now), rtol=1e-4, atol=1e-6)
        pairs = zip(agent.model.heads.parameters(), reference.heads.parameters(), strict=True)
        for now, before in pairs:  # those of each head come from its own task alone
            torch.testing.assert_close(now, before - 0.25 * before.grad / 10, rtol=1e-4, atol=1e-6)


# Scalarisations: the share of each task's gradient in the update, by the formula of the paper.
#
# Each is given the earlier epochs, of pairs of losses before and after a step, and the losses of this one.


RATE = 0.5
"""Learning rate of weights that are learnt."""


def mean(past: list, now: np.ndarray) -> np.ndarray:
    return np.ones(2) / 2


def uncertainty(past: list, now: np.ndarray) -> np.ndarray:
    """Kendall et al. 2018: sum of L exp(-s) / 2 + s / 2, which is twice the mean at s = 0 for two tasks."""
    s = np.zeros(2)
    for before, _ in sum(past, []):
        s -= RATE * (1 - np.exp(-s) * before) / 2
    return np.exp(-s) / 2


def impartial(past: list, now: np.ndarray) -> np.ndarray:
    """Liu et al. 2021: sum of exp(s) L - s, with a gradient by s of exp(s) L - 1."""
    s = np.zeros(2)
    for before, _ in sum(past, []):
        s -= RATE * (np.exp(s) * before - 1) / 2
    return np.exp(s) / 2


def dynamic(past: list, now: np.ndarray) -> np.ndarray:
    """Liu et al. 2019: softmax of the ratios of the last two epochs' averages, at temperature 2."""
    if len(past) < 3:  # the last is the running one
        return np.ones(2) / 2
    older, newer = (np.mean([before for before, _ in epoch], axis=0) for epoch in past[-3:-1])
    exponentials = np.exp(newer / older / 2)
    return exponentials / exponentials.sum()


def geometric(past: list, now: np.ndarray) -> np.ndarray:
    """Chennupati et al. 2019: the derivative of sqrt(L1 L2)."""
    return np.array([np.sqrt(now[1] / now[0]), np.sqrt(now[0] / now[1])]) / 2


def drawn(past: list, now: np.ndarray) -> np.ndarray:
    """Lin et al. 2022: softmax of standard normal numbers."""
    torch.manual_seed(7)
    for _ in sum(past, []):
        torch.randn(2)
    exponentials = np.exp(torch.randn(2).numpy())
    return exponentials / exponentials.sum()


def fast(past: list, now: np.ndarray) -> np.ndarray:
    """Liu et al. 2023: c z / L, where Adam moves the logits of z by how much each log L fell."""
    w, momentum, square = np.zeros(2), np.zeros(2), np.zeros(2)
    for t, (before, after) in enumerate(sum(past, []), 1):
        z = np.exp(w) / np.exp(w).sum()
        fall = np.log(before) - np.log(after)
        gradient = z * (fall - z @ fall) + 0.001 * w
        momentum = 0.9 * momentum + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        w = w - 0.025 * (momentum / (1 - 0.9**t)) / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
    z = np.exp(w) / np.exp(w).sum()
    return z / now / (z / now).sum()


def tchebycheff(past: list, now: np.ndarray) -> np.ndarray:
    """Lin et al. 2024: mu log of the sum of exp(L / 2 / mu), at mu = 0.01; twice that for two tasks."""
    exponentials = np.exp((now - now.max()) / 2 / 0.01)
    return exponentials / exponentials.sum()


FORMULAS = {
    "mean": mean, "uw": uncertainty, "dwa": dynamic, "geometric_mean": geometric, "random": drawn,
    "imtl_l": impartial, "famo": fast, "stch": tchebycheff,
}  # fmt: skip


@pytest.mark.released
def test_each_method_is_known_by_its_formula_or_is_an_aggregation():
    assert {*FORMULAS, *AGGREGATIONS} == set(LOSSES)


@pytest.mark.parametrize("loss", FORMULAS)
def test_a_scalarisation_has_the_gradient_of_its_papers_formula(loss):
    combiner = make_combiner(loss, 2)
    learnt = list(combiner.parameters())
    optimizer = torch.optim.SGD(learnt, lr=RATE) if learnt else None
    numbers = np.random.default_rng(0)
    past, shares = [], []
    for _ in range(4):
        past.append([])
        for _ in range(3):
            before = numbers.uniform(0.3, 0.35, 2) * (1, 1.1)
            after = before * numbers.uniform(0.7, 1.0, 2)
            expected = FORMULAS[loss](past, before)
            losses = torch.tensor(before, dtype=torch.float32, requires_grad=True)
            torch.manual_seed(7)
            for _ in sum(past, []):
                torch.randn(2)
            combiner.zero_grad()
            combiner.backward(list(losses.unbind()), torch.full((2,), 0.5), losses, [])
            shares.append(losses.grad.tolist())
            assert shares[-1] == pytest.approx(expected.tolist(), rel=1e-3)
            if optimizer:
                optimizer.step()
            combiner.after_step(lambda after=after: torch.tensor(after, dtype=torch.float32))
            past[-1].append((before, after))
        combiner.after_epoch()
    assert loss == "mean" or np.ptp([share / sum(both) for both in shares for share in both]) > 0.01


def test_the_losses_after_a_step_are_those_of_the_same_batch_and_leave_no_trace(data):
    class Watching(Combiner):
        def after_step(self, losses: Callable[[], Tensor]) -> None:
            self.seen = losses()

    class WatchingAgent(SummedLossAgent):
        def make_combiner(self, num_heads: int) -> Combiner:
            return Watching(num_heads)

    class Noisy(TinyEncoder):
        def forward(self, images: Tensor) -> Tensor:
            return nn.functional.dropout(super().forward(images), 0.1, self.training)

    agents = []
    for encoder in (TinyEncoder, Noisy):
        for kind in (WatchingAgent, SummedLossAgent):
            options = {"setting": 5, "batch_size": 32, "seed": 3}
            run = make_run("train", options, spec=data[10].spec)
            agents.append(kind(data[10], run, partial(TINY, encoder=encoder)))
            torch.manual_seed(0)
            agents[-1].train_steps(1)
            agents[-1].generator = torch.get_rng_state()
    watching, plain, noisy, noisy_plain = agents
    for one, other in ((watching, plain), (noisy, noisy_plain)):
        assert weights_of(one) == weights_of(other)  # running statistics included
        assert torch.equal(one.generator, other.generator)
    watching.step = 0  # so that the slow version takes the same batch
    expected = [loss.item() for loss in slow_losses(copy.deepcopy(watching.model), data[10], watching)]
    assert watching.combiner.seen.tolist() == pytest.approx(expected, rel=1e-5)
    assert watching.combiner.seen.tolist() != pytest.approx(watching.task_losses[0].tolist(), rel=1e-3)


# One scale


def first_update(loss: str, data: DataSet, num_tasks: int) -> tuple[Tensor, Tensor]:
    """What the first step of equal tasks with equal heads changes: in the encoder, and in each head."""
    spec = replace(data.spec, tasks={f"task {t}": data.spec.tasks["task 0"] for t in range(num_tasks)})
    agent = agent_of(loss, replace(data, spec=spec, tasks=data.tasks[:1].repeat(num_tasks, 1)), lr=1.0)
    for head in agent.model.heads:
        head.load_state_dict(agent.model.heads[0].state_dict())
    before = copy.deepcopy(agent.model)

    agent.train_steps(1)
    pairs = zip(agent.model.heads, before.heads, strict=True)
    return change(agent.model.encoder, before.encoder), torch.stack([change(*pair) for pair in pairs])


OWN_STEP = {
    "fairgrad": lambda size, num_tasks: (num_tasks / size) ** (1 / 3),
    "nash_mtl": lambda size, num_tasks: min(1, np.sqrt(num_tasks)),
}
"""How long the steps are that do not grow with the gradient: of w with G w = w^(-1/2), and G w = 1 / w."""


@pytest.fixture(scope="module")
def plain_update(data) -> tuple[Tensor, Tensor]:
    return first_update("mean", data[2], 5)


@pytest.mark.parametrize("loss", [loss for loss in [*FORMULAS, *AGGREGATIONS] if loss != "mean"])
def test_equal_tasks_are_updated_as_by_the_mean(data, plain_update, loss):
    (encoder, heads), (mean_encoder, mean_heads) = first_update(loss, data[2], 5), plain_update
    if loss in OWN_STEP:
        size = mean_encoder.norm().item()
        mean_encoder = mean_encoder * OWN_STEP[loss](size, 5) / size
    if loss == "random":  # the heads in expectation, as below
        heads, mean_heads = heads.sum(dim=0), mean_heads.sum(dim=0)
    assert (encoder - mean_encoder).norm() < 1e-3 * mean_encoder.norm()
    assert (heads - mean_heads).norm() < 1e-3 * mean_heads.norm()


def test_random_weights_are_on_average_those_of_the_mean():
    torch.manual_seed(0)
    combiner, losses = make_combiner("random", 3), torch.ones(3, requires_grad=True)
    for _ in range(2000):
        combiner.backward(list(losses.unbind()), torch.full((3,), 1 / 3), losses, [])
    assert (losses.grad / 2000).tolist() == pytest.approx([1 / 3] * 3, abs=0.02)


# Losses and gradients that are 0


class Tasks:
    """A few tasks of two answers, whose losses and gradients can be brought to 0."""

    def __init__(self, loss: str, num_tasks: int = 3) -> None:
        torch.manual_seed(0)
        self.encoder = nn.Linear(6, 5)
        self.heads = nn.ModuleList(nn.Linear(5, 2) for _ in range(num_tasks))
        self.combiner = make_combiner(loss, num_tasks)
        self.images, self.labels = torch.randn(8, 6), torch.randint(0, 2, (num_tasks, 8))
        self.weights = torch.full((num_tasks,), 1 / num_tasks)
        modules = (self.encoder, self.heads, self.combiner)
        self.optimizer = torch.optim.SGD([p for module in modules for p in module.parameters()], lr=0.1)

    def step(self, right: Sequence[int] = (), margin: float = 200.0, blind: Sequence[int] = ()) -> None:
        """Train one step, which is an epoch.

        Args:
            right: tasks whose logits are right by a margin.
            blind: tasks whose losses have no gradient of the encoder.
        """
        features = self.encoder(self.images)
        losses = [
            nn.functional.cross_entropy(
                head(0 * features if task in blind else features)
                + margin * (task in right) * nn.functional.one_hot(labels, 2),
                labels,
            )
            for task, (head, labels) in enumerate(zip(self.heads, self.labels, strict=True))
        ]
        assert [loss.item() == 0 for loss in losses] == [task in right for task in range(len(losses))]
        self.optimizer.zero_grad(set_to_none=True)
        self.combiner.backward(losses, self.weights, features, self.encoder.parameters())
        self.optimizer.step()
        self.combiner.after_step(lambda: torch.stack([loss.detach() for loss in losses]))
        self.combiner.after_epoch()

    def state(self) -> list[tuple[str, Tensor]]:
        """Everything that is remembered, with all gradients."""
        modules = {"encoder": self.encoder, "heads": self.heads, "combination": self.combiner}
        gradients = {
            f"{name} {place}": parameter.grad
            for name, module in modules.items()
            for place, parameter in module.named_parameters()
        }
        states = {name: module.state_dict() for name, module in modules.items()}
        return [*named_tensors(gradients, ""), *named_tensors(states, "")]


@pytest.mark.parametrize("margin", [60, 200])  # the share of the other answer is 1e-26, and 0
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_that_are_0_give_finite_updates_and_memories_and_so_do_those_after_them(loss, margin):
    for right in ([0], [0, 1, 2]):
        tasks = Tasks(loss)
        for each in (right, right, right, [], right, []):
            tasks.step(each, margin)
            assert all(tensor.isfinite().all() for _, tensor in tasks.state())


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_without_a_gradient_gives_a_finite_update(loss):
    for blind in ([0], [0, 1, 2]):
        tasks = Tasks(loss)
        for each in (blind, blind, [], blind):
            tasks.step(blind=each)
            assert all(tensor.isfinite().all() for _, tensor in tasks.state())
        if len(blind) == 3:
            assert not any(parameter.grad.any() for parameter in tasks.encoder.parameters())


@pytest.mark.parametrize("loss", LOSSES)
def test_where_all_losses_are_0_nothing_but_learnt_weights_changes(loss):
    tasks = Tasks(loss)
    tasks.step()
    before = copy.deepcopy([tasks.encoder.state_dict(), tasks.heads.state_dict()])
    tasks.step([0, 1, 2])
    for was, module in zip(before, (tasks.encoder, tasks.heads), strict=True):
        assert all(torch.equal(value, was[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_remembered_of_losses_that_are_0_is_resumed_to_the_bit(loss):
    whole = Tasks(loss)
    whole.step()
    whole.step([0])
    whole.step([0, 1])
    parts = copy.deepcopy(whole)
    parts.combiner = make_combiner(loss, 3)
    parts.combiner.load_state_dict(torch.load(io.BytesIO(bytes_of(whole.combiner.state_dict()))))
    parameters = [p for part in (parts.encoder, parts.heads, parts.combiner) for p in part.parameters()]
    parts.optimizer = torch.optim.SGD(parameters, lr=0.1)
    for right in ([0, 1], [], [2]):
        for tasks in (whole, parts):
            torch.manual_seed(0)
            tasks.step(right)
    assert bytes_of(parts.state()) == bytes_of(whole.state())


@pytest.mark.parametrize("loss", ["uw", "imtl_l"])
def test_a_learnt_weight_of_a_loss_that_stays_0_grows_to_a_limit(loss):
    combiner = make_combiner(loss, 2)
    (learnt,) = combiner.parameters()
    optimizer = torch.optim.SGD([learnt], lr=0.5, momentum=0.9)
    for _ in range(300):
        losses = torch.tensor([0.0, 0.3], requires_grad=True)
        optimizer.zero_grad()
        combiner.backward(list(losses.unbind()), torch.full((2,), 0.5), losses, [])
        assert losses.grad.isfinite().all()
        optimizer.step()
    assert np.exp(learnt.abs()[0].item()) == pytest.approx(1e30, rel=0.01)


@pytest.mark.parametrize("loss", AGGREGATIONS)
def test_gradients_of_every_length_give_a_finite_update(loss):
    torch.manual_seed(0)
    features, directions = torch.randn(8, 5), torch.randn(4, 5)  # that conflict
    for short in ([0], [0, 1], [0, 1, 2, 3]):
        for power in (8, 12, 17, 20, 23, 30, 41):
            encoder = nn.Linear(5, 5, bias=False)
            outputs = encoder(features)
            losses = [
                (outputs.mean(dim=0) @ direction) * (10.0**-power if task in short else 1.0)
                for task, direction in enumerate(directions)
            ]
            make_combiner(loss, 4).backward(losses, torch.full((4,), 0.25), outputs, encoder.parameters())
            assert encoder.weight.grad.isfinite().all()


def test_nash_mtl_is_played_by_the_tasks_that_have_a_gradient(aggregation):
    torch.manual_seed(0)
    gradients = torch.randn(4, 20)
    gradients[[0, 2]] = 0
    method, fewer = make_combiner("nash_mtl", 4), aggregation.NashMTL(n_tasks=2)
    for _ in range(2):
        torch.testing.assert_close(method.aggregate(gradients), fewer(gradients[[1, 3]]))
    remembered = method.get_extra_state()
    torch.testing.assert_close(remembered[[1, 3]], torch.from_numpy(fewer.weighting.prvs_alpha).float())
    assert remembered[[0, 2]].tolist() == [1, 1]
    gradients[1] = 0
    assert torch.equal(method.aggregate(gradients / 100), gradients[3] / 100)
    torch.testing.assert_close(method.aggregate(gradients), gradients[3] / gradients[3].norm())
    assert torch.equal(method.aggregate(0 * gradients), torch.zeros(20))


# Frozen encoders


class Frozen(TinyEncoder):
    """The tiny encoder, of which some parameters are not trained."""

    def __init__(self, dimensions: Dimensions, layers: Sequence[int]) -> None:
        super().__init__(dimensions)
        for layer in layers:
            self[layer].requires_grad_(False)


class Detached(TinyEncoder):
    """The tiny encoder, whose layers up to one get no gradient although their parameters are trained."""

    def __init__(self, dimensions: Dimensions, last: int) -> None:
        super().__init__(dimensions)
        self.last = last

    def forward(self, images: Tensor) -> Tensor:
        for number, layer in enumerate(self):
            images = layer(images).detach() if number <= self.last else layer(images)
        return images


@pytest.mark.parametrize(
    ("encoder", "still"),
    [
        (partial(Frozen, layers=[0, 1, 4]), [0, 1, 4]),
        (partial(Frozen, layers=[0]), [0]),
        (partial(Detached, last=4), [0, 1, 4]),
        (partial(Detached, last=2), [0, 1]),
    ],
    ids=["all frozen", "part frozen", "all detached", "part detached"],
)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_frozen_encoder_goes_with_each_loss_and_does_not_decay(data, loss, encoder, still):
    run = make_run(
        "train",
        {"setting": 5, "batch_size": 32, "loss": loss, "momentum": 0.5, "weight_decay": 0.1},
        spec=data[2].spec,
    )
    agent = make_agent(data[2], run, partial(Model, encoder=encoder, num_hidden=8))
    before = copy.deepcopy(agent.model)
    agent.train_steps(2)
    for layer in (0, 1, 4):
        pairs = zip(agent.model.encoder[layer].parameters(), before.encoder[layer].parameters(), strict=True)
        assert {torch.equal(now, was) for now, was in pairs} == {layer in still}
    for head, was in zip(agent.model.heads, before.heads, strict=True):
        assert not torch.equal(head[0].weight, was[0].weight)


# What is said of them, what they need, and what they do not go with


@pytest.mark.released
def test_the_help_and_the_page_have_each_with_its_year_and_the_constants_that_it_is_made_with():
    page = Path("docs/losses.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+)$", page, re.MULTILINE))
    assert ["mean", *rows] == list(LOSSES)
    for loss, row in rows.items():
        years = re.findall(r"\b\d{4}\b", LOSSES[loss].words)
        assert years
        assert all(year in row for year in years)
        constants = make_combiner(loss, 2).constants
        assert re.findall(r"\*\*(.+?)\*\*", row) == [f"{name} {value:g}" for name, value in constants.items()]


COMMAND = ("--train", "--setting", 5, "--data", 0, *SMALL, "--epochs", 1)


@pytest.mark.parametrize("package", ["cvxpy", "clarabel", "ecos", "scipy", "qpsolvers", "quadprog"])
def test_the_table_of_solvers_has_what_each_method_needs(monkeypatch, package):
    for loss in AGGREGATIONS:
        make_combiner(loss, 2)  # with everything there
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    needing = set()
    for loss in AGGREGATIONS:
        try:
            make_combiner(loss, 2)
        except ImportError:
            needing.add(loss)
    assert needing == {loss for loss in LOSSES if package in LOSSES[loss].packages}


@pytest.mark.parametrize(
    ("loss", "hidden"), [("uw", "torchjd"), ("upgrad", "quadprog"), ("nash_mtl", "ecos")]
)
def test_a_missing_package_is_named_in_a_line_that_says_what_to_install(
    program, tmp_path, monkeypatch, loss, hidden
):
    monkeypatch.setitem(sys.modules, hidden, None)
    folder = tmp_path / "new"
    refused = program(*COMMAND, "--loss", loss, "--save_model", "--save_path", folder)
    assert f"needs {hidden}" in error_line(refused)
    assert 'pip install "torchjd[full]' in refused.err
    assert one_line(refused)
    assert not folder.exists()


def test_without_any_of_them_the_mean_is_trained_and_every_model_evaluated(program, tmp_path, monkeypatch):
    network = {"network": TINY}
    files = ("--save_path", tmp_path, "--save_model", "--save_history")
    assert program(*COMMAND, *files, "--loss", "cagrad", **network).code == 0
    history = json.loads((tmp_path / "history.json").read_text())
    assert history["loss_parameters"] == {"c": 0.5}
    assert history["sessions"][0]["environment"]["torchjd"].startswith("0.18")
    for name in ("torchjd", "torchjd.aggregation", "torchjd.scalarization"):
        monkeypatch.setitem(sys.modules, name, None)
    evaluated = program("--eval", *COMMAND[1:], "--loss", "cagrad", "--save_path", tmp_path, **network)
    assert evaluated.accuracy == f"Accuracy: {history['epochs'][-1]['accuracy']}"
    assert program(*COMMAND, "--loss", "mean", **network).code == 0


def test_gradients_of_every_task_do_not_go_with_compiled_code(program):
    for loss in LOSSES:
        refused = program(
            *COMMAND, "--loss", loss, "--compile", "--save_path", "/dev/null/none", "--save_model"
        )
        if loss in AGGREGATIONS:
            assert (refused.code, one_line(refused)) == (2, True)
            assert f"--loss {loss}" in refused.err
        else:
            assert "compile" not in refused.err


@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_takes_bf16(data, loss):
    exact, rounded = (agent_of(loss, data[2], precision=precision) for precision in ("fp32", "bf16"))
    for agent in (exact, rounded):
        torch.manual_seed(0)
        agent.train_steps(1)
    assert rounded.losses[0].item() == pytest.approx(exact.losses[0].item(), rel=0.05)
    gradients = [gradient_of(agent.model.encoder.parameters()) for agent in (exact, rounded)]
    assert nn.functional.cosine_similarity(*gradients, dim=0) > 0.95


@pytest.mark.parametrize("loss", ["cagrad", "imtl_g", "aligned_mtl", "fairgrad", "nash_mtl"])
def test_gradients_that_no_solver_takes_end_the_training_in_a_line(data, loss):
    agent = agent_of(loss, data[2])
    agent.model.heads[1][0].weight.data.fill_(torch.nan)
    with pytest.raises(UserError, match="smaller --lr") as caught:
        agent.train_steps(1)
    assert "\n" not in str(caught.value)
