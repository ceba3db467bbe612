"""Runs that are killed, stopped, or run out of room: nothing is lost, and resuming changes no bit."""

import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_files import WHOLE, Harm, altered, bytes_of

from checkpoint import FORMAT
from files import reserved
from settings import TrainingOptions

# Children come from a server that has loaded the program but never computed, so that they start at
# once and can be killed like any process.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["runs", "torch._dynamo"])

EPOCHS = {0: 10, 2: 10, 3: 3, 4: 3, 5: 10}
"""Of each setting: an epoch has 50 steps in settings 3 and 4, 5 in the others."""

ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
"""For processes that run side by side."""

OPTIONS = ("--train", "--data", "0", "--synthetic", "--image_size", "4", "--batch_size", "32")


def child(argv: list[str], output: str, file_size: int | None) -> None:
    import main
    import models
    import runs

    models.NUM_HIDDEN = 32
    main.SYNTHETIC = [replace(spec, train_per_class=16, test_per_class=8) for spec in main.SYNTHETIC]
    runs.SAVE_INTERVAL = 0  # so that there are many moments of writing
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    os._exit(main.main(argv))


class Training:
    """A training in a process of its own that saves into a directory."""

    def __init__(self, path: Path, setting: int, *options: str, file_size: int | None = None) -> None:
        self.path = path
        self._output = path.parent / f"{path.name}.output"
        task = ("--task", "3") if setting == 2 else ()
        argv = [*OPTIONS, "--setting", str(setting), *task, "--save_path", str(path)]
        argv += ["--epochs", str(EPOCHS[setting]), "--resume", "--save_history", *options]
        self._output.unlink(missing_ok=True)
        self._process = PROCESSES.Process(target=child, args=(argv, str(self._output), file_size))
        self._process.start()

    def end(self) -> int:
        """Wait for the end; gives back the exit code, or minus the signal that ended it."""
        self._process.join(timeout=120)
        return self._process.exitcode

    def send(self, number: int) -> None:
        if self._process.is_alive():
            os.kill(self._process.pid, number)

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until something is so, but no longer than some time."""
        until = time.monotonic() + seconds
        while self.alive and time.monotonic() < until and not condition():
            time.sleep(0.0005)

    def wait_for_training(self) -> None:
        """Wait until the data set is there and the signals are looked after."""
        self.wait_for(lambda: self._output.exists() and "training and" in self.output)

    def wait_for_epoch(self) -> None:
        """Wait until an epoch has been saved."""
        self.wait_for((self.path / "history.json").exists)


def result_of(path: Path) -> tuple[bytes, list[dict]]:
    """The weights and the history that a run has left, without its times."""
    network = torch.load(path / "model.pt", weights_only=True)["model"]
    epochs = json.loads((path / "history.json").read_text())["epochs"]
    for epoch in epochs:
        del epoch["seconds"], epoch["images_per_second"]
    return b"".join(tensor.numpy().tobytes() for tensor in network.values()), epochs


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict:
    """What each setting gives when it is left alone, and how long its steps take."""
    results = {}
    for setting in EPOCHS:
        path = tmp_path_factory.mktemp("undisturbed") / "run"
        assert Training(path, setting).end() == 0
        epochs = json.loads((path / "history.json").read_text())["epochs"]
        results[setting] = *result_of(path), sum(epoch["seconds"] for epoch in epochs)
    return results


@pytest.mark.parametrize("setting", EPOCHS)
def test_a_training_killed_at_twenty_moments_ends_with_the_same_bytes(tmp_path, undisturbed, setting):
    path = tmp_path / "run"
    *expected, seconds = undisturbed[setting]
    moments = random.Random(setting)
    killed = 0
    for attempt in range(20):
        training = Training(path, setting)
        if attempt % 3 == 0:
            training.wait_for(
                (path / ".model.pt.tmp").exists, 0.3 + 0.4 * seconds
            )  # in the middle of writing
        else:
            time.sleep(moments.uniform(0, 0.3 + 0.3 * seconds))
        killed += training.alive
        training.send(signal.SIGKILL)
        training.end()
        if (path / "model.pt").exists():
            torch.load(path / "model.pt", weights_only=True)
        if (path / "history.json").exists():
            json.loads((path / "history.json").read_text())
    assert killed >= 5
    assert Training(path, setting).end() == 0
    assert list(result_of(path)) == expected


@pytest.mark.parametrize("setting", EPOCHS)
def test_a_training_stopped_at_any_step_goes_on_from_it_to_the_same_bytes(tmp_path, undisturbed, setting):
    path = tmp_path / "run"
    *expected, seconds = undisturbed[setting]
    moments = random.Random(setting)
    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGTERM]
    stops = 0
    for number in numbers:
        training = Training(path, setting)
        training.wait_for_training()
        time.sleep(moments.uniform(0, 0.2 * seconds))
        training.send(number)
        code = training.end()
        if code == 0:
            break
        assert code == 128 + number
        assert training.output.splitlines()[-1].startswith(f"main.py: stopped by {number.name}")
        assert "Traceback" not in training.output
        stops += "goes on from there" in training.output
    assert stops >= 1
    assert Training(path, setting).end() == 0
    assert list(result_of(path)) == expected


def test_a_training_stopped_in_the_middle_of_an_epoch_says_where_and_keeps_that_step(tmp_path):
    path = tmp_path / "run"
    training = Training(path, 3, "--epochs", "1000")
    training.wait_for_epoch()
    training.send(signal.SIGTERM)
    assert training.end() == 128 + signal.SIGTERM
    state = torch.load(path / "model.pt", weights_only=True)["training"]
    epoch, step = len(state["epochs"]) + 1, state["step"]
    assert f"after {step} of 50 steps of epoch {epoch}" in training.output
    assert len(state["losses"]) == step
    history = json.loads((path / "history.json").read_text())["epochs"]
    assert history == state["epochs"]
    resumed = Training(path, 3, "--epochs", str(epoch))
    assert resumed.end() == 0
    assert f"{step} steps of 50" in resumed.output


def test_a_second_signal_ends_at_once(tmp_path):
    training = Training(tmp_path / "run", 3, "--epochs", "1000")
    training.wait_for_epoch()
    training.send(signal.SIGSTOP)  # so that both signals come before the step ends
    training.send(signal.SIGINT)
    training.send(signal.SIGTERM)
    training.send(signal.SIGCONT)
    assert training.end() in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    assert training.output.splitlines()[-1] == "main.py: stopped at once by a second signal"
    assert "Traceback" not in training.output


@pytest.mark.parametrize("setting", [0, 3])
def test_a_disk_that_fills_up_is_one_line_and_leaves_the_files_as_they_were(tmp_path, setting):
    path = tmp_path / "run"
    assert Training(path, setting, "--epochs", "1").end() == 0
    model, history = (path / "model.pt").read_bytes(), (path / "history.json").read_bytes()
    training = Training(path, setting, "--epochs", "2", file_size=len(model) // 2)
    assert training.end() == 1
    assert "File too large" in training.output.splitlines()[-1]
    assert "Traceback" not in training.output
    assert (path / "model.pt").read_bytes() == model
    assert sorted(file.name for file in path.iterdir()) == ["history.json", "model.pt"]
    assert json.loads(history)["epochs"] == json.loads((path / "history.json").read_text())["epochs"][:1]
    assert Training(path, setting, "--epochs", "2").end() == 0


# From here on in this process

SMALL = ("--synthetic", "--image_size", 8, "--data", 0)
TRAIN = ("--train", "--setting", 3, *SMALL)
SUMMED = ("--train", "--setting", 5, *SMALL)


def error_line(refused) -> str:
    """The one line of a refusal."""
    assert refused.code == 1
    assert "Traceback" not in refused.err
    assert "Accuracy" not in refused.out
    assert refused.err.splitlines()[-1].startswith("main.py: error: ")
    return refused.err.splitlines()[-1]


def test_raising_the_epochs_of_a_finished_run_is_as_if_it_had_never_ended(run, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    once = run(*SUMMED, "--epochs", 3, "--save_model", "--save_history", "--save_path", whole)
    for epochs in (1, 3):
        last = run(*SUMMED, "--epochs", epochs, "--resume", "--save_history", "--save_path", parts)
        assert last.code == 0
    assert result_of(parts) == result_of(whole)
    assert last.accuracy == once.accuracy
    again = run(*SUMMED, "--epochs", 3, "--resume", "--save_history", "--save_path", parts)
    assert again.code == 0
    assert again.accuracy == once.accuracy
    assert result_of(parts) == result_of(whole)


@pytest.mark.parametrize(("interval", "writings"), [(0, [1, 2, 3]), (3600, [3])])
def test_the_model_is_written_at_the_end_and_before_when_it_is_due(
    run, tmp_path, monkeypatch, interval, writings
):
    import runs

    assert runs.SAVE_INTERVAL == 60
    monkeypatch.setattr(runs, "SAVE_INTERVAL", interval)
    epochs, write = [], runs.save_model
    monkeypatch.setattr(runs, "save_model", lambda *a: epochs.append(len(a[3]["epochs"])) or write(*a))
    assert run(*SUMMED, "--epochs", 3, "--save_model", "--save_path", tmp_path).code == 0
    assert epochs == writings


def test_resuming_without_a_file_starts_anew_and_says_so(run, tmp_path):
    first = run(*TRAIN, "--epochs", 1, "--resume", "--save_path", tmp_path)
    assert first.code == 0
    assert "starting anew" in first.err
    assert (tmp_path / "model.pt").exists()


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A directory with a model of setting 4 on CIFAR-10's stand-in."""
    import main

    path = tmp_path_factory.mktemp("saved")
    argv = ["--train", "--setting", 4, *SMALL, "--epochs", 2, "--save_model", "--save_path", path]
    assert main.main([str(argument) for argument in argv]) == 0
    return path


