"""Watching a training: event files, the lines of --verbose, the progress bar, the hint of bf16."""

import json
import math
import sys
import threading
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import pytest
from helpers import error_line, one_line, result_of, write_data

import agents
import running.hint
import running.machine
from running.stopping import Stopped, StopSignals
from storage.files import event_files

SETTINGS = {
    1: (),
    2: ("--task", 1, "--validation", 0.25),
    3: ("--momentum", 0.9, "--weight_decay", 0.01, "--schedule", "cosine"),
}


@pytest.fixture
def line(tmp_path, monkeypatch) -> tuple:
    """A training of 3 epochs on a file with tasks of odd names, each of which also names another's curve."""
    names = {"class_names": ["mean", "a b/(c)", "mean/a"]}
    data = write_data(tmp_path / "own.npz", [16, 8, 8], **names)
    if find_spec("tensorboard"):  # which orders the files of one second and process by a number as text
        numbers = SimpleNamespace(get=count(100).__next__)
        monkeypatch.setattr("tensorboard.summary.writer.event_file_writer._global_uid", numbers)
    return "--train", "--data", data, "--batch_size", 8, "--epochs", 3


def curves(path: Path) -> dict[str, dict[int, float]]:
    """The points of each curve, by tag and step, as TensorBoard reads them from all files of a directory."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    reader = accumulator.EventAccumulator(str(path), size_guidance={accumulator.SCALARS: 0})
    reader.Reload()
    found = {}
    for tag in reader.Tags()["scalars"]:
        points = [(event.step, event.value) for event in reader.Scalars(tag)]
        found[tag] = dict(points)
        assert len(points) == len(found[tag]), "a point is drawn twice"
    return found


def drawn(path: Path, rates: list[float]) -> dict[str, dict[int, float]]:
    """The same, from the history and the learning rate of each epoch."""
    history = json.loads((path / "history.json").read_text())
    scored_on, tasks = history["data_set"]["scored_on"], history["tasks"]
    found = {}
    for record, rate in zip(history["epochs"], rates, strict=True):
        points = {"learning_rate": rate, "train_loss": record["loss"]}
        keys = (("train_loss", "task_loss"), (f"{scored_on}_accuracy", "accuracy"))
        for name, key in (*keys, (f"{scored_on}_loss", "test_loss")):
            points.setdefault(name, fmean(record[key]))
            if len(record[key]) > 1:
                points |= {f"{name}/{task}": each for task, each in zip(tasks, record[key], strict=True)}
        for tag, value in points.items():
            found.setdefault(tag, {})[record["epoch"]] = value
    return found


def assert_drawn(path: Path, rates: list[float]) -> None:
    found, expected = curves(path), drawn(path, rates)
    assert found.keys() == expected.keys()
    for tag, points in expected.items():
        assert found[tag] == pytest.approx(points, rel=6e-6)  # a history has six digits


COSINE = [0.1 * (1 + math.cos(math.pi * done / 3)) / 2 for done in range(3)]


@pytest.mark.parametrize("setting", SETTINGS)
def test_event_files_hold_what_the_history_holds(program, tmp_path, line, setting):
    pytest.importorskip("tensorboard")
    command = (*line, "--setting", setting, *SETTINGS[setting], "--save_history", "--save_path")
    trained = program(*command, tmp_path / "with", "--tensorboard", "--save_model")
    assert trained.code == 0
    assert f"event files in {tmp_path / 'with'}" in trained.err
    assert_drawn(tmp_path / "with", COSINE if setting == 3 else [0.1] * 3)
    if setting == 3:
        assert program(*command, tmp_path / "without", "--save_model").code == 0
        assert result_of(tmp_path / "with") == result_of(tmp_path / "without")
        assert event_files(tmp_path / "without") == []


def test_an_epoch_is_on_the_disk_as_soon_as_it_has_ended(program, tmp_path, line, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "running.session.print_epoch", lambda *_: seen.append(set(curves(tmp_path)["test_loss"]))
    )
    assert program(*line, "--setting", 5, "--verbose", "--tensorboard", "--save_path", tmp_path).code == 0
    assert seen == [{1}, {1, 2}, {1, 2, 3}]


class StopAfter(StopSignals):
    """A signal comes after a number of calls of `check`."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self._left = calls

    def check(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Stopped(15)


@pytest.mark.parametrize("first", [("--tensorboard",), ()], ids=["drawn from the start", "later"])
def test_a_resumed_run_goes_on_in_the_same_curves(program, tmp_path, line, monkeypatch, first):
    pytest.importorskip("tensorboard")
    command = (*line, "--setting", 5, "--resume", "--save_history", "--save_path", tmp_path / "run")
    for calls in (7, 5):  # an epoch has 4 steps, and at least a batch to score
        with monkeypatch.context() as patched:
            patched.setattr("main.StopSignals", lambda calls=calls: StopAfter(calls))
            assert program(*command, *first).code == 128 + 15
    assert program(*command, "--tensorboard").code == 0
    sessions = json.loads((tmp_path / "run" / "history.json").read_text())["sessions"]
    assert len(sessions) == 3
    assert 0 < sessions[-1]["epoch"] < 3
    assert_drawn(tmp_path / "run", [0.1] * 3)


def test_what_was_drawn_after_the_last_save_is_hidden(program, tmp_path, line):
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    command = (*line, "--setting", 5, "--resume", "--tensorboard", "--save_path", run, "--save_history")
    assert program(*command, "--epochs", 1).code == 0
    model, history = ((run / name).read_bytes() for name in ("model.pt", "history.json"))
    assert program(*command, "--lr", 0.1, "--epochs", 3).code == 0
    drawn_beyond = curves(run)
    (run / "model.pt").write_bytes(model)
    (run / "history.json").write_bytes(history)
    assert program(*command, "--epochs", 2).code == 0
    assert set(drawn_beyond["train_loss"]) == {1, 2, 3}
    assert_drawn(run, [0.1] * 2)


def test_event_files_are_the_runs_own(program, tmp_path, line):
    run = tmp_path / "run"
    run.mkdir()
    event = run / "events.out.tfevents.1700000000.host.1.0"
    event.write_bytes(b"")
    command = (*line, "--setting", 5, "--epochs", 1, "--save_path", run)
    for saves in ("--save_history", "--save_model", "--tensorboard"):
        refused = program(*command, saves)
        assert "already (event files): continue it with --resume" in error_line(refused)
        assert one_line(refused)
    assert program(*command).code == 0  # it writes nothing
    assert event.exists()
    for saves in ("--save_history", "--save_model", "--tensorboard"):
        event.write_bytes(b"")
        assert program(*command, saves, "--overwrite").code == 0
        assert not event.exists()
    assert len(event_files(run)) == 1
    event.mkdir()
    assert f"{event} is in the way" in error_line(program(*command, "--overwrite", "--tensorboard"))


def test_a_run_that_only_draws_has_its_directory_to_itself(program, tmp_path, line):
    from storage.locks import reserved

    with reserved(tmp_path):
        refused = program(*line, "--setting", 5, "--tensorboard", "--save_path", tmp_path)
    assert "another training is writing" in error_line(refused)


def test_tensorboard_that_is_missing_or_broken_is_one_line(program, tmp_path, line, monkeypatch):
    command = (*line, "--setting", 5, "--tensorboard", "--save_path", tmp_path / "run")
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it was not installed
    refused = program(*command)
    assert "--tensorboard needs the package tensorboard" in error_line(refused)
    assert one_line(refused)
    monkeypatch.delitem(sys.modules, "tensorboard")
    for name in [name for name in sys.modules if name.startswith(("tensorboard", "torch.utils.tensorboard"))]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "__init__.py").write_text("raise TypeError('descriptors')")
    monkeypatch.syspath_prepend(tmp_path)
    assert "tensorboard cannot be imported (TypeError: descriptors)" in error_line(program(*command))
    assert not (tmp_path / "run").exists()


