"""Every block of docs/extending.md, in a copy of the program.

It is put where it belongs, and the copy is run.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path
from textwrap import indent

import pytest
from helpers import TOP, copy_program, run_in_copy, write_data

pytestmark = [pytest.mark.processes, pytest.mark.released]  # in an edited copy, some do not fit any more

EXTENDING = (TOP / "docs" / "extending.md").read_text()

SECTIONS = {
    title: re.findall(r"^```python\n# (.+?)\n(.+?)^```$", text, re.MULTILINE | re.DOTALL)
    for title, text in re.findall(r"^## (.+?)\n(.+?)(?=^## |\Z)", EXTENDING, re.MULTILINE | re.DOTALL)
}
"""The blocks of each section: where they belong, and what they say."""


def test_the_table_counts_the_lines_of_the_blocks():
    rows = re.findall(r"^\| .*\[.+?\]\(#(.+?)\).* \| (\d+) \|$", EXTENDING, re.MULTILINE)
    assert len(rows) >= 10
    for anchor, count in rows:
        (title,) = (each for each in SECTIONS if each.lower().replace(" ", "-") == anchor)
        blocks = [block for place, block in SECTIONS[title] if place != "a script of yours"]
        lines = [line for block in blocks for line in block.splitlines() if line.strip()]
        assert sum(not re.match(r"\s*(from|import) ", line) for line in lines) == int(count), title


def put(copy: Path, place: str, block: str) -> None:
    """Put a block into a copy of the program."""
    name, _, where = place.partition(", ")
    path = copy / name
    source = path.read_text()
    if where == "at the end":
        path.write_text(f"{source}\n\n{block}")
        return
    how, _, what = where.partition(": ")
    lines = source.splitlines(keepends=True)
    if how == "instead of":
        kind, _, name = what.partition(" ")
        node_type = {"class": ast.ClassDef, "def": ast.FunctionDef}[kind]
        (node,) = (n for n in ast.parse(source).body if isinstance(n, node_type) and n.name == name)
        first, last, margin = node.lineno - 1, node.end_lineno, ""
    else:
        (first,) = (i for i, line in enumerate(lines) if line.strip() == what)
        first, last = {
            "after the line": (first + 1, first + 1),
            "before the line": (first, first),
            "instead of the line": (first, first + 1),
        }[how]
        line = next(line for line in lines if line.strip() == what)
        margin = line[: len(line) - len(line.lstrip())]
    path.write_text("".join([*lines[:first], indent(block, margin), *lines[last:]]))


@pytest.fixture
def extended(tmp_path):
    """Copy the program, put the blocks of a section into the copy, and give back where it is."""

    def extended(title: str) -> Path:
        copy = copy_program(tmp_path / "copy")
        for place, block in SECTIONS[title]:
            put(copy, place, block)
        write_data(copy / "data.npz", [8, 8], size=8)
        return copy

    return extended


PROGRAM = """
import json, numpy, torch
import main, models
from functools import partial, partialmethod
from helpers import NUM_HIDDEN, SmallEncoder
from models import Dimensions, Model
from pathlib import Path
from options import make_run
from running.training import train
from running.stopping import Stopped, StopSignals

NETWORK = partial(Model, encoder=SmallEncoder, num_hidden=NUM_HIDDEN)
DATA = {"data": Path("data.npz"), "setting": 3, "batch_size": 8, "epochs": 2}
STOPS = [1, 3]

class StopAfter(StopSignals):
    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def check(self):
        self.steps -= 1
        if self.steps == 0:
            raise Stopped(15)

def line(*argv):
    assert main.main([str(argument) for argument in argv], network=NETWORK) == 0, argv

def weights(path):
    model = torch.load(Path(path) / "model.pt", weights_only=True)["model"]
    return b"".join(tensor.numpy().tobytes() for tensor in model.values())

def losses(path):
    return [epoch["loss"] for epoch in json.loads((Path(path) / "history.json").read_text())["epochs"]]
"""


def run_python(copy: Path, code: str) -> list[str]:
    """Run some lines in a copy of the program; gives back what they print."""
    return run_in_copy(copy, PROGRAM + code)


AGENTS = """
from agents import make_agent
from data import load

