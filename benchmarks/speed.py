"""Time this program against the usual implementation and against the bare arithmetic.

For each setting three variants take turns in one process, on as many generated images as there are real ones:

  A  this program: the steps and the evaluation that main.py runs
  B  the usual way: a data set and a DataLoader per task, images transformed one by one on request, a pass of
     the whole network for each task and batch, the loss read after every step. Where a step trains all tasks
     (settings 5 and 6), they share one DataLoader, so that a batch is loaded once. Where it samples several
     tasks, each has its own pass on its share of the images.
  C  the floor: the same training step repeated on one batch in memory, with one pass of the encoder and the
     heads that A trains

Each number is the median over rounds, with the lowest and the highest. Ratios are formed within a round, when
the machine is in the same state: A/B is the speed-up over B, A/C the share of the possible speed. Images
count once per step, however many tasks they train. FLOP/s are the multiplications and additions in the
convolutions and matrix products of A's training. Peak memory is measured in one process per variant (on a
GPU, memory allocated by PyTorch).

A plans an epoch once before its first step. The plan is timed separately, and the timed steps are charged
their share.

With --loss, steps of setting 5 with each given loss are timed in turn with those of `mean` instead. The ratio
is how many times as long a step takes.

With --choices, steps with each of several options of main.py take turns instead, such as

  --settings 3 --data 1 --choices "--tasks_per_step 4" "--tasks_per_step 4 --normalisation apart"

The ratios are to the first. Beside them are the seconds of scoring --test_images images, as usual and as
trained; the latter estimates statistics on as many training images as there are real ones.

In its turn, a variant gets the C library's memory management as in a process of its own: as main.py sets it
for A and C, the default for B. It is timed after a step to warm up, and A also after an evaluation, as A
keeps the memory for its large batches but loses it in B's turn.
"""

import argparse
import ctypes
import itertools
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).parents[1]))

import main as program
from agents import Agent, make_agent, make_optimizer, normalised
from data import DataSet, Split
from errors import UserError
from models import Dimensions, Model, computing_in
from options import COUNT, DEVICE, OPTIONS, Run, choice, make_run
from running.session import compiling
from running.setup import keep_freed_memory, pick_device
from settings import LOSSES, PRECISIONS, SETTINGS
from tasks import DATA_SETS, DataSpec

BATCH_SIZE = 128

STEPS = {"cpu": 8, "cuda": 400}
TEST_IMAGES = {"cpu": 2000, "cuda": 10_000}
"""Defaults by device type."""


def keep_memory_as_by_default() -> None:
    """Set glibc's memory management to where it settles by itself.

    In a program with tensors of these sizes the mmap threshold rises to the largest freed block below 32 MB,
    the first convolution's output of 17 MB, and the trim threshold to twice as much.
    """
    max_mappings, mapping_threshold, trim_threshold = -4, -3, -1  # parameter numbers of mallopt
    largest = 16_781_312
    with suppress(OSError, TypeError, AttributeError):  # as in keep_freed_memory
        c_library = ctypes.CDLL(None)
        c_library.mallopt(max_mappings, 65_536)
        c_library.mallopt(mapping_threshold, largest)
        c_library.mallopt(trim_threshold, 2 * largest)
        c_library.malloc_trim(0)


def generated(number: int, test_images: int, device: torch.device) -> DataSet:
    """Generate random images in place of a data set.

    Their shape, classes and number of training images are those of the data set.
    """
    spec = DATA_SETS[number]
    random = np.random.default_rng(0)
    side = spec.default_image_size

    def split(count: int) -> Split:
        images = random.integers(0, 256, (count, spec.channels, side, side), dtype=np.uint8)
        labels = torch.arange(count) % spec.num_classes
        return Split(torch.from_numpy(images).to(device), labels.to(device), spec)

    train, test = split(spec.num_training_images()), split(test_images)
    tasks = torch.tensor(list(spec.tasks.values()))
    return DataSet(spec, train, test, tasks, torch.arange(len(test)))


class UsualImages(Dataset):
    """The images of a task, decoded and transformed one at a time."""

    def __init__(self, split: Split, numbers: Tensor, spec: DataSpec) -> None:
        labels = numbers[split.labels.cpu()]
        self.images = split.images.cpu().permute(0, 2, 3, 1).numpy()[labels >= 0]
        self.labels = labels[labels >= 0].tolist()
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize(spec.mean, spec.std)]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[i].squeeze())), self.labels[i]


