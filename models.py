"""The network: an encoder shared by a head for each task. `load` reads a trained one.

To add an encoder or a head, write a class and a line in ENCODERS or HEADS of settings.py.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data import resize, scale_and_shift
from errors import UserError
from options import OPTIONS
from settings import ENCODERS, HEADS, SETTINGS, look_up
from storage.checkpoint import check_inference, check_network, damaged, read_checkpoint
from storage.checks import FieldError
from storage.history import ALL_CLASSES
from tasks import DATA_SETS, DataSpec

POOLED_SIDE = 8

NUM_HIDDEN = 512

NUM_GROUPS = 8
"""Number of groups of group normalisation."""

BATCH_NORMALISATION = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class Dimensions:
    """What a network is made for.

    Attributes:
        channels: number of channels of the images.
        image_size: side of the images, in pixels.
        num_classes: number of classes of each head.
        mean: mean of each channel, or of all, of pixels from 0 to 1; images arrive as (pixel - mean) / std.
        std: their standard deviation, likewise.
    """

    channels: int
    image_size: int
    num_classes: Sequence[int]
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)


class Encoder(nn.Module):
    """Images to features: five convolutions and pooling.

    Each convolution is 3x3, followed by batch normalisation and ReLU. Any module can be an encoder if
    `num_features` is the number of its features.
    """

    num_features = 128 * POOLED_SIDE * POOLED_SIDE

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        layers = []
        in_channels = dimensions.channels
        for out_channels, stride in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1)):
            layers += [
                nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(inplace=True),
            ]
            in_channels = out_channels
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features of normalised images.

        Args:
            images: float32, N x C x H x W.

        Returns:
            N x num_features.
        """
        maps = self.layers(images)
        if maps.shape[-2:] != (POOLED_SIDE, POOLED_SIDE):  # otherwise pooling takes time and changes nothing
            maps = F.adaptive_avg_pool2d(maps, POOLED_SIDE)
        return maps.flatten(1)


class DenseEncoder(nn.Sequential):
    """The encoder and a linear layer, with batch normalisation and ReLU."""

    num_features = NUM_HIDDEN

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__(
            Encoder(dimensions),
            nn.Linear(Encoder.num_features, NUM_HIDDEN),
            nn.BatchNorm1d(NUM_HIDDEN),
            nn.ReLU(inplace=True),
        )


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2016) for small images.

    Its first convolution is 3x3 without stride, and there is no pooling after it.
    """

    num_features = 512

    def __init__(self, dimensions: Dimensions) -> None:
        from torchvision.models import resnet18  # slow to import

        super().__init__()
        self.layers = resnet18()
        self.layers.conv1 = nn.Conv2d(dimensions.channels, 64, kernel_size=3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.layers.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.layers.maxpool = nn.Identity()
        self.layers.fc = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features of normalised images: float32, N x C x H x W, to N x num_features."""
        return self.layers(images)


class Head(nn.Sequential):
    """Features, N x num_features, to logits of a task, N x classes."""

    def __init__(self, num_features: int, num_classes: int, num_hidden: int = NUM_HIDDEN) -> None:
        super().__init__(
            nn.Linear(num_features, num_hidden),
            nn.BatchNorm1d(num_hidden),
            nn.ReLU(inplace=True),
            nn.Linear(num_hidden, num_classes),
        )


class LinearHead(nn.Linear):
    """Features, N x num_features, to logits of a task, N x classes, by a linear layer."""


class Model(nn.Module):
    """One encoder shared by several heads (hard parameter sharing, Caruana 1997).

    It has no `forward`: training and scoring call `encode`, and on the features the heads that they need.

    Attributes:
        encoder: images to features. It is made first, so that equal seeds give equal encoders with any heads.
        heads: features to logits, one head per task.
    """

    def __init__(
        self,
        dimensions: Dimensions,
        encoder: Callable[[Dimensions], nn.Module] = Encoder,
        head: Callable[..., nn.Module] = Head,
        **head_options: int,
    ) -> None:
        """
        Args:
            dimensions: what the network is made for.
            encoder: makes the encoder.
            head: makes a head, from the number of features and the number of classes.
            head_options: further arguments of every head.
        """
        super().__init__()
        self.encoder = encoder(dimensions)
        num_features: Any = self.encoder.num_features  # a number that PyTorch's types do not know of
        self.heads = nn.ModuleList(
            head(num_features, size, **head_options) for size in dimensions.num_classes
        )


