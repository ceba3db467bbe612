"""Agents against slow and obvious versions of the same definitions."""

import copy
import math
from dataclasses import replace
from functools import partial, partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import (
    NARROW,
    NUM_HIDDEN,
    SmallEncoder,
    assert_descended,
    error_line,
    make,
    train_epochs,
    write_data,
)

from agents import Agent, StandardAgent, SummedLossAgent
from data import DataSet, load
from errors import UserError
from losses import Combiner
from models import Model
from options import make_run
from running.stopping import Stopped, StopSignals
from running.training import train
from sampling import Source
from scoring import Scorer
from settings import LOSSES, PRECISIONS, SCHEDULES, Loss, Schedule
from tasks import DATA_SETS

# What a step does


def first_batch(agent: Agent) -> torch.Tensor:
    """The training images of the first step."""
    return torch.from_numpy(agent.plan.indices(1)[0])


def plain_loss(model, data: DataSet, images: torch.Tensor, head: int, numbers: torch.Tensor) -> torch.Tensor:
    """Loss of one head with a pass of its own through the whole network."""
    inputs, labels = data.train.batch(images)
    return F.cross_entropy(model.heads[head](model.encoder(inputs)), numbers[labels])


@pytest.mark.parametrize("weights", [None, list(range(1, 11)), [0, 3, 0, 1, 0, 0, 0, 0, 0, 2]])
def test_a_step_on_all_tasks_descends_on_the_weighted_sum_of_separate_passes(cifar10, weights):
    agent = make(5 if weights is None else 6, cifar10, weights=weights, lr=0.25)
    share = np.ones(10) / 10 if weights is None else np.array(weights) / sum(weights)
    reference = copy.deepcopy(agent.model)
    losses = [
        plain_loss(reference, cifar10, first_batch(agent), task, cifar10.tasks[task]) for task in range(10)
    ]
    sum(weight * loss for weight, loss in zip(share, losses, strict=True)).backward()
    agent.train_steps(1)
    assert agent.task_losses[0].tolist() == pytest.approx([loss.item() for loss in losses], rel=1e-4)
    assert agent.losses[0].item() == pytest.approx(share @ [loss.item() for loss in losses], rel=1e-4)
    assert_descended(agent, reference, 0.25)


@pytest.mark.parametrize("setting", [0, 2, 3])
def test_a_step_on_one_head_descends_on_its_cross_entropy_and_leaves_other_heads_alone(cifar100, setting):
    agent = make(setting, cifar100, lr=0.25, task=3 if setting == 2 else None)
    source = int(agent.plan.sampled(1)[0, 0])
    numbers = {0: torch.arange(100), 2: cifar100.tasks[3], 3: cifar100.tasks[source]}[setting]
    reference = copy.deepcopy(agent.model)
    loss = plain_loss(reference, cifar100, first_batch(agent), source, numbers)
    loss.backward()
    agent.train_steps(1)
    assert agent.losses[0].item() == pytest.approx(loss.item(), rel=1e-6)
    assert_descended(agent, reference, 0.25)
    expected = [loss.item() if head == source else math.nan for head in range(len(agent.model.heads))]
    assert agent.task_losses[0].tolist() == pytest.approx(expected, rel=1e-6, nan_ok=True)


def test_a_step_leaves_every_other_head_untouched(cifar100):
    agent = make(3, cifar100, momentum=0.5, weight_decay=0.1)
    drawn = agent.plan.sampled(1)[:3, 0].tolist()
    for source in drawn:
        before = copy.deepcopy(agent.model.state_dict())
        agent.train_steps(1)
        after = agent.model.state_dict()
        changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
        trained = f"heads.{source}."
        assert {name.startswith(("encoder.", trained)) for name in changed} == {True}
        assert {name for name in before if name.startswith(trained)} <= changed
    assert len(set(drawn)) > 1


def test_a_step_runs_the_encoder_once_however_many_tasks_it_trains(cifar10):
    agent = make(5, cifar10)
    calls = []
    agent.model.encoder.register_forward_hook(lambda *_: calls.append(1))
    agent.train_steps(3)
    assert len(calls) == 3


