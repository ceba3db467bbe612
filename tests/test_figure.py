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
from reporting.comparisons import AS_TRAINED, INCONCLUSIVE, USUAL, Section
from reporting.estimates import Estimate
from reporting.histories import find_runs, studies
from reporting.words import Names

TASKS = ("elm", "ash", "oak", "fir")
GAINS = {"oak": (8, 10, 12), "elm": (-2, 2, 3), "ash": (-5, -5, -5), "fir": (-9, -10, -11)}
"""Points by which setting 3 scores more than setting 2, by seed: 10, 1, -5 and -10 on average."""

MARKERS = {USUAL: "tested as usual", AS_TRAINED: "tested as trained"}

RANKED = ("1 standard by task", "2 single task", "3 uniform sampling")


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
    """Setting 2 scores 0.6, 0.62, 0.64, setting 3 GAINS more, setting 1 scores 0.7, 0.71, 0.72.

    As trained setting 2 scores 0.5, 0.52, 0.54, setting 3 0.59, 0.6, 0.61.
    """
    for seed in range(seeds):
        alone = 0.6 + 0.02 * seed
        scores = [alone + GAINS[task][seed] / 100 for task in TASKS]
        write(path / f"1-{seed}", 1, seed, [0.7 + 0.01 * seed] * 4)
        write(path / f"3-{seed}", 3, seed, scores, as_trained=[0.59 + 0.01 * seed] * 4)
        for task in range(4 if baseline else 0):
            write(path / f"2-{seed}-{task}", 2, seed, [alone], as_trained=[alone - 0.1], task=task)


def sections_of(path: Path) -> tuple[list[Section], Names]:
    runs, left_out = find_runs(path, OPTIONS)
    assert not left_out
    sections = [Section(study, OPTIONS) for study in studies(runs)]
    return sections, Names(sections, OPTIONS)


def built(path: Path) -> Figure:
    return figure.build(*sections_of(path))


def panels(drawn: Figure, title: str) -> list[Axes]:
    """The panels that begin like that, by their own title or the one above them."""
    titles = {axes: axes.get_title() or axes.figure.get_suptitle() for axes in drawn.axes}
    return [axes for axes, each in titles.items() if each.startswith(title)]


def panel(drawn: Figure, title: str) -> Axes:
    (axes,) = panels(drawn, title)
    return axes


def plain(text: str) -> str:
    return " ".join(text.split())


def rows(axes: Axes) -> list[str]:
    """The labels of the rows, from top to bottom."""
    labels = [plain(text.get_text()) for text in axes.get_yticklabels()]
    bottom, top = axes.get_ylim()
    assert axes.get_yticks().tolist() == list(range(len(labels)))
    return labels if top < bottom else labels[::-1]


def points(axes: Axes, names: Sequence[str]) -> dict[str, dict[str, tuple[float, ...]]]:
    """By the name of the marker and of the row: the value and, where one is drawn, its interval.

    The rows have these names, from top to bottom.
    """
    found = {}
    for container in axes.containers:
        markers, _, (bars,) = container
        ((x, y),) = zip(*markers.get_data(), strict=True)
        ends = [end[0] for segment in bars.get_segments() for end in segment]
        row = found.setdefault(container.get_label(), {})
        assert names[round(y)] not in row
        row[names[round(y)]] = (x, *ends)
    return found


def cells(axes: Axes) -> dict[tuple[str, str], tuple[str, float, bool]]:
    """By task and letter: what is written in a cell, how dark it is, and whether it is hatched."""
    tasks = [text.get_text() for text in axes.get_yticklabels()]
    letters = [text.get_text() for text in axes.get_xticklabels()]
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert len(written) == len(axes.patches) == len(tasks) * len(letters)
    return {
        (tasks[y], letters[x]): (written[x, y], 1 - cell.get_facecolor()[0], bool(cell.get_hatch()))
        for cell in axes.patches
        for x, y in [(round(cell.get_x() + 0.5), round(cell.get_y() + 0.5))]
    }


