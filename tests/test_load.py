"""Trained networks that are loaded and answer images, without a command line."""

import copy
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import NARROW, TOP, write_data, write_labels
from torch import nn

import models
from agents import Agent, make_agent
from data import DataSet, load
from errors import UserError
from models import Classifier, describe_inference
from options import make_run
from own_data import read_spec
from running.writer import Writer
from storage.checkpoint import Checkpoint, write_checkpoint

TABLE = [[0, 1, 1, -1, 2], [-1, 0, -1, 1, 0]]
"""In both tasks, several classes have one answer."""

ANSWERS = (("low", "middle", "high"), ("0", "1"))

SHARED = [[0, 1, 1, 0, 2], [1, 0, 0, 1, 0]]
"""The same, and every class is in every task."""

SIDE = 6
"""Of the images that the networks take; those of the files have 9 pixels."""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """Data sets of the user's own, by kind."""
    folder = tmp_path_factory.mktemp("data")
    numbers = np.random.RandomState(0)
    answers = np.array(["low", "middle", "high"])
    names = {"answer_names": np.array([answers, ["", "", ""]])}
    labels = [numbers.randint(-1, 2, (60, 2)) for _ in range(2)]
    return {
        "table": write_data(folder / "table.npz", [16] * 5, size=9, tasks=TABLE, **names),
        "shared": write_data(folder / "shared.npz", [16] * 5, size=9, channels=1, tasks=SHARED),
        "labels": write_labels(folder / "labels.npz", *labels),
    }


def saved(data: DataSet, network: object = NARROW, /, **options: object) -> Agent:
    """An agent that has trained two steps and written its model."""
    run = make_run("train", {"batch_size": 8, "epochs": 1, "save_model": True, **options}, spec=data.spec)
    agent = make_agent(data, run, network)
    agent.train_steps(2)
    Writer(agent, [], "abc", False).save(model=True)
    return agent


def trained(file: Path, path: Path, setting: int, network: object = NARROW, **options: object) -> Path:
    """The model file of two steps on a data set of the user's own."""
    data = load(read_spec(file), Path(), SIDE, torch.device("cpu"), options.get("task"))
    saved(data, network, data=file, image_size=SIDE, setting=setting, save_path=path, **options)
    return path / "model.pt"


def one_by_one(path: Path, file: Path, images: np.ndarray) -> list[torch.Tensor]:
    """The logits of each head of a model for images, uint8, N x H x W x C, one image after the other.

    Mean and standard deviation are measured on the training images of the file that have a label.
    """
    content = torch.load(path, weights_only=True)
    options = content["options"]
    sizes = [
        value.shape[0]
        for name, value in content["model"].items()
        if re.fullmatch(r"heads\.\d+\.3\.bias", name)
    ]
    model = NARROW(models.Dimensions(images.shape[3], SIDE, sizes))
    if options["normalisation"] == "group":
        models.normalise_by_groups(model)
    model.load_state_dict(content["model"])
    model.eval()
    source = np.load(file)
    labels = source["train_labels"].reshape(len(source["train_labels"]), -1)
    shades = source["train_images"][(labels >= 0).any(axis=1)] / 255
    mean, std = (
        torch.tensor(measure(shades, axis=(0, 1, 2))).float().view(-1, 1, 1) for measure in (np.mean, np.std)
    )
    found = []
    for image in images:
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        pixels = F.adaptive_avg_pool2d(pixels, SIDE).round()  # which averages areas
        with torch.no_grad():
            features = model.encoder((pixels / 255 - mean) / std)
            found.append([head(features)[0] for head in model.heads])
    return [torch.stack(each) for each in zip(*found, strict=True)]


def expected_answers(heads: list[torch.Tensor], setting: int, table: list[list[int]], task: int) -> dict:
    """The logits of every task by the definition: one answer after the other."""
    if setting == 0:
        return {"all classes": heads[0]}
    if setting == 2:
        return {f"task {task}": heads[0]}
    if setting >= 3:
        return {f"task {t}": each for t, each in enumerate(heads)}
    return {
        f"task {t}": torch.tensor(
            [
                [
                    math.log(sum(math.exp(image[c]) for c in range(len(row)) if row[c] == answer))
                    for answer in range(max(row) + 1)
                ]
                for image in heads[0].tolist()
            ]
        )
        for t, row in enumerate(table)
    }


