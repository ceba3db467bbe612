"""Studies: reading lists, running them, handing them to SLURM.

Lists are refused; runs fail, are stopped, and end.
"""

import errno
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from helpers import TOP, copy_program, write_data, write_labels

from main import main
from running import machine
from storage.files import HISTORY, MODEL
from storage.locks import LOCK
from studies import study

LISTS = sorted((TOP / "studies").glob("*.txt"))


RUN, SLURM = (TOP / "studies" / name for name in ("run.sh", "slurm.sh"))


def launch(*command: object, env: dict | None = None, sighup=signal.SIG_DFL, **how) -> subprocess.Popen:
    """Start a program in a process group of its own.

    Args:
        command: its words.
        env: variables that it has besides those of the tests.
        sighup: what it does at first about this signal, whatever the tests do.
        how: as for Popen.
    """
    return subprocess.Popen(
        list(map(str, command)),
        env=os.environ | {"PYTHON": sys.executable, "PYTHONUNBUFFERED": ""} | (env or {}),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, sighup),
        start_new_session=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | how,
    )


def finish(*command: object, **how) -> subprocess.CompletedProcess:
    """Run a program to its end."""
    process = launch(*command, **how)
    out, err = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def start(path: Path, *words: str, script: Path = RUN, **how) -> subprocess.Popen:
    """Start studies/run.sh on a list, saving beside it, without the rights of root over permissions."""
    plain = []
    if os.geteuid() == 0:
        rights = "-dac_override,-dac_read_search"
        plain = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]
    return launch(*plain, script, path, *words, "--save_path", path.parent / "study", **how)


def wait_for(file: Path, process: subprocess.Popen) -> None:
    """Wait until a study has written a file."""
    while not file.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def wait_for_end(pid: int) -> None:
    """Wait until a process has ended that is not a child of this one."""
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.02)


def history_in(directory: Path) -> dict:
    """The history of a run."""
    return json.loads((directory / HISTORY).read_text())


def children(pid: int) -> list[int]:
    """Process numbers of a process's children."""
    stats = [path.read_text() for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]
    return [int(stat.split()[0]) for stat in stats if int(stat.rpartition(")")[2].split()[1]) == pid]


def server_of(pid: int) -> int:
    """Process number of the server that starts a study's runs."""
    (server,) = (c for c in children(pid) if b"forkserver" in Path(f"/proc/{c}/cmdline").read_bytes())
    return server


def refusal(answer: subprocess.CompletedProcess, code: int) -> str:
    """The one line with which a program has refused to do anything."""
    assert (answer.returncode, answer.stderr.count("\n")) == (code, 1), answer
    return answer.stderr


def write_script(path: Path, text: str) -> Path:
    """Write a shell script that can be started."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


OPTIONS = "--setting 2 --task 0 --synthetic --epochs 2"
"""Of a small run; reading them takes no NumPy."""


NO_MATPLOTLIB = "raise ImportError('there is none', name='matplotlib')"

LIBRARIES = {
    "torch/__init__.py": """
import os
threads = os.environ["OMP_NUM_THREADS"]  # read when it is imported, as by PyTorch
""",
    "torch/_dynamo.py": "",
    "torchvision/__init__.py": "",
    "torchvision/datasets.py": "",
    "matplotlib.py": NO_MATPLOTLIB,
}

SESSION = """
import time

from running.stopping import Stopped
from storage.files import FILES
from storage.history import History, describe, read_history, write_history


