"""The figure of a report; the only module that needs matplotlib."""

import io
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from textwrap import fill
from typing import Any

import numpy as np

from reporting.comparisons import AS_TRAINED, USUAL, Section, Transfer
from reporting.estimates import Estimate
from reporting.histories import Group, Study
from reporting.screen import CONCLUSIVE, percent, signed
from reporting.statistics import CONFIDENCE
from reporting.words import Names

os.environ["MPLBACKEND"] = "Agg"  # nothing is shown on a screen, whatever the user has set

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle

WIDTH, LINE, SIZE = 9, 0.155, 8
"""Width of the figure and height of a text line in inches; font size in points."""

DPI, MOST_PIXELS = 150, 60_000
"""Pixels per inch, and the greatest height in pixels, as matplotlib draws no larger images."""

WORDS, LETTERS = 38, 42
"""Most letters in a line of a configuration's words, and of a task's name."""

FEWEST, COLUMNS, TASKS = 8, 20, 80
"""Of the heat map: columns that there is room for at least; most columns and tasks that are shown."""

STYLE: list[str | dict[str, Any]] = [
    "default",
    {"font.size": SIZE, "axes.titlesize": SIZE, "text.parse_math": False, "hatch.linewidth": 0.6},
]
"""Independent of the user's style; names that look like formulas stay text."""

MARKERS: dict[str, dict[str, Any]] = {
    USUAL: {"label": "tested as usual", "fmt": "o", "color": "black", "ms": 5},
    AS_TRAINED: {"label": "tested as trained", "fmt": "D", "color": "black", "ms": 4.5, "mfc": "white"},
}
SHIFTS = {USUAL: -0.2, AS_TRAINED: 0.2}
"""By the way of testing: how a point looks, and how far below the middle of its row it stands."""

BARS = (
    f"bars: {100 * CONFIDENCE:.0f} % intervals over new seeds, and over new test images where it is recorded "
    "which are right\n(none with one seed); those without a cap continue"
)


@style.context(STYLE)
def draw(sections: Sequence[Section], names: Names) -> bytes:
    """Draw the figure as PNG; the same sections give the same bytes."""
    image = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a letter that the font lacks is drawn as a box
        figure = build(sections, names)
        dpi = min(DPI, MOST_PIXELS / figure.get_figheight())
        figure.savefig(image, dpi=dpi, format="png", metadata={"Software": None})
    return image.getvalue()


@style.context(STYLE)
def build(sections: Sequence[Section], names: Names) -> Figure:
    """Build the figure: for each data set the ranking, and below it how each task changes."""
    parts: list[tuple[float, Callable[[SubFigure], None]]] = []
    for section in sections:
        labels = [wrapped(group, names) for group in [*section.ranking, *section.unranked]]
        lines = max(label.count("\n") for label in labels) + 1
        row = max(2.6 if section.study.as_trained else 2, lines + 0.8)
        parts.append((row * len(labels) + 10, partial(draw_ranking, section=section, labels=labels)))
        found = {names.letters[group]: section.transfer(group, USUAL) for group in section.ranking}
        if transfers := {letter: each for letter, each in found.items() if each}:
            part = partial(draw_tasks, study=section.study, transfers=transfers)
            parts.append((min(len(section.study.tasks), TASKS) + 6, part))
    heights = [LINE * height for height, _ in parts]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    places = figure.subfigures(len(parts), 1, height_ratios=heights, squeeze=False)[:, 0]
    for place, (_, draw_part) in zip(places, parts, strict=True):
        draw_part(place)
    return figure


def wrapped(group: Group, names: Names) -> str:
    """Letter and words of a configuration in lines, which break between options where possible."""
    said = printable(names.words[group]) + ", tasks missing" * (not group.is_complete)
    whole = said.replace(" ", "\N{NO-BREAK SPACE}").replace(",\N{NO-BREAK SPACE}", ", ")
    return fill(f"{names.letters[group]}  {whole}", WORDS, subsequent_indent=" " * 4, break_on_hyphens=False)


def printable(text: str) -> str:
    """Escape what no font has.

    Names of files and tasks may hold lone surrogates.
    """
    return text.encode(errors="backslashreplace").decode()


