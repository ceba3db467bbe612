"""What the numbers of --setting and --data stand for, as tables.

Nothing is imported here that takes time: the command line is read and checked against these tables before
torch is loaded.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

VERSION = "2.1.0"
"""Version of the program, written into every file that it makes."""


class UserError(Exception):
    """Something that the user can put right. Its text says what is wrong and what to do, in one line."""


@dataclass(frozen=True)
class Setting:
    """One way of training, with a name and its meaning in a few words.

    `kind` is the kind of model it trains: settings of the same kind can evaluate each other's models.
    `draws` says whether each step draws the tasks that it trains; how many is an option then.
    `weighted` says whether its tasks have weights of their own; otherwise they all weigh the same.
    `shared_inputs` says whether every task must have every image.
    """

    name: str
    words: str
    kind: str
    draws: bool = False
    weighted: bool = False
    shared_inputs: bool = False


SETTINGS = (
    Setting("standard", "one classifier over all classes", "standard"),
    Setting("standard by task", "trained as 0, scored task by task", "standard"),
    Setting("single task", "only the task given by --task", "single-task"),
    Setting(
        "uniform draws",
        "multi-task, each step draws one task, or more by --tasks_per_step, all equally likely",
        "multi-task",
        draws=True,
    ),
    Setting(
        "weighted draws",
        "multi-task, each step draws one task, or more by --tasks_per_step, some likelier than others",
        "multi-task",
        draws=True,
        weighted=True,
    ),
    Setting(
        "summed losses",
        "multi-task, each step takes all tasks and the mean of their losses, or what --loss says",
        "multi-task",
        shared_inputs=True,
    ),
    Setting(
        "weighted losses",
        "multi-task, each step takes all tasks and a weighted mean of their losses",
        "multi-task",
        weighted=True,
        shared_inputs=True,
    ),
)


@dataclass(frozen=True)
class DataSpec:
    """A data set as it is defined, known without reading its images.

    Attributes:
        name: that of the data set, or of the user's file.
        question: what the tasks ask.
        channels: of the images, 1 or 3.
        image_size: side of the square images as published.
        default_image_size: side that is trained on.
        epochs: how many are trained by default.
        mean: of the training pixels scaled to [0, 1], per channel; empty where loading measures it.
        std: their deviation, likewise.
        tasks: the name of each task with a row of one entry per class: the number that the class has
            within the task, or -1 where the task leaves the class out.
        train_counts: number of training images of each class.
        test_counts: number of test images of each class.
        synthetic: whether the images are generated.
        path: of the user's file, None for any other data set.
        checksum: of the content of that file.
        validation: share of each class's training images that is held out and scored in the test
            images' place.
    """

    name: str
    question: str
    channels: int
    image_size: int
    default_image_size: int
    epochs: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    tasks: dict[str, tuple[int, ...]]
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    synthetic: bool = False
    path: Path | None = None
    checksum: str = ""
    validation: float = 0.0

    @property
    def num_classes(self) -> int:
        """Number of classes of the whole data set."""
        return len(self.train_counts)

    @property
    def shared_inputs(self) -> bool:
        """Whether every task has every image."""
        return all(number >= 0 for row in self.tasks.values() for number in row)

    @property
    def title(self) -> str:
        """The name, with a mark where the images are generated."""
        return f"synthetic stand-in for {self.name}" if self.synthetic else self.name

    @property
    def scored_on(self) -> str:
        """Which images results are of: `test` or `validation`."""
        return "validation" if self.validation else "test"

    @property
    def held_out(self) -> tuple[int, ...]:
        """Number of training images of each class that are held out: the share, but neither all nor none."""
        if not self.validation:
            return (0,) * self.num_classes
        return tuple(
            max(1, min(count - 1, int(self.validation * count + 0.5))) for count in self.train_counts
        )

    def num_training_images(self, task: str | None = None) -> int:
        """Number of images that are trained on: of a task, given by its name, or in all."""
        row = (0,) * self.num_classes if task is None else self.tasks[task]
        counts = zip(row, self.train_counts, self.held_out, strict=True)
        return sum(count - held_out for number, count, held_out in counts if number >= 0)

    def training_sets(self, setting: int, task: int | None = None) -> dict[int | None, int]:
        """Number of images of each training set that an epoch goes through, by task; None is that of all.

        Args:
            setting: its number.
            task: that of a single-task model; default: all models together.
        """
        names = list(self.tasks)
        if task is not None:
            tasks = [task]
        elif SETTINGS[setting].draws or SETTINGS[setting].kind == "single-task":
            tasks = range(len(names))
        else:
            return {None: self.num_training_images()}
        return {each: self.num_training_images(names[each]) for each in tasks}


def _one_against_rest(names: list[str]) -> dict[str, tuple[int, ...]]:
    """A task per class: is it this class (1) or another (0)?"""
    return {name: tuple(int(name == other) for other in names) for name in names}


def _partition(groups: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """A task per group of class ids: which class of the group, numbered in ascending order, is it?"""
    num_classes = sum(len(group) for group in groups.values())
    return {
        name: tuple(group.index(c) if c in group else -1 for c in range(num_classes))
        for name, group in groups.items()
    }


def _consecutive(sizes: dict[str, int]) -> dict[str, tuple[int, ...]]:
    """A task per group of classes, whose class ids follow one another group by group."""
    num_classes, first = sum(sizes.values()), 0
    tasks = {}
    for name, size in sizes.items():
        tasks[name] = (-1,) * first + tuple(range(size)) + (-1,) * (num_classes - first - size)
        first += size
    return tasks


CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

# Official coarse label ids in order, each with the fine label ids of its five classes.
CIFAR100_SUPERCLASSES = {
    "aquatic_mammals": (4, 30, 55, 72, 95),
    "fish": (1, 32, 67, 73, 91),
    "flowers": (54, 62, 70, 82, 92),
    "food_containers": (9, 10, 16, 28, 61),
    "fruit_and_vegetables": (0, 51, 53, 57, 83),
    "household_electrical_devices": (22, 39, 40, 86, 87),
    "household_furniture": (5, 20, 25, 84, 94),
    "insects": (6, 7, 14, 18, 24),
    "large_carnivores": (3, 42, 43, 88, 97),
    "large_man-made_outdoor_things": (12, 17, 37, 68, 76),
    "large_natural_outdoor_scenes": (23, 33, 49, 60, 71),
    "large_omnivores_and_herbivores": (15, 19, 21, 31, 38),
    "medium_mammals": (34, 63, 64, 66, 75),
    "non-insect_invertebrates": (26, 45, 77, 79, 99),
    "people": (2, 11, 35, 46, 98),
    "reptiles": (27, 29, 44, 78, 93),
    "small_mammals": (36, 50, 65, 74, 80),
    "trees": (47, 52, 56, 59, 96),
    "vehicles_1": (8, 13, 48, 58, 90),
    "vehicles_2": (41, 69, 81, 85, 89),
}

# The alphabets of each folder of Omniglot in name order, each with its number of characters.
OMNIGLOT_ALPHABETS = {
    "images_background": {
        "Alphabet_of_the_Magi": 20,
        "Anglo-Saxon_Futhorc": 29,
        "Arcadian": 26,
        "Armenian": 41,
        "Asomtavruli_(Georgian)": 40,
        "Balinese": 24,
        "Bengali": 46,
        "Blackfoot_(Canadian_Aboriginal_Syllabics)": 14,
        "Braille": 26,
        "Burmese_(Myanmar)": 34,
        "Cyrillic": 33,
        "Early_Aramaic": 22,
        "Futurama": 26,
        "Grantha": 43,
        "Greek": 24,
        "Gujarati": 48,
        "Hebrew": 22,
        "Inuktitut_(Canadian_Aboriginal_Syllabics)": 16,
        "Japanese_(hiragana)": 52,
        "Japanese_(katakana)": 47,
        "Korean": 40,
        "Latin": 26,
        "Malay_(Jawi_-_Arabic)": 40,
        "Mkhedruli_(Georgian)": 41,
        "N_Ko": 33,
        "Ojibwe_(Canadian_Aboriginal_Syllabics)": 14,
        "Sanskrit": 42,
        "Syriac_(Estrangelo)": 23,
        "Tagalog": 17,
        "Tifinagh": 55,
    },
    "images_evaluation": {
        "Angelic": 20,
        "Atemayar_Qelisayer": 26,
        "Atlantean": 26,
        "Aurek-Besh": 26,
        "Avesta": 26,
        "Ge_ez": 26,
        "Glagolitic": 45,
        "Gurmukhi": 45,
        "Kannada": 41,
        "Keble": 26,
        "Malayalam": 47,
        "Manipuri": 40,
        "Mongolian": 30,
        "Old_Church_Slavonic_(Cyrillic)": 45,
        "Oriya": 46,
        "Sylheti": 28,
        "Syriac_(Serto)": 23,
        "Tengwar": 25,
        "Tibetan": 42,
        "ULOG": 26,
    },
}
_alphabets = {name: size for folder in OMNIGLOT_ALPHABETS.values() for name, size in folder.items()}

DATA_SETS = (
    DataSpec(
        name="CIFAR-10",
        question="one per class: is it this class or another?",
        channels=3,
        image_size=32,
        default_image_size=32,
        epochs=20,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        tasks=_one_against_rest(CIFAR10_CLASSES),
        train_counts=(5000,) * 10,
        test_counts=(1000,) * 10,
    ),
    DataSpec(
        name="CIFAR-100",
        question="one per superclass: which of its 5 classes is it?",
        channels=3,
        image_size=32,
        default_image_size=32,
        epochs=20,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        tasks=_partition(CIFAR100_SUPERCLASSES),
        train_counts=(500,) * 100,
        test_counts=(100,) * 100,
    ),
    DataSpec(
        name="Omniglot",
        question="one per alphabet: which of its 14 to 55 characters is it?",
        channels=1,
        image_size=105,
        default_image_size=32,
        epochs=100,
        mean=(0.9192,),
        std=(0.2725,),
        tasks=_consecutive(_alphabets),
        train_counts=(16,) * sum(_alphabets.values()),
        test_counts=(4,) * sum(_alphabets.values()),
    ),
)


def _stand_in(
    spec: DataSpec, tasks: dict[str, tuple[int, ...]], train_per_class: int, test_per_class: int
) -> DataSpec:
    """The generated stand-in of a data set."""
    num_classes = len(next(iter(tasks.values())))
    return replace(
        spec,
        image_size=32,
        mean=(0.5,) * spec.channels,
        std=(0.17,) * spec.channels,
        tasks=tasks,
        train_counts=(train_per_class,) * num_classes,
        test_counts=(test_per_class,) * num_classes,
        synthetic=True,
    )


SYNTHETIC = (
    _stand_in(DATA_SETS[0], DATA_SETS[0].tasks, train_per_class=64, test_per_class=32),
    _stand_in(DATA_SETS[1], DATA_SETS[1].tasks, train_per_class=32, test_per_class=16),
    _stand_in(
        DATA_SETS[2],
        _consecutive({name: 4 + t % 3 for t, name in enumerate(_alphabets)}),
        train_per_class=32,
        test_per_class=8,
    ),
)
"""The generated stand-ins, in the order of DATA_SETS: enough images for one batch of 128 per task."""

SCALARIZATIONS = {
    "uw": "uncertainty weighting: a learnt weight for each task (Kendall et al. 2018)",
    "dwa": "dynamic weight average: by how each loss falls from epoch to epoch (Liu et al. 2019)",
    "geometric_mean": "the geometric mean of the losses (Chennupati et al. 2019)",
    "random": "random weights, drawn anew for each step (Lin et al. 2022)",
    "imtl_l": "impartial learning by losses: a learnt weight for each task (Liu et al. 2021)",
    "famo": "fast adaptive optimisation: by how much each step lowers each loss (Liu et al. 2023)",
    "stch": "smooth Tchebycheff: close to the largest loss (Lin et al. 2024)",
}
AGGREGATIONS = {
    "mgda": "the shortest convex combination of the gradients (Desideri 2012; Sener and Koltun 2018)",
    "pcgrad": "each gradient without what opposes another (Yu et al. 2020)",
    "gradvac": "each gradient turned to agree with the others as usual (Wang et al. 2021)",
    "graddrop": "one sign for each coordinate, drawn by how many agree (Chen et al. 2020)",
    "cagrad": "close to the mean, but best for the task that gains least (Liu et al. 2021)",
    "imtl_g": "impartial learning by gradients: equal projections on all (Liu et al. 2021)",
    "aligned_mtl": "gradients made orthogonal and equally long (Senushkin et al. 2023)",
    "fairgrad": "gains that are alpha-fair (Ban and Ji 2024)",
    "nash_mtl": "gains that are Nash's bargain (Navon et al. 2022)",
    "upgrad": "each gradient projected to where it opposes none (Quinton and Rey 2024)",
    "config": "equal cosines to all gradients (Liu et al. 2024)",
}
LOSSES = {"mean": "the mean of the tasks' losses", **SCALARIZATIONS, **AGGREGATIONS}
"""How the losses of the tasks can be made one update in setting 5: a name, and what it does in words.

