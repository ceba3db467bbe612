"""What an evaluation answers, image by image, in a file."""

import ast
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import NARROW, SMALL, TOP, UNSCORED, error_line, one_line, write_data, write_labels

import models
from options import make_run
from running import evaluation

TABLE = [[0, 1, 1, -1, 2], [-1, 0, -1, 1, 0]]
SHARED = [[0, 1, 1, 0, 2], [1, 0, 0, 1, 0]]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """Data sets of the user's own, by kind."""
    folder, random = tmp_path_factory.mktemp("data"), np.random.RandomState(0)
    return {
        "table": write_data(folder / "table.npz", [16, 24, 8, 16, 16], size=9, tasks=TABLE),
        "shared": write_data(folder / "shared.npz", [16] * 5, size=9, tasks=SHARED),
        "labels": write_labels(folder / "labels.npz", *(random.randint(-1, 2, (60, 3)) for _ in range(2))),
    }


def labels_of(file: Path, split: str, setting: int) -> dict[int, np.ndarray]:
    """The correct answer of every image of a file in each task, by number; -1 where it has none."""
    content = np.load(file)
    labels = content[f"{split}_labels"]
    if setting == 0:
        return {0: labels}
    table = labels.T if labels.ndim == 2 else content["tasks"][:, labels]
    return dict(enumerate(table))


CASES = {
    "0": ("table", 0, (), 0),
    "1": ("table", 1, (), 0.25),
    "1 where every class is in each task": ("shared", 1, (), 0),
    "2": ("table", 2, ("--task", 1), 0),
    "2 on held-out images": ("table", 2, ("--task", 1), 0.25),
    "3": ("table", 3, (), 0.25),
    "5": ("shared", 5, (), 0),
    "3 with labels for each task": ("labels", 3, (), 0),
    "3 with labels for each task, on held-out images": ("labels", 3, (), 0.25),
}


@pytest.mark.parametrize("case", CASES)
def test_the_file_has_what_the_network_answers_for_each_image_of_the_arrays(program, files, tmp_path, case):
    kind, setting, options, validation = CASES[case]
    line = ("--data", files[kind], "--setting", setting, *options, "--batch_size", 4, "--image_size", 6)
    line += () if case == "3" else UNSCORED
    line += ("--save_path", tmp_path, "--validation", validation)
    assert program("--train", *line, "--save_model", "--epochs", 1, "--lr", 0.02).code == 0
    evaluated = program("--eval", *line, "--predictions", tmp_path / "p.npz")
    assert evaluated.code == 0
    given = dict(np.load(tmp_path / "p.npz"))

    split = "train" if validation else "test"
    images = torch.from_numpy(np.load(files[kind])[f"{split}_images"]).permute(0, 3, 1, 2)
    logits = dict(enumerate(models.load(tmp_path / "model.pt", NARROW).answers(images).values()))
    if setting == 2:
        logits = {1: logits[0]}
    correct = labels_of(files[kind], split, setting)
    names = ("indices", "logits", "answers", "labels")
    assert set(given) == {f"{name}_{task}" for name in names for task in logits}
    accuracies = []
    for task, expected in logits.items():
        indices, found, answers, labels = (given[f"{name}_{task}"] for name in names)
        assert [each.dtype for each in (indices, found, answers, labels)] == [
            np.int64,
            np.float32,
            np.int64,
            np.int64,
        ]
        assert (np.diff(indices) > 0).all()
        wanted = np.flatnonzero(correct[task] >= 0)
        assert set(indices) <= set(wanted)
        if not validation:
            assert indices.tolist() == wanted.tolist()
        else:
            assert 0.1 < len(indices) / len(wanted) < 0.4
        assert labels.tolist() == correct[task][indices].tolist()
        np.testing.assert_allclose(found, expected[indices], rtol=1e-4, atol=1e-4)
        if setting != 1:
            assert answers.tolist() == found.argmax(axis=1).tolist()
        accuracies.append(float((answers == labels).mean()))
    said = ast.literal_eval(evaluated.accuracy.removeprefix("Accuracy: "))
    assert (said if isinstance(said, list) else [said]) == accuracies


