"""Fixtures: small data sets, and runs of the program.

The program is run as its command line runs it. Each process has one thread.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch comes: tests run side by side, and so do their processes

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import NARROW
from made_up import Report

import main
import reporting
from data import DataSet, load
from tasks import DATA_SETS

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def cifar10() -> DataSet:
    """CIFAR-10's stand-in at 8 x 8 pixels, with half of its images: 320 and 160."""
    spec = replace(DATA_SETS[0].stand_in, train_counts=(32,) * 10, test_counts=(16,) * 10)
    return load(spec, Path(), 8, CPU)


@pytest.fixture(scope="session")
def cifar100() -> DataSet:
    """CIFAR-100's stand-in at 8 x 8 pixels."""
    return load(DATA_SETS[1].stand_in, Path(), 8, CPU)


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