def dimensions_of(data: DataSet, heads: Tensor) -> Dimensions:
    """What a network of some heads is made for: int64, heads x classes."""
    return Dimensions(data.spec.channels, data.train.images.shape[-1], (heads.amax(dim=1) + 1).tolist())


class Usual:
    """The experiment of a run, written the usual way (B)."""

    def __init__(self, data: DataSet, run: Run, device: torch.device) -> None:
        self.device = device
        self.by_task = run.setting == 1
        self.shared_inputs = SETTINGS[run.setting].shared_inputs
        every_class = torch.arange(data.spec.num_classes)[None]
        if SETTINGS[run.setting].kind == "standard":
            heads = every_class
        else:
            heads = data.tasks if run.task is None else data.tasks[run.task][None]
        self.heads = heads.to(device)
        self.weights = normalised(run.weights, len(heads))
        self.scored = data.tasks if self.by_task else heads
        self.model = Model(dimensions_of(data, heads)).to(device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=run.lr)
        served = every_class if self.shared_inputs else heads
        sets = [UsualImages(data.train, numbers, data.spec) for numbers in served]
        self.tasks_per_step = run.tasks_per_step or 1
        size = BATCH_SIZE // self.tasks_per_step
        self.batches = [self._endless(DataLoader(s, size, shuffle=True, drop_last=True)) for s in sets]
        self.tests = [DataLoader(UsualImages(data.test, n, data.spec), BATCH_SIZE) for n in self.scored]

    @staticmethod
    def _endless(loader: DataLoader) -> Iterator:
        while True:
            yield from loader

    def train(self, steps: int) -> None:
        """Do some training steps."""
        self.model.train()
        total = 0.0
        for _ in range(steps):
            self.optimizer.zero_grad()
            if self.shared_inputs:
                images, labels = self._batch(0)
                losses = [
                    weight * self._loss(task, images, self.heads[task][labels])
                    for task, weight in enumerate(self.weights)
                ]
                loss = torch.stack(losses).sum()
            else:
                sampled = np.random.choice(len(self.weights), self.tasks_per_step, p=self.weights)
                loss = torch.stack([self._loss(task, *self._batch(task)) for task in sampled]).mean()
            loss.backward()
            self.optimizer.step()
            total += loss.item()

    def _batch(self, number: int) -> tuple[Tensor, Tensor]:
        """The next batch of a loader."""
        images, labels = next(self.batches[number])
        return images.to(self.device), labels.to(self.device)

    def _loss(self, task: int, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self._logits(images, task), labels)

    def _logits(self, images: Tensor, head: int) -> Tensor:
        return self.model.heads[head](self.model.encoder(images))

    @torch.no_grad()
    def evaluate(self) -> list[float]:
        """Accuracy of every scored task, each with passes of its own."""
        self.model.eval()
        accuracy = []
        for task, loader in enumerate(self.tests):
            right = count = 0
            for images, labels in loader:
                numbers = self.scored[task]
                answers = self._logits(images.to(self.device), 0 if self.by_task else task).cpu()
                if self.by_task:
                    answers = numbers[answers.masked_fill(numbers < 0, -torch.inf).argmax(dim=1)]
                else:
                    answers = answers.argmax(dim=1)
                right += int((answers == labels).sum())
                count += len(labels)
            accuracy.append(right / count)
        return accuracy


class Ours:
    """The experiment of a run, as main.py runs it (A)."""

    def __init__(self, agent: Agent) -> None:
        self.agent, self.model = agent, agent.model

    def train(self, steps: int) -> None:
        """Do some training steps, repeating the first epoch.

        The first step makes its plan.
        """
        agent, num_steps = self.agent, self.agent.plan.steps_per_epoch
        while steps:
            if agent.step == num_steps:
                agent.step = 0
            count = min(steps, num_steps - agent.step)
            agent.train_steps(count)
            steps -= count

    def lay_out(self) -> None:
        """Plan an epoch, as is done once before its first step."""
        self.agent.plan.sampled(1)
        torch.from_numpy(self.agent.plan.indices(1)).to(self.agent.data.device)

    def evaluate(self) -> list[float]:
        """Accuracy of every scored task."""
        return self.agent.evaluate().accuracy