def in_percent(estimate: Estimate) -> object:
    """An estimate of an accuracy, as it should be drawn."""
    return pytest.approx([100 * each for each in (estimate.value, estimate.low, estimate.high)])


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> tuple[Section, Names, Figure]:
    """Settings 1, 2 and 3 with three seeds, setting 0, and setting 2 without two of its tasks."""
    path = tmp_path_factory.mktemp("three")
    write_study(path, 3)
    for seed in range(3):
        write(path / f"0-{seed}", 0, seed, [0.1])
        for task in (0, 1):
            write(path / f"2-{seed}-{task}-lacks", 2, seed, [0.66], task=task, lr=0.2)
    (section,), names = sections_of(path)
    return section, names, figure.build([section], names)


def test_rows_stand_in_order_of_rank_with_letters_and_words(three):
    *_, drawn = three
    assert panel(drawn, "delta_m").get_ylim() == panel(drawn, "mean accuracy").get_ylim()
    assert rows(panel(drawn, "mean accuracy")) == [
        "A 1 standard by task",
        "B 2 single task",
        "C 3 uniform sampling",
        "D 2 single task, lr 0.2, tasks missing",
        "E 0 standard",
    ]


def test_accuracies_stand_with_their_intervals_the_one_as_trained_below(three):
    section, _, drawn = three
    axes = panel(drawn, "mean accuracy")
    found = points(axes, "ABCDE")
    usual, trained = found["tested as usual"], found["tested as trained"]
    assert {letter: point[0] for letter, point in usual.items()} == pytest.approx({"A": 71, "B": 62, "C": 61})
    assert {letter: point[0] for letter, point in trained.items()} == pytest.approx({"B": 52, "C": 60})
    for letter, group in zip("ABC", section.ranking, strict=True):
        assert usual[letter] == in_percent(section.means[USUAL][group])
        if letter in trained:
            assert trained[letter] == in_percent(section.means[AS_TRAINED][group])
    places = {each.get_label(): [] for each in axes.containers}
    for each in axes.containers:
        places[each.get_label()] += [float(each[0].get_ydata()[0])]
    assert places["tested as usual"] == [0, 0.8, 1.8]
    assert places["tested as trained"] == [1.2, 2.2]
    assert axes.get_xlabel() == "% (a constant answer: 50.0)"


def test_a_marker_tells_the_way_of_testing_and_a_star_what_is_conclusive(three):
    *_, drawn = three
    for title in ("mean accuracy", "delta_m"):
        faces = {each.get_label(): each[0].get_markerfacecolor() for each in panel(drawn, title).containers}
        assert (faces["tested as usual"], faces["tested as trained"]) == ("black", "white")
    assert panel(drawn, "delta_m").get_xlabel() == "% (* conclusive)"
    (legend,) = (legend for place in drawn.subfigs for legend in place.legends)
    assert [text.get_text() for text in legend.get_texts()] == [
        "constant answer",
        "tested as usual",
        "tested as trained",
        "tested as usual, tasks missing",
    ]


def test_delta_m_stands_with_its_interval_and_a_star_where_it_is_conclusive(three):
    section, _, drawn = three
    axes = panel(drawn, "delta_m")
    found = points(axes, "ABCDE")
    # The baseline is 0.62 in every task, and 0.52 as trained.
    expected = {("tested as usual", "A"): 9 / 0.62, ("tested as usual", "C"): -1 / 0.62}
    expected |= {("tested as trained", "C"): 8 / 0.52}
    assert {(way, row): point[0] for way, each in found.items() for row, point in each.items()} == (
        pytest.approx(expected)
    )
    conclusive = set()
    for way in (USUAL, AS_TRAINED):
        for row, group in enumerate(section.ranking):
            if (transfer := section.transfer(group, way)) and transfer.delta_m:
                each, (_, *ends) = transfer.delta_m.estimate, found[MARKERS[way]]["ABC"[row]]
                assert ends == pytest.approx([each.low, each.high])
                if transfer.delta_m.is_conclusive:
                    conclusive.add((row, way))
    stars = [text.get_position()[1] for text in axes.texts if text.get_text() == "*"]
    trained_in = {1, 2}  # the rows with two points
    assert {(round(y), AS_TRAINED if y > round(y) else USUAL) for y in stars} == conclusive
    assert all((y == round(y)) != (round(y) in trained_in) for y in stars)
    assert 0 < len(conclusive) < 3