def slow_sgd(agent: Agent, steps: int, rates: list[float], momentum: float, decay: float) -> list:
    """Weights after some steps in setting 5, by the textbook."""
    model, data = copy.deepcopy(agent.model), agent.data
    speeds = [torch.zeros_like(parameter) for parameter in model.parameters()]
    for step in range(steps):
        model.zero_grad()
        inputs, labels = data.train.batch(torch.from_numpy(agent.plan.indices(1)[step]))
        features = model.encoder(inputs)
        losses = [
            F.cross_entropy(head(features), data.tasks[t][labels]) for t, head in enumerate(model.heads)
        ]
        (sum(losses) / len(losses)).backward()
        with torch.no_grad():
            for parameter, speed in zip(model.parameters(), speeds, strict=True):
                speed.mul_(momentum).add_(parameter.grad + decay * parameter)
                parameter -= rates[step] * speed
    return list(model.parameters())


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({"momentum": 0.9}, [0.05] * 6),
        ({"weight_decay": 0.3}, [0.05] * 6),
        (
            {"schedule": "cosine", "epochs": 1},
            [0.05 * (1 + math.cos(math.pi * i / 10)) / 2 for i in range(6)],
        ),
        (
            {"momentum": 0.5, "weight_decay": 0.1, "schedule": "cosine", "epochs": 2},
            [0.05 * (1 + math.cos(math.pi * i / 20)) / 2 for i in range(6)],
        ),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_the_recipe_is_that_of_the_textbook(cifar10, options, rates):
    agent = make(5, cifar10, lr=0.05, **options)
    expected = slow_sgd(agent, 6, rates, options.get("momentum", 0), options.get("weight_decay", 0))
    agent.train_steps(6)  # few, as after more of them a rounding decides a ReLU
    torch.testing.assert_close(list(agent.model.parameters()), expected, rtol=1e-3, atol=1e-4)
    plain = make(5, cifar10, lr=0.05)
    plain.train_steps(6)
    change = max((a - b).abs().max() for a, b in zip(plain.model.parameters(), expected, strict=True))
    assert change > 1e-3


def test_momentum_reaches_a_head_that_is_first_trained_after_others(cifar100):
    agent = make(3, cifar100, momentum=0.9, lr=0.01)
    agent.train_steps(40)
    trained = set(agent.plan.sampled(1)[:40].ravel().tolist())
    fresh = make(3, cifar100).model
    for task, (head, start) in enumerate(zip(agent.model.heads, fresh.heads, strict=True)):
        assert torch.equal(head[0].weight, start[0].weight) == (task not in trained)
    assert len(trained) > 10


class Learnt(Combiner):
    """Uncertainty weighting (Kendall, Gal and Cipolla 2018), with a parameter per task."""

    def __init__(self, num_heads: int) -> None:
        super().__init__(num_heads)
        self.log_variances = torch.nn.Parameter(torch.zeros(num_heads))

    def forward(self, losses, weights):
        return (losses * torch.exp(-self.log_variances) + self.log_variances).sum() / 2


class LearntAgent(SummedLossAgent):
    """Setting 5 with learnt weights."""

    def make_combiner(self, num_heads: int) -> Combiner:
        return Learnt(num_heads)


def test_the_parameters_of_a_combination_are_trained_and_resumed_but_never_decay(cifar10):
    def agent(**options):
        run = make_run("train", {"setting": 5, "batch_size": 32, "lr": 0.05, **options}, spec=cifar10.spec)
        return LearntAgent(cifar10, run, NARROW)

    whole, parts = agent(momentum=0.9), agent(momentum=0.9)
    first_losses = plain = copy.deepcopy(whole)
    plain.train_steps(1)
    step = 0.05 * (1 - first_losses.task_losses[0]) / 2
    torch.testing.assert_close(plain.combiner.log_variances.data, -step, rtol=1e-4, atol=1e-6)
    decayed = agent(weight_decay=0.5)
    decayed.train_steps(1)
    torch.testing.assert_close(decayed.combiner.log_variances.data, -step, rtol=1e-4, atol=1e-6)
    whole.train_steps(6)
    parts.train_steps(3)
    network, state = copy.deepcopy(parts.model.state_dict()), copy.deepcopy(parts.state())
    resumed = agent(momentum=0.9, seed=0)
    resumed.resume(network, state)
    resumed.train_steps(3)
    assert torch.equal(resumed.combiner.log_variances, whole.combiner.log_variances)
    assert resumed.losses[:6].tolist() == whole.losses[:6].tolist()


