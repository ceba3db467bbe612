"""Several tasks a step against slow versions.

One task a step is compared with the experiment as it is defined.
"""

import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import NARROW, assert_descended, error_line, make, one_line, result_of, write_data
from made_up import options_of

from errors import CommandError
from models import Dimensions
from options import OPTIONS, make_run, read_options
from tasks import DATA_SETS


@pytest.mark.parametrize(("setting", "count"), [(3, 2), (3, 4), (4, 16)])
def test_a_step_of_several_tasks_descends_on_the_mean_over_its_images(cifar100, setting, count):
    agent = make(setting, cifar100, tasks_per_step=count, lr=0.25, seed=1)
    draws = agent.plan.sampled(1).tolist()
    twice = [len(set(drawn)) < count for drawn in draws]
    assert len(draws[0]) == count
    assert True in twice
    size = 32 // count
    runs_of_heads = []
    for head in agent.model.heads:
        head.register_forward_hook(lambda _, inputs, __: runs_of_heads.append(len(inputs[0])))
    for step in range(twice.index(True) + 1):
        drawn = draws[step]
        reference = copy.deepcopy(agent.model)
        inputs, labels = cifar100.train.batch(torch.from_numpy(agent.plan.indices(1)[step]))
        features = reference.encoder(inputs)
        total, of_task = 0.0, {}
        for task in set(drawn):
            places = [place for place in range(count) if drawn[place] == task]
            here = torch.cat([torch.arange(place * size, place * size + size) for place in places])
            assert (cifar100.tasks[task][labels[here]] >= 0).all()
            logits = reference.heads[task](features[here])  # normalises over all images of the task
            each = F.cross_entropy(logits, cifar100.tasks[task][labels[here]], reduction="none")
            total, of_task[task] = total + each.sum() / 32, each.mean().item()
        total.backward()
        runs_of_heads.clear()
        agent.train_steps(1)
        assert sorted(runs_of_heads) == sorted(size * drawn.count(task) for task in set(drawn))
        assert agent.losses[step].item() == pytest.approx(total.item(), rel=1e-5)
        expected = [of_task.get(task, math.nan) for task in range(20)]
        assert agent.task_losses[step].tolist() == pytest.approx(expected, rel=1e-5, nan_ok=True)
        assert_descended(agent, reference, 0.25)
        averages = [dict(network.named_buffers()) for network in (agent.model, reference)]
        torch.testing.assert_close(averages[0], averages[1], rtol=1e-4, atol=1e-5)


