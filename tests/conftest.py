"""What the tests share: small data sets, and the program run as its command line runs it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import main
import models
from data import DataSet, load
from settings import SYNTHETIC

CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="module")
def narrow_heads():
    """Heads with 32 hidden units in place of 512: the tests of the training need a network, not its size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "NUM_HIDDEN", 32)
        yield


@pytest.fixture(scope="session")
def cifar10() -> DataSet:
    """CIFAR-10's stand-in at 8 x 8 pixels, with half of its images: 320 and 160."""
    spec = replace(SYNTHETIC[0], train_per_class=32, test_per_class=16)
    return load(spec, Path(), 8, CPU)


@pytest.fixture(scope="session")
def cifar100() -> DataSet:
    """CIFAR-100's stand-in at 8 x 8 pixels."""
    return load(SYNTHETIC[1], Path(), 8, CPU)


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
    """Run the program in this process: run("--train", "--setting", 3)."""

    def run(*argv: object) -> Run:
        capfd.readouterr()
        try:
            code = main.main([str(argument) for argument in argv])
        except SystemExit as stop:  # argparse ends the program like this
            code = stop.code
        return Run(code, *capfd.readouterr())

    return run
