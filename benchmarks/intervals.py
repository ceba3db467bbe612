"""Measure the coverage of a report's intervals, and the time of a large report.

Simulated studies stand for CIFAR-100 trained in settings 1 to 4. Every setting has a true accuracy in each
task. A run adds noise, part of it common to its tasks, and rounds to a test set of 100 images per task.
Settings 3 and 4 are equally good. Each study is written as histories; main.py reports on them, and the
intervals in comparisons.csv are counted.

With --histories, the time and the memory of a report on about as many histories are printed instead.
"""

import argparse
import contextlib
import csv
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import main as program
from options import make_run
from settings import SETTINGS
from storage.history import History, describe, write_history
from tasks import DATA_SETS

TOP = Path(program.__file__).parent
SPEC = DATA_SETS[1]
TASKS = list(SPEC.tasks)
COMMON, OWN, ALONE = 0.02, 0.03, 0.003
"""Standard deviations of the noise: common to a run's tasks, of each task, of the scores as trained."""


def truths(random: np.random.Generator) -> dict[str, np.ndarray]:
    """Sample a study: the true accuracies of the tasks, by configuration."""
    single = random.uniform(0.45, 0.7, len(TASKS))
    draws = single + random.uniform(-0.04, 0.08, len(TASKS))
    made = {1: draws + random.uniform(-0.05, 0.1, len(TASKS)), 2: single, 3: draws, 4: draws}
    by_label = {f"{setting} {SETTINGS[setting].name}": accuracy for setting, accuracy in made.items()}
    return by_label | {f"{label}, as trained": accuracy + 0.02 for label, accuracy in by_label.items()}


def write_run(
    path: Path, setting: int, seed: int, accuracy: np.ndarray, again: np.ndarray, task: int | None = None
) -> None:
    """Write the history of a run of four epochs with these accuracies."""
    given = {"setting": setting, "seed": seed, "task": task, "epochs": 4}
    run = make_run("train", given)
    scored = [*range(len(TASKS))] if task is None else [task]
    steps = 390 if setting == 1 else 19 * len(scored)
    measured = [round(float(min(max(each, 0), 1)), 2) for each in accuracy[scored]]
    epoch = {
        "accuracy": measured,
        "balanced_accuracy": measured,
        "loss": 1.0,
        "task_loss": [1.0] * len(scored),
    }
    epoch |= {"steps": steps, "images": 128 * steps, "seconds": 60.0, "evaluation_seconds": 5.0}
    re_estimated = [round(float(min(max(each, 0), 1)), 2) for each in again[scored]]
    as_trained = {"accuracy": re_estimated, "balanced_accuracy": re_estimated, "right": [""] * len(scored)}
    path.mkdir(parents=True)
    write_history(
        path / "history.json",
        History(
            options=run.recorded,
            data_set=describe(SPEC),
            sessions=[{"epoch": 0, "step": 0, "environment": {}, "code": "made up"}],
            tasks=[TASKS[i] for i in scored],
            constant_accuracy=[0.2] * len(scored),
            num_answers=[5] * len(scored),
            parameters={"encoder": 276_000, "heads": 4_200_000},
            epochs=[epoch | {"epoch": number, "images_per_second": 800.0} for number in range(1, 5)],
            finished=True,
            as_trained=as_trained,
        ),
    )


def write_study(folder: Path, seeds: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Write the histories of a study; returns its true accuracies."""
    truth = truths(random)
    for setting in (1, 2, 3, 4):
        true_accuracy = truth[f"{setting} {SETTINGS[setting].name}"]
        for seed in range(seeds):
            accuracy = true_accuracy + random.normal(0, COMMON) + random.normal(0, OWN, len(TASKS))
            again = accuracy + 0.02 + random.normal(0, ALONE, len(TASKS))
            for task in range(len(TASKS)) if setting == 2 else [None]:
                write_run(folder / f"{setting}-{seed}-{task}", setting, seed, accuracy, again, task)
    return truth


def true_difference(row: dict[str, str], truth: dict[str, np.ndarray]) -> float:
    """The true value of a row of comparisons.csv."""
    first, second = truth[row["first"]], truth[row["second"]]
    measure, _, task = row["measure"].partition(" of ")
    if measure == "delta_m":
        return float((100 * (first - second) / second).mean())
    difference = 100 * (first - second)
    return float(difference[TASKS.index(task)] if task else difference.mean())


def measure_coverage(studies: int, seeds: int) -> None:
    """Print how often the intervals of simulated studies contain the true value."""
    random = np.random.default_rng(0)
    hits: dict[str, list[bool]] = defaultdict(list)
    wrong: dict[str, list[bool]] = defaultdict(list)
    os.environ["OMP_NUM_THREADS"] = "1"
    for _ in range(studies):
        with tempfile.TemporaryDirectory() as folder:
            truth = write_study(Path(folder) / "runs", seeds, random)
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
                mock.patch.dict(sys.modules, matplotlib=None),  # no figures
            ):
                assert program.main(["--report", "--save_path", f"{folder}/runs"]) == 0
            with open(f"{folder}/runs/comparisons.csv", newline="") as file:
                for row in csv.DictReader(file):
                    kind = "a task" if " of " in row["measure"] else row["measure"]
                    kind = f"{row['question']}, {kind}"
                    if row["low"]:
                        difference = true_difference(row, truth)
                        hits[kind].append(float(row["low"]) <= difference <= float(row["high"]))
                        if row["question"] == "draws":
                            wrong["equally good, yet conclusive"].append(row["verdict"] != "inconclusive")
    print(f"{studies} studies of {seeds} seeds: share of the intervals that contain the true value")
    for kind, contained in [*hits.items(), *wrong.items()]:
        print(f"  {kind:<32} {np.mean(contained):.3f} of {len(contained)}")


def measure_time(histories: int) -> None:
    """Print the time and memory of a report on one large study."""
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        write_study(runs, max(1, round(histories / 23)), np.random.default_rng(0))
        start = time.perf_counter()
        command = [sys.executable, str(TOP / "main.py"), "--report", "--save_path", str(runs)]
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        print(f"{len(list(runs.iterdir())) - 4} histories: {seconds:.1f} s, {peak:.2f} GB")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=150, help="number of simulated studies (150)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds per study (3)")
    parser.add_argument("--histories", type=int, help="measure a report on this many instead")
    args = parser.parse_args()
    if args.histories:
        measure_time(args.histories)
    else:
        measure_coverage(args.studies, args.seeds)


if __name__ == "__main__":
    main()
