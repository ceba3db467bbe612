"""The definitions of the data sets: classes, tasks and stand-ins.

A data set is known from here without reading its images, so that the command line can be checked at once.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from settings import SETTINGS


@dataclass(frozen=True)
class DataSpec:
    """Definition of a data set.

    Attributes:
        name: name of the data set, or of the user's file.
        question: what the tasks ask.
        channels: number of channels of the images, 1 or 3.
        image_size: side of the square images as published.
        default_image_size: side that images are resized to by default.
        epochs: number of epochs that are trained by default.
        mean: mean of the training pixels scaled to [0, 1], per channel; empty where loading measures it.
        std: standard deviation of these pixels, likewise.
        tasks: the name of each task with a row of one entry per class: the number that the class has
            within the task, or -1 where the task leaves the class out.
        train_counts: number of training images of each class.
        test_counts: number of test images of each class.
        synthetic: whether the images are generated.
        path: where the user's file is; None for any other data set.
        checksum: checksum of the content of that file.
        validation: share of each class's training images, or of all where there are no classes, that is
            held out and scored in the test images' place.
        class_names: name of each class; empty where they have none.
        named_answers: for each task, the names of its answers in order, or empty where they have none; empty
            where no task has any. See `answer_names`.
        train_rows: where each image has a row of labels, one per task, and there are no classes but the
            distinct rows: the row of each training image, by number; empty for any other data set.
        reader: name of the function in data.py that reads its files.
        stand_in_counts: number of training and of test images of each class of its stand-in.
        stand_in_tasks: the tasks of its stand-in, where these are not its own.
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
    class_names: tuple[str, ...] = ()
    named_answers: tuple[tuple[str, ...], ...] = ()
    train_rows: tuple[int, ...] = ()
    reader: str = ""
    stand_in_counts: tuple[int, int] = (64, 32)
    stand_in_tasks: dict[str, tuple[int, ...]] | None = None

    @property
    def stand_in(self) -> "DataSpec":
        """Generated stand-in of the data set.

        It has enough images for one batch of 128 per task.
        """
        tasks = self.stand_in_tasks or self.tasks
        num_classes = len(next(iter(tasks.values())))
        train_count, test_count = self.stand_in_counts
        has_names = self.stand_in_tasks is None
        return replace(
            self,
            image_size=32,
            mean=(0.5,) * self.channels,
            std=(0.17,) * self.channels,
            tasks=tasks,
            train_counts=(train_count,) * num_classes,
            test_counts=(test_count,) * num_classes,
            synthetic=True,
            class_names=self.class_names if has_names else (),
            named_answers=self.named_answers if has_names else (),
        )

    @property
    def num_classes(self) -> int:
        """Number of classes of the whole data set."""
        return len(self.train_counts)

    @property
    def has_classes(self) -> bool:
        """Whether its images are of classes, and do not have labels for each task."""
        return not self.train_rows

    @property
    def answer_names(self) -> dict[str, tuple[str, ...]]:
        """The names of each task's answers, in order, by the name of the task.

        Where answers have no names, the number is the name.
        """
        given = self.named_answers or ((),) * len(self.tasks)
        return {
            task: names or tuple(map(str, range(max(row) + 1)))
            for (task, row), names in zip(self.tasks.items(), given, strict=True)
        }

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

    @cached_property
    def held_out(self) -> tuple[int, ...]:
        """Number of held-out training images of each class.

        This is the share `validation` of them, but neither all nor none. Where there are no classes, it is
        that share of all images.
        """

        def share_of(count: int) -> int:
            return max(1, min(count - 1, int(self.validation * count + 0.5)))

        if not self.validation:
            return (0,) * self.num_classes
        if self.has_classes:
            return tuple(map(share_of, self.train_counts))
        from own_data import held_out_images  # imports NumPy, which would slow down refusals

        num_images = len(self.train_rows)
        images = held_out_images(num_images, share_of(num_images)).tolist()
        counts = Counter(self.train_rows[image] for image in images)
        return tuple(counts[row] for row in range(self.num_classes))

    def num_training_images(self, task: str | None = None) -> int:
        """Number of images that are trained on.

        Args:
            task: name of the task whose images are counted; default: all images.
        """
        row = (0,) * self.num_classes if task is None else self.tasks[task]
        counts = zip(row, self.train_counts, self.held_out, strict=True)
        return sum(count - held_out for number, count, held_out in counts if number >= 0)

    def training_sets(self, setting: int, task: int | None = None) -> dict[int | None, int]:
        """Number of images of each training set, by task.

        An epoch goes through these sets. None stands for the set of all images.

        Args:
            setting: number of the setting.
            task: number of the task of a single-task model; default: all models together.
        """
        separate = SETTINGS[setting].samples_tasks or SETTINGS[setting].kind == "single-task"
        if task is None and not separate:
            return {None: self.num_training_images()}
        return {
            each: self.num_training_images(name)
            for each, name in enumerate(self.tasks)
            if task in (None, each)
        }


def _one_against_rest(names: list[str]) -> dict[str, tuple[int, ...]]:
    """A task per class: is it this class (1) or another (0)?"""
    return {name: tuple(int(name == other) for other in names) for name in names}


def _partition(groups: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """A task per group of class ids: which of them is it?

    The classes of a group are numbered in ascending order.
    """
    num_classes = sum(len(group) for group in groups.values())
    return {
        name: tuple(group.index(c) if c in group else -1 for c in range(num_classes))
        for name, group in groups.items()
    }


def _consecutive(sizes: dict[str, int]) -> dict[str, tuple[int, ...]]:
    """A task per group of consecutive class ids.

    The groups follow one another.
    """
    num_classes, first = sum(sizes.values()), 0
    tasks = {}
    for name, size in sizes.items():
        tasks[name] = (-1,) * first + tuple(range(size)) + (-1,) * (num_classes - first - size)
        first += size
    return tasks


CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

# In the order of the official fine label ids.
CIFAR100_CLASSES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard
    lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
    pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal
    shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
    telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
""".split()  # noqa: SIM905 - as a list it takes a hundred lines

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
        class_names=tuple(CIFAR10_CLASSES),
        named_answers=(("no", "yes"),) * 10,
        reader="cifar10",
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
        class_names=tuple(CIFAR100_CLASSES),
        named_answers=tuple(
            tuple(CIFAR100_CLASSES[c] for c in group) for group in CIFAR100_SUPERCLASSES.values()
        ),
        reader="cifar100",
        stand_in_counts=(32, 16),
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
        reader="omniglot",
        stand_in_counts=(32, 8),
        stand_in_tasks=_consecutive({name: 4 + t % 3 for t, name in enumerate(_alphabets)}),
    ),
)
