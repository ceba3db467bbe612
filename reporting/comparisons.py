"""The questions of a report, and the comparisons that answer them."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Any

from options import ALL, Option, make_run, mixes_tasks
from reporting.estimates import Estimate, Estimates
from reporting.histories import SINGLE_TASK, Group, Study
from reporting.statistics import LEVEL, ROUNDING, corrected
from settings import SETTINGS
from tasks import DATA_SETS

SEEDS = 3
"""Fewest seeds of either side from which the report says which tasks gain or lose."""

STEPS_ALIKE = 0.05
"""Relative difference in training steps up to which two groups count as trained alike."""

TEST = "test"
"""Name of the question how a trained network is tested: each configuration is compared with itself."""

USUAL, AS_TRAINED, BOTH = "usual", "as trained", "both"
"""How the sides of a comparison are tested; `both`: as trained, minus as usual."""

HIGHER, LOWER, INCONCLUSIVE = "higher", "lower", "inconclusive"

NAMES = ("optimizer", "lr", "momentum", "weight_decay", "schedule", "augment")
RECIPE = {name: value for name, value in make_run("train", {}).values.items() if name in NAMES}
"""The default recipe."""

SCORED_ON = ("setting", "data", "synthetic", "validation", "code")
"""What is never a question by itself: the setting has its own, the others decide which images are scored,
or are another program."""

Pair = tuple[Group, Group]
NOTHING: frozenset[str] = frozenset()


@dataclass
class Pairs:
    """What answers a question.

    Attributes:
        compared: the choice and its reference, whose score is subtracted.
        unlike: pairs that would be compared if they did not differ in their amounts of training.
    """

    compared: list[Pair]
    unlike: list[Pair] = field(default_factory=list)


Finder = Callable[[Sequence[Group], frozenset[str]], Pairs]
"""Finds pairs among groups; they may differ in the options that are named, too."""


@dataclass(frozen=True)
class Question:
    """A choice in training that may matter.

    Attributes:
        name: name of the question.
        words: the choice instead of its reference, in general.
        find: finds what to compare.
        sides: given the options of existing runs, those that the choice and its reference need.
        shared_inputs: whether it is asked only if every task has every image, or some runs answer it.
    """

    name: str
    words: str
    find: Finder
    sides: Callable[[Mapping[str, Any]], list[dict[str, Any]]]
    shared_inputs: bool = False

    def pairs(self, study: Study) -> list[Pair]:
        """What is compared to answer it."""
        return self.find(study.groups, NOTHING).compared

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


def between_settings(
    choice: Callable[[Group], bool], reference: Callable[[Group], bool], *differ: str
) -> Finder:
    """Find pairs of groups of different settings.

    Their amounts of training are alike: in number of steps, else in number of epochs.
    """

    def find(groups: Sequence[Group], free: frozenset[str]) -> Pairs:
        except_in = frozenset({"setting", "epochs", *differ}) | free
        candidates = [
            (one, other)
            for one in filter(choice, groups)
            for other in filter(reference, groups)
            if agree(one, other, except_in)
        ]
        steps = {group: group.total("steps") for group in groups}
        matched = {(one, other) for one, other in candidates if are_alike(steps[one], steps[other])}
        # A group with a partner of equally many steps in a setting takes no other partner there.
        left = _without_partner(candidates, matched)
        equal = {pair for pair in left if pair[0].shared["epochs"] == pair[1].shared["epochs"]}
        return Pairs([pair for pair in candidates if pair in matched | equal], _without_partner(left, equal))

    return find


def _without_partner(candidates: Sequence[Pair], paired: Collection[Pair]) -> list[Pair]:
    """The pairs of groups neither of which is paired with another group of the other's setting."""
    taken = {(one, other.setting) for one, other in paired} | {(other, one.setting) for one, other in paired}
    return [
        (one, other)
        for one, other in candidates
        if taken.isdisjoint({(one, other.setting), (other, one.setting)})
    ]


def against_usual(
    options: Sequence[Option], where: Callable[[Group], bool] = lambda _: True, *differ: str
) -> Finder:
    """Find pairs of a group and the usual one of its setting.

    They differ in some options only. The usual group has the defaults of these, if there is any that agrees
    with the first in all others; else the values that most groups have.

    Args:
        options: the options that may differ, at least one of which does.
        where: which groups are compared.
        differ: other options that may differ.
    """
    names = [option.name for option in options]

    def key(group: Group) -> str:
        return str([group.shared.get(name) for name in names])

    def default(group: Group) -> str:
        return str([default_key(option, group) for option in options])

    def find(groups: Sequence[Group], free: frozenset[str]) -> Pairs:
        having = [group for group in groups if where(group) and any(name in group.shared for name in names)]
        commonest = [value for value, _ in Counter(map(key, having)).most_common()]
        found = []
        for group in having:
            peers: dict[str, Group] = {}
            for may_differ in ({*names, *differ}, {*names}):  # those that differ in less go before others
                peers |= {
                    key(other): other
                    for other in reversed(having)
                    if (other.setting, other.by_task) == (group.setting, group.by_task)
                    and agree(group, other, free | may_differ)
                }
            reference = next(peers[value] for value in [default(group), *commonest] if value in peers)
            if key(group) != key(reference):
                found.append((group, reference))
        return Pairs(found)

    return find