def change_in(data: DataSet, setting: int, **options) -> tuple[list[float], torch.Tensor, dict]:
    """Losses of the first steps, by how much they have changed the weights, and the state after them."""
    agent = make(setting, data, lr=0.01, **options)
    start = [parameter.detach().clone() for parameter in agent.model.parameters()]
    agent.train_steps(6)
    pairs = zip(agent.model.parameters(), start, strict=True)
    change = torch.cat([(parameter - before).flatten() for parameter, before in pairs])
    return agent.losses[:6].tolist(), change.detach(), agent.model.state_dict()


@pytest.mark.parametrize(
    "backend",
    [
        "aot_eager_default_partitioner",  # traces and differentiates as inductor does
        pytest.param("inductor", marks=pytest.mark.compiler),
    ],
)
def test_a_compiled_network_learns_the_same_under_the_same_names(cifar10, monkeypatch, backend):
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend=backend))
    losses, change, state = change_in(cifar10, 3)
    compiled_losses, compiled_change, compiled_state = change_in(cifar10, 3, compile=True)
    assert compiled_losses[0] == pytest.approx(losses[0], rel=1e-5)
    assert compiled_losses == pytest.approx(losses, rel=5e-3)  # rounding grows from step to step
    assert (compiled_change - change).norm() < 0.02 * change.norm()
    assert list(compiled_state) == list(state)


@pytest.mark.parametrize("setting", [3, 5])
def test_a_network_in_bf16_learns_nearly_the_same_in_weights_of_fp32(cifar10, setting):
    exact, change, _ = change_in(cifar10, setting, precision=PRECISIONS[0])
    rounded, rounded_change, state = change_in(cifar10, setting, precision=PRECISIONS[1])
    assert rounded == pytest.approx(exact, rel=0.05)  # bf16 keeps 8 bits: 0.4 % at each of a dozen roundings
    assert rounded != pytest.approx(exact, rel=1e-6)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32, torch.int64}
    assert (rounded_change - change).norm() < 0.3 * change.norm()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("setting", [0, 2, 3, 5])
def test_steps_on_a_gpu_are_the_steps_of_the_cpu(setting):
    losses, weights = [], []
    for device in ("cpu", "cuda"):
        data = load(DATA_SETS[0].stand_in, Path(), 32, torch.device(device))
        agent = make(setting, data, lr=0.01, momentum=0.5, task=3 if setting == 2 else None)
        agent.train_steps(20)
        losses.append(agent.losses[:20].tolist())
        weights.append({name: tensor.cpu() for name, tensor in agent.model.state_dict().items()})
    assert losses[1] == pytest.approx(losses[0], rel=0.02)  # rounding grows from step to step
    torch.testing.assert_close(weights[1], weights[0], rtol=0.02, atol=0.01)


@pytest.mark.parametrize("setting", [0, 3, 5])
def test_the_record_of_an_epoch_says_what_its_steps_were(cifar10, setting):
    agent = make(setting, cifar10, batch_size=48)
    other = make(setting, cifar10, batch_size=48)
    (record,) = agent.train(1)
    other.train_steps(other.plan.steps_per_epoch)
    assert record["steps"] == other.plan.steps_per_epoch
    assert record["images"] == 48 * record["steps"]
    assert record["loss"] == pytest.approx(other.losses.mean().item(), rel=1e-6)
    trained = ~other.task_losses.isnan()
    assert trained.sum().item() == record["steps"] * (10 if setting == 5 else 1)
    expected = [row[kept].mean().item() for row, kept in zip(other.task_losses.T, trained.T, strict=True)]
    assert record["task_loss"] == pytest.approx(expected, rel=1e-5)
    assert record["images_per_second"] == pytest.approx(record["images"] / record["seconds"])
    assert record["evaluation_seconds"] > 0


def test_a_task_that_was_never_drawn_has_no_loss(cifar10):
    agent = make(4, cifar10, weights=[1] + [0] * 9)
    (record,) = agent.train(1)
    assert record["task_loss"][1:] == [None] * 9
    assert record["task_loss"][0] > 0
    assert record["loss"] == pytest.approx(record["task_loss"][0], rel=1e-6)


