"""What a figure shows, against numbers worked out by hand.

It is read back from what is drawn.
"""

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import matplotlib
from helpers import TOP
from made_up import options_of
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

import reporting
from options import OPTIONS
from reporting import figure
from reporting.comparisons import Section
from reporting.histories import find_runs, studies

T2, T1 = 4.302653, 12.706205
"""How many standard errors an interval of 95 % reaches to each side, for 2 and 1 degrees of freedom."""

TASKS = ("elm", "ash", "oak", "fir")
GAINS = {"oak": (8, 10, 12), "elm": (-2, 2, 3), "ash": (-5, -5, -5), "fir": (-9, -10, -11)}
"""Points by which setting 3 scores more than setting 2, by seed: told, not told, without spread, told."""


def write(
    path: Path,
    setting: int,
    seed: int,
    accuracy: Sequence[float],
    as_trained: Sequence[float] | None = None,
    tasks: Sequence[str] = TASKS,
    epochs: int = 1,
    **options,
) -> None:
    """The history of a run on images of one's own: two answers a task, and a constant answer scores 0.5."""
    scored = ["all classes"] if setting == 0 else tasks
    if setting == 2:
        scored = [tasks[options["task"]]]
    given = options_of(setting, data="trees.npz#000000000000", seed=seed, epochs=epochs, **options)
    epoch = {"accuracy": accuracy, "balanced_accuracy": accuracy, "loss": 1, "task_loss": [1] * len(scored)}
    epoch |= {"steps": 1, "images": 2, "seconds": 1, "evaluation_seconds": 1, "images_per_second": 1}
    history = {
        "format": 2,
        "options": given,
        "data_set": {"title": "trees", "scored_on": "test", "tasks": tasks},
        "sittings": [{"epoch": 0, "step": 0, "environment": {}, "code": "a"}],
        "tasks": scored,
        "constant_accuracy": [0.5] * len(scored),
        "num_answers": [2] * len(scored),
        "parameters": {"encoder": 1, "heads": 1},
        "epochs": [{"epoch": number, **epoch} for number in range(1, epochs + 1)],
        "finished": True,
    }
    if as_trained:
        scores = {"accuracy": as_trained, "balanced_accuracy": as_trained}
        history["as_trained"] = scores | {"right": [""] * len(scored)}
    path.mkdir(parents=True)
    (path / "history.json").write_text(json.dumps(history))


def write_study(path: Path, seeds: int, baseline: bool = True) -> None:
    """Setting 2 scores 0.6, 0.62, 0.64, setting 3 GAINS more.

    As trained setting 2 scores 0.5, 0.52, 0.54, setting 3 0.59, 0.6, 0.61.
    """
    for seed in range(seeds):
        alone = 0.6 + 0.02 * seed
        scores = [alone + GAINS[task][seed] / 100 for task in TASKS]
        write(path / f"3-{seed}", 3, seed, scores, as_trained=[0.59 + 0.01 * seed] * 4)
        for task in range(4 if baseline else 0):
            write(path / f"2-{seed}-{task}", 2, seed, [alone], as_trained=[alone - 0.1], task=task)


def sections(path: Path) -> list[Section]:
    runs, left_out = find_runs(path, OPTIONS)
    assert not left_out
    return [Section(study, OPTIONS) for study in studies(runs)]


def panel(drawn: Figure, title: str) -> Axes:
    """The one panel whose title begins like that."""
    (axes,) = (axes for axes in drawn.axes if axes.get_title().replace("\xa0", " ").startswith(title))
    return axes


def points(axes: Axes) -> dict[str, dict[str, tuple[float, ...]]]:
    """Of each kind of marker, by the name beside it: the mean and, where one is drawn, its interval."""
    ticks = axes.get_yticks()
    names = dict(zip(ticks, axes.yaxis.get_major_formatter().format_ticks(ticks), strict=True))
    found = {}
    for container in axes.containers:
        markers, _, (bars,) = container
        ends = {round(y): (low, high) for (low, y), (high, _) in filter(len, bars.get_segments())}
        for x, y in zip(*markers.get_data(), strict=True):
            name = names[round(y)].replace("\xa0", " ").replace("\n", " ")
            found.setdefault(container.get_label(), {})[name] = (x, *ends.get(round(y), ()))
    return found


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Figure:
    """Settings 0, 2 and 3 with three seeds."""
    path = tmp_path_factory.mktemp("three")
    write_study(path, 3)
    for seed in range(3):
        write(path / f"0-{seed}", 0, seed, [0.1])
    return figure.build(sections(path))


