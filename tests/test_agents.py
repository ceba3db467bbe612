"""The ways of training against slow and obvious versions of the same definitions."""

import copy
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from agents import AGENTS, Agent
from data import DataSet, images_of, load
from models import Model
from settings import PRECISIONS, SYNTHETIC, TrainingOptions


def make(setting: int, data: DataSet, **options) -> Agent:
    return AGENTS[setting](data, TrainingOptions(**{"batch_size": 32, **options}))


def train_epochs(agent: Agent, count: int) -> list[float]:
    return [epoch["loss"] for epoch in agent.train(len(agent.epochs) + count)]


def slow_inputs(split, i: int) -> torch.Tensor:
    return split.batch(torch.tensor([i]))[0]


# Which images and which losses


@pytest.mark.parametrize("task", [0, 7])
def test_a_single_task_trains_on_its_own_images_and_classes(cifar100, task):
    agent = make(2, cifar100, task=task)
    sources, images = agent.plan(1)
    assert set(sources.tolist()) == {0}
    labels = cifar100.train.labels[torch.from_numpy(images)]
    assert (cifar100.tasks[task][labels] >= 0).all()
    assert len(set(images.flatten().tolist())) == 160
    assert agent.model.heads[0][-1].out_features == 5
    assert agent.names == [list(cifar100.spec.tasks)[task]]


def test_a_drawn_task_trains_on_its_own_images(cifar100):
    sources, images = make(3, cifar100).plan(1)
    for task, batch in zip(sources, images, strict=True):
        assert (cifar100.tasks[task][cifar100.train.labels[batch]] >= 0).all()


