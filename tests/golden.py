"""Results of the program in numbers, recorded in golden.json.

They are computed here and compared by test_golden.py.

python tests/golden.py records what has no entry yet, and everything if RESULTS has gone up: for a change that
is meant to change results.
"""

import hashlib
import json
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from helpers import NUM_HIDDEN, PROCESSES, make, write_data
from PIL import Image
from torch import Tensor

from agents import Agent
from data import DataSet, Split, hold_out, load, measured, omniglot, resize
from models import Encoder, Model, computing_in
from options import OPTIONS, make_run
from own_data import read_spec
from running.released import RESULTS
from settings import LOSSES
from tasks import DATA_SETS, DataSpec

RECORD = Path(__file__).with_name("golden.json")

TOLERANCE = {"fp32": 1e-3, "bf16": 0.03}
"""By how much losses may differ between processors, in each precision."""

ACCURACY_TOLERANCE = 0.05
"""By how much accuracies may: by two or three images."""

STEPS = 4
"""Of the last epoch, mostly the only one, of every run: rounding has not grown yet."""

DECIDING = [option.name for option in OPTIONS if option.decides != "nothing" and option.name != "note"]
"""The options that decide a result; a note only says why."""

CPU = torch.device("cpu")


class AveragingEncoder(Encoder):
    """The encoder, but averaging its maps whole: 128 features, and none of the work of pooling to 8 x 8."""

    num_features = 128

    def forward(self, images: Tensor) -> Tensor:
        """Features, N x 128."""
        return self.layers(images).mean(dim=(2, 3))


AVERAGING = partial(Model, encoder=AveragingEncoder, num_hidden=NUM_HIDDEN)
"""The network of the recorded runs, unless they say another."""


# The runs


RUNS = {
    **{f"setting {setting}": {"setting": setting} for setting in (0, 1, 3, 4, 5, 6)},
    "setting 2": {"setting": 2, "task": 0},
    "setting 2, task": {"setting": 2, "task": 2},
    "setting 0, the network as defined": {"setting": 0, "network": Model},
    "setting 3, the network as defined": {"setting": 3, "network": Model},
    **{f"setting 0, data {data}": {"setting": 0, "data": data} for data in (0, 1, 2)},
    **{f"setting 3, data {data}": {"setting": 3, "data": data} for data in (0, 1, 2)},
    "setting 5, data 0": {"setting": 5, "data": 0},
    "setting 0, seed": {"setting": 0, "seed": 1},
    "setting 4, weights": {"setting": 4, "weights": (5.0, 1.0, 1.0)},
    "setting 6, weights": {"setting": 6, "weights": (9.0, 1.0, 1.0)},
    **{f"setting 5, loss {name}": {"setting": 5, "loss": name} for name in LOSSES if name != "mean"},
    "setting 0, epochs": {"setting": 0, "epochs": 2, "schedule": "cosine"},
    "setting 0, batch_size": {"setting": 0, "batch_size": 16},
    "setting 3, tasks_per_step": {"setting": 3, "tasks_per_step": 4},
    "setting 4, tasks_per_step": {"setting": 4, "tasks_per_step": 4},
    "setting 3, normalisation": {"setting": 3, "tasks_per_step": 4, "normalisation": "apart"},
    "setting 0, normalisation": {"setting": 0, "normalisation": "group"},
    "setting 3, all tasks": {"setting": 3, "tasks_per_step": "all", "batch_size": 30},
    "setting 3, all tasks, loss": {
        "setting": 3, "tasks_per_step": "all", "batch_size": 30, "loss": "stch:mu=0.1",
        "normalisation": "apart",
    },
    "setting 0, optimizer": {"setting": 0, "optimizer": "adamw"},
    "setting 0, augment": {"setting": 0, "augment": True},
    "setting 0, encoder": {"setting": 0, "network": None, "encoder": "cnn_fc"},
    "setting 0, encoder resnet18": {"setting": 0, "network": None, "encoder": "resnet18"},
    "setting 0, head": {"setting": 0, "network": None, "head": "linear"},
    "setting 0, lr": {"setting": 0, "lr": 0.3},
    "setting 0, momentum": {"setting": 0, "momentum": 0.9},
    "setting 0, weight_decay": {"setting": 0, "weight_decay": 0.3},
    "setting 0, schedule": {"setting": 0, "schedule": "cosine"},
    "setting 0, precision": {"setting": 0, "precision": "bf16"},
    "setting 0, image_size": {"setting": 0, "image_size": 6},
    "setting 0, validation": {"setting": 0, "validation": 0.25},
}  # fmt: skip
"""Small runs by name: every setting, every kind of data set, and every option that decides a result."""