Scalarisations make one loss of many, aggregations one gradient of the encoder of those of the tasks.
"""

TORCHJD = "0.18"
"""The version of TorchJD that has these methods."""

SOLVERS = {
    "cagrad": ("cvxpy", "clarabel"),
    "fairgrad": ("scipy",),
    "nash_mtl": ("cvxpy", "ecos"),
    "upgrad": ("qpsolvers", "quadprog"),
}
"""The packages that some of them need beside TorchJD."""

PRECISIONS = ("fp32", "bf16")
"""What the network computes in; its weights are fp32 in any case."""


@dataclass(frozen=True)
class Schedule:
    """A learning rate schedule.

    Attributes:
        words: what it does, for the help.
        rate: the multiplier of --lr, as a function of the share of the run's steps that are done.
        needs_total: whether `rate` depends on that share, so that a run cannot go on to more epochs.
    """

    words: str
    rate: Callable[[float], float]
    needs_total: bool


SCHEDULES = {
    "constant": Schedule("--lr all along", lambda done: 1.0, needs_total=False),
    "cosine": Schedule(
        "from --lr to 0 over all steps of the run, along half a cosine",
        lambda done: (1 + math.cos(math.pi * done)) / 2,
        needs_total=True,
    ),
}
"""The learning rate schedules by name."""


def entry(table: Mapping | Sequence, key: object, where: str, named_in: str) -> object:
    """Look up an entry of a table that another table names.

    Args:
        table: the table.
        key: name or number of the entry.
        where: the table and its file, for the error.
        named_in: the table that names the entry, and its file.

    Raises:
        UserError: there is no such entry.
    """
    try:
        return table[key]
    except LookupError:
        raise UserError(f"{named_in} has an entry {key!r} and {where} has none: add it there") from None