@pytest.mark.parametrize(
    "options",
    [
        {"--setting": (3,)},
        {"--data": (1,)},
        {"--setting": (2,), "--task": (1,)},
        {"--seed": (1,), "--lr": (0.2,)},
        {"--batch_size": (64,), "--image_size": (16,)},
        {"--weights": (1,) * 10},
        {"--precision": ("bf16",)},
    ],
    ids=lambda options: " ".join(options),
)
def test_options_that_contradict_the_file_are_refused_each_by_name(run, saved, options):
    before = (saved / "model.pt").read_bytes()
    given = {"--setting": (4,), "--data": (0,), "--image_size": (8,)} | options
    argv = [argument for name, values in given.items() for argument in (name, *values)]
    refused = run("--train", "--resume", "--synthetic", "--epochs", 3, "--save_path", saved, *argv)
    line = error_line(refused)
    assert all(name in line for name in options)
    assert (saved / "model.pt").read_bytes() == before


def test_real_images_after_generated_ones_are_refused(run, saved):
    refused = run("--train", "--resume", "--setting", 4, "--data", 0, "--image_size", 8, "--save_path", saved)
    assert "--synthetic" in error_line(refused)


def test_fewer_epochs_than_are_done_are_refused(run, saved):
    refused = run("--train", "--resume", "--setting", 4, *SMALL, "--epochs", 1, "--save_path", saved)
    assert "--epochs 2" in error_line(refused)


