"""The network: one convolutional encoder, and a head for each task."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POOLED_SIDE = 8
NUM_FEATURES = 128 * POOLED_SIDE * POOLED_SIDE
NUM_HIDDEN = 512


class Encoder(nn.Module):
    """Images to features: five 3x3 convolutions, each with batch normalisation and ReLU, and pooling."""

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
        """Features, float32, N x 8,192, of normalised images, float32, N x C x H x W."""
        maps = self.layers(images)
        if maps.shape[-2:] != (POOLED_SIDE, POOLED_SIDE):  # else pooling changes nothing but takes time
            maps = F.adaptive_avg_pool2d(maps, POOLED_SIDE)
        return maps.flatten(1)


class Head(nn.Sequential):
    """Features, float32, N x 8,192, to the logits of a task, float32, N x classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            nn.Linear(NUM_FEATURES, NUM_HIDDEN),
            nn.BatchNorm1d(NUM_HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(NUM_HIDDEN, num_classes),
        )


class Model(nn.Module):
    """One encoder shared by several heads (hard parameter sharing, Caruana 1997)."""

    def __init__(self, in_channels: int, head_sizes: Sequence[int], seed: int) -> None:
        """
        Args:
            in_channels: number of channels of the images.
            head_sizes: number of classes of each head.
            seed: of PyTorch's default initialisation; equal encoders come from equal seeds,
                whatever the heads.
        """
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.encoder = Encoder(in_channels)
            self.heads = nn.ModuleList(Head(size) for size in head_sizes)

    def forward(self, images: Tensor, heads: Sequence[int]) -> list[Tensor]:
        """The logits of some heads; the encoder runs once.

        Args:
            images: float32, N x C x H x W, normalised.
            heads: numbers of the heads that are to answer.

        Returns:
            per head, in the order asked for, float32, N x its classes.
        """
        features = self.encoder(images)
        return [self.heads[head](features) for head in heads]
