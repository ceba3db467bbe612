"""Simulate studies, and measure the intervals of a report over new seeds and new test images.

A study has some configurations, each of some seeds, that are scored on images of some tasks. What decides
whether a run answers an image rightly: how good its configuration is, how hard the image is, and how hard for
this configuration, how good the seed is in all tasks, and chance. These are normal variables, whose sum is
above 0 where the answer is right, so that the true accuracy is known. Studies are arrays; no history is
written. The intervals are those that --report forms.

With --histories, the time and the memory of a report on about as many histories are printed instead.
"""

import argparse
import base64
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from pathlib import Path
from statistics import NormalDist

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from options import make_run
from reporting.estimates import Estimate, Estimates
from reporting.statistics import LEVEL, corrected
from storage.history import History, describe, write_history
from tasks import DATA_SETS

TOP = Path(__file__).resolve().parents[1]

BASE = 0.65
"""Accuracy of a usual configuration."""

EASE, TASTE, CHANCE = 0.55**0.5, 0.15**0.5, 0.3**0.5
"""What decides an answer, standard deviations: the image, the image for a configuration, each run."""

RETEST, RETEST_SEED = 0.3, 0.002
"""What a way of testing adds: to what decides an answer, and to the accuracy of each run."""

NORMAL = NormalDist()
SLOPE = NORMAL.pdf(NORMAL.inv_cdf(BASE))
"""Accuracy for each unit of what decides an answer."""

PAIRS = [*combinations(range(10), 2)][:35] + [(number, 0) for number in range(13, 18)]
"""Forty comparisons of eighteen configurations; the last five may be true."""


@dataclass(frozen=True)
class Design:
    """How a study is made.

    Attributes:
        seeds: of each configuration.
        configurations: number of configurations.
        tasks: number of tasks.
        images: test images of each task, or of all if they share them.
        shared: whether the tasks share their images.
        noise: standard deviation over seeds of the accuracy in all tasks, in points.
        unlike: the largest noise by the smallest, log-uniform over the configurations.
    """

    seeds: int
    configurations: int = 18
    tasks: int = 20
    images: int = 100
    shared: bool = False
    noise: float = 0.6
    unlike: float = 1.0


class Configuration:
    """Runs of a simulated configuration, as the report's estimates take them.

    Attributes:
        seeds: numbers of its seeds.
        tasks: names of the tasks.
        is_complete: true, as no task is missing.
        right: for each task 1 where a seed answers an image rightly, else 0: seeds x images.
    """

    def __init__(self, right: np.ndarray) -> None:
        """Take the answers of all runs: bool, seeds x tasks x images."""
        self.seeds = list(range(len(right)))
        self.tasks = [str(task) for task in range(right.shape[1])]
        self.is_complete = True
        self.right = list(right.astype(np.uint8).transpose(1, 0, 2))
        self._scores = right.mean(axis=2)

    def scores(self, measure: str = "accuracy", seeds: Sequence[int] | None = None) -> np.ndarray:
        """Accuracies: seeds x tasks."""
        return self._scores


class Study:
    """A simulated study.

    Attributes:
        configurations: its configurations.
        truth: the true accuracy of each of them, in every task.
        estimates: forms their intervals.
    """

    def __init__(self, design: Design, random: np.random.Generator, ahead: Sequence[float] = ()) -> None:
        """Sample a study.

        Args:
            design: how it is made.
            random: to draw from.
            ahead: by how much the accuracies of the last configurations are above the others'.
        """
        self._design = design
        shape = (design.seeds, design.tasks, design.images)
        ease = random.standard_normal((1 if design.shared else design.tasks, design.images), np.float32)
        above = np.zeros(design.configurations)
        above[design.configurations - len(ahead) :] = ahead
        self.truth: list[float] = []
        self._levels: list[np.ndarray] = []
        for more in above:
            spread = design.noise / 100 / SLOPE * design.unlike ** random.uniform(-0.5, 0.5)
            good = NORMAL.inv_cdf(BASE + more)
            of_seeds = random.normal(0, spread, (design.seeds, 1, 1)).astype(np.float32)
            taste = random.standard_normal(shape[1:], np.float32)
            chance = random.standard_normal(shape, np.float32)
            self._levels.append(good + of_seeds + EASE * ease + TASTE * taste + CHANCE * chance)
            self.truth.append(NORMAL.cdf(good / (1 + spread**2) ** 0.5))
        self.configurations = [Configuration(levels > 0) for levels in self._levels]
        self.estimates = Estimates(self.configurations, design.shared)

    def tested_twice(self, random: np.random.Generator) -> list[Estimate]:
        """What another way of testing changes in each configuration, run by run; truly nothing."""

        def again(levels: np.ndarray) -> Configuration:
            of_runs = random.normal(0, RETEST_SEED / SLOPE, (len(levels), 1, 1)).astype(np.float32)
            return Configuration(
                levels + of_runs + RETEST * random.standard_normal(levels.shape, np.float32) > 0
            )

        before = {again(levels): again(levels) for levels in self._levels}
        estimates = Estimates([*before], self._design.shared, before)
        return [estimates.mean(each) for each in before]