@pytest.mark.parametrize("option", ["--save_model", "--save_history", "--resume"])
def test_a_save_path_that_is_a_file_is_refused_before_training(run, tmp_path, option):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        refused = run(*TRAIN, option, "--save_path", path)
        assert str(path) in error_line(refused)
        assert refused.err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_save_path_that_cannot_be_written_is_refused_before_training(run):
    refused = run(*TRAIN, "--save_model", "--save_path", "/proc/self/nowhere")
    assert "/proc/self" in error_line(refused)
    assert refused.err.count("\n") == 1


def test_no_room_for_the_model_is_refused_before_training(run, tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    refused = run(*TRAIN, "--save_model", "--save_path", tmp_path)
    assert "MB" in error_line(refused)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "named"), [(0, "all classes"), (2, "cat"), (3, " is not finite"), (5, "all tasks")]
)
def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_good_files(run, saved, setting, named):
    before = (saved / "model.pt").read_bytes()
    task = ("--task", 3) if setting == 2 else ()
    options = ("--setting", setting, *task, *SMALL, "--lr", 1e30, "--batch_size", 32, "--save_path", saved)
    line = error_line(run("--train", "--epochs", 3, "--save_model", *options))
    assert "epoch 1" in line
    assert "1e+30" in line
    assert named in line
    assert (saved / "model.pt").read_bytes() == before


def test_a_drawn_task_whose_loss_is_not_finite_is_named(cifar100):
    from agents import TaskSamplingAgent
    from settings import UserError

    agent = TaskSamplingAgent(cifar100, TrainingOptions(batch_size=32))
    plain, names = agent.loss, list(cifar100.spec.tasks)
    agent.loss = lambda task, *batch: plain(task, *batch) * (torch.nan if task == 7 else 1)
    first = agent.plan(1)[0].tolist().index(7) + 1
    with pytest.raises(UserError, match=rf"{names[7]} is not finite from step {first} of epoch 1"):
        list(agent.train(1))


def test_a_training_whose_output_nobody_reads_still_saves_its_model(tmp_path):
    options = "--setting 2 --task 0 --synthetic --image_size 4 --epochs 1 --verbose --save_model"
    runs = {}
    for closed in ("| head -1", ">&-", "2>&-", "2>&1 > /dev/null | true"):
        path = tmp_path / str(len(runs))
        command = f"{sys.executable} main.py --train {options} --save_path {path} {closed}"
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        runs[path] = subprocess.Popen(command, shell=True, **pipes, env=ONE_THREAD)
    for path, process in runs.items():
        assert "Traceback" not in "".join(process.communicate())
        assert (path / "model.pt").exists()


