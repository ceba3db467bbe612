"""The questions that runs can answer, and the groups that are compared to answer them."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from options import OPTIONS, Option
from reporting.histories import SINGLE_TASK, Group, Study
from reporting.statistics import Estimate, estimate, points, relative_change
from settings import DATA_SETS, SETTINGS, SYNTHETIC, DataSpec

SEEDS = 3
"""Seeds from which on the report says which tasks gain and lose."""

STEPS_ALIKE = 0.05
"""Share by which the steps of two groups may differ for them to count as trained alike."""

RECIPE = {o.name: o.default for o in OPTIONS if o.name in ("lr", "momentum", "weight_decay", "schedule")}
"""The recipe of the experiment as it is defined."""

Pair = tuple[Group, Group]


@dataclass(frozen=True)
class Question:
    """Something that may matter, and the groups that tell.

    Attributes:
        name: of the question.
        words: what is varied.
        pairs: the groups to compare.
        sides: what each side of a comparison is trained with, if there are no runs of it yet.
        shared_inputs: whether it is asked where every task has every image, where not, or in both (None).
    """

    name: str
    words: str
    pairs: Callable[[Study], list[Pair]]
    sides: tuple[Mapping[str, object], ...]
    shared_inputs: bool | None = None

    def applies(self, study: Study) -> bool:
        """Whether it can be asked of a data set."""
        return self.shared_inputs in (None, study.shared_inputs)


def agree(one: Group, other: Group, but: frozenset[str]) -> bool:
    """Whether two groups share every option that goes with both, some excepted."""
    return all(
        name in but or value == (theirs := other.shared[name]) or value is None or theirs is None
        for name, value in one.shared.items()
    )


def alike(one: Group, other: Group) -> bool:
    """Whether two groups were trained for as many steps, all models of a seed together."""
    steps = one.total("steps"), other.total("steps")
    return None not in steps and abs(steps[0] - steps[1]) <= STEPS_ALIKE * max(steps)


def within_setting(
    first: Callable[[Group], bool], second: Callable[[Group], bool], *differ: str
) -> Callable[[Study], list[Pair]]:
    """Pairs of groups of one setting that differ in some options at most."""

    def pairs(study: Study) -> list[Pair]:
        return [
            (one, other)
            for one in filter(first, study.groups)
            for other in filter(second, study.groups)
            if agree(one, other, frozenset(differ))
        ]

    return pairs


def between_settings(
    first: Callable[[Group], bool], second: Callable[[Group], bool], *differ: str
) -> Callable[[Study], list[Pair]]:
    """Pairs of groups of different settings: trained for as many steps; failing that, for as many epochs."""

    def pairs(study: Study) -> list[Pair]:
        candidates = [
            (one, other)
            for one in filter(first, study.groups)
            for other in filter(second, study.groups)
            if agree(one, other, frozenset({"setting", "epochs", *differ}))
        ]
        matched = [pair for pair in candidates if alike(*pair)]
        taken = {group for pair in matched for group in pair}
        return [
            pair
            for pair in candidates
            if pair in matched
            or (taken.isdisjoint(pair) and pair[0].shared["epochs"] == pair[1].shared["epochs"])
        ]

    return pairs


def other_recipes(study: Study) -> list[Pair]:
    """Each group beside the one that differs from it in the recipe alone and has that of the experiment."""
    pairs = []
    for group in study.groups:
        peers = [
            other
            for other in study.groups
            if group.setting == other.setting != 0 and agree(group, other, frozenset(RECIPE))
        ]
        defined = [peer for peer in peers if all(peer.shared[name] == RECIPE[name] for name in RECIPE)]
        if peers and group is not (base := (defined or peers)[0]):
            pairs.append((base, group))
    return pairs


def is_mean(group: Group) -> bool:
    """Whether a group minimises the plain mean of all tasks' losses."""
    return group.setting == 5 and group.shared["loss"] == "mean"