class Session:
    def __init__(self, run, signals, network, save_interval, has_history):
        self.run, self.signals, self.has_history = run, signals, has_history
        self.model, self.history = (run.save_path / name for name in FILES)

    def train(self):
        run, score = self.run, [0.5]
        epochs = read_history(self.history, run.table).epochs if self.has_history else []
        task = list(run.spec.tasks)[run.task]
        start = {"epoch": len(epochs), "step": 0, "code": "none", "environment": {}}
        sizes = {"encoder": 1, "heads": 1}
        fixed = (run.recorded, describe(run.spec), [start], [task], score, [2], sizes, {})
        with self.signals.deferred():
            while len(epochs) < run.epochs:
                time.sleep(0.03)
                epoch = {"epoch": len(epochs) + 1, "loss": 1.0}
                epochs.append(epoch | {"accuracy": score, "balanced_accuracy": score})
                write_history(self.history, History(*fixed, epochs, len(epochs) == run.epochs))
                try:
                    self.signals.check()
                except Stopped as stopped:
                    self.model.write_text(str(len(epochs)))
                    raise Stopped(stopped.number, ": saved") from None
"""

RECORD = """
import json, os, sys
if __name__ == "__main__":
    loaded = [name for name in ("torch", "torchvision.datasets", "options", "storage") if name in sys.modules]
    import torch
    print(json.dumps([dict(os.environ), loaded, torch.threads, sys.argv, sys.path[0], os.getcwd()]))
    sys.exit(7)
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the program, with libraries that take no time to import and do nothing."""
    copy = copy_program(tmp_path_factory.mktemp("program") / "the copy")
    for name, text in LIBRARIES.items():
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(text)
    return copy


@pytest.fixture(scope="module")
def counting(copy):
    """run.sh of a copy of the program, whose runs count epochs in place of training.

    All else is the program's: the command line, the lock of the directory, resuming, stopping at a signal,
    the history, the exit code and the report. A run writes its model only when it is stopped.
    """
    (copy / "running" / "session.py").write_text(SESSION)
    return copy / "studies" / RUN.name


@pytest.fixture
def recorder(copy, tmp_path):
    """run.sh of a copy of the program, whose runs only print what they were started with and exit with 7."""
    shutil.copytree(copy, tmp_path / "the copy")
    (tmp_path / "the copy" / "main.py").write_text(RECORD + (TOP / "main.py").read_text())
    return tmp_path / "the copy" / "studies" / RUN.name


def test_a_run_that_fails_changes_no_other_and_what_is_finished_is_not_run_again(tmp_path, capsys):
    path, directory = tmp_path / "list.txt", tmp_path / "study"
    data = write_data(tmp_path / "own.npz", [16, 16])
    options = f"--setting 2 --task 0 --data {data} --batch_size 8 --epochs 1"
    names = ["before", "bad", "closed", "file", "log", "after"]
    path.write_text("# a comment\n\n" + "".join(f"{name} {options}\n" for name in names))
    for name in ("bad", "closed", f"log/{study.LOG}", "report.csv"):
        (directory / name).mkdir(parents=True)
    (directory / "bad" / "history.json").write_text("none")
    (directory / "closed").chmod(0)
    (directory / "file").touch()
    (tmp_path / "without" / "matplotlib.py").parent.mkdir()
    (tmp_path / "without" / "matplotlib.py").write_text(NO_MATPLOTLIB)
    # Threads that wait for each other by spinning would take the cores from other tests.
    env = {"PYTHONPATH": str(tmp_path / "without"), "OMP_WAIT_POLICY": "PASSIVE"}
    first = start(path, "1", "--delete_models", "--seed", "3", env=env)
    _, err = first.communicate()
    (directory / "closed").chmod(0o700)
    (directory / "report.csv").rmdir()
    assert first.returncode == 1
    assert "Traceback" not in err
    assert "report.csv" in err  # the report has failed, too
    heading, *failed = err.splitlines()[-5:]
    assert heading == "4 of 6 runs failed:"
    assert [line.split(":")[0].strip() for line in failed] == ["bad", "closed", "file", "log"]
    assert "bad: exit code 1: main.py: error: " in failed[0]
    assert all(str(directory) in line for line in failed)
    assert (directory / "bad" / "history.json").read_text() == "none"
    before, after = (history_in(directory / name) for name in ("before", "after"))
    assert before["finished"]
    assert after["finished"]
    assert before["options"]["seed"] == 3
    assert before["sessions"][0]["environment"]["threads"] == machine.num_cores()
    assert [e["loss"] for e in before["epochs"]] == [e["loss"] for e in after["epochs"]]
    assert not list(directory.rglob("model.pt"))
    saving = ["--save_history", "--save_path", str(tmp_path / "alone")]
    assert main(["--train", *options.split(), "--seed", "3", *saving]) == 0
    alone = history_in(tmp_path / "alone")["epochs"]  # of the program, started as it is
    assert before["epochs"][0]["loss"] == pytest.approx(alone[0]["loss"], rel=1e-3)

    path.write_text(f"before {options}\nafter {options}\n")
    stats = {
        file: file.stat().st_mtime_ns for name in ("before", "after") for file in (directory / name).iterdir()
    }
    write_script(tmp_path / "bin" / "python", "exit 9")
    env["PATH"] = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    second = start(path, "--seed", "3", env=env)
    out, err = second.communicate()
    assert second.returncode == 0, err
    assert "2 single task" in out  # the report
    assert {file: file.stat().st_mtime_ns for file in stats} == stats

    for seed, left in (("3", 0), ("4", 2)):  # with other options it is another study, and nothing is finished
        capsys.readouterr()
        words = [str(path), "--save_path", str(directory), "--seed", seed]
        assert study.main([*words, "--commands"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == left


def test_a_study_that_is_stopped_has_saved_and_is_refused_to_a_second_start(tmp_path, counting):
    path, run = tmp_path / "list.txt", tmp_path / "study" / "run"
    path.write_text(f"run {OPTIONS} --epochs 1000000\n")
    first = start(path, script=counting)
    wait_for(run / HISTORY, first)
    second = start(path, script=counting)
    _, err = second.communicate()
    assert second.returncode == 1
    assert err.startswith("studies/run.sh: error: another studies/run.sh is at work")
    assert err.count("\n") == 1
    first.send_signal(signal.SIGHUP)
    _, err = first.communicate()
    assert first.returncode == 129
    assert err.splitlines()[-1] == "0 of 1 runs are finished, the others saved: the same command goes on"
    history = history_in(run)
    assert not history["finished"]
    assert (run / MODEL).read_text() == str(len(history["epochs"]))
    assert "stopped by SIGTERM" in (run / study.LOG).read_text()


def test_a_study_under_nohup_and_without_flock_survives_a_killed_run_and_its_terminal(tmp_path, counting):
    (tmp_path / "sitecustomize.py").write_text(
        "import errno, fcntl\ndef flock(*_): raise OSError(errno.ENOSYS, 'no flock')\nfcntl.flock = flock\n"
    )
    path, directory = tmp_path / "list.txt", tmp_path / "study"
    path.write_text("".join(f"{name} {OPTIONS} --epochs 1000000\n" for name in ("killed", "other")))
    env = {"PYTHONPATH": str(tmp_path), "OMP_PROC_BIND": "false"}
    process = start(path, "1", script=counting, sighup=signal.SIG_IGN, env=env)
    wait_for(directory / "killed" / HISTORY, process)
    (run,) = children(server_of(process.pid))
    os.kill(run, signal.SIGKILL)
    history = directory / "other" / HISTORY
    wait_for(history, process)
    os.killpg(process.pid, signal.SIGHUP)
    history.unlink()
    wait_for(history, process)  # of a later epoch
    process.terminate()
    _, err = process.communicate()
    assert process.returncode == 143
    assert (
        "killed: exit code 137: killed by SIGKILL, most often because memory ran out" in err.splitlines()[-1]
    )
    assert "stopped by SIGTERM" in (directory / "other" / study.LOG).read_text()
    assert not (directory / LOCK).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_process_group_stops_each_run_once(tmp_path, counting, number):
    path, directory = tmp_path / "list.txt", tmp_path / "study"
    path.write_text(f"a {OPTIONS} --epochs 1000000\nb {OPTIONS} --epochs 1000000\nc {OPTIONS}\n")
    process = start(path, "2", script=counting)
    for name in "ab":
        wait_for(directory / name / HISTORY, process)
    os.killpg(process.pid, number)
    _, err = process.communicate()
    assert process.returncode == 128 + number
    assert err.splitlines()[-1] == "0 of 3 runs are finished, the others saved: the same command goes on"
    assert "failed" not in err
    for name in "ab":
        assert (directory / name / study.LOG).read_text().count("stopped by SIG") == 1
        assert not history_in(directory / name)["finished"]
        assert (directory / name / MODEL).exists()
    assert not (directory / "c").exists()


def test_runs_that_outlive_a_killed_study_are_left_alone_by_a_second_start(tmp_path, counting):
    path, directory = tmp_path / "list.txt", tmp_path / "study"
    path.write_text(f"long {OPTIONS} --epochs 1000000\n")
    first = start(path, script=counting, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(directory / "long" / HISTORY, first)
    (run,) = children(server_of(first.pid))
    first.kill()
    first.wait()
    path.write_text(f"long {OPTIONS} --epochs 1000000\nother {OPTIONS}\n")
    second = start(path, "1", script=counting)
    _, err = second.communicate()
    assert second.returncode == 1
    heading, failed = err.splitlines()[-2:]
    assert heading == "1 of 2 runs failed:"
    assert "long: exit code 1: main.py: error: another training is writing to" in failed
    assert history_in(directory / "other")["finished"]
    epochs = len(history_in(directory / "long")["epochs"])
    os.kill(run, signal.SIGTERM)
    wait_for_end(run)
    assert int((directory / "long" / MODEL).read_text()) >= epochs


def test_a_killed_server_costs_no_run_what_it_has_trained(tmp_path, counting):
    path, directory = tmp_path / "list.txt", tmp_path / "study"
    path.write_text(f"lost {OPTIONS} --epochs 1000000\nnext {OPTIONS}\n")
    process = start(path, "1", script=counting)
    wait_for(directory / "lost" / HISTORY, process)
    server = server_of(process.pid)
    (run,) = children(server)
    os.kill(server, signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == 1
    heading, failed = err.splitlines()[-2:]
    assert heading == "1 of 2 runs failed:"
    assert "lost: exit code 255: the server that starts the runs was killed" in failed
    assert history_in(directory / "next")["finished"]
    wait_for_end(run)
    assert "stopped by SIGTERM" in (directory / "lost" / study.LOG).read_text()
    assert (directory / "lost" / MODEL).exists()


def test_a_library_that_cannot_be_imported_is_reported_by_each_run(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('libcublas.so.12: cannot open')")
    path = tmp_path / "list.txt"
    path.write_text(f"a {OPTIONS}\nb {OPTIONS}\n")
    process = start(path, "1", env={"PYTHONPATH": str(tmp_path)})
    _, err = process.communicate()
    assert process.returncode == 1
    assert "Traceback" not in err
    for line, name in zip(err.splitlines()[-2:], "ab", strict=True):
        assert f"{name}: exit code 1: main.py: error: torch cannot be imported (OSError: libcublas" in line


def test_messages_that_cannot_be_written_do_not_end_a_study(tmp_path, recorder):
    path = tmp_path / "list.txt"
    path.write_text(f"a {OPTIONS}\nb {OPTIONS}\n")
    closed, stderr = os.pipe()
    os.close(closed)
    process = start(path, "1", script=recorder, stderr=stderr)
    os.close(stderr)
    process.communicate()
    assert process.returncode == 1
    assert len(list(tmp_path.glob("study/*/log.txt"))) == 2


def test_a_model_that_cannot_be_deleted_is_named(tmp_path, capsys):
    (tmp_path / "list.txt").write_text(f"run {OPTIONS}\n")
    entries = study.read_list(tmp_path / "list.txt", tmp_path)
    (tmp_path / "run" / "model.pt").mkdir(parents=True)
    crew = study.Crew(entries, 1, [])
    crew.delete_model(entries[0])
    assert "run: its model stays: cannot use" in capsys.readouterr().err
    assert len(crew.failed) == 1


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_lock_left_behind_on_a_file_system_without_flock_is_named(tmp_path, monkeypatch, capsys, number):
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    path, directory = tmp_path / "list.txt", tmp_path / "study"
    path.write_text(f"run {OPTIONS}\n")
    directory.mkdir()
    (directory / LOCK).touch()
    assert study.main([str(path), "--save_path", str(directory)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"delete {directory / LOCK}" in said
    assert os.listdir(directory) == [LOCK]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_is_the_program_with_its_share_of_the_cores_and_its_gpu(tmp_path, recorder, processes):
    path = tmp_path / "list.txt"
    path.write_text(f"a {OPTIONS}\nb {OPTIONS}\n")
    gpus = write_script(tmp_path / "bin" / "nvidia-smi", "echo 'GPU 0: X'; echo 'GPU 1: X'")
    bindings = dict(zip(study.BINDINGS, ("false", "cores", "0-63", "disabled"), strict=True))
    env = bindings | {"MKL_NUM_THREADS": "7", "CUDA_VISIBLE_DEVICES": "1,0"}
    env["PATH"] = f"{gpus.parent}:{os.environ['PATH']}"
    elsewhere = tmp_path / "elsewhere"  # with files of the names of modules in it
    for name in ("studies/libraries.py", "random.py", "numpy.py"):
        (elsewhere / name).parent.mkdir(parents=True, exist_ok=True)
        (elsewhere / name).write_text("raise SystemExit(9)")
    process = start(path, str(processes), script=recorder, env=env, cwd=elsewhere)
    _, err = process.communicate()
    assert process.returncode == 1
    failed = sorted(line.strip()[: len("a: exit code 7:")] for line in err.splitlines()[-2:])
    assert failed == ["a: exit code 7:", "b: exit code 7:"]
    threads = max(1, machine.num_cores() // processes)
    visible = set()
    for name in "ab":
        command, said = (tmp_path / "study" / name / study.LOG).read_text().splitlines()
        variables, loaded, of_torch, argv, first_path, directory = json.loads(said)
        assert loaded == ["torch", "torchvision.datasets"]  # but nothing of the program
        assert shlex.split(command)[2:] == argv
        assert first_path == str(recorder.parents[1])
        assert directory == str(elsewhere)
        assert variables["MKL_NUM_THREADS"] == variables["OMP_NUM_THREADS"] == of_torch == str(threads)
        assert variables.keys().isdisjoint(study.BINDINGS) == (processes > 1)
        visible.add(variables["CUDA_VISIBLE_DEVICES"])
    assert visible == ({"1", "0"} if processes == 2 else {"1"})


@pytest.mark.parametrize("script", [RUN, SLURM], ids=lambda path: path.stem)
def test_the_scripts_are_found_through_links_from_anywhere_and_by_any_python(tmp_path, script):
    chain, there = tmp_path / "chain", tmp_path / "some where"
    there.mkdir()
    (there / "first").symlink_to(script)
    (there / "second").symlink_to("first")
    chain.symlink_to(os.path.relpath(there / "second", tmp_path))
    there_env = {"PATH": f"{there}:{os.environ['PATH']}", "CDPATH": str(TOP)}
    ways = [
        ((there / "second",), {}),
        (("./chain",), {"cwd": tmp_path, "env": {"CDPATH": str(TOP)}}),
        (("bash", script.name), {"cwd": script.parent, "env": {"CDPATH": str(TOP)}}),
        (("bash", "first"), {"cwd": tmp_path, "env": there_env}),
        ((script,), {"env": {"PYTHON": f"{sys.executable} -OO", "PYTHONSAFEPATH": "1"}}),
    ]
    for command, how in ways:
        answer = finish(*command, "--help", **how)
        assert (answer.returncode, answer.stderr) == (0, "")
        assert "NAME is a list" in answer.stdout


def test_outside_its_environment_a_study_says_so_in_one_line(tmp_path):
    old = f'exec "{sys.executable}" -c "import sys; sys.version_info = (3, 9); $2"'
    says = {
        f"{sys.executable} -I -S": "pip install -r requirements.txt",
        "/nowhere/python": "does not start Python",
        "python '": "does not start Python",
        str(write_script(tmp_path / "old", old)): "does not start Python",
    }
    for python, problem in says.items():
        assert problem in refusal(finish(RUN, "smoke", env={"PYTHON": python}), 1)


@pytest.mark.parametrize("words", [("--help",), ("smoke", "--commands")])
def test_output_that_cannot_be_written_is_an_error(words):
    with open("/dev/full", "w") as full:
        assert "standard output cannot be written" in refusal(finish(RUN, *words, stdout=full), 1)


@pytest.mark.parametrize("number", ["0", "²", "٣", "1.5", "many", "100000000"])
def test_a_number_of_processes_that_is_none_is_refused(tmp_path, capsys, number):
    assert study.main(["smoke", number, "--save_path", str(tmp_path / "study")]) == 2
    said = capsys.readouterr().err
    assert "PROCESSES is a whole number" in said
    assert said.count("\n") == 1


def test_a_list_from_windows_is_read(tmp_path, capsys):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbf# saved by an editor\r\na --setting 3 --synthetic\r\n\r\n")
    assert [entry.name for entry in study.read_list(path, tmp_path)] == ["a"]
    path.write_bytes(b"\xef\xbb\xbfa --setting 3 --synthetic\r\n")
    assert [entry.name for entry in study.read_list(path, tmp_path)] == ["a"]


@pytest.mark.parametrize("word", ["--save_path=~/my study", "--save_path"])
def test_paths_may_begin_with_the_home_directory(tmp_path, monkeypatch, capsys, word):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "list.txt").write_text("a --setting 3 --synthetic\n")
    words = [word] if "=" in word else [word, "~/my study"]
    assert study.main(["~/list.txt", *words, "--commands"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert shlex.split(line)[0] == str(tmp_path / "my study" / "a")


def test_an_empty_path_and_one_that_no_line_can_hold_are_refused(capsys):
    for path, says in (("", "the path is empty"), ("a\nb", "line breaks")):
        assert study.main(["smoke", "--commands", "--save_path", path]) == 2
        refused = capsys.readouterr()
        assert says in refused.err
        assert (refused.out, refused.err.count("\n")) == ("", 1)


GPUS = "GPU 0: Model X (UUID: GPU-aa11)\nGPU 1: Model X (UUID: GPU-bb22)\n  MIG 1g (UUID: MIG-cc33)"


@pytest.mark.parametrize(
    ("visible", "listed", "found"),
    [
        (None, GPUS, ["0", "1"]),
        (None, "", []),
        (None, "NVIDIA-SMI has failed", []),
        ("", GPUS, []),
        ("-1", GPUS, []),
        ("NoDevFiles", GPUS, []),
        ("1", GPUS, ["1"]),
        ("1, 0", GPUS, ["1", "0"]),
        ("0,-1,1", GPUS, ["0"]),
        ("0,5,1", GPUS, ["0"]),
        ("0,0", GPUS, []),
        ("GPU-bb,GPU-aa11", GPUS, ["GPU-bb", "GPU-aa11"]),
        ("MIG-cc33,GPU-dd", GPUS, ["MIG-cc33"]),
        ("-1", "", []),
        ("0,-1,1", "", ["0"]),
        ("3,GPU-dd", "", ["3", "GPU-dd"]),
    ],
)
def test_gpus_count_as_cuda_counts_them(tmp_path, monkeypatch, visible, listed, found):
    write_script(tmp_path / "nvidia-smi", f"cat <<'EOT'\n{listed}\nEOT")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert study.find_gpus(["--epochs", "1"]) == found
    assert study.find_gpus(["--device=cpu"]) == []


def test_as_many_runs_go_on_at_once_as_there_are_gpus_or_as_cores_and_memory_allow(tmp_path, monkeypatch):
    assert study.default_processes(["0", "1", "2"]) == 3
    monkeypatch.setattr(machine, "CONTROL_GROUPS", tmp_path)
    (tmp_path / "memory.current").write_text("0")
    for limit, processes in ((10**8, 1), (3 * 10**9, 1), (10**15, machine.num_cores())):
        (tmp_path / "memory.max").write_text(str(limit))
        assert study.default_processes([]) == processes


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "has no run"),
        ("a --setting 3\nb --setting 3 --epocs 2", "line 2 (b): unrecognized arguments: --epocs 2"),
        ("a --setting 2", "line 1 (a): --setting 2 needs --task"),
        ("a --setting 3\n\nA --setting 4", "line 3 (A): there is a run of this name already"),
        ("../a --setting 3", "line 1 (../a)"),
        ("--setting 3", "line 1 (--setting)"),
        ("a --data 'my file.npz'", "quotes"),
        ("a --save_path elsewhere", "--save_path"),
        ("a --save_path=elsewhere", "--save_path"),
        ("a --overwrite", "--overwrite"),
        ("a --report", "--report"),
        ("a --help", "line 1 (a)"),
        ("a --data missing.npz", "missing.npz"),
    ],
)
def test_a_malformed_list_is_refused_in_one_line_before_anything_starts(tmp_path, capsys, content, says):
    path = tmp_path / "list.txt"
    path.write_text(content)
    assert study.main([str(path), "--save_path", str(tmp_path / "study")]) == 2
    refused = capsys.readouterr()
    assert says in refused.err
    assert refused.err.count("\n") == 1
    assert refused.out == ""
    assert os.listdir(tmp_path) == ["list.txt"]


def test_an_unknown_list_is_answered_with_those_that_there_are(capsys):
    assert study.main(["cifra100"]) == 2
    said = capsys.readouterr().err
    assert all(path.stem in said for path in LISTS)


@cache
def runs_of(name: str) -> list[study.Entry]:
    """The runs of a list of studies/."""
    return study.read_list(study.find_list(name), Path("study"))


@pytest.mark.parametrize("name", [path.stem for path in LISTS])
def test_no_two_runs_of_a_list_are_the_same(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = np.stack([np.arange(400) % 4, np.arange(400) % 2], axis=1)
    write_labels(tmp_path / "unlike.npz", labels, labels[:40])  # a file that a list asks for
    entries = runs_of(name)
    options = {str(entry.run.changed(save_path=None).recorded) for entry in entries}
    assert len(options) == len(entries)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "omniglot"])
def test_ways_that_take_as_many_steps_count_as_as_much_work(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where nothing is finished
    runs = runs_of(name)
    of_seed = [entry for entry in runs if (entry.run.seed, entry.run.epochs) == (0, runs[0].run.epochs)]
    work = {entry.name: entry.work() for entry in of_seed if entry.run.setting != 2}
    work["2-seed0"] = sum(entry.work() for entry in of_seed if entry.run.setting == 2)
    assert len(set(work.values())) == 1, work


@pytest.fixture
def slurm(tmp_path):
    """Hand a study of one run in, to programs that stand for SLURM's: slurm(directory, queue="7 /a/study").

    Or any other study, by the words of its command.

    What sbatch was given is in `words`, a line each, and `task.sh` then.
    """
    write_script(tmp_path / "bin" / "sbatch", f'cd "{tmp_path}"; cat >task.sh; printf "%s\\n" "$@" >words')
    write_script(tmp_path / "bin" / "squeue", f'cat "{tmp_path}/queue"')
    write_script(tmp_path / "bin" / "scontrol", 'echo "MaxArraySize = 1001"')
    (tmp_path / "list.txt").write_text(f"run {OPTIONS}\n")

    def slurm(directory: object, queue: str = "", script: Path = SLURM, words: Sequence = (), **env: str):
        (tmp_path / "queue").write_text(queue)
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        words = words or [tmp_path / "list.txt", "--time=1", "--", f"--save_path={directory}"]
        return finish(script, *words, env={"PATH": path} | env, cwd=tmp_path)

    return slurm


def test_a_study_is_handed_to_slurm_and_found_in_the_queue_whatever_its_path(tmp_path, slurm):
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("link/my runs/acc50%a/%%", "a&'\"$(b) "):
        answer = slurm(name, CDPATH=str(tmp_path))
        assert answer.returncode == 0, answer
        place = str((tmp_path / name).resolve())
        words = (tmp_path / "words").read_text().splitlines()
        assert f"--output={place.replace('%', '%%')}/slurm-%A_%a.log" in words
        assert f"--comment={place}" in words
        assert "--time=1" in words
        said = refusal(slurm(name, queue=f"5 (null)\n6 {place}/other\n77 {place}\n"), 1)
        assert "in the queue already as job 77" in said


def test_the_command_of_the_docs_hands_every_run_of_its_study_in(tmp_path, slurm):
    page = (TOP / "docs" / "clusters.md").read_text()
    (command,) = re.findall(r"^```\n(.+)\n```$", page, re.MULTILINE)
    script, *words = shlex.split(command)
    answer = slurm("", script=TOP / script, words=words)
    assert answer.returncode == 0, answer
    given = (tmp_path / "words").read_text().splitlines()
    assert set(words[1 : words.index("--")]) <= set(given)
    added = re.escape(" ".join(words[words.index("--") + 1 :]))
    runs = re.findall(rf"^\d+\) set -- .* {added}", (tmp_path / "task.sh").read_text(), re.MULTILINE)
    assert len(runs) == len(runs_of(words[0]))


@pytest.mark.parametrize("name", ["a\\b", "a\n", ""])
def test_a_path_that_slurm_cannot_take_is_refused_before_anything_is_handed_in(tmp_path, slurm, name):
    refusal(slurm(name), 2)
    assert not (tmp_path / "words").exists()


@pytest.mark.parametrize("attempts", ["0", "²", "٣", "-1", "9" * 20])
def test_a_number_of_attempts_that_is_none_is_refused(tmp_path, slurm, attempts):
    assert "ATTEMPTS is a whole number" in refusal(slurm("study", ATTEMPTS=attempts), 2)
    assert not (tmp_path / "words").exists()


def test_a_queue_that_cannot_be_asked_is_not_taken_for_empty(tmp_path, slurm):
    write_script(tmp_path / "bin" / "squeue", "exit 1")
    refusal(slurm("study"), 1)
    assert not (tmp_path / "words").exists()


def test_a_task_of_slurm_says_what_has_killed_its_run(tmp_path, slurm):
    killed = write_script(tmp_path / "killed", "kill -9 $$")
    python = write_script(tmp_path / "python", f'exec "{sys.executable}" "$@"')
    assert slurm("study", PYTHON=str(python)).returncode == 0
    python.write_text(killed.read_text())
    variables = {"SLURM_ARRAY_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": "0", "OMP_PROC_BIND": "true"}
    task = finish("bash", tmp_path / "task.sh", env=variables, cwd=tmp_path)
    assert task.returncode == 137
    assert "exit code 137: killed by SIGKILL, most often because memory ran out" in task.stdout
