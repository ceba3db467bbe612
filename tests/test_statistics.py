"""The statistics of the report against tables and simulations.

The tables are published, the studies are made up.
"""

import math

import numpy as np
import pytest

from reporting.statistics import estimate, expected_range, normal_range, points, relative_change, t_quantile

STUDIES = 2000


def scores(random: np.random.RandomState, truth: np.ndarray, seeds: int, noise: float) -> np.ndarray:
    """Accuracies of made-up studies on 100 test images a task: seeds x tasks x studies.

    Args:
        truth: tasks x studies.
        noise: independent, of each task; that which all tasks of a seed have in common is 0.02.
    """
    common = random.normal(0, 0.02, (seeds, 1, truth.shape[1]))
    noisy = truth + common + random.normal(0, noise, (seeds, *truth.shape))
    return np.clip(np.round(100 * noisy) / 100, 0, 1)


def coverage(estimated, truth: np.ndarray) -> float:
    """Share of the intervals that contain the truth, of those that there are."""
    there = ~np.isnan(estimated.low)
    assert there.mean() > 0.9
    return ((estimated.low <= truth) & (truth <= estimated.high))[there].mean()


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize(("num_tasks", "noise"), [(20, 0.02), (50, 0.05)])
def test_intervals_contain_the_truth_as_often_as_they_say(seeds, num_tasks, noise):
    random = np.random.RandomState(seeds)
    base = random.uniform(0.45, 0.7, (num_tasks, STUDIES))
    sharing = base + random.uniform(-0.04, 0.08, base.shape)
    alone, shared = scores(random, base, seeds, noise), scores(random, sharing, seeds, noise)
    differences = points(shared, alone)
    kinds = {
        "a mean accuracy": (estimate(shared.mean(axis=1)), sharing.mean(axis=0)),
        "a difference": (estimate(differences.mean(axis=1)), 100 * (sharing - base).mean(axis=0)),
        "delta_m": (
            estimate(relative_change(shared, alone).mean(axis=1)),
            (100 * (sharing - base) / base).mean(axis=0),
        ),
    }
    if seeds > 2:  # below, nothing is said of a task by itself
        kinds["a task's difference"] = (estimate(differences), 100 * (sharing - base))
    for kind, (estimated, truth) in kinds.items():
        assert 0.93 <= coverage(estimated, truth) <= 0.97, kind


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_equally_good_configurations_are_rarely_told_apart(seeds):
    random = np.random.RandomState(seeds)
    truth = random.uniform(0.45, 0.7, (20, STUDIES))
    one, other = scores(random, truth, seeds, 0.03), scores(random, truth, seeds, 0.03)
    for values in (points(one, other).mean(axis=1), relative_change(one, other).mean(axis=1)):
        assert (estimate(values).verdict != "inconclusive").mean() <= 0.07
    if seeds > 2:
        assert (estimate(points(one, other)).verdict != "inconclusive").mean() <= 0.07


@pytest.mark.parametrize("seeds", [5, 10])
def test_configurations_five_standard_errors_apart_are_told_apart(seeds):
    random = np.random.RandomState(seeds)
    truth = random.uniform(0.45, 0.6, (20, STUDIES))
    error = math.sqrt(2 * (0.02**2 + 0.03**2 / 20) / seeds)
    one = scores(random, truth + 5 * error, seeds, 0.03)
    verdicts = estimate(points(one, scores(random, truth, seeds, 0.03)).mean(axis=1)).verdict
    assert (verdicts == "higher").mean() >= 0.95


@pytest.mark.parametrize("count", [2, 3, 10])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_distance_that_seeds_alone_give_is_what_they_give_on_average(count, seeds):
    random = np.random.RandomState(10 * count + seeds)
    made = 0.6 + random.normal(0, 0.05, (4000, 1, seeds)) + random.normal(0, 0.01, (4000, count, seeds))
    ranges = np.ptp(made.mean(axis=2), axis=1)
    expected = np.array([expected_range(means) for means in made])
    assert expected.mean() == pytest.approx(ranges.mean(), rel=0.05)
    # How much each seed does to all configurations, and how good these are, changes nothing.
    shifted = made[0] + random.uniform(0, 1, (1, seeds)) + random.uniform(0, 1, (count, 1))
    assert expected_range(shifted) == pytest.approx(expected[0])


@pytest.mark.parametrize(
    ("count", "published"), [(2, 1.128), (3, 1.693), (4, 2.059), (5, 2.326), (10, 3.078), (20, 3.735)]
)
def test_the_expected_range_is_the_published_one(count, published):
    assert normal_range(count) == pytest.approx(published, abs=0.0006)


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


def test_an_interval_is_that_of_the_mean():
    made = estimate(np.array([1.0, 2.0, 6.0]))
    half_width = 4.3027 * math.sqrt(7) / math.sqrt(3)  # the standard deviation is the root of (4 + 1 + 9) / 2
    assert (made.seeds, float(made.mean), str(made.verdict)) == (3, 3.0, "inconclusive")
    assert [made.low, made.high] == pytest.approx([3 - half_width, 3 + half_width], abs=1e-3)
    assert str(estimate(np.array([2.9, 3.0, 3.1])).verdict) == "higher"
    assert str(estimate(np.array([-2.9, -3.0, -3.1])).verdict) == "lower"


@pytest.mark.parametrize("values", [[0.3], [0.2, 0.2], [0.3 - 0.1, 0.2, 0.7 - 0.5]])
def test_one_seed_or_seeds_that_agree_to_the_last_digit_give_no_interval(values):
    made = estimate(np.array(values))
    assert made.mean == pytest.approx(values[0])
    assert np.isnan([made.low, made.high]).all()
    assert made.verdict == "inconclusive"


def test_the_change_is_relative_to_the_baseline_averaged_over_its_seeds():
    baseline = np.array([[0.4, 0.5], [0.6, 0.5]])
    change = relative_change(np.array([[0.5, 0.6], [0.5, 0.6]]), baseline)
    assert change == pytest.approx(np.array([[20, 20], [-20, 20]]))