def test_accuracies_stand_with_their_intervals_seeds_and_scores_as_trained(three):
    axes = panel(three, "mean accuracy")
    found = points(axes)
    # Setting 3 by seed: 0.6 - 0.02, 0.62 - 0.0075, 0.64 - 0.0025.
    scores = np.array([58.0, 61.25, 63.75])
    half = T2 * scores.std(ddof=1) / 3**0.5
    assert found["as usual"] == {
        "2 single task, 3 seeds": pytest.approx((62, 62 - T2 * 2 / 3**0.5, 62 + T2 * 2 / 3**0.5)),
        "3 uniform sampling, 3 seeds": pytest.approx((61, 61 - half, 61 + half)),
    }
    assert found["as trained"] == {
        "2 single task, 3 seeds": pytest.approx((52, 52 - T2 * 2 / 3**0.5, 52 + T2 * 2 / 3**0.5)),
        "3 uniform sampling, 3 seeds": pytest.approx((60, 60 - T2 / 3**0.5, 60 + T2 / 3**0.5)),
    }
    seeds = [line.get_xdata() for line in axes.lines if line.get_label() == "one seed"]
    assert np.concatenate(seeds) == pytest.approx([60, 62, 64, 50, 52, 54, *scores, 59, 60, 61])
    assert axes.get_xlabel() == "% (a constant answer: 50.0)"


def test_setting_0_has_its_number_in_words_alone_where_there_is_more(three, tmp_path):
    axes = panel(three, "mean accuracy")
    (text,) = axes.texts
    assert text.get_text().startswith("10.0 % over all classes at once")
    assert axes.get_yticklabels()[round(text.get_position()[1])].get_text().startswith("0")
    assert axes.get_xlim()[0] > 40  # and does not press the others into a corner
    write(tmp_path / "0", 0, 0, [0.1])
    found = points(panel(figure.build(sections(tmp_path)), "mean accuracy"))
    assert found == {"as usual": {"0 standard, 1 seed": pytest.approx((10,))}}


def test_delta_m_stands_with_its_interval(three):
    # Points by seed: -2, -0.75, -0.25 on average over tasks; the baseline is 0.62 in every task.
    changes = np.array([-2, -0.75, -0.25]) / 0.62
    half = T2 * changes.std(ddof=1) / 3**0.5
    again, half_again = 8 / 0.52, T2 / 0.52 / 3**0.5  # as trained: 9, 8, 7 points, and 0.52
    assert points(panel(three, "delta_m")) == {
        "inconclusive": {
            "3 uniform sampling, 3 seeds": pytest.approx((changes.mean(), *(changes.mean() + [-half, half])))
        },
        "differs from the single-task baseline": {
            "3 uniform sampling, 3 seeds": pytest.approx((again, again - half_again, again + half_again))
        },
    }


def test_tasks_stand_with_their_intervals_hollow_where_they_are_inconclusive(three):
    axes = panel(three, "3 uniform sampling")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["oak", "elm", "ash", "fir"]
    low, high = (1 + sign * T2 * 7**0.5 / 3**0.5 for sign in (-1, 1))  # -2, 2, 3: mean 1, variance 7
    assert points(axes) == {
        "differs from the single-task baseline": {
            "oak": pytest.approx((10, 10 - T2 * 2 / 3**0.5, 10 + T2 * 2 / 3**0.5)),
            "fir": pytest.approx((-10, -10 - T2 / 3**0.5, -10 + T2 / 3**0.5)),
        },
        "inconclusive": {"elm": pytest.approx((1, low, high)), "ash": pytest.approx((-5,))},
    }
    faces = {each.get_label(): each[0].get_markerfacecolor() for each in axes.containers}
    assert faces == {"differs from the single-task baseline": "black", "inconclusive": "white"}


