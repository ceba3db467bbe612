"""Spreads, intervals and changes: functions of arrays alone."""

import math
from dataclasses import dataclass

import numpy as np


def spread(values: np.ndarray) -> float:
    """Standard deviation over seeds, NaN for a single one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def t_quantile(freedom: int) -> float:
    """The value that a t-distributed variable stays within, on either side of 0, with probability 0.95.

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
        low, high = (middle, high) if probability(middle) < 0.95 else (low, middle)
    return math.tan(low) * math.sqrt(freedom)


@dataclass(frozen=True)
class Change:
    """Relative change of accuracy against single-task training, in per cent.

    Attributes:
        tasks: of each task, averaged over seeds.
        mean: over tasks and seeds: delta_m (Maninis et al. 2019; Vandenhende et al. 2021).
        half_width: of the 95 % confidence interval of `mean` over seeds, NaN for a single seed.
    """

    tasks: np.ndarray
    mean: float
    half_width: float


def change_against(scores: np.ndarray, baseline: np.ndarray) -> Change:
    """How much better or worse the tasks are than with single-task training.

    Args:
        scores: accuracies, seeds x tasks.
        baseline: accuracy of single-task training per task, averaged over seeds.
    """
    changes = 100 * (scores - baseline) / baseline
    per_seed = changes.mean(axis=1)
    seeds = len(per_seed)
    half_width = t_quantile(seeds - 1) * spread(per_seed) / math.sqrt(seeds) if seeds > 1 else math.nan
    return Change(changes.mean(axis=0), float(per_seed.mean()), half_width)
