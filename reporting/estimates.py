"""Mean accuracies of configurations and differences between them, with their intervals."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, Protocol

import numpy as np

from reporting.statistics import NO_PART, ROUNDING, Images, Interval, Pool, interval, pool, spread

PRIOR, PRIOR_OF_TASK = 4, 2
"""Weight of the pool's variance in that of a configuration, for all tasks together and for one task."""

NOISY = 2.5
"""By how many times a configuration's seeds vary more than all others' until a report says so."""


class Scored(Protocol):
    """A configuration that is estimated.

    Attributes:
        seeds: numbers of its seeds.
        tasks: names of what is scored.
        is_complete: whether it has a score in every task.
        right: for each task, 1 where a seed answers an image rightly, else 0: seeds x images; None if not
            recorded.
    """

    seeds: list[int]
    tasks: list[str]
    is_complete: bool

    @property
    def right(self) -> list[np.ndarray] | None: ...

    def scores(self, measure: str = "accuracy", seeds: Sequence[int] | None = None) -> np.ndarray:
        """Scores of some seeds by one of MEASURES: seeds x tasks."""


@dataclass(frozen=True)
class Estimate(Interval):
    """An estimate from some runs.

    Attributes:
        seeds: number of seeds of each side, one or two.
        spreads: standard deviation over the seeds of each side; NaN for one seed.
        images: whether the interval is over new test images, too; without, over new seeds alone.
    """

    seeds: tuple[int, ...]
    spreads: tuple[float, ...]
    images: bool


@dataclass(frozen=True)
class Side:
    """One side of a comparison, weighted.

    Attributes:
        values: a value for each seed: the weighted sum of its scores.
        right: the weight of the task where a seed answers an image rightly, else 0: seeds x images, task
            after task; None if not recorded.
    """

    values: np.ndarray
    right: np.ndarray | None


