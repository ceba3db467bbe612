"""A shell script for the runs that would answer open questions."""

import re
import shlex
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from errors import CommandError, UserError
from options import Option, make_run
from own_data import read_spec
from reporting.comparisons import AS_TRAINED, SEEDS, Pairs, Question, Section, are_alike
from reporting.histories import SINGLE_TASK, Group
from reporting.tuned import TUNED, Family
from running.streams import in_one_line
from tasks import DATA_SETS, DataSpec

SCRIPT = "missing.sh"
"""Name of the script, beside the report."""

MAIN = Path(__file__).resolve().parents[1] / "main.py"

SpecOf = Callable[[Mapping[str, Any]], DataSpec | None]
"""Finds the data set of some options, None if it is gone."""


@dataclass(frozen=True)
class Missing:
    """Missing runs that differ only in the seed.

    In setting 2 they also differ in the task.

    Attributes:
        options: options of the runs.
        seeds: seeds of the runs, in order.
        tasks: in setting 2 the numbers of the tasks to train; None in any other.
    """

    options: Mapping[str, Any]
    seeds: Sequence[int]
    tasks: tuple[int, ...] | None = None

    def loop(self, spec: DataSpec | None, table: Sequence[Option], data: str) -> str:
        """A loop of a shell over these runs.

        Args:
            spec: the data set, or None for a file that is gone.
            table: all options.
            data: name of the shell's variable that holds the path of the data.
        """
        setting = self.options["setting"]
        words, name = ['"$PYTHON" "$MAIN" --train'], str(setting)
        for option in table:
            value = self.options.get(option.name)
            if option.decides == "nothing" or option.repeats or setting not in option.settings:
                continue
            if option.name == "data" and isinstance(value, str):
                words.append(f'--data "${data}"')
                continue
            usual = value is None or value is False or value == option.default_for(spec, self.options)
            if usual and option.name not in ("setting", "data"):
                continue
            values = value if isinstance(value, list | tuple) else [] if value is True else [value]
            words.append(" ".join([f"--{option.name}", *map(quoted, map(str, values))]))
            if option.name not in ("setting", "data"):
                short = "-".join(map(str, values))
                if len(values) > 1 or not re.fullmatch(r"[\w.-]*", short):
                    short = str(zlib.crc32(repr(values).encode()))
                name += f"_{option.name}-{short}".rstrip("-")
        if data == "DATA_PATH" and not self.options["synthetic"]:
            words.append('--data_path "$DATA_PATH"')
        loops = [f"for seed in {numbers(self.seeds)}; do"]
        if self.tasks is not None:
            loops.append(f"for task in {numbers(self.tasks)}; do")
            words.append("--task $task")
            name += "-task-$task"
        words.append(f'--seed $seed --save_history --resume --save_path "$RUNS/{name}-seed-$seed"')
        lines = [f"{'  ' * depth}{line}" for depth, line in enumerate([*loops, " ".join(words)])]
        return "\n".join([*lines, *(f"{'  ' * depth}done" for depth in reversed(range(len(loops))))])


def numbers(values: Sequence[int]) -> str:
    """Numbers as words of a shell, a long row of them in short."""
    if len(values) > 3 and list(values) == list(range(values[0], values[-1] + 1)):
        return f"{{{values[0]}..{values[-1]}}}"
    return " ".join(map(str, values))


@dataclass(frozen=True)
class Unanswered:
    """A question that lacks runs.

    Attributes:
        question: the question.
        numbers: numbers of the missing runs in the script; none where no such runs are possible.
        why_not: why they are not, else empty.
    """

    question: Question
    numbers: Sequence[int] = ()
    why_not: str = ""


