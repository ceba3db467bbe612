"""The machine: usable cores and memory, and the environment of a session."""

import math
import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CONTROL_GROUPS = Path("/sys/fs/cgroup")
"""Where Linux shows control groups, by which containers and schedulers limit processes."""

PROCESSOR = Path("/proc/cpuinfo")
"""Where Linux describes the processor."""

MEMORY_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""For control groups of version 2 and 1: files with limit and usage, and the name of the idle file cache."""


def num_cores() -> int:
    """Number of processor cores that this process may use, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(cores, core_quota())))


def core_quota() -> float:
    """Processor time that control groups allow, in cores; infinite without a limit."""
    quotas = [math.inf]
    for group in _groups("cpu"):
        content = _read(group / "cpu.max")  # version 2; version 1 has two files
        content = content or f"{_read(group / 'cpu.cfs_quota_us')} {_read(group / 'cpu.cfs_period_us')}"
        if limit := re.fullmatch("([0-9]+) ([1-9][0-9]*)", content):
            quotas.append(int(limit[1]) / int(limit[2]))
    return min(quotas)


def free_memory() -> float:
    """Bytes of memory that are free without swapping; infinite if unknown."""
    available = _count(r"^MemAvailable: *([0-9]+) kB$", _read(Path("/proc/meminfo")))
    free = [math.inf if available is None else available * 1024]
    for group in _groups("memory"):
        for limit_file, usage_file, cache in MEMORY_FILES:
            limit, usage = (_count("^([0-9]+)$", _read(group / name)) for name in (limit_file, usage_file))
            if limit is not None and usage is not None:
                reclaimable = _count(f"^{cache} ([0-9]+)$", _read(group / "memory.stat")) or 0
                free.append(max(0, limit - usage + reclaimable))
    return min(free)


def has_bf16() -> bool:
    """Whether the processor has instructions for bf16: AVX512-BF16 or AMX, as far as Linux tells."""
    with suppress(OSError), open(PROCESSOR, encoding="utf-8", errors="replace") as file:
        flags = next((line for line in file if line.startswith("flags")), "")
        return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags.split())
    return False


def _groups(controller: str) -> Iterator[Path]:
    """Directories of this process's control group and those above it.

    Some of them may not exist.
    """
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CONTROL_GROUPS / controller if controllers else CONTROL_GROUPS
        # In a container the path may be one of the host; its own group is at the root then.
        parts = [] if ".." in path else path.strip("/").split("/")
        for depth in range(len(parts), -1, -1):
            yield root.joinpath(*parts[:depth])


def _read(path: Path) -> str:
    """Content of a file, stripped; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _count(pattern: str, text: str) -> int | None:
    """The number that a pattern finds in a text, or None."""
    found = re.search(pattern, text, re.MULTILINE)
    return int(found[1]) if found else None


def environment(device: "torch.device", num_threads: int, compiled: bool) -> dict[str, Any]:
    """The environment of a session: plain values.

    Args:
        device: device of the network.
        num_threads: number of threads that PyTorch computes with on the CPU.
        compiled: whether the encoder is compiled.
    """
    import numpy
    import torch

    loaded = {"numpy": numpy.__version__, "torch": str(torch.__version__)}
    if "torchjd" in sys.modules:  # torchjd has no __version__
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
    """Name of the CPU, if the system tells it."""
    try:
        with open(PROCESSOR, encoding="utf-8", errors="replace") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:  # not Linux
        names = []
    return names[0] if names else platform.processor() or platform.machine()
