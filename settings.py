"""The settings, networks, losses, optimizers and schedules, as tables.

Nothing here imports torch, so that the help and refusals come at once. Where an entry stands for a class, it
has the name of that class.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from errors import UserError

VERSION = "3.0.0.dev0"
"""Version of the program, written into every file that it makes."""


@dataclass(frozen=True)
class Setting:
    """How a model is trained and scored.

    Attributes:
        name: short name.
        words: what it does, for the help.
        kind: kind of model; settings of the same kind can evaluate each other's models.
        agent: name of its class in agents.py.
        samples_tasks: whether each step samples the tasks that it trains.
        weighted: whether its tasks have weights; otherwise they all weigh the same.
        single_score: whether its result is one number, and not a list with one per task.
        shared_inputs: whether every task must have every image.
    """

    name: str
    words: str
    kind: str
    agent: str
    samples_tasks: bool = False
    weighted: bool = False
    shared_inputs: bool = False
    single_score: bool = False


SETTINGS = (
    Setting("standard", "one classifier over all classes", "standard", "StandardAgent", single_score=True),
    Setting(
        "standard by task",
        "one classifier over all classes, scored on each task's classes",
        "standard",
        "StandardByTaskAgent",
    ),
    Setting(
        "single task",
        "a network of its own for each task (--task)",
        "single-task",
        "SingleTaskAgent",
        single_score=True,
    ),
    Setting(
        "uniform sampling",
        "a head per task, a step samples one (or --tasks_per_step), all equally likely",
        "multi-task",
        "TaskSamplingAgent",
        samples_tasks=True,
    ),
    Setting(
        "weighted sampling",
        "a head per task, a step samples one (or --tasks_per_step), by weights",
        "multi-task",
        "TaskSamplingAgent",
        samples_tasks=True,
        weighted=True,
    ),
    Setting(
        "summed losses",
        "a head per task, a step takes all and the mean of their losses (or --loss)",
        "multi-task",
        "SummedLossAgent",
        shared_inputs=True,
    ),
    Setting(
        "weighted losses",
        "a head per task, a step takes all and a weighted mean of their losses",
        "multi-task",
        "SummedLossAgent",
        weighted=True,
        shared_inputs=True,
    ),
)


@dataclass(frozen=True)
class Part:
    """An encoder or a head.

    Attributes:
        words: what it is, for the help.
        name: name of its class in models.py.
    """

    words: str
    name: str


ENCODERS = {
    "cnn": Part("five convolutions, pooled to 8 x 8", "Encoder"),
    "cnn_fc": Part("the same and a linear layer to 512 features, which the tasks then share", "DenseEncoder"),
    "resnet18": Part("ResNet-18 for small images (He et al. 2016)", "ResNet18"),
}
"""What --encoder can be, by name."""

HEADS = {
    "hidden": Part("a linear layer to 512, normalised, and one to the classes", "Head"),
    "linear": Part("a linear layer to the classes", "LinearHead"),
}
"""What --head can be, by name."""

NORMALISATIONS = {
    "together": "batch normalisation over the whole batch",
    "apart": "batch normalisation over each sampled task's images, in an encoder pass of their own",
    "group": "group normalisation, of each image by itself (Wu and He 2018)",
}
"""What --normalisation can be, by name."""


@dataclass(frozen=True)
class Loss:
    """How the losses of a step are combined.

    Attributes:
        words: what it does, for the help.
        combiner: name of its class in losses.py.
        arguments: arguments of the class, besides the number of heads and the parameters.
        parameters: its hyperparameters with their defaults, by name; all are positive numbers.
        aggregates: whether it combines the gradients of the tasks, each from its own backward pass.
        packages: packages that it needs besides those of requirements.txt.
    """

    words: str
    combiner: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, float] = field(default_factory=dict)
    aggregates: bool = False
    packages: tuple[str, ...] = ()


def _scalarization(
    words: str,
    combiner: str,
    method: str,
    scale: Callable[..., float] = lambda *_, **__: 1.0,
    **parameters: float,
) -> Loss:
    """One of TorchJD's functions of the losses."""
    arguments = {"method": method, "scale": scale}
    return Loss(words, combiner, arguments, parameters, packages=("torchjd",))


