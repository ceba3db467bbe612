"""Scores of a model on test images, one per task.

The images are normalised as usual, with the running statistics that training leaves behind, or as trained,
with statistics estimated again from batches like those of a training step.
"""

import base64
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from data import Split
from models import (
    Model,
    answers_of_logits,
    averaging_layers,
    computing_in,
    encode,
    logits_of_answers,
    takes_task,
)
from sampling import Plan, Source

ENCODER_BATCH = {"cpu": 128, "cuda": 2048}
"""Images of 32 x 32 pixels in a batch of the encoder, by type of device."""

HEAD_BATCH = 2048
"""Images in a batch of the heads."""

MOST_LOGITS = 2**24
"""Logits, each counted once for every task of a head, that are compared at a time."""

Part = tuple[list[int], Tensor]
"""Tasks, and the images that are scored in them: int64 indices."""


Answered = tuple[Tensor, Tensor, Tensor]
"""Images of a task, on the CPU: their indices, int64, n; the logits of its answers, n x answers; the answers
that are given, int64, n."""


@dataclass(frozen=True)
class Scores:
    """Scores from 0 to 1, one per scored task.

    Attributes:
        accuracy: share of correct answers among the task's images.
        balanced_accuracy: mean over the task's answers of their recall.
        loss: mean cross-entropy of the task's answers; the probability of an answer is the sum over its
            classes; None where it is not finite.
        right: which of the task's images are answered correctly, in order: base64 of `numpy.packbits`.
    """

    accuracy: list[float]
    balanced_accuracy: list[float]
    loss: list[float | None]
    right: list[str]


@dataclass(frozen=True)
class Prediction:
    """What is answered in one task.

    Attributes:
        indices: int64, n, ascending: the task's images among those that are scored.
        logits: float32, n x answers: the logit of each answer; where several classes have one answer, the log
            of the sum of the exponentials of theirs.
        answers: int64, n: the answer that is given, which is that of the class with the highest logit.
        labels: int64, n: the correct answer.
    """

    indices: Tensor
    logits: Tensor
    answers: Tensor
    labels: Tensor


