"""The network: one convolutional encoder shared by a head for each task."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POOLED_SIDE = 8


class Encoder(nn.Module):
    """Images to features: five convolutions and pooling.

    Each convolution is 3x3, followed by batch normalisation and ReLU. Any module can be an encoder if
    `num_features` is the number of its features.
    """

    num_features = 128 * POOLED_SIDE * POOLED_SIDE

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        layers = []
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


class Head(nn.Sequential):
    """Features, N x num_features, to logits of a task, N x classes."""

    def __init__(self, num_features: int, num_classes: int, num_hidden: int = 512) -> None:
        super().__init__(
            nn.Linear(num_features, num_hidden),
            nn.BatchNorm1d(num_hidden),
            nn.ReLU(inplace=True),
            nn.Linear(num_hidden, num_classes),
        )


class Model(nn.Module):
    """One encoder shared by several heads (hard parameter sharing, Caruana 1997).

    It has no `forward`: training and scoring call the encoder, and on its features the heads that they need.

    Attributes:
        encoder: images to features. It is made first, so that equal seeds give equal encoders with any heads.
        heads: features to logits, one head per task.
    """

    def __init__(
        self,
        in_channels: int,
        head_sizes: Sequence[int],
        encoder: Callable[[int], nn.Module] | None = None,
        **head_options: int,
    ) -> None:
        """
        Args:
            in_channels: number of channels of the images.
            head_sizes: number of classes of each head.
            encoder: makes the encoder, from the number of channels; default: Encoder.
            head_options: further arguments of every head.
        """
        super().__init__()
        self.encoder = (encoder or Encoder)(in_channels)
        num_features: Any = self.encoder.num_features  # a number that PyTorch's types do not know of
        self.heads = nn.ModuleList(Head(num_features, size, **head_options) for size in head_sizes)


def computing_in(precision: str, device: torch.device) -> torch.autocast:
    """Context in which a network computes in `fp32` or `bf16`.

    Its weights stay as they are.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
