"""Differences and their confidence intervals, as functions of arrays.

Scores are from 0 to 1, in arrays of seeds x tasks. Two arrays that are compared have the same seeds in their
rows. A difference is formed seed by seed, so that effects of a seed on both sides cancel. Its interval is
that of the mean over seeds (Student 1908).
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

CONFIDENCE = 0.95
"""Share of the intervals that contain the true value."""

ROUNDING = 1e-9
"""Scores that differ by less are equal but for rounding."""

INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Estimate:
    """Means over seeds with their confidence intervals.

    Attributes:
        seeds: number of seeds.
        mean: mean over the seeds, of any shape.
        low: lower ends, of the same shape. NaN where there is no interval: with one seed, or where all seeds
            agree to the last digit, which happens by chance and does not mean certainty.
        high: upper ends, likewise.
    """

    seeds: int
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def verdict(self) -> np.ndarray:
        """Text of the same shape: `higher` or `lower` than 0, or `inconclusive`."""
        return np.where(self.low > 0, "higher", np.where(self.high < 0, "lower", INCONCLUSIVE))


def estimate(values: np.ndarray) -> Estimate:
    """Estimate the mean over seeds and its t interval.

    Args:
        values: seeds x anything, independent between seeds.
    """
    seeds, mean = len(values), np.mean(values, axis=0)
    half_width = np.full(mean.shape, math.nan)
    if seeds > 1:
        std = np.std(values, axis=0, ddof=1)
        half_width = np.where(std > ROUNDING, t_quantile(seeds - 1) * std / math.sqrt(seeds), math.nan)
    return Estimate(seeds, mean, mean - half_width, mean + half_width)


@cache
def t_quantile(freedom: int) -> float:
    """Two-sided quantile of Student's t distribution at CONFIDENCE.

    The probability is a finite sum (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4), inverted by bisection.

    Args:
        freedom: degrees of freedom, at least 1.
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
    """Difference between two sides in points: seeds x tasks.

    A point is one per cent of the images.

    Args:
        first: scores, seeds x tasks.
        second: scores to subtract, for the same seeds.
    """
    return 100 * (first - second)


def relative_change(scores: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Change of each task relative to the single-task baseline.

    The result is in per cent, seeds x tasks. Its mean over tasks is delta_m of each seed (Maninis,
    Radosavovic and Kokkinos 2019; Vandenhende et al. 2021). The denominator is the baseline's mean over
    seeds: with the baseline of each seed the result would be biased, as noise in a denominator does not
    cancel.

    Args:
        scores: seeds x tasks.
        baseline: scores of the single-task baseline, for the same seeds.
    """
    return 100 * (scores - baseline) / baseline.mean(axis=0)


def expected_range(means: np.ndarray) -> float:
    """Expected range of the means of equally good configurations.

    They differ only due to their seeds. The variance is that of the residuals of a two-way analysis of
    variance without interaction (Fisher 1925). The expected range of normal variables is from Tippett (1925),
    the correction for the bias of an estimated standard deviation from Holtzman (1950).

    Args:
        means: configurations x seeds, at least 2 x 2, all for the same seeds.
    """
    configurations, seeds = means.shape
    freedom = (configurations - 1) * (seeds - 1)
    residuals = means - means.mean(axis=1, keepdims=True) - means.mean(axis=0) + means.mean()
    std = math.sqrt((residuals**2).sum() / freedom / seeds)  # standard error of a mean over seeds
    bias = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) * math.sqrt(2 / freedom)
    return normal_range(configurations) * std / bias


@cache
def normal_range(count: int) -> float:
    """Expected range of independent standard normal variables (Tippett 1925)."""
    grid = np.linspace(-9, 9, 3601)
    below = np.array([(1 + math.erf(x / math.sqrt(2))) / 2 for x in grid])
    return float(((1 - below**count - (1 - below) ** count).sum()) * (grid[1] - grid[0]))
