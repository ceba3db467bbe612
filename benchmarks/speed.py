"""Time this program against the usual way of writing it, and against the bare arithmetic.

For each setting three variants take turns in one process, on generated images as many as the real ones:

  A  this program: the steps and the evaluation that main.py runs
  B  the usual way: a data set and a DataLoader per task, each image transformed when it is asked for, one
     pass of the whole network for each task and batch, the loss read after every step
  C  the floor: the same training step again and again on one batch that lies ready

Ratios are formed within a round, where the machine is in the same state; the median over rounds is
printed with the lowest and the highest. A/B says how much faster this program is, A/C how much of the
possible speed it reaches. Images are counted once per step, however many tasks they train.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
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
from settings import DATA_SETS, SETTINGS, TrainingOptions

BATCH_SIZE = 128


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
        self.agent, self.data, self.setting = agent, agent.data, setting
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
        self.agent = agent
        self.device = agent.data.device
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
        self.agent = agent
        self.device = agent.data.device
        source = agent.sources[0]
        inputs, labels = agent.data.train.batch(source.images[:BATCH_SIZE].to(self.device))
        self.inputs, self.heads = inputs, source.heads
        self.targets = agent._source_numbers[0][:, labels]
        self.weights = agent._source_weights[0]
        self.optimizer = torch.optim.SGD(agent.model.parameters(), lr=0.01, fused=True)

    def train(self, steps: int) -> None:
        """Do some training steps."""
        self.agent.model.train()
        for _ in range(steps):
            outputs = self.agent.model(self.inputs, self.heads)
            losses = [F.cross_entropy(o, t) for o, t in zip(outputs, self.targets, strict=True)]
            self.optimizer.zero_grad(set_to_none=True)
            (torch.stack(losses) @ self.weights).backward()
            self.optimizer.step()


def seconds(work, device: torch.device) -> float:
    """How long a piece of work takes, the device's part included."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def make(setting: int, number: int, test_images: int, device: torch.device) -> Agent:
    """An agent on generated images."""
    data = generated(number, test_images, device)
    weights = tuple(range(1, len(data.tasks) + 1)) if SETTINGS[setting].weighted else None
    return AGENTS[setting](data, TrainingOptions(task=1 if setting == 2 else None, weights=weights))


def measure(setting: int, args: argparse.Namespace, device: torch.device) -> None:
    """Time the variants of a setting in turn and print what came out."""
    agent = make(setting, args.data, args.test_images, device)
    ours, usual, floor = Ours(agent), Usual(agent, setting), Floor(agent)
    variants = {"A": ours, "B": usual, "C": floor}
    with FlopCounterMode(display=False) as counter:
        floor.train(1)
    flops = counter.get_total_flops() / BATCH_SIZE
    training, evaluating = [], []
    for number in range(args.rounds + 1):  # the first round warms up
        row = {}
        for name, variant in variants.items():
            took = seconds(lambda variant=variant: variant.train(args.steps), device)
            row[name] = args.steps * BATCH_SIZE / (took - (variant.saved if variant is ours else 0))
        test = {n: args.test_images / seconds(variants[n].evaluate, device) for n in "AB"}
        if number:
            training.append(row)
            evaluating.append(test)

    def middle(rows: list[dict], name: str) -> str:
        return f"{statistics.median(row[name] for row in rows):8.0f}"

    def ratio(rows: list[dict], over: str, under: str) -> str:
        ratios = [row[over] / row[under] for row in rows]
        return f"{statistics.median(ratios):5.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"

    rate = statistics.median(row["A"] for row in training) * flops / 1e9
    print(
        f"setting {setting}  train  {middle(training, 'A')} {middle(training, 'B')} {middle(training, 'C')}  "
        f"A/B {ratio(training, 'A', 'B')}  A/C {ratio(training, 'A', 'C')}  {rate:.0f} GFLOP/s"
    )
    print(
        f"setting {setting}  eval   {middle(evaluating, 'A')} {middle(evaluating, 'B')} {'':8}  "
        f"A/B {ratio(evaluating, 'A', 'B')}",
        flush=True,
    )


def peak_memory(variant: str, setting: int, args: argparse.Namespace) -> float:
    """Peak memory in MB of a process that runs one variant alone, with a few steps and an evaluation."""
    command = [sys.executable, __file__, "--data", args.data, "--settings", setting, "--memory_of", variant]
    finished = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    return float(finished.stdout)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", type=int, nargs="+", default=[0, 3, 5], help="settings to time (0 3 5)")
    parser.add_argument("--data", type=int, default=0, choices=(0, 1), help="0 CIFAR-10, 1 CIFAR-100 (0)")
    parser.add_argument("--steps", type=int, default=8, help="training steps of a variant in a round (8)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that are counted (3)")
    parser.add_argument("--test_images", type=int, default=1000, help="images of an evaluation (1000)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--memory_of", choices="AB", help=argparse.SUPPRESS)
    args = parser.parse_args()
    device = torch.device(args.device)
    if args.memory_of:
        agent = make(args.settings[0], args.data, args.test_images, device)
        variant = Ours(agent) if args.memory_of == "A" else Usual(agent, args.settings[0])
        variant.train(3)
        variant.evaluate()
        # Not getrusage, whose peak starts from that of the process which started this one.
        (peak,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
        print(int(peak.split()[1]) / 1024)
        return
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    print(f"{DATA_SETS[args.data].name}, torch {torch.__version__} on {device}{threads}; images per second:")
    print(f"{'':18} {'A':>8} {'B':>8} {'C':>8}")
    for setting in args.settings:
        measure(setting, args, device)
    if device.type == "cpu" and Path("/proc/self/status").exists():
        for setting in args.settings:
            ours, usual = (peak_memory(variant, setting, args) for variant in "AB")
            print(
                f"setting {setting}  peak memory  A {ours:.0f} MB, B {usual:.0f} MB, A/B {ours / usual:.2f}"
            )


if __name__ == "__main__":
    main()
