"""Whether the program gives the results that golden.json records.

golden.py says how they are made.
"""

import json

import golden
import pytest
from golden import ACCURACY_TOLERANCE, DECIDING, PAIRS, PARTS, RECORD, RUNS, TOLERANCE

from running.released import RESULTS

pytestmark = pytest.mark.released

CHANGED = (
    "\nThe program gives other results than before. If that is meant, add 1 to RESULTS in "
    "running/released.py, list the fingerprint of the new code under the new number, and record anew: "
    "python tests/golden.py"
)


@pytest.fixture(scope="module")
def record() -> dict:
    """What has been recorded."""
    return json.loads(RECORD.read_text())


def same(now: object, before: object) -> bool:
    """Whether two parts of a record agree, numbers but for rounding."""
    if isinstance(now, dict):
        return now.keys() == before.keys() and all(same(now[name], before[name]) for name in now)
    if isinstance(now, list):
        return len(now) == len(before) and all(map(same, now, before))
    return now == (pytest.approx(before, rel=1e-5) if isinstance(now, float) else before)


def test_the_record_is_of_these_results(record):
    assert record["results"] == RESULTS, "golden.json is of other results: python tests/golden.py"
    assert record["runs"].keys() == RUNS.keys()


@pytest.mark.parametrize(
    "part", [pytest.param(each, marks=[pytest.mark.processes] * (each == "switches")) for each in PARTS]
)
def test_data_defaults_and_switches_are_as_recorded(record, part):
    made = json.loads(json.dumps(PARTS[part]()))
    assert made.keys() == record[part].keys(), CHANGED
    for name in made:
        assert same(made[name], record[part][name]), f"{part}, {name}: {made[name]}{CHANGED}"


@pytest.mark.parametrize("name", RUNS)
def test_a_run_has_the_losses_and_accuracies_recorded(record, name):
    made, before = golden.run_record(name), record["runs"][name]
    precision = "bf16" if "bfloat16" in before["features"] else "fp32"
    assert made["features"] == before["features"], CHANGED
    allowed = TOLERANCE[precision]
    assert made["losses"] == pytest.approx(before["losses"], rel=allowed, abs=allowed), CHANGED
    assert made["accuracy"] == pytest.approx(before["accuracy"], abs=ACCURACY_TOLERANCE), CHANGED


def test_each_option_that_decides_changes_a_recorded_run_by_far_more_than_processors_do(record):
    assert PAIRS.keys() == set(DECIDING)
    for option, names in PAIRS.items():
        without, with_it = (record["runs"][name] for name in names)
        change = max(abs(a - b) for a, b in zip(without["losses"], with_it["losses"], strict=False))
        if option == "precision":  # changes a loss by little more than it may differ
            assert without["features"] != with_it["features"]
        else:
            assert change >= 10 * TOLERANCE["fp32"], (option, change)