def test_two_seeds_tell_of_no_task_and_one_seed_has_no_bars(tmp_path):
    write_study(tmp_path / "two", 2)
    write_study(tmp_path / "one", 1)
    tasks = points(panel(figure.build(sections(tmp_path / "two")), "3 uniform sampling"))
    assert tasks.keys() == {"inconclusive"}
    assert tasks["inconclusive"]["fir"] == pytest.approx((-9.5, -9.5 - T1 / 2, -9.5 + T1 / 2))
    drawn = figure.build(sections(tmp_path / "one"))
    for title in ("mean accuracy", "delta_m", "3 uniform sampling"):
        found = points(panel(drawn, title))
        assert all(len(point) == 1 for kind in found.values() for point in kind.values())
    assert points(panel(drawn, "3 uniform sampling"))["inconclusive"]["oak"] == pytest.approx((8,))


def test_without_a_baseline_there_are_accuracies_alone_and_curves_from_two_epochs_on(tmp_path):
    write_study(tmp_path / "a", 2, baseline=False)
    (axes,) = figure.build(sections(tmp_path)).axes
    assert axes.get_title() == "mean accuracy over tasks"
    write(tmp_path / "b", 1, 0, [0.6] * 4, epochs=5)
    _, curves = figure.build(sections(tmp_path)).axes
    assert [len(line.get_xdata()) for line in curves.lines] == [5, 1]


def test_axes_show_every_mean_and_no_wide_interval_rules_them(tmp_path):
    for seed, wide in enumerate((0.52, 0.6, 0.68)):
        for number in range(5):
            level = 0.6 + 0.01 * number + 0.001 * seed
            write(tmp_path / f"{number}-{seed}", 3, seed, [wide if number == 4 else level] * 4, lr=number + 1)
    low, high = panel(figure.build(sections(tmp_path)), "mean accuracy").get_xlim()
    half = 100 * T2 * 0.08 / 3**0.5
    assert 60 - half < low < 52  # every seed, not the interval as a whole
    assert 68 < high < 60 + half


def test_the_same_histories_give_the_same_bytes_in_grey_whatever_the_user_has_set(tmp_path, recwarn):
    odd = (r"$\frac{x$", "\udcff", "\u4e2d", "z" * 99)
    for seed in range(3):
        write(tmp_path / f"3-{seed}", 3, seed, [0.6, 0.7, 0.8, 0.9], as_trained=[0.7] * 4, tasks=odd)
        for task in range(4):
            write(tmp_path / f"2-{seed}-{task}", 2, seed, [0.6 + 0.01 * seed], tasks=odd, task=task)
    first = figure.draw(sections(tmp_path))
    with matplotlib.rc_context(
        {"axes.edgecolor": "red", "font.family": "monospace", "text.parse_math": True}
    ):
        second = figure.draw(sections(tmp_path))
    assert first == second
    image = imread(io.BytesIO(first))[..., :3]
    assert image.min() < 0.1
    assert (image == image[..., :1]).all()
    assert not recwarn.list


