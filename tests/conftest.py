"""What the tests share: one thread each, small data sets, and the program run as its command line runs it."""

from __future__ import annotations

import copy
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch comes: tests run side by side, and so do their processes

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import main
import reporting
from settings import SYNTHETIC, DataSpec

if TYPE_CHECKING:  # else where it is used, as the process that only hands out the tests needs no torch
    from made_up import Report

    from data import DataSet, Splits


def load_small(spec: DataSpec) -> DataSet:
    import torch

    from data import load

    return load(spec, Path(), 8, torch.device("cpu"))


@pytest.fixture(scope="session")
def cifar10() -> DataSet:
    """CIFAR-10's stand-in at 8 x 8 pixels, with half of its images: 320 and 160."""
    return load_small(replace(SYNTHETIC[0], train_counts=(32,) * 10, test_counts=(16,) * 10))


@pytest.fixture(scope="session")
def cifar100() -> DataSet:
    """CIFAR-100's stand-in at 8 x 8 pixels."""
    return load_small(SYNTHETIC[1])


@pytest.fixture(scope="session", autouse=True)
def generated_once() -> Iterator[None]:
    """Generate the images of each stand-in once; each loading gets a copy."""
    import data

    generate, kept = data.synthetic, {}

    def generated(spec: DataSpec) -> Splits:
        key = spec.image_size, spec.channels, spec.train_counts, spec.test_counts
        if key not in kept:
            kept[key] = generate(spec)
        return copy.deepcopy(kept[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "synthetic", generated)
        yield


class Run:
    """What a run of the program gave back."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def accuracy(self) -> str:
        """The last line of standard output."""
        return self.out.splitlines()[-1]


@pytest.fixture
def run(capfd):
    """Run the program in this process, with narrow heads: run("--train", "--setting", 3)."""

    from helpers import NARROW

    def run(*argv: object, **how: object) -> Run:
        capfd.readouterr()
        try:
            code = main.main([str(argument) for argument in argv], **{"network": NARROW, **how})
        except SystemExit as stop:  # argparse ends the program like this
            code = stop.code
        return Run(code, *capfd.readouterr())

    return run


@pytest.fixture
def no_figure(monkeypatch):
    """Figures take time: matplotlib counts as not installed."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "reporting.figure", raising=False)
    monkeypatch.delattr(reporting, "figure", raising=False)


@pytest.fixture
def report(run, no_figure, tmp_path):
    """Report on what has been written into tmp_path, or a folder of it."""

    from made_up import Report

    def report(*options: object, folder: str = "") -> Report:
        reported = run("--report", "--save_path", tmp_path / folder, *options)
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
