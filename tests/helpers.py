"""Helpers of several tests: agents, command lines, data, slow versions."""

import itertools
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from agents import Agent, make_agent
from data import DataSet
from models import Dimensions, Model
from options import make_run
from running.provenance import code_fingerprint


class SmallEncoder(nn.Module):
    """An encoder as the program's, of two layers and with a coarser pooling: 64 features."""

    num_features = 64

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        layers, in_channels = [], dimensions.channels
        for out_channels in (8, 16):
            convolution = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1)
            layers += [convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
            in_channels = out_channels
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features, N x 64."""
        return F.adaptive_avg_pool2d(self.layers(images), 2).flatten(1)


NUM_HIDDEN = 32
NARROW = partial(Model, encoder=SmallEncoder, num_hidden=NUM_HIDDEN)
"""A small network: most tests need a network, not its size."""

SMALL = ("--synthetic", "--image_size", 8)

UNSCORED = ("--normalisation", "group")
"""Spares a run of many tasks its scores as trained, which take longer than it; other tests look at them."""

TOP = Path(__file__).parents[1]

# Children come from a server that has loaded torch and the program but never computed, so that they start at
# once and can be killed like any process.
code_fingerprint(NARROW)  # parses the program once, so that the children need not
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        *("helpers", "disturbed", "main", "running.session", "torchvision"),
        *("torch._dynamo", "torch._functorch.aot_autograd"),
    ]
)


class Child(PROCESSES.Process):
    """A process whose server finds the modules to load, of which Python 3.11 does not tell it the place."""

    def start(self) -> None:
        """Start it, and the server before it if it is the first."""
        with mock.patch.dict(os.environ, {"PYTHONPATH": f"{TOP / 'tests'}{os.pathsep}{TOP}"}):
            super().start()


PROCESSES.Process = Child


def make(setting: int, data: DataSet, network: Callable = NARROW, **options) -> Agent:
    """An agent with batches of 32, if nothing else is said."""
    run = make_run("train", {"setting": setting, "batch_size": 32, **options}, spec=data.spec)
    return make_agent(data, run, network)


def train_epochs(agent: Agent, count: int) -> list[float]:
    """Train some epochs more; gives back the loss of each."""
    return [epoch["loss"] for epoch in agent.train(len(agent.epochs) + count)]


def assert_descended(agent: Agent, before, rate: float) -> None:
    """Make sure that the agent's weights are those of `before`, a step against its gradients on."""
    for got, was in zip(agent.model.parameters(), before.parameters(), strict=True):
        step = 0 if was.grad is None else rate * was.grad
        torch.testing.assert_close(got, was - step, rtol=1e-3, atol=1e-5)


def one_line(refused) -> bool:
    """Whether a run has said one line and no more."""
    return refused.out == "" and refused.err.count("\n") == 1 and "Traceback" not in refused.err


def error_line(refused) -> str:
    """The one line of a refusal with exit code 1."""
    assert refused.code == 1
    assert "Traceback" not in refused.err
    assert "Accuracy" not in refused.out
    assert refused.err.splitlines()[-1].startswith("main.py: error: ")
    return refused.err.splitlines()[-1]


def result_of(path: Path) -> tuple[bytes, dict]:
    """The weights and the history that a run has left, without times, sessions and what decides no result."""
    network = torch.load(path / "model.pt", weights_only=True)["model"]
    history = json.loads((path / "history.json").read_text())
    del history["sessions"], history["options"]
    for epoch in history["epochs"]:
        del epoch["seconds"], epoch["images_per_second"], epoch["evaluation_seconds"]
    return b"".join(tensor.numpy().tobytes() for tensor in network.values()), history


def copy_program(copy: Path) -> Path:
    """Copy the program, and what Python has compiled of it, which saves time."""
    rooms = [TOP, *(TOP / name for name in ("running", "reporting", "storage", "studies"))]
    for room, kind in itertools.product(rooms, ("*.py", "*.sh", "*.txt", "__pycache__/*.pyc")):
        for path in room.glob(kind):
            target = copy / path.relative_to(TOP)
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # a temporary file of another process
                shutil.copy2(path, target)
    return copy


def _run_in_copy(copy: Path, code: str, output: Path) -> None:
    """Forget the modules of the program and run some code on those of a copy."""
    rooms = (TOP, TOP / "running", TOP / "reporting", TOP / "storage")
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").parent in rooms:
            del sys.modules[name]
    sys.path[:] = [str(copy), *(path for path in sys.path if path and Path(path).resolve() != TOP)]
    os.chdir(copy)
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    exec(compile(code, "code", "exec"), {"__name__": "code"})


def run_in_copy(copy: Path, code: str) -> list[str]:
    """Run some code in a process of its own, on a copy of the program; gives back the lines it prints."""
    output = copy / "output"
    process = PROCESSES.Process(target=_run_in_copy, args=(copy, code, output))
    process.start()
    process.join()
    printed = output.read_text()
    assert process.exitcode == 0, printed
    return printed.splitlines()


def write_labels(path: Path, train: np.ndarray, test: np.ndarray, **arrays: object) -> Path:
    """Write a small data set of the user's own whose images have a row of labels, one per task.

    Args:
        path: the file.
        train: labels of the training images, N x T; the images are random.
        test: those of the test images.
        arrays: more of them, or other ones.
    """
    random = np.random.RandomState(0)
    content = {"train_labels": np.array(train), "test_labels": np.array(test)}
    for split in ("train", "test"):
        shape = (len(content[f"{split}_labels"]), 8, 8, 3)
        content[f"{split}_images"] = random.randint(0, 256, shape).astype(np.uint8)
    np.savez(path, **content | arrays)
    return path


def write_data(path: Path, counts: Sequence[int], size: int = 4, channels: int = 3, **arrays: object) -> Path:
    """Write a small data set of the user's own: a class is an average colour.

    Args:
        counts: number of training images of each class; half as many test it.
        arrays: more of them, or other ones.
    """
    random = np.random.RandomState(0)
    content = {}
    for split, share in (("train", 1), ("test", 0.5)):
        labels = np.repeat(np.arange(len(counts)), [max(1, int(share * count)) for count in counts])
        shades = np.linspace(40, 215, len(counts))[labels]
        noise = random.uniform(-40, 40, (len(labels), size, size, channels))
        content[f"{split}_labels"] = labels
        content[f"{split}_images"] = (shades[:, None, None, None] + noise).astype(np.uint8)
    np.savez(path, **content | arrays)
    return path
