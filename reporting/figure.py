"""The figure of a report. Needs matplotlib, which nothing else does."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from files import replacing
from reporting.histories import Comparison
from reporting.statistics import spread

os.environ["MPLBACKEND"] = "Agg"  # whatever else the user has there: nothing is shown on a screen

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKERS = "osD^vX*P"
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "++")


def draw(comparisons: Sequence[Comparison], path: Path) -> None:
    """Draw a row of panels per data set: accuracy against epoch, and change against single-task training.

    Groups differ in line, marker or hatching as well as in lightness, so that they can be told apart in
    print without colour.

    Raises:
        UserError: the file cannot be written.
    """
    heights = [max(4.5, 0.24 * len(comparison.tasks) + 1) for comparison in comparisons]
    figure = Figure(figsize=(12, sum(heights)), layout="constrained")
    panels = figure.subplots(len(comparisons), 2, height_ratios=heights, squeeze=False)
    for comparison, (left, right) in zip(comparisons, panels, strict=True):
        shades = colormaps["cividis"](np.linspace(0, 0.7, len(comparison.groups)))
        _draw_accuracy(left, comparison, shades)
        _draw_change(right, comparison, shades)
    with replacing(path) as file:
        figure.savefig(file, dpi=150, format="png")


def _draw_accuracy(axes: Axes, comparison: Comparison, shades: np.ndarray) -> None:
    for i, group in enumerate(comparison.groups):
        curve = group.curve
        epochs = np.arange(1, curve.shape[1] + 1)
        mean = curve.mean(axis=0)
        seeds = "1 seed" if len(curve) == 1 else f"{len(curve)} seeds"
        axes.plot(
            epochs,
            mean,
            color=shades[i],
            linestyle=LINES[i % len(LINES)],
            marker=MARKERS[i % len(MARKERS)],
            markevery=max(1, len(epochs) // 8),
            label=f"{comparison.label(group)} ({seeds})",
        )
        if len(curve) > 1:
            deviation = np.array([spread(column) for column in curve.T])
            axes.fill_between(epochs, mean - deviation, mean + deviation, color=shades[i], alpha=0.25, lw=0)
    axes.axhline(comparison.constant_accuracy, color="0.5", lw=1, label="constant answer")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(
        title=f"{comparison.title}: accuracy",
        xlabel="epoch",
        ylabel="mean accuracy over tasks (band: standard deviation over seeds)",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _draw_change(axes: Axes, comparison: Comparison, shades: np.ndarray) -> None:
    changes = [(i, comparison.change(group)) for i, group in enumerate(comparison.groups)]
    changes = [(i, change) for i, change in changes if change is not None]
    title = f"{comparison.title}: change against single-task training"
    if not changes:
        axes.set_axis_off()
        axes.set_title(title)
        axes.text(
            0.5, 0.5, "no complete single-task baseline\n(setting 2, every task)", ha="center", va="center"
        )
        return
    places = np.arange(len(comparison.tasks))
    thickness = 0.8 / len(changes)
    for rank, (i, change) in enumerate(changes):
        axes.barh(
            places + (rank - (len(changes) - 1) / 2) * thickness,
            change.tasks,
            thickness,
            color=shades[i],
            hatch=HATCHES[rank % len(HATCHES)],
            edgecolor="white",
            lw=0.3,
            label=comparison.label(comparison.groups[i]),
        )
    axes.axvline(0, color="black", lw=1)
    axes.set_yticks(places, comparison.tasks, fontsize="small")
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set(title=title, xlabel="change of accuracy in per cent (below 0: negative transfer)")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(fontsize="small")