QUESTIONS = (
    Question(
        "draws",
        "how often a task is drawn",
        between_settings(lambda g: g.setting == 3, lambda g: g.setting == 4, "weights"),
        ({"setting": 3}, {"setting": 4}),
    ),
    Question(
        "weights",
        "how much the loss of a task weighs",
        between_settings(is_mean, lambda g: g.setting == 6, "weights"),
        ({"setting": 5}, {"setting": 6}),
        shared_inputs=True,
    ),
    Question(
        "loss",
        "how the losses of the tasks make one update",
        within_setting(is_mean, lambda g: g.setting == 5 and not is_mean(g), "loss"),
        ({"setting": 5, "loss": "mean"}, {"setting": 5, "loss": "uw"}),
        shared_inputs=True,
    ),
    Question(
        "tasks a step",
        "how many tasks share a step",
        within_setting(
            lambda g: g.shared.get("tasks_per_step", 1) == 1,
            lambda g: g.shared.get("tasks_per_step", 1) not in (None, 1),
            "tasks_per_step",
        ),
        ({"setting": 3, "tasks_per_step": 1}, {"setting": 3, "tasks_per_step": 4}),
    ),
    Question(
        "all tasks",
        "drawing tasks, or all of them on every image",
        between_settings(lambda g: g.setting == 3, is_mean),
        ({"setting": 3}, {"setting": 5}),
        shared_inputs=True,
    ),
    Question(
        "heads",
        "one head for all classes, or one for each task",
        between_settings(lambda g: g.setting == 1, lambda g: g.setting == 3),
        ({"setting": 1}, {"setting": 3}),
    ),
    Question(
        "normalisation",
        "scoring with the statistics of all tasks, or with those of the task",
        lambda study: list(study.own.items()),
        ({"setting": 3},),
        shared_inputs=False,
    ),
    Question(
        "recipe",
        "learning rate, momentum, weight decay and schedule",
        other_recipes,
        ({"setting": 3}, {"setting": 3, "momentum": 0.9, "schedule": "cosine"}),
    ),
    Question(
        "single-task",
        "sharing an encoder, or a network for each task",
        between_settings(lambda g: g.setting not in (0, SINGLE_TASK), lambda g: g.setting == SINGLE_TASK),
        ({"setting": 3}, {"setting": SINGLE_TASK}),
    ),
)


@dataclass(frozen=True)
class Comparison:
    """One group against another: how much higher it scores.

    Attributes:
        question: its name.
        first: what the difference is the score of,
        second: minus that of.
        measure: `accuracy` or `balanced_accuracy`, as a mean over tasks or `of` one, in points; or `delta_m`,
            in per cent.
        difference: over the seeds that both have, of no dimension.
    """

    question: str
    first: Group
    second: Group
    measure: str
    difference: Estimate

    @property
    def task(self) -> str:
        """The task that it is of, empty where it is of their mean."""
        return self.measure.partition(" of ")[2]


def common_seeds(one: Group, other: Group) -> list[int]:
    """The seeds that two groups have complete."""
    return (
        [seed for seed in one.seeds if seed in other.seeds] if one.is_complete and other.is_complete else []
    )


def compare(question: Question, study: Study) -> list[Comparison]:
    """The differences of mean accuracy that answer a question."""
    comparisons = []
    for first, second in question.pairs(study):
        if seeds := common_seeds(first, second):
            values = points(first.scores(seeds=seeds), second.scores(seeds=seeds)).mean(axis=1)
            comparisons.append(Comparison(question.name, first, second, "accuracy", estimate(values)))
    return comparisons


class Transfer:
    """A way of training against single-task training, task by task.

    Attributes:
        comparison: of the means over tasks.
        tasks: how many points higher each task scores, in the study's measure.
        change: delta_m in that measure, or None where it has no meaning.
        no_better: the tasks in which single-task training is no better than a constant answer.
    """

    def __init__(self, comparison: Comparison, study: Study) -> None:
        first, second = comparison.first, comparison.second
        seeds = common_seeds(first, second)
        scores, baseline = (group.scores(study.measure, seeds) for group in (first, second))
        constant = study.constant[study.measure]
        levels = zip(first.tasks, baseline.mean(axis=0), strict=True)
        self.no_better = [name for name, level in levels if level <= constant[name]]
        self.comparison = comparison
        self.tasks = estimate(points(scores, baseline))
        self.change = None if self.no_better else estimate(relative_change(scores, baseline).mean(axis=1))
        self._measure = study.measure

    def comparisons(self) -> list[Comparison]:
        """delta_m, where it has a meaning, and every task as comparisons."""
        first, second, tasks = self.comparison.first, self.comparison.second, self.tasks
        question = self.comparison.question
        made = [Comparison(question, first, second, "delta_m", self.change)] if self.change else []
        return made + [
            Comparison(question, first, second, f"{self._measure} of {name}", Estimate(tasks.seeds, *values))
            for name, *values in zip(first.tasks, tasks.mean, tasks.low, tasks.high, strict=True)
        ]


