"""Scores of a model on test images, one per task."""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from data import Split
from models import Model, computing_in

ENCODER_BATCH = {"cpu": 128, "cuda": 2048}
"""Images of 32 x 32 pixels in a batch of the encoder, by type of device."""

HEAD_BATCH = 2048
"""Images in a batch of the heads."""

Part = tuple[nn.Module, list[int], Tensor]
"""An encoder, tasks, and the images that it encodes for the heads of these tasks: int64 indices."""

BATCH_NORMALISATION = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class Scores:
    """Scores from 0 to 1, one per scored task.

    Attributes:
        accuracy: share of correct answers among the task's images.
        balanced_accuracy: mean over the task's answers of their recall.
    """

    accuracy: list[float]
    balanced_accuracy: list[float]


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
    ) -> Scores:
        """Score a model.

        Its mode and PyTorch's generators stay as they are.

        Args:
            model: model on the device of the images.
            precision: number format that it computes in, `fp32` or `bf16`.
            batch_size: images in a batch; default: the fastest. The scores do not depend on it.
            progress: whether to show a bar.
            pause: called after every batch; may raise.
        """
        parts = [(model.encoder, tasks, images) for tasks, images in self._groups]
        return self._score(model, parts, precision, batch_size, progress, pause)

    def with_own_statistics(
        self,
        model: Model,
        train: Split,
        batch_size: int,
        precision: str = "fp32",
        progress: bool = False,
        pause: Callable[[], None] = lambda: None,
    ) -> Scores | None:
        """Score a model with each task's own batch-norm statistics in its encoder.

        They are estimated on the task's training images. The model stays as it is.

        Args:
            model: model on the device of the images.
            train: the training images, on the same device.
            batch_size: images that are normalised together to estimate the statistics.
            precision: number format that it computes in, `fp32` or `bf16`.
            progress: whether to show a bar.
            pause: called after every batch; may raise.

        Returns:
            the scores, or None where the encoder has no batch normalisation that keeps statistics.
        """
        if not _reset_batch_norm(copy.deepcopy(model.encoder)):
            return None

        def parts() -> Iterator[Part]:
            for task, numbers in enumerate(self._tasks):
                batches = _full_batches((numbers[train.labels] >= 0).nonzero().flatten(), batch_size)
                encoder = copy.deepcopy(model.encoder)
                _reset_batch_norm(encoder)
                for batch in batches:
                    with computing_in(precision, train.labels.device):
                        encoder(train.batch(batch)[0])
                    pause()
                yield encoder.eval(), [task], (numbers[self._images.labels] >= 0).nonzero().flatten()

        return self._score(model, parts(), precision, None, progress, pause)

    @torch.inference_mode()
    def _score(
        self,
        model: Model,
        parts: Iterable[Part],
        precision: str,
        batch_size: int | None,
        progress: bool,
        pause: Callable[[], None],
    ) -> Scores:
        """Score the heads of a model on the features of parts.

        The parts are made one by one.
        """
        device = self._images.labels.device
        num_pixels = self._images.images.shape[2] * self._images.images.shape[3]
        encoded = batch_size or max(1, ENCODER_BATCH[device.type] * 32 * 32 // num_pixels)
        answered = batch_size or HEAD_BATCH
        correct = torch.zeros(self._num_images.shape, dtype=torch.int64, device=device)
        total = sum(len(images) for _, images in self._groups)
        bar = tqdm(total=total, desc="evaluating", unit="images", disable=None if progress else True)
        was_training = model.training
        model.eval()
        try:
            with bar, torch.random.fork_rng([device] if device.type == "cuda" else []):
                for encoder, tasks, images in parts:
                    for batch in images.split(answered):
                        with computing_in(precision, device):
                            inputs = [self._images.batch(part)[0] for part in batch.split(encoded)]
                            features = torch.cat([encoder(part) for part in inputs])
                            self._count(model, features, tasks, self._images.labels[batch], correct)
                        bar.update(len(batch))
                        pause()
        finally:
            model.train(was_training)
        correct = correct.cpu().double()
        recall = (correct / self._num_images).nan_to_num(0)  # 0 / 0 for answers that no image has
        return Scores(
            accuracy=(correct.sum(dim=1) / self._num_images.sum(dim=1)).tolist(),
            balanced_accuracy=(recall.sum(dim=1) / (self._num_images > 0).sum(dim=1)).tolist(),
        )

    def _count(
        self, model: Model, features: Tensor, tasks: list[int], labels: Tensor, correct: Tensor
    ) -> None:
        """Count the correct answers in some tasks.

        Args:
            model: model whose heads answer.
            features: features of the images.
            tasks: tasks to count in.
            labels: labels of the images.
            correct: int64, tasks x answers: the counts, to which these are added. An image outside a task
                adds 0.
        """
        for head in dict.fromkeys(self._head_of[task] for task in tasks):
            logits = model.heads[head](features).float()
            answered = [task for task in tasks if self._head_of[task] == head]
            answers = self._answer_of_logit[answered][:, : logits.shape[1]]
            best = logits.masked_fill((answers < 0)[:, None], -torch.inf).argmax(dim=2)
            targets = self._tasks[answered][:, labels]
            hits = (answers.gather(1, best) == targets).long()
            correct[answered] = correct[answered].scatter_add(1, targets.clamp(min=0), hits)


def _full_batches(images: Tensor, batch_size: int) -> list[Tensor]:
    """Full batches of images, in order.

    If none is full, one batch of all images.
    """
    if len(images) < batch_size:
        # Batch normalisation refuses to estimate the variance of a single value.
        return [images if len(images) > 1 else images.repeat(2)]
    return list(images[: len(images) // batch_size * batch_size].split(batch_size))


def _reset_batch_norm(encoder: nn.Module) -> bool:
    """Reset an encoder's batch-norm statistics, to estimate them again.

    Only these layers are put into training mode. The statistics become plain averages over the batches that
    the encoder gets next.

    Returns:
        whether there are such layers; those without statistics, or frozen by the encoder, do not count.
    """
    encoder.train()
    layers = [
        layer
        for layer in encoder.modules()
        if isinstance(layer, BATCH_NORMALISATION) and layer.training and layer.track_running_stats
    ]
    encoder.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    return bool(layers)


def answers_of_logits(tasks: Tensor, head_targets: Tensor) -> Tensor:
    """The answer that each logit stands for, in each task.

    Args:
        tasks: int64, T x classes: the number of each class within each task, or -1.
        head_targets: int64, T x classes: the number of each class among the logits of the task's head, or -1.

    Returns:
        int64, T x most logits: the number, within the task, of the class of each logit, or -1.
    """
    read = torch.full((len(tasks), int(head_targets.max()) + 1), -1)
    for row, numbers, logits in zip(read, tasks, head_targets, strict=True):
        row[logits[logits >= 0]] = numbers[logits >= 0]
    return read


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