def test_the_heat_map_says_how_each_task_changes_and_hatches_what_is_inconclusive(three):
    section, _, drawn = three
    axes = panel(drawn, "Change of each task")
    assert rows(axes) == ["oak", "elm", "ash", "fir"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["A", "C"]
    found = cells(axes)
    written = {"oak": "+10", "elm": "+1", "ash": "-5", "fir": "-10"}
    assert {task: found[task, "C"][0] for task in TASKS} == written
    assert {found[task, "A"][0] for task in TASKS} == {"+9"}
    for letter, group in zip("ABC", section.ranking, strict=True):
        if letter != "B":
            judged = zip(TASKS, section.transfer(group, USUAL).tasks, strict=True)
            for task, result in judged:
                assert found[task, letter][2] == (result.verdict == INCONCLUSIVE)
    assert {hatched for _, _, hatched in found.values()} == {True, False}
    darkness = {int(number): shade for number, shade, _ in found.values()}
    assert darkness == pytest.approx({10: 1, 9: 0.95, 1: 0.55, -5: 0.25, -10: 0})
    title = axes.figure.get_suptitle()
    assert title == (
        "Change of each task against single-task training, points of accuracy; hatched: inconclusive\n"
        "white: -10.0, black: +10.0"
    )
    colors = {text.get_text(): text.get_color() for text in axes.texts}
    assert colors == {"+10": "white", "+9": "white", "+1": "white", "-5": "black", "-10": "black"}


def test_setting_0_has_its_number_in_words_alone_where_there_is_more(three, tmp_path):
    *_, drawn = three
    axes = panel(drawn, "mean accuracy")
    (text,) = axes.texts
    assert text.get_text() == "10.0 % over all classes at once: not comparable"
    assert rows(axes)[text.get_position()[1]] == "E 0 standard"
    assert axes.get_xlim()[0] > 40  # and does not press the others into a corner
    write(tmp_path / "0", 0, 0, [0.1])
    alone = panel(built(tmp_path), "mean accuracy")
    assert points(alone, "A") == {"tested as usual": {"A": pytest.approx((10,))}}
    assert not alone.texts


def test_what_lacks_tasks_is_grey_and_hollow_and_has_no_interval(three, tmp_path):
    *_, drawn = three
    assert points(panel(drawn, "mean accuracy"), "ABCDE")["tested as usual, tasks missing"] == {
        "D": pytest.approx((66,))
    }
    write_study(tmp_path, 3)
    for seed in range(3):
        path = tmp_path / f"2-{seed}-0" / "history.json"
        history = json.loads(path.read_text())
        del history["as_trained"]
        path.write_text(json.dumps(history))
    axes = panel(built(tmp_path), "mean accuracy")
    found = points(axes, "ABC")
    assert found["tested as trained, tasks missing"] == {"B": pytest.approx((52,))}
    assert (found["tested as usual"].keys(), found["tested as trained"].keys()) == ({*"ABC"}, {"C"})
    (grey,) = (each[0] for each in axes.containers if each.get_label().endswith("missing"))
    assert (grey.get_color(), grey.get_markerfacecolor(), grey.get_marker()) == ("0.6", "white", "D")
    assert rows(axes)[1] == "B 2 single task"


def test_two_seeds_tell_of_no_task_and_one_seed_has_no_bars(tmp_path):
    write_study(tmp_path / "two", 2)
    write_study(tmp_path / "one", 1)
    found = cells(panel(built(tmp_path / "two"), "Change of each task"))
    assert all(hatched for *_, hatched in found.values())
    drawn = built(tmp_path / "one")
    for title in ("mean accuracy", "delta_m"):
        found = points(panel(drawn, title), "ABC")
        assert {len(point) for kind in found.values() for point in kind.values()} == {1}
    found = cells(panel(drawn, "Change of each task"))
    assert (found["oak", "C"][0], {hatched for *_, hatched in found.values()}) == ("+8", {True})


def test_without_a_baseline_there_are_accuracies_alone(tmp_path):
    write_study(tmp_path, 2, baseline=False)
    (axes,) = built(tmp_path).axes
    assert axes.get_title() == "mean accuracy over tasks"


def test_each_data_set_has_its_own_part_and_letters_run_on(tmp_path):
    write_study(tmp_path / "one", 3)
    write_study(tmp_path / "other", 3)
    for path in (tmp_path / "other").rglob("history.json"):
        text = path.read_text().replace("trees.npz#0", "woods.npz#1").replace('"trees"', '"woods"')
        path.write_text(text)
    drawn = built(tmp_path)
    first, second = (rows(axes) for axes in panels(drawn, "mean accuracy"))
    assert [row[0] for row in [*first, *second]] == [*"ABCDEF"]
    assert [row[2:] for row in first] == [row[2:] for row in second] == list(RANKED)
    maps = panels(drawn, "Change of each task")
    assert [text.get_text() for axes in maps for text in axes.get_xticklabels()] == [*"ACDF"]
    titles = [place.get_suptitle().partition(" ")[0] for place in drawn.subfigs]
    assert titles == ["trees", "Change", "woods", "Change"]


def test_axes_show_every_mean_and_no_wide_interval_rules_them(tmp_path):
    for seed, wide in enumerate((0.72, 0.8, 0.88)):
        for number in range(20):
            scores = [wide if number == 4 else 0.8 + 0.001 * (number + seed)] * 4
            write(tmp_path / f"{number}-{seed}", 3, seed, scores, lr=number + 1)
    (section,), names = sections_of(tmp_path)
    ends = [100 * each for mean in section.means[USUAL].values() for each in (mean.low, mean.high)]
    low, high = panel(figure.build([section], names), "mean accuracy").get_xlim()
    assert low < 80 < 82 < high
    assert min(ends) < low < high < max(ends)


def test_the_constant_answer_has_a_line_if_it_is_near(tmp_path):
    for name, level in (("near", 0.505), ("far", 0.9)):
        for number in range(3):
            write(tmp_path / name / str(number), 3, 0, [level + 0.01 * number] * 4, lr=number + 1)
        axes = panel(built(tmp_path / name), "mean accuracy")
        lines = [line.get_xdata() for line in axes.lines if line.get_label() == "constant answer"]
        assert lines == ([[50, 50]] if name == "near" else [])


def test_the_same_histories_give_the_same_bytes_in_grey_whatever_the_user_has_set(tmp_path, recwarn):
    odd = (r"$\frac{x$", "\udcff", "\u4e2d", "z" * 99)
    for seed in range(3):
        scores = [0.6, 0.7, 0.8, 0.9]
        write(tmp_path / f"3-{seed}", 3, seed, scores, as_trained=[0.7] * 4, tasks=odd, note=odd[0])
        write(tmp_path / f"3-{seed}-", 3, seed, scores, tasks=odd, note="\u4e2d\udcff")
        for task in range(4):
            alone = [0.6 + 0.01 * seed]
            write(tmp_path / f"2-{seed}-{task}", 2, seed, alone, tasks=odd, task=task, note=odd[0])
    first = figure.draw(*sections_of(tmp_path))
    users = {"axes.edgecolor": "red", "font.family": "monospace", "text.parse_math": True}
    with matplotlib.rc_context({**users, "savefig.bbox": "tight", "savefig.facecolor": "red"}):
        second = figure.draw(*sections_of(tmp_path))
    assert first == second
    image = imread(io.BytesIO(first))[..., :3]
    assert image.min() < 0.1
    assert (image == image[..., :1]).all()
    assert not recwarn.list


def test_of_many_tasks_the_figure_shows_those_that_change_most(tmp_path):
    tasks = [f"task {number}" for number in range(100)]
    gains = {task: (37 * number) % 100 - 30 for number, task in enumerate(tasks)}
    write(tmp_path / "3", 3, 0, [0.5 + gain / 1000 for gain in gains.values()], tasks=tasks)
    for task in range(100):
        write(tmp_path / f"2-{task}", 2, 0, [0.5], tasks=tasks, task=task)
    axes = panel(built(tmp_path), "Change of each task")
    best_first = sorted(tasks, key=lambda task: -gains[task])
    assert rows(axes) == best_first[:40] + best_first[60:]
    assert "\nOf 100 tasks the 40 that gain most and the 40 that gain least\n" in axes.figure.get_suptitle()


def test_with_many_groups_each_has_a_row_and_no_text_lies_on_another(tmp_path):
    names = (*TASKS[:3], "z" * 99)
    write(tmp_path / "0", 0, 0, [0.1], tasks=names)
    for number in range(21):
        options = {
            "lr": round(0.1 + number / 1000, 3),
            "momentum": number / 25,
            "weight_decay": number / 1000,
            "tasks": names,
        }
        for seed in range(3):
            scores = [0.5 - 0.02 * seed, 0.6, 0.7 + 0.01 * seed, 0.01 * number]
            write(tmp_path / f"3-{number}-{seed}", 3, seed, scores, as_trained=scores, **options)
            for task in range(4):
                alone = [0.6 + 0.01 * seed + 0.001 * number]
                how = {"as_trained": alone, "task": task, **options}
                write(tmp_path / f"2-{number}-{task}-{seed}", 2, seed, alone, **how)
    drawn = built(tmp_path)
    drawn.set_dpi(100)  # as a page shows it: 900 pixels wide
    drawn.draw_without_rendering()
    above, below = drawn.subfigs
    found = points(above.axes[0], rows(above.axes[0]))
    assert {kind: len(each) for kind, each in found.items()} == {
        "tested as usual": 42,
        "tested as trained": 42,
    }
    assert len(below.axes[0].get_xticklabels()) == 20
    assert "\nThe first 20 of 21 configurations\n" in below.get_suptitle()
    texts = []
    for axes in drawn.axes:
        texts += [axes.title, axes.xaxis.label, *axes.texts, *axes.get_yticklabels()]
        low, high = axes.get_xlim()
        texts += [text for text in axes.get_xticklabels() if low <= text.get_position()[0] <= high]
    for part in drawn.subfigs:
        texts += [*part.texts, part._suptitle]
        texts += [text for each in part.legends for text in (*each.get_texts(), each.get_title())]
    texts = list({id(text): text for text in texts if text.get_visible() and text.get_text()}.values())
    assert sum(text.get_text() == "*" for text in texts) > 20
    assert min(text.get_fontsize() for text in texts) * 100 / 72 > 11  # pixels
    for axes in drawn.axes:
        ends = [text.get_window_extent().x1 for text in axes.get_yticklabels() if text.get_visible()]
        assert max(ends, default=0) < axes.get_window_extent().x0
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
    assert names == {"history.json", "report.md", "report.csv", "comparisons.csv", "missing.sh"}


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
        "saved report.md, report.csv, comparisons.csv, missing.sh, report.png in runs"
    )
    assert done.stderr.count("\n") == 1