def _aggregation(
    words: str,
    combiner: str,
    method: str,
    *solvers: str,
    scale: Callable[..., float] = lambda *_, **__: 1.0,
    **parameters: float,
) -> Loss:
    """One of TorchJD's functions of the gradients.

    `solvers` are the packages that it needs besides TorchJD.
    """
    arguments, packages = {"method": method, "scale": scale}, ("torchjd", *solvers)
    return Loss(words, combiner, arguments, parameters, aggregates=True, packages=packages)


LOSSES = {
    "mean": Loss("the mean of the tasks' losses", "Combiner"),
    "uw": _scalarization(
        "uncertainty weighting: a learnt weight for each task (Kendall et al. 2018)",
        "LearntScalarization", "UW", scale=lambda num_tasks: 2 / num_tasks,
    ),
    "dwa": _scalarization(
        "dynamic weight average: by how each loss falls from epoch to epoch (Liu et al. 2019)",
        "Dwa", "DWA", scale=lambda num_tasks, **_: 1 / num_tasks, temperature=2.0,
    ),
    "geometric_mean": _scalarization(
        "the geometric mean of the losses (Chennupati et al. 2019)", "Scalarization", "GeometricMean"
    ),
    "random": _scalarization(
        "random weights, others for each step (Lin et al. 2022)", "Scalarization", "Random"
    ),
    "imtl_l": _scalarization(
        "impartial learning by losses: a learnt weight for each task (Liu et al. 2021)",
        "LearntScalarization", "IMTLL", scale=lambda num_tasks: 1 / num_tasks,
    ),
    "famo": _scalarization(
        "fast adaptive optimisation: by how much each step lowers each loss (Liu et al. 2023)",
        "Famo", "FAMO", lr=0.025, weight_decay=0.001,
    ),
    "stch": _scalarization(
        "smooth Tchebycheff: close to the largest loss (Lin et al. 2024)",
        "Scalarization", "STCH", scale=lambda num_tasks, **_: num_tasks, mu=0.01,
    ),
    "mgda": _aggregation(
        "the shortest convex combination of the gradients (Desideri 2012; Sener and Koltun 2018)",
        "Aggregation", "MGDA", epsilon=0.001,
    ),
    "pcgrad": _aggregation(
        "each gradient without what opposes another (Yu et al. 2020)",
        "Aggregation", "PCGrad", scale=lambda num_tasks: 1 / num_tasks,
    ),
    "gradvac": _aggregation(
        "each gradient turned to agree with the others as usual (Wang et al. 2021)",
        "GradVac", "GradVac", scale=lambda num_tasks, **_: 1 / num_tasks, beta=0.5,
    ),
    "graddrop": _aggregation(
        "one sign for each coordinate, sampled by how many agree (Chen et al. 2020)",
        "Aggregation", "GradDrop", scale=lambda num_tasks: 1 / num_tasks,
    ),
    "cagrad": _aggregation(
        "close to the mean, but best for the task that gains least (Liu et al. 2021)",
        "Aggregation", "CAGrad", "cvxpy", "clarabel", scale=lambda _, c: 1 / (1 + c), c=0.5,
    ),
    "imtl_g": _aggregation(
        "impartial learning by gradients: equal projections on all (Liu et al. 2021)",
        "Aggregation", "IMTLG",
    ),
    "aligned_mtl": _aggregation(
        "gradients made orthogonal and equally long (Senushkin et al. 2023)", "Aggregation", "AlignedMTL"
    ),
    "fairgrad": _aggregation(
        "gains that are alpha-fair (Ban and Ji 2024)", "Aggregation", "FairGrad", "scipy", alpha=2.0
    ),
    "nash_mtl": _aggregation(
        "gains that are Nash's bargain (Navon et al. 2022)", "NashMtl", "NashMTL", "cvxpy", "ecos",
        max_norm=1.0,
    ),
    "upgrad": _aggregation(
        "each gradient projected to where it opposes none (Quinton and Rey 2024)",
        "Aggregation", "UPGrad", "qpsolvers", "quadprog",
    ),
    "config": _aggregation(
        "equal cosines to all gradients (Liu et al. 2024)",
        "Aggregation", "ConFIG", scale=lambda num_tasks: 1 / num_tasks,
    ),
}  # fmt: skip
"""What --loss can be, by name. docs/losses.md says where each constant comes from."""