def agent_of(**more):
    run = make_run("train", DATA | more)
    return make_agent(load(run.spec, Path(), 8, torch.device("cpu")), run, NETWORK)
"""

LIFE = """
def life(seed, path, *stops):
    for steps in (*stops, 10**9):
        more = {"seed": seed, "save_path": Path(path), "resume": True, "save_history": True, "momentum": 0.5}
        try:
            train(make_run("train", DATA | more), StopAfter(steps), NETWORK, save_interval=3600)
        except Stopped:
            pass

life(0, "whole")
life(0, "parts", *STOPS)
assert weights("whole") == weights("parts"), "stopped and resumed, it ended with other weights"
assert losses("whole") == losses("parts")
line("--eval", "--setting", DATA["setting"], "--data", "data.npz", "--save_path", "whole", "--batch_size", 8)
accuracy = json.loads(Path("whole/history.json").read_text())["epochs"][-1]["accuracy"]
content = numpy.load("data.npz")
images, labels = (torch.from_numpy(content[f"test_{name}"]) for name in ("images", "labels"))
found = models.load("whole/model.pt", NETWORK).answers(images.permute(0, 3, 1, 2))
right = [logits.argmax(dim=1) == (labels == task) for task, logits in enumerate(found.values())]
assert accuracy == [each.double().mean().item() for each in right], "loaded, it answers otherwise"
assert f"Accuracy: {accuracy}" == Path("output").read_text().splitlines()[-1], "evaluation differs"
"""

OTHER_SEED = """
life(1, "other")
assert weights("whole") != weights("other"), "another seed gave the same weights"
"""

# Traced and differentiated as by inductor, whose C++ takes a compiler and half a minute a network.
COMPILED = """
backend = "aot_eager_default_partitioner"
torch.nn.Module.compile = partialmethod(torch.nn.Module.compile, backend=backend)
line("--train", "--setting", 3, "--data", "data.npz", "--batch_size", 8, "--epochs", 1, "--compile",
     "--save_history", "--save_path", "compiled", "--momentum", 0.5,
     *(word for name, value in CHOICE.items() for word in (f"--{name}", value)))
assert json.loads(Path("compiled/history.json").read_text())["sessions"][0]["environment"]["compiled"]
print(losses("whole")[0])
print(losses("compiled")[0])
"""


NETWORKS = {
    "Dropout": "NETWORK = partial(Model, num_hidden=NUM_HIDDEN)",
    "Another encoder": "NETWORK, STOPS, CHOICE = None, [3], {'encoder': 'patches', 'head': 'linear'}",
    "Another head": "NETWORK, STOPS, CHOICE = None, [3], {'head': 'cosine'}",
    "A head with a state of its own": "NETWORK, STOPS, CHOICE = None, [3], {'head': 'centred'}",
}


@pytest.mark.parametrize("title", NETWORKS)
def test_another_network_trains_resumes_to_the_bit_is_evaluated_as_it_trained_and_compiled(extended, title):
    copy = extended(title)
    code = f"CHOICE = {{}}\n{NETWORKS[title]}\nDATA |= CHOICE\n" + LIFE
    code += {"Dropout": OTHER_SEED + COMPILED, "Another encoder": COMPILED}.get(title, "")
    printed = run_python(copy, code)
    if "head" not in title:  # heads are not compiled
        losses, compiled = map(float, printed[-2:])
        assert compiled == pytest.approx(losses, rel=0.3 if title == "Dropout" else 1e-3)


def test_an_encoder_is_made_from_what_it_needs_and_is_in_the_help(extended):
    code = """
import models
model = models.make_model(models.Dimensions(1, 12, [2, 3]), "patches", "linear")
print(type(model.encoder).__name__, tuple(model.encoder(torch.zeros(2, 1, 12, 12)).shape), len(model.heads))
try:
    main.main(["--help"])
except SystemExit:
    pass
"""
    made, *helped = run_python(extended("Another encoder"), code)
    assert made == "PatchEncoder (2, 256) 2"
    assert "patches: patches of 4 x 4 pixels" in " ".join(" ".join(helped).split())


def test_a_pretrained_encoder_stays_as_its_file_has_it(extended):
    copy = extended("A pre-trained encoder")
    code = (
        """