def test_with_many_groups_each_has_a_row_and_no_text_lies_on_another(tmp_path):
    for number in range(21):
        options = {
            "lr": round(0.1 + number / 1000, 3),
            "momentum": number / 25,
            "weight_decay": number / 1000,
            "epochs": 2,
            "tasks": (*TASKS[:3], "z" * 99),
        }
        write(tmp_path / str(number), 3, 0, [0.5, 0.6, 0.7, 0.8], **options)
        for task in range(4):
            write(tmp_path / f"2-{number}-{task}", 2, 0, [0.6], task=task, **options)
    drawn = figure.build(sections(tmp_path))
    drawn.set_dpi(100)  # as a page shows it: 900 pixels wide
    drawn.draw_without_rendering()
    above, below = drawn.subfigs
    assert len(points(above.axes[0])["as usual"]) == 42
    assert len(below.axes) == 20
    assert below.get_suptitle().endswith("The first 20 of 21 groups")
    texts = []
    for axes in drawn.axes:
        texts += [axes.title, axes.xaxis.label, *axes.get_yticklabels()]
        low, high = axes.get_xlim()
        texts += [text for text in axes.get_xticklabels() if low <= text.get_position()[0] <= high]
    for part in drawn.subfigs:
        texts += [*part.texts, *part.legends[0].get_texts(), part.legends[0].get_title()]
    texts = [text for text in texts if text.get_visible() and text.get_text()]
    assert min(text.get_fontsize() for text in texts) * 100 / 72 > 11  # pixels
    boxes = np.array([text.get_window_extent().extents for text in texts])
    outside = (boxes[:, :2] < 0).any(axis=1) | (boxes[:, 2:] > drawn.bbox.max).any(axis=1)
    assert [texts[i].get_text() for i in np.flatnonzero(outside)] == []
    apart = (boxes[:, None, :2] >= boxes[:, 2:]).any(axis=-1)
    lie = np.argwhere(np.triu(~(apart | apart.T), 1))
    assert [(texts[i].get_text(), texts[j].get_text()) for i, j in lie] == []


@pytest.mark.parametrize(
    "error",
    [
        'ImportError("numpy.core.multiarray failed to import")',
        'AttributeError("_ARRAY_API not found")',
        'UnicodeDecodeError("utf-8", b"x", 0, 1, "invalid start byte")',
        "MemoryError()",
        'OSError(28, "No space left on device")',
    ],
)
def test_a_matplotlib_that_fails_costs_the_figure_alone_and_a_line_says_why(
    program, tmp_path, monkeypatch, error
):
    write(tmp_path / "runs", 3, 0, [0.6, 0.7, 0.8, 0.9])
    (tmp_path / "runs" / "report.png").write_bytes(b"of other runs")
    (tmp_path / "matplotlib").mkdir()
    (tmp_path / "matplotlib" / "__init__.py").write_text(
        f"import sys; print('much', file=sys.stderr); raise {error}"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "reporting.figure")
    monkeypatch.delattr(reporting, "figure")
    reported = program("--report", "--save_path", tmp_path / "runs")
    assert reported.code == 0
    assert f"cannot be drawn ({error.partition('(')[0]}" in reported.err
    assert reported.err.count("\n") == 1
    assert "3 uniform sampling" in reported.out
    names = {path.name for path in (tmp_path / "runs").iterdir()}
    assert names == {"history.json", "report.txt", "report.csv", "comparisons.csv", "missing.sh"}


def test_what_cannot_be_drawn_costs_the_figure_alone(program, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    write(tmp_path / "runs", 3, 0, [0.6, 0.7, 0.8, 0.9])
    with monkeypatch.context() as patched:
        patched.setattr(Figure, "savefig", fail)
        reported = program("--report", "--save_path", tmp_path / "runs")
    assert (reported.code, "cannot be drawn (MemoryError" in reported.err) == (0, True)
    assert not (tmp_path / "runs" / "report.png").exists()
    assert program("--report", "--save_path", tmp_path / "runs").code == 0
    assert imread(tmp_path / "runs" / "report.png").size > 0


def test_caches_and_settings_of_matplotlib_are_no_matter_of_the_report(tmp_path):
    write(tmp_path / "runs", 3, 0, [0.6, 0.7, 0.8, 0.9])
    (tmp_path / "matplotlibrc").write_text("no setting of it\nfont.size: large\n")
    (tmp_path / "file").touch()  # where a directory should be
    environment = os.environ | {"MPLCONFIGDIR": str(tmp_path / "file"), "MPLBACKEND": "none"}
    environment["MATPLOTLIBRC"] = str(tmp_path / "matplotlibrc")
    command = [sys.executable, str(TOP / "main.py"), "--report", "--save_path", "runs"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    assert done.stderr.startswith(
        "saved report.txt, report.csv, comparisons.csv, missing.sh, report.png in runs"
    )
    assert done.stderr.count("\n") == 1
