"""The figure of a report; the only module that needs matplotlib."""

import io
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from textwrap import fill
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from reporting.comparisons import SEEDS, Section, Transfer
from reporting.histories import Group, Study
from reporting.statistics import CONFIDENCE, INCONCLUSIVE, Estimate, estimate

os.environ["MPLBACKEND"] = "Agg"  # nothing is shown on a screen, whatever the user has set

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

WIDTH, LINE, SIZE = 9, 0.155, 8
"""Width of the figure and height of a text line in inches; font size in points."""

DPI, MOST_PIXELS = 150, 60_000
"""Pixels per inch, and the greatest height in pixels, as matplotlib draws no larger images."""

COLUMNS, PANELS, TASKS, LETTERS = 4, 20, 80, 42
"""Panels in a row; most panels; most tasks that are named; longest name."""

STYLE: list[str | dict[str, Any]] = [
    "default",
    {"font.size": SIZE, "axes.titlesize": SIZE, "text.parse_math": False},
]
"""Independent of the user's style; names that look like formulas stay text."""

MARKERS: dict[str, dict[str, Any]] = {
    "as usual": {"fmt": "o", "color": "black", "ms": 5},
    "as trained": {"fmt": "D", "color": "0.4", "ms": 4.5, "mfc": "white"},
    "differs from the single-task baseline": {"fmt": "s", "color": "black", "ms": 4},
    INCONCLUSIVE: {"fmt": "s", "color": "0.6", "ms": 4, "mfc": "white"},
}
AS_USUAL, AS_TRAINED, DIFFERS, _ = MARKERS

BARS = (
    f"bars: {100 * CONFIDENCE:.0f} % intervals over seeds (none with one seed); those without a cap continue"
)
LEGEND: dict[str, Any] = {"loc": "outside lower center", "ncols": 3, "frameon": False}


@style.context(STYLE)
def draw(sections: Sequence[Section]) -> bytes:
    """Draw the figure as PNG; the same sections give the same bytes."""
    figure = build(sections)
    dpi = min(DPI, MOST_PIXELS / figure.get_figheight())
    image = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a letter that the font lacks is drawn as a box
        figure.savefig(image, dpi=dpi, format="png", metadata={"Software": None})
    return image.getvalue()


@style.context(STYLE)
def build(sections: Sequence[Section]) -> Figure:
    """Build the figure.

    For each data set it shows the accuracies of the groups, then the changes of their tasks. Each group has
    its own row or panel, and markers are filled or hollow, so that nothing needs colour.
    """
    parts: list[Callable[[SubFigure], None]] = []
    heights: list[float] = []
    for section in sections:
        study, transfers = section.study, [*drawn_transfers(section).items()][:PANELS]
        labels = [wrapped_label(study, group, len(group.seeds), 34) for group in study.groups]
        row = max(2.2, max(label.count("\n") for label in labels) + 1.8)
        parts.append(partial(draw_groups, section=section, labels=labels))
        heights.append(LINE * (row * len(labels) + 10))
        if transfers:
            labels = [wrapped_label(study, group, each.tasks.seeds, 24) for group, each in transfers]
            panel = min(len(study.tasks), TASKS) + max(label.count("\n") for label in labels) + 4
            parts.append(partial(draw_tasks, section=section, labels=labels))
            heights.append(LINE * (math.ceil(len(labels) / COLUMNS) * panel + 6))
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    places = figure.subfigures(len(parts), 1, height_ratios=heights, squeeze=False)[:, 0]
    for place, draw_part in zip(places, parts, strict=True):
        draw_part(place)
        entries = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in place.axes]
        handles = {label: handle for axes in entries for handle, label in axes}
        names = sorted(handles, key=lambda name: [*MARKERS, name].index(name))
        place.legend([handles[name] for name in names], names, title=BARS, **LEGEND)
    return figure


def drawn_transfers(section: Section) -> dict[Group, Transfer]:
    """Gains and losses that get a panel.

    Groups scored as trained get none.
    """
    return {group: transfer for group, transfer in section.transfers.items() if not group.as_trained}