def draw_ranking(place: SubFigure, section: Section, labels: Sequence[str]) -> None:
    """Draw a row for each configuration, the best on top: its accuracy and, beside it, delta_m."""
    study, groups = section.study, [*section.ranking, *section.unranked]
    # Setting 0 is scored on all classes at once: next to other settings its row has only text.
    scored = [group for group in groups if group.by_task] or groups
    transfers = {(group, way): section.transfer(group, way) for group in scored for way in MARKERS}
    changes = {key: each.delta_m for key, each in transfers.items() if each and each.delta_m}
    widths = [3, 1.6] if changes else [3]
    panels = place.subplots(1, len(widths), sharey=True, width_ratios=widths, squeeze=False)[0]
    points: list[list[np.ndarray]] = [[] for _ in panels]
    for row, group in enumerate(groups):
        if group not in scored:
            text = f"{percent(section.means[USUAL][group], 1)} % over all classes at once: not comparable"
            box, across = {"color": "white", "pad": 1}, panels[0].get_yaxis_transform()
            panels[0].text(0.02, row, text, bbox=box, transform=across, va="center")
            continue
        again = study.as_trained.get(group)
        for way, tested in {USUAL: group, **({AS_TRAINED: again} if again else {})}.items():
            how, level = MARKERS[way], row + (SHIFTS[way] if again else 0)
            if not tested.is_complete:
                how = how | {"label": f"{how['label']}, tasks missing", "color": "0.6", "mfc": "white"}
            points[0].append(draw_point(panels[0], section.means[way][group], 100, level, how))
            if change := changes.get((group, way)):
                points[1].append(draw_point(panels[1], change.estimate, 1, level, how))
                mark = CONCLUSIVE if change.is_conclusive else ""
                panels[1].text(1.02, level, mark, transform=panels[1].get_yaxis_transform(), va="center")
    low, high = limits(points[0])
    constant, room = 100 * study.constant_answer("accuracy"), (high - low) / 2
    if low - room < constant < high + room:
        panels[0].axvline(constant, color="0.4", ls=":", lw=1.2, label="constant answer")
        low, high = min(low, constant - 0.1 * room), max(high, constant + 0.1 * room)
    unit = f"% (a constant answer: {constant:.1f})"
    panels[0].set(title="mean accuracy over tasks", xlabel=unit, xlim=(low, high))
    if changes:
        panels[1].axvline(0, color="black", lw=0.8)
        title, unit = "delta_m: mean change against\nsingle-task training", f"% ({CONCLUSIVE} conclusive)"
        panels[1].set(title=title, xlabel=unit, xlim=limits(points[1], 0))
    for axes in panels:
        across = axes.get_yaxis_transform()
        axes.hlines(np.arange(1, len(labels)) - 0.5, 0, 1, color="0.85", lw=0.5, transform=across)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(labels)), labels, ha="left")
    panels[0].set_ylim(len(labels) - 0.5, -0.5)
    longest = max(text.get_window_extent().width for text in panels[0].get_yticklabels())
    panels[0].tick_params(axis="y", pad=longest * 72 / place.dpi + 4)
    place.suptitle(printable(study.title), x=0.005, ha="left", fontsize=SIZE + 2, fontweight="bold")
    entries = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in panels]
    handles = {label: handle for axes in entries for handle, label in axes}
    place.legend(handles.values(), handles, title=BARS, loc="outside lower center", ncols=4, frameon=False)


def draw_point(
    axes: Axes, estimate: Estimate, scale: float, level: float, how: Mapping[str, Any]
) -> np.ndarray:
    """Draw an estimate with its interval, as far as there is one.

    Returns:
        value, low and high end, in the unit of the axis.
    """
    value, low, high = ends = scale * np.array([estimate.value, estimate.low, estimate.high])
    axes.errorbar(value, level, xerr=[[value - low], [high - value]], elinewidth=1.2, capsize=2, **how)
    return ends


def limits(points: Sequence[np.ndarray], *others: float) -> tuple[float, float]:
    """Ends of an axis.

    The axis shows all values and others, and all intervals but much wider ones.

    Args:
        points: of each, the value and the ends of its interval, which may be NaN.
        others: what is shown besides.
    """
    values, ends = np.array(points)[:, 0], np.array(points)[:, 1:]
    ends = ends[~np.isnan(ends[:, 0])]
    room = max(np.ptp(values), np.median(np.ptp(ends, axis=1))) if len(ends) else 0
    low = min(*values, *others, max(values.min() - room, ends.min(initial=values.min())))
    high = max(*values, *others, min(values.max() + room, ends.max(initial=values.max())))
    margin = 0.04 * (high - low) or 1
    return low - margin, high + margin


def draw_tasks(place: SubFigure, study: Study, transfers: Mapping[str, Transfer]) -> None:
    """Draw a heat map of how many points each task gains, the task that gains most on top.

    Args:
        place: where to draw it.
        study: the data set.
        transfers: gains and losses by the letter of the configuration, which heads a column.
    """
    axes, shown = place.subplots(), [*transfers][:COLUMNS]
    results = [transfers[letter].tasks for letter in shown]
    points = np.array([[task.estimate.value for task in column] for column in results])
    order = [*np.argsort(-points.mean(axis=0), kind="stable")]
    measure = study.measure.replace("_", " ")
    title = f"Change of each task against single-task training, points of {measure}; hatched: inconclusive"
    if len(shown) < len(transfers):
        title += f"\nThe first {len(shown)} of {len(transfers)} configurations"
    if len(order) > TASKS:
        half = TASKS // 2
        title += f"\nOf {len(order)} tasks the {half} that gain most and the {half} that gain least"
        order = order[:half] + order[-half:]
    low, high = min(0, points.min()), max(0, points.max())
    for column, tasks in enumerate(results):
        for row, task in enumerate(order):
            shade = (high - points[column, task]) / ((high - low) or 1)
            ink, stripes = ("white", shade + 0.3) if shade < 0.5 else ("black", shade - 0.3)
            hatch, corner = None if tasks[task].is_conclusive else "////", (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, fc=str(shade), ec=str(stripes), lw=0, hatch=hatch))
            number, box = signed(points[column, task], 0), {"color": str(shade), "pad": 0.5}
            axes.text(column, row, number, color=ink, bbox=box, ha="center", va="center_baseline")
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_frame_on(False)
    axes.set_xticks(range(len(shown)), shown)
    axes.set_yticks(range(len(order)), [printable(study.tasks[task])[:LETTERS] for task in order])
    axes.set(xlim=(-0.5, max(FEWEST, len(shown)) - 0.5), ylim=(len(order) - 0.5, -0.5))
    title += f"\nwhite: {signed(low, 1)}, black: {signed(high, 1)}"
    place.suptitle(title, x=0.005, ha="left", fontsize=SIZE)
