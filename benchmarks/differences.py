"""Measure how differences from the original experiments affect accuracy.

python benchmarks/differences.py NAME [OPTION ...], where NAME is one of

  statistics  setting 5: the encoder's running statistics move once a step, in the original once a task
  deviation   setting 5: CIFAR-10 is divided by its standard deviation, in the original by smaller numbers
  size        setting 2: Omniglot's drawings are 32 x 32, in the original 105 x 105; five alphabets

Both sides are trained with seeds 0 to 2 and compared seed by seed. The options go to main.py, for example
--data_path DIR --epochs 1 --precision bf16. Runs are saved in --save_path (default runs/differences); the
same command resumes them. With --save_path results/differences and the options from docs/answer.md, it prints
the published results again without training.
"""

import argparse
import contextlib
import functools
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

import main as program
from models import Dimensions, Encoder, Model
from options import OPTIONS
from reporting.statistics import t_quantile
from storage.files import HISTORY
from storage.history import read_history
from tasks import DATA_SETS

SEEDS = range(3)
CIFAR10 = DATA_SETS[0]
ORIGINAL_DEVIATION = (0.2023, 0.1994, 0.2010)


class MovedOnceATask(Encoder):
    """Encoder whose running statistics move once a task.

    In the original each task passes the batch through the encoder separately. As batch and weights are the
    same for all tasks, this is one move with a larger momentum.
    """

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__(dimensions)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and module.momentum is not None:
                module.momentum = 1 - (1 - module.momentum) ** len(CIFAR10.tasks)


class OtherDeviation(Encoder):
    """An encoder of images divided by the original's standard deviations, not CIFAR-10's."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__(dimensions)
        ratio = torch.tensor(CIFAR10.std) / torch.tensor(ORIGINAL_DEVIATION)
        self.ratio = nn.Buffer(ratio[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images * self.ratio)


@dataclass(frozen=True)
class Difference:
    """A difference from the original experiments.

    Attributes:
        runs: options of the runs of a seed, whose accuracies are averaged.
        options: further options that reproduce the original.
        encoder: the encoder that reproduces the original.
    """

    runs: Sequence[str]
    options: str = ""
    encoder: Callable[[Dimensions], nn.Module] = Encoder


DIFFERENCES = {
    "statistics": Difference(["--setting 5 --data 0"], encoder=MovedOnceATask),
    "deviation": Difference(["--setting 5 --data 0"], encoder=OtherDeviation),
    "size": Difference(
        [f"--setting 2 --data 2 --task {task}" for task in range(0, 50, 10)], "--image_size 105"
    ),
}


def accuracy(run: str, seed: int, options: Sequence[str], path: Path, encoder: Callable) -> float:
    """Mean accuracy at the end of a run, trained if necessary."""
    saving = ["--resume", "--save_history", "--save_path", str(path)]
    argv = ["--train", *run.split(), "--seed", str(seed), *options, *saving]
    program.parse(argv, OPTIONS)  # exits if they are invalid
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = program.main(argv, network=functools.partial(Model, encoder=encoder))
    if code:
        print(said.getvalue().splitlines()[-1], file=sys.stderr)
        sys.exit(code)
    return float(np.mean(read_history(path / HISTORY, OPTIONS).epochs[-1]["accuracy"]))


def measure(name: str, options: Sequence[str], directory: Path) -> None:
    """Train both sides with every seed and print the effect."""
    difference = DIFFERENCES[name]
    sides: dict[str, tuple[list[str], Callable]] = {
        "here": ([], Encoder),
        name: (difference.options.split(), difference.encoder),
    }
    scores: dict[str, list[float]] = {side: [] for side in sides}
    for seed in SEEDS:
        for side, (besides, encoder) in sides.items():
            runs = []
            for run in difference.runs:
                # Paths of `here` do not depend on the difference, so that it is trained once.
                words = "".join(run.split()).replace("--", "-")
                path = directory / f"{side}{words}-seed{seed}"
                runs.append(accuracy(run, seed, [*options, *besides], path, encoder))
            scores[side].append(float(np.mean(runs)))
        print(f"seed {seed}:", *(f"{side} {scores[side][-1]:.4f}" for side in sides), flush=True)
    here, original = map(np.array, scores.values())
    effect = 100 * (original - here)  # seed by seed
    half_width = t_quantile(len(SEEDS) - 1) * effect.std(ddof=1) / len(SEEDS) ** 0.5
    low, high = effect.mean() - half_width, effect.mean() + half_width
    print(
        f"{name}: the original scores {effect.mean():+.2f} [{low:+.2f}, {high:+.2f}] points "
        f"against this program, {np.mean(original):.4f} and {np.mean(here):.4f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", choices=DIFFERENCES)
    parser.add_argument("--save_path", type=Path, default=Path("runs/differences"))
    known, options = parser.parse_known_args()
    measure(known.name, options, known.save_path)
