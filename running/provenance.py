"""What a result was made with: the code that decides it, and the environment that it ran in."""

import ast
import hashlib
import platform
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

from settings import DataSpec

DECIDING = ("data", "own_data", "sampling", "models", "losses", "agents", "scoring")
"""The modules that decide, with the options and the data set, what a run gives."""


def code_fingerprint(spec: DataSpec) -> str:
    """Stands for all that decides a result but the options: 12 hexadecimal digits.

    Comments, docstrings and the layout of the code do not count, nor does the version of Python.

    Args:
        spec: the data set; its entry in the tables counts, the content of a user's own file does not, as that
            is one of the options.
    """
    top = Path(__file__).parents[1]
    parts = [fingerprint((top / f"{name}.py").read_text(encoding="utf-8")) for name in DECIDING]
    spec = replace(spec, name="", question="", path=None, checksum="", validation=0.0)
    return hashlib.sha256(repr((parts, spec)).encode()).hexdigest()[:12]


@cache
def fingerprint(source: str) -> str:
    """Stands for what a piece of Python code does."""
    return hashlib.sha256(repr(_outline(ast.parse(source))).encode()).hexdigest()


def _outline(node: object) -> object:
    """A syntax tree as nested tuples without empty fields, which differ between versions of Python."""
    if isinstance(node, ast.AST):
        fields = ((name, _outline(value)) for name, value in ast.iter_fields(node))
        return (type(node).__name__, *((name, value) for name, value in fields if value not in ((), None)))
    if isinstance(node, list):
        return tuple(_outline(each) for each in _without_strings(node))
    return node if node is None else repr(node)


def _without_strings(nodes: Iterable) -> list:
    """A list of nodes without statements that are nothing but a string: docstrings, and notes to values."""
    return [
        node
        for node in nodes
        if not (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        )
    ]


def environment(device: object, num_threads: int, compiled: bool) -> dict[str, object]:
    """What a sitting runs in: plain values.

    Args:
        device: of the network, a torch.device.
        num_threads: number of threads that PyTorch computes with on the CPU.
        compiled: whether the encoder is compiled.
    """
    torch = sys.modules["torch"]
    loaded = {"numpy": sys.modules["numpy"].__version__, "torch": str(torch.__version__)}
    if "torchjd" in sys.modules:  # which does not say itself
        loaded["torchjd"] = version("torchjd")
    on_gpu = device.type == "cuda"
    return {
        "python": platform.python_version(),
        **loaded,
        "device": device.type,
        "processor": torch.cuda.get_device_name(device) if on_gpu else _processor(),
        "threads": num_threads,
        "compiled": compiled,
    }


def _processor() -> str:
    """Name of the CPU, as far as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:  # not Linux
        names = []
    return names[0] if names else platform.processor() or platform.machine()