class Estimates:
    """Estimates from the configurations of a data set, all tested in one way.

    How much the seeds of a configuration vary is estimated from its own and from all others.

    Args:
        groups: all configurations that are scored in the same tasks and the same way.
        shared_images: whether every task has every test image.
        before: by configuration, its runs tested in another way. If given, estimates are of changes.
    """

    def __init__(
        self, groups: Sequence[Scored], shared_images: bool, before: Mapping[Any, Any] | None = None
    ) -> None:
        self._shared_images = shared_images
        self._before = before
        self._complete = [group for group in groups if group.is_complete]
        self._scores: dict[tuple[Scored, str], np.ndarray] = {}
        self._pools: dict[tuple[bytes, str], Pool] = {}

    def mean(self, group: Scored) -> Estimate:
        """The mean accuracy over tasks, from 0 to 1; of a change, in points."""
        count = len(group.tasks)
        weights = np.full(count, 1 / count if self._before is None else 100 / count)
        if not group.is_complete:
            value = float(np.nanmean(group.scores()))
            return Estimate(value, np.nan, np.nan, np.nan, 0, (len(group.seeds),), (np.nan,), images=False)
        side = self._side(group, weights)
        common = self._pool(weights, "accuracy")
        found = self._estimate(float(side.values.mean()), [side], [common], group)
        if self._before is not None:
            return found
        ends = {"low": max(found.low, 0.0), "high": min(found.high, 1.0)} if not isnan(found.p) else {}
        return Estimate(**vars(found) | ends)

    def difference(self, first: Scored, second: Scored) -> Estimate:
        """The difference between the mean accuracies over tasks, in points."""
        weights = np.full(len(first.tasks), 100 / len(first.tasks))
        sides = [self._side(group, weights) for group in (first, second)]
        value = float(sides[0].values.mean() - sides[1].values.mean())
        return self._estimate(value, sides, [self._pool(weights, "accuracy")] * 2, first)

    def delta_m(self, first: Scored, baseline: Scored, measure: str) -> Estimate:
        """Mean over tasks of the change relative to the single-task baseline, in per cent.

        Maninis, Radosavovic and Kokkinos 2019; Vandenhende et al. 2021.

        Args:
            first: the configuration.
            baseline: the single-task baseline, with a score above 0 in each task.
            measure: one of MEASURES.
        """
        means, base = (self.scores(group, measure).mean(axis=0) for group in (first, baseline))
        weightings = [100 / base / len(base), 100 * means / base**2 / len(base)]
        pairs = list(zip((first, baseline), weightings, strict=True))
        sides = [self._side(group, weights, measure) for group, weights in pairs]
        pools = [self._pool(weights, measure) for weights in weightings]
        return self._estimate(float(100 * (means / base - 1).mean()), sides, pools, first)

    def tasks(self, first: Scored, second: Scored, measure: str) -> Iterator[Estimate]:
        """The difference in each task, in points, one after the other.

        Args:
            first: the first side.
            second: the side that is subtracted.
            measure: one of MEASURES.
        """
        scores = [100 * self.scores(group, measure) for group in (first, second)]
        pools = [pool(each.T, PRIOR_OF_TASK) for each in scores]
        rights = [group.right if measure == "accuracy" else None for group in (first, second)]
        for task in range(len(first.tasks)):
            sides = [
                Side(each[:, task], None if right is None else np.float32(100) * right[task])
                for each, right in zip(scores, rights, strict=True)
            ]
            images = None if rights[0] is None else Images((rights[0][task].shape[1],), shared=False)
            value = float(sides[0].values.mean() - sides[1].values.mean())
            yield _estimate(value, sides, pools, images)

    def is_noisy(self, group: Scored) -> bool:
        """Whether the seeds of a configuration vary far more than those of all others."""
        weights = np.full(len(group.tasks), 100 / len(group.tasks))
        if not group.is_complete or len(group.seeds) < 2:
            return False
        usual = self._pool(weights, "accuracy").variance
        return spread(self.scores(group) @ weights) > NOISY**2 * usual + ROUNDING

    def scores(self, group: Scored, measure: str = "accuracy") -> np.ndarray:
        """Scores, or how much they changed: seeds x tasks."""
        if (group, measure) not in self._scores:
            scores = group.scores(measure)
            if self._before is not None:
                scores = scores - self._before[group].scores(measure, group.seeds)
            self._scores[group, measure] = scores
        return self._scores[group, measure]

    def _side(self, group: Scored, weights: np.ndarray, measure: str = "accuracy") -> Side:
        right = group.right if measure == "accuracy" else None
        if right is not None and self._before is not None:
            before = self._before[group]
            rows = [before.seeds.index(seed) for seed in group.seeds]
            earlier = before.right
            if earlier is None or [each.shape[1] for each in earlier] != [each.shape[1] for each in right]:
                right = None
            else:
                right = [
                    each.astype(np.int8) - other[rows].astype(np.int8)
                    for each, other in zip(right, earlier, strict=True)
                ]
        weighted = None
        if right is not None:
            weighted = np.concatenate(
                [np.float32(weight) * each for weight, each in zip(weights, right, strict=True)], axis=1
            )
        return Side(self.scores(group, measure) @ weights, weighted)

    def _pool(self, weights: np.ndarray, measure: str) -> Pool:
        key = (weights.tobytes(), measure)
        if key not in self._pools:
            distinct = {self.scores(group, measure).tobytes(): group for group in self._complete}
            values = [self.scores(group, measure) @ weights for group in distinct.values()]
            self._pools[key] = pool(values, PRIOR)
        return self._pools[key]

    def _estimate(
        self, value: float, sides: Sequence[Side], pools: Sequence[Pool], group: Scored
    ) -> Estimate:
        sizes = tuple(each.shape[1] for each in group.right or ())
        images = Images(sizes, self._shared_images and len(set(sizes)) == 1) if sizes else None
        return _estimate(value, sides, pools, images)


def _estimate(value: float, sides: Sequence[Side], pools: Sequence[Pool], images: Images | None) -> Estimate:
    """An estimate and its interval.

    Args:
        value: the estimate.
        sides: one or two, of which the second is subtracted.
        pools: for each side, how much the seeds of all configurations vary.
        images: the test images, None if not known.
    """
    rights = [side.right for side in sides if side.right is not None]
    known = images is not None and [each.shape[1] for each in rights] == [sum(images.sizes)] * len(sides)
    part = images.part(*rights) if known and images else NO_PART
    seeds = [each.seeds_part(side.values) for each, side in zip(pools, sides, strict=True)]
    found = interval(value, seeds, part, min(each.freedom for each in pools))
    spreads = tuple(float(spread(side.values) ** 0.5) for side in sides)
    return Estimate(
        **vars(found), seeds=tuple(len(side.values) for side in sides), spreads=spreads, images=known
    )
