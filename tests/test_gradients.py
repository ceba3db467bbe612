"""What is recorded beside the accuracy, against slow versions.

That is how the gradients of the tasks agree, the losses on test images, the accuracy in training, and what a
combiner or an agent of one's own adds.
"""

import copy
import json
from dataclasses import replace
from functools import partial, partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import NARROW, error_line, make, one_line, result_of, write_data
from test_agents import StopAfter
from test_losses import TINY, TinyEncoder, bytes_of, gradient_of, resumed, weights_of

import agents
import losses
from agents import Agent, SummedLossAgent
from data import DataSet, load
from errors import UserError
from losses import Combiner, make_combiner
from models import Model
from options import OPTIONS, make_run
from running.stopping import Stopped
from running.training import train
from settings import LOSSES, Loss
from storage.history import read_history
from tasks import DATA_SETS

NO_WEIGHTS = {"graddrop", "config"}
"""Losses whose update is no weighted sum of the gradients, or does not say its weights."""


@pytest.fixture(scope="module")
def three() -> DataSet:
    """The stand-in's images with three questions, each true of half of the classes."""
    rows = {f"task {t}": tuple(int((c - 3 * t) % 10 < 5) for c in range(10)) for t in range(3)}
    counts = {"train_counts": (16,) * 10, "test_counts": (8,) * 10}
    return load(replace(DATA_SETS[0].stand_in, tasks=rows, **counts), Path(), 8, torch.device("cpu"))


class Noisy(TinyEncoder):
    """The tiny encoder, which draws in training."""

    def forward(self, images):
        return F.dropout(super().forward(images), 0.1, self.training)


NOISY = partial(TINY, encoder=Noisy)


def measured(data: DataSet, network=TINY, **options) -> Agent:
    """An agent that records gradients, in setting 5 if nothing else is said, with two steps an epoch."""
    setting = options.pop("setting", 5)
    return make(setting, data, network, **{"gradients": True, "batch_size": 80, "lr": 0.5, **options})


# The gradients


def rows_of(agent: Agent) -> torch.Tensor:
    """The gradient of each task's loss in the next step, each from a pass of its own: tasks x parameters."""
    drawn = agent.plan.sampled(len(agent.epochs) + 1)[agent.step].tolist()
    indices = torch.from_numpy(agent.plan.indices(len(agent.epochs) + 1)[agent.step])
    inputs, labels = agent.data.train.batch(indices)
    size, rows = len(labels) // len(drawn), []
    for task in range(len(agent.model.heads)):
        model = copy.deepcopy(agent.model).train()
        here = slice(task * size, (task + 1) * size) if len(drawn) > 1 else slice(None)
        apart = agent.run.normalisation == "apart"
        features = model.encoder(inputs[here]) if apart else model.encoder(inputs)[here]
        logits = model.heads[task](features)
        F.cross_entropy(logits, agent.data.tasks[task][labels[here]]).backward()
        rows.append(gradient_of(model.encoder.parameters()))
    return torch.stack(rows)


@pytest.mark.parametrize("loss", LOSSES)
def test_norms_cosines_and_weights_are_those_of_separate_backward_passes(three, loss):
    agent = measured(three, loss=loss)
    list(agent.train(2))  # so that what remembers has something to remember
    rows = rows_of(agent)
    torch.manual_seed(7)
    agent.train_steps(1)
    found = agent.gradients
    assert found["norms"] == pytest.approx([row.norm().item() for row in rows], rel=1e-3)
    cosines = [[F.cosine_similarity(one, other, dim=0).item() for other in rows] for one in rows]
    assert np.array(found["cosines"]) == pytest.approx(np.array(cosines), abs=1e-3)
    assert (found["weights"] is None) == (loss in NO_WEIGHTS)
    if found["weights"]:  # the sum is the update that the step then makes, whatever the method draws
        update = torch.tensor(found["weights"]) @ rows
        got = gradient_of(agent.model.encoder.parameters())
        assert (update - got).norm() < 5e-3 * got.norm()
        assert loss in ("mean", "dwa") or len({round(weight, 4) for weight in found["weights"]}) > 1


