"""Limits of control groups on a process, in both versions."""

import math
import os
from pathlib import Path

import pytest
import torch

from running import machine
from running.setup import pick_device

GB = 10**9


@pytest.fixture
def limit(tmp_path, monkeypatch):
    """Control groups in the place of the machine's: limit({"cpu.max": "100000 100000"})."""
    monkeypatch.setattr(machine, "CONTROL_GROUPS", tmp_path)

    def limit(files: dict[str, object]) -> None:
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{content}\n")

    return limit


def own_group(controller: str) -> str:
    """Folder of this process's control group, below that of all."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") or not controllers:
            return f"{controller if controllers else '.'}/{path}"
    pytest.skip("no control groups here")


def test_without_limits_all_cores_count_and_the_memory_that_is_available(limit):
    assert machine.core_quota() == math.inf
    assert machine.num_cores() == len(os.sched_getaffinity(0))
    assert 0 < machine.free_memory() < math.inf


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 0.5),
        ({"cpu.max": "max 100000"}, math.inf),
        ({"cpu.max": "who knows"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": 150000, "cpu/cpu.cfs_period_us": 100000}, 1.5),
        ({"cpu/cpu.cfs_quota_us": -1, "cpu/cpu.cfs_period_us": 100000}, math.inf),
    ],
)
def test_a_limit_of_processor_time_counts_as_whole_cores_but_at_least_one(limit, files, quota):
    limit(files)
    assert machine.core_quota() == quota
    assert machine.num_cores() == max(1, int(min(quota, len(os.sched_getaffinity(0)))))


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"memory.max": 2 * GB, "memory.current": GB // 2}, 1.5 * GB),
        ({"memory.max": GB, "memory.current": 2 * GB}, 0),
        ({"memory.max": GB, "memory.current": GB, "memory.stat": f"anon 7\ninactive_file {GB // 4}"}, GB / 4),
        (
            {
                "memory/memory.limit_in_bytes": GB,
                "memory/memory.usage_in_bytes": GB // 2,
                "memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {GB // 4}",
            },
            0.75 * GB,
        ),
    ],
)
def test_a_limit_of_memory_counts_less_what_is_used_but_not_by_the_cache(limit, files, free):
    limit(files)
    assert machine.free_memory() == free


def test_an_unlimited_group_leaves_the_memory_of_the_machine(limit):
    limit({"memory.max": "max", "memory.current": GB, "memory/memory.limit_in_bytes": 2**63 - 4096})
    limit({"memory/memory.usage_in_bytes": GB})
    assert GB / 1000 < machine.free_memory() < 10**15


def test_the_tightest_limit_from_the_own_group_up_counts(limit):
    own = own_group("memory")
    limit({"memory.max": 3 * GB, "memory.current": 0, f"{own}/memory.max": GB, f"{own}/memory.current": 0})
    assert machine.free_memory() == GB
    limit({f"{own}/memory.max": 5 * GB})
    assert machine.free_memory() <= 3 * GB


def test_a_training_has_no_more_threads_than_its_limit_unless_it_is_told_how_many(limit, monkeypatch):
    had = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        limit({"cpu.max": "100000 100000"})
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        pick_device("cpu")
        assert torch.get_num_threads() == 2
        monkeypatch.delenv("OMP_NUM_THREADS")
        limit({"cpu.max": "max 100000"})
        pick_device("cpu")
        assert torch.get_num_threads() == 2
        limit({"cpu.max": "100000 100000"})
        pick_device("cpu")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(had)
