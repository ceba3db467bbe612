"""What a report could not compare, and why."""

from collections.abc import Iterator, Sequence
from math import isnan

from reporting.comparisons import AS_TRAINED, USUAL, Section
from reporting.histories import Group
from reporting.tuned import Family
from reporting.words import Names, counted, stated


def reasons(section: Section, names: Names) -> list[str]:
    """A line for each reason for which configurations are not compared, or not fully."""
    return [*_amounts(section, names), *_incomplete(section, names), *_no_interval(section, names),
            *_apart(section, names), *_no_delta_m(section, names)]  # fmt: skip


def _amounts(section: Section, names: Names) -> Iterator[str]:
    if section.unlike:
        pairs = ", ".join(
            " and ".join(f"{names.letters[group]} ({steps(group)} steps)" for group in pair)
            for pair in section.unlike
        )
        yield f"too unlike in training, as neither steps are within 5 % nor epochs equal: {pairs}"


def _incomplete(section: Section, names: Names) -> Iterator[str]:
    for group in section.study.groups:
        count = len(group.tasks)
        if not group.is_complete:
            most = count - min(map(len, group.lacking.values()))
            yield f"{names.letters[group]}: no seed has all tasks, but at most {most} of {count}"
        for each, how in ((group, ""), (section.study.as_trained.get(group), " as trained")):
            if each and each.is_complete and each.lacking:
                lacking = ", ".join(
                    f"{seed} (lacks {len(tasks)} of {count} tasks)" for seed, tasks in each.lacking.items()
                )
                yield f"{names.letters[group]}{how}: left out: seed {lacking}"
        if not group.by_task:
            yield f"{names.letters[group]}: scored on all classes at once, not task by task"


def _no_interval(section: Section, names: Names) -> Iterator[str]:
    complete = [group for group in section.study.groups if group.is_complete]
    alone = [group for group in complete if len(group.seeds) == 1]
    if alone:
        yield f"one seed gives no interval: {names.all(alone)}"
    without = {
        group
        for each in section.comparisons
        for group in (each.first, each.second)
        if isnan(each.results[USUAL].estimate.p) and not {each.first, each.second} & set(alone)
    }
    if without:
        agreeing = [group for group in complete if group in without]
        yield f"seeds that agree to the last digit give no interval: {names.all(agreeing)}"


def _apart(section: Section, names: Names) -> Iterator[str]:
    compared = {group for each in section.comparisons for group in (each.first, each.second)}
    compared |= {group for pair in section.unlike for group in pair}
    alone = [group for group in section.ranking if group not in compared]
    if alone and len(section.study.groups) > 1:
        yield f"no other configuration differs in one choice alone from {names.all(alone)}"
    codes = section.study.values("code")
    if len(codes) > 1:
        sides = "; ".join(
            f"{stated('code', code)}: "
            + names.all(group for group in section.study.groups if group.shared["code"] == code)
            for code in codes
        )
        yield f"runs of different code are not averaged, and compared by --note alone: {sides}"


def _no_delta_m(section: Section, names: Names) -> Iterator[str]:
    found: dict[str, list[Group]] = {}
    for way in (USUAL, AS_TRAINED):
        for comparison in section.comparisons:
            transfer = comparison.transfers.get(way)
            if transfer and transfer.no_better:
                groups = found.setdefault(", ".join(transfer.no_better), [])
                groups += [comparison.first] if comparison.first not in groups else []
    for tasks, groups in found.items():
        yield (
            f"no delta_m for {names.all(groups)}: single-task training is no better than a constant answer "
            f"in {tasks}"
        )


def steps(group: Group) -> str:
    """How many training steps a seed of a group took, of all its models together."""
    total = group.total("steps")
    return "-" if total is None else f"{total:,.0f}"


def tuning(families: Sequence[Family], names: Names) -> list[str]:
    """A line for each family of configurations: what was tried and chosen."""
    lines = []
    for family in families:
        best = family.best
        line = f"{counted(len(family.tried), 'recipe')} tried on held-out images, the best "
        line += f"{names.letters[best]} ({names.words[best]})"
        if family.at_edge:
            line += ", whose learning rate is at the edge of those tried"
        if family.chosen:
            line += f"; on the test images {names.letters[family.chosen]}"
        else:
            line += "; it has no runs on the test images"
        lines.append(line)
    return lines