NETWORK, STOPS = None, [3]
DATA |= {"encoder": "pretrained", "head": "linear", "epochs": 1}
assert main.main(["--train", "--data", "data.npz", "--encoder", "pretrained", "--batch_size", "8"]) == 1
assert Path("output").read_text().splitlines()[-1].startswith("main.py: error: cannot use resnet18.pth: ")

from torchvision.models import resnet18
torch.manual_seed(0)
network = resnet18()
network.eval()
for layer in network.modules():
    if isinstance(layer, torch.nn.BatchNorm2d):
        layer.running_mean.uniform_(-0.1, 0.1), layer.running_var.uniform_(0.5, 2)
torch.save(network.state_dict(), "resnet18.pth")
network.fc = torch.nn.Identity()
"""
        + AGENTS
        + LIFE
        + """
def assert_frozen(state):
    prefix = "encoder.layers."
    found = {name[len(prefix):]: value for name, value in state.items() if name.startswith(prefix)}
    assert found.keys() == network.state_dict().keys()
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in found.items())

assert_frozen(torch.load("whole/model.pt", weights_only=True)["model"])
mean, std = (torch.tensor(each).view(3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
for more in ({"setting": 5}, {"normalisation": "group", "head": "hidden"}):
    agent = agent_of(momentum=0.9, weight_decay=0.1, **more)
    heads = [each.clone() for each in agent.model.heads.parameters()]
    agent.train_steps(2)
    assert_frozen(agent.model.state_dict())
    assert not any(torch.equal(*pair) for pair in zip(heads, agent.model.heads.parameters()))
    assert all(each.grad is None for each in agent.model.encoder.parameters())
    held = [id(each) for group in agent._optimizer.param_groups for each in group["params"]]
    assert held == [id(each) for each in agent.model.heads.parameters()]
    images = agent.data.train.images[:4]
    with torch.no_grad():
        wanted = network((images / 255 - mean) / std)
        found = agent.model.encoder(agent.data.train.batch(torch.arange(4))[0])
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    assert any(isinstance(each, torch.nn.GroupNorm) for each in agent.model.modules()) == ("head" in more)
import models
grey = torch.rand(2, 1, 8, 8)
encoder = models.Pretrained(models.Dimensions(1, 8, [2], (0.3,), (0.2,))).train()
given = encoder((grey - 0.3) / 0.2)
torch.testing.assert_close(given, network((grey.expand(-1, 3, -1, -1) - mean) / std), rtol=1e-3, atol=1e-3)
"""
    )
    run_python(copy, code)


def test_each_head_mixes_the_experts_in_its_own_way_and_goes_with_every_kind_of_loss(extended):
    code = (
        """
import models
models.Encoder = SmallEncoder  # saves time
NETWORK, CHOICE = None, {"encoder": "experts", "head": "gated", "setting": 5, "loss": "pcgrad"}
DATA |= CHOICE
"""
        + AGENTS
        + LIFE
        + """
agent = agent_of(precision="bf16", normalisation="group")
agent.train_steps(2)
agent = agent_of(lr=0.01)
agent.train_steps(2)
agent.model.eval()
images, _ = agent.data.train.batch(torch.arange(8))
with torch.no_grad():
    features = agent.model.encoder(images)
    mixtures = []
    for head in agent.model.heads:
        head.gate.weight *= 10  # apart from equal shares
        kept, logits = [], head(features)
        for image, row in zip(features, logits):
            scores = [sum(w * x for w, x in zip(gate.tolist(), image.tolist())) for gate in head.gate.weight]
            gates = np.exp([score + bias for score, bias in zip(scores, head.gate.bias.tolist())])
            gates = torch.tensor(gates / gates.sum(), dtype=torch.float32)
            mixture = sum(gate * image[128 * e : 128 * e + 128] for e, gate in enumerate(gates))
            torch.testing.assert_close(head.answer(mixture), row, rtol=1e-3, atol=1e-4)
            kept.append(mixture)
        mixtures.append(torch.stack(kept))
assert len(mixtures) == 2 and not torch.allclose(*mixtures, rtol=0.01)
"""
    )
    run_python(extended("A mixture of experts for each task"), "import numpy as np\n" + code)


def test_each_task_has_batch_norm_statistics_that_no_other_task_touches(extended):
    code = (
        """
import copy
import models
from errors import UserError
models.POOLED_SIDE, models.Encoder.num_features = 2, 512  # saves time
NETWORK, CHOICE = None, {"encoder": "per_task", "tasks_per_step": 2}
DATA |= CHOICE
"""
        + AGENTS
        + LIFE
        + """
def loss_of(model, task, images, labels):
    logits = model.heads[task](model.encoder(images, task))
    return torch.nn.functional.cross_entropy(logits, agent._targets[task][labels])

agent, drawn = agent_of(momentum=0.5, weight_decay=0.1), set()
for step in range(agent.plan.steps_per_epoch):
    agent._plan_epoch()
    slow, (images, labels) = copy.deepcopy(agent.model), agent._batch()
    sampled = agent._sampled[step].tolist()
    drawn.add(frozenset(sampled))
    agent.train_steps(1)
    for task in dict.fromkeys(sampled):
        mine = [i for i in range(8) if sampled[i // 4] == task]
        loss = loss_of(slow, task, images[mine], labels[mine]).item()
        assert abs(agent.task_losses[step, task].item() - loss) < 1e-4
    for task, (norms, before) in enumerate(zip(agent.model.encoder.norms, slow.encoder.norms)):
        for name, buffer in norms.named_buffers():
            torch.testing.assert_close(buffer, dict(before.named_buffers())[name], rtol=1e-4, atol=1e-5)
        moved = any(not torch.equal(*pair) for pair in zip(norms.parameters(), before.parameters()))
        assert moved == (task in sampled)
assert len(drawn) > 1, drawn

def scores(model):
    test = agent.data.test
    images, labels = test.batch(torch.arange(len(test)))
    with torch.no_grad():
        return [loss_of(model.eval(), task, images, labels).item() for task in range(2)]

def close(one, other):
    return all(abs(a - b) < 1e-4 for a, b in zip(one, other, strict=True))

slow = copy.deepcopy(agent.model)
usual = scores(slow)
assert close(agent.evaluate().loss, usual)
((_, batches),) = agent.plan.separate_batches()  # both tasks have the same images
for task in range(2):
    norms = slow.encoder.norms[task].train()
    for layer in [each for part in (norms, slow.heads[task].train()) for each in part.modules()]:
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.reset_running_stats()
            layer.momentum = None
    with torch.no_grad():
        for batch in batches:
            slow.heads[task](slow.encoder(agent.data.train.batch(torch.from_numpy(batch))[0], task))
again = scores(slow)
assert close(agent.evaluate_as_trained().loss, again) and not close(usual, again)

for more in ({"setting": 0}, {"setting": 1}, {"setting": 2, "task": 1}):
    agent_of(**more | {"tasks_per_step": None}).train_steps(1)
for more in ({"normalisation": "group"}, {"tasks_per_step": "all", "precision": "bf16"}):
    agent_of(**more).train_steps(1)
for more in ({"setting": 5}, {"setting": 6}, {"compile": True}):
    try:
        agent_of(**{"tasks_per_step": None} | more)
        raise AssertionError(more)
    except UserError as error:
        print(error)
"""
    )
    *_, five, six, compiled = run_python(extended("Batch normalisation for each task"), code)
    assert "use --setting 3 or 4" in five
    assert "setting 6" in six
    assert "leave --compile out" in compiled


def test_an_average_of_the_weights_is_scored_saved_and_evaluated(extended):
    code = (
        """
DATA |= {"setting": 7}
"""
        + AGENTS
        + LIFE
        + """
def same(one, other, close=False):
    return all(torch.allclose(a, b) if close else torch.equal(a, b) for a, b in zip(one, other, strict=True))

agent = agent_of(momentum=0.5)
slow = [each.clone() for each in agent.model.state_dict().values()]
for _ in range(agent.plan.steps_per_epoch):
    agent.train_steps(1)
    for mean, value in zip(slow, agent.model.state_dict().values()):
        mean.copy_(0.9 * mean + 0.1 * value if mean.is_floating_point() else value)
average = agent.average.state_dict().values()
assert same(slow, average, close=True) and not same(average, agent.model.state_dict().values())
plain = agent_of(setting=3)
for network, alike in ((agent.average, True), (agent.model, False)):
    plain.model.load_state_dict(network.state_dict())
    assert (plain.evaluate() == agent.evaluate()) == alike
    assert (plain.evaluate_as_trained() == agent.evaluate_as_trained()) == alike

saved = torch.load("whole/model.pt", weights_only=True)
whole = agent_of(momentum=0.5)
list(whole.train(2))
assert same(saved["training"]["extra"].values(), whole.average.state_dict().values())
assert same(saved["model"].values(), whole.model.state_dict().values())
"""
    )
    run_python(extended("A moving average of the weights"), code)


def test_another_loss_trains_its_own_parameters_and_resumes_them(extended):
    code = (
        """
DATA |= {"setting": 5, "loss": "uncertainty"}
"""
        + LIFE
        + """
learnt = torch.load("whole/model.pt", weights_only=True)["training"]["combination"]["log_variances"]
print(learnt.tolist())
line("--train", "--setting", 5, "--data", "data.npz", "--batch_size", 8, "--epochs", 2, "--save_history",
     "--save_model", "--save_path", "mean", "--momentum", 0.5)
assert weights("mean") != weights("whole")
"""
    )
    copy = extended("Another loss combiner")
    printed = run_python(copy, code)
    (learnt,) = (ast.literal_eval(line) for line in printed if line.startswith("["))
    assert all(value < 0 for value in learnt)
    helped = subprocess.run([sys.executable, "main.py", "--help"], cwd=copy, capture_output=True, text=True)
    assert "uncertainty weights that are learnt" in " ".join(helped.stdout.split())


def test_another_way_to_sample_tasks_samples_them_by_it(extended):
    code = (
        AGENTS
        + """
print([source.probability for source in agent_of(setting=7).sources()])
"""
    )
    copy = extended("Another way to sample tasks")
    labels = {"tasks": [[0, 1, -1, -1, -1, -1], [-1, -1, 0, 1, 2, 3]]}
    write_data(copy / "data.npz", [9, 9, 18, 18, 18, 18], size=8, **labels)
    first, second = ast.literal_eval(*run_python(copy, code))
    assert second == pytest.approx(2 * first)


def test_another_augmentation_is_a_function_of_seed_epoch_and_step(extended):
    code = (
        """
DATA |= {"cutout": True}
"""
        + AGENTS
        + LIFE
        + """
import data
import numpy as np

def slow(images, key):
    images, side = images.clone(), images.shape[-1]
    down, right = np.random.default_rng(key).integers(0, side - side // 2 + 1, (2, len(images)))
    for image, top, left in zip(images, down, right):
        image[:, top : top + side // 2, left : left + side // 2] = 0
    return images

for shape in ((5, 3, 8, 8), (3, 1, 9, 9)):
    images = torch.rand(shape).to(memory_format=torch.channels_last) + 1
    before = images.clone()
    made = [data.cut_out(images, (0, 2, epoch, step)) for epoch in range(3) for step in range(3)]
    assert torch.equal(images, before)
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in made)
    for number, each in enumerate(made):
        assert torch.equal(each, slow(images, (0, 2, number // 3, number % 3)))
        assert not any(torch.equal(each, other) for other in made[:number])
        assert ((each == 0).sum(dim=(1, 2, 3)) == shape[1] * (shape[2] // 2) ** 2).all()
agent, plain, seen = agent_of(), agent_of(cutout=False), []
agent.model.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
agent.train_steps(2)
plain._plan_epoch()
assert torch.equal(seen[1], slow(data.Split.batch(plain.data.train, plain._indices[1])[0], (0, 2, 0, 1)))
agent.evaluate()
assert len(seen) > 2 and not any((each == 0).any() for each in seen[2:])

data.cut_out = lambda images, key: images * torch.rand(len(images), 1, 1, 1)
life(0, "torch")
life(0, "torch_parts", *STOPS)
assert weights("torch") == weights("torch_parts") != weights("whole")
"""
    )
    run_python(extended("Another augmentation"), code)


def test_gradients_are_clipped_between_the_backward_pass_and_the_step(extended):
    code = (
        AGENTS
        + LIFE
        + """
def gradients(agent):
    return [each.grad.clone() for each in agent.model.parameters() if each.grad is not None]

def lengths(**more):
    agent, before, after = agent_of(lr=0.5, **more), [], []
    backward = agent.combiner.backward
    agent.combiner.backward = lambda *arguments: (backward(*arguments), before.append(gradients(agent)))
    agent._optimizer.register_step_pre_hook(lambda *_: after.append(gradients(agent)))
    agent.train_steps(agent.plan.steps_per_epoch)
    for was, now in zip(before, after, strict=True):
        length = sum(each.double().square().sum().item() for each in was) ** 0.5
        for each, clipped in zip(was, now, strict=True):
            torch.testing.assert_close(clipped, each * min(1, 3 / length))
        yield length

for more in CHOICES:
    found = list(lengths(**more))
    assert max(found) > 3.1, found
    shorter += min(found) < 2.9
assert shorter
"""
    )
    choices = [{}, {"optimizer": "adamw", "precision": "bf16", "normalisation": "group"}]
    choices += [{"setting": 5, "loss": loss} for loss in ("uw", "famo", "pcgrad")]
    clip = 'DATA |= {"clip": 3.0}\n'  # clips some steps
    run_python(extended("Gradient clipping"), f"CHOICES, shorter = {choices}, 0\n" + clip + code)


def test_another_setting_is_one_like_the_others(extended):
    code = (
        """
DATA |= {"setting": 7}
"""
        + LIFE
        + """
print(json.loads(Path("whole/history.json").read_text())["epochs"][0]["task_loss"])
"""
    )
    copy = extended("Another setting")
    assert run_python(copy, code)[-1].endswith(", None]")
    helped = subprocess.run([sys.executable, "main.py", "--help"], cwd=copy, capture_output=True, text=True)
    assert "7  half: as 3, but for half of the tasks" in helped.stdout


def test_an_option_of_ones_own_changes_the_training_and_is_recorded(extended):
    code = """
for path, more in (("a", ()), ("b", ("--label_smoothing", 0.5))):
    line("--train", "--setting", 3, "--data", "data.npz", "--batch_size", 8, "--epochs", 1, "--save_history",
         "--save_path", path, *more)
print([json.loads(Path(path, "history.json").read_text())["options"]["label_smoothing"] for path in "ab"])
assert losses("b")[0] > 1.2 * losses("a")[0]
"""
    copy = extended("An option of your own")
    write_data(copy / "data.npz", [16, 16], size=8)
    assert run_python(copy, code)[-1] == "[0.0, 0.5]"


def test_a_data_set_of_ones_own_takes_no_code(extended):
    ((place, block),) = SECTIONS["A data set of your own"]
    assert place == "a script of yours"
    copy = extended("Dropout")
    subprocess.run([sys.executable, "-c", block], cwd=copy, check=True)
    code = """
line("--train", "--setting", 3, "--data", "own.npz", "--epochs", 1, "--batch_size", 64, "--save_history")
print(json.loads(Path("history.json").read_text())["tasks"])
"""
    assert run_python(copy, code)[-1] == "['dark', 'light']"


def test_a_data_set_that_is_downloaded_has_a_stand_in_and_its_reader(extended, tmp_path):
    code = """
import numpy as np
from dataclasses import replace
from torchvision import datasets
from data import load
from tasks import DATA_SETS
line("--train", "--setting", 5, "--data", 3, "--synthetic", "--image_size", 8, "--epochs", 1)
class Few:
    def __init__(self, path, train, download):
        self.data, self.targets = torch.zeros(10, 28, 28, dtype=torch.uint8), torch.arange(10)
datasets.FashionMNIST = Few
few = replace(DATA_SETS[3], train_counts=(1,) * 10, test_counts=(1,) * 10)
data = load(few, Path(), 32, torch.device("cpu"))
print(tuple(data.train.images.shape), data.tasks.tolist() == np.eye(10).tolist())
"""
    assert run_python(extended("A data set that is downloaded"), code)[-1] == "(10, 1, 32, 32) True"
