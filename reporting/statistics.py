"""Differences and their intervals: functions of arrays alone.

Scores are shares from 0 to 1, in arrays of seeds x tasks; rows of two arrays that are compared are of the
same seeds. A difference is formed seed by seed, so that whatever a seed does to both sides cancels, and its
interval is that of the mean over seeds (Student 1908).
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

CONFIDENCE = 0.95
"""Share of the intervals that contain the truth."""

NO_DEVIATION = 1e-9
"""A standard deviation below it is one of rounding alone: the values are equal."""

CANNOT_BE_TOLD = "cannot be told"


@dataclass(frozen=True)
class Estimate:
    """Means over seeds, with intervals that contain the true ones with a probability of CONFIDENCE.

    Attributes:
        seeds: number of seeds.
        mean: over the seeds, of any shape.
        low: lower end of the interval, of the same shape; NaN where there is none: with a single seed, and
            where the seeds agree to the last digit, which is chance and no certainty.
        high: upper end, likewise.
    """

    seeds: int
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def verdict(self) -> np.ndarray:
        """Text of the same shape: `higher` or `lower` than 0, or `cannot be told`."""
        return np.where(self.low > 0, "higher", np.where(self.high < 0, "lower", CANNOT_BE_TOLD))


def estimate(values: np.ndarray) -> Estimate:
    """The mean over seeds and its t interval.

    Args:
        values: seeds x anything; the values of different seeds are independent.
    """
    seeds, mean = len(values), np.mean(values, axis=0)
    half_width = np.full(mean.shape, math.nan)
    if seeds > 1:
        deviation = np.std(values, axis=0, ddof=1)
        half_width = np.where(
            deviation > NO_DEVIATION, t_quantile(seeds - 1) * deviation / math.sqrt(seeds), math.nan
        )
    return Estimate(seeds, mean, mean - half_width, mean + half_width)


@cache
def t_quantile(freedom: int) -> float:
    """The value that a t-distributed variable stays within, on either side of 0, with probability CONFIDENCE.

    The probability is a finite sum (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4); it is inverted by
    bisection.

    Args:
        freedom: degrees of freedom, from 1.
    """

    def probability(angle: float) -> float:
        odd = freedom % 2
        term = total = math.cos(angle) if odd else 1.0
        for k in range(2 + odd, freedom, 2):
            term *= math.cos(angle) ** 2 * (k - 1) / k
            total += term
        total = 0.0 if freedom == 1 else math.sin(angle) * total
        return 2 / math.pi * (angle + total) if odd else total

    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if probability(middle) < CONFIDENCE else (low, middle)
    return math.tan(low) * math.sqrt(freedom)


def points(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How much higher one side scores than the other, in points, per cent of the images: seeds x tasks.

    Args:
        first: scores, seeds x tasks.
        second: those of the other side, for the same seeds.
    """
    return 100 * (first - second)


def relative_change(scores: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Change of every task against single-task training, in per cent of that: seeds x tasks.

    Its mean over tasks is delta_m of each seed (Maninis, Radosavovic and Kokkinos 2019; Vandenhende et al.
    2021). It is relative to the baseline averaged over its seeds: relative to that of each seed it would be
    biased, as noise in a denominator does not cancel.

    Args:
        scores: seeds x tasks.
        baseline: scores of single-task training, for the same seeds.
    """
    return 100 * (scores - baseline) / baseline.mean(axis=0)


def expected_range(means: np.ndarray) -> float:
    """How far apart the best and the worst of equally good ways would lie on average, by their seeds alone.

    The variance is that which is left when every way has its mean and every seed its own (two-way analysis
    of variance without interaction, Fisher 1925), the expected range of normal variables is Tippett's (1925),
    and that the root of an estimated variance is too small on average is made up for (Holtzman 1950).

    Args:
        means: scores of at least two ways for the same seeds, of which there are at least two: ways x seeds.
    """
    ways, seeds = means.shape
    freedom = (ways - 1) * (seeds - 1)
    left = means - means.mean(axis=1, keepdims=True) - means.mean(axis=0) + means.mean()
    root = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) * math.sqrt(2 / freedom)
    return normal_range(ways) * math.sqrt((left**2).sum() / freedom / seeds) / root


@cache
def normal_range(count: int) -> float:
    """Expected range of some independent standard normal variables (Tippett 1925)."""
    places = np.linspace(-9, 9, 3601)
    below = np.array([(1 + math.erf(place / math.sqrt(2))) / 2 for place in places])
    return float(((1 - below**count - (1 - below) ** count).sum()) * (places[1] - places[0]))