@pytest.mark.parametrize(
    "options",
    [
        {"setting": 6},
        {"setting": 6, "weights": [1, 0, 3]},
        {"setting": 3, "tasks_per_step": "all", "batch_size": 60},
        {"setting": 3, "tasks_per_step": "all", "batch_size": 60, "loss": "upgrad"},
        {"setting": 3, "tasks_per_step": "all", "batch_size": 60, "normalisation": "apart"},
    ],
)
def test_every_setting_with_all_tasks_in_a_step_records_them(three, options):
    agent = measured(three, **options)
    rows = rows_of(agent)
    agent.train_steps(1)
    assert agent.gradients["norms"] == pytest.approx([row.norm().item() for row in rows], rel=1e-3)
    update = torch.tensor(agent.gradients["weights"]) @ rows
    got = gradient_of(agent.model.encoder.parameters())
    assert (update - got).norm() < 5e-3 * got.norm()
    if options["setting"] == 6:
        given = np.array(options.get("weights", [1, 2, 3]))
        assert agent.gradients["weights"] == pytest.approx(given / given.sum())


def test_they_are_those_of_the_images_as_the_step_sees_them(three):
    agent, seen = measured(three, augment=True), []
    agent.model.encoder.register_forward_pre_hook(lambda _, images: seen.append(images[0].clone()))
    agent.train_steps(2)
    assert len(seen) == 3  # before the first step only
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_a_task_without_a_gradient_has_a_norm_and_cosines_of_0(three):
    agent = measured(three)
    with torch.no_grad():
        agent.model.heads[1][0].weight.zero_()
    agent.train_steps(1)
    assert agent.gradients["norms"][1] == 0
    assert agent.gradients["cosines"][1] == [0, 0, 0]
    assert [row[1] for row in agent.gradients["cosines"]] == [0, 0, 0]
    assert agent.gradients["cosines"][0][0] == pytest.approx(1)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("blind", [[1], [0, 1, 2]], ids=["one", "all"])
def test_tasks_without_a_gradient_do_not_end_the_training(three, loss, blind):
    agent = measured(three, loss=loss)
    with torch.no_grad():
        for task in blind:
            agent.model.heads[task][0].weight.zero_()
    agent.train_steps(1)
    assert [norm == 0 for norm in agent.gradients["norms"]] == [task in blind for task in range(3)]
    weights = agent.gradients["weights"]
    assert weights is None or np.isfinite(weights).all()


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if LOSSES[loss].aggregates])
def test_gradients_of_every_length_have_finite_weights_or_none_and_stay_as_they_are(loss):
    torch.manual_seed(0)
    directions, combiner = torch.randn(4, 30), make_combiner(loss, 4)
    for short in ([0, 1], [0, 1, 2, 3]):
        for power in (8, 17, 23, 41):
            gradients = directions.clone()
            gradients[short] *= 10.0**-power
            before = gradients.clone()
            found = combiner.task_weights(torch.ones(4), torch.full((4,), 0.25), gradients)
            assert found is None or found.isfinite().all()
            assert torch.equal(gradients, before)