def takes_task(model: nn.Module) -> bool:
    """Whether the encoder of a model is told which task its images are of, by an attribute of that name."""
    return getattr(model.encoder, "takes_task", False)


def encode(model: nn.Module, images: Tensor, task: int) -> Tensor:
    """Compute the features of normalised images: float32, N x C x H x W, to N x num_features.

    Args:
        model: a model of an encoder and heads.
        images: the images.
        task: number of the head that they train or that answers; an encoder that takes the task gets it.
    """
    encoder: Any = model.encoder
    return encoder(images, task) if takes_task(model) else encoder(images)


def make_model(dimensions: Dimensions, encoder: str, head: str) -> Model:
    """Make the network of entries of ENCODERS and HEADS.

    Raises:
        UserError: an entry names no class of this file.
    """
    parts = (ENCODERS[encoder].name, "ENCODERS"), (HEADS[head].name, "HEADS")
    return Model(
        dimensions,
        *(look_up(globals(), name, "models.py", f"{table} of settings.py") for name, table in parts),
    )


def normalise_by_groups(module: nn.Module) -> None:
    """Replace each batch normalisation by group normalisation (Wu and He 2018).

    Frozen layers stay as they are.

    Raises:
        UserError: NUM_GROUPS does not divide the number of channels of a layer.
    """
    replaced: dict[nn.Module, nn.Module] = {}
    for name, layer in list(module.named_modules(remove_duplicate=False)):
        if not isinstance(layer, BATCH_NORMALISATION):
            continue
        if any(not parameter.requires_grad for parameter in layer.parameters()):
            continue
        if layer.num_features % NUM_GROUPS:
            raise UserError(
                f"--normalisation group splits channels into {NUM_GROUPS} equal groups, and a layer has "
                f"{layer.num_features}: change the layer, or leave --normalisation group out"
            )
        if layer not in replaced:
            replaced[layer] = nn.GroupNorm(NUM_GROUPS, layer.num_features, layer.eps, layer.affine)
        module.set_submodule(name, replaced[layer])


def averaging_layers(module: nn.Module) -> list[Any]:
    """Batch-norm layers that are in training mode and keep running statistics."""
    return [
        layer
        for layer in module.modules()
        if isinstance(layer, BATCH_NORMALISATION) and layer.training and layer.track_running_stats
    ]


def encode_apart(model: Model, slices: Sequence[Tensor], tasks: Sequence[int]) -> list[Tensor]:
    """Encode slices of a batch, each normalised by itself.

    Running statistics move as by one batch that has the mean of the slices' statistics, each weighted by its
    number of images. A layer would give the last slice most weight, so its momentum changes from slice to
    slice; not in an encoder that takes the task, whose layers see the slices of their task.

    Args:
        model: model whose encoder computes the features.
        slices: images of each slice.
        tasks: task of each, as `encode` takes it.
    """
    averaging = [] if takes_task(model) else averaging_layers(model.encoder)
    layers = [(layer, layer.momentum) for layer in averaging if layer.momentum is not None]
    total = sum(map(len, slices))
    left, features = 1.0, []
    try:
        for images, task in zip(slices, tasks, strict=True):
            share = len(images) / total
            left -= share  # share of the slices that follow
            for layer, momentum in layers:
                layer.momentum = momentum * share / (1 - momentum * max(left, 0.0))
            features.append(encode(model, images, task))
    finally:
        for layer, momentum in layers:
            layer.momentum = momentum
    return features


