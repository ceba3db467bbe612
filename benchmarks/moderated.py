"""Simulate studies, and measure the intervals over new seeds and new test images.

A study has some configurations, each of some seeds, that are scored on images of some tasks. What decides
whether a run answers an image rightly: how good its configuration is, how hard the image is, and how hard for
this configuration, how good the seed is in all tasks, and chance. These are normal variables, whose sum is
above 0 where the answer is right, so that the true accuracy is known. Studies are arrays; no history is
written.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from pathlib import Path
from statistics import NormalDist

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from reporting.statistics import Images, Interval, Pool, corrected, interval, pool

BASE = 0.65
"""Accuracy of a usual configuration."""

EASE, TASTE, CHANCE = 0.55**0.5, 0.15**0.5, 0.3**0.5
"""What decides an answer, standard deviations: the image, the image for a configuration, each run."""

RETEST, RETEST_SEED = 0.3, 0.002
"""What a way of testing adds: to what decides an answer, and to the accuracy of each run."""

NORMAL = NormalDist()
SLOPE = NORMAL.pdf(NORMAL.inv_cdf(BASE))
"""Accuracy for each unit of what decides an answer."""

VERDICT = 0.05
"""A comparison has a verdict if its corrected p value is at most this."""

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


class Study:
    """A simulated study.

    Attributes:
        design: how it is made.
        right: for each configuration 1 where a run answers an image rightly, else 0: seeds x tasks x images.
        values: for each configuration the mean accuracy of each seed.
        truth: the true mean accuracy of each configuration.
    """

    def __init__(self, design: Design, random: np.random.Generator, ahead: Sequence[float] = ()) -> None:
        """
        Args:
            design: how it is made.
            random: to draw from.
            ahead: by how much the accuracies of the last configurations are above the others'.
        """
        self.design = design
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
        self.right = [(levels > 0).astype(np.float32) for levels in self._levels]
        self.values = [right.mean(axis=(1, 2)) for right in self.right]
        self.images = Images((design.images,) * design.tasks, design.shared)

    def difference(self, first: int, second: int, common: Pool) -> Interval:
        """The difference between the mean accuracies of two configurations."""
        images = self.images.part(*(weighted(self.right[number]) for number in (first, second)))
        seeds = [common.seeds_part(self.values[number]) for number in (first, second)]
        value = float(self.values[first].mean() - self.values[second].mean())
        return interval(value, seeds, images, common.freedom)

    def mean(self, number: int, common: Pool) -> Interval:
        """The mean accuracy of a configuration."""
        return self._mean(self.right[number], self.values[number], common)

    def _mean(self, right: np.ndarray, values: np.ndarray, common: Pool) -> Interval:
        images = self.images.part(weighted(right))
        return interval(float(values.mean()), [common.seeds_part(values)], images, common.freedom)

    def task(self, first: int, second: int) -> Interval:
        """The difference between two configurations in the first task."""
        sides = [self.right[number] for number in (first, second)]
        pools = [pool(side.mean(axis=2).T, prior=2) for side in sides]
        values = [side[:, 0].mean(axis=1) for side in sides]
        seeds = [each.seeds_part(value) for each, value in zip(pools, values, strict=True)]
        images = Images((self.design.images,), shared=False).part(*(side[:, 0] for side in sides))
        most = min(each.freedom for each in pools)
        return interval(float(values[0].mean() - values[1].mean()), seeds, images, most)

    def tested_twice(self, random: np.random.Generator) -> list[Interval]:
        """What another way of testing changes in each configuration, run by run; truly nothing."""

        def again(levels: np.ndarray) -> np.ndarray:
            of_runs = random.normal(0, RETEST_SEED / SLOPE, (len(levels), 1, 1)).astype(np.float32)
            return (levels + of_runs + RETEST * random.standard_normal(levels.shape, np.float32)) > 0

        changes = [again(each).astype(np.float32) - again(each) for each in self._levels]
        values = [change.mean(axis=(1, 2)) for change in changes]
        common = pool(values, prior=4)
        return [self._mean(*each, common) for each in zip(changes, values, strict=True)]


def weighted(right: np.ndarray) -> np.ndarray:
    """What each image adds to the mean over tasks: seeds x images, task after task."""
    return right.reshape(len(right), -1) / right.shape[1]


# What is measured


def covers(found: Interval, truth: float) -> bool:
    """Whether an interval holds the truth."""
    return found.low <= truth <= found.high


def coverage(design: Design, studies: int, seed: int = 0) -> dict[str, float]:
    """Share of the intervals that hold the truth, by kind: of a difference, of a mean, and in one task."""
    random = np.random.default_rng(seed)
    hits: dict[str, list[bool]] = {"difference": [], "mean": [], "task": []}
    for _ in range(studies):
        study = Study(design, random, ahead=[0.05])
        common = pool(study.values, prior=4)
        truth = study.truth[-1] - study.truth[0]
        last = design.configurations - 1
        hits["difference"].append(covers(study.difference(last, 0, common), truth))
        hits["mean"].append(covers(study.mean(last, common), study.truth[last]))
        hits["task"].append(covers(study.task(last, 0), truth))
    return {kind: float(np.mean(each)) for kind, each in hits.items()}


def verdicts(
    design: Design, studies: int, ahead: Sequence[float] = (), seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The differences of PAIRS, and which have a verdict: studies x pairs."""
    random = np.random.default_rng(seed)
    differences, q = [], []
    for _ in range(studies):
        study = Study(design, random, ahead)
        common = pool(study.values, prior=4)
        found = [study.difference(*pair, common) for pair in PAIRS]
        differences.append([each.value for each in found])
        q.append(corrected([each.p for each in found]))
    return np.array(differences), np.array(q) <= VERDICT


