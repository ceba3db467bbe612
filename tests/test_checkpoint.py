"""Files are whole or not there, and what is no model is told apart."""

import io
import pickle
from pathlib import Path

import pytest
import torch

from files import replacing
from options import OPTIONS as TABLE
from options import make_run
from running import checkpoint
from running.checkpoint import FORMAT, save_model
from settings import UserError

OPTIONS = make_run("train", {"setting": 3}).recorded
TRAINING = {"epochs": [], "step": 0, "losses": torch.zeros(0), "seconds": 0.0}


def read_model(path: Path) -> dict:
    """A model file, read with the program's own options."""
    return checkpoint.read_model(path, TABLE)


def bytes_of(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "model.pt"


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(path):
    path.write_bytes(b"old")

    def write() -> None:
        with replacing(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_ends_well_replaces_the_file(path):
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_the_old_file_itself_is_never_written_to(path):
    path.write_bytes(b"old")
    path.with_name("other").hardlink_to(path)  # another name of the old file
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.with_name("other").read_bytes() == b"old"


def test_a_directory_that_is_gone_is_said_so(tmp_path):
    with pytest.raises(UserError, match="cannot write"), replacing(tmp_path / "gone" / "file") as file:
        file.write(b"")


def test_what_is_saved_is_read_and_is_contiguous_whatever_the_layout(path):
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last).requires_grad_()
    save_model(path, OPTIONS, {"weight": weight}, TRAINING, "code")
    content = read_model(path)
    assert content["options"] == OPTIONS
    assert content["code"] == "code"
    assert torch.equal(content["model"]["weight"], weight)
    assert content["model"]["weight"].is_contiguous()


class Harm:
    """Would make a file when unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("harm"),)


WHOLE = bytes_of(
    {"format": FORMAT, "options": OPTIONS, "model": {"weight": torch.zeros(1000)}, "training": {}}
)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (WHOLE[: len(WHOLE) // 2], "damaged"),
        (b"text", "not a model"),
        (pickle.dumps(Harm()), "code"),
        (bytes_of(Harm()), "code"),
        (bytes_of(torch.zeros(3)), "not a model of this program"),
        (bytes_of({"weight": torch.zeros(3)}), "not a model of this program"),
        (
            bytes_of({"format": FORMAT, "options": {}, "model": {}, "training": {}}),
            "not a model of this program",
        ),
        (bytes_of({"format": FORMAT + 1, "options": OPTIONS, "model": {}, "training": {}}), "newer"),
    ],
    ids=[
        "empty",
        "truncated",
        "text",
        "code",
        "code in an archive",
        "tensor",
        "weights",
        "no options",
        "newer",
    ],
)
def test_what_is_no_model_is_told_in_a_line_and_runs_no_code(path, content, says, monkeypatch):
    monkeypatch.chdir(path.parent)
    path.write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        read_model(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert not Path("harm").exists()


def altered(**changes: object) -> bytes:
    """A model file that is right but for some entries, given as options_lr=..., training_step=..."""
    content = {
        "format": FORMAT,
        "options": dict(OPTIONS),
        "model": {"weight": torch.zeros(3)},
        "training": dict(TRAINING),
    }
    for name, value in changes.items():
        *parents, last = name.split("_", 1)
        for parent in parents:
            entry = content[parent]
        (entry if parents else content)[last] = value
    return bytes_of(content)


def test_a_model_file_that_is_right_is_taken(path):
    path.write_bytes(altered())
    assert read_model(path)["model"].keys() == {"weight"}


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "1"}, {"format": torch.ones(2)}, {"options": None}, {"options_setting": 99},
        {"options_setting": "x"}, {"options_lr": torch.ones(2)}, {"model": [1]},
        {"model": {1: torch.ones(1)}},
        {"model": {"weight": "x"}}, {"training": None}, {"training": []}, {"training_epochs": 3},
        {"training_step": "x"}, {"training_step": -1}, {"training_step": 2}, {"training_losses": None},
        {"training_seconds": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_a_model_file_with_a_wrong_entry_is_refused(path, changes):
    path.write_bytes(altered(**changes))
    with pytest.raises(UserError, match="not a model of this program"):
        read_model(path)


def test_a_model_of_a_version_without_an_option_was_trained_as_by_default(path):
    later = {"precision": "fp32", "momentum": 0.0, "schedule": "constant", "loss": None, "validation": 0.0}
    older = {name: value for name, value in OPTIONS.items() if name not in later}
    path.write_bytes(altered(options=older))
    assert read_model(path)["options"] == older | later


def test_what_is_saved_does_not_drag_along_the_memory_that_it_is_a_part_of(path):
    stack = torch.randn(100, 1000)
    save_model(path, OPTIONS, {"weight": stack[3]}, TRAINING, "code")
    assert path.stat().st_size < stack.nbytes / 10
    assert torch.equal(read_model(path)["model"]["weight"], stack[3])


def test_a_missing_model_is_said_so(path):
    with pytest.raises(UserError, match="no model"):
        read_model(path)
