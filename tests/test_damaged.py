"""A model file with any field changed does no harm.

It is refused in a line, or gives what the right one gives.
"""

import copy
import itertools
import math
import random
import signal
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from conftest import Outcome
from helpers import error_line, write_data
from torch import Tensor, nn

from agents import Agent, make_agent
from data import DataSet
from models import Dimensions, Model
from options import OPTIONS, make_run
from running.stopping import Stopped, StopSignals
from running.training import train
from storage.checks import FieldError
from storage.history import read_history


class SmallestEncoder(nn.Sequential):
    """A convolution with batch normalisation, and an average."""

    num_features = 4

    def __init__(self, dimensions: Dimensions) -> None:
        convolution = nn.Conv2d(dimensions.channels, 4, kernel_size=3)
        super().__init__(convolution, nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


SMALLEST = partial(Model, encoder=SmallestEncoder, num_hidden=2)


class StopAfter(StopSignals):
    """A signal that comes after some steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    def check(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Stopped(signal.SIGTERM)


GIVEN = {"setting": 5, "batch_size": 8, "epochs": 2, "momentum": 0.9, "save_model": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A directory with a data set, the model of a training in `whole`, and a `model.pt` of its middle."""
    folder = tmp_path_factory.mktemp("interrupted")
    given = GIVEN | {"data": write_data(folder / "own.npz", [24, 12, 12])}
    train(make_run("train", given | {"save_path": folder / "whole"}), StopSignals(), SMALLEST)
    run = make_run("train", given | {"save_path": folder})
    with pytest.raises(Stopped):
        train(run, StopAfter(10), SMALLEST)
    return folder


class Interrupted:
    """A training that was stopped in the middle of its second epoch.

    Attributes:
        content: of its model file.
    """

    def __init__(self, folder: Path, path: Path, program: Callable[..., Outcome]) -> None:
        self._path, self._run = path, program
        given = {name: value for name, value in GIVEN.items() if name != "save_model"}
        given |= {"data": folder / "own.npz", "save_path": path}
        self._options = [word for name, value in given.items() for word in (f"--{name}", value)]
        self._weights = torch.load(folder / "whole" / "model.pt", weights_only=True)["model"]
        self.content = torch.load(folder / "model.pt", weights_only=True)
        self._evaluated = self.evaluate(self.content)
        self._resumed = self.resume(self.content)
        assert self.is_right(self._evaluated, "evaluate")
        assert self.is_right(self._resumed, "resume")

    def evaluate(self, content: object) -> Outcome:
        """Evaluate a model file of some content."""
        torch.save(content, self._path / "model.pt")
        return self._run("--eval", *self._options, network=SMALLEST)

    def resume(self, content: object) -> Outcome:
        """Go on from a model file of some content."""
        (self._path / "history.json").unlink(missing_ok=True)
        torch.save(content, self._path / "model.pt")
        return self._run("--train", *self._options, "--resume", "--save_history", network=SMALLEST)

    def is_right(self, done: Outcome, mode: str) -> bool:
        """Whether a run has given what it gives if the file is right."""
        if done.code != 0:
            return False
        if mode == "evaluate":
            return done.out == self._evaluated.out
        read_history(self._path / "history.json", OPTIONS)
        found = torch.load(self._path / "model.pt", weights_only=True)["model"]
        same = all(torch.equal(found[name], self._weights[name]) for name in self._weights)
        return same and done.out == self._resumed.out


@pytest.fixture
def interrupted(folder, tmp_path, program) -> Interrupted:
    return Interrupted(folder, tmp_path, program)


def fields(content: object, place: tuple = ()) -> Iterator[tuple]:
    """The places of everything in nested dictionaries and lists."""
    if place:
        yield place
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from fields(value, (*place, key))


def at(content: object, place: tuple) -> object:
    """What stands at a place."""
    for key in place:
        content = content[key]
    return content


GONE = object()


def changed(content: object, place: tuple, value: object) -> object:
    """The same with something else at a place, or nothing."""
    content, (key, *inner) = copy.copy(content), place
    if inner:
        content[key] = changed(content[key], inner, value)
    elif value is GONE:
        del content[key]
    else:
        content[key] = value
    return content


def wrong_values(value: object) -> list:
    """What might stand in a value's place."""
    wrong = [None, "x", -1, math.nan, math.inf, 10**400, [], {}, [None], torch.ones(7, 7), GONE]
    if isinstance(value, dict):
        wrong += [value | {"more": torch.ones(2)}, value | {3: None}]
    if isinstance(value, list):
        wrong += [value[:-1], [*value, math.nan], tuple(value)]
    if isinstance(value, Tensor):
        flat, filled = value.flatten(), value.nan_to_num(0)
        wrong += [value[None], flat[:-1].clone(), torch.cat([flat, flat]), value.to("meta")]
        wrong += [filled.long(), filled.double(), filled.half(), filled.bool(), filled.to_sparse()]
        if value.is_floating_point():
            wrong += [torch.full_like(value, math.nan), value.clone().requires_grad_()]
    return wrong


def test_whatever_stands_in_a_model_file_ends_in_a_line_or_in_the_right_result(interrupted):
    content, chosen = interrupted.content, random.Random(0)
    # Fewer records would be those of an earlier moment, which nothing contradicts.
    places = [place for place in fields(content) if place[:2] != ("training", "epochs") or len(place) > 3]
    codes = []
    for place in chosen.sample(places, 24):
        wrong = changed(content, place, chosen.choice(wrong_values(at(content, place))))
        for mode in ("resume", "evaluate"):
            done = getattr(interrupted, mode)(wrong)
            codes.append(done.code)
            if not interrupted.is_right(done, mode):
                assert done.code == 1, place
                assert "model.pt" in error_line(done), place
                assert done.out == "", place
    assert set(codes) == {0, 1}


def test_an_evaluation_needs_no_more_than_the_network_and_what_it_was_trained_as(interrupted):
    content = {name: interrupted.content[name] for name in ("format", "options", "model", "code")}
    assert interrupted.is_right(interrupted.evaluate(content), "evaluate")
    assert "training is not a dictionary" in error_line(interrupted.resume(content))


@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay", "nesterov", "maximize"])
def test_the_recipe_of_a_resumed_run_is_that_of_the_command_line(interrupted, name):
    place = ("training", "optimizer", "param_groups", 0, name)
    done = interrupted.resume(changed(interrupted.content, place, 0.25))
    assert interrupted.is_right(done, "resume")


@pytest.mark.parametrize("mode", ["evaluate", "resume"])
def test_weights_that_are_not_finite_are_neither_scored_nor_trained(interrupted, mode):
    place = ("model", "heads.1.1.running_var")
    wrong = changed(interrupted.content, place, torch.tensor([1.0, torch.inf]))
    said = error_line(getattr(interrupted, mode)(wrong))
    assert "model.heads.1.1.running_var is not finite" in said


@pytest.mark.parametrize("mode", ["evaluate", "resume"])
def test_weights_of_another_network_are_not_called_damaged(interrupted, mode):
    wrong = changed(interrupted.content, ("model", "heads.1.0.weight"), torch.ones(3, 4))
    said = error_line(getattr(interrupted, mode)(wrong))
    assert "does not hold this program's network (model.heads.1.0.weight has another shape" in said


def test_other_code_is_named_as_a_reason_why_a_training_does_not_fit(interrupted):
    place = ("training", "optimizer", "state", 3, "momentum_buffer")
    wrong = changed(interrupted.content, place, torch.ones(5))
    field = "training.optimizer.state[3].momentum_buffer has another shape ((5,), not (4,))"
    assert f"is damaged or edited: {field}" in error_line(interrupted.resume(wrong))
    assert f"is damaged, edited or of other code: {field}" in error_line(
        interrupted.resume(wrong | {"code": "x"})
    )


# What depends on the network and the data


def stopped(setting: int, data: DataSet, steps: int, **options: object) -> Agent:
    """An agent that stands after some steps of its second epoch."""
    run = make_run("train", {"setting": setting, "batch_size": 32, **options}, spec=data.spec)
    agent = make_agent(data, run, SMALLEST)
    list(agent.train(1))
    agent.train_steps(steps)
    return agent


def resumed(agent: Agent, state: dict) -> Agent:
    """Another one that goes on from its network and some state."""
    other = type(agent)(agent.data, agent.run, SMALLEST)
    other.resume(agent.model.state_dict(), copy.deepcopy(state))
    return other


@pytest.fixture(scope="module")
def sampling(cifar10) -> tuple[Agent, dict]:
    """An agent that samples tasks, and its state."""
    agent = stopped(3, cifar10, 3, momentum=0.9)
    return agent, copy.deepcopy(agent.state())


@pytest.mark.parametrize(
    ("place", "change", "says"),
    [
        (("step",), lambda step: 10**6, "step is above"),
        (("step",), lambda step: step + 1, "losses has another shape"),
        (("losses",), lambda losses: GONE, "losses is not an ordinary tensor"),
        (("losses",), lambda losses: losses.double(), "losses has another dtype"),
        (("losses",), lambda losses: losses * math.nan, "losses is not finite"),
        (("task_losses",), lambda losses: losses[:, 1:], "task_losses has another shape"),
        (("task_losses",), lambda losses: losses * math.nan, "task_losses are not those"),
        (("task_losses",), lambda losses: losses.nan_to_num(1.0), "task_losses are not those"),
        (("task_losses",), lambda losses: losses.roll(1, 1), "task_losses are not those"),
        (("optimizer",), lambda state: None, "optimizer is not a dictionary"),
        (("optimizer", "state"), lambda state: {}, "optimizer.state[0] is missing"),
        (("optimizer", "state", 99), lambda _: {}, "optimizer.state[99] does not belong there"),
        (("optimizer", "state", 0, "momentum_buffer"), lambda buffer: GONE, "momentum_buffer is missing"),
        (("optimizer", "state", 0, "momentum_buffer"), lambda buffer: buffer.half(), "another dtype"),
        (("optimizer", "state", 1, "momentum_buffer"), lambda buffer: buffer / 0, "is not finite"),
        (("combination",), lambda state: {"weight": torch.ones(1)}, "combination.weight does not belong"),
        (("generators",), lambda state: [], "generators.cpu is missing"),
        (("generators", "cpu"), lambda state: state[1:], "generators.cpu has another shape"),
        (("generators", "cpu"), torch.zeros_like, "generators.cpu is not the state of a generator"),
    ],
    ids=itertools.count(),
)
def test_a_state_that_is_not_the_agents_is_refused_by_field(sampling, place, change, says):
    agent, state = sampling
    resumed(agent, state)
    try:
        value = at(state, place)
    except KeyError:
        value = None
    with pytest.raises(FieldError) as caught:
        resumed(agent, changed(state, place, change(value)))
    assert says in str(caught.value)
    assert str(caught.value).startswith(place[0]) or place == ("step",)


EXTRA = "_extra_state"


@pytest.fixture(scope="module")
def forming(cifar10) -> Callable[[str], tuple[Agent, dict]]:
    """An agent that forms its losses by a method, and its state."""
    pytest.importorskip("torchjd")

    @cache
    def forming(loss: str) -> tuple[Agent, dict]:
        agent = stopped(5, cifar10, 2, loss=loss, batch_size=64)
        state = copy.deepcopy(agent.state())
        resumed(agent, state)
        return agent, state

    return forming


@pytest.mark.parametrize(
    ("loss", "place", "change"),
    [
        ("uw", ("scalarizer.log_var",), lambda weights: weights * math.nan),
        ("dwa", (EXTRA,), lambda state: None),
        ("dwa", (EXTRA, "sum"), lambda losses: None),
        ("dwa", (EXTRA, "sum"), lambda losses: losses[1:]),
        ("dwa", (EXTRA, "steps"), lambda steps: steps + 1),
        ("dwa", (EXTRA, "steps"), lambda steps: None),
        ("dwa", (EXTRA, "averages"), lambda averages: []),
        ("dwa", (EXTRA, "averages"), lambda averages: 2 * averages),
        ("dwa", (EXTRA, "averages"), lambda averages: None),
        ("dwa", (EXTRA, "averages", 0), lambda losses: losses * math.nan),
        ("famo", (EXTRA,), lambda state: None),
        ("famo", (EXTRA, "state"), lambda state: {}),
        ("famo", (EXTRA, "state", 0, "step"), lambda step: step + 1),
        ("famo", (EXTRA, "state", 0, "exp_avg"), lambda average: average[1:]),
        ("famo", (EXTRA, "state", 0, "exp_avg_sq"), lambda average: average * math.inf),
        ("gradvac", (EXTRA,), lambda mean: None),
        ("gradvac", (EXTRA,), lambda mean: mean[1:, 1:]),
        ("gradvac", (EXTRA,), lambda mean: mean.double()),
        ("gradvac", (EXTRA,), lambda mean: mean * math.nan),
        ("nash_mtl", (EXTRA,), lambda solution: None),
        ("nash_mtl", (EXTRA,), lambda solution: solution[1:]),
        ("nash_mtl", (EXTRA,), lambda solution: solution.half()),
        ("nash_mtl", (EXTRA,), lambda solution: solution * math.nan),
    ],
    ids=itertools.count(),
)
def test_what_a_loss_remembers_is_checked(forming, loss, place, change):
    agent, state = forming(loss)
    place = ("combination", *place)
    with pytest.raises(FieldError, match=r"^combination\."):
        resumed(agent, changed(state, place, change(at(state, place))))


@pytest.mark.parametrize("name", ["lr", "betas", "weight_decay", "eps"])
def test_the_recipe_of_famo_is_its_own(forming, name):
    agent, state = forming("famo")
    place = ("combination", EXTRA, "param_groups", 0, name)
    one, other = resumed(agent, state), resumed(agent, changed(state, place, 0.5))
    for each in (one, other):
        each.train_steps(2)
    states = [each.model.state_dict() for each in (one, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_an_error_in_a_loss_of_ones_own_is_one_of_its_state(sampling):
    class Own(type(sampling[0].combiner)):
        def set_extra_state(self, state: dict) -> None:
            self.remembered = state["remembered"]

        def get_extra_state(self) -> dict:
            return {"remembered": 1}

    agent, state = sampling
    other = type(agent)(agent.data, agent.run, SMALLEST)
    other.combiner = Own(10)
    with pytest.raises(FieldError, match="combination cannot be resumed"):
        other.resume(agent.model.state_dict(), state | {"combination": {EXTRA: {}}})
