"""Checkpoints are whole or not there; other files are refused."""

import io
import pickle
import random
import resource
import zipfile
from pathlib import Path

import pytest
import torch
from helpers import PROCESSES
from torch import nn

from errors import UserError
from options import OPTIONS as TABLE
from options import make_run
from storage.checkpoint import (
    FORMAT,
    Checkpoint,
    check_network,
    check_training,
    read_checkpoint,
    write_checkpoint,
)
from storage.checks import FieldError
from storage.files import replacing

OPTIONS = make_run("train", {"setting": 3}).recorded
SESSION = {"epoch": 0, "step": 0, "environment": {"torch": "2"}, "code": "abc"}
TRAINING = {"epochs": [], "step": 0, "losses": torch.zeros(0), "seconds": 0.0, "sessions": [SESSION]}


def read_model(path: Path) -> Checkpoint:
    """A model file, read with the program's own options."""
    return read_checkpoint(path, TABLE)


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
    write_checkpoint(path, Checkpoint(OPTIONS, {"weight": weight}, TRAINING, "code"))
    content = read_model(path)
    assert content.options == OPTIONS
    assert content.code == "code"
    assert torch.equal(content.network["weight"], weight)
    assert content.network["weight"].is_contiguous()


class Harm:
    """Would make a file when unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("harm"),)


def altered(**changes: object) -> bytes:
    """A model file that is right but for some entries, given as options_lr=..., format=..."""
    content = {
        "format": FORMAT,
        "options": dict(OPTIONS),
        "model": {"weight": torch.arange(3.0)},
        "training": dict(TRAINING),
        "code": "abc",
    }
    for name, value in changes.items():
        *parents, last = name.split("_", 1)
        for parent in parents:
            entry = content[parent]
        (entry if parents else content)[last] = value
    return bytes_of(content)


WHOLE = altered()


def archive(**members: bytes) -> bytes:
    """A zip archive, but none of torch.save."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as content:
        for name, data in members.items():
            content.writestr(name, data)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (WHOLE[: len(WHOLE) // 2], "damaged"),
        (WHOLE[len(WHOLE) // 2 :], "damaged"),
        (b"text", "not a model file"),
        (pickle.dumps(Harm()), "not a model file"),
        (bytes_of(Harm()), "maybe code"),
        (archive(images=b"0"), "not a model of this program"),
        (bytes_of(torch.zeros(3)), "not a model of this program"),
        (bytes_of({"weight": torch.zeros(3)}), "not a model of this program"),
        (altered(format="2"), "not a model of this program"),
        (altered(format=torch.ones(2)), "not a model of this program"),
        (altered(format=FORMAT + 1), "newer"),
        (altered(format=1), "version 1.1 or before"),
        (altered(format=0), "damaged or edited: format"),
    ],
    ids=[
        "empty",
        "truncated",
        "beheaded",
        "text",
        "code",
        "code in an archive",
        "another archive",
        "tensor",
        "weights",
        "format as text",
        "format as a tensor",
        "newer",
        "older",
        "no format",
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


def test_a_turned_bit_is_found_or_changes_nothing(path):
    path.write_bytes(WHOLE)
    content = bytes_of(read_model(path))
    random_bits, found = random.Random(0), 0
    with zipfile.ZipFile(path) as members:
        directory = members.start_dir
    for number in range(240):  # as often in the directory as before it, which is five times as large
        start, end = (0, directory) if number % 2 else (directory, len(WHOLE))
        place = random_bits.randrange(start, end)
        turned = bytearray(WHOLE)
        turned[place] ^= 1 << random_bits.randrange(8)
        path.write_bytes(turned)
        try:
            read = bytes_of(read_model(path))
        except UserError as error:
            read, found = None, found + ("is damaged" in str(error))
        assert read in (content, None), f"byte {place}"
    assert found > 120  # the others are in padding, or say again what stands elsewhere


def test_no_bit_of_the_data_can_turn_unseen(path):
    weights = torch.arange(100.0)
    content = altered(model={"weight": weights})
    start = content.index(weights.numpy().tobytes())
    for place in range(start, start + weights.nbytes, 7):
        turned = bytearray(content)
        turned[place] ^= 1 << place % 8
        path.write_bytes(turned)
        with pytest.raises(UserError, match="is damaged"):
            read_model(path)


def test_a_member_marked_as_a_directory_is_not_read_as_memory_that_nobody_filled(path):
    marked, name = bytearray(WHOLE), b"archive/data/0"
    entry = WHOLE.rindex(name) - 46  # in the directory, whose entries have their name after 46 bytes
    assert marked[entry : entry + 4] == b"PK\x01\x02"
    marked[entry + 38] |= 0x10  # an attribute of DOS
    path.write_bytes(marked)
    with pytest.raises(UserError, match="is damaged; train"):
        read_model(path)


@pytest.mark.parametrize("name", ["archive/data/0", "archive/DATA/0"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(path, name):
    path.write_bytes(WHOLE)
    with zipfile.ZipFile(path, "a") as members:
        members.writestr(zipfile.ZipInfo(name), members.read("archive/data/0")[::-1])
        members.infolist()[-1].external_attr = 0
    with pytest.raises(UserError, match="is damaged"):
        read_model(path)


def read_with_little_memory(path: Path, output: Path) -> None:
    """Read a model in a process that gets no more memory, and write down what comes of it."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**23,) * 2)
    try:
        read_model(path)
    except BaseException as error:
        output.write_text(type(error).__name__)


@pytest.mark.processes
def test_a_model_that_does_not_fit_into_memory_is_not_called_damaged(path):
    path.write_bytes(altered(model={"weight": torch.zeros(2**22)}))  # 16 MB
    output = path.with_name("output")
    process = PROCESSES.Process(target=read_with_little_memory, args=(path, output))
    process.start()
    process.join()
    assert output.read_text() == "MemoryError"


def test_a_model_file_that_is_right_is_taken(path):
    path.write_bytes(WHOLE)
    content = read_model(path)
    assert content.network.keys() == {"weight"}
    check_training(content.training)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"options": None}, "options"),
        ({"options": {}}, "options.setting"),
        ({"options_setting": 99}, "options.setting"),
        ({"options_setting": "x"}, "options.setting"),
        ({"options_lr": torch.ones(2)}, "options.lr"),
        ({"options_lr": float("nan")}, "options.lr"),
        ({"options_lr": "0.1"}, "options.lr"),
        ({"options_batch_size": 10**400}, "options.batch_size"),
        ({"options_batch_size": None}, "options.batch_size"),
        ({"options_image_size": 0}, "options.image_size"),
        ({"options_synthetic": 1}, "options.synthetic"),
        ({"options_weights": [0.0, 0.0]}, "options.weights"),
        ({"options_data": "nothing"}, "options.data"),
        ({"code": None}, "code"),
    ],
    ids=str,
)
def test_a_wrong_field_of_a_model_file_is_named(path, changes, field):
    path.write_bytes(altered(**changes))
    with pytest.raises(UserError, match=f"damaged or edited: {field} ") as caught:
        read_model(path)
    assert str(path) in str(caught.value)


ENDLESS = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"epochs": 3}, "epochs"),
        ({"epochs": [{"loss": float("nan")}]}, r"epochs\[0\].loss"),
        ({"epochs": [{"seconds": 10**400}]}, r"epochs\[0\].seconds"),
        ({"epochs": [{"loss": torch.ones(1)}]}, r"epochs\[0\].loss"),
        ({"epochs": [{"loss": ENDLESS}]}, r"epochs\[0\].loss(\[0\]){4}"),
        ({"epochs": [{1: 2.0}]}, r"epochs\[0\]"),
        ({"step": "x"}, "step"),
        ({"step": -1}, "step"),
        ({"step": True}, "step"),
        ({"seconds": "x"}, "seconds"),
        ({"seconds": -1.0}, "seconds"),
        ({"seconds": float("inf")}, "seconds"),
        ({"sessions": []}, "sessions"),
        ({"sessions": [1]}, r"sessions\[0\]"),
        ({"sessions": [SESSION, SESSION | {"epoch": -1}]}, r"sessions\[1\].epoch"),
        ({"sessions": [SESSION | {"step": 0.5}]}, r"sessions\[0\].step"),
        ({"sessions": [SESSION | {"code": None}]}, r"sessions\[0\].code"),
        ({"sessions": [SESSION | {"environment": None}]}, r"sessions\[0\].environment"),
        ({"sessions": [SESSION | {"environment": {"a": b"x"}}]}, r"sessions\[0\].environment.a"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value,
)
def test_a_wrong_field_of_a_training_is_named(changes, field):
    with pytest.raises(ValueError, match=rf"^training\.{field} "):
        check_training(TRAINING | changes)


def test_a_training_of_another_kind_is_refused():
    with pytest.raises(FieldError, match=r"^training is not a dictionary"):
        check_training(None)


NETWORK = nn.BatchNorm1d(2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weight": torch.ones(3)}, r"model.weight has another shape \(\(3,\), not \(2,\)\)"),
        ({"weight": torch.ones(2, dtype=torch.float64)}, "model.weight has another dtype"),
        ({"num_batches_tracked": torch.tensor(1.0)}, "model.num_batches_tracked has another dtype"),
        ({"weight": "x"}, "model.weight is not an ordinary tensor"),
        ({"weight": torch.ones(2).to_sparse()}, "model.weight is not an ordinary tensor"),
        ({"weight": torch.ones(2, device="meta")}, "model.weight is not an ordinary tensor"),
        ({"weight": torch.ones(2, requires_grad=True)}, "model.weight is not an ordinary tensor"),
        ({"weight": nn.Parameter(torch.ones(2))}, "model.weight is not an ordinary tensor"),
        ({"more": torch.ones(2)}, "model.more does not belong there"),
        ({1: torch.ones(2)}, r"model\[1\] does not belong there"),
        ({"weight": torch.tensor([1.0, torch.nan])}, "model.weight is not finite.*smaller --lr"),
        ({"running_var": torch.tensor([torch.inf, 1.0])}, "model.running_var is not finite"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value,
)
def test_weights_that_are_not_those_of_the_network_are_named(path, changes, says):
    weights = NETWORK.state_dict()
    check_network(path, weights, NETWORK)
    with pytest.raises(UserError, match=says) as caught:
        check_network(path, weights | changes, NETWORK)
    assert str(path) in str(caught.value)


def test_weights_that_are_missing_are_named(path):
    with pytest.raises(UserError, match=r"model\.weight is missing"):
        check_network(path, {}, NETWORK)
    with pytest.raises(UserError, match="model is not a dictionary"):
        check_network(path, None, NETWORK)


def test_a_model_of_a_version_without_an_option_was_trained_as_by_default(path):
    later = {"precision": "fp32", "momentum": 0.0, "schedule": "constant", "loss": "mean"}
    older = {name: value for name, value in OPTIONS.items() if name not in later}
    path.write_bytes(altered(options=older))
    assert read_model(path).options == older | later


def test_what_is_saved_does_not_drag_along_the_memory_that_it_is_a_part_of(path):
    stack = torch.randn(100, 1000)
    write_checkpoint(path, Checkpoint(OPTIONS, {"weight": stack[3]}, TRAINING, "code"))
    assert path.stat().st_size < stack.nbytes / 10
    assert torch.equal(read_model(path).network["weight"], stack[3])


def test_a_missing_model_is_said_so(path):
    with pytest.raises(UserError, match="no model"):
        read_model(path)
