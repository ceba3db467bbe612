"""Time this program against the usual way of writing it, and against the bare arithmetic.

For each setting three variants take turns in one process, on generated images as many as the real ones:

  A  this program: the steps and the evaluation that main.py runs
  B  the usual way: a data set and a DataLoader per task, each image transformed when it is asked for, one
     pass of the whole network for each task and batch, the loss read after every step
  C  the floor: the same training step again and again on one batch that lies ready

Everything is printed as the median over rounds, with the lowest and the highest. Ratios are formed within a
round, where the machine is in the same state: A/B says how much faster this program is, A/C how much of
the possible speed it reaches. Images are counted once per step, however many tasks they train. FLOP/s are
the multiplications and additions of the training's convolutions and matrix products in A. Peak memory is
that of a process of its own for each variant (on a GPU what PyTorch took of its memory).

When its turn comes, a variant gets the C library's memory management as it is in a process of its own:
as main.py sets it for A and C, as it is by default for B. Before it is timed, it does a step, and A also
an evaluation, for A keeps the memory that it uses for many images at once, and lost it in B's turn.
"""

import argparse
import ctypes
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))

from agents import AGENTS, Agent
from data import DataSet, Split, images_of
from models import Model
from recording import Recorded
from runs import keep_freed_memory, pick_device
from settings import DATA_SETS, PRECISIONS, SETTINGS, TrainingOptions

BATCH_SIZE = 128

STEPS = {"cpu": 8, "cuda": 400}
TEST_IMAGES = {"cpu": 2000, "cuda": 10_000}
"""Defaults by type of device."""


def keep_memory_as_by_default() -> None:
    """Bring glibc's memory management to where that of a program with tensors of these sizes settles.

    Its threshold for memory that is mapped and unmapped each time moves up to the largest block below 32 MB
    that was freed, here the first convolution's output of 17 MB, and that for trimming to twice as much.
    """
    max_mappings, mapping_threshold, trim_threshold = -4, -3, -1  # as mallopt numbers its parameters
    largest = 16_781_312
    with suppress(OSError, TypeError, AttributeError):  # as in keep_freed_memory
        c_library = ctypes.CDLL(None)
        c_library.mallopt(max_mappings, 65_536)
        c_library.mallopt(mapping_threshold, largest)
        c_library.mallopt(trim_threshold, 2 * largest)
        c_library.malloc_trim(0)


def generated(number: int, test_images: int, device: torch.device) -> DataSet:
    """Random images with the shape, the classes and the number of training images of a data set."""
    spec = DATA_SETS[number]
    random = np.random.default_rng(0)
    side = spec.default_image_size

    def split(count: int) -> Split:
        images = random.integers(0, 256, (count, spec.channels, side, side), dtype=np.uint8)
        labels = torch.arange(count) % spec.num_classes
        return Split(torch.from_numpy(images).to(device), labels.to(device), spec)

    train = split(spec.train_per_class * spec.num_classes)
    return DataSet(spec, train, split(test_images), torch.tensor(list(spec.tasks.values())))


class UsualImages(Dataset):
    """The images of a task as they are usually served: one at a time, decoded and transformed."""

    def __init__(self, split: Split, numbers: Tensor, data: DataSet) -> None:
        keep = images_of(numbers, split.labels)
        self.images = split.images.cpu().permute(0, 2, 3, 1).numpy()[keep]
        self.labels = numbers[split.labels.cpu()[keep]].tolist()
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize(data.spec.mean, data.spec.std)]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[i].squeeze())), self.labels[i]


