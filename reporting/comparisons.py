"""The questions of a report, and the comparisons that answer them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from options import ALL, Option, make_run, mixes_tasks
from reporting.histories import SINGLE_TASK, Group, Study
from reporting.statistics import ROUNDING, Estimate, estimate, points, relative_change
from settings import SETTINGS
from tasks import DATA_SETS

SEEDS = 3
"""Fewest seeds from which the report says which tasks gain or lose."""

STEPS_ALIKE = 0.05
"""Relative difference in training steps up to which two groups count as trained alike."""

NAMES = ("optimizer", "lr", "momentum", "weight_decay", "schedule", "augment")
RECIPE = {name: value for name, value in make_run("train", {}).values.items() if name in NAMES}
"""The default recipe."""

Pair = tuple[Group, Group]


@dataclass(frozen=True)
class Question:
    """A choice in training that may matter.

    Attributes:
        name: name of the question.
        words: what is varied.
        pairs: finds the groups to compare.
        sides: given the options of existing runs, the options that each side of a comparison needs.
        shared_inputs: whether it is asked only if every task has every image, or some runs answer it.
    """

    name: str
    words: str
    pairs: Callable[[Study], list[Pair]]
    sides: Callable[[Mapping[str, Any]], list[dict[str, Any]]]
    shared_inputs: bool = False

    def applies(self, study: Study) -> bool:
        """Whether the question makes sense for a data set."""
        return not self.shared_inputs or study.shared_inputs or bool(self.pairs(study))


def agree(one: Group, other: Group, except_in: frozenset[str]) -> bool:
    """Whether two groups agree in all options, with some exceptions.

    Only options that go with both settings count. Where a step has one set of images, it makes no difference
    whether sets are normalised together or apart.
    """
    if not all(mixes_tasks(each.setting, each.shared.get("tasks_per_step")) for each in (one, other)):
        except_in |= {"normalisation"} if is_by_batch(one) and is_by_batch(other) else set()
    return all(
        name in except_in or name not in other.shared or value == other.shared[name]
        for name, value in one.shared.items()
    )


def is_by_batch(group: Group) -> bool:
    """Whether a group has batch normalisation, over a whole batch or a part of it."""
    return group.shared["normalisation"] in ("together", "apart")


def are_alike(steps: float | None, others: float | None) -> bool:
    """Whether two numbers of training steps count as equal.

    Unknown numbers do not.
    """
    if steps is None or others is None:
        return False
    return abs(steps - others) <= STEPS_ALIKE * max(steps, others)


def within_setting(
    first: Callable[[Group], bool], second: Callable[[Group], bool], *differ: str
) -> Callable[[Study], list[Pair]]:
    """Find pairs of groups that differ at most in some options."""

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
    """Find pairs of groups of two settings, trained equally long.

    They have equally many steps or, failing that, epochs.
    """

    def pairs(study: Study) -> list[Pair]:
        candidates = [
            (one, other)
            for one in filter(first, study.groups)
            for other in filter(second, study.groups)
            if agree(one, other, frozenset({"setting", "epochs", *differ}))
        ]
        matched = [pair for pair in candidates if are_alike(*(group.total("steps") for group in pair))]
        # A group with a partner of equally many steps in a setting takes no other partner there.
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


def peers_of(group: Group, groups: Sequence[Group], except_in: frozenset[str]) -> list[Group]:
    """The groups that are scored alike in the same setting and agree in all options, with some exceptions."""
    return [
        other
        for other in groups
        if (other.setting, other.by_task) == (group.setting, group.by_task) and agree(group, other, except_in)
    ]


def against_default(defaults: Mapping[str, Any], *differ: str) -> Callable[[Study], list[Pair]]:
    """Find pairs of a default group and another of its setting.

    Args:
        defaults: values of the options that the question is about. Where no group has them, the first group
            takes their place.
        differ: other options that may differ.
    """
    except_in = frozenset({*defaults, *differ})

    def pairs(study: Study) -> list[Pair]:
        found = []
        for group in study.groups:
            peers = peers_of(group, study.groups, except_in) if group.by_task else []
            usual = [
                peer
                for peer in peers
                if all(peer.shared.get(name) == value for name, value in defaults.items())
            ]
            if peers and group is not (base := (usual or peers)[0]):
                found.append((base, group))
        return found

    return pairs


def differing_in(option: Option) -> Callable[[Study], list[Pair]]:
    """Find pairs of groups that differ in one option only.

    The second has the option's default, where any does that agrees with the first in the others, or else the
    value that most groups have.
    """
    name = option.name

    def pairs(study: Study) -> list[Pair]:
        having = [group for group in study.groups if name in group.shared]
        values = [group.shared[name] for group in having]
        usual = sorted(study.values(name), key=values.count, reverse=True)
        found = []
        for group in having:
            peers = peers_of(group, having, frozenset({name}))
            there = {str(peer.shared[name]): peer for peer in peers}
            data = group.options["data"]
            spec = DATA_SETS[data] if isinstance(data, int) else None
            first = option.key_of(option.default_for(spec, group.options))
            reference = next(there[str(value)] for value in [first, *usual] if str(value) in there)
            if group is not reference:
                found.append((group, reference))
        return found

    return pairs


def is_mean(group: Group) -> bool:
    """Whether a group trains on the mean of all tasks' losses on the same images."""
    return group.setting == 5 and group.shared["loss"] == "mean"


