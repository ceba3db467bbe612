"""The network: an encoder shared by a head for each task.

To add an encoder or a head, write a class and a line in ENCODERS or HEADS of settings.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from errors import UserError
from settings import ENCODERS, HEADS, look_up

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
    """

    channels: int
    image_size: int
    num_classes: Sequence[int]


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

    It has no `forward`: training and scoring call the encoder, and on its features the heads that they need.

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

    Raises:
        UserError: NUM_GROUPS does not divide the number of channels of a layer.
    """
    replaced: dict[nn.Module, nn.Module] = {}
    for name, layer in list(module.named_modules(remove_duplicate=False)):
        if not isinstance(layer, BATCH_NORMALISATION):
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


def encode_apart(encoder: nn.Module, slices: Sequence[Tensor]) -> list[Tensor]:
    """Encode slices of a batch, each normalised by itself.

    Running statistics move as by one batch that has the mean of the slices' statistics, each weighted by its
    number of images. A layer would give the last slice most weight, so its momentum changes from slice to
    slice.
    """
    layers = [(layer, layer.momentum) for layer in averaging_layers(encoder) if layer.momentum is not None]
    total = sum(map(len, slices))
    left, features = 1.0, []
    try:
        for images in slices:
            share = len(images) / total
            left -= share  # share of the slices that follow
            for layer, momentum in layers:
                layer.momentum = momentum * share / (1 - momentum * max(left, 0.0))
            features.append(encoder(images))
    finally:
        for layer, momentum in layers:
            layer.momentum = momentum
    return features


def computing_in(precision: str, device: torch.device) -> torch.autocast:
    """Context in which a network computes in `fp32` or `bf16`.

    Its weights stay as they are.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
