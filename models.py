"""The network: one convolutional encoder, and a head for each task."""

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.utils import fuse_conv_bn_eval

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
        """Features, N x 8,192, of normalised images, float32, N x C x H x W."""
        return _pooled(self.layers(images))

    def folded(self) -> Callable[[Tensor], Tensor]:
        """The same function as `forward` in evaluation, with each normalisation folded into its convolution.

        It is faster, a copy that does not learn any more, and differs by rounding only.
        """
        layers = []
        for layer in self.layers:
            if isinstance(layer, nn.BatchNorm2d):
                layers[-1] = fuse_conv_bn_eval(layers[-1], layer)
            else:
                layers.append(layer)
        folded = nn.Sequential(*layers)
        return lambda images: _pooled(folded(images))


def _pooled(maps: Tensor) -> Tensor:
    """Maps, N x 128 x H x W, averaged to 8 x 8 and flattened: N x 8,192."""
    if maps.shape[-2:] != (POOLED_SIDE, POOLED_SIDE):  # else pooling changes nothing but takes time
        maps = F.adaptive_avg_pool2d(maps, POOLED_SIDE)
    return maps.flatten(1)


class Head(nn.Sequential):
    """Features, N x 8,192, to the logits of a task, N x classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            nn.Linear(NUM_FEATURES, NUM_HIDDEN),
            nn.BatchNorm1d(NUM_HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(NUM_HIDDEN, num_classes),
        )


class StackedHeads(nn.Module):
    """Heads of the same shape that run together, each layer of all of them as one matrix product.

    Every tensor of `stack` holds that of all heads, one after the other. The state dict is that of
    separate heads in a `nn.ModuleList`.
    """

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        """
        Args:
            heads: are copied.
        """
        super().__init__()
        self._num_heads = len(heads)
        self.stack = copy.deepcopy(heads[0])
        separate = [head.state_dict() for head in heads]
        for name, tensor in self.stack.state_dict(keep_vars=True).items():
            tensor.data = torch.stack([head[name] for head in separate])
        self.register_state_dict_post_hook(_part_heads)
        self.register_load_state_dict_pre_hook(_stack_heads)

    def __len__(self) -> int:
        return self._num_heads

    def forward(self, features: Tensor) -> Tensor:
        """Logits, heads x N x classes, of features, N x 8,192."""
        tensors = dict(self.stack.named_parameters()) | dict(self.stack.named_buffers())
        run = vmap(lambda tensors: functional_call(self.stack, tensors, features), randomness="different")
        return run(tensors)


def _part_heads(stacked: StackedHeads, state_dict: dict, prefix: str, *_: object) -> None:
    """In a state dict, replace the stacked tensors by those of each head."""
    names = list(stacked.stack.state_dict())
    tensors = {name: state_dict.pop(f"{prefix}stack.{name}") for name in names}
    for head in range(len(stacked)):
        state_dict.update({f"{prefix}{head}.{name}": tensors[name][head] for name in names})


def _stack_heads(stacked: StackedHeads, state_dict: dict, prefix: str, *_: object) -> None:
    """In a state dict that is to be loaded, replace the tensors of each head by the stacked ones."""
    for name in stacked.stack.state_dict():
        separate = [f"{prefix}{head}.{name}" for head in range(len(stacked))]
        if all(key in state_dict for key in separate):  # else loading names what is missing
            state_dict[f"{prefix}stack.{name}"] = torch.stack([state_dict.pop(key) for key in separate])


class Model(nn.Module):
    """One encoder shared by several heads (hard parameter sharing, Caruana 1997)."""

    def __init__(
        self, in_channels: int, head_sizes: Sequence[int], seed: int, all_heads_at_once: bool = False
    ) -> None:
        """
        Args:
            in_channels: number of channels of the images.
            head_sizes: number of classes of each head.
            seed: of PyTorch's default initialisation; equal encoders come from equal seeds,
                whatever the heads.
            all_heads_at_once: whether the model is only ever asked for all of its heads, in order; they
                are then stacked, if their sizes allow it.
        """
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.encoder = Encoder(in_channels)
            self.heads = nn.ModuleList(Head(size) for size in head_sizes)
        if all_heads_at_once and len(head_sizes) > 1 and len(set(head_sizes)) == 1:
            self.heads = StackedHeads(self.heads)

    def forward(self, images: Tensor, heads: Sequence[int]) -> Tensor:
        """The logits of some heads; the encoder runs once.

        Args:
            images: float32, N x C x H x W, normalised.
            heads: numbers of the heads that are to answer.

        Returns:
            float32, heads x N x the most classes that one of them has; -inf for those that a head lacks.
        """
        return self.logits(self.encoder(images), heads)

    def logits(self, features: Tensor, heads: Sequence[int]) -> Tensor:
        """What `forward` gives, from features, N x 8,192."""
        if isinstance(self.heads, StackedHeads):
            return self.heads(features).float()
        logits = [self.heads[head](features).float() for head in heads]
        width = max(each.shape[1] for each in logits)
        return torch.stack([F.pad(each, (0, width - each.shape[1]), value=-torch.inf) for each in logits])