class Floor:
    """The training step of a run, repeated on one batch (C).

    The tasks are those sampled in the first epoch.
    """

    def __init__(self, agent: Agent) -> None:
        self.agent, self.model = agent, agent.model
        self._optimizer = make_optimizer(agent.model, agent.combiner, agent.run)
        device = agent.data.device
        self._images, _ = agent.data.train.batch(torch.arange(BATCH_SIZE, device=device))
        sizes = (agent.targets().amax(dim=1) + 1).tolist()
        self._targets = [torch.arange(BATCH_SIZE, device=device) % size for size in sizes]
        self._draws = itertools.cycle(agent.plan.sampled(1).tolist())
        self._weights = [torch.tensor(source.weights, device=device) for source in agent.plan.sources]

    def _step(self) -> None:
        sampled = next(self._draws)
        size = BATCH_SIZE // len(sampled)
        losses, weights = [], []
        with computing_in(self.agent.run.precision, self._images.device):
            features, start = self.model.encoder(self._images), 0
            for source in dict.fromkeys(sampled):
                count = sampled.count(source)
                here = slice(start, start + count * size)
                start = here.stop
                weights.append(self._weights[source] * (count / len(sampled)))
                for head in self.agent.plan.sources[source].heads:
                    logits = self.model.heads[head](features[here]).float()
                    losses.append(F.cross_entropy(logits, self._targets[head][here]))
        self._optimizer.zero_grad(set_to_none=True)
        self.agent.combiner.backward(losses, torch.cat(weights), features, self.model.encoder.parameters())
        self._optimizer.step()

    def train(self, steps: int) -> None:
        """Do some training steps."""
        self.model.train()
        for _ in range(steps):
            self._step()


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that some work takes, including the work queued on the device."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def options_of(setting: int, args: argparse.Namespace, loss: str | None = None) -> Run:
    """The run that is timed."""
    given = {
        "setting": setting,
        "data": args.data,
        "task": 1 if setting == 2 else None,
        "loss": loss,
        "batch_size": BATCH_SIZE,
        "tasks_per_step": args.tasks_per_step if SETTINGS[setting].samples_tasks else None,
        "precision": args.precision,
        "compile": args.compile,
    }
    return make_run("train", given, spec=DATA_SETS[args.data])


def flops_per_image(agent: Agent) -> float:
    """Floating-point operations per training image, in convolutions and matrix products."""
    trained = agent.targets()[list(agent.plan.sources[0].heads)]
    plain = Model(dimensions_of(agent.data, trained))
    inputs, _ = agent.data.train.batch(torch.arange(2, device=agent.data.device))
    with FlopCounterMode(display=False) as counter:
        features = plain.encoder(inputs.cpu())
        sum(head(features).sum() for head in plain.heads).backward()
    return counter.get_total_flops() / len(inputs)


