"""The fingerprint of the code that makes a result.

What changes it, what does not, and what is released.
"""

import json
from pathlib import Path

import pytest
from helpers import copy_program, run_in_copy, write_data

from own_data import read_spec
from running.provenance import code_fingerprint, fingerprint
from running.released import FINGERPRINTS, RESULTS, _fingerprint_of_2_1, known_as
from tasks import DATA_SETS

pytestmark = pytest.mark.processes

SOURCE = '''
"""A module."""

import math

RATE = 0.1
"""A note."""


def area(radius: float) -> float:
    """The area of a circle."""
    return math.pi * radius**2  # as is known


class Empty:
    """Nothing."""
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  # as is known", ""),
        ('"""The area of a circle."""', "'another text'"),
        ('"""A note."""', ""),
        ('"""A module."""\n', "# none\n"),
        ("math.pi * radius**2", "(\n        math.pi * (radius ** 2)\n    )"),
        ("\n\n\n", "\n"),
        ('    """Nothing."""\n', "    'still nothing'\n"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(old, new):
    assert old in SOURCE
    assert fingerprint(SOURCE.replace(old, new)) == fingerprint(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("radius**2", "radius**3"),
        ("0.1", "0.2"),
        ("math.pi *", "math.pi /"),
        ("def area", "def volume"),
        ("import math", "import cmath as math"),
        ("return", "yield"),
        ("radius: float", "radius: float = 0"),
        ("0.1", "None"),
        ("0.1", "'0.1'"),
        ("radius**2", "radius**True"),
    ],
)
def test_what_the_code_does_counts(old, new):
    assert old in SOURCE
    assert fingerprint(SOURCE.replace(old, new)) != fingerprint(SOURCE)


ANNOTATED = """
from __future__ import annotations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from math import tau


def area(radius: float, power: int = 2) -> float:
    answer: float = 3.14 * radius**power
    count: int
    return answer
"""
BARE = """
from typing import TYPE_CHECKING


def area(radius, power=2):
    answer = 3.14 * radius**power
    return answer
"""
FIELDS = "class A:\n    x: int = 1\n    y: int\n"


def test_annotations_and_what_is_imported_for_them_do_not_count():
    assert fingerprint(ANNOTATED) == fingerprint(BARE)
    assert fingerprint(FIELDS) == fingerprint(FIELDS.replace("int", "float"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x: int = 1", "x = 1"),
        ("    y: int\n", ""),
        ("x: int", "x: ClassVar[int]"),
        ("y: int", "y: InitVar[int]"),
    ],
)
def test_a_field_of_a_class_stays_a_field(old, new):
    assert fingerprint(FIELDS) != fingerprint(FIELDS.replace(old, new))


# Which files count


def edit(path: Path, old: str, new: str) -> None:
    source = path.read_text()
    assert source.count(old) >= 1, (path.name, old)
    path.write_text(source.replace(old, new, 1))


CODE = "from running.provenance import code_fingerprint, code_of\n"

EDITS = {
    "padding": ("models.py", "padding=1", "padding=0"),
    "TF32": ("running/setup.py", "allow_tf32 = False", "allow_tf32 = True"),
    "a default": ("options.py", "SHARE, 0.0", "SHARE, 0.1"),
    "an import": ("agents.py", "import numpy as np\n", "import numpy as np\nimport own_change\n"),
    "in a function": ("data.py", "    size, cell = ", "    import own_change\n\n    size, cell = "),
}  # fmt: skip
HARMLESS = {
    "a report": ("reporting/screen.py", '"setting, and what differs"', '"setting"'),
    "reading pictures": ("pictures.py", "LONGEST = 16", "LONGEST = 8"),
    "a listed fingerprint": ("running/released.py", "1: (", '1: (\n        "0",'),
    "a docstring": ("agents.py", '"""Agents: one class', '"""One class'),
    "an annotation": ("agents.py", "run: Run, network", "run: object, network"),
}


@pytest.mark.parametrize("edits", EDITS.values(), ids=EDITS)
def test_a_change_of_what_a_training_passes_is_other_code(tmp_path, edits):
    copy, (name, *change) = copy_program(tmp_path / "copy"), edits
    (copy / "own_change.py").write_text("f = 1\n")
    edit(copy / name, *change)
    before = run_in_copy(copy, CODE + "print(code_fingerprint())")
    assert before != [code_fingerprint()]
    if "own_change" in change[1]:  # a module of one's own counts, wherever it is imported
        (copy / "own_change.py").write_text("f = 2\n")
        assert run_in_copy(copy, CODE + "print(code_fingerprint())") != before


def test_what_decides_no_result_is_no_other_code(tmp_path):
    copy = copy_program(tmp_path / "copy")
    for name, *change in HARMLESS.values():
        edit(copy / name, *change)
    assert run_in_copy(copy, CODE + "print(code_fingerprint())") == [code_fingerprint()]


NETWORK = """
import own_layers
from models import Model

WIDTH = 64


def network(channels, heads):
    return Model(channels, heads, num_hidden=WIDTH)


class Network(Model):
    pass
"""


def test_a_network_of_ones_own_counts_with_its_modules_and_what_it_is_bound_to(tmp_path):
    copy = copy_program(tmp_path / "copy")
    script, layers = tmp_path / "elsewhere" / "script.py", tmp_path / "elsewhere" / "own_layers.py"
    script.parent.mkdir()
    code = f"""
import sys
from functools import partial
sys.path.insert(0, {str(script.parent)!r})
import script
from models import Model
{CODE}
print(*(code_of(each) for each in (None, Model, partial(Model, num_hidden=8), partial(Model, num_hidden=9))))
script.WIDTH = int(sys.argv[-1]) if sys.argv[-1].isdigit() else script.WIDTH
print(*(code_of(each) for each in (script.network, script.Network, lambda c, h: script.network(c, h))))
script.WIDTH = 65
print(code_of(script.network))
"""
    script.write_text(NETWORK)
    layers.write_text("x = 1\n")
    plain, own, (wider,) = (line.split() for line in run_in_copy(copy, code))
    assert len({*plain, *own, wider}) == len(plain) + len(own) + 1
    layers.write_text("x = 2\n")
    again, others, _ = (line.split() for line in run_in_copy(copy, code))
    assert again == plain
    assert others[0] != own[0]
    assert others[1] != own[1]


# What is released


@pytest.mark.released
def test_the_present_code_is_listed_among_that_which_gives_the_present_results():
    assert code_fingerprint() in FINGERPRINTS[RESULTS], (
        f"the code has changed: if tests/test_golden.py passes as it is, put {code_fingerprint()} in place "
        "of the first fingerprint under RESULTS in running/released.py"
    )


@pytest.mark.released
def test_runs_of_released_code_are_recorded_by_the_number_of_their_results(program, tmp_path):
    options = ("--train", "--setting", 0, "--data", 0, "--synthetic", "--image_size", 4, "--epochs", 1)
    assert program(*options, "--save_history", "--save_path", tmp_path, network=None).code == 0
    (session,) = json.loads((tmp_path / "history.json").read_text())["sessions"]
    assert session["code"] == f"results {RESULTS}"


@pytest.mark.released
def test_version_2_1_had_a_fingerprint_for_each_data_set_that_is_known_or_computed(tmp_path):
    for spec in (*DATA_SETS, *(spec.stand_in for spec in DATA_SETS)):
        assert _fingerprint_of_2_1(spec) in FINGERPRINTS[1]
    own = read_spec(write_data(tmp_path / "own.npz", [4, 5], size=4))
    assert _fingerprint_of_2_1(own) == "29b7acc9651c"
    assert known_as("29b7acc9651c", own) == "results 1"
    assert known_as("29b7acc9651c") == "29b7acc9651c"