def test_an_epoch_has_the_steps_and_images_of_one_task_a_step(whole_cifar100):
    records = [
        next(make(3, whole_cifar100, batch_size=64, **more).train(1)) for more in ({}, {"tasks_per_step": 8})
    ]
    assert records[0]["steps"] == records[1]["steps"] == 20 * (160 // 64)
    assert records[0]["images"] == records[1]["images"] == 64 * 40
    assert records[0]["loss"] != records[1]["loss"]


@pytest.mark.parametrize(("setting", "given"), [(3, {}), (4, {"tasks_per_step": 1})])
def test_one_task_a_step_gives_the_bits_of_the_experiment_as_defined(whole_cifar100, setting, given):
    agent = make(setting, whole_cifar100, batch_size=80, lr=0.05, seed=3, **given)
    agent.train_steps(25)  # so many that some tasks come up three times and begin a second pass
    assert np.bincount(agent.plan.sampled(1)[:25].ravel()).max() > 2

    torch.manual_seed(3)
    model = NARROW(Dimensions(3, 8, [5] * 20)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, fused=True)
    weights = np.ones(20) if setting == 3 else np.arange(1.0, 21.0)
    drawn = np.random.default_rng((3, 1, 1)).choice(20, size=40, p=weights / weights.sum())
    queues: list[list] = [[] for _ in range(20)]
    passes = [0] * 20
    for task in drawn[:25].tolist():
        if not queues[task]:
            members = np.flatnonzero(whole_cifar100.tasks[task][whole_cifar100.train.labels].numpy() >= 0)
            order = np.random.default_rng((3, 0, task, passes[task])).permutation(members)
            queues[task] = [order[:80], order[80:160]]
            passes[task] += 1
        inputs, labels = whole_cifar100.train.batch(torch.from_numpy(queues[task].pop(0)))
        optimizer.zero_grad()
        F.cross_entropy(
            model.heads[task](model.encoder(inputs)), whole_cifar100.tasks[task][labels]
        ).backward()
        optimizer.step()
    got = agent.model.state_dict()
    assert all(torch.equal(value, got[name]) for name, value in model.state_dict().items())


def test_a_run_of_several_tasks_a_step_on_a_file_is_recorded_insisted_on_and_evaluated(program, tmp_path):
    table = [[0, 1, 2, -1, -1], [-1, -1, 0, 1, -1], [-1, -1, -1, 0, 1]]
    file = write_data(tmp_path / "own.npz", [30, 20, 24, 14, 7], size=8, tasks=table)
    options = ("--data", file, "--setting", 4, "--batch_size", 20, "--epochs", 2, "--save_history")
    paths = [tmp_path / name for name in ("five", "one", "one given", "parts")]
    for path, more in zip(paths, ((5,), (), (1,)), strict=False):
        given = ("--tasks_per_step", *more) if more else ()
        assert program("--train", *options, *given, "--resume", "--save_path", path).code == 0
    five, one, one_given, parts = paths
    recorded = [json.loads((path / "history.json").read_text()) for path in (five, one)]
    assert [history["options"]["tasks_per_step"] for history in recorded] == [5, 1]
    assert result_of(one) == result_of(one_given)
    assert result_of(five)[0] != result_of(one)[0]
    assert [[epoch["steps"] for epoch in history["epochs"]] for history in recorded] == [
        [5, 5]
    ] * 2  # 3 + 1 + 1
    for epochs in (1, 2):  # of a run in two sessions
        last = ("--epochs", epochs, "--tasks_per_step", 5, "--resume", "--save_path", parts)
        assert program("--train", *options, *last).code == 0
    assert result_of(parts) == result_of(five)
    for path, more in ((five, ()), (five, ("--tasks_per_step", 2)), (one, ("--tasks_per_step", 5))):
        refused = program("--train", *options, *more, "--resume", "--save_path", path)
        assert "--tasks_per_step" in error_line(refused)
    accuracy = recorded[0]["epochs"][-1]["accuracy"]
    for more in ((), ("--tasks_per_step", 7)):  # which an evaluation does not mind
        evaluated = program("--eval", "--data", file, "--setting", 4, "--save_path", five, *more)
        assert evaluated.accuracy == f"Accuracy: {accuracy}"


def test_a_file_from_before_there_were_several_counts_as_one(cifar100):
    drawn, summed = (options_of(setting) for setting in (3, 5))
    del drawn["tasks_per_step"], summed["tasks_per_step"]
    assert read_options(drawn, OPTIONS)["tasks_per_step"] == 1
    assert read_options(summed, OPTIONS)["tasks_per_step"] is None


@pytest.mark.parametrize("batch_size", [2, 3, 12, 37, 100, 128])
def test_what_parts_a_batch_into_slices_of_at_least_two_is_taken_and_named(cifar100, batch_size):
    fits = [k for k in range(1, batch_size + 1) if batch_size % k == 0 and batch_size // k >= 2]
    for count in range(1, batch_size + 3):
        given = {"setting": 3, "data": 1, "batch_size": batch_size, "tasks_per_step": count}
        if count in fits:
            assert make_run("train", given).tasks_per_step == count
        else:
            splits = range(2 * count, 4 * batch_size + 9, count)  # batch sizes of equal slices of at least 2
            below = [size for size in splits if size < batch_size][-1:]
            near = [*below, next(size for size in splits if size > batch_size)]
            named = f"use {', '.join(map(str, fits))} or --batch_size {' or '.join(map(str, near))}$"
            with pytest.raises(CommandError, match=rf"^--tasks_per_step {count} .* {named}"):
                make_run("train", given)
            for size in near:
                assert make_run("train", given | {"batch_size": size}).tasks_per_step == count


@pytest.mark.parametrize("setting", [0, 1, 2, 5, 6])
def test_a_setting_that_draws_nothing_refuses_it(program, setting):
    task = ("--task", 1) if setting == 2 else ()
    refused = program("--train", "--setting", setting, *task, "--data", 0, "--tasks_per_step", 2)
    assert refused.code == 2
    (option,) = (each for each in OPTIONS if each.name == "tasks_per_step")
    which = " and ".join(map(str, option.settings))
    assert which.startswith("3 and 4")
    assert f"--tasks_per_step goes with --setting {which} only" in refused.err
    assert one_line(refused)


def test_no_batch_size_is_named_that_would_be_larger_than_a_training_set():
    given = {"setting": 3, "data": 1, "synthetic": True, "batch_size": 160}
    for count, named in ((3, " or --batch_size 159$"), (81, ", 80$")):
        with pytest.raises(CommandError, match=named):
            make_run("train", given | {"tasks_per_step": count})
    few = replace(DATA_SETS[1], train_counts=(5,) * 100)  # 25 images a task, and 40 for 2 of each of 20
    with pytest.raises(CommandError, match=r"use --tasks_per_step with a number$"):
        make_run("train", given | {"batch_size": 25, "tasks_per_step": "all"}, spec=few)


def test_a_task_still_has_to_fill_a_whole_batch(program):
    options = ("--train", "--setting", 3, "--batch_size", 168, "--tasks_per_step", 4, "--synthetic")
    assert "160 images" in program(*options).err