def split_loss(text: str) -> tuple[str, dict[str, float]]:
    """Split NAME:PARAMETER=VALUE,... into the name and all parameters.

    Parameters that the text leaves out have their defaults.

    Raises:
        ValueError: there is no such loss, it has no such parameter, or a value is not a positive number.
    """
    name, colon, rest = text.partition(":")
    if name not in LOSSES:
        raise ValueError(f"{name!r} is none of {', '.join(LOSSES)}")
    parameters = dict(LOSSES[name].parameters)
    for assignment in rest.split(",") if colon else []:
        parameter, _, value = assignment.partition("=")
        if parameter not in parameters:
            has = f"its parameters are {', '.join(parameters)}" if parameters else "it has no parameters"
            raise ValueError(f"{name} has no parameter {parameter!r}: {has}")
        try:
            parameters[parameter] = float(value)
        except ValueError:
            parameters[parameter] = math.nan
        if not 0 < parameters[parameter] < math.inf:
            raise ValueError(f"{parameter} of {name} is {value!r}, not a positive number")
    return name, parameters


def join_loss(name: str, parameters: Mapping[str, float]) -> str:
    """The text of which `split_loss` makes a name and parameters."""
    return name + ":" * bool(parameters) + ",".join(f"{each}={value!r}" for each, value in parameters.items())


TORCHJD = "0.18"
"""The version of TorchJD that has these methods."""

PRECISIONS = ("fp32", "bf16")
"""Number formats that the network computes in; its weights are fp32 in any case."""


@dataclass(frozen=True)
class Optimizer:
    """An optimizer.

    Attributes:
        words: what it is, for the help.
        lr: default learning rate.
    """

    words: str
    lr: float


OPTIMIZERS = {
    "sgd": Optimizer("stochastic gradient descent", 0.1),
    "adamw": Optimizer("Adam with decoupled weight decay (Loshchilov and Hutter 2019)", 0.001),
}
"""What --optimizer can be, by name."""


@dataclass(frozen=True)
class Schedule:
    """A learning rate schedule.

    Attributes:
        words: what it does, for the help.
        rate: lr multiplier, as a function of training progress from 0 to 1.
        needs_total: whether `rate` depends on progress, so that a run cannot be resumed for more epochs.
    """

    words: str
    rate: Callable[[float], float]
    needs_total: bool


SCHEDULES = {
    "constant": Schedule("--lr all along", lambda _: 1.0, needs_total=False),
    "cosine": Schedule(
        "from --lr to 0 over all steps of the run, along half a cosine",
        lambda progress: (1 + math.cos(math.pi * progress)) / 2,
        needs_total=True,
    ),
}
"""What --schedule can be, by name."""


def look_up(namespace: Mapping[str, Any], name: str, file: str, table: str) -> Any:
    """Look up the class or function that an entry names.

    Args:
        namespace: globals of the module that has to have it.
        name: name of the class or function.
        file: file of that module, for the error.
        table: the table that has the entry, for the error.

    Raises:
        UserError: there is none of that name.
    """
    if name not in namespace:
        raise UserError(f"{table} names {name!r}, and {file} has nothing of that name: add it there")
    return namespace[name]
