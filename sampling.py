"""Which tasks and which images each training step works on: decided by a few integers alone.

A batch follows from the seed and from how many were taken before it, so that nothing has to be remembered
but counts: two runs agree, and a run can be entered anywhere.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHUFFLES, DRAWS = 0, 1
"""The two uses of randomness in training, kept apart in the seeds."""


@dataclass(frozen=True)
class Source:
    """Images that training batches are taken from, and what they train.

    Attributes:
        name: of the task, or of what the images stand for.
        images: int64, indices into the training images.
        heads: the heads that these images train.
        weights: of the loss of each of these heads.
        probability: that a step draws this source, in proportion to those of the others.
    """

    name: str
    images: np.ndarray
    heads: tuple[int, ...]
    weights: tuple[float, ...] = (1.0,)
    probability: float = 1.0


class Stream:
    """Batches of some images without end: pass after pass, each newly shuffled.

    A pass shows every image once but for the last ones that do not fill a batch. Which images make
    the k-th batch is decided by the key and k alone, so a stream can be entered anywhere.
    """

    def __init__(self, images: np.ndarray, batch_size: int, key: tuple[int, ...]) -> None:
        """
        Args:
            images: int64: indices of the images.
            batch_size: number of images in a batch.
            key: non-negative integers that set the order of the images.
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
        """The batches from number `start`, `count` of them: int64, count x batch_size, of image indices."""
        if count == 0:
            return np.empty((0, self.batch_size), dtype=np.int64)
        first, last = start // self.batches_per_pass, (start + count - 1) // self.batches_per_pass
        passes = np.concatenate([self._pass(number) for number in range(first, last + 1)])
        offset = start - first * self.batches_per_pass
        return passes[offset : offset + count]


class Plan:
    """What the steps of every epoch train on.

    A step draws sources, independently and by their probabilities, and takes the next slice of each one's
    stream; together the slices are its batch. An epoch has as many steps as there are full batches in one
    pass over every source.
    """

    def __init__(
        self, sources: Sequence[Source], batch_size: int, seed: int, sources_per_step: int = 1
    ) -> None:
        """
        Args:
            sources: to draw from.
            batch_size: images of a step, a multiple of `sources_per_step`.
            seed: of the draws and of the order of images.
            sources_per_step: number of sources that a step draws; it can draw one twice.
        """
        self.sources = sources
        self.batch_size = batch_size
        self.seed = seed
        self.sources_per_step = sources_per_step
        self._probabilities = [source.probability for source in sources]
        if not math.isclose(total := math.fsum(self._probabilities), 1.0):
            self._probabilities = [probability / total for probability in self._probabilities]
        self.steps_per_epoch = sum(len(source.images) // batch_size for source in sources)
        self._streams = [
            Stream(source.images, batch_size // sources_per_step, (seed, SHUFFLES, i))
            for i, source in enumerate(sources)
        ]

    def draws(self, epoch: int) -> np.ndarray:
        """The sources of each step of an epoch, counted from 1: int64, steps x sources per step."""
        random = np.random.default_rng((self.seed, DRAWS, epoch))
        return random.choice(
            len(self.sources), size=(self.steps_per_epoch, self.sources_per_step), p=self._probabilities
        )

    def images(self, epoch: int) -> np.ndarray:
        """The training images of each step of an epoch: int64, steps x batch size.

        The slice of the source drawn first comes first, and so on.
        """
        taken = np.zeros(len(self.sources), dtype=np.int64)
        for earlier in range(1, epoch):
            taken += np.bincount(self.draws(earlier).ravel(), minlength=len(taken))
        drawn = self.draws(epoch).ravel()
        images = np.empty((len(drawn), self.batch_size // self.sources_per_step), dtype=np.int64)
        for i, stream in enumerate(self._streams):
            here = drawn == i
            images[here] = stream.batches(taken[i], np.count_nonzero(here))
        return images.reshape(-1, self.batch_size)
