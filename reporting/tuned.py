"""Configurations at their best recipes, chosen on held-out images and compared on the test images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reporting.comparisons import RECIPE, TEST, Section
from reporting.histories import Group

TUNED = "tuned"
"""Name of the question."""


@dataclass(frozen=True)
class Family:
    """Configurations that differ in their recipes only.

    Attributes:
        tried: the recipes that were tried, scored on held-out images.
        best: the one with the best mean accuracy there.
        at_edge: whether its learning rate is the smallest or the largest of those that were tried with it.
        chosen: the same recipe scored on the test images, None if it has no such runs.
    """

    tried: Sequence[Group]
    best: Group
    at_edge: bool
    chosen: Group | None


def add_tuned(sections: Sequence[Section]) -> dict[Section, list[Family]]:
    """Compare families of configurations, each at its best recipe.

    Returns:
        the families, by the section of their test images, or of held-out images where no run has any other.
    """
    by_data: dict[tuple[object, ...], list[Section]] = {}
    for section in sections:  # of a data set, whichever of its images are scored
        by_data.setdefault(section.study.runs[0].data_set[:2], []).append(section)
    found: dict[Section, list[Family]] = {}
    for each in by_data.values():
        tested = next((section for section in each if not section.study.validation), None)
        families: dict[str, Family] = {}
        for section in each:
            if section.study.validation:
                more = _families(section.study.groups, tested.study.groups if tested else [])
                kept = {
                    key: family for key, family in families.items() if not _is_larger(more.get(key), family)
                }
                families = more | kept
        if families:
            found[tested or each[0]] = [*families.values()]
            if tested:
                _compare(tested, [family.chosen for family in families.values() if family.chosen])
    return found


def _is_larger(one: Family | None, other: Family) -> bool:
    """Whether a family has tried more recipes than another."""
    return one is not None and len(one.tried) > len(other.tried)


def _compare(section: Section, chosen: Sequence[Group]) -> None:
    """Compare configurations that may differ in their recipes, too."""
    for question in section.questions:
        if question.name not in ("recipe", "note", TEST):
            pairs = question.find(chosen, frozenset(RECIPE)).compared
            section.add(replace(question, name=TUNED), pairs)
    section.judge()


def _families(held_out: Sequence[Group], tested: Sequence[Group]) -> dict[str, Family]:
    """The families that tried several recipes, by what their members have in common."""
    members: dict[str, list[Group]] = {}
    for group in held_out:
        if group.by_task and group.is_complete:
            members.setdefault(_without(group, *RECIPE, "validation"), []).append(group)
    chosen = {_without(group, "validation"): group for group in tested if group.is_complete}
    families = {}
    for key, tried in members.items():
        if len(tried) > 1:
            best = max(tried, key=lambda group: float(group.means().mean()))
            on_test_images = chosen.get(_without(best, "validation"))
            families[key] = Family(tried, best, _at_edge(best, tried), on_test_images)
    return families


def _at_edge(best: Group, tried: Sequence[Group]) -> bool:
    """Whether the learning rate of the best is at the edge of those tried with the rest of its recipe."""
    alike = [group.shared["lr"] for group in tried if _without(group, "lr") == _without(best, "lr")]
    return len(alike) > 1 and best.shared["lr"] in (min(alike), max(alike))


def _without(group: Group, *names: str) -> str:
    """What a group's runs have in common, but for some options."""
    return str({name: value for name, value in group.shared.items() if name not in names})
