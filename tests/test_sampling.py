"""Which tasks and images the steps take.

Frequencies, orders, and that any epoch can be entered.
"""

from dataclasses import replace

import numpy as np
import pytest
from helpers import make

from sampling import Plan, Source, Stream


def test_a_single_task_trains_on_its_own_images(whole_cifar100):
    plan = make(2, whole_cifar100, task=7).plan
    assert set(plan.sampled(1).ravel().tolist()) == {0}
    labels = whole_cifar100.train.labels[plan.indices(1)]
    assert (whole_cifar100.tasks[7][labels] >= 0).all()
    assert len(np.unique(plan.indices(1))) == 160


@pytest.mark.parametrize("setting", [0, 1, 3, 4, 5, 6])
def test_an_epoch_has_as_many_steps_as_full_batches_in_a_pass_over_every_task(cifar10, setting):
    batch_size = 48  # does not divide the 320 images
    plan = make(setting, cifar10, batch_size=batch_size).plan
    passes = 10 if setting in (3, 4) else 1
    assert (
        len(plan.sampled(1)) == len(plan.indices(1)) == plan.steps_per_epoch == passes * (320 // batch_size)
    )


@pytest.mark.parametrize(
    ("setting", "weights"),
    [(3, None), (4, list(range(1, 21))), (4, [0] * 10 + [1] * 5 + [7] * 5)],
    ids=["uniform", "rising", "given"],
)
@pytest.mark.parametrize("count", [1, 4])
def test_tasks_are_drawn_as_often_as_their_weights_say(whole_cifar100, setting, weights, count):
    plan = make(setting, whole_cifar100, batch_size=2 * count, weights=weights, tasks_per_step=count).plan
    assert plan.sampled(1).shape == (20 * (160 // (2 * count)), count)
    drawn = np.concatenate([plan.sampled(epoch).ravel() for epoch in range(1, 11)])
    share = np.ones(20) / 20 if weights is None else np.array(weights) / sum(weights)
    expected = share * len(drawn)
    assert len(drawn) == 16_000
    deviation = np.abs(np.bincount(drawn, minlength=20) - expected)
    assert (deviation <= 4 * np.sqrt(expected)).all()


def sources(sizes: list[int]) -> list[Source]:
    """Sources of different images, equally likely."""
    starts = np.cumsum([0, *sizes])
    return [
        Source(f"task {i}", np.arange(start, start + size), heads=(i,), probability=1 / len(sizes))
        for i, (start, size) in enumerate(zip(starts, sizes, strict=False))
    ]


@pytest.mark.parametrize("sources_per_step", [1, 2, 4])
def test_each_slice_of_a_batch_is_of_the_source_drawn_for_it(sources_per_step):
    plan = Plan(sources([50, 30, 70]), batch_size=8, seed=1, sources_per_step=sources_per_step)
    assert plan.steps_per_epoch == 6 + 3 + 8
    for epoch in (1, 3):
        drawn = np.repeat(plan.sampled(epoch), 8 // sources_per_step, axis=1)
        of_image = np.searchsorted([50, 80], plan.indices(epoch), side="right")
        assert plan.indices(epoch).shape == (17, 8)
        assert np.array_equal(of_image, drawn)


@pytest.mark.parametrize("sources_per_step", [1, 4])
def test_a_source_goes_on_in_a_later_epoch_where_it_was_left(sources_per_step):
    slice_size = 8 // sources_per_step
    plan = Plan(sources([50, 30, 70]), batch_size=8, seed=1, sources_per_step=sources_per_step)
    shown: dict[int, list[list[int]]] = {0: [], 1: [], 2: []}
    for epoch in range(1, 8):
        slices = plan.indices(epoch).reshape(-1, slice_size)
        for source, images in zip(plan.sampled(epoch).ravel(), slices, strict=True):
            shown[int(source)].append(images.tolist())
    for source, size in enumerate([50, 30, 70]):
        per_pass = size // slice_size
        for start in range(0, len(shown[source]) - per_pass + 1, per_pass):
            images = sum(shown[source][start : start + per_pass], [])
            assert len(images) == len(set(images)) == per_pass * slice_size
        assert len(shown[source]) > per_pass


def test_sources_drawn_in_one_step_are_drawn_independently():
    plan = Plan(sources([400, 400]), batch_size=4, seed=0, sources_per_step=2)
    first, second = np.concatenate([plan.sampled(epoch) for epoch in range(1, 21)]).T
    assert len(first) == 4000
    assert abs(np.mean(first == second) - 0.5) < 4 * 0.5 / np.sqrt(4000)


def test_probabilities_count_in_proportion():
    whole = [
        replace(source, probability=share) for source, share in zip(sources([50] * 3), (2, 0, 6), strict=True)
    ]
    plan = Plan(whole, batch_size=2, seed=0)
    drawn = np.concatenate([plan.sampled(epoch).ravel() for epoch in range(1, 21)])
    counts = np.bincount(drawn, minlength=3)
    assert counts[1] == 0
    assert abs(counts[0] / len(drawn) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(drawn))


def test_a_single_stream_shows_every_image_once_an_epoch(whole_cifar100):
    plan = make(0, whole_cifar100).plan
    orders = [plan.indices(epoch).ravel().tolist() for epoch in (1, 2)]
    for images in orders:
        assert sorted(images) == list(range(3200))
    assert orders[0] != orders[1]


def test_another_seed_gives_another_order_of_images_and_of_tasks(whole_cifar100):
    one, other = (make(3, whole_cifar100, seed=seed).plan for seed in (0, 1))
    assert not np.array_equal(one.sampled(1), other.sampled(1))
    assert not np.array_equal(one.indices(1), other.indices(1))
    assert not np.array_equal(one.sampled(1), one.sampled(2))


@pytest.mark.parametrize(("num_images", "batch_size"), [(12, 4), (13, 4), (5, 5), (9, 2)])
def test_a_pass_shows_every_image_at_most_once_and_leaves_out_less_than_a_batch(num_images, batch_size):
    images = np.arange(100, 100 + num_images)
    stream = Stream(images, batch_size, key=(0, 0, 0))
    assert stream.batches_per_pass == num_images // batch_size
    for number in range(4):
        shown = stream.batches(number * stream.batches_per_pass, stream.batches_per_pass).flatten().tolist()
        assert len(set(shown)) == len(shown) == num_images // batch_size * batch_size
        assert set(shown) <= set(images.tolist())


def test_passes_are_shuffled_anew_and_in_the_end_show_every_image():
    stream = Stream(np.arange(13), 4, key=(0, 0, 0))
    passes = [stream.batches(3 * number, 3).flatten().tolist() for number in range(30)]
    assert len({tuple(shown) for shown in passes}) == 30
    assert {image for shown in passes for image in shown} == set(range(13))


def test_a_stream_can_be_entered_anywhere():
    stream = Stream(np.arange(13), 4, key=(0, 0, 0))
    whole = stream.batches(0, 20)
    for start in range(20):
        for count in range(20 - start):
            assert np.array_equal(stream.batches(start, count), whole[start : start + count])


def test_streams_with_other_keys_have_other_orders():
    orders = {
        tuple(Stream(np.arange(50), 50, key).batches(0, 1)[0].tolist())
        for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    }
    assert len(orders) == 4
