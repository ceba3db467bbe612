"""Every task in every step, with every loss, against slow versions."""

import copy
import io
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import assert_descended, error_line, make, one_line, result_of, train_epochs, write_data
from test_losses import CLASSES, FACTORS, TINY, bytes_of, gradient_of, weights_of

from agents import Agent, make_agent
from data import DataSet, load
from errors import CommandError
from options import OPTIONS, grouping, make_run, read_options
from settings import LOSSES

TABLE = [[0, 1, 2, -1, -1], [-1, -1, 0, 1, -1], [-1, -1, -1, 0, 1]]


def every(data: DataSet, loss: str = "mean", **options) -> Agent:
    """An agent of setting 3 with all tasks a step and the tiny network."""
    return make(3, data, TINY, tasks_per_step="all", loss=loss, **{"batch_size": 40, **options})


def slow_batch(data: DataSet, batch_size: int, seed: int, step: int) -> list[torch.Tensor]:
    """The images of each task in a step: the next of passes over them, newly shuffled each time."""
    share, slices = batch_size // len(data.tasks), []
    for task, numbers in enumerate(data.tasks.tolist()):
        members = [i for i, label in enumerate(data.train.labels.tolist()) if numbers[label] >= 0]
        per_pass = len(members) // share
        order = np.random.default_rng((seed, 0, task, step // per_pass)).permutation(members)
        first = step % per_pass * share
        slices.append(torch.from_numpy(order[first : first + share]))
    return slices


def slow_losses(model, data: DataSet, slices: list[torch.Tensor], apart: bool = False) -> list[torch.Tensor]:
    """The loss of each task, over one pass of the encoder or one for each."""
    batches = [data.train.batch(images) for images in slices]
    if apart:
        features = [model.encoder(images) for images, _ in batches]
    else:
        together = model.encoder(torch.cat([images for images, _ in batches]))
        features = together.split([len(images) for images, _ in batches])
    return [
        F.cross_entropy(head(part), numbers[labels])
        for head, part, numbers, (_, labels) in zip(model.heads, features, data.tasks, batches, strict=True)
    ]


# Steps


def test_each_step_takes_the_next_images_of_every_task_once_and_descends_on_the_mean(cifar100):
    agent = every(cifar100, lr=0.25, seed=4)
    share = 40 // 20
    passes = 80 // share  # steps to the second pass over a task
    for step in range(3):
        slices = slow_batch(cifar100, 40, 4, step)
        assert all(len(images) == share for images in slices)
        assert agent.plan.sampled(1)[step].tolist() == list(range(20))
        assert agent.plan.indices(1)[step].tolist() == torch.cat(slices).tolist()
        reference = copy.deepcopy(agent.model)
        losses = slow_losses(reference, cifar100, slices)
        (sum(losses) / 20).backward()
        agent.train_steps(1)
        assert agent.task_losses[step].tolist() == pytest.approx([x.item() for x in losses], rel=1e-4)
        assert agent.losses[step].item() == pytest.approx(sum(losses).item() / 20, rel=1e-5)
        assert_descended(agent, reference, 0.25)
    per_epoch = agent.plan.steps_per_epoch
    one = make(3, cifar100, TINY, batch_size=40)
    assert per_epoch == one.plan.steps_per_epoch == 20 * (80 // 40)
    for step in (passes - 1, passes, 2 * passes + 5):  # the last, the next pass, another epoch
        expected = torch.cat(slow_batch(cifar100, 40, 4, step)).tolist()
        assert agent.plan.indices(1 + step // per_epoch)[step % per_epoch].tolist() == expected


def test_an_epoch_of_unequal_tasks_has_the_steps_of_one_task_a_step(tmp_path):
    file = write_data(tmp_path / "own.npz", [30, 20, 24, 14, 7], size=8, tasks=TABLE)
    runs = [
        make_run("train", {"data": file, "setting": 3, "batch_size": 15, "tasks_per_step": count})
        for count in (1, "all")
    ]
    agents = [make_agent(load(run.spec, run.data_path, 8, torch.device("cpu")), run, TINY) for run in runs]
    assert {agent.plan.steps_per_epoch for agent in agents} == {74 // 15 + 38 // 15 + 21 // 15}
    (record,) = agents[1].train(1)
    assert (record["steps"], record["images"]) == (7, 7 * 15)


@pytest.mark.parametrize("loss", ["upgrad", "pcgrad", "mgda", "config"])
@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
def test_an_aggregation_combines_the_gradients_of_every_task(cifar100, loss, apart):
    import torchjd.aggregation

    name, arguments = CLASSES[loss]
    agent = every(cifar100, loss, lr=0.25, normalisation="apart" if apart else "together")
    reference = copy.deepcopy(agent.model)
    rows = []
    for task_loss in slow_losses(reference, cifar100, slow_batch(cifar100, 40, 0, 0), apart):
        reference.encoder.zero_grad()
        task_loss.backward(retain_graph=True)
        rows.append(gradient_of(reference.encoder.parameters()))
    torch.manual_seed(0)
    expected = getattr(torchjd.aggregation, name)(**arguments)(torch.stack(rows))
    torch.manual_seed(0)
    agent.train_steps(1)
    got = gradient_of(agent.model.encoder.parameters()) * (20 if loss in FACTORS else 1)
    assert (got - expected).norm() < 5e-3 * expected.norm()
    for now, was in zip(agent.model.heads.parameters(), reference.heads.parameters(), strict=True):
        torch.testing.assert_close(now, was - 0.25 * was.grad / 20, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_with_each_loss_a_run_that_stops_in_mid_epoch_ends_with_the_same_bits(cifar100, loss):
    options = {"lr": 0.05, "momentum": 0.5, "batch_size": 80}  # 20 steps an epoch
    whole = every(cifar100, loss, **options)
    train_epochs(whole, 2 if loss == "dwa" else 0)  # which remembers two epochs
    whole.train_steps(2)
    content = bytes_of([whole.model.state_dict(), whole.state()])
    whole.train_steps(1)
    torch.manual_seed(1)
    parts = every(cifar100, loss, **options)
    parts.resume(*torch.load(io.BytesIO(content), weights_only=True))
    parts.train_steps(1)
    assert weights_of(parts) == weights_of(whole)
    assert bytes_of(parts.state()["combination"]) == bytes_of(whole.state()["combination"])
    assert torch.equal(parts.losses[:3], whole.losses[:3])
    assert torch.equal(parts.hits, whole.hits)
    before = every(cifar100, loss, **options).model.encoder[0].weight
    assert not torch.equal(whole.model.encoder[0].weight, before)


# Refusals


@pytest.mark.parametrize(
    ("data", "size", "named"), [(1, 128, (120, 140)), (2, 128, (100, 150)), (0, 25, (20, 30)), (0, 10, (20,))]
)
def test_a_batch_that_does_not_split_among_the_tasks_is_refused_with_sizes_that_do(data, size, named):
    given = {"setting": 3, "data": data, "tasks_per_step": "all"}
    words = " or ".join(map(str, named))
    with pytest.raises(CommandError, match=rf"and {size} does not .*: use --batch_size {words}$"):
        make_run("train", given | {"batch_size": size})
    for fits in named:
        assert make_run("train", given | {"batch_size": fits}).tasks_per_step == "all"


def test_a_setting_that_draws_some_tasks_more_often_refuses_every_task(program):
    options = ("--train", "--data", 1, "--synthetic", "--tasks_per_step", "all", "--batch_size", 40)
    refused = program(*options, "--setting", 4)
    assert (refused.code, one_line(refused)) == (2, True)
    assert "use --setting 3" in refused.err
    for setting in (0, 1, 5, 6):
        refused = program(*options, "--setting", setting)
        assert (refused.code, one_line(refused)) == (2, True)


def test_words_that_name_no_number_of_tasks_are_refused(program):
    for word in ("every", "ALL", "0", "2.5"):
        refused = program("--train", "--setting", 3, "--tasks_per_step", word)
        assert (refused.code, one_line(refused)) == (2, True)
        assert "neither a whole number from 1 to 1000000 nor all" in refused.err


@pytest.mark.parametrize("more", [(), ("--tasks_per_step", 4)])
def test_a_loss_of_all_tasks_is_refused_where_a_step_samples_some(program, more):
    refused = program("--train", "--setting", 3, "--loss", "uw", *more)
    assert (refused.code, one_line(refused)) == (2, True)
    assert "add --tasks_per_step all" in refused.err
    assert program("--train", "--setting", 4, "--loss", "uw").code == 2


# Parameters of a loss


def options_with(loss: str) -> dict:
    given = {"setting": 3, "data": 1, "tasks_per_step": "all", "batch_size": 120, "loss": loss}
    return make_run("train", given).recorded


def test_a_parameter_at_its_default_is_the_same_configuration_and_another_value_is_not():
    alike = [grouping(OPTIONS, options_with(loss)) for loss in ("stch", "stch:mu=0.01", "stch:mu=1e-2")]
    assert alike[0] == alike[1] == alike[2]
    others = [options_with(loss) for loss in ("stch:mu=0.1", "dwa", "dwa:temperature=1", "mean")]
    groups = [alike[0], *(grouping(OPTIONS, options) for options in others)]
    assert all(one != other for i, one in enumerate(groups) for other in groups[:i])
    for options in others:
        assert read_options(json.loads(json.dumps(options)), OPTIONS) == options


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if LOSSES[loss].parameters])
def test_a_parameter_reaches_the_method_and_is_read_from_the_command_line(program, tmp_path, cifar100, loss):
    name, default = next(iter(LOSSES[loss].parameters.items()))
    agents = [
        every(cifar100, given) for given in (loss, f"{loss}:{name}={default}", f"{loss}:{name}={default / 3}")
    ]
    constants = [dict(agent.combiner.constants) for agent in agents]
    assert constants[0] == constants[1] == dict(LOSSES[loss].parameters)
    assert constants[2] == dict(LOSSES[loss].parameters) | {name: default / 3}


def test_a_run_records_all_parameters_and_resumes_with_those_left_out(program, tmp_path):
    file = write_data(tmp_path / "own.npz", [16, 12, 14, 8], size=8, tasks=[[0, 1, -1, -1], [-1, -1, 0, 1]])
    common = ("--train", "--data", file, "--setting", 3, "--tasks_per_step", "all", "--batch_size", 8)
    common += ("--save_history", "--save_path", tmp_path / "run", "--resume")

    def started(loss: str, epochs: int):
        return program(*common, "--loss", loss, "--epochs", epochs, network=TINY)

    assert started("famo:weight_decay=0.01", 1).code == 0
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert history["loss_parameters"] == {"lr": 0.025, "weight_decay": 0.01}
    assert history["options"]["tasks_per_step"] == "all"
    for other in ("famo", "famo:weight_decay=0.02", "famo:weight_decay=0.01,lr=0.03"):
        assert "--loss famo" in error_line(started(other, 2))
    assert started("famo:lr=0.025,weight_decay=1e-2", 2).code == 0
    whole = (*common[:-3], "--save_path", tmp_path / "whole", "--save_model")
    assert program(*whole, "--loss", "famo:weight_decay=0.01", "--epochs", 2, network=TINY).code == 0
    assert result_of(tmp_path / "run") == result_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("stch:nu=0.1", "stch has no parameter 'nu': its parameters are mu"),
        ("uw:mu=0.1", "uw has no parameter 'mu': it has no parameters"),
        ("stch:mu=0", "mu of stch is '0', not a positive number"),
        ("stch:mu=x", "mu of stch is 'x', not a positive number"),
        ("stch:mu=inf", "mu of stch is 'inf', not a positive number"),
        ("stch:mu", "mu of stch is '', not a positive number"),
        ("stch:", "stch has no parameter ''"),
        ("stch:mu=0.1,,", "stch has no parameter ''"),
        ("tchebycheff", "'tchebycheff' is none of mean, uw"),
    ],
)
def test_a_parameter_that_a_loss_does_not_have_is_told_in_a_line(program, loss, said):
    refused = program("--train", "--setting", 5, "--data", 0, "--synthetic", "--loss", loss)
    assert (refused.code, one_line(refused)) == (2, True)
    assert said in refused.err


def test_a_value_that_a_method_refuses_is_told_in_a_line(program, tmp_path):
    file = write_data(tmp_path / "own.npz", [16, 12], size=8)
    options = ("--train", "--data", file, "--setting", 5, "--batch_size", 8, "--epochs", 1)
    refused = program(*options, "--loss", "gradvac:beta=1.5", network=TINY)
    assert "--loss gradvac:beta=1.5: " in error_line(refused)