def any_verdict(design: Design, studies: int) -> float:
    """Share of studies with a verdict where there is nothing to find."""
    return float(verdicts(design, studies)[1].any(axis=1).mean())


def five_true(design: Design, studies: int) -> tuple[float, float]:
    """What is found where five comparisons are true, by five standard errors.

    Returns:
        the share of the five that is found, and the share of a study's verdicts that are false, on average.
    """
    nothing, _ = verdicts(design, studies // 4, seed=1)
    error = float(nothing.std())  # the true standard error of a difference
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


def cells(configurations: Sequence[int]) -> list[Design]:
    """The designs whose coverage is measured."""
    varied = product((2, 3, 5, 10), configurations, (10, 20, 50), (100, 500), (False, True), (0.2, 0.6, 2.0))
    return [Design(*values) for values in varied]


def measure(name: str, work: Callable[..., object], designs: Sequence[Design], studies: int) -> None:
    """Measure some designs and print a line for each."""
    print(f"{name}:", flush=True)
    with ProcessPoolExecutor() as executor:
        for design, found in zip(designs, executor.map(partial(work, studies=studies), designs), strict=True):
            said = ", ".join(f"{field} {value}" for field, value in vars(design).items())
            print(f"  {said}: {found}", flush=True)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["verdicts", "test", "coverage"], help="measure this alone")
    parser.add_argument("--studies", type=int, default=2000, help="simulated studies of a design (2000)")
    parser.add_argument(
        "--configurations", type=int, nargs="+", default=[2, 4, 8], help="for coverage (2 4 8)"
    )
    args = parser.parse_args()
    studies, seeds = args.studies, (2, 3, 5, 10)
    usual = [Design(each, shared=shared) for each in seeds for shared in (False, True)]
    if args.only in (None, "verdicts"):
        measure("a verdict with nothing to find", any_verdict, usual, studies)
        unlike = [Design(each, unlike=3.0) for each in seeds]
        measure("the same, with noise that differs by a factor of 3", any_verdict, unlike, studies)
        measure("five of 40 true: found, false", five_true, usual, studies)
    if args.only in (None, "test"):
        measure('question "test": width, coverage', width_of_tests, usual, studies // 10)
    if args.only in (None, "coverage"):
        measure("coverage", coverage, cells(args.configurations), studies)


if __name__ == "__main__":
    main()