def test_held_out_images_are_those_that_training_did_not_see(program, files, tmp_path, monkeypatch):
    line = ("--data", files["labels"], "--setting", 3, "--batch_size", 4, "--save_path", tmp_path)
    line += UNSCORED
    assert program("--train", *line, "--validation", 0.25, "--save_model", "--epochs", 1).code == 0
    seen = []
    load = evaluation.load_data
    monkeypatch.setattr(evaluation, "load_data", lambda *given: seen.append(load(*given)) or seen[-1])
    assert program("--eval", *line, "--predictions", tmp_path / "p.npz").code == 0
    content, given = np.load(files["labels"]), np.load(tmp_path / "p.npz")
    (data,) = seen

    def flat(images: np.ndarray) -> set[bytes]:
        return {image.tobytes() for image in np.ascontiguousarray(images)}

    trained = flat(data.train.images.permute(0, 2, 3, 1).numpy())
    scored = set().union(*(flat(content["train_images"][given[f"indices_{task}"]]) for task in range(3)))
    assert not trained & scored
    assert len(trained | scored) == (content["train_labels"] >= 0).any(axis=1).sum()
    again = program("--eval", *line, "--validation", 0, "--predictions", tmp_path / "test.npz")
    assert again.code == 0
    labels = content["test_labels"][np.load(tmp_path / "test.npz")["indices_1"], 1]
    assert labels.tolist() == content["test_labels"][content["test_labels"][:, 1] >= 0, 1].tolist()


def test_setting_1_gives_the_answer_of_the_highest_class(program, files, tmp_path):
    """Which several classes of another answer may outweigh together."""
    line = ("--data", files["shared"], "--setting", 0, "--batch_size", 4, "--save_path", tmp_path)
    assert program("--train", *line, "--save_model", "--epochs", 1, "--lr", 0.001).code == 0
    for setting in (0, 1):
        path = tmp_path / f"{setting}.npz"
        assert program("--eval", *line[:3], setting, *line[4:], "--predictions", path).code == 0
    classes, by_task = (np.load(tmp_path / f"{setting}.npz") for setting in (0, 1))
    outweighed = 0
    for task, row in enumerate(SHARED):
        answers, logits = by_task[f"answers_{task}"], by_task[f"logits_{task}"]
        assert answers.tolist() == np.array(row)[classes["answers_0"]].tolist()
        outweighed += (answers != logits.argmax(axis=1)).sum()
        sums = [
            np.logaddexp.reduce(classes["logits_0"][:, np.array(row) == answer], axis=1)
            for answer in range(max(row) + 1)
        ]
        np.testing.assert_allclose(logits, np.stack(sums, axis=1), rtol=1e-5, atol=1e-5)
    assert outweighed


@pytest.fixture(scope="module")
def model(tmp_path_factory, files) -> tuple:
    """The options of an evaluation of a small model."""
    import main

    path = tmp_path_factory.mktemp("model")
    line = ("--data", files["table"], "--setting", 3, *UNSCORED, "--save_path", path)
    train = ("--train", *line, "--batch_size", 8, "--epochs", 1, "--save_model")
    assert main.main([str(word) for word in train], network=NARROW) == 0
    return ("--eval", *line)


def test_a_file_that_is_there_is_replaced_only_if_asked_for(program, model, tmp_path, files):
    path = tmp_path / "p.npz"
    path.write_bytes(b"old")
    assert "--overwrite" in error_line(program(*model, "--predictions", path))
    assert path.read_bytes() == b"old"
    assert program(*model, "--predictions", path, "--overwrite").code == 0
    assert len(np.load(path)) == 8
    (tmp_path / "folder.npz").mkdir()
    said = error_line(program(*model, "--predictions", tmp_path / "folder.npz", "--overwrite"))
    assert "in the way" in said
    before = files["table"].read_bytes()
    assert "the data set" in error_line(program(*model, "--predictions", files["table"], "--overwrite"))
    assert files["table"].read_bytes() == before


