"""The model file: the network, what it was trained as, and what it takes to go on."""

import errno
import math
import pickle
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO
from zipfile import ZIP_STORED, ZipFile, is_zipfile

import torch
from torch import Tensor, nn

from checks import FieldError, check_alike, check_finite, check_plain
from files import replacing
from history import check_sessions, is_count
from options import Option, read_options
from settings import UserError

FORMAT = 3
"""Of model.pt; goes up when an older program would misread it."""

ZIP = b"PK\x03\x04"
"""How the files of torch.save begin."""

DAMAGED = "is damaged; train the model again"
FOREIGN = "is not a model of this program; give another --save_path"


def save_model(path: Path, options: dict, network: dict[str, Tensor], training: dict, code: str) -> None:
    """Write model.pt.

    Args:
        options: what the model was trained as: numbers, strings, lists and None only.
        network: state dict, on any device.
        training: what it takes to go on: numbers, strings, lists and tensors on the CPU.
        code: fingerprint of what made it.

    Raises:
        UserError: it cannot be written.
    """
    # Copies, as tensors that share their memory would be saved as parts of one.
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.items()
    }
    content = {"format": FORMAT, "options": options, "model": plain, "training": training, "code": code}
    with replacing(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # how torch reports that the file could not be written
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def read_model(path: Path, table: Sequence[Option]) -> dict:
    """Read model.pt: what save_model was given, with the tensors on the CPU.

    The network and the training are checked by `check_network` and `check_training`, once they are needed.

    Args:
        table: the options that there are; those that the file lacks have their defaults.

    Raises:
        UserError: there is no such file, it is damaged, it is no model of this program, or one of another
            version.
        MemoryError: it does not fit into memory.
    """
    content = _load(path)
    version = content.get("format") if isinstance(content, dict) else None
    if type(version) is not int:
        raise UserError(f"{path} {FOREIGN}")
    if version > FORMAT:
        raise UserError(f"{path} was written by a newer version: update the program")
    if version == 1:
        raise UserError(
            f"{path} was written by version 1.1 or before, which this version does not read: train the model "
            "again"
        )
    try:
        if version not in (2, FORMAT):
            raise FieldError("format is no format of this program")
        content["options"] = read_options(content.get("options"), table)
        if type(content.get("code")) is not str:
            raise FieldError("code is not a string")
    except ValueError as error:
        raise damaged(path, error) from None
    if version == 2 and isinstance(training := content.get("training"), dict) and "sittings" in training:
        training["sessions"] = training.pop("sittings")
    return content


def _load(path: Path) -> object:
    """What an archive of torch.save holds.

    Raises:
        UserError: it cannot be read, is damaged, or is another kind of file.
        MemoryError: it does not fit into memory.
    """
    try:
        with open(path, "rb") as file:
            problem = _problem(file)
            if problem is None:
                file.seek(0)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # about files that are refused below
                    return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no model {path}; train one with --train --save_model") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except pickle.UnpicklingError:
        problem = "holds more than tensors, maybe code (none was run), and is not a model of this program"
    except Exception as error:  # torch.load raises what the bytes happen to lead it to
        if isinstance(error, MemoryError) or (
            isinstance(error, RuntimeError) and re.search("memory|alloc", str(error))
        ):
            raise MemoryError from error
        problem = "is damaged or is not a model of this program; train the model again"
    raise UserError(f"{path} {problem}")


def _problem(file: BinaryIO) -> str | None:
    """What keeps a file from being read, or None.

    torch.load compares no checksum, and crashes on some damaged files.
    """
    start = file.read(len(ZIP))
    if not start:
        return "is empty; train the model again"
    try:
        with ZipFile(file) as archive:
            members = archive.infolist()
            if archive.testzip() is not None:
                return DAMAGED
    except MemoryError:
        raise
    except Exception as error:  # zipfile raises what the bytes happen to lead it to
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a place before the file's beginning
            raise
        archive = start == ZIP or is_zipfile(file)
        return DAMAGED if archive else "is not a model file; give another --save_path"
    names = {member.filename.lower() for member in members}  # torch.load does not tell cases apart
    if not any(name.endswith("/data.pkl") for name in names):
        return FOREIGN
    # It leaves the memory of a member unfilled that is marked as a directory.
    plain = all((member.external_attr, member.compress_type) == (0, ZIP_STORED) for member in members)
    return None if plain and len(names) == len(members) else DAMAGED


def damaged(path: Path, problem: object, other_code: bool = False) -> UserError:
    """What is said of a model file with a wrong field.

    Args:
        path: of the file.
        problem: names the field and says what is wrong with it.
        other_code: whether the file was made by other code, which may be the reason.
    """
    what = "damaged, edited or of other code" if other_code else "damaged or edited"
    return UserError(f"{path} is {what}: {problem}; train the model again")


def check_network(path: Path, network: object, model: nn.Module) -> None:
    """Check that the state dict in a model file is that of a network, and finite.

    Raises:
        UserError: it is not.
    """
    try:
        check_alike(network, model.state_dict(), "model")
    except FieldError as error:
        raise UserError(
            f"{path} does not hold this program's network ({error}): bring back the code that made it, or "
            "train it again"
        ) from None
    try:
        check_finite(network, "model")
    except FieldError as error:
        raise UserError(f"{path} cannot be used: {error}; train it again, with a smaller --lr") from None


def check_training(training: object) -> None:
    """Check what a model file says of its training, but for what depends on the network and the data.

    Raises:
        ValueError: a field is wrong; the text names it.
    """
    if not isinstance(training, dict):
        raise FieldError("training is not a dictionary")
    if not isinstance(training.get("epochs"), list):
        raise FieldError("training.epochs is not a list")
    if not is_count(training.get("step")):
        raise FieldError("training.step is not a number of steps")
    if not (type(seconds := training.get("seconds")) is float and 0 <= seconds < math.inf):
        raise FieldError("training.seconds is not a number of seconds")
    check_sessions("training.sessions", training.get("sessions"))
    for name in ("epochs", "sessions"):
        check_plain(training[name], f"training.{name}")