def wrapped_label(study: Study, group: Group, seeds: int, width: int) -> str:
    """Label and number of seeds of a group, wrapped.

    Lines break between options where possible.
    """
    label = f"{printable(study.label(group))}, {seeds} seed{'s' * (seeds != 1)}"
    if not group.is_complete:
        label += ", tasks missing"
    return fill(label.replace(" ", "\N{NO-BREAK SPACE}").replace(",\N{NO-BREAK SPACE}", ", "), width)


def printable(text: str) -> str:
    """Escape what no font has.

    Names of files and tasks may hold lone surrogates.
    """
    return text.encode(errors="backslashreplace").decode()


def draw_groups(place: SubFigure, section: Section, labels: Sequence[str]) -> None:
    """Draw a row per group: accuracy, delta_m, and accuracy by epoch."""
    study = section.study
    changes = {group: each.change for group, each in section.transfers.items() if each.change}
    # Setting 0 is scored on all classes: next to other settings its row has only text.
    scored = [group for group in study.groups if group.by_task] or study.groups
    epochs = max(group.options["epochs"] for group in scored)
    widths = [3] + [1.6] * bool(changes) + [0.8] * (epochs > 1)
    panels = place.subplots(1, len(widths), sharey=True, width_ratios=widths, squeeze=False)[0]
    draw_accuracies(panels[0], study, scored)
    if changes:
        draw_changes(panels[1], study, changes)
    if epochs > 1:
        draw_curves(panels[-1], study, scored)
    for axes in panels:
        axes.set_yticks(np.arange(1, len(labels)) - 0.5, minor=True)
        axes.grid(axis="y", which="minor", color="0.85", lw=0.5)
        axes.tick_params(axis="y", which="both", length=0)
    panels[0].set_yticks(range(len(labels)), labels)
    panels[0].set_ylim(len(labels) - 0.5, -0.5)
    place.suptitle(printable(study.title), fontsize=SIZE + 2, fontweight="bold")


def marks(group: Group, again: Group | None) -> list[tuple[Group, str, float]]:
    """Points in the row of a group.

    Each has its marker and its shift from the middle.
    """
    return [(group, AS_USUAL, -0.17), (again, AS_TRAINED, 0.17)] if again else [(group, AS_USUAL, 0)]


def draw_accuracies(axes: Axes, study: Study, scored: Sequence[Group]) -> None:
    """Draw the mean accuracy of each group and of its seeds.

    The one as trained stands below.
    """
    means: list[Estimate] = []
    of_seeds: list[float] = []
    for row, group in enumerate(study.groups):
        if group not in scored:
            text = f"{100 * group.means().mean():.1f} % over all classes at once: not comparable"
            box = {"color": "white", "pad": 1}
            axes.text(0.02, row, text, bbox=box, transform=axes.get_yaxis_transform(), va="center")
            continue
        for each, name, shift in marks(group, study.as_trained.get(group)):
            seeds = 100 * each.means()
            axes.plot(seeds, [row + shift] * len(seeds), "|", color="0.65", ms=7, label="one seed")
            draw_points(axes, estimate(seeds), row + shift, name)
            means.append(estimate(seeds))
            of_seeds += [*seeds]
    low, high = limits(means, *of_seeds)
    constant, room = 100 * study.constant_answer("accuracy"), (high - low) / 2
    if low - room < constant < high + room:
        axes.axvline(constant, color="0.4", ls=":", lw=1.2, label="constant answer")
        low, high = min(low, constant - 0.1 * room), max(high, constant + 0.1 * room)
    axes.set(title="mean accuracy over tasks", xlabel=f"% (a constant answer: {constant:.1f})")
    axes.set_xlim(low, high)


def draw_changes(axes: Axes, study: Study, changes: Mapping[Group, Estimate]) -> None:
    """Draw delta_m of each group that has it.

    The one as trained stands below.
    """
    for row, group in enumerate(study.groups):
        again = study.as_trained.get(group)
        for each, _, shift in marks(group, again if again in changes else None):
            if change := changes.get(each):
                draw_differences(axes, change, row + shift, change.verdict != INCONCLUSIVE)
    axes.axvline(0, color="black", lw=0.8)
    axes.set(title="delta_m: mean change relative\nto the single-task baseline", xlabel="%")
    axes.set_xlim(limits([*changes.values()], 0))