def test_a_model_of_a_gpu_is_evaluated_on_the_cpu(program, model, tmp_path):
    content = torch.load(model[-1] / "model.pt", weights_only=True)
    assert {tensor.device.type for tensor in content["model"].values()} == {
        "cpu"
    }  # on whatever device it was
    content["options"]["device"] = "cuda:0"
    torch.save(content, tmp_path / "model.pt")
    line = (*model[:-1], tmp_path, "--device", "cpu", "--predictions")
    outcomes = [program(*line, tmp_path / "a.npz"), program(*model, "--predictions", tmp_path / "b.npz")]
    assert outcomes[0].accuracy == outcomes[1].accuracy
    assert np.array_equal(*(np.load(tmp_path / name)["logits_0"] for name in ("a.npz", "b.npz")))


def test_directories_are_made_and_go_again_if_nothing_comes_of_it(program, model, tmp_path):
    path = tmp_path / "a" / "b" / "p.npz"
    missing = (*model[:-1], tmp_path / "no model", "--predictions", path)
    assert "no model" in error_line(program(*missing))
    assert list(tmp_path.iterdir()) == []
    assert program(*model, "--predictions", path).code == 0
    assert [each.name for each in path.parent.iterdir()] == ["p.npz"]
    (tmp_path / "file").write_text("")
    said = error_line(program(*model, "--predictions", tmp_path / "file" / "c" / "p.npz"))
    assert "--predictions" in said


def test_a_file_that_cannot_be_written_leaves_the_old_one(program, model, tmp_path, monkeypatch):
    path = tmp_path / "p.npz"
    path.write_bytes(b"old")

    def fails(file, **arrays: np.ndarray) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evaluation.np, "savez", fails)
    assert "No space left" in error_line(program(*model, "--predictions", path, "--overwrite"))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (("--train", "--predictions", "p.npz"), "--predictions goes with --eval"),
        (("--eval", "--predictions", "model.pt"), "'model.pt' is no name of a file FILE.npz"),
        (("--eval", "--predictions", ""), "'' is no name of a file"),
    ],
)
def test_a_wrong_command_line_is_refused_in_a_line(program, line, says):
    refused = program(*line, "--setting", 0, *SMALL)
    assert refused.code == 2
    assert says in refused.err
    assert one_line(refused)


def test_predictions_decide_nothing_and_are_in_the_help(program):
    assert make_run("eval", {"predictions": Path("p.npz")}).recorded["predictions"] == "p.npz"
    assert "--predictions FILE.npz" in program("--help").out


def test_the_lines_of_the_manual_make_a_confusion_matrix(program, model, tmp_path, monkeypatch, capfd):
    section = (TOP / "docs" / "files.md").read_text().partition("\n## Predictions")[2]
    block = re.search(r"```python\n(.+?)```", section, re.DOTALL)[1]
    assert block.count("\n") == 6
    path = tmp_path / "predictions.npz"
    assert program(*model, "--predictions", path).code == 0
    given = np.load(path)
    pairs = list(zip(given["labels_0"], given["answers_0"], strict=True))
    used = sorted({number for pair in pairs for number in pair})
    expected = [[pairs.count((label, answer)) for answer in used] for label in used]
    try:
        import sklearn.metrics  # noqa: F401
    except ImportError:
        metrics = types.ModuleType("sklearn.metrics")

        def confusion_matrix(labels, answers) -> np.ndarray:
            places = np.unique(np.concatenate([labels, answers]), return_inverse=True)[1].reshape(2, -1)
            matrix = np.zeros((places.max() + 1,) * 2, dtype=int)
            np.add.at(matrix, tuple(places), 1)
            return matrix

        metrics.confusion_matrix = confusion_matrix
        monkeypatch.setitem(sys.modules, "sklearn", types.ModuleType("sklearn"))
        monkeypatch.setitem(sys.modules, "sklearn.metrics", metrics)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(block, names)
    assert names["matrix"].tolist() == expected
    assert capfd.readouterr().out