@pytest.mark.parametrize("setting", [0, 1, 3, 4, 5, 6])
def test_an_epoch_has_as_many_steps_as_full_batches_in_a_pass_over_every_task(cifar10, setting):
    batch_size = 48  # does not divide the 320 images
    agent = make(setting, cifar10, batch_size=batch_size, weights=range(1, 11) if setting in (4, 6) else None)
    passes = 10 if setting in (3, 4) else 1
    steps = []
    plain = agent.loss
    agent.loss = lambda *step: steps.append(1) or plain(*step)
    train_epochs(agent, 1)
    assert len(steps) == agent.steps_per_epoch == passes * (320 // batch_size)


@pytest.mark.parametrize(
    ("setting", "weights"),
    [(3, None), (4, range(1, 21)), (4, [0] * 10 + [1] * 5 + [7] * 5)],
    ids=["uniform", "rising", "given"],
)
def test_tasks_are_drawn_as_often_as_their_weights_say(cifar100, setting, weights):
    agent = make(setting, cifar100, batch_size=2, weights=weights)
    drawn = np.concatenate([agent.plan(epoch)[0] for epoch in range(1, 11)])
    share = np.ones(20) / 20 if weights is None else np.array(list(weights)) / sum(weights)
    expected = share * len(drawn)
    assert len(drawn) == 16_000
    deviation = np.abs(np.bincount(drawn, minlength=20) - expected)
    assert (deviation <= 4 * np.sqrt(expected)).all()


def test_a_task_goes_on_in_a_later_epoch_where_it_was_left(cifar100):
    agent = make(3, cifar100, batch_size=24)  # 6 batches a pass, and 16 images left out
    shown = {task: [] for task in range(20)}
    for epoch in range(1, 6):
        for task, batch in zip(*agent.plan(epoch), strict=True):
            shown[task].append(batch.tolist())
    for batches in shown.values():
        for start in range(0, len(batches) - 5, 6):
            images = sum(batches[start : start + 6], [])
            assert len(images) == len(set(images)) == 144


def test_a_single_stream_shows_every_image_once_an_epoch(cifar100):
    agent = make(0, cifar100)
    orders = [agent.plan(epoch)[1].flatten().tolist() for epoch in (1, 2)]
    for images in orders:
        assert sorted(images) == list(range(3200))
    assert orders[0] != orders[1]


def plain_loss(model, data, images: torch.Tensor, task: int) -> torch.Tensor:
    """Loss of one task with a pass of its own through the whole network."""
    inputs, labels = data.train.batch(images)
    return F.cross_entropy(model.heads[task](model.encoder(inputs)), data.tasks[task][labels])


@pytest.mark.parametrize("weights", [None, range(1, 11), [0, 3, 0, 1, 0, 0, 0, 0, 0, 2]])
def test_the_summed_loss_and_its_gradients_are_those_of_separate_passes(cifar10, weights):
    agent = make(5 if weights is None else 6, cifar10, weights=weights)
    share = np.ones(10) / 10 if weights is None else np.array(list(weights)) / sum(weights)
    assert share.sum() == pytest.approx(1)
    separate = Model(3, [2] * 10, seed=1)
    separate.load_state_dict(agent.model.state_dict())
    images = torch.from_numpy(agent.plan(1)[1][0])

    loss = agent.loss(0, *cifar10.train.batch(images))
    loss.backward()
    expected = 0.0
    for task in range(10):
        part = share[task] * plain_loss(separate, cifar10, images, task)
        part.backward()  # gradients add up
        expected += part.item()

    assert loss.item() == pytest.approx(expected, rel=1e-5)
    expected = {name: parameter.grad for name, parameter in separate.named_parameters()}
    assert expected
    got = {name: parameter.grad for name, parameter in agent.model.named_parameters()}
    for name in [name for name in got if ".stack." in name]:
        got |= {name.replace("stack", str(head)): each for head, each in enumerate(got.pop(name))}
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("setting", [0, 2, 3])
def test_the_loss_of_one_head_is_its_cross_entropy_and_a_step_is_plain_gradient_descent(cifar100, setting):
    agent = make(setting, cifar100, lr=0.25, task=3 if setting == 2 else None)
    sources, images = agent.plan(1)
    source, batch = int(sources[0]), torch.from_numpy(images[0])
    numbers = {0: torch.arange(100), 2: cifar100.tasks[3], 3: cifar100.tasks[source]}[setting]
    reference = copy.deepcopy(agent.model)
    inputs, labels = cifar100.train.batch(batch)
    head = source if setting == 3 else 0
    loss = F.cross_entropy(reference.heads[head](reference.encoder(inputs)), numbers[labels])
    loss.backward()

    assert agent.loss(source, inputs, labels).item() == pytest.approx(loss.item(), rel=1e-6)
    agent = make(setting, cifar100, lr=0.25, task=3 if setting == 2 else None)
    agent.plan = lambda epoch: (sources[:1], images[:1])
    train_epochs(agent, 1)
    for got, before in zip(agent.model.parameters(), reference.parameters(), strict=True):
        step = 0 if before.grad is None else 0.25 * before.grad
        torch.testing.assert_close(got, before - step, rtol=1e-4, atol=1e-6)


def test_a_step_leaves_every_other_head_untouched(cifar100):
    agent = make(3, cifar100)
    sources, images = agent.plan(1)
    for step in range(3):
        before = copy.deepcopy(agent.model.state_dict())
        agent.plan = lambda epoch, step=step: (sources[step : step + 1], images[step : step + 1])
        train_epochs(agent, 1)
        after = agent.model.state_dict()
        changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
        trained = f"heads.{sources[step]}."
        assert {name.startswith(("encoder.", trained)) for name in changed} == {True}
        assert {name for name in before if name.startswith(trained)} <= changed
        for number, head in enumerate(agent.model.heads):
            assert all((p.grad is not None) == (number == sources[step]) for p in head.parameters())
    assert len(set(sources[:3])) > 1


def trained_as(data: DataSet, setting: int, **options) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses of the first steps, and the weights after them."""
    agent = make(setting, data, lr=0.01, **options)
    sources, images = agent.plan(1)
    agent.plan = lambda epoch: (sources[:6], images[:6])
    train_epochs(agent, 1)
    return agent.losses[:6].tolist(), agent.model.state_dict()


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler")
def test_a_compiled_network_learns_the_same_under_the_same_names(cifar10):
    (plain, weights), (compiled, learnt) = (trained_as(cifar10, 3, compile=c) for c in (False, True))
    assert compiled == pytest.approx(plain, rel=1e-4)
    assert list(learnt) == list(weights)
    torch.testing.assert_close(learnt, weights, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("setting", [3, 5])
def test_a_network_in_bf16_learns_nearly_the_same_in_weights_of_fp32(cifar10, setting):
    (exact, weights), (rounded, learnt) = (trained_as(cifar10, setting, precision=p) for p in PRECISIONS)
    assert rounded == pytest.approx(exact, rel=0.05)  # bf16 keeps 8 bits: 0.4 % at each of a dozen roundings
    assert rounded != pytest.approx(exact, rel=1e-6)
    assert {tensor.dtype for tensor in learnt.values()} == {torch.float32, torch.int64}
    start = dict(make(setting, cifar10).model.state_dict())
    names = [name for name in start if name.endswith(("weight", "bias"))]
    exact_change, change = (
        torch.cat([(state[name] - start[name]).flatten() for name in names]) for state in (weights, learnt)
    )
    assert (change - exact_change).norm() < 0.3 * exact_change.norm()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("setting", [0, 2, 3, 5])
def test_recorded_steps_on_a_gpu_are_the_steps_of_the_cpu(setting):
    losses, weights = [], []
    for device in ("cpu", "cuda"):
        data = load(SYNTHETIC[0], Path(), 32, torch.device(device))
        agent = make(setting, data, lr=0.01, task=3 if setting == 2 else None)
        sources, images = agent.plan(1)
        agent.plan = lambda epoch, plan=(sources[:40], images[:40]): plan
        train_epochs(agent, 1)
        losses.append(agent.losses[: min(40, len(sources))].tolist())
        weights.append({name: tensor.cpu() for name, tensor in agent.model.state_dict().items()})
    assert losses[1] == pytest.approx(losses[0], rel=0.02)  # TF32 keeps 11 bits
    torch.testing.assert_close(weights[1], weights[0], rtol=0.02, atol=0.01)


def test_the_reported_loss_is_the_mean_over_the_steps(cifar10):
    agent = make(0, cifar10)
    losses = []
    plain = agent.loss
    agent.loss = lambda *step: losses.append(plain(*step)) or losses[-1]
    (reported,) = train_epochs(agent, 1)
    assert len(losses) == 10
    assert reported == pytest.approx(np.mean([loss.item() for loss in losses]), rel=1e-6)


# Evaluation


@pytest.fixture(scope="module")
def trained(cifar10, cifar100) -> dict:
    """Agents whose models have learnt a little, so that right and wrong answers both occur."""
    agents = {}
    for data in (cifar10, cifar100):
        for setting in (0, 1, 2, 3) + ((5,) if data is cifar10 else ()):
            agent = make(setting, data, task=4 if setting == 2 else None)
            train_epochs(agent, 1 if setting == 3 else 2)
            agent.model.eval()
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
    data = agent.data
    tables = {0: torch.arange(data.spec.num_classes)[None], 2: data.tasks[4:5]}
    table = tables.get(setting, data.tasks)
    outcomes = [{} for _ in table]
    every = range(0, len(data.test), 5)
    test = copy.copy(data.test)
    test.images, test.labels = test.images[::5], test.labels[::5]
    for i in every:
        logits = agent.model(slow_inputs(data.test, i), range(len(agent.model.heads)))
        label = int(data.test.labels[i])
        for task, numbers in enumerate(table.tolist()):
            if numbers[label] != -1:
                right = slow_answer(agent, setting, logits, task) == numbers[label]
                outcomes[task].setdefault(numbers[label], []).append(right)
    part = copy.copy(agent)
    fewer = DataSet(data.spec, data.train, test, data.tasks)
    part = make(setting, fewer, task=4 if setting == 2 else None)
    part.model = agent.model
    scores = part.evaluate()
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
    agent.model.train()  # as an epoch leaves it
    for batch_size in (1 if name == "CIFAR-10" else 3, 7, 64, 10_000):
        assert agent.evaluate(batch_size) == expected


def encoded(agent: Agent, monkeypatch) -> list[int]:
    """Evaluate, and give back how many images the encoder got each time."""
    encode, seen = agent.model.encoder.folded(), []
    monkeypatch.setattr(
        agent.model.encoder, "folded", lambda: lambda images: seen.append(len(images)) or encode(images)
    )
    agent.evaluate()
    return seen


@pytest.mark.parametrize("setting", [1, 3, 5])
def test_an_evaluation_runs_the_encoder_once_per_image_however_many_tasks_there_are(
    trained, setting, monkeypatch
):
    agent = trained["CIFAR-10", setting]
    assert sum(encoded(agent, monkeypatch)) == len(agent.data.test)


def test_an_evaluation_takes_fewer_of_larger_images_at_once(monkeypatch):
    most = {}
    for size in (32, 64):
        data = load(replace(SYNTHETIC[0], train_per_class=16), Path(), size, torch.device("cpu"))
        agent = make(0, data)
        agent.model.eval()
        most[size] = max(encoded(agent, monkeypatch))
    assert most[64] == most[32] / 4


def test_an_evaluation_changes_nothing(trained):
    agent = trained["CIFAR-100", 3]
    before = copy.deepcopy(agent.model.state_dict())
    agent.model.train()  # as an epoch leaves it
    agent.evaluate()
    assert all(torch.equal(value, before[name]) for name, value in agent.model.state_dict().items())


def test_the_constant_answer_scores_the_share_of_the_commonest_answer(cifar10, cifar100):
    assert make(3, cifar10).constant_accuracy == pytest.approx([0.9] * 10)
    assert make(1, cifar100).constant_accuracy == pytest.approx([0.2] * 20)
    assert make(0, cifar100).constant_accuracy == pytest.approx([0.01])


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
    agent = make(setting, cifar10)
    train_epochs(agent, 2 if setting == 3 else 8)
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
        agent = make(setting, cifar10, batch_size=128, seed=seed, **options)
        train_epochs(agent, 1)
        return b"".join(value.numpy().tobytes() for value in agent.model.state_dict().values())

    assert weights(0, 1) == weights(0, 2)
    assert weights(0, 1) != weights(1, 1)


def test_another_seed_gives_another_order_of_images_and_of_tasks(cifar100):
    one, other = (make(0, cifar100, seed=seed).plan(1)[1].tolist() for seed in (0, 1))
    assert one != other
    (sources, images), (other_sources, other_images) = (make(3, cifar100, seed=s).plan(1) for s in (0, 1))
    assert sources.tolist() != other_sources.tolist()
    assert images.tolist() != other_images.tolist()


def test_the_images_of_a_task_are_those_whose_class_is_in_it():
    labels = torch.tensor([3, 1, 0, 2, 1])
    assert images_of(torch.tensor([-1, 0, 1, -1]), labels).tolist() == [1, 3, 4]
