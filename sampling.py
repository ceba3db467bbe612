"""Which sources and images each training step works on.

Both are functions of a few integers. A batch depends on the seed and on the number of batches before it, so
two runs agree, and a run is resumed from counts alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHUFFLING, SAMPLING, AUGMENTING = 0, 1, 2
"""The uses of randomness in training, each with seeds of its own."""

FEWEST_BATCHES = 20
"""Number of batches that statistics are estimated from, if a pass has fewer."""


@dataclass(frozen=True)
class Source:
    """Training images, such as a task's, and the heads that they train.

    Attributes:
        name: name of the task, or of the images.
        images: int64, indices into the training images.
        heads: the heads that these images train, by number.
        weights: weight of the loss of each of these heads.
        probability: relative probability that a step samples it.
    """

    name: str
    images: np.ndarray
    heads: tuple[int, ...]
    weights: tuple[float, ...] = (1.0,)
    probability: float = 1.0


class Stream:
    """Endless batches of some images, shuffled again for each pass.

    A pass drops its last incomplete batch. The k-th batch depends on the key and k alone, so a stream can be
    entered anywhere.
    """

    def __init__(self, images: np.ndarray, batch_size: int, key: tuple[int, ...]) -> None:
        """
        Args:
            images: int64, indices of the images.
            batch_size: number of images in a batch.
            key: non-negative integers that seed the order of the images.
        """
        self.images = images
        self.batch_size = batch_size
        self.key = key

    @property
    def batches_per_pass(self) -> int:
        """Number of full batches in a pass."""
        return len(self.images) // self.batch_size

    def _pass(self, number: int) -> np.ndarray:
        """The batches of one pass, batches_per_pass x batch_size."""
        order = np.random.default_rng((*self.key, number)).permutation(self.images)
        return order[: self.batches_per_pass * self.batch_size].reshape(-1, self.batch_size)

    def batches(self, start: int, count: int) -> np.ndarray:
        """Batches of indices of images: int64, count x batch_size.

        Args:
            start: number of the first batch.
            count: number of batches.
        """
        if count == 0:
            return np.empty((0, self.batch_size), dtype=np.int64)
        first, last = start // self.batches_per_pass, (start + count - 1) // self.batches_per_pass
        passes = np.concatenate([self._pass(number) for number in range(first, last + 1)])
        offset = start - first * self.batches_per_pass
        return passes[offset : offset + count]


class Plan:
    """The sources and images of the steps of every epoch.

    A step samples sources, independently and by their probabilities, or takes each once. Its batch has a
    slice for each: the next images of the source's stream. An epoch has as many steps as there are full
    batches in one pass over every source.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        batch_size: int,
        seed: int,
        sources_per_step: int | None = 1,
        apart: bool = False,
    ) -> None:
        """
        Args:
            sources: sources to sample from.
            batch_size: number of images of a step, a multiple of the number of slices.
            seed: seed of the sampling and of the shuffling.
            sources_per_step: number of sources that a step samples, with replacement; None: each source once.
            apart: whether the images of each source are normalised by themselves.
        """
        self.sources = sources
        self.batch_size = batch_size
        self.seed = seed
        self.takes_all = sources_per_step is None
        self.sources_per_step = len(sources) if sources_per_step is None else sources_per_step
        self.apart = apart
        self._probabilities = [source.probability for source in sources]
        if not math.isclose(total := math.fsum(self._probabilities), 1.0):
            self._probabilities = [probability / total for probability in self._probabilities]
        self.steps_per_epoch = sum(len(source.images) // batch_size for source in sources)
        self._streams = [
            Stream(source.images, self.slice_size, (seed, SHUFFLING, i)) for i, source in enumerate(sources)
        ]

    @property
    def slice_size(self) -> int:
        """Number of images of a slice."""
        return self.batch_size // self.sources_per_step

    def sampled(self, epoch: int) -> np.ndarray:
        """Sources of each step: int64, steps x sources per step.

        Args:
            epoch: number of the epoch, from 1.
        """
        if self.takes_all:
            return np.tile(np.arange(len(self.sources)), (self.steps_per_epoch, 1))
        random = np.random.default_rng((self.seed, SAMPLING, epoch))
        return random.choice(
            len(self.sources), size=(self.steps_per_epoch, self.sources_per_step), p=self._probabilities
        )

    def indices(self, epoch: int) -> np.ndarray:
        """Images of each step: int64, steps x batch size.

        These are indices of training images, slice after slice.

        Args:
            epoch: number of the epoch, from 1.
        """
        taken = np.zeros(len(self.sources), dtype=np.int64)
        for earlier in range(1, epoch):
            taken += np.bincount(self.sampled(earlier).ravel(), minlength=len(taken))
        sampled = self.sampled(epoch).ravel()
        indices = np.empty((len(sampled), self.slice_size), dtype=np.int64)
        for i, stream in enumerate(self._streams):
            here = sampled == i
            indices[here] = stream.batches(int(taken[i]), int(np.count_nonzero(here)))
        return indices.reshape(-1, self.batch_size)

    def mixed_batches(self) -> np.ndarray | None:
        """The first batches: int64, steps x batch size, those of an epoch, but at least FEWEST_BATCHES.

        None if images of different sources are never normalised together.
        """
        if self.apart or self.sources_per_step == 1:
            return None
        count = max(self.steps_per_epoch, FEWEST_BATCHES)
        epochs = range(1, math.ceil(count / self.steps_per_epoch) + 1)
        return np.concatenate([self.indices(epoch) for epoch in epochs])[:count]

    def separate_batches(self) -> list[tuple[list[Source], np.ndarray]]:
        """The first slices of each source: int64, slices x images.

        They are those of a pass, but at least FEWEST_BATCHES; of few images, one slice of all. Sources that
        have the same images share those of the first.
        """
        groups: list[tuple[list[Source], Stream]] = []
        for source, stream in zip(self.sources, self._streams, strict=True):
            same = (members for members, first in groups if np.array_equal(first.images, source.images))
            members = next(same, None)
            if members is None:
                groups.append(([source], stream))
            else:
                members.append(source)
        return [(members, _first_batches(stream)) for members, stream in groups]


def _first_batches(stream: Stream) -> np.ndarray:
    """Batches of a pass, but at least FEWEST_BATCHES; of few images, one batch of all."""
    if stream.batches_per_pass:
        return stream.batches(0, max(stream.batches_per_pass, FEWEST_BATCHES))
    # Batch normalisation refuses to estimate the variance of a single value.
    return stream.images[None] if len(stream.images) > 1 else stream.images.repeat(2)[None]