CASES = {
    "0": ("table", 0, {}),
    "1": ("table", 1, {}),
    "1 in grey": ("shared", 1, {}),
    "2": ("table", 2, {"task": 1}),
    "3": ("table", 3, {}),
    "4 by groups": ("table", 4, {"normalisation": "group"}),
    "5 in grey": ("shared", 5, {}),
    "6 in grey": ("shared", 6, {}),
    "3 with labels for each task": ("labels", 3, {"batch_size": 4}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_loaded_network_answers_images_of_any_number_as_one_at_a_time(files, tmp_path, case):
    kind, setting, options = CASES[case]
    path = trained(files[kind], tmp_path, setting, **options)
    state = torch.get_rng_state()
    network = models.load(path, NARROW)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for module in network.modules())
    images = np.load(files[kind])["test_images"][::3]
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    expected = expected_answers(
        one_by_one(path, files[kind], images),
        setting,
        {"table": TABLE, "shared": SHARED}.get(kind),
        options.get("task"),
    )
    found = network.answers(tensor)
    assert found.keys() == expected.keys() == network.tasks.keys()
    for task, logits in found.items():
        assert (logits.dtype, logits.requires_grad) == (torch.float32, False)
        torch.testing.assert_close(logits, expected[task], rtol=1e-4, atol=1e-4)
        assert len(network.tasks[task]) == logits.shape[1]
    if kind == "table" and setting in (1, 3):
        assert tuple(network.tasks.values()) == ANSWERS
    for count in (0, 1):
        for task, logits in network.answers(tensor[:count]).items():
            torch.testing.assert_close(logits, found[task][:count], rtol=1e-4, atol=1e-5)


def test_many_images_are_answered_in_parts(files, tmp_path, monkeypatch):
    network = models.load(trained(files["table"], tmp_path, 3), NARROW)
    images = torch.randint(0, 256, (60, 3, 20, 13), dtype=torch.uint8)
    whole = network.answers(images)
    monkeypatch.setattr(models, "IMAGES_AT_A_TIME", 1)  # of 32 x 32 pixels, so 28 of these
    for task, logits in network.answers(images).items():
        torch.testing.assert_close(logits, whole[task])


def test_the_answers_are_those_that_training_scores(files, tmp_path):
    """On the test images, from the records of the agent itself."""
    data = load(read_spec(files["table"]), Path(), SIDE, torch.device("cpu"))
    given = {"setting": 3, "data": files["table"], "image_size": SIDE, "save_path": tmp_path}
    scores = saved(data, **given).evaluate()
    found = models.load(tmp_path / "model.pt", NARROW).answers(
        torch.from_numpy(np.load(files["table"])["test_images"]).permute(0, 3, 1, 2)
    )
    for row, logits, accuracy in zip(TABLE, found.values(), scores.accuracy, strict=True):
        labels = torch.tensor(row)[data.test.labels]
        right = logits.argmax(dim=1)[labels >= 0] == labels[labels >= 0]
        assert right.double().mean().item() == accuracy


def test_names_of_answers_come_from_the_data_set():
    spec = models.DATA_SETS[1]
    scored = {name: torch.tensor(row) for name, row in spec.tasks.items()}
    named = describe_inference(spec, torch.arange(100)[None], scored)["tasks"]
    for name, row in spec.tasks.items():
        for number, (answer, logits) in enumerate(
            zip(named[name]["answers"], named[name]["logits"], strict=True)
        ):
            assert [spec.class_names[c] for c in logits] == [answer]
            assert [row[c] for c in logits] == [number]
    alone = describe_inference(spec, torch.arange(100)[None], {"all classes": torch.arange(100)})["tasks"]
    assert alone["all classes"]["answers"] == list(spec.class_names)
    scored = {"all classes": torch.arange(4)}  # other classes than those with names
    few = describe_inference(spec, torch.arange(4)[None], scored)["tasks"]
    assert few["all classes"]["answers"] == ["0", "1", "2", "3"]


# Files of older programs

SPECS = {"data 0": {"data": 0}, "data 2": {"data": 2}, "the stand-in": {"data": 2, "synthetic": True}}


@pytest.mark.parametrize("which", SPECS)
@pytest.mark.parametrize("setting", [0, 1, 2, 3, 4])
def test_a_file_of_a_published_data_set_needs_no_description(tmp_path, setting, which):
    run = make_run("train", {"setting": setting, **SPECS[which], **({"task": 3} if setting == 2 else {})})
    tasks = {name: torch.tensor(row) for name, row in run.spec.tasks.items()}
    classes = torch.arange(run.spec.num_classes)
    if setting == 2:
        name = list(tasks)[3]
        targets, scored = tasks[name][None], {name: tasks[name]}
    elif setting < 2:
        targets, scored = classes[None], tasks if setting else {"all classes": classes}
    else:
        targets, scored = torch.stack(list(tasks.values())), tasks
    found = models._published_inference(tmp_path, run.recorded)
    assert found == describe_inference(run.spec, targets, scored)
    models.check_inference(found)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("setting", [1, 2])
def test_a_model_of_an_older_program_answers_like_a_new_one(cifar10, tmp_path, setting, version):
    given = {"setting": setting, "data": 0, "synthetic": True, "image_size": 8, "save_path": tmp_path}
    saved(cifar10, **given, **({"task": 3} if setting == 2 else {}))
    path = tmp_path / "model.pt"
    images = torch.randint(0, 256, (5, 3, 10, 10), dtype=torch.uint8)
    expected = models.load(path, NARROW)
    content = torch.load(path, weights_only=True)
    del content["inference"]
    torch.save(content | {"format": version}, path)
    found = models.load(path, NARROW)
    assert found.tasks == expected.tasks
    for (task, logits), other in zip(
        found.answers(images).items(), expected.answers(images).values(), strict=True
    ):
        assert torch.equal(logits, other), task


# What is refused


def said(path: Path) -> str:
    """The one line by which a file is refused."""
    with pytest.raises(UserError) as caught:
        models.load(path, NARROW)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_that_cannot_be_used_is_refused_in_a_line(files, tmp_path):
    assert "there is no model" in said(tmp_path / "model.pt")
    assert "not a model" in said(files["table"])
    path = trained(files["table"], tmp_path, 3)
    content = torch.load(path, weights_only=True)
    torch.save({name: value for name, value in content.items() if name != "inference"}, path)
    assert "older program" in said(path)
    assert "table.npz" in said(path)
    torch.save(content, path)
    with pytest.raises(UserError, match="does not hold this program's network"):
        models.load(path)  # it was made by another network
    run = make_run("train", {"setting": 2, "task": 3, "data": 0})
    write_checkpoint(path, Checkpoint(run.recorded | {"task": 10}, {}, {}, "abc"))
    assert "options.task is 10" in said(path)


WRONG = [None, "x", -1, 0, math.nan, 10**400, [], {}, [None], [[]], ["x"], [math.inf], [10**9], torch.ones(2)]


def test_whatever_stands_in_the_description_is_refused_or_changes_no_shape(files, tmp_path):
    path = trained(files["table"], tmp_path, 1)
    content = torch.load(path, weights_only=True)
    checked, chosen = 0, random.Random(0)
    places = [("mean",), ("std",), ("heads",), ("tasks",), ("tasks", "task 0"), ()]
    places += [("tasks", "task 0", name) for name in ("head", "answers", "logits")]
    places += [("mean", 0), ("std", 0), ("heads", 0), ("tasks", "task 0", "logits", 1)]
    places += [("tasks", "task 0", "answers", 1), ("tasks", "task 0", "logits", 1, 0)]
    for place in places:
        for value in chosen.sample(WRONG, 4):
            wrong = copy.deepcopy(content)
            inner, keys = wrong, ("inference", *place)
            for key in keys[:-1]:
                inner = inner[key]
            inner[keys[-1]] = value
            torch.save(wrong, path)
            said = None
            try:
                network = models.load(path, NARROW)
            except UserError as error:
                said = str(error)
            if said is not None:
                assert "\n" not in said
                checked += 1
            else:
                found = network.answers(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
                assert {name: len(each) for name, each in network.tasks.items()} == {
                    name: logits.shape[1] for name, logits in found.items()
                }
    assert checked > 0.8 * len(places) * 4


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 3, 8, 8),
        torch.zeros(3, 8, 8, dtype=torch.uint8),
        torch.zeros(2, 1, 8, 8, dtype=torch.uint8),
        torch.zeros(2, 8, 8, 3, dtype=torch.uint8),
        torch.zeros(2, 3, 0, 8, dtype=torch.uint8),
        np.zeros((2, 3, 8, 8), dtype=np.uint8),
        None,
    ],
    ids=["float", "one image", "grey", "channels last", "no pixels", "an array", "nothing"],
)
def test_images_of_another_kind_are_refused_in_a_line(images):
    inference = {"mean": [0.5] * 3, "std": [0.2] * 3, "heads": [2], "tasks": {}}
    network = Classifier(nn.Identity(), 8, inference)
    with pytest.raises(UserError, match=r"takes torch.uint8 and N x 3 x H x W") as caught:
        network.answers(images)
    assert "\n" not in str(caught.value)


def test_the_lines_of_the_manual_answer_an_image(tmp_path, monkeypatch, capsys):
    from PIL import Image

    section = (TOP / "docs" / "files.md").read_text().partition("### Using a network")[2]
    block = re.search(r"```python\n(.+?)```", section, re.DOTALL)[1]
    assert block.count("\n") == 5
    file = write_data(tmp_path / "own.npz", [16, 16], size=8, tasks=[[1, 0]], task_names=["shade"])
    trained(file, tmp_path, 3, None, head="linear")
    Image.fromarray(np.load(file)["test_images"][0]).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    network = models.load("model.pt")
    image = torch.from_numpy(np.load(file)["test_images"][:1]).permute(0, 3, 1, 2)
    answer = int(network.answers(image)["shade"].argmax())
    assert capsys.readouterr().out == f"shade {answer}\n"
