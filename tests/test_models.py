"""The network against its definition."""

import pytest
import torch
from torch import nn

from models import Dimensions, Encoder, Model


def convolutions(module: nn.Module) -> list[tuple]:
    return [
        (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d)
    ]


@pytest.mark.released
@pytest.mark.parametrize("channels", [1, 3])
def test_the_encoder_has_the_five_convolutions_each_followed_by_normalisation_and_relu(channels):
    encoder = Encoder(Dimensions(channels, 32, []))
    three, one = (3, 3), (1, 1)
    assert convolutions(encoder) == [
        (channels, 32, three, one, one),
        (32, 64, three, (2, 2), one),
        (64, 64, three, one, one),
        (64, 128, three, (2, 2), one),
        (128, 128, three, one, one),
    ]
    kinds = [type(layer) for layer in encoder.layers]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 5


@pytest.mark.parametrize("size", [1, 8, 32, 33, 105])
def test_images_of_any_size_give_8192_features_and_an_answer_per_class(size):
    model = Model(Dimensions(3, 32, [2, 5])).eval()
    images = torch.randn(2, 3, size, size)
    features = model.encoder(images)
    assert features.shape == (2, 8192)
    assert [tuple(head(features).shape) for head in model.heads] == [(2, 2), (2, 5)]


def test_pooling_averages_the_maps_to_8_by_8_and_changes_nothing_at_size_32():
    encoder = Encoder(Dimensions(3, 32, [])).eval()
    for size in (32, 64, 50):
        images = torch.randn(2, 3, size, size)
        maps = encoder.layers(images)
        pooled = nn.AdaptiveAvgPool2d(8)(maps)
        assert torch.equal(encoder(images), pooled.flatten(1))
    assert maps.shape[-1] != 8


@pytest.mark.released
def test_a_head_is_linear_normalisation_relu_linear():
    (head,) = Model(Dimensions(3, 32, [5])).heads
    assert [type(layer) for layer in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert head[0].weight.shape == (512, 8192)
    assert head[3].weight.shape == (5, 512)


def test_each_head_has_weights_of_its_own():
    one, other = Model(Dimensions(1, 32, [3, 3])).heads
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


def test_a_model_has_no_forward_that_training_would_pass_by():
    with pytest.raises(NotImplementedError):
        Model(Dimensions(1, 8, [2]))(torch.randn(2, 1, 8, 8))