def test_a_drawn_task_whose_loss_is_not_finite_is_named(whole_cifar100):
    agent, names = make(3, whole_cifar100), list(whole_cifar100.spec.tasks)
    agent.model.heads[7][0].weight.data.fill_(torch.nan)
    first = agent.plan.sampled(1)[:, 0].tolist().index(7) + 1
    with pytest.raises(UserError, match=rf"{names[7]} is not finite from step {first} of epoch 1"):
        list(agent.train(1))


def test_the_rate_of_each_step_is_what_its_schedule_says(cifar10, monkeypatch):
    monkeypatch.setitem(SCHEDULES, "rising", Schedule("from 0 to --lr", lambda done: done, needs_total=True))
    agent = make(5, cifar10, lr=0.5, schedule="rising", epochs=4)
    agent.train_steps(1)
    before = copy.deepcopy(agent.model)
    rate = 0.5 * 1 / (4 * agent.plan.steps_per_epoch)
    agent.train_steps(1)
    for now, was in zip(agent.model.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(now, was - rate * now.grad)


def test_a_loss_whose_class_is_missing_is_told_in_a_line(monkeypatch, cifar10):
    monkeypatch.setitem(LOSSES, "mine", Loss("a loss of one's own", "Mine"))
    with pytest.raises(UserError, match=r"^LOSSES of settings\.py names 'Mine', and losses\.py has nothing"):
        make(5, cifar10, loss="mine")


# What is not finite


class Breaking(SmallEncoder):
    """The small encoder, whose gradient is not finite although its features are."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features, N x 128; the derivative of a square root at 0 is infinite, and 0 times it NaN."""
        return super().forward(images) + 0 * (0 * self.layers[0].weight.sum()).sqrt()


BREAKING = partial(Model, encoder=Breaking, num_hidden=8)


def test_weights_that_the_last_update_breaks_are_named(cifar10):
    agent = make(5, cifar10, BREAKING)
    with pytest.raises(UserError, match=r"encoder\.layers\.0\.weight is not finite after step 1 of epoch 1"):
        agent.train_steps(1)
    assert agent.losses[0].isfinite()


def test_an_epoch_that_ends_with_weights_that_are_not_finite_is_neither_scored_nor_recorded(cifar10):
    agent = make(5, cifar10, BREAKING, batch_size=320)
    with pytest.raises(UserError, match="not finite"):
        list(agent.train(1))
    assert agent.epochs == []


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_running_statistics_that_overflow_where_no_loss_does_are_named(cifar10, value):
    agent = make(3, cifar10)
    agent.model.encoder.layers[4].running_var[1] = value  # which training does not use
    with pytest.raises(UserError, match=r"encoder\.layers\.4\.running_var"):
        agent.train_steps(1)
    assert agent.losses[0].isfinite()


class Remembering(Combiner):
    """The mean, remembering something that no parameter or buffer holds."""

    def get_extra_state(self) -> dict:
        """A list with a number, a word and a tensor that is not finite."""
        return {"memory": [1, "word", torch.tensor([0.0, math.nan])]}


class RememberingAgent(SummedLossAgent):
    """Setting 5 with this combiner."""

    def make_combiner(self, num_heads: int) -> Combiner:
        return Remembering(num_heads)


def test_what_a_combination_remembers_is_checked_too(cifar10):
    run = make_run("train", {"setting": 5, "batch_size": 32}, spec=cifar10.spec)
    with pytest.raises(UserError, match=r"^combination\._extra_state\.memory\[2\] is not finite"):
        RememberingAgent(cifar10, run, NARROW).train_steps(1)


class StopAfter(StopSignals):
    """A signal after some steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def check(self) -> None:
        self.steps -= 1
        if self.steps == 0:
            raise Stopped(15)


@pytest.mark.parametrize("steps", [1, 10**9], ids=["stopped in mid-epoch", "to the end"])
def test_a_model_that_is_not_finite_is_never_saved_and_leaves_earlier_files_as_they_are(tmp_path, steps):
    path = write_data(tmp_path / "own.npz", [16, 16])
    options = {"data": path, "batch_size": 8 if steps == 1 else 32, "save_path": tmp_path / "run"}
    options |= {"save_history": True, "resume": True}
    train(make_run("train", options | {"epochs": 1}), StopSignals(), NARROW)
    before = {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    breaking = partial(Model, encoder=Breaking, num_hidden=NUM_HIDDEN)
    with pytest.raises(UserError, match="not finite after step 1 of epoch 2"):
        train(make_run("train", options | {"epochs": 2}), StopAfter(steps), breaking)
    assert {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()} == before


def test_a_training_that_ends_with_weights_that_are_not_finite_fails_where_nothing_is_saved_too(
    program, tmp_path
):
    path = write_data(tmp_path / "own.npz", [16, 16])
    ended = program(
        "--train", "--setting", 0, "--data", path, "--batch_size", 32, "--epochs", 1, "--lr", 1e39
    )
    assert "not finite" in error_line(ended)
    assert ended.out == ""


class ShortAgent(StandardAgent):
    """Setting 0 on a few of the images."""

    def sources(self) -> list[Source]:
        return [replace(super().sources()[0], images=np.arange(20))]


def test_a_source_that_does_not_fill_a_batch_is_refused_where_it_would_be_trained_on(cifar10):
    def agent(**options) -> Agent:
        return ShortAgent(cifar10, make_run("train", options, spec=cifar10.spec), NARROW)

    with pytest.raises(UserError, match="all classes has 20 training images"):
        list(agent(batch_size=21).train(1))
    assert len(list(agent(batch_size=20).train(1))) == 1


@pytest.mark.parametrize("setting", [0, 3])
def test_a_network_without_anything_to_train_is_scored_as_it_is(cifar10, setting):
    agent = make(setting, cifar10, weight_decay=0.1)
    agent.model.requires_grad_(False)
    before = copy.deepcopy(list(agent.model.parameters()))
    agent.train_steps(2)
    assert all(torch.equal(*pair) for pair in zip(agent.model.parameters(), before, strict=True))


# Evaluation


@pytest.fixture(scope="module")
def trained(cifar10, cifar100) -> dict:
    """Agents whose models have learnt a little, so that right and wrong answers both occur."""
    agents = {}
    for data in (cifar10, cifar100):
        for setting in (0, 1, 2, 3) + ((5,) if data is cifar10 else ()):
            agent = make(setting, data, task=4 if setting == 2 else None)
            agent.train_steps(min(30, agent.plan.steps_per_epoch))
            agents[data.spec.name, setting] = agent
    return agents


def slow_answer(agent: Agent, setting: int, logits: list[torch.Tensor], task: int) -> int:
    """The answer to one task about one image, by the words of the definition."""
    data = agent.data
    if setting != 1:
        return int(logits[task].argmax())
    numbers = data.tasks[task].tolist()
    own = [label for label in range(data.spec.num_classes) if numbers[label] != -1]
    best = max(own, key=lambda label: logits[0][0, label].item())
    return numbers[best]


@pytest.mark.parametrize(
    ("name", "setting"), [("CIFAR-10", s) for s in (0, 1, 2, 3, 5)] + [("CIFAR-100", s) for s in (0, 1, 2, 3)]
)
@torch.inference_mode()
def test_scores_are_those_of_a_slow_evaluation_image_by_image(trained, name, setting):
    agent = trained[name, setting]
    data, model = agent.data, copy.deepcopy(agent.model).eval()
    tables = {0: torch.arange(data.spec.num_classes)[None], 2: data.tasks[4:5]}
    table = tables.get(setting, data.tasks)
    outcomes = [{} for _ in table]
    test = copy.copy(data.test)
    test.images, test.labels = test.images[::5], test.labels[::5]
    for i in range(0, len(data.test), 5):
        features = model.encoder(data.test.batch(torch.tensor([i]))[0])
        logits = [head(features) for head in model.heads]
        label = int(data.test.labels[i])
        for task, numbers in enumerate(table.tolist()):
            if numbers[label] != -1:
                right = slow_answer(agent, setting, logits, task) == numbers[label]
                outcomes[task].setdefault(numbers[label], []).append(right)
    scores = Scorer(test, table, agent.targets())(agent.model)
    assert scores.accuracy == pytest.approx([np.mean(sum(o.values(), [])) for o in outcomes])
    assert scores.balanced_accuracy == pytest.approx(
        [np.mean([np.mean(v) for v in o.values()]) for o in outcomes]
    )
    assert 0 < np.mean(scores.accuracy) < 1


@pytest.mark.parametrize(
    ("name", "setting"), [("CIFAR-10", 1), ("CIFAR-10", 5), ("CIFAR-100", 0), ("CIFAR-100", 3)]
)
def test_an_evaluation_does_not_depend_on_the_batch_size(trained, name, setting):
    agent = trained[name, setting]
    expected = agent.evaluate()
    for batch_size in (1 if name == "CIFAR-10" else 3, 7, 64, 10_000):
        scores = agent.scorer(agent.model, batch_size=batch_size)
        assert scores.loss == pytest.approx(expected.loss, rel=1e-5)
        assert replace(scores, loss=expected.loss) == expected


def encoded(agent: Agent) -> list[int]:
    """Evaluate, and give back how many images the encoder got each time."""
    seen = []
    hook = agent.model.encoder.register_forward_hook(lambda _, images, __: seen.append(len(images[0])))
    agent.evaluate()
    hook.remove()
    return seen


@pytest.mark.parametrize("setting", [1, 3, 5])
def test_an_evaluation_runs_the_encoder_once_per_image_however_many_tasks_there_are(trained, setting):
    agent = trained["CIFAR-10", setting]
    assert sum(encoded(agent)) == len(agent.data.test)


def test_an_evaluation_takes_fewer_of_larger_images_at_once():
    most = {}
    for size in (32, 64):
        spec = replace(DATA_SETS[0].stand_in, train_counts=(16,) * 10)
        most[size] = max(encoded(make(0, load(spec, Path(), size, torch.device("cpu")))))
    assert most[64] == most[32] / 4


def test_an_evaluation_changes_nothing(trained):
    agent = trained["CIFAR-100", 3]
    agent.model.heads[3].append(torch.nn.Dropout())  # would draw
    before, generator = copy.deepcopy(agent.model.state_dict()), torch.get_rng_state()
    agent.model.train()  # as an epoch leaves it
    agent.evaluate()
    assert all(torch.equal(value, before[name]) for name, value in agent.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert agent.model.training
    agent.model.heads[3].pop(-1)


def test_the_constant_answer_scores_the_share_of_the_commonest_answer(cifar10, cifar100):
    for agent, constant, answers in (
        (make(3, cifar10), [0.9] * 10, [2] * 10),
        (make(1, cifar100), [0.2] * 20, [5] * 20),
        (make(0, cifar100), [0.01], [100]),
    ):
        assert agent.scorer.constant_accuracy == pytest.approx(constant)
        assert agent.scorer.num_answers == answers


def test_unequal_classes_count_equally_in_the_balanced_accuracy_only(cifar10):
    agent = make(3, cifar10)
    for head in agent.model.heads:  # every head says "no"
        torch.nn.init.zeros_(head[-1].weight)
        head[-1].bias.data = torch.tensor([1.0, 0.0])
    scores = agent.evaluate()
    assert scores.accuracy == pytest.approx([0.9] * 10)
    assert scores.balanced_accuracy == pytest.approx([0.5] * 10)


# Learning and reproducing


@pytest.mark.parametrize("setting", [0, 3, 5])
def test_a_short_training_is_well_above_a_constant_answer(cifar10, setting):
    agent = make(setting, cifar10, momentum=0.9, batch_size=16 if setting == 5 else 32)
    train_epochs(agent, {0: 3, 3: 4, 5: 6}[setting])
    scores = agent.evaluate()
    if setting == 0:
        assert scores.accuracy[0] > 0.4
    else:
        assert np.mean(scores.accuracy) > 0.92
        assert np.mean(scores.balanced_accuracy) > 0.7


@pytest.mark.parametrize("setting", range(7))
def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(cifar10, setting):
    def weights(seed: int, noise: int) -> bytes:
        torch.manual_seed(noise)
        np.random.seed(noise)
        options = {"task": 1} if setting == 2 else {}
        agent = make(setting, cifar10, seed=seed, **options)
        agent.train_steps(5)
        return b"".join(value.numpy().tobytes() for value in agent.model.state_dict().values())

    assert weights(0, 1) == weights(0, 2)
    assert weights(0, 1) != weights(1, 1)


def test_equal_seeds_give_equal_encoders_whatever_the_heads(cifar10):
    def first_weights(setting: int, seed: int) -> torch.Tensor:
        return make(setting, cifar10, seed=seed).model.encoder.layers[0].weight

    assert torch.equal(first_weights(0, 3), first_weights(3, 3))
    assert not torch.equal(first_weights(0, 3), first_weights(0, 4))