PAIRS = {
    "setting": ("setting 0", "setting 3"),
    "data": ("setting 0", "setting 0, data 0"),
    "synthetic": ("setting 0", "setting 0, data 0"),
    "task": ("setting 2", "setting 2, task"),
    "weights": ("setting 4", "setting 4, weights"),
    "loss": ("setting 5", "setting 5, loss stch"),
    "epochs": ("setting 0, schedule", "setting 0, epochs"),
    "tasks_per_step": ("setting 3", "setting 3, tasks_per_step"),
    "normalisation": ("setting 3, tasks_per_step", "setting 3, normalisation"),
    "encoder": ("setting 0, the network as defined", "setting 0, encoder"),
    "head": ("setting 0, the network as defined", "setting 0, head"),
    **{
        name: ("setting 0", f"setting 0, {name}")
        for name in ("seed", "batch_size", "lr", "momentum", "weight_decay", "schedule", "precision")
        + ("image_size", "validation", "optimizer", "augment")
    },
}
"""For every option that decides a result, a run without it and one with it, else the same."""


@cache
def data_of(number: int | None, image_size: int, validation: float) -> DataSet:
    """A stand-in with few images, or without a number a small file of three classes of different sizes."""
    with TemporaryDirectory() as folder:
        if number is None:
            spec = read_spec(write_data(Path(folder) / "own.npz", [48, 32, 48], size=8))
        else:
            each = 16 if number == 0 else 8
            counts = {"train_counts": (each,) * DATA_SETS[number].stand_in.num_classes}
            counts |= {"test_counts": (4,) * DATA_SETS[number].stand_in.num_classes}
            spec = replace(DATA_SETS[number].stand_in, **counts)
        return load(replace(spec, validation=validation), Path(folder), image_size, CPU)


def trained(setting: int, data: int | None = None, network: object = AVERAGING, **options: object) -> Agent:
    """An agent after a few steps of the last of its epochs."""
    loaded = data_of(data, options.get("image_size", 8), options.pop("validation", 0.0))
    agent = make(setting, loaded, network, **{"batch_size": 32, "epochs": 1} | options)
    for _ in agent.train(agent.run.epochs - 1):
        pass
    agent.train_steps(min(STEPS, agent.plan.steps_per_epoch))
    return agent


def run_record(name: str) -> dict[str, object]:
    """The losses of each step of a run, the accuracies after them, and what the features are made of."""
    agent = trained(**RUNS[name])
    scores = agent.evaluate()
    earlier = [epoch["loss"] for epoch in agent.epochs]
    with computing_in(agent.run.precision, CPU):
        features = agent.model.encoder(agent.data.train.batch(torch.arange(2))[0])
    return {
        "losses": [*earlier, *agent.losses[: agent.step].tolist()],
        "accuracy": [*scores.accuracy, *scores.balanced_accuracy],
        "features": str(features.dtype),
    }


# The data sets


def checksum(*tensors: Tensor) -> str:
    """Of the content, shapes and types of tensors."""
    described = [
        (tensor.dtype, tuple(tensor.shape), tensor.contiguous().numpy().tobytes()) for tensor in tensors
    ]
    return hashlib.sha256(repr(described).encode()).hexdigest()[:16]


def of_data(data: DataSet) -> str:
    """Checksum of the images and labels of a data set."""
    return checksum(data.train.images, data.train.labels, data.test.images, data.test.labels, data.tasks)


@contextmanager
def unpublished() -> Iterator[None]:
    """Let torchvision take files that are made here for the published ones."""
    from torchvision.datasets import cifar
    from torchvision.datasets import omniglot as drawings

    taken = {"check_integrity": mock.DEFAULT}
    with mock.patch.multiple(cifar, **taken), mock.patch.multiple(drawings, **taken):
        yield


