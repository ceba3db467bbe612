"""The program through its command line.

Every pair of setting and data set, every refusal, every output.
"""

import ast
import errno
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import (
    NARROW,
    NUM_HIDDEN,
    PROCESSES,
    SMALL,
    TOP,
    UNSCORED,
    error_line,
    one_line,
    result_of,
    write_data,
)
from made_up import Report

import main
from options import OPTIONS
from settings import SETTINGS, VERSION
from tasks import DATA_SETS

PAIRS = [
    (setting, data)
    for setting in range(len(SETTINGS))
    for data in range(len(DATA_SETS))
    if DATA_SETS[data].shared_inputs or not SETTINGS[setting].shared_inputs
]


def numbers(line: str) -> list[float]:
    """The accuracies in an `Accuracy:` line."""
    assert line.startswith("Accuracy: ")
    value = ast.literal_eval(line.removeprefix("Accuracy: "))
    return value if isinstance(value, list) else [value]


def task_of(setting: int) -> tuple:
    return ("--task", 3) if setting == 2 else ()


@pytest.mark.parametrize(("setting", "data"), PAIRS)
def test_every_pair_trains_for_an_epoch_and_is_evaluated(program, tmp_path, setting, data):
    options = ("--setting", setting, "--data", data, *task_of(setting), "--synthetic", "--image_size", 4)
    options += ("--save_path", tmp_path, *(UNSCORED if data > 0 else ()))
    trained = program("--train", "--epochs", 1, "--save_model", *options)
    assert trained.code == 0
    evaluated = program("--eval", *options)
    assert evaluated.code == 0
    assert evaluated.accuracy == trained.accuracy
    accuracies = numbers(trained.accuracy)
    assert len(accuracies) == (1 if setting in (0, 2) else len(DATA_SETS[data].tasks))
    assert ("[" in trained.accuracy) == (setting not in (0, 2))
    assert all(0 <= accuracy <= 1 for accuracy in accuracies)
    assert "Traceback" not in trained.err + evaluated.err


def test_a_history_is_compact_and_exact_in_its_accuracies(program, tmp_path):
    options = ("--setting", 5, "--data", 0, *SMALL, "--loss", "uw", "--gradients", "--epochs", 2)
    trained = program("--train", *options, "--save_history", "--save_path", tmp_path)
    assert trained.code == 0
    text = (tmp_path / "history.json").read_text()
    epochs = json.loads(text)["epochs"]
    lines = [line.strip(" ,") for line in text.splitlines()]
    assert [json.loads(line) for line in lines if '"steps": ' in line] == epochs
    assert epochs[-1]["accuracy"] == numbers(trained.accuracy)
    assert any(share * 320 % 1 == 0 and len(str(share)) > 6 for share in numbers(trained.accuracy))
    for epoch in epochs:
        del epoch["accuracy"], epoch["balanced_accuracy"]
        written = re.findall(r"\d+\.\d+(?:e-\d+)?", json.dumps(epoch))
        assert len(written) > 40
        assert max(len(number.partition("e")[0].replace(".", "").lstrip("0")) for number in written) == 6


