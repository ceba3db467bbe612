"""The questions that runs can answer, and the groups that are compared to answer them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from options import OPTIONS
from reporting.histories import SINGLE_TASK, Group, Study
from reporting.statistics import NO_DEVIATION, Estimate, estimate, points, relative_change
from settings import SETTINGS

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
        sides: the options of each side of a comparison that tell it from the other, by the options of runs
            that are there.
        shared_inputs: whether it is asked where every task has every image, where not, or in both (None).
    """

    name: str
    words: str
    pairs: Callable[[Study], list[Pair]]
    sides: Callable[[Mapping[str, Any]], list[dict[str, Any]]]
    shared_inputs: bool | None = None

    def applies(self, study: Study) -> bool:
        """Whether it can be asked of a data set."""
        return self.shared_inputs in (None, study.shared_inputs)


def agree(one: Group, other: Group, but: frozenset[str]) -> bool:
    """Whether two groups share every option that goes with the settings of both, some excepted."""
    return all(
        name in but or name not in other.shared or value == other.shared[name]
        for name, value in one.shared.items()
    )


def are_alike(steps: float | None, others: float | None) -> bool:
    """Whether two numbers of training steps count as the same; unknown ones do not."""
    if steps is None or others is None:
        return False
    return abs(steps - others) <= STEPS_ALIKE * max(steps, others)


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
        matched = [pair for pair in candidates if are_alike(*(group.total("steps") for group in pair))]
        # A group that has a partner of as many steps in a setting has no other one in that setting.
        taken = {(one, other.setting) for one, other in matched} | {(o, one.setting) for one, o in matched}
        return [
            (one, other)
            for one, other in candidates
            if (one, other) in matched
            or (
                one.shared["epochs"] == other.shared["epochs"]
                and taken.isdisjoint({(one, other.setting), (other, one.setting)})
            )
        ]

    return pairs


def against_default(defaults: Mapping[str, Any], *differ: str) -> Callable[[Study], list[Pair]]:
    """Pairs of a group and the one of its setting that differs in some options and has their defaults.

    Args:
        defaults: of the options that are asked about; where no group has them, the first group stands in.
        differ: what else may differ.
    """
    but = frozenset({*defaults, *differ})

    def pairs(study: Study) -> list[Pair]:
        found = []
        for group in study.groups:
            peers = [
                other
                for other in study.groups
                if group.setting == other.setting and group.by_task and agree(group, other, but)
            ]
            usual = [
                peer for peer in peers if all(peer.shared[name] == value for name, value in defaults.items())
            ]
            if peers and group is not (base := (usual or peers)[0]):
                found.append((base, group))
        return found

    return pairs


def is_mean(group: Group) -> bool:
    """Whether a group minimises the plain mean of all tasks' losses."""
    return group.setting == 5 and group.shared["loss"] == "mean"


# What the other side could be trained with


def way(options: Mapping[str, Any]) -> int:
    """A setting that shares an encoder: that of some runs, if it does."""
    return options["setting"] if options["setting"] not in (0, SINGLE_TASK) else 3


def another_loss(options: Mapping[str, Any]) -> str:
    """A loss that is not the mean."""
    return options["loss"] if options["loss"] not in (None, "mean") else "uw"


def more_tasks_per_step(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One task a step, and more: as in some runs, or four, if they divide a batch."""
    setting = options["setting"] if SETTINGS[options["setting"]].draws else 3
    size, more = options["batch_size"], options["tasks_per_step"]
    if more in (None, 1):
        more = next((k for k in (4, 2, *range(3, size // 2 + 1)) if size % k == 0), 4)
    return [{"setting": setting, "tasks_per_step": 1}, {"setting": setting, "tasks_per_step": more}]


def another_recipe(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The recipe of the experiment, and another: that of some runs, or one of the usual ones."""
    setting, other = options["setting"] or 3, {name: options[name] for name in RECIPE}
    if other == RECIPE:
        other = RECIPE | {"momentum": 0.9, "schedule": "cosine"}
    return [{"setting": setting, **RECIPE}, {"setting": setting, **other}]


QUESTIONS = (
    Question(
        "draws",
        "how often a task is drawn",
        between_settings(lambda g: g.setting == 3, lambda g: g.setting == 4, "weights"),
        lambda _: [{"setting": 3}, {"setting": 4}],
    ),
    Question(
        "weights",
        "how much the loss of a task weighs",
        between_settings(is_mean, lambda g: g.setting == 6, "weights"),
        lambda _: [{"setting": 5, "loss": "mean"}, {"setting": 6}],
        shared_inputs=True,
    ),
    Question(
        "loss",
        "how the losses of the tasks make one update",
        within_setting(is_mean, lambda g: g.setting == 5 and not is_mean(g), "loss"),
        lambda options: [{"setting": 5, "loss": "mean"}, {"setting": 5, "loss": another_loss(options)}],
        shared_inputs=True,
    ),
    Question(
        "tasks a step",
        "how many tasks share a step",
        within_setting(
            lambda g: g.shared.get("tasks_per_step") == 1,
            lambda g: g.shared.get("tasks_per_step", 1) != 1,
            "tasks_per_step",
        ),
        more_tasks_per_step,
    ),
    Question(
        "all tasks",
        "drawing tasks, or all of them on every image",
        between_settings(lambda g: g.setting == 3, is_mean),
        lambda _: [{"setting": 3}, {"setting": 5, "loss": "mean"}],
        shared_inputs=True,
    ),
    Question(
        "heads",
        "one head for all classes, or one for each task",
        between_settings(lambda g: g.setting == 1, lambda g: g.setting == 3),
        lambda _: [{"setting": 1}, {"setting": 3}],
    ),
    Question(
        "normalisation",
        "scoring with the statistics of all tasks, or with those of the task",
        lambda study: list(study.own.items()),
        lambda _: [{"setting": 3}],
        shared_inputs=False,
    ),
    Question(
        "recipe",
        "learning rate, momentum, weight decay and schedule",
        against_default(RECIPE),
        another_recipe,
    ),
    Question(
        "note",
        "what --note says, whatever the code",
        lambda study: [
            (one, other)
            for one, other in against_default({"note": ""}, "code")(study)
            if one.shared["note"] != other.shared["note"]
        ],
        lambda _: [{}],  # no run of the program as it is answers it
    ),
    Question(
        "single-task",
        "sharing an encoder, or a network for each task",
        between_settings(
            lambda g: g.by_task and g.setting != SINGLE_TASK, lambda g: g.setting == SINGLE_TASK
        ),
        lambda options: [{"setting": way(options)}, {"setting": SINGLE_TASK}],
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


def scorings(pair: Pair, study: Study) -> list[Pair]:
    """A pair, and where there is one the same pair scored with the tasks' own normalisation statistics.

    Ways that do not draw tasks are tested with the statistics they are trained with, and have no others.
    """
    first, second = (study.own.get(group, None if SETTINGS[group.setting].draws else group) for group in pair)
    return [pair, (first, second)] if first and second and (first, second) != pair else [pair]


def compare(question: Question, study: Study) -> list[Comparison]:
    """The differences of mean accuracy that answer a question."""
    comparisons = []
    for first, second in (scoring for pair in question.pairs(study) for scoring in scorings(pair, study)):
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
        self.no_better = [name for name, level in levels if level <= constant[name] + NO_DEVIATION]
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
