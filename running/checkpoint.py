"""The model file: the network, what it was trained as, and what it takes to go on."""

import pickle
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from files import replacing
from history import is_count
from options import Option, is_number, read_options
from settings import SETTINGS, UserError

FORMAT = 2
"""Of model.pt; goes up when an older program could no longer read it."""

ZIP, PICKLE = b"PK\x03\x04", b"\x80"
"""How the files of torch.save begin, and how bare pickles do."""


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

    Args:
        table: the options that there are; those that the file lacks have their defaults.

    Raises:
        UserError: there is no such file, it is no model of this program, or one of a newer version.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(4)
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about files that are refused below
                content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no model {path}; train one with --train --save_model") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # torch.load raises what the bytes happen to lead it to
        if not start:
            what = "is empty; train the model again"
        elif isinstance(error, pickle.UnpicklingError) and start.startswith((ZIP, PICKLE)):
            what = "holds more than tensors, maybe code (none was run), and is not a model of this program"
        elif start == ZIP:
            what = "is damaged; train the model again"
        else:
            what = "is not a model file; give another --save_path"
        raise UserError(f"{path} {what}") from error
    if not isinstance(content, dict) or type(version := content.get("format")) is not int:
        raise UserError(f"{path} is not a model of this program; give another --save_path")
    if version > FORMAT:
        raise UserError(
            f"{path} has format {version}, newer than {FORMAT}, which is read here: update the program"
        )
    if isinstance(content.get("options"), dict):
        with suppress(ValueError):
            content["options"] = read_options(content["options"], table)
    if not _is_ours(content, table):
        raise UserError(f"{path} is not a model of this program; give another --save_path")
    return content


def _is_ours(content: dict, table: Sequence[Option]) -> bool:
    """Whether a model file holds what save_model writes, as far as can be told without the network."""
    options, network, training = (content.get(key) for key in ("options", "model", "training"))
    deciding = [option.name for option in table if option.decides != "nothing"]
    return (
        isinstance(options, dict)
        and all(isinstance(options.get(n, ...), int | float | str | list | None) for n in deciding)
        and is_count(options["setting"])
        and options["setting"] < len(SETTINGS)
        and isinstance(network, dict)
        and all(isinstance(n, str) and isinstance(tensor, Tensor) for n, tensor in network.items())
        and isinstance(training, dict)
        and isinstance(training.get("epochs"), list)
        and is_count(training.get("step"))
        and isinstance(training.get("losses"), Tensor)
        and training["losses"].shape == (training["step"],)
        and is_number(training.get("seconds"))
        and isinstance(training.get("sittings", []), list)
        and isinstance(content.get("code", ""), str)
    )