def write_pickle(path: Path, content: dict) -> None:
    """A file of CIFAR."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))


def read_tiny_files(folder: Path) -> dict[str, str]:
    """Checksums of what each reader makes of tiny files, laid out as published."""
    random = np.random.RandomState(0)
    batches = folder / "cifar-10-batches-py"
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        images = random.randint(0, 256, (10, 3072)).astype(np.uint8)
        write_pickle(batches / name, {"data": images, "labels": [*range(10)]})
    write_pickle(batches / "batches.meta", {"label_names": []})
    coarse = {
        fine: task
        for task, row in enumerate(DATA_SETS[1].tasks.values())
        for fine in range(100)
        if row[fine] >= 0
    }
    for name in ("train", "test"):
        images = random.randint(0, 256, (100, 3072)).astype(np.uint8)
        labels = {"fine_labels": [*range(100)], "coarse_labels": [coarse[fine] for fine in range(100)]}
        write_pickle(folder / "cifar-100-python" / name, {"data": images, **labels})
    write_pickle(folder / "cifar-100-python" / "meta", {"fine_label_names": [], "coarse_label_names": []})
    parts = {"images_background": {"A": 1}, "images_evaluation": {"B": 2}}
    for part, alphabets in parts.items():
        for alphabet, size in alphabets.items():
            for character in range(size):
                place = folder / "omniglot-py" / part / alphabet / f"character{character}"
                place.mkdir(parents=True)
                for drawing in range(20):
                    pixels = random.randint(0, 2, (105, 105)).astype(bool)
                    Image.fromarray(pixels).save(place / f"{drawing:02}.png")
    made = {}
    with unpublished():
        for spec in DATA_SETS[:2]:
            counts = (5 if spec is DATA_SETS[0] else 1,) * spec.num_classes
            tiny = replace(spec, train_counts=counts, test_counts=(1,) * spec.num_classes)
            made[spec.name] = of_data(load(tiny, folder, 32, CPU))
        made["Omniglot"] = checksum(*(tensor for split in omniglot(folder, parts) for tensor in split))
    own = write_data(folder / "own.npz", [24, 16, 24], size=8)
    made["own"] = of_data(load(read_spec(own), folder, 8, CPU))
    return made


def entry(spec: DataSpec) -> str:
    """Checksum of what the tables say of a data set."""
    said = (spec.tasks, spec.train_counts, spec.test_counts, spec.channels, spec.default_image_size)
    return hashlib.sha256(repr((said, spec.mean, spec.std)).encode()).hexdigest()[:16]


def normalised(spec: DataSpec) -> list[float]:
    """A black and a white pixel of a published data set as the network gets them, per channel."""
    levels = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, spec.channels, 1, 1)
    split = Split(levels, torch.zeros(2, dtype=torch.int64), spec)
    return split.batch(torch.tensor([0, 1]))[0].flatten().tolist()


def data_record() -> dict[str, object]:
    """Checksums of all that is made of the data sets, and how pixels are normalised."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 21, 21), dtype=torch.uint8, generator=random)
    labels = torch.arange(30) % 3
    held_out = hold_out((torch.arange(30)[:, None, None, None], labels), (3, 2, 1))
    with TemporaryDirectory() as folder:
        made = {f"reader {name}": value for name, value in read_tiny_files(Path(folder)).items()}
    for spec in (spec.stand_in for spec in DATA_SETS):
        made[f"entry of the stand-in for {spec.name}"] = entry(spec)
        few = {"train_counts": (2,) * spec.num_classes, "test_counts": (1,) * spec.num_classes}
        made[f"stand-in for {spec.name}"] = of_data(load(replace(spec, **few), Path(), 32, CPU))
    for spec in DATA_SETS:
        made[f"entry of {spec.name}"] = entry(spec)
    return made | {
        "resized by whole numbers": checksum(resize(images[:, :, :16, :16], 8)),
        "held out": held_out[1][0].flatten().tolist(),
        "normalised": {spec.name: normalised(spec) for spec in DATA_SETS},
        "resized": resize(images, 8).double().mean(dim=(0, 2, 3)).tolist(),
        "measured": [value for values in measured(images) for value in values],
    }


# Defaults and switches


USUAL = make_run("train", {}).values
"""The values on which some defaults depend."""


def defaults() -> dict[str, object]:
    """The default of every option that decides, for each data set."""
    options = {option.name: option for option in OPTIONS}
    return {name: [options[name].default_for(spec, USUAL) for spec in DATA_SETS] for name in DECIDING}


def optimizer() -> dict[str, object]:
    """What the optimiser is made with, but for its parameters and how it is computed."""
    agent = trained(0, momentum=0.9, weight_decay=0.3)
    beside = ("params", "foreach", "fused", "differentiable")
    (group,) = agent.state()["optimizer"]["param_groups"]
    return {name: value for name, value in group.items() if name not in beside}


def _read_switches(pipe) -> None:
    from main import main

    argv = ["--train", "--setting", "0", "--data", "0", "--synthetic", "--image_size", "4", "--epochs", "1"]
    assert main(argv, network=AVERAGING) == 0
    pipe.send(
        {
            "cudnn.deterministic": torch.backends.cudnn.deterministic,
            "cudnn.benchmark": torch.backends.cudnn.benchmark,
            "cudnn.allow_tf32": torch.backends.cudnn.allow_tf32,
            "cuda.matmul.allow_tf32": torch.backends.cuda.matmul.allow_tf32,
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "fp16 reductions": torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction,
            "bf16 reductions": torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
            "default dtype": str(torch.get_default_dtype()),
        }
    )


def switches() -> dict[str, object]:
    """How numbers are computed on a GPU, read after a training in a process of its own."""
    receiver, sender = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_read_switches, args=(sender,))
    process.start()
    sender.close()
    found = receiver.recv()
    process.join()
    return found


PARTS = {"data": data_record, "defaults": defaults, "optimizer": optimizer, "switches": switches}
"""What is recorded beside the runs."""


if __name__ == "__main__":
    record = json.loads(RECORD.read_text())
    kept = record if record["results"] == RESULTS else {}
    made = {name: part() | kept.get(name, {}) for name, part in PARTS.items()}
    runs = kept.get("runs", {})
    made["runs"] = {name: runs[name] if name in runs else run_record(name) for name in RUNS}
    RECORD.write_text(json.dumps({"results": RESULTS} | made, indent=1) + "\n")