@pytest.mark.parametrize("parts", [["encoder"], ["encoder", "heads"]], ids=["encoder", "everything"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_frozen_encoder_has_gradients_of_0(three, loss, parts):
    agent = measured(three, loss=loss)
    for part in parts:
        getattr(agent.model, part).requires_grad_(False)
    agent.train_steps(1)
    assert agent.gradients["norms"] == [0, 0, 0]
    assert agent.gradients["cosines"] == [[0, 0, 0]] * 3


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_that_are_not_finite_end_the_training_in_a_line_as_without(three, loss):
    ends = []
    for gradients in (True, False):
        agent = measured(three, loss=loss, gradients=gradients)
        agent.model.heads[1][0].weight.data.fill_(torch.nan)
        with pytest.raises(UserError) as caught:
            agent.train_steps(1)
        ends.append(str(caught.value))
    assert ends[0] == ends[1]
    assert "\n" not in ends[0]


def test_frozen_parameters_of_an_encoder_do_not_count(three):
    agent = measured(three)
    agent.model.encoder[0].requires_grad_(False)
    frozen = agent.model.encoder[0].weight.numel() + agent.model.encoder[0].bias.numel()
    whole = copy.deepcopy(agent.model).requires_grad_(True)
    agent.train_steps(1)
    agent_with_all = measured(three)
    agent_with_all.model.load_state_dict(whole.state_dict())
    rows = rows_of(agent_with_all)[:, frozen:]
    assert agent.gradients["norms"] == pytest.approx([row.norm().item() for row in rows], rel=1e-3)


def test_a_compiled_encoder_has_the_same_gradients(three, monkeypatch):
    traced = partialmethod(torch.nn.Module.compile, backend="aot_eager_default_partitioner")
    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    plain, compiled = (measured(three, compile=compiled) for compiled in (False, True))
    for agent in (plain, compiled):
        agent.train_steps(2)
    assert compiled.gradients["norms"] == pytest.approx(plain.gradients["norms"], rel=1e-3)
    np.testing.assert_allclose(compiled.gradients["cosines"], plain.gradients["cosines"], atol=1e-3)
    assert compiled.losses[:2].tolist() == pytest.approx(plain.losses[:2].tolist(), rel=1e-3)


@pytest.mark.parametrize("loss", LOSSES)
def test_measuring_changes_no_bit(three, loss):
    ends = []
    for gradients in (True, False):
        agent = measured(three, NOISY, loss=loss, gradients=gradients, momentum=0.5)
        torch.manual_seed(3)
        epochs = list(agent.train(2 if loss == "dwa" else 1))  # which remembers two epochs
        agent.train_steps(1)
        assert {("gradients" in epoch) for epoch in epochs} == {gradients}
        combination = bytes_of(agent.state()["combination"])
        ends.append((weights_of(agent), torch.get_rng_state().tolist(), combination))
    assert ends[0] == ends[1]


def test_only_the_last_epoch_has_the_whole_matrix(three):
    agent = measured(three)
    first = [np.array(epoch["gradients"]["cosines"]) for epoch in agent.train(3)]
    for epoch, cosines in zip(agent.epochs, first, strict=True):
        others = [[row[i] for i in range(3) if i != task] for task, row in enumerate(cosines)]
        assert epoch["gradients"]["mean_cosines"] == pytest.approx(np.mean(others, axis=1))
    kept = [set(epoch["gradients"]) for epoch in agent.epochs]
    assert kept == [{"norms", "weights", "mean_cosines"}] * 2 + [
        {"norms", "weights", "mean_cosines", "cosines"}
    ]


def without_times(epochs: list[dict]) -> list[dict]:
    times = ("seconds", "evaluation_seconds", "images_per_second")
    return [{name: value for name, value in epoch.items() if name not in times} for epoch in epochs]


@pytest.mark.parametrize("loss", ["mean", "upgrad", "graddrop"])
def test_they_survive_a_stop_in_mid_epoch(three, loss):
    options = {"gradients": True, "batch_size": 80, "lr": 0.5}
    whole = measured(three, loss=loss)
    list(whole.train(1))
    whole.train_steps(1)
    content = bytes_of([whole.model.state_dict(), whole.state()])
    list(whole.train(2))
    parts = resumed(content, three, loss, **options)
    list(parts.train(2))
    assert without_times(parts.epochs) == without_times(whole.epochs)
    assert "cosines" in parts.epochs[1]["gradients"]


def test_a_run_records_them_and_goes_on_with_or_without(program, tmp_path):
    file = write_data(tmp_path / "own.npz", [16, 12, 14], size=8)
    common = ("--train", "--data", file, "--setting", 5, "--batch_size", 8, "--save_path", tmp_path)
    common += ("--resume", "--save_history")
    for epochs, more in ((1, ("--gradients",)), (2, ()), (3, ("--gradients",))):
        assert program(*common, "--epochs", epochs, *more, network=TINY).code == 0
    records = [epoch.get("gradients") for epoch in read_history(tmp_path / "history.json", OPTIONS).epochs]
    assert [record and set(record) for record in records] == [
        {"norms", "weights", "mean_cosines"},
        None,
        {"norms", "weights", "mean_cosines", "cosines"},
    ]


@pytest.mark.parametrize("setting", [0, 1, 2, 4])
def test_a_setting_without_all_tasks_in_a_step_refuses_them(program, setting):
    task = ("--task", 1) if setting == 2 else ()
    refused = program("--train", "--data", 0, "--setting", setting, *task, "--gradients")
    assert (refused.code, one_line(refused)) == (2, True)
    (option,) = (each for each in OPTIONS if each.name == "gradients")
    which = " and ".join(map(str, option.settings))
    assert which.startswith("3 and 5 and 6")
    assert f"--gradients goes with --setting {which} only" in refused.err


def test_steps_that_sample_some_tasks_refuse_them(program):
    for more in ((), ("--tasks_per_step", 4)):
        refused = program("--train", "--data", 0, "--setting", 3, "--gradients", *more)
        assert (refused.code, one_line(refused)) == (2, True)
        assert "add --tasks_per_step all" in refused.err


# Losses on test images and accuracy in training

WAYS_OF_TRAINING = [
    (0, {}),
    (1, {}),
    (2, {"task": 3}),
    (3, {}),
    (3, {"tasks_per_step": 4}),
    (3, {"tasks_per_step": 4, "normalisation": "apart"}),
    (3, {"tasks_per_step": "all"}),
    (4, {"weights": [1, 2, 3] + [0] * 7}),
    (5, {}),
]


def slow_hits(agent: Agent, step: int) -> dict[int, list[bool]]:
    """Which images of a step each head answers rightly, before its update."""
    data, setting = agent.data, agent.run.setting
    epoch = len(agent.epochs) + 1
    drawn = agent.plan.sampled(epoch)[step].tolist()
    inputs, labels = data.train.batch(torch.from_numpy(agent.plan.indices(epoch)[step]))
    size, model = len(labels) // len(drawn), copy.deepcopy(agent.model).train()
    table = {0: torch.arange(10)[None], 1: torch.arange(10)[None], 2: data.tasks[3:4]}.get(
        setting, data.tasks
    )
    hits: dict[int, list[bool]] = {}
    together = model.encoder(inputs)
    for source in dict.fromkeys(drawn):
        places = [i for i, other in enumerate(drawn) if other == source]
        here = torch.cat([torch.arange(place * size, place * size + size) for place in places])
        features = together[here] if agent.run.normalisation == "together" else model.encoder(inputs[here])
        for head in range(10) if setting == 5 else [source]:
            answers = model.heads[head](features).argmax(dim=1)
            hits[head] = (answers == table[head][labels[here]]).tolist()
    return hits


@pytest.mark.parametrize(("setting", "options"), WAYS_OF_TRAINING)
def test_losses_on_test_images_and_accuracies_in_training_are_those_of_loops(cifar10, setting, options):
    agent = make(setting, cifar10, TINY, lr=0.05, **{"batch_size": 160, **options})
    hits: dict[int, list[bool]] = {}
    for step in range(agent.plan.steps_per_epoch):
        for head, right in slow_hits(agent, step).items():
            hits.setdefault(head, []).extend(right)
        agent.train_steps(1)
    (record,) = agent.train(1)
    expected = [np.mean(hits[head]) if head in hits else None for head in range(len(agent.model.heads))]
    assert record["train_accuracy"] == pytest.approx(expected, abs=0.005)  # a rounding may decide an answer
    assert None in expected or setting != 4
    model, labels = copy.deepcopy(agent.model).eval(), cifar10.test.labels
    features = model.encoder(cifar10.test.batch(torch.arange(len(labels)))[0])
    logits = [head(features).double() for head in model.heads]
    if setting == 1:  # the probability of an answer is the sum over its classes
        chances = logits[0].softmax(dim=1)
        for task, found in enumerate(record["test_loss"]):
            of_class = chances[:, task]
            right = torch.where(labels == task, of_class, 1 - of_class)
            assert found == pytest.approx(-right.log().mean().item(), rel=1e-4)
    else:
        table = {0: torch.arange(10)[None], 2: cifar10.tasks[3:4]}.get(setting, cifar10.tasks)
        losses = [F.cross_entropy(*pair).item() for pair in zip(logits, table[:, labels], strict=True)]
        assert record["test_loss"] == pytest.approx(losses, rel=1e-4)


def test_each_epoch_counts_its_own_answers(cifar10):
    agent = make(5, cifar10, TINY, lr=0.05, batch_size=160)
    list(agent.train(1))
    hits: list[list[bool]] = [[] for _ in range(10)]
    for step in range(2):
        for head, right in slow_hits(agent, step).items():
            hits[head] += right
        agent.train_steps(1)
    (record,) = agent.train(2)
    assert record["train_accuracy"] == pytest.approx([np.mean(right) for right in hits], abs=0.005)


@pytest.mark.parametrize(("setting", "options"), [(3, {"tasks_per_step": 4}), (5, {})])
def test_a_run_that_stops_in_mid_epoch_counts_its_answers_on(cifar10, setting, options):
    def agent() -> Agent:
        return make(setting, cifar10, TINY, lr=0.05, batch_size=160, **options)

    whole, parts, goes_on = agent(), agent(), agent()
    list(whole.train(2))
    list(parts.train(1))
    parts.train_steps(1)
    goes_on.resume(copy.deepcopy(parts.model.state_dict()), copy.deepcopy(parts.state()))
    list(goes_on.train(2))
    assert without_times(goes_on.epochs) == without_times(whole.epochs)
    assert whole.epochs[0]["train_accuracy"] != whole.epochs[1]["train_accuracy"]


def test_a_loss_that_no_number_holds_is_none(cifar10):
    agent = make(5, cifar10, TINY)
    with torch.no_grad():
        agent.model.heads[3][-1].bias[0] = torch.inf
    loss = agent.evaluate().loss
    assert loss[3] is None
    assert None not in loss[:3] + loss[4:]


# What a combiner or an agent of one's own adds


class Telling(Combiner):
    """The mean, with numbers to record."""

    steps = 0

    def after_step(self, recompute) -> None:
        self.steps += 1

    def record(self) -> dict:
        return {"steps": float(self.steps), "weights": [0.5] * self.num_heads}

    def get_extra_state(self) -> int:
        return self.steps

    def set_extra_state(self, state: int) -> None:
        self.steps = state


def test_what_a_combiner_records_is_in_the_history_of_each_epoch(program, tmp_path, monkeypatch):
    monkeypatch.setitem(LOSSES, "telling", Loss("the mean, with numbers", "Telling"))
    monkeypatch.setattr(losses, "Telling", Telling, raising=False)
    file = write_data(tmp_path / "own.npz", [16, 16], size=8)
    common = ("--train", "--data", file, "--setting", 5, "--batch_size", 8, "--save_path", tmp_path)
    for epochs in (1, 2):
        options = ("--loss", "telling", "--epochs", epochs, "--resume", "--save_history")
        assert program(*common, *options, network=TINY).code == 0
    epochs = json.loads((tmp_path / "history.json").read_text())["epochs"]
    assert [epoch["combiner"] for epoch in epochs] == [
        {"steps": 4.0, "weights": [0.5, 0.5]},
        {"steps": 8.0, "weights": [0.5, 0.5]},
    ]
    assert read_history(tmp_path / "history.json", OPTIONS).epochs == epochs
    plain = tmp_path / "plain"
    program(*common[:-1], plain, "--epochs", 1, "--save_history", network=TINY)
    assert "combiner" not in json.loads((plain / "history.json").read_text())["epochs"][0]


class AveragingAgent(SummedLossAgent):
    """Setting 5, scored with a moving average of the weights."""

    def __init__(self, data, run, network=None) -> None:
        super().__init__(data, run, network)
        self.average = copy.deepcopy(self.model)

    def after_step(self) -> None:
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(value, 0.2)
            for mean, value in zip(self.average.buffers(), self.model.buffers(), strict=True):
                mean.copy_(value)

    @property
    def scored_model(self) -> Model:
        return self.average

    def get_extra_state(self) -> dict:
        return self.average.state_dict()

    def set_extra_state(self, state: dict) -> None:
        self.average.load_state_dict(state)


def test_an_agent_that_scores_an_average_is_evaluated_as_its_training_scored_it(
    program, tmp_path, monkeypatch
):
    file = write_data(tmp_path / "own.npz", [30, 20, 25], size=8)

    def start(name: str, steps: int) -> None:
        options = {"data": file, "setting": 5, "batch_size": 16, "epochs": 2, "lr": 0.5}
        options |= {"save_path": tmp_path / name, "resume": True, "save_history": True}
        train(make_run("train", options), StopAfter(steps), NARROW, 3600)

    start("plain", 10**9)
    monkeypatch.setattr(agents, "SummedLossAgent", AveragingAgent)
    start("whole", 10**9)
    with pytest.raises(Stopped):
        start("parts", 6)
    start("parts", 10**9)
    assert result_of(tmp_path / "parts") == result_of(tmp_path / "whole")
    weights, history = result_of(tmp_path / "whole")
    plain_weights, plain_history = result_of(tmp_path / "plain")
    assert weights == plain_weights  # it trains as without
    usual, again = (history["epochs"][-1]["accuracy"], history["as_trained"]["accuracy"])
    assert history["epochs"][-1]["test_loss"] != plain_history["epochs"][-1]["test_loss"]
    assert history["epochs"][0]["test_loss"] != history["epochs"][1]["test_loss"]
    for setting in (5, 3):
        evaluated = program("--eval", "--data", file, "--setting", setting, "--save_path", tmp_path / "whole")
        assert evaluated.accuracy == f"Accuracy: {usual}"
        assert f"{np.mean(again):.4f}, as usual {np.mean(usual):.4f}" in evaluated.err
    monkeypatch.undo()
    for name in ("whole", "plain"):
        refused = program("--eval", "--data", file, "--setting", 5, "--save_path", tmp_path / name)
        if name == "whole":  # which the program as it is cannot score as training did
            assert "training.extra" in error_line(refused)
        else:
            assert refused.code == 0


def test_an_average_is_scored_as_trained_too(three):
    run = make_run("train", {"setting": 5, "batch_size": 80, "lr": 0.5}, spec=three.spec)
    agent, plain = AveragingAgent(three, run, TINY), SummedLossAgent(three, run, TINY)
    agent.train_steps(2)
    for network, same in ((agent.average, True), (agent.model, False)):
        plain.model.load_state_dict(network.state_dict())
        assert (plain.evaluate_as_trained() == agent.evaluate_as_trained()) == same