class Script:
    """The missing runs of a whole report, and the shell script that trains them.

    Attributes:
        unanswered: for each section, its questions that lack runs: no comparison has two seeds on either
            side, and so none an interval. Of what is tuned, the best that has no runs on test images.
    """

    def __init__(
        self,
        sections: Sequence[Section],
        families: Mapping[Section, Sequence[Family]],
        table: Sequence[Option],
    ) -> None:
        self._table = table
        self._runs: dict[str, Missing] = {}  # keys: loops without their seeds
        self._questions: dict[str, list[str]] = {}
        runs = [run for section in sections for run in section.study.runs]
        self._files: dict[str, Path | None] = {}  # keys: checksums
        for run in runs:
            if isinstance(run.options["data"], str):
                checksum = _checksum(run.options["data"])
                self._files[checksum] = run.file or self._files.get(checksum)
        self.unanswered = [
            self._of_section(section) + self._of_families(section, families.get(section, ()))
            for section in sections
        ]

    def _of_section(self, section: Section) -> list[Unanswered]:
        found = []
        for question in section.questions:
            answers = section.answering(question.name)
            results = [
                each for answer in answers for way, each in answer.results.items() if way != AS_TRAINED
            ]
            if any(min(result.estimate.seeds) > 1 for result in results):
                continue
            try:
                missing = missing_runs(question, section, self._table, self._spec)
            except CommandError as error:
                found.append(Unanswered(question, why_not=str(error)))
                continue
            if missing:
                found.append(Unanswered(question, [self._add(question, runs) for runs in missing]))
        return found

    def _of_families(self, section: Section, families: Sequence[Family]) -> list[Unanswered]:
        question = Question(
            TUNED, "the best recipe of each on the test images", lambda *_: Pairs([]), lambda _: []
        )
        every = tuple(range(len(section.study.tasks)))
        numbers = [
            self._add(
                question,
                Missing(
                    {**family.best.options, "validation": 0.0},
                    range(SEEDS),
                    every if family.best.setting == SINGLE_TASK else None,
                ),
            )
            for family in families
            if not family.chosen
        ]
        return [Unanswered(question, numbers)] if numbers else []

    def _add(self, question: Question, runs: Missing) -> int:
        """Add runs, together with those that differ in the seed only; returns their number."""
        key = self._loop(replace(runs, seeds=[0]))
        seeds = {*runs.seeds, *(self._runs[key].seeds if key in self._runs else ())}
        self._runs[key] = replace(runs, seeds=sorted(seeds))
        self._questions.setdefault(key, []).append(question.name)
        return [*self._runs].index(key) + 1

    def _loop(self, runs: Missing) -> str:
        return runs.loop(self._spec(runs.options), self._table, self._variable(runs.options["data"]))

    def _variable(self, data: int | str) -> str:
        """Name of the shell's variable that holds the path of a data set."""
        if not isinstance(data, str):
            return "DATA_PATH"
        number = [*self._files].index(_checksum(data)) + 1
        return f"DATA_{number}" if number > 1 else "DATA"

    def _spec(self, options: Mapping[str, Any]) -> DataSpec | None:
        """Data set that options name, None for a file that is gone."""
        if isinstance(options["data"], str):
            checksum = _checksum(options["data"])
            path = self._files[checksum]
            spec = _read(path, checksum) if path else None
        else:
            spec = DATA_SETS[options["data"]]
            spec = spec.stand_in if options["synthetic"] else spec
        return spec and replace(spec, validation=options["validation"] or 0.0)

    def _place(self, data: int | str) -> str:
        """What the shell does where no variable from outside says where a data set is."""
        name = self._variable(data)
        if not isinstance(data, str):
            return f'{name}=$(dirname "$MAIN")/data'
        if path := self._files[_checksum(data)]:
            return f"{name}={quoted(str(path))}"
        return f'{{ echo "set {name} to the path of" {quoted(data.rpartition("#")[0])} >&2; exit 1; }}'

    def text(self) -> str:
        """The script, empty where no runs are missing."""
        if not self._runs:
            return ""
        lines = [
            "#!/usr/bin/env bash",
            "# Trains the runs that the questions of this report lack, one after another, beside it.",
            "# It ends at the first error; started again, it goes on from there. MAIN, PYTHON, and where the",
            "# data is (DATA_PATH, or DATA for a file) may be set from outside.",
            "set -euo pipefail",
        ]
        variables = {"MAIN": f"MAIN={quoted(str(MAIN))}", "PYTHON": "PYTHON=python"}
        for runs in self._runs.values():
            data = runs.options["data"]
            variables[self._variable(data)] = self._place(data)
        lines += [f'[ "${{{name}:-}}" ] || {otherwise}' for name, otherwise in variables.items()]
        lines.append('RUNS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)')
        for number, (key, runs) in enumerate(self._runs.items(), 1):
            lines += ["", f"# {number}: {', '.join(dict.fromkeys(self._questions[key]))}", self._loop(runs)]
        return "\n".join([*lines, ""])


def quoted(word: str) -> str:
    """Quote a word for a shell, in one line."""
    if in_one_line(word) == word:
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{in_one_line(escaped)}'"


