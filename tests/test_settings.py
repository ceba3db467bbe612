"""The tables of tasks against the definitions of the data sets."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

import agents
import data
import losses
from errors import UserError
from options import OPTIONS
from settings import LOSSES, SCHEDULES, SETTINGS, Schedule, look_up
from tasks import DATA_SETS, OMNIGLOT_ALPHABETS

# The superclasses as the data set's authors list them; class ids are the classes in name order.
PUBLISHED_SUPERCLASSES = """
beaver dolphin otter seal whale
aquarium_fish flatfish ray shark trout
orchid poppy rose sunflower tulip
bottle bowl can cup plate
apple mushroom orange pear sweet_pepper
clock keyboard lamp telephone television
bed chair couch table wardrobe
bee beetle butterfly caterpillar cockroach
bear leopard lion tiger wolf
bridge castle house road skyscraper
cloud forest mountain plain sea
camel cattle chimpanzee elephant kangaroo
fox porcupine possum raccoon skunk
crab lobster snail spider worm
baby boy girl man woman
crocodile dinosaur lizard snake turtle
hamster mouse rabbit shrew squirrel
maple_tree oak_tree palm_tree pine_tree willow_tree
bicycle bus motorcycle pickup_truck train
lawn_mower rocket streetcar tank tractor
"""
SUPERCLASSES = [line.split() for line in PUBLISHED_SUPERCLASSES.strip().splitlines()]


def rows(spec):
    return list(spec.tasks.values())


@pytest.mark.parametrize("spec", [DATA_SETS[0], DATA_SETS[0].stand_in])
def test_a_cifar10_task_asks_of_every_class_whether_it_is_the_one(spec):
    assert len(spec.tasks) == spec.num_classes == 10
    for task, row in enumerate(rows(spec)):
        for label, number in enumerate(row):
            assert number == (1 if label == task else 0)
    assert spec.shared_inputs


@pytest.mark.parametrize("spec", [DATA_SETS[1], DATA_SETS[1].stand_in])
def test_a_cifar100_task_numbers_its_superclass_by_ascending_class_id(spec):
    class_ids = {name: i for i, name in enumerate(sorted(sum(SUPERCLASSES, [])))}
    assert len(spec.tasks) == 20
    assert len(class_ids) == spec.num_classes == 100
    for row, members in zip(rows(spec), SUPERCLASSES, strict=True):
        ids = sorted(class_ids[name] for name in members)
        assert [row[i] for i in ids] == [0, 1, 2, 3, 4]
        assert sum(number == -1 for number in row) == 95
    assert not spec.shared_inputs


@pytest.mark.parametrize("spec", [DATA_SETS[2], DATA_SETS[2].stand_in])
def test_an_omniglot_task_numbers_the_characters_of_its_alphabet(spec):
    assert len(spec.tasks) == 50
    first = 0
    for row in rows(spec):
        size = max(row) + 1
        assert list(row) == [-1] * first + list(range(size)) + [-1] * (spec.num_classes - first - size)
        first += size
    assert first == spec.num_classes
    assert not spec.shared_inputs


def test_omniglot_has_its_published_size_and_its_alphabets_are_in_name_order():
    background, evaluation = (list(part) for part in OMNIGLOT_ALPHABETS.values())
    assert (len(background), len(evaluation)) == (30, 20)
    assert background == sorted(background)
    assert evaluation == sorted(evaluation)
    omniglot = DATA_SETS[2]
    assert list(omniglot.tasks) == background + evaluation
    assert [max(row) + 1 for row in rows(omniglot)] == [
        size for part in OMNIGLOT_ALPHABETS.values() for size in part.values()
    ]
    assert omniglot.num_classes == 1623


@pytest.mark.parametrize(
    ("spec", "train", "test"),
    list(zip(DATA_SETS[:3], (50_000, 50_000, 25_968), (10_000, 10_000, 6_492), strict=True)),
    ids=lambda value: getattr(value, "name", None),
)
def test_the_numbers_of_images_are_the_published_ones(spec, train, test):
    assert (sum(spec.train_counts), sum(spec.test_counts)) == (train, test)
    assert len(set(spec.train_counts)) == len(set(spec.test_counts)) == 1
    assert spec.num_training_images() == train


@pytest.mark.parametrize("number", range(3))
def test_a_stand_in_has_the_channels_and_tasks_of_what_it_stands_for(number):
    real, generated = DATA_SETS[number], DATA_SETS[number].stand_in
    assert generated.synthetic
    assert not real.synthetic
    assert generated.channels == real.channels
    assert list(generated.tasks) == list(real.tasks)
    assert generated.shared_inputs == real.shared_inputs
    assert all(generated.num_training_images(task) >= 128 for task in generated.tasks)


@pytest.mark.parametrize(
    ("share", "counts", "held_out"),
    [(0.1, (500, 10), (50, 1)), (0.25, (6, 2), (2, 1)), (0.01, (16, 2), (1, 1)), (0.99, (20, 2), (19, 1))],
)
def test_a_share_of_each_class_is_held_out_rounded_but_never_all_or_none(share, counts, held_out):
    tasks = {"first": (1, 0), "second": (-1, 0)}
    spec = replace(DATA_SETS[0], tasks=tasks, train_counts=counts, test_counts=(1, 1), validation=share)
    assert spec.held_out == held_out
    assert spec.num_training_images() == sum(counts) - sum(held_out)
    assert spec.num_training_images("second") == counts[1] - held_out[1]
    assert spec.scored_on == "validation"
    assert replace(spec, validation=0.0).held_out == (0, 0)


def test_only_the_summed_losses_need_shared_inputs_and_only_4_and_6_are_weighted():
    published = SETTINGS[:7]  # there may be more
    assert [setting.shared_inputs for setting in published] == [False] * 5 + [True] * 2
    assert [setting.weighted for setting in published] == [False] * 4 + [True, False, True]


@pytest.mark.released
def test_the_page_of_options_has_each_with_its_default():
    rows = re.findall(r"^\| `--(\w+)[^|]*\|([^|]*)\|", Path("docs/options.md").read_text(), re.MULTILINE)
    defaults = {name: words.replace("`", "").strip() for name, words in rows}
    assert list(defaults) == ["train", *(option.name for option in OPTIONS)]
    for option in OPTIONS:
        shown = f"{option.default:g}" if isinstance(option.default, float) else str(option.default)
        if option.read is None:
            assert defaults[option.name] == "off"
        elif option.words is None and option.default is not None:
            assert defaults[option.name] == shown


def test_whatever_a_table_names_is_there():
    for setting in SETTINGS:
        assert issubclass(getattr(agents, setting.agent), agents.Agent)
    for loss in LOSSES.values():
        assert issubclass(getattr(losses, loss.combiner), losses.Combiner)
    for spec in DATA_SETS:
        assert callable(getattr(data, spec.reader))


def test_what_a_table_names_and_a_file_lacks_is_told_in_a_line_that_names_both():
    assert look_up({"One": 1}, "One", "room.py", "ROOMS") == 1
    with pytest.raises(UserError, match=r"^ROOMS names 'Two', and room\.py has nothing of that name"):
        look_up({"One": 1}, "Two", "room.py", "ROOMS")


def test_a_schedule_says_whether_its_rate_depends_on_the_number_of_epochs():
    for schedule in SCHEDULES.values():
        rates = {schedule.rate(done) for done in (0.0, 0.3, 0.7, 1.0)}
        assert schedule.needs_total == (len(rates) > 1)


def test_a_run_may_go_on_to_more_epochs_where_its_schedule_does_not_need_their_number(monkeypatch):
    monkeypatch.setitem(SCHEDULES, "halved", Schedule("half of --lr", lambda done: 0.5, needs_total=False))
    (epochs,) = (option for option in OPTIONS if option.name == "epochs")
    may_grow = {name: epochs.may_grow({"schedule": name}) for name in SCHEDULES}
    assert may_grow == {"constant": True, "cosine": False, "halved": True}
