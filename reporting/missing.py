"""Shell commands for the runs that would answer open questions."""

import re
import shlex
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from options import Option, make_run
from reporting.comparisons import SEEDS, Question, Section, are_alike, common_seeds
from reporting.histories import SINGLE_TASK, Group
from running.streams import in_one_line
from tasks import DATA_SETS, DataSpec


@dataclass(frozen=True)
class Missing:
    """Missing runs that differ only in the seed.

    In setting 2 they also differ in the task.

    Attributes:
        options: options of the runs.
        seeds: seeds of the runs, in order.
        tasks: in setting 2 the numbers of the tasks to train; None for all.
    """

    options: Mapping[str, Any]
    seeds: Sequence[int]
    tasks: tuple[int, ...] | None = None

    def command(self, directory: Path, table: Sequence[Option]) -> str:
        """A shell command that trains these runs.

        Args:
            directory: each run is saved in a directory of its own under this one.
            table: all options.
        """
        spec, setting = data_set(self.options), self.options["setting"]
        words, name = ["python main.py --train"], str(setting)
        for option in table:
            value = self.options.get(option.name)
            if option.decides == "nothing" or option.repeats or setting not in option.settings:
                continue
            usual = value is None or value is False or value == _default(option, spec, self.options)
            if option.name == "data":
                value = value.rpartition("#")[0] if isinstance(value, str) else value
            elif option.name != "setting" and usual:
                continue
            values = value if isinstance(value, list | tuple) else [] if value is True else [value]
            words.append(" ".join([f"--{option.name}", *map(quoted, map(str, values))]))
            if option.name not in ("setting", "data"):
                short = "-".join(map(str, values))
                if len(values) > 1 or not re.fullmatch(r"[\w.-]*", short):
                    short = str(zlib.crc32(repr(values).encode()))
                name += f"_{option.name}-{short}".rstrip("-")
        loop = f"for seed in {' '.join(map(str, self.seeds))}; do "
        if setting == SINGLE_TASK:
            last = len(spec.tasks) - 1 if spec else "LAST"
            tasks = f"$(seq 0 {last})" if self.tasks is None else " ".join(map(str, self.tasks))
            loop += f"for task in {tasks}; do "
            words.append("--task $task")
            name += "-task-$task"
        path = f"{quoted(str(directory))}/{name}-seed-$seed"
        words.append(f"--seed $seed --save_history --save_path {path}")
        return loop + " ".join(words) + "; done" * loop.count(" do ")


def _default(option: Option, spec: DataSpec | None, values: Mapping[str, Any]) -> object:
    """Default of an option beside the values of others.

    None where it is computed and the data set is an unread file.
    """
    if spec:
        return option.default_for(spec, values)
    return None if callable(option.default) else option.default


def quoted(word: str) -> str:
    """Quote a word for a shell, in one line."""
    if in_one_line(word) == word:
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{in_one_line(escaped)}'"


def data_set(options: Mapping[str, Any]) -> DataSpec | None:
    """Data set that options name.

    None for a file, which may be gone.
    """
    if isinstance(options["data"], str):
        return None
    spec = DATA_SETS[options["data"]]
    return replace(spec.stand_in if options["synthetic"] else spec, validation=options["validation"] or 0.0)


def missing_runs(question: Question, section: Section, table: Sequence[Option]) -> list[Missing]:
    """The runs that an answer to a question with SEEDS seeds lacks.

    None are missing where the only side exists already: then more runs do not help.

    Raises:
        CommandError: no run with these options can answer the question.
    """
    groups = section.study.groups
    pairs = question.pairs(section.study)
    best = max(pairs, key=lambda pair: len(common_seeds(*pair))) if pairs else _one_side(question, groups)
    existing = [group for group in best if group]
    template = (existing + [group for group in groups if group.setting] + groups)[0]
    sides = question.sides(template.options)
    if len(sides) == 1 and existing and not pairs:
        return []
    runs = []
    wanted = _seeds(existing or [template], groups)
    for group, changes in zip(best[: len(sides)], sides, strict=True):
        options = group.options if group else _changed(template, changes, table)
        lacking: dict[tuple[int, ...] | None, list[int]] = {}
        for seed in wanted:
            if not group or seed not in {*group.seeds, *group.lacking}:
                lacking.setdefault(None, []).append(seed)
            elif seed in group.lacking:
                lacking.setdefault(group.lacking[seed], []).append(seed)
        runs += [Missing(options, seeds, tasks) for tasks, seeds in lacking.items()]
    return runs


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


def _changed(template: Group, changes: Mapping[str, Any], table: Sequence[Option]) -> dict[str, Any]:
    """Options for a side that has no runs.

    They are those of another group, for equally many steps.

    Raises:
        CommandError: the program would refuse them.
    """
    options = {**template.options, **changes}
    spec = data_set(options)
    if options["setting"] != template.setting:
        options["weights"] = None
        options["loss"] = changes.get("loss")
        if spec:
            options["epochs"] = _epochs(spec, template.options, options)
    names = {o.name for o in table if o.decides != "nothing" and options["setting"] in o.settings}
    given = {name: value for name, value in options.items() if name in names and value is not False}
    if spec:
        for task in range(len(spec.tasks)) if options["setting"] == SINGLE_TASK else [None]:
            make_run("train", given | {"task": task}, table)
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