def test_event_files_that_cannot_be_written_are_one_line(program, tmp_path, line, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.summary.writer.record_writer import RecordWriter

    def full(*_):
        raise OSError(28, "No space left on device")

    printed_by_thread = []
    monkeypatch.setattr(threading, "excepthook", printed_by_thread.append)
    for name in ("write", "flush"):  # the thread of the writer does the one, the training the other
        with monkeypatch.context() as patched:
            patched.setattr(RecordWriter, name, full)
            refused = program(*line, "--setting", 5, "--tensorboard", "--save_path", tmp_path / name)
        line_of = error_line(refused)
        assert f"cannot write event files in {tmp_path / name}: No space left on device" in line_of
    assert printed_by_thread == []


# Lines of --verbose


@pytest.mark.parametrize("setting", [2, 5])
def test_verbose_says_what_an_epoch_came_to_on_standard_error(program, tmp_path, line, setting):
    options = ("--setting", setting, *SETTINGS.get(setting, ()), "--schedule", "cosine", "--save_history")
    printed = program(*line, *options, "--verbose", "--save_path", tmp_path)
    lines = [each for each in printed.err.splitlines() if each.startswith("epoch ")]
    records = json.loads((tmp_path / "history.json").read_text())["epochs"]
    kind, scored_on = ("validation accuracy", "validation") if setting == 2 else ("mean accuracy", "test")
    for said, record, rate in zip(lines, records, COSINE, strict=True):
        seconds = record["seconds"] + record["evaluation_seconds"]
        assert said == (
            f"epoch {record['epoch']} of 3: {kind} {fmean(record['accuracy']):.4f}, training loss "
            f"{record['loss']:.4f}, {scored_on} loss {fmean(record['test_loss']):.4f}, learning rate "
            f"{rate:.4g}, {seconds:.1f} seconds"
        )
    assert printed.out.count("[Epoch ") == 3
    assert "epoch 1 of" not in program(*line, *options, "--overwrite", "--save_path", tmp_path).err


def test_the_progress_bar_is_of_the_whole_run(program, tmp_path, line, monkeypatch):
    bars = []

    class Bar(agents.tqdm):
        def __init__(self, *args, **how):
            super().__init__(*args, **how)
            bars.append((how["total"], how["initial"], how["smoothing"]))

    monkeypatch.setattr(agents, "tqdm", Bar)
    command = (*line, "--setting", 5, "--resume", "--save_path", tmp_path)
    for epochs in (1, 3):
        assert program(*command, "--epochs", epochs).code == 0
    assert bars == [(4, 0, 0), (12, 4, 0)]  # 4 steps an epoch, and the mean speed of all that are done


# The hint of bf16

HINT = "--precision bf16 would take about half the time"


@pytest.fixture
def processor(tmp_path, monkeypatch):
    """Have the processor and a training of 3 epochs be what they are for the hint."""

    def processor(flags: str = "fpu avx512_bf16 sse", long: float = 0) -> None:
        (tmp_path / "cpuinfo").write_text(
            f"model name\t: made up\nflags\t\t: {flags}\n\nflags\t\t: {flags}\n"
        )
        monkeypatch.setattr(running.machine, "PROCESSOR", tmp_path / "cpuinfo")
        monkeypatch.setattr(running.hint, "LONG", long)

    return processor


def test_a_long_training_hints_at_bf16_once(program, line, processor):
    processor()
    hinted = program(*line, "--setting", 5, "--epochs", 4)
    assert hinted.err.count(HINT) == 1
    assert "accuracies would differ a little" in hinted.err
    assert HINT not in hinted.out


@pytest.mark.parametrize(
    ("flags", "has"),
    [
        *(("fpu avx512_bf16 sse", True), ("amx_bf16", True), ("amx_bf16 avx512_bf16", True)),
        *(("fpu avx512f", False), ("avx512_bf16x", False), ("", False), (None, False)),
    ],
)
def test_a_processor_has_bf16_if_its_flags_say_so(processor, flags, has):
    processor(flags or "")
    if flags is None:  # not Linux
        running.machine.PROCESSOR.unlink()
    assert running.machine.has_bf16() is has


def test_there_is_no_hint_where_it_would_not_help(program, tmp_path, line, processor):
    processor("avx512f")
    assert HINT not in program(*line, "--setting", 5).err
    processor()
    for precision in ("fp32", "bf16"):
        assert HINT not in program(*line, "--setting", 5, "--precision", precision).err
    command = (*line, "--setting", 5, "--resume", "--save_path", tmp_path / "run")
    assert HINT not in program(*command, "--epochs", 2).err  # too short to tell
    assert HINT not in program(*command, "--epochs", 6).err


@pytest.mark.parametrize(("seconds", "hints"), [(60, False), (100, True)])
def test_the_hint_estimates_the_time_of_all_steps_from_the_first(
    program, line, processor, monkeypatch, seconds, hints
):
    processor(long=60)
    clock = SimpleNamespace(perf_counter=count(0, seconds).__next__)
    monkeypatch.setattr(running.hint, "time", clock)
    hinted = program(*line, "--setting", 5, "--epochs", 5)  # 10 steps take so long, and 9 are left
    assert (HINT in hinted.err) is hints
    assert ("training takes about 1.5 minutes: on this processor" in hinted.err) is hints