def test_what_is_printed_saved_and_evaluated_agrees(program, tmp_path):
    options = ("--setting", 3, "--data", 1, *SMALL, "--save_path", tmp_path / "new" / "directory")
    trained = program(
        "--train", "--epochs", 2, "--seed", 5, "--verbose", "--save_model", "--save_history", *options
    )
    assert trained.code == 0
    history = json.loads((tmp_path / "new" / "directory" / "history.json").read_text())
    assert history["tasks"] == list(DATA_SETS[1].tasks)
    assert [epoch["epoch"] for epoch in history["epochs"]] == [1, 2]
    for epoch in history["epochs"]:
        assert f"[Epoch {epoch['epoch']}] Accuracy: {epoch['accuracy']}" in trained.out.splitlines()
        assert len(epoch["accuracy"]) == len(epoch["balanced_accuracy"]) == 20
        assert epoch["loss"] > 0
        assert epoch["images_per_second"] == pytest.approx(20 * 128 / epoch["seconds"], rel=1e-5)
    assert numbers(trained.accuracy) == history["epochs"][-1]["accuracy"]
    assert numbers(program("--eval", *options).accuracy) == history["epochs"][-1]["accuracy"]
    recorded = history["options"]
    assert (recorded["setting"], recorded["data"], recorded["seed"], recorded["epochs"]) == (3, 1, 5, 2)
    assert recorded["synthetic"] is True
    assert recorded["image_size"] == 8
    assert history["data_set"]["scored_on"] == "test"
    assert history["constant_accuracy"] == pytest.approx([0.2] * 20)
    assert history["num_answers"] == [5] * 20
    assert history["finished"] is True
    convolutions = sum(9 * a * b + 3 * b for a, b in ((3, 8), (8, 16)))
    head = 64 * NUM_HIDDEN + 3 * NUM_HIDDEN + NUM_HIDDEN * 5 + 5
    assert history["parameters"] == {"encoder": convolutions, "heads": 20 * head}
    (sitting,) = history["sessions"]
    assert (sitting["epoch"], sitting["step"]) == (0, 0)
    environment = sitting["environment"]
    assert (environment["torch"], environment["device"]) == (torch.__version__, "cpu")
    assert (environment["threads"], environment["compiled"]) == (torch.get_num_threads(), False)
    assert environment["processor"]
    assert sorted(path.name for path in (tmp_path / "new" / "directory").iterdir()) == [
        ".lock", "history.json", "model.pt"
    ]  # fmt: skip


def test_a_model_file_is_plain_tensors_that_load_without_running_code(program, tmp_path):
    assert program("--train", "--epochs", 1, "--save_model", "--save_path", tmp_path, *SMALL).code == 0
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert isinstance(content["format"], int)
    assert content["options"]["setting"] == 0
    assert content["options"]["lr"] == 0.1
    assert content["options"]["synthetic"] is True
    for name, tensor in content["model"].items():
        assert name.startswith(("encoder.", "heads.0."))
        assert tensor.is_contiguous()
        assert tensor.device.type == "cpu"
        assert not tensor.requires_grad