def default_key(option: Option, group: Group) -> Any:
    """What a group's value of an option would be compared by if it were the default.

    It is None where it depends on a file.
    """
    if option.name in RECIPE:  # which are one choice together
        return option.key_of(RECIPE[option.name])
    data = group.options["data"]
    spec = DATA_SETS[data] if isinstance(data, int) else None
    return option.key_of(option.default_for(spec, group.options))


def either(*finders: Finder) -> Finder:
    """Find what any of some finders finds."""

    def find(groups: Sequence[Group], free: frozenset[str]) -> Pairs:
        each = [finder(groups, free) for finder in finders]
        return Pairs(
            [p for pairs in each for p in pairs.compared], [p for pairs in each for p in pairs.unlike]
        )

    return find


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


def unequal_and_equal_draws(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Settings 4 and 3, with as many tasks a step as in existing runs, otherwise one."""
    count = options["tasks_per_step"]
    few = {"tasks_per_step": 1 if count in (None, ALL) else count}
    return [{"setting": 4, **few}, {"setting": 3, "loss": "mean", **few}]


def another_loss_and_mean(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A loss, and the mean.

    In setting 3 with all tasks a step if existing runs are like that, otherwise in setting 5.
    """
    all_tasks: dict[str, Any] = {"setting": 5}
    if options["tasks_per_step"] == ALL:
        all_tasks = {"setting": 3, "tasks_per_step": ALL}
    return [all_tasks | {"loss": another_loss(options)}, all_tasks | {"loss": "mean"}]


def more_tasks_and_one(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Several tasks a step, and one.

    As many as in existing runs; otherwise four, or another number that divides the batch.
    """
    setting = options["setting"] if SETTINGS[options["setting"]].samples_tasks else 3
    size, more = options["batch_size"], options["tasks_per_step"]
    if more in (None, 1):
        more = next((k for k in (4, 2, *range(3, size // 2 + 1)) if size % k == 0), 4)
    same: dict[str, Any] = {"setting": setting} | ({"loss": "mean"} if setting == 3 else {})
    return [same | {"tasks_per_step": more}, same | {"tasks_per_step": 1}]


def another_recipe(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Another recipe, and the default one.

    The other is that of existing runs, or momentum with a cosine schedule.
    """
    setting, other = options["setting"] or 3, {name: options[name] for name in RECIPE}
    if other == RECIPE:
        other = RECIPE | {"momentum": 0.9, "schedule": "cosine"}
    return [{"setting": setting, **other}, {"setting": setting, **RECIPE}]


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

    Beside the ones with a name there is one for each other option in which groups differ, whatever it is.
    """
    named = [question for question in named_questions(table) if question.applies(study)]
    found = [question for question in named if question.name != "note"]
    covered = {*SCORED_ON, *RECIPE, "weights", "loss", "tasks_per_step", "note"}
    for option in table:
        if option.name not in covered and len(study.values(option.name)) > 1:
            question = Question(
                option.name,
                WORDS.get(option.name, f"another --{option.name}"),
                against_usual([option]),
                lambda _: [{}, {}],
            )
            found += [question] if question.pairs(study) else []
    return found + [question for question in named if question.name == "note"]


def named_questions(table: Sequence[Option]) -> list[Question]:
    """The questions that have a name of their own."""
    options = {option.name: option for option in table}
    return [
        Question(
            "single-task",
            "one network for all tasks instead of one per task",
            between_settings(
                lambda g: g.by_task and g.setting != SINGLE_TASK, lambda g: g.setting == SINGLE_TASK
            ),
            lambda options: [{"setting": sharing_setting(options)}, {"setting": SINGLE_TASK}],
        ),
        Question(
            "heads",
            "one head for all classes instead of one per task",
            between_settings(lambda g: g.setting == 1, lambda g: g.setting == 3),
            lambda _: [{"setting": 1}, {"setting": 3}],
        ),
        Question(
            "all tasks",
            "all tasks on every image instead of sampled tasks",
            between_settings(is_mean, lambda g: g.setting == 3),
            lambda _: [{"setting": 5, "loss": "mean"}, {"setting": 3, "loss": "mean"}],
            shared_inputs=True,
        ),
        Question(
            "tasks a step",
            "more tasks a step instead of one",
            against_usual([options["tasks_per_step"]]),
            more_tasks_and_one,
        ),
        Question(
            "draws",
            "tasks sampled by weight instead of equally",
            between_settings(lambda g: g.setting == 4, lambda g: g.setting == 3, "weights"),
            unequal_and_equal_draws,
        ),
        Question(
            "weights",
            "losses weighted by task instead of equally",
            either(
                between_settings(lambda g: g.setting == 6, is_mean, "weights"),
                against_usual([options["weights"]]),
            ),
            lambda _: [{"setting": 6}, {"setting": 5, "loss": "mean"}],
            shared_inputs=True,
        ),
        Question(
            "loss",
            "another loss instead of the mean",
            against_usual([options["loss"]], combines),
            another_loss_and_mean,
            shared_inputs=True,
        ),
        Question(
            "recipe",
            "another recipe (optimizer, rate, momentum, schedule ...)",
            against_usual([options[name] for name in RECIPE]),
            another_recipe,
        ),
        Question(
            TEST,
            "tested as trained instead of as usual",
            lambda groups, _: Pairs([(group, group) for group in groups if group.again()]),
            lambda _: [{}],  # any run has both scores, unless its program or its network has one only
        ),
        Question(
            "note",
            "what --note says, whatever the code",
            against_usual([options["note"]], lambda _: True, "code"),
            lambda _: [{}],  # no command makes such runs: they take other code
        ),
    ]


@dataclass
class Result:
    """What a comparison measures.

    Attributes:
        estimate: the difference, with its interval.
        q: its p value, corrected for all that are judged beside it; NaN where there is no interval.
    """

    estimate: Estimate
    q: float = float("nan")

    @property
    def verdict(self) -> str:
        """`higher` or `lower` than 0, or `inconclusive`."""
        if isnan(self.q) or self.q > LEVEL:
            return INCONCLUSIVE
        return HIGHER if self.estimate.value > 0 else LOWER

    @property
    def is_conclusive(self) -> bool:
        """Whether it is higher or lower than 0."""
        return self.verdict != INCONCLUSIVE


@dataclass
class Transfer:
    """Gain or loss relative to the single-task baseline.

    Attributes:
        tasks: for each task, the difference in points, by the study's measure.
        delta_m: the mean change in per cent by that measure, or None where it is undefined.
        no_better: tasks in which the baseline is no better than a constant answer.
    """

    tasks: list[Result]
    delta_m: Result | None
    no_better: list[str]

    def count(self, verdict: str) -> int:
        """Number of tasks with a verdict."""
        return sum(task.verdict == verdict for task in self.tasks)

    @property
    def is_judged(self) -> bool:
        """Whether there are enough seeds to say which tasks gain or lose."""
        return min(self.tasks[0].estimate.seeds) >= SEEDS


@dataclass
class Comparison:
    """How much higher a choice scores than its reference.

    Attributes:
        question: the question that it answers.
        first: the choice.
        second: the reference, whose score is subtracted; the same group where it is tested in two ways.
        results: by the way of testing, the difference in mean accuracy.
        transfers: by the way of testing, gains and losses if the reference is the single-task baseline.
    """

    question: Question
    first: Group
    second: Group
    results: dict[str, Result]
    transfers: dict[str, Transfer] = field(default_factory=dict)

    @property
    def is_unlike(self) -> bool:
        """Whether the sides are of two settings, and took unlike numbers of training steps."""
        alike = are_alike(*(group.total("steps") for group in (self.first, self.second)))
        return self.first.setting != self.second.setting and not alike


class Section:
    """All comparisons on one data set.

    Attributes:
        study: the groups of runs.
        questions: the questions that make sense for them.
        comparisons: what answers them, question by question.
        tests: what testing as trained changes, for each configuration that has been tested so.
        unlike: pairs that are not compared as their amounts of training differ.
        ranking: the groups that have every task, the best first.
        unranked: the others.
        means: by the way of testing, the mean accuracy of each group.
    """

    def __init__(self, study: Study, table: Sequence[Option]) -> None:
        self.study = study
        self.questions = questions_for(study, table)
        again = study.as_trained
        usual_of = {trained: usual for usual, trained in again.items()}
        self._estimates: dict[tuple[str, bool], Estimates] = {}
        self._ways: dict[str, Callable[[Group], Group | None]] = {USUAL: lambda g: g, AS_TRAINED: again.get}
        for by_task in (True, False):
            groups = [group for group in study.groups if group.by_task == by_task]
            trained = [again[group] for group in groups if group in again]
            self._estimates[USUAL, by_task] = Estimates(groups, study.shared_inputs)
            self._estimates[AS_TRAINED, by_task] = Estimates(trained, study.shared_inputs)
            self._estimates[BOTH, by_task] = Estimates(trained, study.shared_inputs, usual_of)
        self.means = {
            way: {g: self._by(way, g).mean(side) for g in study.groups if (side := of(g))}
            for way, of in self._ways.items()
        }
        in_order = sorted(study.groups, key=lambda group: -self.means[USUAL][group].value)
        self.ranking = [group for group in in_order if group.by_task and group.is_complete]
        self.unranked = [group for group in in_order if group not in self.ranking]
        self.comparisons: list[Comparison] = []
        self.tests: list[Comparison] = []
        self.unlike: list[Pair] = []
        for question in self.questions:
            found = question.find(study.groups, NOTHING)
            self.unlike += [
                pair
                for pair in found.unlike
                if pair not in self.unlike and all(group.is_complete for group in pair)
            ]
            if question.name == TEST:
                complete = [group for group, _ in found.compared if again[group].is_complete]
                self.tests = [self._tested(question, group) for group in complete]
            else:
                self.add(question, found.compared)
        self.judge()

    def _tested(self, question: Question, group: Group) -> Comparison:
        change = self._by(BOTH, group).mean(self.study.as_trained[group])
        return Comparison(question, group, group, {BOTH: Result(change)})

    def _by(self, way: str, group: Group) -> Estimates:
        return self._estimates[way, group.by_task]

    def add(self, question: Question, pairs: Sequence[Pair]) -> None:
        """Compare pairs of groups that have every task; `judge` has to follow."""
        for first, second in pairs:
            comparison = Comparison(question, first, second, {})
            for way, of in self._ways.items():
                one, other = of(first), of(second)
                if not (one and other and one.is_complete and other.is_complete):
                    continue
                estimates = self._by(way, first)
                comparison.results[way] = Result(estimates.difference(one, other))
                if other.setting == SINGLE_TASK != one.setting:
                    comparison.transfers[way] = self._transfer(estimates, one, other)
            if comparison.results:
                self.comparisons.append(comparison)

    def _transfer(self, estimates: Estimates, one: Group, baseline: Group) -> Transfer:
        measure = self.study.measure
        constant = self.study.constant[measure]
        levels = zip(one.tasks, estimates.scores(baseline, measure).mean(axis=0), strict=True)
        no_better = [name for name, level in levels if level <= constant[name] + ROUNDING]
        tasks = [Result(each) for each in estimates.tasks(one, baseline, measure)]
        delta_m = None if no_better else Result(estimates.delta_m(one, baseline, measure))
        return Transfer(tasks, delta_m, no_better)

    def judge(self) -> None:
        """Correct the p values: each pair counts once, and each way of testing is a family of its own.

        Single tasks are a family for each pair, from SEEDS seeds on.
        """
        for way in self._ways:
            families: list[dict[tuple[Group, Group], list[Result]]] = [{}, {}]
            for comparison in self.comparisons:
                transfer = comparison.transfers.get(way)
                parts = (comparison.results.get(way), transfer.delta_m if transfer else None)
                for family, result in zip(families, parts, strict=True):
                    if result:
                        family.setdefault((comparison.first, comparison.second), []).append(result)
                if transfer and transfer.is_judged:
                    _correct([[task] for task in transfer.tasks])
            for family in families:
                _correct([*family.values()])
        _correct([[comparison.results[BOTH]] for comparison in self.tests])

    @property
    def num_intervals(self) -> int:
        """Number of pairs whose mean accuracies, tested as usual, have a difference with an interval."""
        return len(
            {
                (each.first, each.second)
                for each in self.comparisons
                if not isnan(each.results[USUAL].estimate.p)
            }
        )

    def answering(self, name: str) -> list[Comparison]:
        """The comparisons that answer a question."""
        return [each for each in [*self.comparisons, *self.tests] if each.question.name == name]

    def transfer(self, group: Group, way: str) -> Transfer | None:
        """Gains and losses of a group relative to the first single-task baseline that it is compared with."""
        found = (each.transfers.get(way) for each in self.comparisons if each.first is group)
        return next((transfer for transfer in found if transfer), None)

    def is_noisy(self, group: Group) -> bool:
        """Whether the seeds of a group vary far more than those of all others."""
        return self._by(USUAL, group).is_noisy(group)


def _correct(family: Sequence[Sequence[Result]]) -> None:
    """Correct the p values of a family; results that stand together are of the same pair."""
    for results, q in zip(family, corrected([each[0].estimate.p for each in family]), strict=True):
        for result in results:
            result.q = q