class Scorer:
    """Scores models on given images.

    The answer of a head is its highest logit among those of the task's classes.

    Attributes:
        constant_accuracy: for each task, the accuracy of always giving its commonest answer.
        num_answers: number of answers of each task.
    """

    def __init__(self, images: Split, tasks: Tensor, head_targets: Tensor) -> None:
        """
        Args:
            images: images to score on.
            tasks: int64, T x classes, on the CPU: the number of each class within each task, or -1.
            head_targets: int64, heads x classes, on the CPU: the number of each class among the logits of
                each head, or -1. Head t answers task t; a single head answers all tasks.
        """
        device = images.labels.device
        self._images = images
        self._tasks = tasks.to(device)
        self._head_of = [0] * len(tasks) if len(head_targets) == 1 else range(len(tasks))
        self._answer_of_logit = answers_of_logits(tasks, head_targets[self._head_of]).to(device)
        self._groups = _groups(tasks, images.labels)
        self._num_images = _count_answers(tasks, images.labels.cpu())
        self.constant_accuracy = (self._num_images.amax(dim=1) / self._num_images.sum(dim=1)).tolist()
        self.num_answers = (tasks.amax(dim=1) + 1).tolist()

    def __call__(
        self,
        model: Model,
        precision: str = "fp32",
        batch_size: int | None = None,
        progress: bool = False,
        pause: Callable[[], None] = lambda: None,
        predictions: list[Prediction] | None = None,
    ) -> Scores:
        """Score a model.

        Its mode and PyTorch's generators stay as they are.

        Args:
            model: model on the device of the images.
            precision: number format that it computes in, `fp32` or `bf16`.
            batch_size: images in a batch; default: the fastest. The scores do not depend on it.
            progress: whether to show a bar.
            pause: called after every batch; may raise.
            predictions: a list that gets what is answered in each task.
        """
        groups = (part for part in self._groups)
        if predictions is None:
            return self._score(model, groups, precision, batch_size, progress, pause)
        found: list[list[Answered]] = [[] for _ in self._tasks]
        scores = self._score(model, groups, precision, batch_size, progress, pause, found)
        predictions += [
            self._prediction(task, *map(torch.cat, zip(*parts, strict=True)))
            for task, parts in enumerate(found)
        ]
        return scores

    def as_trained(
        self,
        model: Model,
        train: Split,
        plan: Plan,
        precision: str = "fp32",
        progress: bool = False,
        pause: Callable[[], None] = lambda: None,
    ) -> Scores | None:
        """Score a model with batch-norm statistics of batches like those of its training.

        The model and PyTorch's generators stay as they are.

        Args:
            model: model on the device of the images.
            train: the training images, on the same device.
            plan: lays the batches out.
            precision: number format that it computes in, `fp32` or `bf16`.
            progress: whether to show a bar.
            pause: called after every batch; may raise.

        Returns:
            the scores, or None where no layer that an image passes has running statistics.
        """
        was_training = model.training
        layers = averaging_layers(model.train())  # without those that the network freezes
        model.train(was_training)

        def is_estimated(module: nn.Module) -> bool:
            return any(layer is each for each in module.modules() for layer in layers)

        passed = [model.encoder, *(model.heads[head] for head in dict.fromkeys(self._head_of))]
        if not any(map(is_estimated, passed)):
            return None
        encoder: list[nn.Module] = [model.encoder] if is_estimated(model.encoder) else []

        def show(batches: Iterable[np.ndarray], heads: Sequence[nn.Module] = (), task: int = 0) -> None:
            # Once for all batches, as the context keeps the weights that it has cast.
            with computing_in(precision, train.labels.device):
                for indices in batches:
                    images = train.batch(torch.from_numpy(indices).to(train.labels.device))[0]
                    features = encode(model, images, task)
                    for head in heads:
                        head(features)
                    pause()

        def parts_of(sources: list[Source], batches: np.ndarray, own_encoder: bool) -> Generator[Part]:
            numbers = dict.fromkeys(head for source in sources for head in source.heads)
            tasks = {task for task, head in enumerate(self._head_of) if head in numbers}
            heads = list(filter(is_estimated, (model.heads[number] for number in numbers)))
            estimated = heads + encoder * own_encoder
            with _estimating(layers, estimated) as settle:
                show(batches if tasks and estimated else (), heads, sources[0].heads[0])
                settle()
                for scored, images in self._groups:
                    if both := [task for task in scored if task in tasks]:
                        targets = self._tasks[both][:, self._images.labels[images]]
                        yield both, images[(targets >= 0).any(dim=0)]

        def parts() -> Generator[Part]:
            mixed = plan.mixed_batches()
            with _estimating(layers, encoder if mixed is not None else []) as settle:
                show(mixed if mixed is not None and encoder else ())
                settle()
                for together, batches in plan.separate_batches():
                    for sources in [[each] for each in together] if takes_task(model) else [together]:
                        yield from parts_of(sources, batches, own_encoder=mixed is None)

        return self._score(model, parts(), precision, None, progress, pause)

    @torch.inference_mode()
    def _score(
        self,
        model: Model,
        parts: Generator[Part],
        precision: str,
        batch_size: int | None,
        progress: bool,
        pause: Callable[[], None],
        found: list[list[Answered]] | None = None,
    ) -> Scores:
        """Score the heads of a model on parts, which are made one by one, and end with the scoring."""
        device = self._images.labels.device
        num_pixels = self._images.images.shape[2] * self._images.images.shape[3]
        encoded = batch_size or max(1, ENCODER_BATCH[device.type] * 32 * 32 // num_pixels)
        answered = batch_size or HEAD_BATCH
        right = torch.zeros(len(self._tasks), len(self._images), dtype=torch.bool, device=device)
        losses = torch.zeros(len(self._tasks), dtype=torch.float64, device=device)
        total = sum(len(images) for _, images in self._groups)
        bar = tqdm(total=total, desc="evaluating", unit="images", disable=None if progress else True)
        was_training = model.training
        model.eval()
        try:
            with bar, torch.random.fork_rng([device] if device.type == "cuda" else []), closing(parts):
                for tasks, images in self._by_task(parts) if takes_task(model) else parts:
                    for batch in images.split(answered):
                        with computing_in(precision, device):
                            inputs = [self._images.batch(part)[0] for part in batch.split(encoded)]
                            head = self._head_of[tasks[0]]
                            features = torch.cat([encode(model, part, head) for part in inputs])
                            self._answer(model, features, tasks, batch, right, losses, found)
                        bar.update(len(batch))
                        pause()
        finally:
            model.train(was_training)
        return self._scores(right.cpu(), losses.cpu())

    def _by_task(self, parts: Iterable[Part]) -> Generator[Part]:
        """The same parts, with one task in each."""
        for tasks, images in parts:
            for task in tasks:
                members = images[self._tasks[task][self._images.labels[images]] >= 0]
                if len(members):
                    yield [task], members

    def _answer(
        self,
        model: Model,
        features: Tensor,
        tasks: list[int],
        images: Tensor,
        right: Tensor,
        losses: Tensor,
        found: list[list[Answered]] | None,
    ) -> None:
        """Answer some tasks.

        Args:
            model: model whose heads answer.
            features: features of the images.
            tasks: tasks to answer.
            images: int64, indices of the images.
            right: bool, tasks x images: gets which answers are correct.
            losses: float64, tasks: gets the cross-entropies added.
            found: gets what is answered in each task, if it is not None.
        """
        for head in dict.fromkeys(self._head_of[task] for task in tasks):
            logits = model.heads[head](features).float()
            of_head = [task for task in tasks if self._head_of[task] == head]
            count = max(1, MOST_LOGITS // logits.numel())
            for first in range(0, len(of_head), count):
                answered = of_head[first : first + count]
                answers = self._answer_of_logit[answered][:, None, : logits.shape[1]]
                possible = logits.masked_fill(answers < 0, -torch.inf)
                targets = self._tasks[answered][:, self._images.labels[images], None]  # -1 outside of a task
                best = possible.argmax(dim=2, keepdim=True)
                given = answers.expand_as(possible).gather(2, best)
                right[torch.tensor(answered, device=images.device)[:, None], images] = (
                    given == targets
                ).squeeze(2)
                of_answer = possible.masked_fill(answers != targets, -torch.inf).logsumexp(dim=2)
                entropies = (possible.logsumexp(dim=2) - of_answer).masked_fill(targets[:, :, 0] < 0, 0)
                losses[answered] += entropies.sum(dim=1, dtype=torch.float64)
                if found is None:
                    continue
                for row, task in enumerate(answered):
                    own = targets[row, :, 0] >= 0
                    of_answers = logits_of_answers(logits[own], self._logits_of(task))
                    found[task].append((images[own].cpu(), of_answers.cpu(), given[row, own, 0].cpu()))

    def _logits_of(self, task: int) -> list[list[int]]:
        """For each answer of a task, the numbers of its logits."""
        answers = self._answer_of_logit[task]
        return [(answers == each).nonzero().flatten().tolist() for each in range(self.num_answers[task])]

    def _prediction(self, task: int, indices: Tensor, logits: Tensor, answers: Tensor) -> Prediction:
        """What is answered in a task, from its images in any order; on the CPU."""
        order = indices.argsort()
        labels = self._tasks[task].cpu()[self._images.labels.cpu()[indices[order]]]
        return Prediction(indices[order], logits[order], answers[order], labels)

    def _scores(self, right: Tensor, losses: Tensor) -> Scores:
        """The scores of answers: bool, tasks x images, and float64, tasks; both on the CPU."""
        labels, tasks = self._images.labels.cpu(), self._tasks.cpu()
        correct = torch.zeros(self._num_images.shape, dtype=torch.float64)
        bits = []
        for counts, row, targets in zip(correct, right, tasks[:, labels], strict=True):
            counts += targets[row].bincount(minlength=len(counts))
            packed = np.packbits(row[targets >= 0].numpy())
            bits.append(base64.b64encode(packed.tobytes()).decode())
        recall = (correct / self._num_images).nan_to_num(0)  # 0 / 0 for answers that no image has
        totals = self._num_images.sum(dim=1)
        return Scores(
            accuracy=(correct.sum(dim=1) / totals).tolist(),
            balanced_accuracy=(recall.sum(dim=1) / (self._num_images > 0).sum(dim=1)).tolist(),
            loss=[loss if math.isfinite(loss) else None for loss in (losses / totals).tolist()],
            right=bits,
        )


@contextmanager
def _estimating(layers: Sequence[Any], modules: Iterable[nn.Module]) -> Iterator[Callable[[], None]]:
    """Estimate the batch-norm statistics of modules again, and restore them afterwards.

    Statistics become plain averages over the batches that the modules get until the function that is yielded
    is called.

    Args:
        layers: the layers whose statistics may be estimated.
        modules: modules in evaluation mode; of these layers, they have some.
    """
    inside = {id(each) for module in modules for each in module.modules()}
    estimated = [layer for layer in layers if id(layer) in inside]
    before = [
        (layer.momentum, [buffer.clone() for buffer in layer.buffers(recurse=False)]) for layer in estimated
    ]

    def settle() -> None:
        for layer in estimated:
            layer.eval()

    try:
        for layer in estimated:
            layer.reset_running_stats()
            layer.momentum = None
            layer.train()
        yield settle
    finally:
        settle()
        for layer, (momentum, buffers) in zip(estimated, before, strict=True):
            layer.momentum = momentum
            for buffer, value in zip(layer.buffers(recurse=False), buffers, strict=True):
                buffer.copy_(value)


def _count_answers(tasks: Tensor, labels: Tensor) -> Tensor:
    """The number of images of each answer of each task.

    Args:
        tasks: int64, T x classes.
        labels: int64, N.

    Returns:
        float64, T x most answers of a task.
    """
    num_answers = int(tasks.max()) + 1
    numbers = [row[labels] for row in tasks]
    return torch.stack([row[row >= 0].bincount(minlength=num_answers) for row in numbers]).double()


def _groups(tasks: Tensor, labels: Tensor) -> list[tuple[list[int], Tensor]]:
    """Group the images by the tasks that they belong to.

    A batch of a group runs only the heads that it needs. Images that belong to tasks in more ways than there
    are tasks are one group, as many small batches would take longer.

    Args:
        tasks: int64, T x classes, on the CPU.
        labels: int64, N.

    Returns:
        pairs of tasks and the indices of the images that belong to exactly these tasks, or to any of them.
    """
    members, group_of_class = torch.unique(tasks >= 0, dim=1, return_inverse=True)
    if members.shape[1] > len(tasks) + 1:  # one way may be to belong to none
        group_of_class = members.any(dim=0)[group_of_class].long()
        members = torch.tensor([[False, True]]).expand(len(tasks), 2)
    group_of_image = group_of_class.to(labels.device)[labels]
    groups = [
        (members[:, i].nonzero().flatten().tolist(), (group_of_image == i).nonzero().flatten())
        for i in range(members.shape[1])
    ]
    return [(tasks, images) for tasks, images in groups if tasks and len(images)]