def test_a_training_that_saves_nothing_writes_nothing(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = program("--train", "--epochs", 1, "--setting", 2, "--task", 0, *SMALL)
    assert trained.code == 0
    assert "saved nothing" in trained.err
    assert list(tmp_path.iterdir()) == []


def test_messages_go_to_standard_error_and_results_to_standard_output(program, tmp_path):
    options = ("--setting", 2, "--task", 0, *SMALL)
    trained = program(
        "--train", "--epochs", 3, "--verbose", "--save_model", "--save_path", tmp_path, *options
    )
    first, *epochs, last = trained.out.splitlines()
    assert "ynthetic" in first
    assert [re.match(r"\[Epoch (\d)\] Accuracy: 0\.\d+$", line)[1] for line in epochs] == ["1", "2", "3"]
    assert re.match(r"Accuracy: 0\.\d+$", last)
    assert str(tmp_path / "model.pt") in trained.err.splitlines()[-1]
    quiet = program("--train", "--epochs", 3, *options)
    assert quiet.out.splitlines() == [first, last]


@pytest.mark.parametrize(
    ("trains", "evaluate"),
    [((0,), (0, 1)), ((1,), (0, 1)), ((5, 6), (3, 4, 5, 6))],
    ids=["0", "1", "5 and 6"],
)
def test_settings_of_one_kind_evaluate_each_others_models(program, tmp_path, trains, evaluate):
    for setting in trains:
        options = ("--data", 0, "--save_path", tmp_path / str(setting), *SMALL)
        trained = program("--train", "--epochs", 1, "--setting", setting, "--save_model", *options)
        results = {s: program("--eval", "--setting", s, *options) for s in evaluate}
        assert {result.code for result in results.values()} == {0}
        assert results[setting].accuracy == trained.accuracy
        if 3 in evaluate:
            assert len({result.accuracy for result in results.values()}) == 1


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A directory with a model of setting 2, task 3."""
    path = tmp_path_factory.mktemp("saved")
    options = ["--train", "--setting", "2", "--task", "3", "--epochs", "1", "--save_model"]
    assert main.main([*options, "--save_path", str(path), *map(str, SMALL)], network=NARROW) == 0
    return path


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--setting", 0, *SMALL), "single-task"),
        (("--setting", 3, *SMALL), "--setting 2"),
        (("--setting", 2, "--task", 4, *SMALL), "--task 3"),
        (("--setting", 2, "--task", 3, "--data", 2, *SMALL), "--data 1"),
        (("--setting", 2, "--task", 3, "--synthetic", "--image_size", 16), "--image_size 8"),
        (("--setting", 2, "--task", 3), "--synthetic"),
    ],
)
def test_a_model_of_another_kind_or_of_other_data_is_refused(program, saved, options, says):
    refused = program("--eval", "--save_path", saved, *options)
    assert refused.code == 1
    assert says in refused.err
    assert one_line(refused)


def test_an_evaluation_takes_the_image_size_of_the_model(program, saved):
    assert program("--eval", "--setting", 2, "--task", 3, "--synthetic", "--save_path", saved).code == 0


RISING = [task + 1 for task in range(20)]

REFUSALS = [
    ((), "--train"),
    (("--synthetic",), "--eval"),
    (("--train", "--eval"), "not allowed"),
    (("--train", "--setting", len(SETTINGS)), "--setting"),
    (("--train", "--setting", "three"), "--setting"),
    (("--train", "--setting", len(SETTINGS)), "3 (uniform sampling)"),
    (("--train", "--data", len(DATA_SETS)), "--data"),
    (("--train", "--data", "cifar"), "0 (CIFAR-10), 1 (CIFAR-100), 2 (Omniglot)"),
    (("--train", "--data", "own.npz", "--synthetic"), "--synthetic"),
    (("--train", "--loss", "mean"), "--setting 3 or 5"),
    (("--train", "--setting", 5, "--data", 0, "--loss", "best"), "mean"),
    (("--train", "--momentum", 1), "--momentum"),
    (("--train", "--momentum", -0.1), "--momentum"),
    (("--train", "--weight_decay", "inf"), "--weight_decay"),
    (("--train", "--schedule", "linear"), "constant, cosine"),
    (("--train", "--validation", 1), "--validation"),
    (("--train", "--validation", -0.1), "--validation"),
    (("--train", "--setting", 2, "--task", 0, "--synthetic", "--validation", 0.5, "--batch_size", 81), "80"),
    (("--train", "--resume", "--overwrite"), "--overwrite"),
    (("--train", "--setting", 2), "needs --task"),
    (("--train", "--setting", 3, "--task", 1), "--setting 2"),
    (("--train", "--setting", 2, "--task", 20), "0 to 19"),
    (("--train", "--setting", 2, "--task", -1), "0 to 19"),
    (("--train", "--setting", 2, "--task", 10, "--data", 0), "0 to 9"),
    (("--train", "--setting", 2, "--task", 50, "--data", 2), "0 to 49"),
    (("--train", "--setting", 5, "--data", 1), "every image"),
    (("--train", "--setting", 6, "--data", 2), "every image"),
    (("--eval", "--setting", 5, "--data", 1), "every image"),
    (("--train", "--setting", 5, "--data", 1), "--setting 3 --tasks_per_step all"),
    (("--train", "--setting", 4, "--weights", 1, 2), "20"),
    (("--train", "--setting", 4, "--weights", *RISING[1:], -1), "--weights"),
    (("--train", "--setting", 4, "--weights", *RISING[1:], "nan"), "--weights"),
    (("--train", "--setting", 4, "--weights", *RISING[1:], "inf"), "--weights"),
    (("--train", "--setting", 4, "--weights", *[0] * 20), "positive"),
    (("--train", "--setting", 4, "--weights", *["1e308"] * 20), "finite"),
    *(
        (("--train", "--setting", setting, "--weights", *RISING, *task_of(setting)), "--setting 4 or 6")
        for setting in (0, 1, 2, 3)
    ),
    (("--train", "--setting", 5, "--data", 0, "--weights", *RISING[:10]), "--setting 4 or 6"),
    (("--train", "--epochs", 0), "--epochs"),
    (("--train", "--epochs", 1.5), "--epochs"),
    (("--train", "--batch_size", 0), "--batch_size"),
    (("--train", "--batch_size", 1), "at least 2"),
    (("--train", "--image_size", 0), "--image_size"),
    *((("--train", "--lr", rate), "--lr") for rate in (0, -0.1, "nan", "inf", "fast")),
    (("--train", "--seed", -1), "--seed"),
    (("--train", "--seed", 2**63), "--seed"),
    *(
        (("--train", "--device", name), "--device")
        for name in ("tpu", "cuda:", "cuda:01", "cuda:٣", "cuda:1000")
    ),
    (("--train", "--batch_size", 50_001), "50000"),
    (("--train", "--setting", 2, "--task", 4, "--batch_size", 2501), "fruit_and_vegetables"),
    (("--train", "--setting", 3, "--batch_size", 2501), "2500"),
    (("--train", "--setting", 3, "--data", 2, "--batch_size", 225), "task 7 (Blackfoot"),
    (("--train", "--setting", 4, "--data", 2, "--batch_size", 225), "224"),
    (("--train", "--setting", 2, "--task", 0, "--batch_size", 161, "--synthetic"), "160"),
    (("--train", "--precision", "fp16"), "bf16"),
    (("--train", "--unknown"), "--unknown"),
    (("--train", "--verb"), "--verb"),
]


@pytest.mark.parametrize(("options", "says"), REFUSALS)
def test_what_means_nothing_is_refused_before_any_data_is_read(program, tmp_path, options, says):
    refused = program(*options, "--data_path", tmp_path / "none", "--save_path", tmp_path / "none")
    assert refused.code == 2
    assert says in refused.err
    assert one_line(refused)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--setting", 3, "--batch_size", 160),
        ("--setting", 2, "--task", 0, "--batch_size", 160),
        ("--setting", 0, "--batch_size", 3200),
        ("--setting", 4, "--weights", *[0] * 19, 1, "--batch_size", 150),
    ],
)
def test_a_batch_may_be_as_large_as_the_training_set(program, options):
    assert program("--train", "--epochs", 1, *options, *SMALL, *UNSCORED).code == 0


def test_a_task_without_weight_does_not_limit_the_batch_size(program):
    weights = [float(size >= 46) for size in (max(row) + 1 for row in DATA_SETS[2].tasks.values())]
    options = ("--train", "--setting", 4, "--data", 2, "--weights", *weights, "--batch_size")
    assert "Bengali" in program(*options, 46 * 16 + 1).err  # the smallest of those with weight
    assert sum(weights) < 50


@pytest.mark.parametrize("mode", ["--train", "--eval"])
def test_no_cuda_device_is_said_so(program, saved, mode):
    if torch.cuda.device_count() > 99:
        pytest.skip("there are that many devices")
    options = ("--setting", 2, "--task", 3, "--save_path", saved, "--device", "cuda:99", *SMALL)
    refused = program(mode, *options)
    assert refused.code == 1
    assert "cuda:99" in refused.err
    assert one_line(refused)


@pytest.mark.parametrize(
    ("name", "number"),
    [("cifar10", 0), ("CIFAR-10", 0), ("cifar-100", 1), ("Cifar100", 1), ("omniglot", 2), ("Omniglot", 2)],
)
def test_a_data_set_has_a_name_too(name, number):
    assert main.parse(["--train", "--data", name], OPTIONS).recorded["data"] == number


def test_the_version_is_printed(program):
    printed = program("--version")
    assert (printed.code, printed.out, printed.err) == (0, f"{VERSION}\n", "")


def test_help_tells_the_settings_and_the_data_sets_apart(program):
    helped = program("--help")
    assert helped.code == 0
    for choice in SETTINGS:
        assert choice.words in helped.out
    for spec in DATA_SETS:
        assert spec.name in helped.out
        assert spec.question in helped.out
    for option in OPTIONS:
        assert f"--{option.name} " in helped.out


# How it is started, and what it meets


def python(*arguments: object, **how: object) -> subprocess.CompletedProcess:
    """Run Python in a process of its own."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, **how)


def test_the_program_starts_however_it_is_called(tmp_path):
    (tmp_path / "link.py").symlink_to(TOP / "main.py")
    expected = python("main.py", "--help").stdout
    assert "Train and evaluate image classifiers" in expected
    for options in ([], ["-P"] if sys.version_info >= (3, 11) else [], ["-I"], ["-OO"]):
        for script in (TOP / "main.py", "link.py"):
            assert python(*options, script, "--help", cwd=tmp_path).stdout == expected


def test_an_older_python_is_said_so_in_one_line():
    ast.parse((TOP / "main.py").read_text(), feature_version=(3, 6))  # or it would say something else
    code = """
import runpy, sys
sys.version_info, sys.version = (3, 9, 18, "final", 0), "3.9.18 (main)"
runpy.run_path("main.py", run_name="__main__")
"""
    refused = python("-c", code)
    assert refused.returncode == 1
    assert refused.stderr == "main.py: error: this is Python 3.9.18: the program needs 3.10 or newer\n"


def test_packages_that_are_missing_are_named_in_one_line(program, tmp_path, monkeypatch):
    for name in ("torchvision", "tqdm"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it was not installed
    for mode in ("--train", "--eval"):
        refused = program(mode, *SMALL, "--save_path", tmp_path)
        assert "torchvision, tqdm" in error_line(refused)
        assert "pip install -r requirements.txt" in refused.err
        assert one_line(refused)
    assert "history.json" in error_line(program("--report", "--save_path", tmp_path))  # which needs neither


@pytest.mark.parametrize(
    ("breaks", "says"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "torchvision::nms"),
        ("import ctypes; ctypes.CDLL('libnone.so.9')", "libnone.so.9"),
        ("import none", "No module named 'none'"),
    ],
)
def test_a_package_that_cannot_be_imported_is_named_in_one_line(program, tmp_path, monkeypatch, breaks, says):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(breaks)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    refused = program("--train", "--data", 0, "--data_path", tmp_path)
    line = error_line(refused)
    assert one_line(refused)
    assert all(part in line for part in ("torchvision cannot be imported", says, "pip install -r"))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "not enough memory: "),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "not enough memory: "),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "not enough memory on the GPU: "),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "not enough memory: "),
        (RuntimeError("Numpy is not available"), "numpy cannot be imported"),
        (OSError(errno.EIO, "Input/output error"), "the system reports: Input/output error"),
        (OSError(errno.EACCES, "Permission denied", "some/file"), "cannot use some/file: Permission denied"),
    ],
    ids=repr,
)
def test_what_the_machine_refuses_is_said_in_one_line(program, tmp_path, error, says):
    def network(*_):
        raise error

    data = write_data(tmp_path / "own.npz", [16, 16])
    assert says in error_line(program("--train", "--data", data, "--batch_size", 8, network=network))


