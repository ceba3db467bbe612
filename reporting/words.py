"""What the configurations of a report are called: a letter, and words for what differs."""

import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from options import Option
from reporting.comparisons import Comparison, Section, default_key
from reporting.histories import Group
from reporting.tuned import TUNED
from running.streams import in_one_line
from settings import SETTINGS

COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def in_words(count: int | str) -> str:
    """A small number as a word."""
    return COUNTS[count] if isinstance(count, int) and count < len(COUNTS) else str(count)


def counted(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _code(code: str) -> str:
    return code if code.startswith("results") else f"code {code}"


def _weights(weights: Sequence[float]) -> str:
    shown = " ".join(f"{weight:.3g}" for weight in weights[:4])
    return f"weights {shown}{' ...' * (len(weights) > 4)}"


SAID: Mapping[str, Callable[[Any], str]] = {
    "tasks_per_step": lambda count: f"{in_words(count)} task{'' if count == 1 else 's'} a step",
    "note": lambda note: f'"{note}"' if note else "no note",
    "precision": str,
    "optimizer": str,
    "schedule": lambda name: name if name == "cosine" else f"{name} rate",
    "weight_decay": lambda decay: f"weight decay {decay:g}",
    "momentum": lambda momentum: f"momentum {momentum:g}",
    "lr": lambda rate: f"lr {rate:g}",
    "augment": lambda augment: "augmented" if augment else "not augmented",
    "normalisation": lambda name: f"normalised {'by ' * (name == 'group')}{name}",
    "head": lambda name: f"{name} heads",
    "batch_size": lambda size: f"batch {size}",
    "image_size": lambda size: f"images of {size} pixels",
    "epochs": lambda epochs: counted(epochs, "epoch"),
    "weights": _weights,
    "code": _code,
}
"""How a value is said, of options whose name and value do not say it."""

UNSAID = ("setting", "data", "synthetic", "validation")
"""Options that the name of the setting or of the data set says."""

COMMON = ("lr", "batch_size", "epochs", "precision", "code")
"""Options that are said of all configurations even where they have their defaults."""


def stated(name: str, value: Any) -> str:
    """The value of an option in words."""
    if value is None:
        return f"no {name}"
    return SAID[name](value) if name in SAID else f"{name} {value}"


class Names:
    """What the configurations of a whole report are called.

    Attributes:
        letters: the letter of each group, in order of rank.
        words: each group in words: its setting, and where it differs from the usual.
        common: for each section, what all of its groups have in common.
        unsaid: for each section, what holds of a group whose words do not say otherwise.
    """

    def __init__(self, sections: Sequence[Section], table: Sequence[Option]) -> None:
        self.letters: dict[Group, str] = {}
        self.words: dict[Group, str] = {}
        self.common: dict[Section, str] = {}
        self.unsaid: dict[Section, str] = {}
        for section in sections:
            for group in [*section.ranking, *section.unranked]:
                self.letters[group] = letter(len(self.letters))
            self._add(section, table)

    def _add(self, section: Section, table: Sequence[Option]) -> None:
        groups = section.study.groups
        names = [option.name for option in table] + ["code"]
        shown = [name for name in names if name not in UNSAID and len(_values(groups, name)) > 1]
        defaults = {option.name: default_key(option, groups[0]) for option in table}
        usual = {name: _usual(groups, name, defaults.get(name)) for name in shown}
        for group in groups:
            parts = [
                stated(name, group.shared[name])
                for name in shown
                if name in group.shared and group.shared[name] != usual[name]
            ]
            self.words[group] = ", ".join([f"{group.setting} {SETTINGS[group.setting].name}", *parts])
        _tell_apart(self.words, groups)
        alike = [
            stated(name, groups[0].shared[name])
            for name in names
            if name not in (*shown, *UNSAID, "weights")
            and all(name in group.shared for group in groups)
            and (name in COMMON or groups[0].shared[name] != defaults.get(name))
        ]
        self.common[section] = ", ".join(
            [section.study.title, counted(len(section.study.tasks), "task"), *alike]
        )
        self.unsaid[section] = ", ".join(stated(name, usual[name]) for name in shown)

    def all(self, groups: Iterable[Group]) -> str:
        """The letters of some groups."""
        return ", ".join(self.letters[group] for group in groups)

    def change(self, comparison: Comparison) -> str:
        """A comparison in words: the choice instead of its reference."""
        question, first, second = comparison.question, comparison.first, comparison.second
        said = question.words
        if first.setting == second.setting and first is not second:
            differ = [
                name
                for name, value in first.shared.items()
                if name in second.shared
                and str(second.shared[name]) != str(value)
                and (name != "code" or question.name != "note")
            ]
            if differ:
                choice, reference = (
                    ", ".join(stated(name, group.shared[name]) for name in differ)
                    for group in (first, second)
                )
                said = f"{choice} instead of {shortened(reference, choice)}"
        return f"{said}, {TUNED}" if question.name == TUNED else said


def shortened(reference: str, choice: str) -> str:
    """A reference, if a single option, without the words that it begins or ends with like the choice."""
    words, others = reference.split(), choice.split()
    if "," in reference or words == others:
        return reference
    while len(words) > 1 and others and words[0] == others[0]:
        words, others = words[1:], others[1:]
    while len(words) > 1 and others and words[-1].rstrip("s") == others[-1].rstrip("s"):
        words, others = words[:-1], others[:-1]
    return " ".join(words)


def letter(number: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def _values(groups: Sequence[Group], name: str) -> set[str]:
    return {str(group.shared[name]) for group in groups if name in group.shared}


def _usual(groups: Sequence[Group], name: str, default: Any) -> Any:
    """The value of an option that words do not say: what most groups have, of several the default."""
    values = [group.shared[name] for group in groups if name in group.shared]
    counts = Counter(map(str, values))
    return max(values, key=lambda value: (counts[str(value)], value == default))


def _tell_apart(words: dict[Group, str], groups: Sequence[Group]) -> None:
    """Number the words of groups that would be called the same."""
    said = Counter(words[group] for group in groups)
    numbers: Counter[str] = Counter()
    for group in groups:
        if said[same := words[group]] > 1:
            numbers[same] += 1
            words[group] = f"{same} ({numbers[same]})"


def filled(text: str, width: int, more: str = "") -> list[str]:
    """Lines of at most a width, as far as words allow; those after the first begin with `more`."""
    return textwrap.wrap(
        in_one_line(text), width, subsequent_indent=more, break_long_words=False, break_on_hyphens=False
    )  # fmt: skip
