"""Runs that are killed, stopped, or run out of room.

Nothing is lost, and resuming changes no bit.
"""

import json
import os
import random
import signal
from pathlib import Path

import pytest
import torch
from disturbed import (
    VARIANTS,
    Training,
    child,
    close_streams,
    close_terminal,
    fill_output,
    ignore_hang_ups,
    let_nobody_read,
)
from helpers import NARROW, PROCESSES, SMALL, error_line, result_of, write_data
from test_checkpoint import WHOLE, Harm, altered, bytes_of

from options import make_run
from running.stopping import StopSignals
from running.training import train
from storage.checkpoint import FORMAT
from storage.locks import reserved

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict:
    """What a variant gives when it is left alone, and how many moments it has."""
    results = {}

    def of(variant: str) -> tuple:
        if variant not in results:
            path = tmp_path_factory.mktemp("undisturbed") / "run"
            training = Training(path, variant, disturbance=(None, 0, ()))
            assert training.code == 0, training.output
            results[variant] = *result_of(path), training.moments
        return results[variant]

    return of


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_training_killed_at_many_moments_ends_with_the_same_bytes(tmp_path, undisturbed, variant):
    path = tmp_path / "run"
    *expected, moments = undisturbed(variant)
    drawn = random.Random(variant)
    codes = []
    anywhere = (None, int(0.8 * moments))
    # The first history is written after the first checkpoint, from which the last ones resume.
    for inside, most in (("write_checkpoint", moments // 14), anywhere, ("write_history", 300), anywhere):
        disturbance = (inside, drawn.randrange(1, most), (signal.SIGKILL,))
        codes.append(Training(path, variant, disturbance=disturbance).code)
        if (path / "model.pt").exists():
            torch.load(path / "model.pt", weights_only=True)
        if (path / "history.json").exists():
            json.loads((path / "history.json").read_text())
    assert codes[:3] == [-signal.SIGKILL] * 3
    assert set(codes) <= {0, -signal.SIGKILL}
    assert Training(path, variant).code == 0
    assert json.loads((path / "history.json").read_text())["sessions"][-1]["epoch"] >= 1
    assert list(result_of(path)) == expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_training_stopped_at_any_step_goes_on_from_it_to_the_same_bytes(tmp_path, undisturbed, variant):
    path = tmp_path / "run"
    *expected, moments = undisturbed(variant)
    drawn = random.Random(variant)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        disturbance = ("train_steps", drawn.randrange(1, moments // 50), (number,))
        training = Training(path, variant, disturbance=disturbance)
        if training.code == 0:
            break
        assert training.code == 128 + number
        assert training.output.splitlines()[-1].startswith(f"main.py: stopped by {number.name} after")
        assert "continues from there" in training.output
        assert "Traceback" not in training.output
    assert len(json.loads((path / "history.json").read_text())["sessions"]) >= 1
    assert Training(path, variant).code == 0
    assert list(result_of(path)) == expected


def test_a_training_stopped_in_the_middle_of_an_epoch_says_where_and_keeps_that_step(tmp_path):
    path = tmp_path / "run"
    training = Training(path, "3", disturbance=("train_steps", 3000, (signal.SIGTERM,)))
    assert training.code == 128 + signal.SIGTERM
    state = torch.load(path / "model.pt", weights_only=True)["training"]
    epoch, step = len(state["epochs"]) + 1, state["step"]
    assert f"after {step} of 12 steps of epoch {epoch}" in training.output
    assert len(state["losses"]) == len(state["task_losses"]) == step > 0
    history = json.loads((path / "history.json").read_text())
    assert history["epochs"] == state["epochs"]
    assert history["finished"] is False
    resumed = Training(path, "3", "--epochs", str(epoch))
    assert resumed.code == 0
    assert f"{step} steps of 12" in resumed.output
    first, second = json.loads((path / "history.json").read_text())["sessions"]
    assert (first["epoch"], first["step"]) == (0, 0)
    assert (second["epoch"], second["step"]) == (epoch - 1, step)
    assert first["code"] == second["code"]
    assert first["environment"]["torch"] == torch.__version__


@pytest.mark.parametrize(
    "numbers",
    [(signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1), (signal.SIGINT, signal.SIGTERM)],
    ids=lambda numbers: " ".join(number.name for number in numbers),
)
def test_more_signals_are_ignored_while_the_first_is_answered(tmp_path, numbers):
    training = Training(tmp_path / "run", "3", disturbance=("train_steps", 2000, numbers))
    assert training.code == 128 + numbers[0]
    assert "continues from there" in training.output.splitlines()[-1]
    assert torch.load(tmp_path / "run" / "model.pt", weights_only=True)["training"]["step"] > 0


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    disturbance = ("train_steps", 2000, (signal.SIGTERM, signal.SIGINT, signal.SIGINT))
    training = Training(tmp_path / "run", "3", disturbance=disturbance)
    assert training.code == 128 + signal.SIGINT
    assert training.output.splitlines()[-1] == "main.py: stopped at once by a second Ctrl-C"
    assert "Traceback" not in training.output
    assert not (tmp_path / "run" / "model.pt").exists()


def test_a_closed_terminal_stops_a_training_that_saves(tmp_path):
    disturbance = ("train_steps", 2000, (signal.SIGHUP,))
    stopped = Training(tmp_path / "run", "3", "--verbose", disturbance=disturbance, before=close_terminal)
    assert stopped.code == 128 + signal.SIGHUP
    assert torch.load(tmp_path / "run" / "model.pt", weights_only=True)["training"]["step"] > 0


def test_a_training_that_ignores_hang_ups_goes_on(tmp_path):
    disturbance = ("train_steps", 2000, (signal.SIGHUP, signal.SIGTERM))
    training = Training(tmp_path / "run", "3", disturbance=disturbance, before=ignore_hang_ups)
    assert training.code == 128 + signal.SIGTERM


def test_a_training_without_its_terminal_goes_on_to_its_end(tmp_path, undisturbed):
    training = Training(tmp_path / "run", "5", "--verbose", before=close_terminal)
    assert training.code == 1  # its result could not be printed
    assert result_of(tmp_path / "run") == undisturbed("5")[:2]


@pytest.mark.parametrize("variant", ["4"])
def test_a_disk_that_fills_up_is_one_line_and_leaves_the_files_as_they_were(tmp_path, variant):
    path = tmp_path / "run"
    stop = ("train_steps", 2000, (signal.SIGTERM,))
    assert Training(path, variant, disturbance=stop).code == 128 + signal.SIGTERM
    model = (path / "model.pt").read_bytes()
    training = Training(path, variant, file_size=len(model) // 2)
    assert training.code == 1
    assert "File too large" in training.output.splitlines()[-1]
    assert "Traceback" not in training.output
    assert (path / "model.pt").read_bytes() == model
    assert sorted(file.name for file in path.iterdir()) == [".lock", "history.json", "model.pt"]
    json.loads((path / "history.json").read_text())
    assert Training(path, variant).code == 0


# From here on in this process

TRAIN = ("--train", "--setting", 3, *SMALL, "--data", 0)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple:
    """Options of a small data set: 3 tasks, and 4 steps an epoch in setting 5."""
    return "--data", write_data(tmp_path_factory.mktemp("small") / "own.npz", [16, 8, 8]), "--batch_size", 8


@pytest.fixture(scope="module")
def summed(small) -> tuple:
    """A training of setting 5 on it."""
    return "--train", "--setting", 5, *small


def test_raising_the_epochs_of_a_finished_run_is_as_if_it_had_never_ended(program, summed, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    recipe = ("--momentum", 0.9)
    once = program(*summed, *recipe, "--epochs", 3, "--save_model", "--save_history", "--save_path", whole)
    for epochs in (1, 3):
        last = program(
            *summed, *recipe, "--epochs", epochs, "--resume", "--save_history", "--save_path", parts
        )
        assert last.code == 0
    assert result_of(parts) == result_of(whole)
    assert last.accuracy == once.accuracy


def test_another_number_of_epochs_is_refused_where_the_learning_rate_follows_it(program, summed, tmp_path):
    options = (*summed, "--schedule", "cosine", "--resume", "--save_path", tmp_path)
    assert program(*options, "--epochs", 1).code == 0
    assert "--epochs 1, not --epochs 2" in error_line(program(*options, "--epochs", 2))


@pytest.mark.parametrize("with_model", [True, False])
def test_a_finished_run_is_printed_again_and_nothing_is_written(program, summed, tmp_path, with_model):
    options = (*summed, "--epochs", 2, "--resume", "--save_history", "--save_path", tmp_path)
    first = program(*options)
    if not with_model:
        (tmp_path / "model.pt").unlink()
        (tmp_path / ".lock").unlink()
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()}
    again = program(*options)
    assert again.code == 0
    assert again.out == first.out
    assert first.err.splitlines()[-2] in again.err
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()} == before


def test_a_finished_run_without_its_model_cannot_be_extended(program, summed, tmp_path):
    options = (*summed, "--resume", "--save_history", "--save_path", tmp_path)
    program(*options, "--epochs", 1)
    (tmp_path / "model.pt").unlink()
    before = (tmp_path / "history.json").read_bytes()
    assert "model.pt" in error_line(program(*options, "--epochs", 2))
    assert (tmp_path / "history.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "history.json"]


def test_an_unfinished_history_without_a_model_is_begun_anew(program, summed, tmp_path):
    options = (*summed, "--resume", "--save_history", "--epochs", 2, "--save_path")
    program(*options, tmp_path / "whole")
    program(*options, tmp_path / "run")
    path = tmp_path / "run" / "history.json"
    history = json.loads(path.read_text())
    history |= {"finished": False, "epochs": history["epochs"][:1]}
    path.write_text(json.dumps(history))
    (tmp_path / "run" / "model.pt").unlink()
    assert program(*options, tmp_path / "run").code == 0
    assert result_of(tmp_path / "run") == result_of(tmp_path / "whole")
    assert len(json.loads(path.read_text())["sessions"]) == 1


def test_a_run_that_ended_between_its_last_two_writings_gets_its_history(program, summed, tmp_path):
    options = (*summed, "--resume", "--save_history", "--epochs", 2, "--save_path", tmp_path)
    program(*options)
    expected = result_of(tmp_path)
    path = tmp_path / "history.json"
    history = json.loads(path.read_text())
    path.write_text(json.dumps(history | {"finished": False, "epochs": history["epochs"][:1]}))
    model = (tmp_path / "model.pt").read_bytes()
    assert program(*options).code == 0
    assert result_of(tmp_path) == expected
    assert (tmp_path / "model.pt").read_bytes() == model


class Watching(StopSignals):
    """Notes after each step how many epochs the model in a directory has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.seen = path, set()

    def check(self) -> None:
        if (self.path / "model.pt").exists():
            state = torch.load(self.path / "model.pt", weights_only=True)["training"]
            self.seen.add(len(state["epochs"]))
        super().check()


@pytest.mark.parametrize(("interval", "writings"), [(0, {1, 2}), (3600, set())])
def test_the_model_is_written_at_the_end_and_before_when_it_is_due(tmp_path, small, interval, writings):
    given = {"setting": 5, "data": small[1], "batch_size": 8, "epochs": 3}
    watching = Watching(tmp_path)
    train(make_run("train", given | {"save_path": tmp_path, "save_model": True}), watching, NARROW, interval)
    assert watching.seen == writings | {3}  # the last when it is scored as trained


def test_resuming_without_a_file_starts_anew_and_says_so(program, summed, tmp_path):
    first = program(*summed, "--epochs", 1, "--resume", "--save_path", tmp_path)
    assert first.code == 0
    assert "starting from the beginning" in first.err
    assert (tmp_path / "model.pt").exists()


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A directory with a model and a history of setting 6 on CIFAR-10's stand-in."""
    import main

    path = tmp_path_factory.mktemp("saved")
    argv = [
        "--train",
        "--setting",
        6,
        *SMALL,
        "--data",
        0,
        "--epochs",
        2,
        "--save_model",
        "--save_path",
        path,
    ]
    assert main.main([str(argument) for argument in argv], network=NARROW) == 0
    return path


def test_files_that_are_links_stay_links_when_a_run_goes_on_or_is_replaced(program, tmp_path):
    options = ("--train", "--setting", 5, "--data", write_data(tmp_path / "own.npz", [16, 16]))
    options += ("--batch_size", 8, "--save_history", "--save_path", tmp_path / "run")
    assert program(*options, "--resume", "--epochs", 1).code == 0
    (tmp_path / "large").mkdir()
    for name in ("model.pt", "history.json"):
        (tmp_path / "run" / name).rename(tmp_path / "large" / name)
        (tmp_path / "run" / name).symlink_to(tmp_path / "large" / name)
    for epochs, how in ((2, ("--resume",)), (1, ("--overwrite", "--save_model"))):
        assert program(*options, *how, "--epochs", epochs).code == 0
        assert len(json.loads((tmp_path / "large" / "history.json").read_text())["epochs"]) == epochs
        content = torch.load(tmp_path / "large" / "model.pt", weights_only=True)
        assert len(content["training"]["epochs"]) == epochs
        assert all((tmp_path / "run" / name).is_symlink() for name in ("model.pt", "history.json"))
    assert sorted(path.name for path in (tmp_path / "large").iterdir()) == ["history.json", "model.pt"]


@pytest.mark.parametrize("option", ["--save_model", "--save_history"])
@pytest.mark.parametrize("there", ["model.pt", "history.json"])
def test_another_run_is_never_overwritten_unless_asked_for(program, summed, tmp_path, option, there):
    (tmp_path / there).write_text("mine")
    refused = program("--train", "--data_path", tmp_path / "none", option, "--save_path", tmp_path)
    line = error_line(refused)
    assert refused.err.count("\n") == 1
    assert all(word in line for word in ("--resume", "--overwrite", "--save_path", there))
    assert (tmp_path / there).read_text() == "mine"
    assert not (tmp_path / "none").exists()
    replaced = program(*summed, "--epochs", 1, option, "--overwrite", "--save_path", tmp_path)
    assert replaced.code == 0
    written = {"--save_model": "model.pt", "--save_history": "history.json"}[option]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", written]
    assert (tmp_path / written).read_bytes() != b"mine"


def test_what_is_to_be_replaced_stays_until_the_new_training_starts(program, saved, tmp_path):
    (tmp_path / "model.pt").write_text("mine")
    options = ("--overwrite", "--save_model", "--save_path", tmp_path, "--data_path", tmp_path / "model.pt")
    assert program("--train", "--data", 0, *options).code == 1  # no data set is to be found there
    assert (tmp_path / "model.pt").read_text() == "mine"


def test_a_training_that_saves_nothing_minds_no_other_run(program, summed, saved):
    before = (saved / "model.pt").read_bytes()
    assert program(*summed, "--epochs", 1, "--save_path", saved).code == 0
    assert program(*summed, "--epochs", 1, "--overwrite", "--save_path", saved).code == 0
    assert (saved / "model.pt").read_bytes() == before


@pytest.mark.parametrize(
    "options",
    [
        {"--setting": (3,)},
        {"--data": (1,), "--setting": (3,)},
        {"--setting": (2,), "--task": (1,)},
        {"--seed": (1,), "--lr": (0.2,)},
        {"--batch_size": (64,), "--image_size": (16,)},
        {"--weights": (1,) * 10},
        {"--precision": ("bf16",)},
        {"--momentum": (0.5,), "--weight_decay": (0.1,), "--schedule": ("cosine",), "--validation": (0.5,)},
    ],
    ids=lambda options: " ".join(options),
)
def test_options_that_contradict_the_file_are_refused_each_by_name(program, saved, options):
    before = (saved / "model.pt").read_bytes()
    given = {"--setting": (6,), "--data": (0,), "--image_size": (8,)} | options
    argv = [argument for name, values in given.items() for argument in (name, *values)]
    refused = program("--train", "--resume", "--synthetic", "--epochs", 3, "--save_path", saved, *argv)
    line = error_line(refused)
    assert all(name in line for name in options)
    assert (saved / "model.pt").read_bytes() == before


def test_a_history_of_other_options_is_refused(program, summed, tmp_path):
    program(*summed, "--epochs", 1, "--save_history", "--save_path", tmp_path)
    before = (tmp_path / "history.json").read_bytes()
    refused = program(*summed, "--epochs", 1, "--lr", 0.3, "--resume", "--save_path", tmp_path)
    assert "--lr 0.1, not --lr 0.3" in error_line(refused)
    assert (tmp_path / "history.json").read_bytes() == before
    assert not (tmp_path / "model.pt").exists()


def test_real_images_after_generated_ones_are_refused(program, saved):
    refused = program(
        "--train", "--resume", "--setting", 6, "--data", 0, "--image_size", 8, "--save_path", saved
    )
    assert "--synthetic" in error_line(refused)


@pytest.mark.parametrize("left", ["model.pt", "history.json"])
def test_fewer_epochs_than_are_done_are_refused(program, summed, tmp_path, left):
    options = (*summed, "--save_model", "--save_history", "--save_path", tmp_path)
    program(*options, "--epochs", 2)
    ({"model.pt", "history.json"} - {left}).pop()
    (tmp_path / ({"model.pt": "history.json", "history.json": "model.pt"}[left])).unlink()
    refused = program(*summed, "--resume", "--epochs", 1, "--save_path", tmp_path)
    assert "--epochs 2" in error_line(refused)


@pytest.mark.parametrize("option", ["--save_model", "--save_history", "--resume"])
def test_a_save_path_that_is_a_file_is_refused_before_training(program, tmp_path, option):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        refused = program(*TRAIN, option, "--save_path", path)
        assert str(path) in error_line(refused)
        assert refused.err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_save_path_that_cannot_be_written_is_refused_before_training(program):
    refused = program(*TRAIN, "--save_model", "--save_path", "/proc/self/nowhere")
    assert "/proc/self" in error_line(refused)
    assert refused.err.count("\n") == 1


@pytest.mark.parametrize("momentum", [0, 0.9])
def test_no_room_for_the_model_and_the_optimiser_is_refused_before_training(
    program, summed, tmp_path, monkeypatch, momentum
):
    program(*summed, "--epochs", 1, "--momentum", momentum, "--save_model", "--save_path", tmp_path / "first")
    size = (tmp_path / "first" / "model.pt").stat().st_size
    usage = type("usage", (), {"free": size - 1})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    options = ("--save_model", "--overwrite", "--momentum", momentum, "--epochs", 1)
    before = (tmp_path / "first" / "model.pt").read_bytes()
    refused = program(*summed, *options, "--save_path", tmp_path / "first")
    assert "MB" in error_line(refused)
    assert (tmp_path / "first" / "model.pt").read_bytes() == before
    usage.free = 1.2 * size + 2_000_000
    assert program(*summed, *options, "--save_path", tmp_path / "first").code == 0


@pytest.mark.parametrize(
    ("setting", "named"), [(0, "all classes"), (2, "class 1"), (3, " is not finite"), (5, "all tasks")]
)
def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_no_file(program, small, tmp_path, setting, named):
    task = ("--task", 1) if setting == 2 else ()
    options = ("--setting", setting, *task, *small, "--lr", 1e30)
    line = error_line(program("--train", "--epochs", 3, "--save_model", *options, "--save_path", tmp_path))
    assert "epoch 1" in line
    assert "1e+30" in line
    assert named in line
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize("before", [let_nobody_read, close_streams])
def test_a_training_whose_output_nobody_reads_still_saves_its_model(tmp_path, before):
    training = Training(tmp_path / "run", "2", "--verbose", "--save_model", before=before)
    assert "Traceback" not in training.output
    assert (tmp_path / "run" / "model.pt").exists()


def test_a_signal_that_a_library_swallows_is_the_cause_of_what_follows(program, tmp_path):
    def network(*_):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException as error:  # as in an import that C code has asked for
            raise AttributeError("half of a module") from error

    data = write_data(tmp_path / "own.npz", [16, 16])
    stopped = program("--train", "--data", data, "--batch_size", 8, network=network)
    assert stopped.code == 128 + signal.SIGTERM
    assert stopped.err.splitlines()[-1] == "main.py: stopped by SIGTERM"


def test_results_that_cannot_be_written_are_found_before_training(tmp_path):
    argv, output = [*map(str, TRAIN)], tmp_path / "output"
    process = PROCESSES.Process(target=child, args=(argv, str(output), None, None, fill_output))
    process.start()
    process.join()
    assert process.exitcode == 1
    assert output.read_text().startswith("main.py: error: standard output cannot be written to")
    assert output.read_text().count("\n") == 1


@pytest.mark.parametrize("name", ["model.pt", "history.json"])
@pytest.mark.parametrize("option", ["--overwrite", "--resume"])
def test_what_is_in_the_way_of_a_file_is_found_before_training(program, tmp_path, name, option):
    (tmp_path / name).mkdir()
    refused = program(*TRAIN, "--save_model", "--save_history", option, "--save_path", tmp_path)
    assert str(tmp_path / name) in error_line(refused)
    assert refused.err.count("\n") == 1


@pytest.mark.parametrize(
    "training",
    [{"epochs": [1]}, {"epochs": [{}]}, {"epochs": [{"epoch": 1, "loss": 1.0, "accuracy": [1.0]}]}],
    ids=str,
)
def test_resuming_from_records_that_are_none_is_refused(program, saved, tmp_path, training):
    content = torch.load(saved / "model.pt", weights_only=True)
    content["training"] |= training
    torch.save(content, tmp_path / "model.pt")
    before = (tmp_path / "model.pt").read_bytes()
    options = ("--setting", 6, *SMALL, "--data", 0, "--epochs", 3, "--save_path", tmp_path)
    said = error_line(program("--train", "--resume", *options))
    assert "model.pt is damaged or edited: training.epochs" in said
    assert (tmp_path / "model.pt").read_bytes() == before


def test_a_model_of_other_code_is_resumed_and_evaluated_and_said_so(program, saved, tmp_path):
    content = torch.load(saved / "model.pt", weights_only=True)
    torch.save(content | {"code": "0123456789ab"}, tmp_path / "model.pt")
    options = ("--setting", 6, *SMALL, "--data", 0, "--save_path", tmp_path)
    for mode in (("--eval",), ("--train", "--resume", "--epochs", 2)):
        done = program(*mode, *options)
        assert done.code == 0
        assert f"0123456789ab, this is {content['code']}" in done.err
    assert (
        "other code" not in program("--eval", "--setting", 6, *SMALL, "--data", 0, "--save_path", saved).err
    )


@pytest.mark.parametrize("option", ["--save_model", "--save_history", "--resume"])
def test_a_second_training_in_the_same_directory_is_refused(program, summed, tmp_path, option):
    with reserved(tmp_path):
        refused = program(*summed, "--epochs", 1, option, "--save_path", tmp_path)
    assert "another training" in error_line(refused)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert program(*summed, "--epochs", 1, option, "--save_path", tmp_path).code == 0


@pytest.mark.parametrize("mode", [("--eval",), ("--train", "--resume")], ids=["eval", "resume"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"text", "not a model"),
        (WHOLE[: len(WHOLE) // 2], "damaged"),
        (bytes_of(Harm()), "code"),
        (altered(format=FORMAT + 1), "newer"),
        (altered(format=1), "version 1.1 or before"),
        (altered(options=None), "damaged or edited: options"),
    ],
    ids=["empty", "text", "truncated", "code", "newer", "older", "malformed"],
)
def test_a_file_that_is_no_model_is_refused_and_left_as_it_is(
    program, tmp_path, monkeypatch, mode, content, says
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.pt").write_bytes(content)
    refused = program(*mode, "--setting", 3, *SMALL, "--data", 0, "--save_path", tmp_path)
    assert says in error_line(refused)
    assert (tmp_path / "model.pt").read_bytes() == content
    assert {path.name for path in tmp_path.iterdir()} <= {
        "model.pt",
        ".lock",
    }  # the code would have made a file


@pytest.mark.parametrize("content", ["", "[]", '{"format": 99}', '{"format": 2, "options": {}}'])
def test_a_file_that_is_no_history_is_not_gone_on_from(program, summed, tmp_path, content):
    (tmp_path / "history.json").write_text(content)
    assert "history.json" in error_line(program(*summed, "--resume", "--save_path", tmp_path))
    assert (tmp_path / "history.json").read_text() == content


def test_a_missing_model_is_refused_and_says_how_to_make_one(program, tmp_path):
    options = ("--setting", 3, *SMALL, "--data", 0, "--save_path", tmp_path)
    assert "--save_model" in error_line(program("--eval", *options))


@pytest.mark.parametrize(
    ("data", "file"),
    [
        (0, "cifar-10-python.tar.gz"),
        (0, "cifar-10-batches-py/data_batch_3"),
        (1, "cifar-100-python/train"),
        (2, "omniglot-py/images_evaluation.zip"),
    ],
)
def test_a_damaged_download_is_named(program, tmp_path, no_network, data, file):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(b"half of it")
    refused = program("--train", "--data", data, "--data_path", tmp_path)
    assert f"{tmp_path / file} is damaged" in error_line(refused)
    assert "--synthetic" in refused.err
    assert (tmp_path / file).read_bytes() == b"half of it"
