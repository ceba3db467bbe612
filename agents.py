"""The ways of training: what each step trains and on which images, and how the result is scored.

All agents share one loop and one evaluation. An agent says three things: which heads its model has,
the sources that its training batches come from, and which tasks it is scored on.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from data import DataSet, Stream, images_of
from models import Model
from recording import Recorded
from settings import TrainingOptions, UserError

SHUFFLES, DRAWS = 0, 1
"""The two uses of randomness in training, kept apart in the seeds."""

ENCODED_AT_ONCE = {"cpu": 128, "cuda": 2048}
"""Images of 32 x 32 pixels that the encoder works on at once in an evaluation, by type of device."""

ANSWERED_AT_ONCE = 2048
"""Images that the heads work on at once in an evaluation."""


@dataclass(frozen=True)
class Source:
    """Images that training batches are taken from, and what a batch of them trains.

    Attributes:
        name: of the task, or of what the images stand for.
        images: int64, indices into the training images, on the CPU.
        heads: the heads that a batch trains.
        weights: of the loss of each of these heads in the sum that is minimised.
        probability: that a step takes its batch from here; over all sources it sums to 1.
    """

    name: str
    images: Tensor
    heads: tuple[int, ...]
    weights: tuple[float, ...] = (1.0,)
    probability: float = 1.0


@dataclass(frozen=True)
class Scores:
    """Result of an evaluation, a number per scored task, each from 0 to 1.

    Attributes:
        accuracy: share of the task's test images that are answered rightly.
        balanced_accuracy: mean over the task's classes of the share of their images answered rightly.
    """

    accuracy: list[float]
    balanced_accuracy: list[float]


class Agent:
    """Trains and evaluates one model on one data set.

    Attributes:
        model: the network.
        names: what is scored, in the order of every list of accuracies.
        constant_accuracy: what always giving the commonest answer scores in each of `names`.
        epochs: the records of the epochs done, as `train` yields them.
        step: number of steps done in the epoch after these.
        losses: float32, steps of an epoch: the losses of these steps, on the device of the data.
        seconds: spent on these steps.
    """

    def __init__(
        self,
        data: DataSet,
        options: TrainingOptions,
        *,
        heads: Tensor,
        sources: Sequence[Source],
        names: Sequence[str],
        scored: Tensor | None = None,
    ) -> None:
        """
        Args:
            heads: int64, heads x classes: the number of each class among the answers of each head, or -1.
            sources: what the training batches are taken from.
            names: of the scored tasks.
            scored: int64, tasks x classes, like `heads`: the tasks of an evaluation; default: the heads.
        """
        self.data = data
        self.options = options
        self.sources = sources
        self.names = list(names)
        scored = heads if scored is None else scored
        self._scored = scored.to(data.device)
        self.source_numbers = [heads[list(source.heads)].to(data.device) for source in sources]
        self.source_weights = [torch.tensor(source.weights, device=data.device) for source in sources]
        self._streams = [
            Stream(source.images, options.batch_size, (options.seed, SHUFFLES, i))
            for i, source in enumerate(sources)
        ]
        self._groups = _groups(scored, data.test.labels)
        self._asked = _count_answers(scored, data.test.labels.cpu())
        self.constant_accuracy = (self._asked.amax(dim=1) / self._asked.sum(dim=1)).tolist()
        every_head = tuple(range(len(heads)))
        self.model = Model(
            data.spec.channels,
            (heads.amax(dim=1) + 1).tolist(),
            options.seed,
            all_heads_at_once=all(source.heads == every_head for source in sources),
        )
        self.model.to(data.device, memory_format=torch.channels_last)
        if options.compile:
            self.model.encoder.compile(dynamic=False)
        self.epochs: list[dict] = []
        self.step = 0
        self.losses = torch.zeros(self.steps_per_epoch, device=data.device)
        self.seconds = 0.0
        self._optimizer = torch.optim.SGD(self.model.parameters(), lr=options.lr, fused=True)
        # A step finds its images by its number in the epoch, both on the device, so that it can be recorded.
        self._images = torch.zeros(
            self.steps_per_epoch, options.batch_size, dtype=torch.int64, device=data.device
        )
        self._next = torch.zeros(1, dtype=torch.int64, device=data.device)
        on_gpu = data.device.type == "cuda"
        self._do_step = Recorded(self._train_step, data.device) if on_gpu else self._train_step

    @property
    def steps_per_epoch(self) -> int:
        """Number of full batches in one pass over every source."""
        return sum(stream.batches_per_pass for stream in self._streams)

    def _draws(self, epoch: int) -> np.ndarray:
        """The source of each step of an epoch: int64, steps."""
        probabilities = [source.probability for source in self.sources]
        random = np.random.default_rng((self.options.seed, DRAWS, epoch))
        return random.choice(len(self.sources), size=self.steps_per_epoch, p=probabilities)

    def plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """What each step of an epoch trains on, decided by the seed and the epoch alone.

        Args:
            epoch: from 1.

        Returns:
            int64, steps: the source of each step; int64, steps x batch size: its training images.
        """
        counts = np.zeros(len(self.sources), dtype=np.int64)
        for earlier in range(1, epoch):
            counts += np.bincount(self._draws(earlier), minlength=len(counts))
        sources = self._draws(epoch)
        images = np.empty((len(sources), self.options.batch_size), dtype=np.int64)
        for i, stream in enumerate(self._streams):
            here = sources == i
            images[here] = stream.batches(counts[i], np.count_nonzero(here))
        return sources, images

    def loss(self, source: int, images: Tensor, labels: Tensor) -> Tensor:
        """Loss of one step: the weighted sum of the cross-entropies of the source's heads.

        Args:
            source: number of the source.
            images: float32, B x C x H x W: training images of that source, normalised.
            labels: int64, B: their classes in the whole data set.
        """
        with self._precision():
            logits = self.model(images, self.sources[source].heads)
        targets = self.source_numbers[source][:, labels]
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        return losses.view_as(targets).mean(dim=1) @ self.source_weights[source]

    def update(self, loss: Tensor) -> None:
        """A step of gradient descent on a loss. Heads that it does not come from are left alone."""
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()

    def _precision(self) -> torch.autocast:
        """In this context the network computes in the precision that the options ask for."""
        return torch.autocast(self.data.device.type, torch.bfloat16, enabled=self.options.precision == "bf16")

    def _train_step(self, source: int) -> None:
        """The next step of the epoch, on a batch from a source; reads no value from the device."""
        images = self._images.index_select(0, self._next).squeeze(0)
        loss = self.loss(source, *self.data.train.batch(images))
        self.update(loss)
        self.losses.index_copy_(0, self._next, loss.detach().view(1))
        self._next += 1

    def _train_epoch(self, bar: tqdm, pause: Callable[[], None]) -> None:
        """Do the steps that are left of the running epoch."""
        self.model.train()
        sources, images = self.plan(len(self.epochs) + 1)
        self._images[: len(images)] = torch.from_numpy(images)
        self._next.fill_(self.step)
        start = time.perf_counter()
        try:
            for source in sources[self.step :].tolist():
                self._do_step(source)
                self.step += 1
                bar.update()
                pause()
            self.check_losses()
        except torch._dynamo.exc.ShortenTraceback as error:  # of a compiler that fails or is missing
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"torch.compile cannot compile the network ({reason}): install a C++ compiler such as g++, "
                "for a GPU also Triton, or leave --compile out"
            ) from error
        finally:
            if self.data.device.type == "cuda":
                torch.cuda.synchronize(self.data.device)  # steps done are counted, and so is their time
            self.seconds += time.perf_counter() - start

    def check_losses(self) -> None:
        """Make sure that the training has not diverged.

        Raises:
            UserError: a loss of the running epoch is not finite.
        """
        wrong = (~self.losses[: self.step].isfinite()).nonzero().flatten().tolist()
        if wrong:
            epoch = len(self.epochs) + 1
            source = self.sources[self.plan(epoch)[0][wrong[0]]]
            raise UserError(
                f"the loss of {source.name} is not finite from step {wrong[0] + 1} of epoch {epoch} on, at "
                f"learning rate {self.options.lr}: use a smaller --lr; nothing was saved since"
            )

    def train(self, epochs: int, pause: Callable[[], None] = lambda: None) -> Iterator[dict]:
        """Train until a number of epochs is done, from wherever the agent stands.

        Args:
            epochs: number of epochs in all, those already done included.
            pause: is called after every step and every batch of an evaluation. If it raises, the
                agent is left in a state that `train` can go on from to the same result.

        Yields:
            after each epoch: `epoch` (from 1), `accuracy` and `balanced_accuracy` (of each scored task
            on the test images), `loss` (mean over the steps), `seconds` (of training alone) and
            `images_per_second`.

        Raises:
            UserError: a loss was not finite, or the network could not be compiled.
        """
        num_steps = self.steps_per_epoch
        done = len(self.epochs) * num_steps + self.step
        with tqdm(total=epochs * num_steps, initial=done, desc="training", unit="steps", disable=None) as bar:
            while len(self.epochs) < epochs:
                self._train_epoch(bar, pause)
                scores = self.evaluate(pause=pause)
                self.epochs.append(
                    {
                        "epoch": len(self.epochs) + 1,
                        "accuracy": scores.accuracy,
                        "balanced_accuracy": scores.balanced_accuracy,
                        "loss": self.losses.double().mean().item(),
                        "seconds": self.seconds,
                        "images_per_second": num_steps * self.options.batch_size / self.seconds,
                    }
                )
                self.step, self.seconds = 0, 0.0
                done = f"epoch {len(self.epochs)}/{epochs}"
                bar.set_postfix_str(f"{done}, accuracy {np.mean(scores.accuracy):.4f}")
                yield self.epochs[-1]

    def training_state(self) -> dict:
        """What `resume` needs beside the network; numbers, lists and tensors on the CPU.

        Which images and tasks come next follows from the seed and from how many steps have been done.
        """
        return {
            "epochs": self.epochs,
            "step": self.step,
            "losses": self.losses[: self.step].cpu(),
            "seconds": self.seconds,
        }

    def resume(self, network: dict[str, Tensor], training: dict) -> None:
        """Go on where another agent with the same data and options has left off.

        Args:
            network: state dict of its model.
            training: its `training_state`.

        Raises:
            RuntimeError: the network is another one.
        """
        self.model.load_state_dict(network)
        self.epochs = list(training["epochs"])
        self.step, self.seconds = training["step"], training["seconds"]
        self.losses[: self.step] = training["losses"].to(self.losses.device)

    def heads_of(self, tasks: Sequence[int]) -> Sequence[int]:
        """The heads that answer some scored tasks; here each task has its own."""
        return tasks

    def answers(self, logits: Tensor, tasks: Sequence[int]) -> Tensor:
        """What the model answers to each of some tasks.

        Args:
            logits: float32, heads x N x classes, of the heads of these tasks.
            tasks: numbers of scored tasks.

        Returns:
            int64, tasks x N: numbers of classes within the task.
        """
        return logits.argmax(dim=2)

    @torch.inference_mode()
    def evaluate(
        self, batch_size: int | None = None, progress: bool = False, pause: Callable[[], None] = lambda: None
    ) -> Scores:
        """Score the model on all test images.

        Args:
            batch_size: images at once; default: what is fastest. The result does not depend on it.
            progress: whether to show a bar.
            pause: is called after every batch and may raise.
        """
        self.model.eval()
        device = self.data.device
        test, encode = self.data.test, self.model.encoder.folded()
        num_pixels = test.images.shape[2] * test.images.shape[3]
        encoded = batch_size or max(1, ENCODED_AT_ONCE[device.type] * 32 * 32 // num_pixels)
        answered = batch_size or ANSWERED_AT_ONCE
        right = torch.zeros(self._asked.shape, dtype=torch.int64, device=device)
        batches = [(tasks, batch) for tasks, images in self._groups for batch in images.split(answered)]
        for tasks, batch in tqdm(batches, desc="evaluating", disable=None if progress else True):
            with self._precision():
                features = torch.cat([encode(test.batch(part)[0]) for part in batch.split(encoded)])
                logits = self.model.logits(features, self.heads_of(tasks))
            targets = self._scored[tasks][:, test.labels[batch]]
            hits = (self.answers(logits, tasks) == targets).long()
            right[tasks] = right[tasks].scatter_add(1, targets, hits)
            pause()
        right = right.cpu().double()
        recall = (right / self._asked).nan_to_num(0)  # of answers that no test image asks for: 0 / 0
        return Scores(
            accuracy=(right.sum(dim=1) / self._asked.sum(dim=1)).tolist(),
            balanced_accuracy=(recall.sum(dim=1) / (self._asked > 0).sum(dim=1)).tolist(),
        )


def _count_answers(scored: Tensor, labels: Tensor) -> Tensor:
    """How many images there are for each answer of each task.

    Args:
        scored: int64, tasks x classes.
        labels: int64, N.

    Returns:
        float64, tasks x the most answers that a task has.
    """
    num_answers = int(scored.max()) + 1
    numbers = [row[labels] for row in scored]
    return torch.stack([row[row >= 0].bincount(minlength=num_answers) for row in numbers]).double()


def _groups(scored: Tensor, labels: Tensor) -> list[tuple[list[int], Tensor]]:
    """Part the test images by the tasks that they are in, so that a batch runs the heads it needs only.

    Args:
        scored: int64, tasks x classes, on the CPU.
        labels: int64, N.

    Returns:
        pairs of tasks and the indices of the images that are in exactly these tasks.
    """
    members, group_of_class = torch.unique(scored >= 0, dim=1, return_inverse=True)
    group_of_image = group_of_class.to(labels.device)[labels]
    groups = [
        (members[:, i].nonzero().flatten().tolist(), (group_of_image == i).nonzero().flatten())
        for i in range(members.shape[1])
    ]
    return [(tasks, images) for tasks, images in groups if tasks and len(images)]


class StandardAgent(Agent):
    """Setting 0: one head over all classes."""

    def __init__(
        self,
        data: DataSet,
        options: TrainingOptions,
        names: Sequence[str] = ("all classes",),
        scored: Tensor | None = None,
    ) -> None:
        every_image = Source("all classes", torch.arange(len(data.train)), heads=(0,))
        every_class = torch.arange(data.spec.num_classes)[None]
        super().__init__(data, options, heads=every_class, sources=[every_image], names=names, scored=scored)


class StandardByTaskAgent(StandardAgent):
    """Setting 1: trained as setting 0, scored task by task."""

    def __init__(self, data: DataSet, options: TrainingOptions) -> None:
        super().__init__(data, options, names=data.spec.tasks, scored=data.tasks)

    def heads_of(self, tasks: Sequence[int]) -> Sequence[int]:
        """The one head, whatever the tasks."""
        return [0]

    def answers(self, logits: Tensor, tasks: Sequence[int]) -> Tensor:
        """The best of the task's own classes by the scores of the one head, read as the task reads it."""
        numbers = self._scored[tasks]
        best = logits.masked_fill((numbers < 0)[:, None], -torch.inf).argmax(dim=2)
        return numbers.gather(1, best)


