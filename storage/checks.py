"""Checks of what a file holds, field by field."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor


class FieldError(ValueError):
    """A field of a file is wrong.

    The text names the field and says how it is wrong.
    """


def check_alike(found: object, like: object, field: str) -> None:
    """Check that a state has the keys, shapes and dtypes of another.

    Args:
        found: the state, from a file.
        like: the other state: nested dictionaries of tensors on any device, or None where anything will do.
        field: name of the state.

    Raises:
        FieldError: it differs.
    """
    if isinstance(like, Tensor):
        _check_tensor(found, like, field)
    elif isinstance(like, dict):
        if not isinstance(found, dict):
            raise FieldError(f"{field} is not a dictionary")
        for key in like:
            if key not in found:
                raise FieldError(f"{_inside(field, key)} is missing")
            check_alike(found[key], like[key], _inside(field, key))
        if len(found) > len(like):
            key = next(key for key in found if key not in like)
            raise FieldError(f"{_inside(field, key)} does not belong there")


def check_finite(state: object, field: str) -> None:
    """Check that the tensors in a nested state are finite.

    Raises:
        FieldError: one is not.
    """
    for name, tensor in named_tensors(state, field):
        if not _is_finite(tensor):
            raise FieldError(f"{name} is not finite")


def named_tensors(state: object, field: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors in nested dictionaries and lists, each with its name."""
    if isinstance(state, Tensor):
        yield field, state
    elif isinstance(state, dict | list | tuple):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from named_tensors(value, _inside(field, key))


def check_plain(value: object, field: str, depth: int = 4) -> None:
    """Check that a value is plain.

    Plain values are None, booleans, strings, finite numbers, and lists and dictionaries of these.

    Args:
        value: value from a file.
        field: name of the value.
        depth: how deeply lists and dictionaries may be nested.

    Raises:
        FieldError: it is not plain.
    """
    if isinstance(value, dict | list) and depth:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            check_plain(inner, _inside(field, key), depth - 1)
            if isinstance(value, dict) and type(key) is not str:
                raise FieldError(f"{field} has a key that is not a string")
    elif not (
        value is None
        or type(value) in (bool, str)
        or (type(value) is int and abs(value) < 2**63)
        or (type(value) is float and math.isfinite(value))
    ):
        raise FieldError(f"{field} is not a plain value")


def _is_finite(tensor: Tensor) -> bool:
    """Whether all numbers of a tensor are finite.

    Checking the smallest and the largest is faster than checking each.
    """
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    return bool(torch.stack(torch.aminmax(tensor)).isfinite().all())


def _check_tensor(found: object, like: Tensor, field: str) -> None:
    """Check a tensor against the shape and dtype of another.

    It must be an ordinary tensor on the CPU.
    """
    if (
        type(found) is not Tensor
        or (found.layout, found.device.type) != (torch.strided, "cpu")
        or found.is_quantized
        or found.is_nested
        or found.requires_grad
    ):
        raise FieldError(f"{field} is not an ordinary tensor")
    if found.dtype != like.dtype:
        raise FieldError(f"{field} has another dtype ({found.dtype}, not {like.dtype})")
    if found.shape != like.shape:
        raise FieldError(f"{field} has another shape ({tuple(found.shape)}, not {tuple(like.shape)})")


def _inside(field: str, key: object) -> str:
    """The name of an entry of a field."""
    if isinstance(key, str):
        return f"{field}.{key}"
    return f"{field}[{key if type(key) is int and abs(key) < 2**63 else type(key).__name__}]"
