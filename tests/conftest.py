"""Fixtures: small data sets, and runs of the program.

The program is run as its command line runs it. Each process has one thread.
"""

from __future__ import annotations

import gc
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch comes: tests run side by side, and so do their processes
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or every process that is started compiles the program

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import main
import reporting
import running.hint
from tasks import DATA_SETS, DataSpec

sys.dont_write_bytecode = False
running.hint.LONG = float("inf")  # or a slow machine would give the hint

if TYPE_CHECKING:  # else where it is used, as the process that only hands out the tests needs no torch
    from made_up import Report

    from data import DataSet


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that need the server of processes first: then one worker starts it, not each."""
    items.sort(key=lambda item: item.get_closest_marker("processes") is None)


def pytest_collection_finish() -> None:
    """Leave what the libraries have made out of every later collection of garbage: it never becomes any."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let it be collected at the end, or libraries in C++ say that they have leaked."""
    gc.unfreeze()


def load_small(spec: DataSpec) -> DataSet:
    import torch

    from data import load

    return load(spec, Path(), 8, torch.device("cpu"))


@pytest.fixture(scope="session")
def cifar10() -> DataSet:
    """CIFAR-10's stand-in at 8 x 8 pixels, with half of its images: 320 and 160."""
    return load_small(replace(DATA_SETS[0].stand_in, train_counts=(32,) * 10, test_counts=(16,) * 10))


@pytest.fixture(scope="session")
def whole_cifar100() -> DataSet:
    """CIFAR-100's stand-in at 8 x 8 pixels."""
    return load_small(DATA_SETS[1].stand_in)


@pytest.fixture(scope="session")
def cifar100() -> DataSet:
    """CIFAR-100's stand-in at 8 x 8 pixels, with half of its images: 1,600 and 800."""
    return load_small(replace(DATA_SETS[1].stand_in, train_counts=(16,) * 100, test_counts=(8,) * 100))


class Outcome:
    """Exit code and output of the program."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def accuracy(self) -> str:
        """The last line of standard output."""
        return self.out.splitlines()[-1]


@pytest.fixture
def program(capfd):
    """Run the program in this process, with narrow heads: program("--train", "--setting", 3)."""

    from helpers import NARROW

    def program(*argv: object, **how: object) -> Outcome:
        capfd.readouterr()
        try:
            code = main.main([str(argument) for argument in argv], **{"network": NARROW, **how})
        except SystemExit as stop:  # argparse ends the program like this
            code = stop.code
        return Outcome(code, *capfd.readouterr())

    return program


@pytest.fixture
def no_figure(monkeypatch):
    """Figures take time: matplotlib counts as not installed."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "reporting.figure", raising=False)
    monkeypatch.delattr(reporting, "figure", raising=False)


@pytest.fixture
def report(program, no_figure, tmp_path):
    """Report on what has been written into tmp_path, or a folder of it."""

    from made_up import Report

    def report(*options: object, folder: str = "") -> Report:
        reported = program("--report", "--save_path", tmp_path / folder, *options)
        assert (reported.code, "Traceback" in reported.err) == (0, False)
        return Report(reported.out, tmp_path / folder)

    return report


@pytest.fixture
def no_network(monkeypatch):
    """Downloads fail as they do without a network."""
    import urllib.request

    def unreachable(*_, **__):
        raise urllib.request.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)


@pytest.fixture
def fake_cifar100(monkeypatch):
    """Reading CIFAR-100 gives two training images and one test image of each class, 8 x 8 pixels."""
    import numpy as np
    import torch

    random = np.random.RandomState(0)

    def split(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        images = random.randint(0, 256, (100 * count, 3, 8, 8)).astype(np.uint8)
        return torch.from_numpy(images), torch.from_numpy(random.permutation(np.arange(100 * count) % 100))

    splits = split(2), split(1)
    monkeypatch.setattr("data.cifar100", lambda _: splits)
    return splits
