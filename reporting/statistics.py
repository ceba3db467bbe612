"""Confidence intervals over new seeds and new test images, as functions of arrays.

The variance of an estimate has a part for the seeds of each side and a part for the images. The intervals are
those of Student's t distribution (1908).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

CONFIDENCE = 0.95
"""Share of the intervals that contain the true value."""

ROUNDING = 1e-9
"""Scores that differ by less are equal but for rounding."""

LEVEL = 0.05
"""A comparison is conclusive if its corrected p value is at most this."""


@cache
def t_quantile(freedom: int) -> float:
    """Two-sided quantile of Student's t distribution at CONFIDENCE, by bisection.

    Args:
        freedom: degrees of freedom, at least 1.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < CONFIDENCE else (low, middle)
    return math.tan(low) * math.sqrt(freedom)


def t_probability(t: float, freedom: int) -> float:
    """Probability that a variable of Student's t distribution is at most t away from 0.

    Args:
        t: not negative.
        freedom: degrees of freedom, at least 1.
    """
    return _within(math.atan(t / math.sqrt(freedom)), freedom)


def _within(angle: float, freedom: int) -> float:
    """That probability, as a finite sum (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    odd, square = freedom % 2, math.cos(angle) ** 2
    term = total = math.cos(angle) if odd else 1.0
    for k in range(2 + odd, freedom, 2):
        term *= square * (k - 1) / k
        total += term
    total = 0.0 if freedom == 1 else math.sin(angle) * total
    return 2 / math.pi * (angle + total) if odd else total


@dataclass(frozen=True)
class Part:
    """A part of the variance of an estimate.

    Attributes:
        variance: the part itself.
        freedom: degrees of freedom that it is known with; infinite for a part that is 0.
    """

    variance: float
    freedom: float


NO_PART = Part(0.0, math.inf)


@dataclass(frozen=True)
class Pool:
    """How much the seeds of many configurations vary.

    The variance of a configuration's few seeds is moderated by that of the pool, as if `prior` degrees of
    freedom had shown the pool's (Smyth 2004, with the prior fixed, not estimated).

    Attributes:
        variance: mean variance within the configurations, weighted by their degrees of freedom.
        freedom: degrees of freedom of all of them.
        prior: weight of the pool's variance in that of a configuration.
    """

    variance: float
    freedom: int
    prior: int

    def seeds_part(self, values: np.ndarray) -> Part:
        """The variance of a configuration's mean over seeds.

        Args:
            values: one per seed.
        """
        own = len(values) - 1
        moderated = self.prior * self.variance + own * spread(values)
        return Part(moderated / (self.prior + own) / len(values), self.prior + own)


def spread(values: np.ndarray) -> float:
    """Variance of a configuration's seeds, NaN for one seed."""
    return float(np.var(values, ddof=1)) if len(values) > 1 else math.nan


def pool(configurations: Iterable[np.ndarray], prior: int) -> Pool:
    """Pool the variances of configurations.

    Args:
        configurations: of each, a value per seed. Those with one seed say nothing.
        prior: see Pool.
    """
    several = [values for values in configurations if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    total = sum((len(values) - 1) * spread(values) for values in several)
    return Pool(total / freedom if freedom else math.nan, freedom, prior)


@dataclass(frozen=True)
class Images:
    """The test images of some tasks.

    Attributes:
        sizes: number of images of each task.
        shared: whether the tasks have the same images; the sizes are equal then.
    """

    sizes: tuple[int, ...]
    shared: bool

    def part(self, *sides: np.ndarray) -> Part:
        """The part of the variance that is due to the choice of the images.

        Seeds that differ from image to image vary with the images, too. That is in the seeds' parts already
        and is taken off here.

        Args:
            sides: one or two, of which the second is subtracted: runs x images, task after task; the weight
                of the task where a run answers an image rightly, else 0.
        """
        means = [side.mean(axis=0) for side in sides]
        variance = self.variance(means[0] - means[1] if len(means) == 2 else means[0])
        for side, mean in zip(sides, means, strict=True):
            if len(side) > 1:
                variance -= (self.variance(side).mean() - self.variance(mean)) / (len(side) - 1)
        freedom = self.sizes[0] - 1 if self.shared else sum(self.sizes) - len(self.sizes)
        return Part(float(variance), freedom) if variance > 0 else NO_PART

    def variance(self, values: np.ndarray) -> np.ndarray:
        """The variance of the sum of the tasks' means over images, as far as new images would change it.

        Args:
            values: ... x images, task after task.
        """
        sizes = np.array(self.sizes)
        if self.shared:
            values = values.reshape(*values.shape[:-1], len(sizes), sizes[0]).sum(axis=-2)
            sizes = sizes[:1]
        starts = np.cumsum(sizes) - sizes
        sums = np.add.reduceat(values, starts, axis=-1, dtype=np.float64)
        squares = np.add.reduceat(values**2, starts, axis=-1, dtype=np.float64)
        # A single image does not show how much images vary: it counts as if they did not.
        return ((squares - sums**2 / sizes) / np.maximum(1, sizes - 1) / sizes).sum(axis=-1)


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval and test.

    Attributes:
        value: the estimate.
        low: lower end; NaN where there is no interval, and so are the others.
        high: upper end.
        p: probability of an estimate at least as far from 0 if the true value is 0.
        freedom: degrees of freedom.
    """

    value: float
    low: float
    high: float
    p: float
    freedom: int


def interval(value: float, seeds: Sequence[Part], images: Part, most_freedom: int) -> Interval:
    """The interval of an estimate over new seeds and new test images (Welch 1947; Satterthwaite 1946).

    Args:
        value: the estimate.
        seeds: the seeds' part of each side.
        images: the images' part.
        most_freedom: the pool's degrees of freedom. More are never taken, or a side whose seeds agree by
            chance would borrow those of the images.

    Returns:
        the interval; without ends where the variance is not known: a side has one seed, or no seeds differ.
    """
    variance = sum(part.variance for part in seeds) + images.variance
    if not all(part.variance > ROUNDING**2 for part in seeds):  # NaN, too
        return Interval(value, math.nan, math.nan, math.nan, 0)
    weights = sum(part.variance**2 / part.freedom for part in [*seeds, images])
    freedom = max(1, math.floor(min(variance**2 / weights, most_freedom) + ROUNDING))
    half_width = t_quantile(freedom) * math.sqrt(variance)
    p = 1 - t_probability(abs(value) / math.sqrt(variance), freedom)
    return Interval(value, value - half_width, value + half_width, p, freedom)


def corrected(p: Sequence[float]) -> list[float]:
    """Of each p value, the least share of false verdicts at which it is one (Benjamini and Hochberg 1995).

    NaN is no test, and stays.
    """
    order = sorted((i for i, value in enumerate(p) if not math.isnan(value)), key=p.__getitem__)
    q, least = [math.nan] * len(p), 1.0
    for rank, i in reversed(list(enumerate(order, start=1))):
        least = min(least, len(order) * p[i] / rank)
        q[i] = least
    return q