class Usual:
    """The experiment of an agent, written the usual way."""

    def __init__(self, agent: Agent, setting: int) -> None:
        self.data, self.setting = agent.data, setting
        self.device = self.data.device
        if setting in (0, 1):
            self.trained = torch.arange(self.data.spec.num_classes)[None]
        elif setting == 2:
            self.trained = self.data.tasks[agent.options.task][None]
        else:
            self.trained = self.data.tasks
        self.scored = self.data.tasks if setting == 1 else self.trained
        self.model = Model(self.data.spec.channels, (self.trained.amax(dim=1) + 1).tolist(), seed=0)
        self.model.to(self.device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        sets = [UsualImages(self.data.train, numbers, self.data) for numbers in self.trained]
        self.loaders = [DataLoader(each, BATCH_SIZE, shuffle=True, drop_last=True) for each in sets]
        self.batches = [self._endless(loader) for loader in self.loaders]
        self.tests = [DataLoader(UsualImages(self.data.test, n, self.data), BATCH_SIZE) for n in self.scored]

    @staticmethod
    def _endless(loader: DataLoader) -> Iterator:
        while True:
            yield from loader

    def train(self, steps: int) -> None:
        """Do some training steps."""
        self.model.train()
        total = 0.0
        tasks = range(len(self.trained))
        for _ in range(steps):
            self.optimizer.zero_grad()
            if SETTINGS[self.setting].shared_inputs:
                loss = sum(self._loss(task, *next(self.batches[task])) for task in tasks) / len(tasks)
            else:
                task = int(np.random.randint(len(tasks)))
                loss = self._loss(task, *next(self.batches[task]))
            loss.backward()
            self.optimizer.step()
            total += loss.item()

    def _loss(self, task: int, images: Tensor, labels: Tensor) -> Tensor:
        (logits,) = self.model(images.to(self.device), [task])
        return F.cross_entropy(logits, labels.to(self.device))

    @torch.no_grad()
    def evaluate(self) -> list[float]:
        """Accuracy of every scored task, each with passes of its own."""
        self.model.eval()
        accuracy = []
        for task, loader in enumerate(self.tests):
            right = 0
            for images, labels in loader:
                (logits,) = self.model(images.to(self.device), [0 if self.setting == 1 else task])
                numbers = self.scored[task]
                answers = logits.cpu()
                if self.setting == 1:
                    answers = numbers[answers.masked_fill(numbers < 0, -torch.inf).argmax(dim=1)]
                else:
                    answers = answers.argmax(dim=1)
                right += (answers == labels).sum().item()
            accuracy.append(right / len(loader.dataset))
        return accuracy


class Ours:
    """The experiment of an agent, as main.py runs it."""

    def __init__(self, agent: Agent) -> None:
        self.agent, self.model = agent, agent.model
        self._plan = agent.plan

    def train(self, steps: int) -> None:
        """Do some training steps, with their share of the work that is done once per epoch."""
        agent = self.agent
        start = time.perf_counter()
        sources, images = self._plan(1)
        planning = time.perf_counter() - start
        self.saved = planning * (1 - steps / agent.steps_per_epoch)  # the rest of the epoch's
        agent.plan = lambda epoch: (sources[:steps], images[:steps])
        agent.step, agent.seconds = 0, 0.0
        with tqdm(disable=True) as bar:
            agent._train_epoch(bar, pause=lambda: None)

    def evaluate(self) -> list[float]:
        """Accuracy of every scored task."""
        return self.agent.evaluate().accuracy


class Floor:
    """The training step of an agent on one batch."""

    def __init__(self, agent: Agent) -> None:
        self.agent, self.model = agent, agent.model
        device = agent.data.device
        self._batch = agent.data.train.batch(agent.sources[0].images[:BATCH_SIZE].to(device))
        self._do_step = Recorded(self._step, device) if device.type == "cuda" else self._step

    def _step(self, source: int) -> None:
        self.agent.update(self.agent.loss(source, *self._batch))

    def train(self, steps: int) -> None:
        """Do some training steps."""
        self.agent.model.train()
        for _ in range(steps):
            self._do_step(0)


def seconds(work, device: torch.device) -> float:
    """How long a piece of work takes, the device's part included."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def make(setting: int, args: argparse.Namespace, device: torch.device) -> Agent:
    """An agent on generated images."""
    data = generated(args.data, args.test_images, device)
    weights = tuple(range(1, len(data.tasks) + 1)) if SETTINGS[setting].weighted else None
    task = 1 if setting == 2 else None
    options = TrainingOptions(task=task, weights=weights, precision=args.precision, compile=args.compile)
    return AGENTS[setting](data, options)


def flops_per_image(agent: Agent) -> float:
    """Floating point operations of a training step per image, in convolutions and matrix products."""
    plain = Model(agent.data.spec.channels, (agent.source_numbers[0].amax(dim=1) + 1).tolist(), 0)
    inputs, _ = agent.data.train.batch(torch.arange(2, device=agent.data.device))
    with FlopCounterMode(display=False) as counter:
        plain(inputs.cpu(), range(len(plain.heads))).sum().backward()
    return counter.get_total_flops() / len(inputs)


def spread(values: list[float], digits: int) -> str:
    """Median, lowest and highest."""
    middle, low, high = (
        f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return f"{middle} [{low}, {high}]"


def measure(setting: int, args: argparse.Namespace, device: torch.device) -> None:
    """Time the variants of a setting in turn and print what came out."""
    agent = make(setting, args, device)
    flops = flops_per_image(agent)
    ours = Ours(agent)
    variants = {"A": ours, "B": Usual(agent, setting), "C": Floor(agent)}
    training, evaluating = [], []
    for number in range(args.rounds + 1):  # the first round warms up
        trained, tested = {}, {}
        for name, variant in variants.items():
            (keep_memory_as_by_default if name == "B" else keep_freed_memory)()
            seconds(lambda variant=variant: variant.train(1), device)
            if name == "A":
                seconds(variant.evaluate, device)
            took = seconds(lambda variant=variant: variant.train(args.steps), device)
            trained[name] = args.steps * BATCH_SIZE / (took - (ours.saved if name == "A" else 0))
            if name != "C" and number:
                tested[name] = args.test_images / seconds(variant.evaluate, device)
            variant.model.zero_grad()  # so that its memory can be given back
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


def peak_memory(variant: str, setting: int, args: argparse.Namespace) -> float:
    """Peak memory in MB of a process that runs one variant alone, with a few steps and an evaluation."""
    command = [sys.executable, __file__, "--data", args.data, "--settings", setting, "--memory_of", variant]
    command += ["--device", args.device, "--precision", args.precision, *["--compile"] * args.compile]
    finished = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, text=True, check=True)
    return float(finished.stdout)


def measure_memory(args: argparse.Namespace, device: torch.device) -> None:
    """Print the peak memory of this process in MB, having run one variant."""
    agent = make(args.settings[0], args, device)
    if args.memory_of == "A":
        keep_freed_memory()
        variant = Ours(agent)
    else:
        variant = Usual(agent, args.settings[0])
    variant.train(3)
    variant.evaluate()
    if device.type == "cuda":
        print(torch.cuda.max_memory_allocated(device) / 1e6)
        return
    # Not getrusage, whose peak starts from that of the process which started this one.
    (peak,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    print(int(peak.split()[1]) * 1024 / 1e6)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    numbers = range(len(SETTINGS))
    add("--settings", type=int, nargs="+", choices=numbers, default=[0, 3, 5], help="to time (0 3 5)")
    add("--data", type=int, default=0, choices=range(len(DATA_SETS)), help="as for main.py (0)")
    add("--steps", type=int, help="training steps of a variant in a round (8, on a GPU 400)")
    add("--rounds", type=int, default=3, help="rounds that are counted (3)")
    add("--test_images", type=int, help="images of an evaluation (2000, on a GPU 10000)")
    add("--precision", choices=PRECISIONS, default="fp32", help="of A and C (fp32)")
    add("--compile", action="store_true", help="compile in A and C")
    add("--device", default="auto", help="as for main.py (auto)")
    add("--memory_of", choices="AB", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if wrong := [
        n for n in args.settings if SETTINGS[n].shared_inputs and not DATA_SETS[args.data].shared_inputs
    ]:
        parser.error(f"setting {wrong[0]} cannot be trained on {DATA_SETS[args.data].name}")
    device = pick_device(args.device)
    args.steps = args.steps or STEPS[device.type]
    args.test_images = args.test_images or TEST_IMAGES[device.type]
    num_classes = DATA_SETS[args.data].num_classes
    if args.test_images < num_classes:
        parser.error(f"--test_images must be at least {num_classes}, the number of classes")
    if args.memory_of:
        measure_memory(args, device)
        return
    where = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{torch.get_num_threads()} CPU threads"
    )
    options = args.precision + (", compiled" if args.compile else "")
    print(f"{DATA_SETS[args.data].name}, torch {torch.__version__}, {where}; A and C: {options}")
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


if __name__ == "__main__":
    main()