def computing_in(precision: str, device: torch.device) -> torch.autocast:
    """Context in which a network computes in `fp32` or `bf16`.

    Its weights stay as they are.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


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


def logits_of_answers(logits: Tensor, logits_of: Sequence[Sequence[int]]) -> Tensor:
    """The logits of a task's answers: of each, the log of the sum of the exponentials of its logits.

    Args:
        logits: float32, N x logits of the task's head.
        logits_of: for each answer, the numbers of its logits.

    Returns:
        float32, N x answers.
    """
    if all(len(numbers) == 1 for numbers in logits_of):
        return logits[:, [number for (number,) in logits_of]]
    return torch.stack([logits[:, list(numbers)].logsumexp(dim=1) for numbers in logits_of], dim=1)


# A trained network, as model.pt holds it

IMAGES_AT_A_TIME = 128
"""Images of 32 x 32 pixels that a classifier answers at a time; of larger ones it takes fewer."""


class Classifier(nn.Module):
    """A trained network with what it takes to use it.

    Attributes:
        network: the network.
        tasks: for each task, by name, the names of its answers in order.
        image_size: side that images are resized to, in pixels.
    """

    _scale: Tensor
    _shift: Tensor

    def __init__(self, network: Model, image_size: int, inference: dict[str, Any]) -> None:
        """
        Args:
            network: the network.
            image_size: side that it takes images of, in pixels.
            inference: what `describe_inference` returns.
        """
        super().__init__()
        self.network = network
        self.image_size = image_size
        self.tasks = {name: tuple(task["answers"]) for name, task in inference["tasks"].items()}
        self._heads_of = {name: (task["head"], task["logits"]) for name, task in inference["tasks"].items()}
        channels = len(inference["mean"])
        image = torch.empty(1, channels, image_size, image_size).to(memory_format=torch.channels_last)
        scale, shift = scale_and_shift(image, inference["mean"], inference["std"])
        self.register_buffer("_scale", scale, persistent=False)
        self.register_buffer("_shift", shift, persistent=False)

    @torch.no_grad()
    def answers(self, images: Tensor) -> dict[str, Tensor]:
        """Answer every task for some images.

        Args:
            images: uint8, N x C x H x W, on any device; they are resized and normalised as in training.

        Returns:
            by the name of each task its logits: float32, N x answers, on the device of the network. Where
            several classes have one answer, as in setting 1, its logit is the log of the sum of the
            exponentials of theirs.

        Raises:
            UserError: the images are of another type or shape.
        """
        channels, device = self._scale.shape[1], self._scale.device
        shape = tuple(getattr(images, "shape", ()))
        dtype = getattr(images, "dtype", type(images).__name__)
        if dtype != torch.uint8 or len(shape) != 4 or shape[1] != channels or 0 in shape[2:]:
            raise UserError(
                f"the images are of type {dtype} and shape {shape}: the network takes torch.uint8 and "
                f"N x {channels} x H x W"
            )
        found = {
            name: torch.empty(len(images), len(each), device=device) for name, each in self.tasks.items()
        }
        size = max(1, IMAGES_AT_A_TIME * 32 * 32 // self.image_size**2)
        for first in range(0, len(images), size):
            part = resize(images[first : first + size], self.image_size).to(device)
            inputs = part.contiguous(memory_format=torch.channels_last).float()
            inputs = inputs.mul_(self._scale).add_(self._shift)
            heads = {head for head, _ in self._heads_of.values()}
            if takes_task(self.network):
                features = {head: encode(self.network, inputs, head) for head in heads}
            else:
                features = dict.fromkeys(heads, encode(self.network, inputs, 0))
            of_head = {head: self.network.heads[head](features[head]) for head in heads}
            for name, (head, logits_of) in self._heads_of.items():
                found[name][first : first + size] = logits_of_answers(of_head[head].float(), logits_of)
        return found


def load(path: str | os.PathLike[str], network: Callable[[Dimensions], Model] | None = None) -> Classifier:
    """Load the network of a model.pt, in evaluation mode, on the CPU.

    Args:
        path: the file.
        network: makes the network, if one was passed to main(); default: that of its encoder and head.

    Raises:
        UserError: there is no such file, it holds no network of this program, or not what it takes to use it.
    """
    path = Path(path)
    checkpoint = read_checkpoint(path, OPTIONS)
    options, inference = checkpoint.options, checkpoint.inference
    try:
        if inference is None:
            inference = _published_inference(path, options)
        check_inference(inference)
    except FieldError as error:
        raise damaged(path, error) from None
    mean, std = inference["mean"], inference["std"]
    dimensions = Dimensions(len(mean), options["image_size"], inference["heads"], mean, std)
    with torch.random.fork_rng([]):  # the initial weights are not needed
        model = (
            network(dimensions) if network else make_model(dimensions, options["encoder"], options["head"])
        )
    if options["normalisation"] == "group":
        normalise_by_groups(model)
    weights = inference.get("weights", checkpoint.network)
    check_network(path, weights, model)
    model.load_state_dict(weights)
    model.to(memory_format=torch.channels_last)
    return Classifier(model, options["image_size"], inference).eval()


def describe_inference(spec: DataSpec, targets: Tensor, scored: dict[str, Tensor]) -> dict[str, Any]:
    """What it takes to use a network, besides the options of its training: plain values.

    Args:
        spec: the data set, with mean and standard deviation.
        targets: int64, heads x classes: the number of each class among the logits of each head, or -1.
        scored: by the name of each task, int64, classes: the number of each class within it, or -1. Head t
            answers task t; a single head answers all tasks.

    Returns:
        `mean` and `std` of the pixels scaled to [0, 1], per channel; `heads`: the number of logits of each
        head; `tasks`: by name, the number of its `head`, the names of its `answers`, and of each of them the
        numbers of its `logits`.
    """
    head_of = [0] * len(scored) if len(targets) == 1 else range(len(scored))
    answers_of = answers_of_logits(torch.stack(list(scored.values())), targets[list(head_of)])
    named = {ALL_CLASSES: spec.class_names, **spec.answer_names}
    tasks = {}
    for name, head, answers, numbers in zip(scored, head_of, answers_of, scored.values(), strict=True):
        count = int(numbers.max()) + 1
        names = named.get(name, ())
        tasks[name] = {
            "head": head,
            "answers": list(names if len(names) == count else map(str, range(count))),
            "logits": [(answers == answer).nonzero().flatten().tolist() for answer in range(count)],
        }
    heads = (targets.amax(dim=1) + 1).tolist()
    return {"mean": list(spec.mean), "std": list(spec.std), "heads": heads, "tasks": tasks}


def _published_inference(path: Path, options: dict[str, Any]) -> dict[str, Any]:
    """What `describe_inference` returns, for a file of an older program that does not hold it.

    Args:
        path: the file, for the error.
        options: the options of the training.

    Raises:
        UserError: its data set is not a published one.
        FieldError: it has no such task.
    """
    if not isinstance(options["data"], int):
        raise UserError(
            f"{path} was written by an older program, without the tasks, mean and standard deviation of "
            f"{options['data'].rpartition('#')[0]}: evaluate it with --eval, or train it again"
        )
    spec, setting = DATA_SETS[options["data"]], SETTINGS[options["setting"]]
    spec = spec.stand_in if options["synthetic"] else spec
    scored = {name: torch.tensor(row) for name, row in spec.tasks.items()}
    if setting.kind == "single-task":
        if not 0 <= options["task"] < len(scored):
            raise FieldError(f"options.task is {options['task']}")
        scored = dict([list(scored.items())[options["task"]]])
    targets = torch.stack(list(scored.values()))
    if setting.kind == "standard":
        targets = torch.arange(spec.num_classes)[None]
        scored = {ALL_CLASSES: targets[0]} if setting.single_score else scored
    return describe_inference(spec, targets, scored)
