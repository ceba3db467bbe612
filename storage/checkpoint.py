"""The file model.pt: read, checked, written."""

import errno
import math
import pickle
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZIP_STORED, ZipFile, is_zipfile

import torch
from torch import Tensor, nn

from errors import UserError, is_out_of_memory
from options import Option, is_number, read_options
from storage.checks import FieldError, check_alike, check_finite, check_plain
from storage.files import replacing
from storage.history import check_gradients, check_sessions, is_count

FORMAT = 3
"""File format, raised when an older program would misread it."""

LARGEST_HEAD = 10**6
"""A number of logits that no head has."""

ZIP = b"PK\x03\x04"
"""First bytes of the files of torch.save."""

DAMAGED = "is damaged; train the model again"
FOREIGN = "is not a model of this program; give another --save_path"


@dataclass(frozen=True)
class Checkpoint:
    """The content of model.pt.

    Attributes:
        options: checked options of the run.
        network: state dict, on the CPU; `check_network` checks it.
        training: what --resume needs; `check_training` checks it.
        code: fingerprint of the code that made it.
        inference: what `models.load` needs besides the options and the network; `check_inference` checks it;
            None in a file of an older program.
    """

    options: dict[str, Any]
    network: Any
    training: Any
    code: str
    inference: Any = None


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write model.pt.

    Args:
        path: where to write it.
        checkpoint: options of plain values; training of these and tensors on the CPU; network and inference
            of these and tensors on any device.

    Raises:
        UserError: it cannot be written.
    """
    content = {"format": FORMAT, "options": checkpoint.options, "model": packed(checkpoint.network)}
    content |= {"training": checkpoint.training, "code": checkpoint.code}
    if checkpoint.inference is not None:
        content["inference"] = packed(checkpoint.inference)
    with replacing(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # how torch reports that the file could not be written
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def packed(state: Any) -> Any:
    """A nested state whose tensors are contiguous, on the CPU, and part of no larger one.

    torch.save would save a larger one whole. Tensors that are like this already are not copied.
    """
    if isinstance(state, Tensor):
        tensor = state.detach().cpu().contiguous()
        return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
    if isinstance(state, dict):
        return {key: packed(value) for key, value in state.items()}
    return [packed(value) for value in state] if isinstance(state, list | tuple) else state


def read_checkpoint(path: Path, table: Sequence[Option]) -> Checkpoint:
    """Read model.pt.

    Args:
        path: where it is.
        table: table of options; those that the file lacks have their defaults.

    Raises:
        UserError: there is no such file, it is damaged, no model of this program, or one of another version.
        MemoryError: it does not fit into memory.
    """
    content = _load(path)
    version = content.get("format") if isinstance(content, dict) else None
    if not isinstance(content, dict) or type(version) is not int:
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
        options = read_options(content.get("options"), table)
        if type(content.get("code")) is not str:
            raise FieldError("code is not a string")
    except ValueError as error:
        raise damaged(path, error) from None
    training = content.get("training")
    if version == 2 and isinstance(training, dict) and "sittings" in training:
        training["sessions"] = training.pop("sittings")
    return Checkpoint(options, content.get("model"), training, content["code"], content.get("inference"))


def _load(path: Path) -> object:
    """Load an archive of torch.save.

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
                    warnings.simplefilter("ignore")  # torch.load warns about files that are refused below
                    return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no model {path}; train one with --train --save_model") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except pickle.UnpicklingError:
        problem = "holds more than tensors, maybe code (none was run), and is not a model of this program"
    except Exception as error:  # torch.load raises what the bytes happen to lead it to
        if is_out_of_memory(error):
            raise MemoryError from error
        problem = "is damaged or is not a model of this program; train the model again"
    raise UserError(f"{path} {problem}")