def draw_curves(axes: Axes, study: Study, scored: Sequence[Group]) -> None:
    """Draw the mean accuracy of each group by epoch.

    The scale is the same in every row.
    """
    curves = {study.groups.index(group): 100 * group.curve.mean(axis=0) for group in scored}
    low, high = min(curve.min() for curve in curves.values()), max(curve.max() for curve in curves.values())
    for row, curve in curves.items():
        heights = 0.8 * (curve - low) / ((high - low) or 1)
        line = "." if len(curve) == 1 else "-"
        axes.plot(range(1, len(curve) + 1), row + 0.4 - heights, line, color="black", lw=1)
    axes.locator_params(axis="x", integer=True)
    axes.set(title=f"accuracy,\n{low:.0f} to {high:.0f} %", xlabel="epoch")


def draw_tasks(place: SubFigure, section: Section, labels: Sequence[str]) -> None:
    """Draw a panel per group with the change of each task.

    The order of the tasks is the same in every panel.
    """
    study = section.study
    transfers = drawn_transfers(section)
    differences = [transfer.tasks for transfer in transfers.values()][: len(labels)]
    columns = min(COLUMNS, len(labels))
    rows = math.ceil(len(labels) / columns)
    panels = place.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    order = np.argsort(-np.mean([each.mean for each in differences], axis=0), kind="stable")
    places = np.argsort(order)
    for i, (axes, each, label) in enumerate(zip(panels, differences, labels, strict=False)):
        conclusive = (each.verdict != INCONCLUSIVE) & (each.seeds >= SEEDS)
        draw_differences(axes, each, places, conclusive)
        axes.axvline(0, color="black", lw=0.8)
        axes.set(title=label, xlabel="points" if i + columns >= len(labels) else "")
        axes.grid(axis="y", color="0.9", lw=0.5)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelbottom=i + columns >= len(labels))
    for axes in panels[len(labels) :]:
        axes.remove()
    names = [printable(study.tasks[task])[:LETTERS] for task in order] if len(order) <= TASKS else []
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(order) - 0.4, -0.6)
    panels[0].set_xlim(limits(differences, 0))
    measure = study.measure.replace("_", " ")
    title = f"Change of each task relative to the single-task baseline, in points of {measure}"
    if any(each.seeds < SEEDS for each in differences):
        title += f" (conclusive from {SEEDS} common seeds on)"
    if len(labels) < len(transfers):
        title += f"\nThe first {len(labels)} of {len(transfers)} groups"
    place.suptitle(title, fontsize=SIZE)


def draw_differences(axes: Axes, differences: Estimate, places: ArrayLike, conclusive: ArrayLike) -> None:
    """Draw differences from the single-task baseline, hollow where inconclusive."""
    filled = np.ravel(conclusive)
    for name, which in ((DIFFERS, filled), (INCONCLUSIVE, ~filled)):
        if which.any():
            ends = (np.ravel(each)[which] for each in (differences.mean, differences.low, differences.high))
            draw_points(axes, Estimate(differences.seeds, *ends), np.ravel(places)[which], name)


def draw_points(axes: Axes, estimated: Estimate, places: ArrayLike, name: str) -> None:
    """Draw means with their intervals, as far as these exist."""
    lengths = np.reshape([estimated.mean - estimated.low, estimated.high - estimated.mean], (2, -1))
    axes.errorbar(
        estimated.mean, places, xerr=lengths, label=name, elinewidth=1.2, capsize=2, **MARKERS[name]
    )


def limits(estimates: Sequence[Estimate], *others: float) -> tuple[float, float]:
    """Ends of an axis.

    The axis shows all means and other values, and all intervals but much wider ones.
    """
    means = np.concatenate([np.ravel(each.mean) for each in estimates])
    ends = np.concatenate([np.stack([np.ravel(each.low), np.ravel(each.high)], axis=1) for each in estimates])
    ends = ends[~np.isnan(ends[:, 0])]
    room = max(np.ptp(means), np.median(np.ptp(ends, axis=1))) if len(ends) else 0
    low = min(*means, *others, max(means.min() - room, ends.min(initial=means.min())))
    high = max(*means, *others, min(means.max() + room, ends.max(initial=means.max())))
    margin = 0.04 * (high - low) or 1
    return low - margin, high + margin