def combines(group: Group) -> bool:
    """Whether a step of a group has the losses of all tasks, to combine them as --loss says."""
    return "loss" in group.shared and (group.setting == 5 or group.shared.get("tasks_per_step") == ALL)


# Options for sides that have no runs yet, as close as possible to those of existing runs


def sharing_setting(options: Mapping[str, Any]) -> int:
    """A setting in which tasks share an encoder.

    It is that of existing runs if their tasks do, otherwise 3.
    """
    return options["setting"] if options["setting"] not in (0, SINGLE_TASK) else 3


def another_loss(options: Mapping[str, Any]) -> str:
    """A loss other than the mean."""
    return options["loss"] if options["loss"] not in (None, "mean") else "uw"


def equal_and_unequal_draws(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Settings 3 and 4, with as many tasks a step as in existing runs, otherwise one."""
    count = options["tasks_per_step"]
    few = {"tasks_per_step": 1 if count in (None, ALL) else count}
    return [{"setting": 3, "loss": "mean", **few}, {"setting": 4, **few}]


def mean_and_another_loss(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The mean and another loss.

    In setting 3 with all tasks a step if existing runs are like that, otherwise in setting 5.
    """
    all_tasks: dict[str, Any] = {"setting": 5}
    if options["tasks_per_step"] == ALL:
        all_tasks = {"setting": 3, "tasks_per_step": ALL}
    return [all_tasks | {"loss": "mean"}, all_tasks | {"loss": another_loss(options)}]


def more_tasks_per_step(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One task a step, and several.

    As many as in existing runs; otherwise four, or another number that divides the batch.
    """
    setting = options["setting"] if SETTINGS[options["setting"]].samples_tasks else 3
    size, more = options["batch_size"], options["tasks_per_step"]
    if more in (None, 1):
        more = next((k for k in (4, 2, *range(3, size // 2 + 1)) if size % k == 0), 4)
    same: dict[str, Any] = {"setting": setting} | ({"loss": "mean"} if setting == 3 else {})
    return [same | {"tasks_per_step": 1}, same | {"tasks_per_step": more}]


def another_recipe(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The default recipe and another.

    The other is that of existing runs, or momentum with a cosine schedule.
    """
    setting, other = options["setting"] or 3, {name: options[name] for name in RECIPE}
    if other == RECIPE:
        other = RECIPE | {"momentum": 0.9, "schedule": "cosine"}
    return [{"setting": setting, **RECIPE}, {"setting": setting, **other}]


QUESTIONS = (
    Question(
        "draws",
        "how often a task is sampled",
        between_settings(lambda g: g.setting == 3, lambda g: g.setting == 4, "weights"),
        equal_and_unequal_draws,
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
        within_setting(
            lambda g: combines(g) and g.shared["loss"] == "mean",
            lambda g: combines(g) and g.shared["loss"] != "mean",
            "loss",
        ),
        mean_and_another_loss,
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
        "sampling tasks, or training all of them on every image",
        between_settings(lambda g: g.setting == 3, is_mean),
        lambda _: [{"setting": 3, "loss": "mean"}, {"setting": 5, "loss": "mean"}],
        shared_inputs=True,
    ),
    Question(
        "heads",
        "one head for all classes, or one per task",
        between_settings(lambda g: g.setting == 1, lambda g: g.setting == 3),
        lambda _: [{"setting": 1}, {"setting": 3}],
    ),
    Question(
        "test",
        "testing as usual, or as trained",
        lambda study: list(study.as_trained.items()),
        lambda _: [{}],  # any run has both scores, unless its program or its network has one only
    ),
    Question(
        "recipe",
        "optimizer, learning rate, momentum, weight decay, schedule and augmentation",
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
        lambda _: [{}],  # no command makes such runs: they take other code
    ),
    Question(
        "single-task",
        "sharing an encoder, or one network per task",
        between_settings(
            lambda g: g.by_task and g.setting != SINGLE_TASK, lambda g: g.setting == SINGLE_TASK
        ),
        lambda options: [{"setting": sharing_setting(options)}, {"setting": SINGLE_TASK}],
    ),
)


QUESTIONED = {
    *("setting", "data", "synthetic", "validation", "weights", "loss", "tasks_per_step", "note", "code"),
    *RECIPE,
}
"""Options that a question above is about, or that decide which images are scored, and the code."""

WORDS = {
    "normalisation": "what batch normalisation averages over",
    "encoder": "the network that the tasks share",
    "head": "the network of a task",
    "precision": "the number format",
    "image_size": "the size of the images",
    "batch_size": "images in a step",
    "epochs": "how long training takes",
}
"""What is varied, of options whose names do not say it."""


def questions_for(study: Study, table: Sequence[Option]) -> list[Question]:
    """The questions that make sense for a data set.

    Beside the ones above there is one for each other option in which groups differ, whatever it is.
    """
    found = [question for question in QUESTIONS if question.applies(study)]
    for option in table:
        if option.name in QUESTIONED or len(study.values(option.name)) < 2:
            continue
        pairs = differing_in(option)
        if pairs(study):
            words = WORDS.get(option.name, f"--{option.name}")
            found.append(Question(option.name, words, pairs, lambda _: [{}, {}]))
    return found


@dataclass(frozen=True)
class Comparison:
    """How much higher one group scores than another.

    Attributes:
        question: name of the question.
        first: the group whose score counts positive.
        second: the group whose score is subtracted.
        measure: `accuracy` or `balanced_accuracy` (mean over tasks) or `... of TASK`, in points; or
            `delta_m`, in per cent.
        difference: a scalar estimate over the common seeds.
    """

    question: str
    first: Group
    second: Group
    measure: str
    difference: Estimate

    @property
    def task(self) -> str:
        """The task that is compared, empty for the mean over tasks."""
        return self.measure.partition(" of ")[2]


def common_seeds(one: Group, other: Group) -> list[int]:
    """The seeds that have every task in both groups."""
    complete = one.is_complete and other.is_complete
    return [seed for seed in one.seeds if seed in other.seeds] if complete else []


def scorings(pair: Pair, study: Study) -> list[Pair]:
    """A pair, and the same pair scored as trained, if both have such scores."""
    first, second = (study.as_trained.get(group) for group in pair)
    return [pair, (first, second)] if first and second else [pair]


def compare(question: Question, study: Study) -> list[Comparison]:
    """Compare the mean accuracies of all pairs that answer a question."""
    comparisons = []
    for first, second in (scoring for pair in question.pairs(study) for scoring in scorings(pair, study)):
        if seeds := common_seeds(first, second):
            values = points(first.scores(seeds=seeds), second.scores(seeds=seeds)).mean(axis=1)
            comparisons.append(Comparison(question.name, first, second, "accuracy", estimate(values)))
    return comparisons


class Transfer:
    """Gain or loss of each task relative to the single-task baseline.

    Attributes:
        comparison: comparison of the means over tasks.
        tasks: difference of each task in points, by the study's measure.
        change: delta_m by that measure, or None where it is undefined.
        no_better: tasks in which the baseline is no better than a constant answer.
    """

    def __init__(self, comparison: Comparison, study: Study) -> None:
        first, second = comparison.first, comparison.second
        seeds = common_seeds(first, second)
        scores, baseline = (group.scores(study.measure, seeds) for group in (first, second))
        constant = study.constant[study.measure]
        levels = zip(first.tasks, baseline.mean(axis=0), strict=True)
        self.no_better = [name for name, level in levels if level <= constant[name] + ROUNDING]
        self.comparison = comparison
        self.tasks = estimate(points(scores, baseline))
        self.change = None if self.no_better else estimate(relative_change(scores, baseline).mean(axis=1))
        self._measure = study.measure

    def comparisons(self) -> list[Comparison]:
        """delta_m where it is defined, and every task, as comparisons."""
        first, second, tasks = self.comparison.first, self.comparison.second, self.tasks
        question = self.comparison.question
        made = [Comparison(question, first, second, "delta_m", self.change)] if self.change else []
        return made + [
            Comparison(question, first, second, f"{self._measure} of {name}", Estimate(tasks.seeds, *values))
            for name, *values in zip(first.tasks, tasks.mean, tasks.low, tasks.high, strict=True)
        ]


class Section:
    """All comparisons on one data set.

    Attributes:
        study: the groups of runs.
        questions: the questions that make sense for them.
        answers: by question, the comparisons of mean accuracy that answer it.
        main: all comparisons of mean accuracy.
        transfers: for each group that has a single-task baseline, its gains and losses.
        comparisons: `main`, and with them delta_m and every task relative to the baseline.
    """

    def __init__(self, study: Study, table: Sequence[Option]) -> None:
        self.study = study
        self.questions = questions_for(study, table)
        self.answers = {question.name: compare(question, study) for question in self.questions}
        self.main = [comparison for answers in self.answers.values() for comparison in answers]
        self.transfers: dict[Group, Transfer] = {}
        self.comparisons: list[Comparison] = []
        for comparison in self.main:
            self.comparisons.append(comparison)
            if comparison.second.setting == SINGLE_TASK != comparison.first.setting:
                transfer = Transfer(comparison, study)
                self.transfers.setdefault(comparison.first, transfer)
                self.comparisons += transfer.comparisons()