@cache
def _read(path: Path, checksum: str) -> DataSpec | None:
    """The data set of a file, None if it is gone or has another content."""
    try:
        spec = read_spec(path)
    except UserError:
        return None
    return spec if spec.checksum == checksum else None


def _checksum(data: str) -> str:
    """The checksum of a file, from what options record of it."""
    return data.rpartition("#")[2]


def missing_runs(
    question: Question, section: Section, table: Sequence[Option], spec_of: SpecOf
) -> list[Missing]:
    """The runs that an answer to a question with SEEDS seeds lacks.

    None are missing where the only side exists already: then more runs do not help.

    Args:
        question: the question.
        section: what is there.
        table: all options.
        spec_of: finds the data set of some options.

    Raises:
        CommandError: no run with these options can answer the question.
    """
    groups = section.study.groups
    pairs = question.pairs(section.study)
    best = max(pairs, key=_fewest_seeds) if pairs else _one_side(question, groups)
    existing = [group for group in best if group]
    template = (existing + [group for group in groups if group.setting] + groups)[0]
    sides = question.sides(template.options)
    if len(sides) == 1 and existing and not pairs:
        return []
    runs = []
    wanted = _seeds(existing or [template], groups)
    for group, changes in zip(best[: len(sides)], sides, strict=True):
        options = group.options if group else _changed(template, changes, table, spec_of)
        every = tuple(range(len(section.study.tasks))) if options["setting"] == SINGLE_TASK else None
        lacking: dict[tuple[int, ...] | None, list[int]] = {}
        for seed in wanted:
            if not group or seed not in {*group.seeds, *group.lacking}:
                lacking.setdefault(every, []).append(seed)
            elif seed in group.lacking:
                lacking.setdefault(group.lacking[seed], []).append(seed)
        runs += [Missing(options, seeds, tasks) for tasks, seeds in lacking.items()]
    return runs


def _fewest_seeds(pair: Sequence[Group]) -> int:
    """How many seeds both sides have."""
    return min(len(group.seeds) if group.is_complete else 0 for group in pair)


def _seeds(existing: Sequence[Group], groups: Sequence[Group]) -> list[int]:
    """Seeds that both sides need.

    Those of existing groups, filled up to SEEDS from all groups, then with new ones.
    """
    own, known = ({seed for group in each for seed in group.seeds} for each in (existing, groups))
    others = [*sorted(known - own), *(seed for seed in range(SEEDS + len(known)) if seed not in known)]
    return sorted([*own, *others[: max(0, SEEDS - len(own))]])


def _one_side(question: Question, groups: Sequence[Group]) -> list[Group | None]:
    """Group of one side of a question without a pair.

    The other side is None, and both are if neither has a group.
    """
    for group in groups:
        sides = question.sides(group.options)
        for side, changes in enumerate(sides):
            if all(group.options.get(name) == value for name, value in changes.items()):
                return [group if i == side else None for i in range(len(sides))]
    return [None] * len(question.sides(groups[0].options))


def _changed(
    template: Group, changes: Mapping[str, Any], table: Sequence[Option], spec_of: SpecOf
) -> dict[str, Any]:
    """Options for a side that has no runs.

    They are those of another group, for equally many steps.

    Raises:
        CommandError: the program would refuse them.
    """
    options = {**template.options, **changes}
    spec = spec_of(options)
    if options["setting"] != template.setting:
        options["weights"] = None
        options["loss"] = changes.get("loss")
        if spec:
            options["epochs"] = _epochs(spec, template.options, options)
    names = {o.name for o in table if o.decides != "nothing" and options["setting"] in o.settings}
    given = {name: value for name, value in options.items() if name in names and value is not False}
    if spec:
        for task in range(len(spec.tasks)) if options["setting"] == SINGLE_TASK else [None]:
            make_run("train", given | {"task": task}, table, spec)
    return options


def _epochs(spec: DataSpec, old: Mapping[str, Any], new: Mapping[str, Any]) -> int:
    """Epochs for equally many steps with new options.

    The old number where none matches.
    """
    steps = old["epochs"] * _steps_per_epoch(spec, old)
    of_epoch = _steps_per_epoch(spec, new)
    epochs = max(1, round(steps / max(1, of_epoch)))
    return epochs if are_alike(steps, epochs * of_epoch) else old["epochs"]


def _steps_per_epoch(spec: DataSpec, options: Mapping[str, Any]) -> int:
    """Training steps of an epoch.

    In setting 2 these are the steps of all models together.
    """
    return sum(size // options["batch_size"] for size in spec.training_sets(options["setting"]).values())