def _problem(file: BinaryIO) -> str | None:
    """What is wrong with a file, or None.

    torch.load compares no checksums, and crashes on some damaged files.
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
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # zipfile seeks to a negative position
            raise
        was_archive = start == ZIP or is_zipfile(file)
        return DAMAGED if was_archive else "is not a model file; give another --save_path"
    names = {member.filename.lower() for member in members}  # torch.load does not tell cases apart
    if not any(name.endswith("/data.pkl") for name in names):
        return FOREIGN
    # torch.load leaves the memory of a member unfilled if the member is marked as a directory.
    plain = all((member.external_attr, member.compress_type) == (0, ZIP_STORED) for member in members)
    return None if plain and len(names) == len(members) else DAMAGED


def damaged(path: Path, problem: object, other_code: bool = False) -> UserError:
    """The error for a checkpoint with a wrong field.

    Args:
        path: where the file is.
        problem: name of the field, and what is wrong with it.
        other_code: whether other code made the file, which may be the reason.
    """
    what = "damaged, edited or of other code" if other_code else "damaged or edited"
    return UserError(f"{path} is {what}: {problem}; train the model again")


def check_network(path: Path, network: object, model: nn.Module, field: str = "model") -> None:
    """Check that a state dict fits a network and is finite.

    Args:
        path: where the file is.
        network: the state dict.
        model: the network.
        field: name of the state dict in the file.

    Raises:
        UserError: it does not fit, or is not finite.
    """
    try:
        check_alike(network, model.state_dict(), field)
    except FieldError as error:
        raise UserError(
            f"{path} does not hold this program's network ({error}): use the code that made it, or "
            "train it again"
        ) from None
    try:
        check_finite(network, field)
    except FieldError as error:
        raise UserError(f"{path} cannot be used: {error}; train it again, with a smaller --lr") from None


def check_inference(inference: object) -> None:
    """Check the entry `inference` of a checkpoint.

    Its `weights` are not checked.

    Raises:
        FieldError: it is not what `models.describe_inference` returns; the text names the field.
    """
    if not isinstance(inference, dict):
        raise FieldError("inference is not a dictionary")
    found: list[Any] = [inference.get(name) for name in ("mean", "std", "heads", "tasks")]
    mean, std, heads, tasks = found
    for name, values in (("mean", mean), ("std", std)):
        if not isinstance(values, list) or not values or not all(map(is_number, values)):
            raise FieldError(f"inference.{name} is not a list of numbers")
    if len(mean) != len(std) or min(std) <= 0:
        raise FieldError("inference.std is not a positive number for each channel")
    if not isinstance(heads, list) or not all(is_count(size) and 0 < size < LARGEST_HEAD for size in heads):
        raise FieldError("inference.heads is not a list of numbers of logits")
    if not isinstance(tasks, dict) or not tasks:
        raise FieldError("inference.tasks is not a dictionary of tasks")
    for name, task in tasks.items():
        if type(name) is not str or not _is_task(task, heads):
            raise FieldError(f"inference.tasks[{name!r}] is not a head and the logits of its answers")


def _is_task(task: Any, heads: list[int]) -> bool:
    """Whether a value is a task of `models.describe_inference`, given the number of logits of each head."""
    if not isinstance(task, dict):
        return False
    found: list[Any] = [task.get(name) for name in ("head", "answers", "logits")]
    head, answers, logits = found
    return (
        is_count(head)
        and head < len(heads)
        and isinstance(answers, list)
        and isinstance(logits, list)
        and 0 < len(answers) == len(logits)
        and all(type(answer) is str for answer in answers)
        and all(isinstance(each, list) for each in logits)
        and all(is_count(number) and number < heads[head] for each in logits for number in each)
    )


def check_training(training: object) -> None:
    """Check the entry `training` of a checkpoint.

    What depends on the network and the data is not checked.

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
        check_plain(training[name], f"training.{name}", depth=6)


def check_agent(state: dict[str, Any], fresh: dict[str, Any], trained: Tensor) -> None:
    """Check the state of an agent against a fresh one.

    Args:
        state: state from a file; its `epochs`, `step` and `seconds` are checked already.
        fresh: state of an agent that has trained no step.
        trained: bool, steps of an epoch x heads: whether each step trains each head.

    Raises:
        FieldError: a field is not what the agent would have.
    """
    step, (num_steps, num_heads) = state["step"], trained.shape
    if step > num_steps:
        raise FieldError(f"step is above {num_steps}, the number of steps of an epoch")
    check_alike(state.get("losses"), torch.zeros(step), "losses")
    check_finite(state["losses"], "losses")
    check_alike(state.get("task_losses"), torch.zeros(step, num_heads), "task_losses")
    if not torch.equal(state["task_losses"].isfinite(), trained[:step]):
        raise FieldError("task_losses are not those of the heads that the steps trained")
    if state.get("hits") is not None:  # version 2.1 did not count them
        check_alike(state["hits"], torch.zeros(num_heads, dtype=torch.int64), "hits")
    if state.get("gradients") is not None:
        check_gradients(state["gradients"], "gradients")
    optimizer = {"state": fresh["optimizer"]["state"], "param_groups": None}
    check_alike(state.get("optimizer"), optimizer, "optimizer")
    check_finite(state["optimizer"]["state"], "optimizer.state")
    extra = {name: None for name in fresh["combination"] if name.endswith("_extra_state")}
    check_alike(state.get("combination"), fresh["combination"] | extra, "combination")
    check_finite(state["combination"] | extra, "combination")  # extra states check themselves
    generators = state.get("generators")
    if not isinstance(generators, dict) or "cpu" not in generators:
        raise FieldError("generators.cpu is missing")
    for name in fresh["generators"].keys() & generators.keys():
        _check_generator(generators[name], fresh["generators"][name], f"generators.{name}")


def _check_generator(found: Any, like: Tensor, field: str) -> None:
    """Check that something can be the state of a generator.

    Raises:
        FieldError: it cannot.
    """
    check_alike(found, like, field)
    try:
        torch.Generator(field.rpartition(".")[2]).set_state(found)
    except RuntimeError:
        raise FieldError(f"{field} is not the state of a generator") from None