def test_results_that_cannot_be_written_are_found_before_training():
    command = f"{sys.executable} main.py --train --synthetic > /dev/full"
    finished = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert finished.returncode == 1
    assert finished.stderr.startswith("main.py: error: standard output cannot be written to")
    assert finished.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["model.pt", "history.json"])
def test_what_is_in_the_way_of_a_file_is_found_before_training(run, tmp_path, name):
    (tmp_path / name).mkdir()
    refused = run(*TRAIN, "--save_model", "--save_history", "--save_path", tmp_path)
    assert str(tmp_path / name) in error_line(refused)
    assert refused.err.count("\n") == 1


@pytest.mark.parametrize(
    "training",
    [{"epochs": [1]}, {"epochs": [{}]}, {"epochs": [{"epoch": 1, "loss": 1.0, "accuracy": [1.0]}]}],
    ids=str,
)
def test_resuming_from_records_that_are_none_is_refused(run, saved, tmp_path, training):
    content = torch.load(saved / "model.pt", weights_only=True)
    content["training"] |= training
    torch.save(content, tmp_path / "model.pt")
    before = (tmp_path / "model.pt").read_bytes()
    refused = run("--train", "--resume", "--setting", 4, *SMALL, "--epochs", 3, "--save_path", tmp_path)
    assert "model.pt" in error_line(refused)
    assert (tmp_path / "model.pt").read_bytes() == before


def test_resuming_from_another_version_is_said(run, saved, tmp_path):
    content = torch.load(saved / "model.pt", weights_only=True)
    content["options"]["version"] = "0.0.1"
    torch.save(content, tmp_path / "model.pt")
    resumed = run("--train", "--resume", "--setting", 4, *SMALL, "--epochs", 2, "--save_path", tmp_path)
    assert resumed.code == 0
    assert "version 0.0.1" in resumed.err


@pytest.mark.parametrize("option", ["--save_model", "--save_history", "--resume"])
def test_a_second_training_in_the_same_directory_is_refused(run, tmp_path, option):
    with reserved(tmp_path):
        refused = run(*TRAIN, "--epochs", 1, option, "--save_path", tmp_path)
    assert "another training" in error_line(refused)
    assert list(tmp_path.iterdir()) == []
    assert run(*TRAIN, "--epochs", 1, option, "--save_path", tmp_path).code == 0


@pytest.mark.parametrize("mode", [("--eval",), ("--train", "--resume")], ids=["eval", "resume"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"text", "not a model"),
        (WHOLE[: len(WHOLE) // 2], "damaged"),
        (bytes_of(Harm()), "code"),
        (altered(format=FORMAT + 1), "newer"),
        (altered(training=None), "not a model of this program"),
    ],
    ids=["empty", "text", "truncated", "code", "newer", "malformed"],
)
def test_a_file_that_is_no_model_is_refused_and_left_as_it_is(
    run, tmp_path, monkeypatch, mode, content, says
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.pt").write_bytes(content)
    refused = run(*mode, "--setting", 3, *SMALL, "--save_path", tmp_path)
    assert says in error_line(refused)
    assert (tmp_path / "model.pt").read_bytes() == content
    assert list(tmp_path.iterdir()) == [tmp_path / "model.pt"]  # the code would have made a file


def test_a_missing_model_is_refused_and_says_how_to_make_one(run, tmp_path):
    assert "--save_model" in error_line(run("--eval", "--setting", 3, *SMALL, "--save_path", tmp_path))


@pytest.fixture
def no_network(monkeypatch):
    """Downloads fail as they do without a network."""
    import urllib.request

    def unreachable(*_, **__):
        raise urllib.request.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)


@pytest.mark.parametrize(
    ("data", "file"),
    [
        (0, "cifar-10-python.tar.gz"),
        (0, "cifar-10-batches-py/data_batch_3"),
        (1, "cifar-100-python/train"),
        (2, "omniglot-py/images_evaluation.zip"),
    ],
)
def test_a_damaged_download_is_named(run, tmp_path, no_network, data, file):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(b"half of it")
    refused = run("--train", "--data", data, "--data_path", tmp_path)
    assert f"{tmp_path / file} is damaged" in error_line(refused)
    assert "--synthetic" in refused.err
    assert (tmp_path / file).read_bytes() == b"half of it"
