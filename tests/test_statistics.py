"""The statistics of the report against tables and simulations.

The tables are published, the studies are made up.
"""

import math

import numpy as np
import pytest

from benchmarks.intervals import Design, any_verdict, coverage, five_true
from reporting.statistics import NO_PART, Images, Part, corrected, interval, pool, t_probability, t_quantile


@pytest.mark.parametrize(
    ("freedom", "published"),
    [
        (1, 12.706),
        (2, 4.303),
        (3, 3.182),
        (4, 2.776),
        (5, 2.571),
        (9, 2.262),
        (10, 2.228),
        (30, 2.042),
        (1000, 1.962),
    ],
)
def test_the_quantiles_of_the_t_distribution_are_the_published_ones(freedom, published):
    assert t_quantile(freedom) == pytest.approx(published, abs=0.0006)


# Intervals over new seeds and new test images


@pytest.mark.parametrize(
    ("t", "freedom", "published"),
    [(1.0, 1, 0.5), (2.015, 5, 0.90), (3.169, 10, 0.99), (3.646, 30, 0.999), (2.581, 1000, 0.99)],
)
def test_the_probabilities_of_the_t_distribution_are_the_published_ones(t, freedom, published):
    assert t_probability(t, freedom) == pytest.approx(published, abs=1e-4)
    assert t_probability(t_quantile(freedom), freedom) == pytest.approx(0.95)


def test_the_variance_of_seeds_is_drawn_towards_that_of_all_configurations():
    configurations = [np.array(values) for values in ([1.0, 3.0], [5.0, 5.0, 8.0], [4.0])]
    common = pool(configurations, prior=4)  # variances 2 and 3, with 1 and 2 degrees of freedom
    assert (common.variance, common.freedom) == (pytest.approx(8 / 3), 3)
    parts = [common.seeds_part(values) for values in configurations]
    assert parts[0].variance == pytest.approx((4 * 8 / 3 + 1 * 2) / 5 / 2)
    assert parts[1].variance == pytest.approx((4 * 8 / 3 + 2 * 3) / 6 / 3)
    assert [part.freedom for part in parts[:2]] == [5, 6]
    assert math.isnan(parts[2].variance)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("two", [False, True])
def test_the_part_of_the_images_is_that_of_a_loop(shared, two):
    random = np.random.RandomState(0)
    sizes = [40, 40, 40] if shared else [40, 25, 60]
    ease = [random.normal(0, 1, size) for size in sizes]  # so that images differ by more than seeds do
    sides = [
        [
            0.2 * (random.normal(0, 0.5, (seeds, size)) + each > 0)
            for size, each in zip(sizes, ease, strict=True)
        ]
        for seeds in ((3, 4) if two else (3,))
    ]
    if two:
        sides[1] = [1 - each for each in sides[1]]

    def variance(values: list) -> float:  # of a sum over tasks of means over images
        if shared:
            values = [[sum(each) for each in zip(*values, strict=True)]]
        total = 0.0
        for each in values:
            mean = sum(each) / len(each)
            total += sum((value - mean) ** 2 for value in each) / (len(each) - 1) / len(each)
        return total

    means = [[side[task].mean(axis=0) for task in range(3)] for side in sides]
    differences = [means[0][task] - (means[1][task] if two else 0) for task in range(3)]
    expected = variance(differences)
    for side, mean in zip(sides, means, strict=True):
        of_seeds = [variance([task[seed] for task in side]) for seed in range(len(side[0]))]
        expected -= (np.mean(of_seeds) - variance(mean)) / (len(of_seeds) - 1)
    found = Images(tuple(sizes), shared).part(*(np.concatenate(side, axis=1) for side in sides))
    assert expected > 0
    assert found.variance == pytest.approx(expected)
    assert found.freedom == (39 if shared else 39 + 24 + 59)


def test_images_add_nothing_where_seeds_explain_more_or_there_is_one_image():
    chance = np.random.RandomState(1).randint(0, 2, (2, 1000)) * 1.0
    chance[1] = 1 - chance[0]  # the mean over seeds is the same for all images
    assert Images((1000,), shared=False).part(chance) == NO_PART
    assert Images((1,), shared=True).part(np.ones((2, 1)), np.zeros((2, 1))) == NO_PART


def test_an_interval_has_the_degrees_of_freedom_of_its_parts_but_no_more_than_the_pool():
    parts, images = [Part(1.0, 4), Part(2.0, 5)], Part(1.0, 99)
    found = interval(3.0, parts, images, most_freedom=100)
    freedom = math.floor(4**2 / (1 / 4 + 4 / 5 + 1 / 99))
    assert found.freedom == freedom == 15
    assert (found.low, found.high) == pytest.approx((3 - 2.131450 * 2, 3 + 2.131450 * 2), abs=1e-5)
    assert found.p == pytest.approx(1 - t_probability(1.5, 15))
    assert interval(-3.0, parts, images, most_freedom=100).p == found.p
    capped = interval(3.0, parts, images, most_freedom=2)
    assert (capped.freedom, capped.high) == (2, pytest.approx(3 + 2 * 4.302653, abs=1e-5))


@pytest.mark.parametrize("unknown", [0.0, math.nan])
def test_without_a_variance_there_is_no_interval(unknown):
    found = interval(0.5, [Part(1.0, 4), Part(unknown, 4)], Part(1.0, 99), 10)
    assert (found.value, found.freedom) == (0.5, 0)
    assert np.isnan([found.low, found.high, found.p]).all()


def test_p_values_are_corrected_as_in_the_example_of_benjamini_and_hochberg():
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240]
    p += [0.4262, 0.5719, 0.6528, 0.7590, 1.0000]  # of 1995: four are rejected at 0.05
    for order in (list(range(15)), list(range(14, -1, -1))):
        q = corrected([p[i] for i in order])
        assert sum(each <= 0.05 for each in q) == 4
        for i, each in zip(order, q, strict=True):
            assert each == pytest.approx(min(15 * p[j] / (j + 1) for j in range(i, 15)))
    some = corrected([0.04, math.nan, 0.01])
    assert some[::2] == pytest.approx([0.04, 0.02])
    assert math.isnan(some[1])


@pytest.mark.parametrize(("seeds", "noise", "shared"), [(2, 0.2, True), (3, 2.0, False), (5, 0.6, True)])
def test_intervals_hold_what_new_seeds_and_new_images_would_give(seeds, noise, shared):
    design = Design(seeds, configurations=8, tasks=5, images=60, shared=shared, noise=noise)
    for kind, share in coverage(design, studies=300).items():
        assert 0.92 <= share <= 0.99, kind


def test_verdicts_are_found_where_something_is_true_and_rarely_elsewhere():
    design = Design(3, tasks=5, images=50)
    assert any_verdict(design, studies=40) <= 0.1
    found, false = five_true(design, studies=40)
    assert (found > 0.85, false < 0.08) == (True, True)