def spread(values: list[float], digits: int) -> str:
    """Median, lowest and highest."""
    middle, low, high = (
        f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return f"{middle} [{low}, {high}]"


def measure(setting: int, args: argparse.Namespace, device: torch.device) -> None:
    """Time the variants of a setting in turn and print the results."""
    run = options_of(setting, args)
    data = generated(args.data, args.test_images, device)
    agent = make_agent(data, run)
    flops = flops_per_image(agent)
    ours = Ours(agent)
    variants: dict[str, Ours | Usual | Floor] = {"A": ours, "B": Usual(data, run, device), "C": Floor(agent)}
    training, evaluating = [], []
    for number in range(args.rounds + 1):  # the first round warms up
        trained, tested = {}, {}
        for name, variant in variants.items():
            (keep_memory_as_by_default if name == "B" else keep_freed_memory)()
            seconds(partial(variant.train, 1), device)
            if name == "A":
                seconds(ours.evaluate, device)
            took = seconds(partial(variant.train, args.steps), device)
            if name == "A":
                took += seconds(ours.lay_out, device) * args.steps / agent.plan.steps_per_epoch
            trained[name] = args.steps * BATCH_SIZE / took
            if number and not isinstance(variant, Floor):
                tested[name] = args.test_images / seconds(variant.evaluate, device)
            variant.model.zero_grad()  # frees the memory of its gradients
        if number:
            training.append(trained)
            evaluating.append(tested)

    def line(what: str, rows: list[dict[str, float]]) -> str:
        rates = [spread([row[name] for row in rows], 0) if name in rows[0] else "" for name in variants]
        ratios = [
            spread([row["A"] / row[other] for row in rows], 2) if other in rows[0] else "" for other in "BC"
        ]
        return f"setting {setting}  {what:10}  " + "  ".join(f"{cell:18}" for cell in (*rates, *ratios))

    gflops = [row["A"] * flops / 1e9 for row in training]
    print(f"{line('training', training)}  {spread(gflops, 0)}")
    print(line("evaluation", evaluating).rstrip(), flush=True)


def measure_losses(args: argparse.Namespace, device: torch.device) -> None:
    """Time setting 5 with each loss and print the results.

    Steps with each loss take turns with steps with `mean`.
    """
    print(heading(args, device, "steps of setting 5"))
    print(f"{'loss':14}  {'mean ms/step':18}  {'loss ms/step':18}  loss/mean")
    data = generated(args.data, args.test_images, device)
    keep_freed_memory()
    mean = Ours(make_agent(data, options_of(5, args, "mean")))
    for loss in args.loss:
        variants = (mean, Ours(make_agent(data, options_of(5, args, loss))))
        rows = []
        for _ in range(args.rounds):
            row = []
            for variant in variants:
                seconds(partial(variant.train, 1), device)
                took = seconds(partial(variant.train, args.steps), device)
                row.append(1000 * took / args.steps)
            rows.append(row)
        columns = [spread([row[i] for row in rows], 1) for i in range(2)]
        ratio = spread([with_loss / with_mean for with_mean, with_loss in rows], 2)
        print(f"{loss:14}  {columns[0]:18}  {columns[1]:18}  {ratio}", flush=True)


def measure_choices(setting: int, args: argparse.Namespace, device: torch.device) -> None:
    """Time steps and scoring of a setting with each choice of options and print the results."""
    print(heading(args, device, f"steps of setting {setting}"))
    print(f"{'ms/step':20}  {'to the first':18}  {'scoring s':18}  {'as trained s':18}  options")
    data = generated(args.data, args.test_images, device)
    keep_freed_memory()
    argv = ["--train", "--setting", str(setting), "--data", str(args.data), "--precision", args.precision]
    runs = [program.parse([*argv, *shlex.split(words)], OPTIONS) for words in args.choices]
    variants = [Ours(make_agent(data, run)) for run in runs]
    rows = []
    for number in range(args.rounds + 1):  # the first round warms up
        row = []
        for variant in variants:
            seconds(partial(variant.train, 1), device)
            step = 1000 * seconds(partial(variant.train, args.steps), device) / args.steps
            usual = seconds(variant.evaluate, device)
            row.append((step, usual, seconds(variant.agent.evaluate_as_trained, device)))
        if number:
            rows.append(row)
    for i, words in enumerate(args.choices):
        cells = [spread([row[i][j] for row in rows], 1) for j in range(3)]
        ratio = spread([row[i][0] / row[0][0] for row in rows], 2)
        print(f"{cells[0]:20}  {ratio:18}  {cells[1]:18}  {cells[2]:18}  {words}", flush=True)


def heading(args: argparse.Namespace, device: torch.device, what: str) -> str:
    """A heading with data set, version, device and options."""
    where = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{torch.get_num_threads()} CPU threads"
    )
    options = args.precision + (", compiled" if args.compile else "")
    if not args.loss and any(SETTINGS[setting].samples_tasks for setting in args.settings):
        options += f"; tasks a step in settings 3 and 4: {args.tasks_per_step}"
    return f"{DATA_SETS[args.data].name}, torch {torch.__version__}, {where}; {what}: {options}"


def measure_all(args: argparse.Namespace, device: torch.device) -> None:
    """Print the times of each setting, then the peak memory of each."""
    print(heading(args, device, "A and C"))
    columns = ("A images/s", "B images/s", "C images/s", "A/B", "A/C", "A GFLOP/s")
    print(" " * 23 + "  ".join(f"{column:18}" for column in columns).rstrip())
    for setting in args.settings:
        measure(setting, args, device)
    if device.type == "cuda" or Path("/proc/self/status").exists():
        for setting in args.settings:
            ours, usual = (peak_memory(variant, setting, args) for variant in "AB")
            print(
                f"setting {setting}  peak memory  A {ours:.0f} MB, B {usual:.0f} MB, A/B {ours / usual:.2f}",
                flush=True,
            )