class SingleTaskAgent(Agent):
    """Setting 2: the images and the classes of one task, one head."""

    def __init__(self, data: DataSet, options: TrainingOptions) -> None:
        name, numbers = list(data.spec.tasks)[options.task], data.tasks[options.task]
        super().__init__(
            data,
            options,
            heads=numbers[None],
            sources=[Source(name, images_of(numbers, data.train.labels), heads=(0,))],
            names=[name],
        )


def _normalised(weights: Sequence[float] | None, num_tasks: int) -> list[float]:
    """Weights of the tasks scaled to sum to 1; None stands for equal ones."""
    weights = np.ones(num_tasks) if weights is None else np.array(weights, dtype=np.float64)
    return (weights / weights.sum()).tolist()


class TaskSamplingAgent(Agent):
    """Settings 3 and 4: each step draws a task by its weight and trains the encoder and that task's head."""

    def __init__(self, data: DataSet, options: TrainingOptions) -> None:
        probabilities = _normalised(options.weights, len(data.tasks))
        sources = [
            Source(name, images_of(numbers, data.train.labels), heads=(task,), probability=probability)
            for task, (name, numbers, probability) in enumerate(
                zip(data.spec.tasks, data.tasks, probabilities, strict=True)
            )
        ]
        super().__init__(data, options, heads=data.tasks, sources=sources, names=data.spec.tasks)


class SummedLossAgent(Agent):
    """Settings 5 and 6: each step trains the encoder and all heads on the weighted sum of the task losses."""

    def __init__(self, data: DataSet, options: TrainingOptions) -> None:
        source = Source(
            "all tasks",
            torch.arange(len(data.train)),
            heads=tuple(range(len(data.tasks))),
            weights=tuple(_normalised(options.weights, len(data.tasks))),
        )
        super().__init__(data, options, heads=data.tasks, sources=[source], names=data.spec.tasks)


AGENTS = (
    StandardAgent,
    StandardByTaskAgent,
    SingleTaskAgent,
    TaskSamplingAgent,
    TaskSamplingAgent,
    SummedLossAgent,
    SummedLossAgent,
)
"""The agent of each setting."""