class Section:
    """What the runs on one data set say.

    Attributes:
        study: the groups of runs.
        answers: the differences of mean accuracy that answer each question that can be asked, by its name.
        main: all of these.
        transfers: for each group that can be compared with single-task training, how.
        comparisons: those of `answers`, and with them delta_m and every task against single-task training.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.answers = {q.name: compare(q, study) for q in QUESTIONS if q.applies(study)}
        self.main = [comparison for answers in self.answers.values() for comparison in answers]
        self.transfers: dict[Group, Transfer] = {}
        self.comparisons: list[Comparison] = []
        for comparison in self.main:
            self.comparisons.append(comparison)
            if comparison.second.setting == SINGLE_TASK != comparison.first.setting:
                transfer = Transfer(comparison, study)
                self.transfers.setdefault(comparison.first, transfer)
                self.comparisons += transfer.comparisons()


# Commands that give what is missing


def commands(question: Question, study: Study, directory: Path, table: Sequence[Option]) -> list[str]:
    """The commands, a line each, of the runs that a question lacks for an interval.

    Args:
        directory: that is reported on.
        table: the options that there are.
    """
    pairs = question.pairs(study)
    here = max(pairs, key=lambda pair: len(common_seeds(*pair))) if pairs else _one_side(question, study)
    there = [group for group in here if group]
    near = [group for group in study.groups if _fits(group, question.sides[0])]
    template = (there + near + [group for group in study.groups if group.setting] + study.groups)[0]
    wanted = sorted({seed for group in there or [template] for seed in group.seeds})
    wanted += [seed for seed in range(SEEDS + len(wanted)) if seed not in wanted][
        : max(0, SEEDS - len(wanted))
    ]
    lines = []
    for group, changes in zip(here, question.sides, strict=False):
        lacking = [s for s in wanted if not (group and group.is_complete and s in group.seeds)]
        if lacking:
            values = group.options if group else _changed(template, changes)
            lines.append(_command(values, lacking, directory / question.name.replace(" ", "-"), table))
    return lines


def _one_side(question: Question, study: Study) -> list[Group | None]:
    """For a question that has no pair: the group of one side, where there is one, and None for the other."""
    if len(question.sides) == 1:
        return [None]
    for side, changes in enumerate(question.sides):
        for group in study.groups:
            if _fits(group, changes):
                return [group if i == side else None for i in range(len(question.sides))]
    return [None] * len(question.sides)


def _fits(group: Group, changes: Mapping[str, object]) -> bool:
    """Whether a group is a side of a comparison already."""
    return group.setting != 0 and all(group.options.get(name) == value for name, value in changes.items())


def _changed(template: Group, changes: Mapping[str, object]) -> dict[str, object]:
    """The options of a side that has no runs: those of another group, trained for as many steps."""
    values = {**template.options, **changes}
    if values["setting"] != template.setting:
        values["weights"] = None
        steps, spec = template.total("steps"), _spec(values)
        if steps and spec:
            values["epochs"] = max(1, round(steps / _steps_per_epoch(spec, values)))
    return values


def _spec(values: Mapping[str, object]) -> DataSpec | None:
    """The data set of some options, None for a file, which need not be there any more."""
    if isinstance(values["data"], str):
        return None
    spec = (SYNTHETIC if values["synthetic"] else DATA_SETS)[values["data"]]
    return replace(spec, validation=values["validation"] or 0.0)


def _steps_per_epoch(spec: DataSpec, values: Mapping[str, object]) -> int:
    """Steps of an epoch, in setting 2 of all its models together."""
    setting = SETTINGS[values["setting"]]
    by_task = setting.draws or setting.kind == "single-task"
    sizes = [spec.num_training_images(task) for task in (spec.tasks if by_task else [None])]
    return max(1, sum(size // values["batch_size"] for size in sizes))


def _command(
    values: Mapping[str, object], seeds: Sequence[int], directory: Path, table: Sequence[Option]
) -> str:
    """A line for the shell that trains with some options for some seeds, in setting 2 every task."""
    spec, setting = _spec(values), values["setting"]
    words = ["python main.py --train"]
    for option in table:
        value = values.get(option.name)
        if option.decides == "nothing" or option.repeats or setting not in option.settings:
            continue
        default = option.default_for(spec) if spec or not callable(option.default) else None
        if value in (None, False, default) and option.name not in ("setting", "data"):
            continue
        if option.name == "data" and isinstance(value, str):
            value = shlex.quote(value.rpartition("#")[0])
        many = value if isinstance(value, list | tuple) else [] if value is True else [value]
        words.append(" ".join([f"--{option.name}", *map(str, many)]))
    path, loop = f"{shlex.quote(str(directory))}-{setting}", f"for seed in {' '.join(map(str, seeds))}; do "
    if setting == SINGLE_TASK:
        last = len(spec.tasks) - 1 if spec else "LAST"
        loop += f"for task in $(seq 0 {last}); do "
        words.append("--task $task")
        path += "-$task"
    words.append(f"--seed $seed --save_history --save_path {path}-$seed")
    return loop + " ".join(words) + "; done" * loop.count(" do ")