# What is measured


def covers(found: Estimate, truth: float) -> bool:
    """Whether an interval holds the truth."""
    return found.low <= truth <= found.high


def coverage(design: Design, studies: int, seed: int = 0) -> dict[str, float]:
    """Share of the intervals that hold the truth, by kind."""
    random = np.random.default_rng(seed)
    hits: dict[str, list[bool]] = {"difference": [], "mean": [], "task": [], "delta_m": []}
    for _ in range(studies):
        study = Study(design, random, ahead=[0.05])
        last, first = study.configurations[-1], study.configurations[0]
        above, below = study.truth[-1], study.truth[0]
        gain = 100 * (above - below)
        hits["difference"].append(covers(study.estimates.difference(last, first), gain))
        hits["mean"].append(covers(study.estimates.mean(last), above))
        hits["task"].append(covers(next(study.estimates.tasks(last, first, "accuracy")), gain))
        hits["delta_m"].append(covers(study.estimates.delta_m(last, first, "accuracy"), gain / below))
    return {kind: float(np.mean(each)) for kind, each in hits.items()}


def verdicts(
    design: Design, studies: int, ahead: Sequence[float] = (), seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The differences of PAIRS, and which have a verdict: studies x pairs."""
    random = np.random.default_rng(seed)
    differences, q = [], []
    for _ in range(studies):
        study = Study(design, random, ahead)
        sides = [[study.configurations[number] for number in pair] for pair in PAIRS]
        found = [study.estimates.difference(*pair) for pair in sides]
        differences.append([each.value for each in found])
        q.append(corrected([each.p for each in found]))
    return np.array(differences), np.array(q) <= LEVEL


def any_verdict(design: Design, studies: int) -> float:
    """Share of studies with a verdict where there is nothing to find."""
    return float(verdicts(design, studies)[1].any(axis=1).mean())


def five_true(design: Design, studies: int) -> tuple[float, float]:
    """What is found where five comparisons are true, by five standard errors.

    Returns:
        the share of the five that is found, and the share of a study's verdicts that are false, on average.
    """
    nothing, _ = verdicts(design, studies // 4, seed=1)
    error = float(nothing.std()) / 100  # the true standard error of a difference
    _, found = verdicts(design, studies, ahead=[5 * error] * 5, seed=2)
    false = found[:, :-5].sum(axis=1) / np.maximum(1, found.sum(axis=1))
    return float(found[:, -5:].mean()), float(false.mean())


def width_of_tests(design: Design, studies: int) -> tuple[float, float]:
    """Of the question "test": the intervals' mean width by that with the truth known, and their coverage."""
    random = np.random.default_rng(3)
    found = [Study(design, random).tested_twice(random) for _ in range(studies)]
    values = np.array([[each.value for each in study] for study in found])
    width = np.mean([[each.high - each.low for each in study] for study in found])
    held = np.mean([[covers(each, 0.0) for each in study] for study in found])
    return float(width / (2 * NORMAL.inv_cdf(0.975) * values.std())), float(held)


def cells(seeds: Sequence[int], configurations: Sequence[int]) -> list[Design]:
    """The designs whose coverage is measured."""
    varied = product(seeds, configurations, (10, 20, 50), (100, 500), (False, True), (0.2, 0.6, 2.0))
    return [Design(*values) for values in varied]


def measure(name: str, work: Callable[..., object], designs: Sequence[Design], studies: int) -> None:
    """Measure some designs and print a line for each."""
    print(f"{name}:", flush=True)
    with ProcessPoolExecutor() as executor:
        for design, found in zip(designs, executor.map(partial(work, studies=studies), designs), strict=True):
            said = ", ".join(f"{field} {value}" for field, value in vars(design).items())
            print(f"  {said}: {found}", flush=True)


# A large report


def write_histories(folder: Path, seeds: int) -> None:
    """Write histories with answers: settings 1 to 4 on CIFAR-100."""
    spec, random = DATA_SETS[1], np.random.default_rng(0)
    names = list(spec.tasks)
    for setting, seed in product((1, 2, 3, 4), range(seeds)):
        for task in range(len(names)) if setting == 2 else [None]:
            run = make_run("train", {"setting": setting, "seed": seed, "task": task, "epochs": 10})
            tasks = names if task is None else [names[task]]
            answers = [random.random((len(tasks), 500)) < 0.6 for _ in range(2)]
            scores = [
                {
                    "accuracy": (accuracy := each.mean(axis=1).tolist()),
                    "balanced_accuracy": accuracy,
                    "right": [base64.b64encode(np.packbits(row).tobytes()).decode() for row in each],
                }
                for each in answers
            ]
            epoch = {name: scores[0][name] for name in ("accuracy", "balanced_accuracy")}
            epoch |= {"loss": 1.0, "task_loss": [1.0] * len(tasks), "steps": 19 * len(tasks)}
            path = folder / f"{setting}-{seed}-{task}"
            path.mkdir(parents=True)
            write_history(
                path / "history.json",
                History(
                    options=run.recorded,
                    data_set=describe(spec),
                    sessions=[{"epoch": 0, "step": 0, "environment": {}, "code": "made up"}],
                    tasks=tasks,
                    constant_accuracy=[0.2] * len(tasks),
                    num_answers=[5] * len(tasks),
                    parameters={"encoder": 276_000, "heads": 4_200_000},
                    epochs=[epoch | {"epoch": number} for number in range(1, 11)],
                    finished=True,
                    right=scores[0]["right"],
                    as_trained=scores[1],
                ),
            )


def measure_time(histories: int) -> None:
    """Print the time and memory of a report on one large study."""
    with tempfile.TemporaryDirectory() as folder:
        write_histories(Path(folder), max(1, round(histories / 23)))
        start = time.perf_counter()
        command = [sys.executable, str(TOP / "main.py"), "--report", "--save_path", folder]
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        found = len(list(Path(folder).glob("*/history.json")))
        print(f"{found} histories: {seconds:.1f} s, {peak:.2f} GB")


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, that of the process if none is given, and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["verdicts", "test", "coverage"], help="measure this alone")
    parser.add_argument("--studies", type=int, default=2000, help="simulated studies of a design (2000)")
    parser.add_argument(
        "--configurations", type=int, nargs="+", default=[2, 4, 8], help="for coverage (2 4 8)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 5, 10], help="(2 3 5 10)")
    parser.add_argument("--histories", type=int, help="measure a report on this many instead")
    args = parser.parse_args(argv)
    if args.histories:
        measure_time(args.histories)
        return
    studies, seeds = args.studies, args.seeds
    usual = [Design(each, shared=shared) for each in seeds for shared in (False, True)]
    if args.only in (None, "verdicts"):
        measure("a verdict with nothing to find", any_verdict, usual, studies)
        unlike = [Design(each, unlike=3.0) for each in seeds]
        measure("the same, with noise that differs by a factor of 3", any_verdict, unlike, studies)
        measure("five of 40 true: found, false", five_true, usual, studies)
    if args.only in (None, "test"):
        measure('question "test": width, coverage', width_of_tests, usual, studies // 10)
    if args.only in (None, "coverage"):
        measure("coverage", coverage, cells(seeds, args.configurations), studies)


if __name__ == "__main__":
    main()
