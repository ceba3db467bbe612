"""The fingerprint of the code changes with what the code does, and with nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest

from running.provenance import DECIDING, code_fingerprint, fingerprint
from settings import DATA_SETS

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


def test_the_data_set_counts_but_not_its_wording_or_where_a_file_lies():
    spec = DATA_SETS[0]
    assert code_fingerprint(spec) == code_fingerprint(replace(spec, question="?", path=Path("a.npz")))
    assert code_fingerprint(spec) == code_fingerprint(replace(spec, validation=0.1))
    assert code_fingerprint(spec) != code_fingerprint(replace(spec, mean=(0.5,) * 3))
    tasks = {"only": (0, 1) * 5}
    assert code_fingerprint(spec) != code_fingerprint(replace(spec, tasks=tasks))


def test_the_deciding_modules_are_there():
    assert all(Path(f"{name}.py").is_file() for name in DECIDING)