@pytest.mark.parametrize(
    "error", [RuntimeError("shared memory"), RecursionError(), OSError("a bug")], ids=repr
)
def test_an_error_of_the_program_is_none_of_the_machine(program, tmp_path, error):
    def network(*_):
        raise error

    data = write_data(tmp_path / "own.npz", [16, 16])
    with pytest.raises(type(error)):
        program("--train", "--data", data, "--batch_size", 8, network=network)


def test_a_gpu_that_cannot_be_used_is_one_line(program, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("there is one that can")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert "--device cpu" in error_line(program("--train", *SMALL, "--device", "cuda"))


BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
"""An environment in which Python writes to its streams once more as it ends."""


def test_help_that_cannot_be_written_is_an_error():
    command = f"{sys.executable} main.py --help >/dev/full"
    refused = subprocess.run(command, shell=True, capture_output=True, text=True, env=BUFFERED)
    assert refused.returncode == 1
    assert refused.stderr.startswith("main.py: error: standard output cannot be written to: No space left")
    assert refused.stderr.count("\n") == 1


def test_messages_that_cannot_be_written_change_no_exit_code(tmp_path):
    for arguments, code in (("--help", 0), ("--train --setting 9", 2), ("--report", 1)):
        command = f"{sys.executable} {TOP / 'main.py'} {arguments} >/dev/null 2>/dev/full"
        assert subprocess.run(command, shell=True, cwd=tmp_path, env=BUFFERED).returncode == code


def test_no_file_takes_the_place_of_a_stream_that_is_closed(tmp_path):
    code = "from running.streams import open_streams; open_streams(); "
    code += "file = open('file', 'w'); file.write(str(file.fileno()))"
    command = f'PYTHONPATH={TOP} {sys.executable} -c "{code}" <&- >&- 2>&-'
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert int((tmp_path / "file").read_text()) > 2


def test_a_path_is_said_as_it_is_but_in_one_line(program, tmp_path):
    refused = program("--eval", *SMALL, "--save_path", tmp_path / "a  b\x1b\u2028")
    assert f"{tmp_path}/a  b\\x1b" in error_line(refused)
    assert one_line(refused)


def test_no_network_and_no_data_is_one_line_that_says_what_to_do(program, tmp_path, no_network):
    for data, archive in (
        (0, "cifar-10-python.tar.gz"),
        (1, "cifar-100-python.tar.gz"),
        (2, "images_background.zip"),
    ):
        refused = program("--train", "--data", data, "--data_path", tmp_path)
        assert refused.code == 1
        assert archive in refused.err
        assert "--synthetic" in refused.err
        assert one_line(refused)


def test_a_model_trained_in_bf16_is_evaluated_in_either_precision(program, tmp_path):
    options = ("--data", 0, *SMALL, "--save_path", tmp_path)
    trained = program(
        "--train", "--setting", 5, "--epochs", 3, "--save_model", *options, "--precision", "bf16"
    )
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert content["options"]["precision"] == "bf16"
    assert " in bf16" in trained.err
    assert torch.bfloat16 not in {tensor.dtype for tensor in content["model"].values()}
    for setting in (5, 3):
        same = program("--eval", "--setting", setting, *options, "--precision", "bf16")
        assert numbers(same.accuracy) == pytest.approx(numbers(trained.accuracy), abs=0.01)
    exact = program("--eval", "--setting", 5, *options)
    assert numbers(exact.accuracy) == pytest.approx(numbers(trained.accuracy), abs=0.02)


@pytest.mark.compiler
def test_compiling_without_a_compiler_is_one_line_that_says_what_to_do(program, tmp_path):
    import torch._inductor.config as inductor

    options = ("--setting", 2, "--task", 0, "--epochs", 1, "--compile", *SMALL)
    with inductor.patch({"cpp.cxx": (None, str(tmp_path / "none")), "force_disable_caches": True}):
        refused = program("--train", *options, "--save_model", "--save_path", tmp_path / "run")
    assert refused.code == 1
    assert "Traceback" not in refused.err
    assert refused.err.splitlines()[-1].startswith("main.py: error: ")
    assert "--compile" in refused.err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def train_elsewhere(argv: list[str]) -> None:
    import main

    os._exit(main.main(argv))


@pytest.mark.processes
def test_the_same_command_gives_the_same_bytes_in_another_process(program, tmp_path):
    data = write_data(tmp_path / "own.npz", [16, 16])
    options = ["--train", "--setting", "3", "--data", str(data), "--batch_size", "8", "--epochs", "1"]
    options += ["--save_model", "--save_history", "--seed"]
    process = PROCESSES.Process(
        target=train_elsewhere, args=([*options, "1", "--save_path", str(tmp_path / "a")],)
    )
    process.start()
    for name, seed in (("b", 1), ("c", 2)):
        assert program(*options, seed, "--save_path", tmp_path / name, network=None).code == 0
    process.join()
    assert process.exitcode == 0
    results = [result_of(tmp_path / name) for name in "abc"]
    assert results[0] == results[1]
    assert results[0][0] != results[2][0]
    assert results[0][1]["epochs"] != results[2][1]["epochs"]


def test_a_refusal_does_not_wait_for_torch():
    code = """
import sys, main
try:
    main.main(["--train", "--epochs", "0"])
except SystemExit:
    print("torch" in sys.modules)
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout == "False\n"


def test_the_default_weights_of_settings_4_and_6_rise_from_task_to_task(program, tmp_path):
    for setting, data in ((4, 1), (6, 0)):
        options = ("--setting", setting, "--data", data, *SMALL, *UNSCORED)
        options += ("--save_history", "--overwrite", "--save_path", tmp_path)
        first = program("--train", "--epochs", 1, *options)
        recorded = json.loads((tmp_path / "history.json").read_text())["options"]["weights"]
        assert recorded == [task + 1 for task in range(len(DATA_SETS[data].stand_in.tasks))]
        given = program(
            "--train", "--epochs", 1, *options, "--weights", *[10.0 * weight for weight in recorded]
        )
        assert given.accuracy == first.accuracy
        assert math.isclose(sum(recorded), len(recorded) * (len(recorded) + 1) / 2)


# Held-out images


def test_validation_scores_images_of_the_training_set_that_are_not_trained_on(program, tmp_path):
    options = ("--setting", 3, *SMALL, "--data", 0, "--save_path", tmp_path)
    trained = program(
        "--train", "--epochs", 1, "--validation", 0.25, "--save_model", "--save_history", *options
    )
    assert "480 training and 160 validation images" in trained.err
    assert "mean validation accuracy over 10 tasks" in trained.err
    history = json.loads((tmp_path / "history.json").read_text())
    assert history["options"]["validation"] == 0.25
    assert history["data_set"]["scored_on"] == "validation"
    assert history["epochs"][0]["steps"] == 10 * (480 // 128)
    same, asked, test = (
        program("--eval", *options, *more) for more in ((), ("--validation", 0.25), ("--validation", 0))
    )
    assert same.accuracy == asked.accuracy == trained.accuracy
    assert "validation accuracy" in same.err
    assert test.accuracy != trained.accuracy
    assert "320 test images" in test.err
    assert "validation" not in test.err
    assert "--validation 0.25" in error_line(program("--eval", *options, "--validation", 0.5))


def test_a_model_trained_on_all_images_is_not_validated_on_some_of_them(program, saved):
    options = ("--setting", 2, "--task", 3, *SMALL, "--save_path", saved)
    assert "--validation 0.0" in error_line(program("--eval", *options, "--validation", 0.5))
    assert program("--eval", *options, "--validation", 0).code == 0


# A made-up option stands in the table alone


def read_shade(text: str) -> str:
    if text not in ("dark", "light"):
        raise ValueError(f"{text!r} is neither dark nor light")
    return text


SHADES = (
    *OPTIONS,
    replace(
        next(option for option in OPTIONS if option.name == "lr"),
        name="shade", help="made up", words=None, read=read_shade, default="dark", metavar="SHADE",
        settings=(2, 3),
    ),
)  # fmt: skip


def test_an_option_that_is_added_to_the_table_is_parsed_checked_recorded_insisted_on_and_grouped_by(
    program, tmp_path
):
    write_data(tmp_path / "own.npz", [16, 16])
    options = ("--data", tmp_path / "own.npz", "--batch_size", 8, "--epochs", 1)
    assert "--shade SHADE" in program("--help", table=SHADES).out
    assert "dark" in program("--help", table=SHADES).out
    wrong = program("--train", "--setting", 3, "--shade", "grey", *options, table=SHADES)
    assert (wrong.code, one_line(wrong)) == (2, True)
    assert "neither dark nor light" in wrong.err
    astray = program("--train", "--setting", 0, "--shade", "dark", *options, table=SHADES)
    assert (astray.code, one_line(astray)) == (2, True)
    assert "--setting 2 or 3" in astray.err
    assert "--shade" in program("--train", "--setting", 3, "--shade", "light", *options).err
    for path, given in (("a", ("--shade", "light")), ("b", ()), ("c", ("--seed", 1))):
        done = program(
            "--train", "--setting", 3, *given, "--resume", "--save_history", "--save_path",
            tmp_path / path, *options, table=SHADES,
        )  # fmt: skip
        assert done.code == 0
    recorded = [
        json.loads((tmp_path / path / "history.json").read_text())["options"]["shade"] for path in "abc"
    ]
    assert recorded == ["light", "dark", "dark"]
    assert torch.load(tmp_path / "a" / "model.pt", weights_only=True)["options"]["shade"] == "light"
    other = program(
        "--train", "--setting", 3, "--resume", "--save_path", tmp_path / "a", *options, table=SHADES
    )
    assert "--shade light, not --shade dark" in error_line(other)
    reported = Report(program("--report", "--save_path", tmp_path, table=SHADES).out, tmp_path)
    assert reported.cells("3 uniform sampling")["runs"] == "2"
    assert reported.cells("3 uniform sampling, shade light")["runs"] == "1"
    rows = [row for row in reported.rows() if row["question"] == "shade"]
    compared = [(row["test"], row["shade_a"], row["shade_b"]) for row in rows]
    assert compared == [("usual", "light", "dark"), ("as trained", "light", "dark")]


def test_files_that_lack_an_option_count_as_of_its_default(program, tmp_path):
    write_data(tmp_path / "own.npz", [16, 16])
    options = ("--setting", 3, "--data", tmp_path / "own.npz", "--batch_size", 8, "--epochs", 1)
    command = ("--train", "--resume", "--save_history", "--save_path", tmp_path, *options)
    assert program(*command).code == 0
    assert program(*command, table=SHADES).code == 0
    assert "--shade dark, not --shade light" in error_line(
        program(*command, "--shade", "light", table=SHADES)
    )
