"""The network against its definition."""

import pytest
import torch
from torch import nn

from models import NUM_FEATURES, Encoder, Model, StackedHeads


@pytest.fixture(autouse=True, scope="module")
def narrow_heads():
    """Not here: these tests are of the network as it is."""


def convolutions(module: nn.Module) -> list[tuple]:
    return [
        (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d)
    ]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_encoder_has_the_five_convolutions_each_followed_by_normalisation_and_relu(channels):
    encoder = Encoder(channels)
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
    model = Model(3, [2, 5], seed=0).eval()
    images = torch.randn(2, 3, size, size)
    assert model.encoder(images).shape == (2, 8192)
    assert [tuple(model(images, [head]).shape) for head in (1, 0)] == [(1, 2, 5), (1, 2, 2)]


def test_pooling_averages_the_maps_to_8_by_8_and_changes_nothing_at_size_32():
    encoder = Encoder(3).eval()
    for size in (32, 64, 50):
        images = torch.randn(2, 3, size, size)
        maps = encoder.layers(images)
        pooled = nn.AdaptiveAvgPool2d(8)(maps)
        assert torch.equal(encoder(images), pooled.flatten(1))
    assert maps.shape[-1] != 8


def test_a_head_is_linear_normalisation_relu_linear():
    (head,) = Model(3, [5], seed=0).heads
    assert [type(layer) for layer in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert head[0].weight.shape == (512, NUM_FEATURES)
    assert head[3].weight.shape == (5, 512)


def test_equal_seeds_give_equal_encoders_whatever_the_heads_and_other_seeds_others():
    def first_weights(sizes, seed):
        torch.manual_seed(17 + len(sizes))  # global state that must not matter
        return Model(3, sizes, seed).encoder.layers[0].weight

    assert torch.equal(first_weights([2], 3), first_weights([4, 5], 3))
    assert not torch.equal(first_weights([2], 3), first_weights([2], 4))


def test_building_a_model_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    Model(1, [2], seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_each_head_has_weights_of_its_own():
    model = Model(1, [3, 3], seed=0)
    assert not torch.equal(model.heads[0][0].weight, model.heads[1][0].weight)


def learnt(model: nn.Module) -> nn.Module:
    """The model with statistics and scales as after some training, each number another."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("num_batches_tracked"):
                tensor.random_(100)
            elif tensor.ndim == 1:
                tensor.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize("size", [32, 50])
@torch.no_grad()
def test_folding_the_normalisation_changes_no_feature(size):
    encoder = learnt(Encoder(3)).eval()
    images = torch.randn(4, 3, size, size)
    expected = encoder(images)
    before = [tensor.clone() for tensor in encoder.state_dict().values()]
    torch.testing.assert_close(encoder.folded()(images), expected, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(*pair) for pair in zip(encoder.state_dict().values(), before, strict=True))
    assert expected.std() > 0.1


@pytest.mark.parametrize("training", [True, False])
def test_stacked_heads_do_what_separate_heads_do(training):
    torch.manual_seed(0)
    separate = learnt(Model(3, [4] * 3, seed=0)).train(training)
    stacked = Model(3, [4] * 3, seed=1, all_heads_at_once=True).train(training)
    assert isinstance(stacked.heads, StackedHeads)
    stacked.load_state_dict(separate.state_dict())
    images, weights = torch.randn(6, 3, 32, 32), torch.randn(3, 6, 4)
    results = []
    for model in (separate, stacked):
        logits = model(images, range(3))
        (logits * weights).sum().backward()
        results.append(logits)
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
    assert results[0].shape == (3, 6, 4)
    torch.testing.assert_close(stacked.state_dict(), separate.state_dict(), rtol=1e-4, atol=1e-4)
    assert list(stacked.state_dict()) == list(separate.state_dict())
    gradients = [dict(model.named_parameters()) for model in (separate, stacked)]
    for name in ("0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"):
        expected = torch.stack([gradients[0][f"heads.{head}.{name}"].grad for head in range(3)])
        got = gradients[1][f"heads.stack.{name}"].grad
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)
    for one, other in zip(separate.encoder.parameters(), stacked.encoder.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-3)


def test_stacked_heads_start_as_separate_heads_of_the_same_seed_do():
    separate, stacked = (Model(3, [2] * 3, seed=4, all_heads_at_once=at_once) for at_once in (False, True))
    for one, other in zip(separate.state_dict().values(), stacked.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("sizes", [[2] * 2, [2] * 4, [3] * 3])
def test_stacked_heads_refuse_a_state_of_other_heads(sizes):
    stacked = Model(3, [2] * 3, seed=0, all_heads_at_once=True)
    with pytest.raises(RuntimeError, match="heads"):
        stacked.load_state_dict(Model(3, sizes, seed=0).state_dict())


@pytest.mark.parametrize("at_once", [True, False])
def test_heads_of_different_sizes_answer_together_and_nothing_for_what_they_lack(at_once):
    model = Model(1, [2, 5, 3], seed=0, all_heads_at_once=at_once).eval()
    images = torch.randn(4, 1, 32, 32)
    logits = model(images, [0, 1, 2])
    assert logits.shape == (3, 4, 5)
    for head, size in enumerate((2, 5, 3)):
        assert torch.equal(logits[head, :, :size], model(images, [head])[0])
        assert (logits[head, :, size:] == -torch.inf).all()
    torch.logsumexp(logits, dim=2).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_the_encoder_runs_once_however_many_heads_answer():
    model = Model(1, [2] * 5, seed=0).eval()
    calls = []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    model(torch.randn(2, 1, 8, 8), range(5))
    assert len(calls) == 1