def peak_memory(variant: str, setting: int, args: argparse.Namespace) -> float:
    """Peak memory of a process that runs one variant, in MB.

    The process does a few steps and an evaluation.
    """
    command = [sys.executable, __file__, "--data", args.data, "--settings", setting, "--memory_of", variant]
    command += ["--device", args.device, "--precision", args.precision, *["--compile"] * args.compile]
    command += ["--tasks_per_step", args.tasks_per_step]
    finished = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, text=True, check=True)
    return float(finished.stdout)


def measure_memory(args: argparse.Namespace, device: torch.device) -> None:
    """Run one variant and print this process's peak memory in MB."""
    run = options_of(args.settings[0], args)
    variant: Ours | Usual
    if args.memory_of == "A":
        data = generated(args.data, args.test_images, device)
        keep_freed_memory()
        variant = Ours(make_agent(data, run))
    else:  # B keeps its images on the CPU
        variant = Usual(generated(args.data, args.test_images, torch.device("cpu")), run, device)
    variant.train(3)
    variant.evaluate()
    if device.type == "cuda":
        print(torch.cuda.max_memory_allocated(device) / 1e6)
        return
    # The peak of getrusage would include that of the parent process.
    (peak,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    print(int(peak.split()[1]) * 1024 / 1e6)


class Parser(argparse.ArgumentParser):
    """Argument parser whose errors are one line and exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help explains the options)\n")


def typed(read: Callable[[str], object]) -> Callable[[str], object]:
    """Adapt a reader of options.py to argparse, keeping its error messages."""

    def read_word(text: str) -> object:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read_word


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, that of the process if none is given, and measure."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    numbers = range(len(SETTINGS))
    count = typed(COUNT)
    add(
        "--settings", type=int, nargs="+", choices=numbers, default=[0, 3, 5], help="settings to time (0 3 5)"
    )
    add("--data", type=int, default=0, choices=range(len(DATA_SETS)), help="as for main.py (0)")
    add("--tasks_per_step", type=count, default=1, help="in settings 3 and 4, as for main.py (1)")
    add("--steps", type=count, help="training steps per variant and round (8, on a GPU 400)")
    add("--rounds", type=count, default=3, help="number of rounds after the first, which warms up (3)")
    add("--test_images", type=count, help="number of test images (2000, on a GPU 10000)")
    add("--precision", choices=PRECISIONS, default="fp32", help="precision of A and C (fp32)")
    add(
        "--loss", type=typed(choice(LOSSES)), nargs="+", metavar="NAME",
        help="only time steps of setting 5 with these losses against those of `mean`",
    )  # fmt: skip
    add(
        "--choices", nargs="+", metavar="OPTIONS",
        help="only time steps and scoring with these options of main.py, one string for each",
    )  # fmt: skip
    add("--compile", action="store_true", help="compile A and C")
    add("--device", type=typed(DEVICE), default="auto", help="as for main.py (auto)")
    add("--memory_of", choices="AB", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    settings = [5] if args.loss else args.settings
    if wrong := [n for n in settings if SETTINGS[n].shared_inputs and not DATA_SETS[args.data].shared_inputs]:
        parser.error(f"setting {wrong[0]} cannot be trained on {DATA_SETS[args.data].name}")
    try:
        device = pick_device(args.device)
    except UserError as error:
        parser.error(str(error))
    args.steps = args.steps or STEPS[device.type]
    args.test_images = args.test_images or TEST_IMAGES[device.type]
    num_classes = DATA_SETS[args.data].num_classes
    if args.test_images < num_classes:
        parser.error(f"--test_images must be at least {num_classes}, the number of classes")
    try:
        with compiling(args.compile):
            if args.loss:
                measure_losses(args, device)
            elif args.choices:
                for setting in args.settings:
                    measure_choices(setting, args, device)
            elif args.memory_of:
                measure_memory(args, device)
            else:
                measure_all(args, device)
    except UserError as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
