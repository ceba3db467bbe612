"""The ways of training: the heads of the model, the images that its steps train on, what is scored.

An agent says what differs between ways of training. The loop, the evaluation and what it takes to go on are
written once, for all of them.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from checks import FieldError, check_alike, check_finite
from data import DataSet
from losses import COMBINATIONS, Combination
from models import Model, computing_in
from options import Run
from sampling import Plan, Source
from scoring import Scorer, Scores
from settings import SCHEDULES, SETTINGS, UserError, entry


class Agent:
    """Trains and evaluates one model on one data set.

    A subclass says which heads the model has, from which sources its steps take their images, and which
    tasks it is scored on; here every task has a head and is scored.

    Attributes:
        names: of what is scored, in the order of every list of accuracies.
        model: the network.
        combination: what makes one update of the losses of a step.
        plan: what the steps train on.
        scorer: of the test images.
        epochs: the records of the epochs done, as `train` yields them.
        step: number of steps done in the epoch after these.
        losses: float32, steps of an epoch: the weighted sum of the losses of each of these steps.
        task_losses: float32, steps x heads: the loss of each head, NaN where a step did not train it.
        seconds: spent on these steps.
    """

    def __init__(
        self, data: DataSet, run: Run, network: Callable[[int, Sequence[int]], Model] = Model
    ) -> None:
        """
        Args:
            data: what to train on and what to score.
            run: how to train.
            network: makes the model, of a number of channels and the number of classes of each head.
        """
        self.data = data
        self.run = run
        device = data.device
        # Everything that a network or a library draws by itself comes from PyTorch's own generators.
        torch.manual_seed(run.seed)
        heads, scored = self.heads(), self.scored()
        self.names = list(scored)
        self.model = network(data.spec.channels, (heads.amax(dim=1) + 1).tolist())
        self.model.to(device, memory_format=torch.channels_last)
        if run.compile:
            self.model.encoder.compile(dynamic=False)
        self.combination = self.combine(len(heads)).to(device)
        self._optimizer = make_optimizer(self.model, self.combination, run)
        self.plan = Plan(self.sources(), run.batch_size, run.seed, run.tasks_per_step or 1)
        self.scorer = Scorer(data.test, torch.stack(list(scored.values())), heads)
        self.epochs: list[dict] = []
        self.step = 0
        self.seconds = 0.0
        # Of the running epoch, all on the device, so that a step need not wait for it.
        num_steps = self.plan.steps_per_epoch
        self.losses = torch.zeros(num_steps, device=device)
        self.task_losses = torch.full((num_steps, len(heads)), torch.nan, device=device)
        self._planned = 0
        self._answers = heads.to(device)
        self._weights = [torch.tensor(source.weights, device=device) for source in self.plan.sources]
        self._trained = [torch.tensor(source.heads, device=device) for source in self.plan.sources]

    # What differs between ways of training

    def heads(self) -> Tensor:
        """The number of each class among the answers of each head, or -1: int64, heads x classes."""
        return self.data.tasks

    def scored(self) -> dict[str, Tensor]:
        """The tasks that are scored: by name, int64, the number of each class within the task, or -1."""
        return dict(zip(self.data.spec.tasks, self.data.tasks, strict=True))

    def sources(self) -> list[Source]:
        """The images that steps are drawn from, and the heads that they train."""
        raise NotImplementedError

    def combine(self, num_heads: int) -> Combination:
        """What makes one update of the losses of a step."""
        name = self.run.loss or "mean"
        return entry(COMBINATIONS, name, "COMBINATIONS of losses.py", "LOSSES of settings.py")(num_heads)

    # What all have in common

    def train(self, epochs: int, pause: Callable[[], None] = lambda: None) -> Iterator[dict]:
        """Train until a number of epochs is done, from wherever the agent stands.

        Args:
            epochs: number of epochs in all, those already done included.
            pause: is called after every step and every batch of an evaluation. If it raises, the
                agent is left in a state that `train` can go on from to the same result.

        Yields:
            after each epoch: `epoch` (from 1), `accuracy` and `balanced_accuracy` (of each scored task),
            `loss` (mean over the steps), `task_loss` (of each head, mean over the steps that trained it,
            None where none did), `steps`, `images`, `seconds` (of training), `evaluation_seconds` and
            `images_per_second` (of training).

        Raises:
            UserError: a loss or what has been trained is not finite, or a source does not fill a batch.
        """
        num_steps = self.plan.steps_per_epoch
        done = len(self.epochs) * num_steps + self.step
        with tqdm(total=epochs * num_steps, initial=done, desc="training", unit="steps", disable=None) as bar:

            def after_step() -> None:
                bar.update()
                pause()

            while len(self.epochs) < epochs:
                self.train_steps(num_steps - self.step, after_step)
                start = time.perf_counter()
                scores = self.evaluate(pause=pause)
                self.epochs.append(self._record(scores, time.perf_counter() - start))
                self.combination.after_epoch()
                self.step, self.seconds = 0, 0.0
                done = f"epoch {len(self.epochs)}/{epochs}"
                bar.set_postfix_str(f"{done}, accuracy {np.mean(scores.accuracy):.4f}")
                yield self.epochs[-1]

    def _record(self, scores: Scores, evaluation_seconds: float) -> dict:
        num_steps = self.plan.steps_per_epoch
        num_images = num_steps * self.run.batch_size
        task_loss = self.task_losses.double().nanmean(dim=0).tolist()
        return {
            "epoch": len(self.epochs) + 1,
            "accuracy": scores.accuracy,
            "balanced_accuracy": scores.balanced_accuracy,
            "loss": self.losses.double().mean().item(),
            "task_loss": [None if math.isnan(loss) else loss for loss in task_loss],
            "steps": num_steps,
            "images": num_images,
            "seconds": self.seconds,
            "evaluation_seconds": evaluation_seconds,
            "images_per_second": num_images / self.seconds,
        }

    def train_steps(self, count: int, after_step: Callable[[], None] = lambda: None) -> None:
        """Do the next steps of the running epoch.

        Args:
            count: number of steps, at most those that the epoch has left.
            after_step: is called after each; if it raises, the step is done all the same.

        Raises:
            UserError: as `train`.
        """
        self._plan_epoch()
        self.model.train()
        start = time.perf_counter()
        try:
            for drawn in self._drawn[self.step : self.step + count].tolist():
                self._train_step(drawn)
                self.step += 1
                after_step()
            self.check_finite()
        finally:
            if self.data.device.type == "cuda":
                torch.cuda.synchronize(self.data.device)  # steps done are counted, and so is their time
            self.seconds += time.perf_counter() - start

    def _plan_epoch(self) -> None:
        """Lay out what the running epoch trains on, once."""
        epoch = len(self.epochs) + 1
        if self._planned != epoch:
            for source in self.plan.sources:
                if source.probability > 0 and len(source.images) < self.run.batch_size:
                    raise UserError(
                        f"{source.name} has {len(source.images)} training images, which do not fill a batch "
                        f"of {self.run.batch_size}: use a smaller --batch_size"
                    )
            self._drawn = self.plan.draws(epoch)
            self._images = torch.from_numpy(self.plan.images(epoch)).to(self.data.device)
            self.task_losses[self.step :] = torch.nan
            self._planned = epoch

    def _train_step(self, drawn: list[int]) -> None:
        """The next step, on images of the sources drawn; reads no value from the device."""
        images, labels = self.data.train.batch(self._images[self.step])
        losses, features = self._losses(drawn, images, labels)
        numbers = list(dict.fromkeys(drawn))
        weights = _joined([self._weights[i] * (drawn.count(i) / len(drawn)) for i in numbers])
        heads = _joined([self._trained[i] for i in numbers])
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate()
        self._optimizer.zero_grad(set_to_none=True)  # heads that take no part are left alone
        self.combination.backward(losses, weights, features, self.model.encoder.parameters())
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.stride() != parameter.stride():
                    # Fused steps take it that both lie in memory in the same order.
                    parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)
        self._optimizer.step()
        losses = torch.stack([loss.detach() for loss in losses])
        self.losses[self.step] = losses @ weights
        self.task_losses[self.step].index_copy_(0, heads, losses)
        self.combination.after_step(lambda: self._losses_anew(drawn, images, labels))

    def _losses_anew(self, drawn: list[int], images: Tensor, labels: Tensor) -> Tensor:
        """The losses of a step after it, float32, in a row; buffers and generators stay as they are."""
        device = self.data.device
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            losses, _ = self._losses(drawn, images, labels)
            for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(before)
        return torch.stack(losses)

    def _losses(self, drawn: list[int], images: Tensor, labels: Tensor) -> tuple[list[Tensor], Tensor]:
        """The losses of a step, one for each source drawn and head that it trains, and the features.

        Args:
            drawn: numbers of the sources of equal slices of the batch, in order.
            images: float32, B x C x H x W, normalised.
            labels: int64, B, class ids of the whole data set.
        """
        losses = []
        with computing_in(self.run.precision, self.data.device):
            features = self.model.encoder(images)
            slices = features.split(len(images) // len(drawn))
            slice_labels = labels.split(len(images) // len(drawn))
            for i in dict.fromkeys(drawn):
                places = [place for place, source in enumerate(drawn) if source == i]
                here = _joined([slices[place] for place in places])
                classes = _joined([slice_labels[place] for place in places])
                for head in self.plan.sources[i].heads:
                    logits = self.model.heads[head](here).float()
                    losses.append(F.cross_entropy(logits, self._answers[head][classes]))
        return losses, features

    def _rate(self) -> float:
        """Learning rate of the next step."""
        done = len(self.epochs) * self.plan.steps_per_epoch + self.step
        share = done / (self.run.epochs * self.plan.steps_per_epoch)
        return self.run.lr * SCHEDULES[self.run.schedule].rate(share)

    def check_finite(self) -> None:
        """Make sure that the training has not diverged.

        A loss tells of all steps before its own, so that the last update shows in the weights alone, and a
        running statistic may overflow where no loss does.

        Raises:
            UserError: a loss of the running epoch, or part of the state of the model or of the combination,
                is not finite.
        """
        wrong = (~self.losses[: self.step].isfinite()).nonzero().flatten().tolist()
        if wrong:
            epoch = len(self.epochs) + 1
            drawn = dict.fromkeys(self.plan.draws(epoch)[wrong[0]].tolist())
            names = ", ".join(self.plan.sources[i].name for i in drawn)
            raise UserError(
                f"the loss of {names} is not finite from step {wrong[0] + 1} of epoch {epoch} on, at "
                f"learning rate {self.run.lr}: use a smaller --lr; nothing was saved since"
            )
        try:
            check_finite(self.model.state_dict(), "model")
            check_finite(self.combination.state_dict(), "combination")
        except FieldError as error:
            raise UserError(
                f"{error} after step {self.step} of epoch {len(self.epochs) + 1}, at learning rate "
                f"{self.run.lr}: use a smaller --lr; nothing was saved since"
            ) from None

    def evaluate(self, progress: bool = False, pause: Callable[[], None] = lambda: None) -> Scores:
        """Score the model as it is; it changes nothing.

        Args:
            progress: whether to show a bar.
            pause: is called after every batch and may raise.
        """
        with self._uncompiled():
            return self.scorer(self.model, self.run.precision, progress=progress, pause=pause)

    def evaluate_with_own_statistics(
        self, progress: bool = False, pause: Callable[[], None] = lambda: None
    ) -> Scores | None:
        """Score the model with each task's own normalisation statistics; it changes nothing.

        A step normalises with the statistics of the tasks that it draws, an evaluation with those mixed over
        all tasks. What this costs is the difference between these scores and those of `evaluate`.

        Args:
            progress: whether to show a bar.
            pause: is called after every batch and may raise.

        Returns:
            the scores, or None where a step has the images of all tasks, where tasks share their images, or
            where the encoder has no batch normalisation.
        """
        if not SETTINGS[self.run.setting].draws or self.data.spec.shared_inputs:
            return None
        run = self.run
        with self._uncompiled():
            return self.scorer.with_own_statistics(
                self.model, self.data.train, run.batch_size, run.precision, progress, pause
            )

    def _uncompiled(self) -> AbstractContextManager:
        """Compiled code is for the steps, all of one shape; for each other one it would be compiled anew."""
        return torch.compiler.set_stance("force_eager") if self.run.compile else nullcontext()

    def state(self) -> dict:
        """What `resume` needs beside the network: numbers, strings, lists and tensors on the CPU.

        Which images and tasks come next follows from the seed and from how many steps have been done.
        """
        device = self.data.device
        generators = {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            generators["cuda"] = torch.cuda.get_rng_state(device)
        return {
            "epochs": self.epochs,
            "step": self.step,
            "losses": self.losses[: self.step].cpu(),
            "task_losses": self.task_losses[: self.step].cpu(),
            "seconds": self.seconds,
            "optimizer": _on_cpu(self._optimizer.state_dict()),
            "combination": _on_cpu(self.combination.state_dict()),
            "generators": generators,
        }

    def resume(self, network: dict[str, Tensor], state: dict) -> None:
        """Go on where another agent with the same data and options has left off.

        Args:
            network: state dict of its model.
            state: its `state`; of what is checked here, all but `epochs`, `step` and `seconds`.

        Raises:
            RuntimeError: the network is another one.
            FieldError: a field of the state is not what this agent would have; the text names it.
        """
        self._check_state(state)
        self.model.load_state_dict(network)
        self.epochs = list(state["epochs"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.losses[: self.step] = state["losses"].to(self.losses.device)
        self.task_losses[: self.step] = state["task_losses"].to(self.losses.device)
        try:
            self.combination.load_state_dict(state["combination"])
            self.combination.check_resumed(len(self.epochs), self.step, self.plan.steps_per_epoch)
        except FieldError:
            raise
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise FieldError(f"combination cannot be resumed ({error})") from error
        # The recipe is that of the run, so what the file says of it counts for nothing.
        gathered = self._optimizer.state_dict() | {"state": state["optimizer"]["state"]}
        self._optimizer.load_state_dict(gathered)
        for parameter, values in self._optimizer.state.items():
            for name, value in values.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    # Fused steps take it that both lie in memory in the same order.
                    values[name] = torch.empty_like(parameter).copy_(value)
        torch.set_rng_state(state["generators"]["cpu"])
        if self.data.device.type == "cuda" and "cuda" in state["generators"]:
            torch.cuda.set_rng_state(state["generators"]["cuda"], self.data.device)

    def _check_state(self, state: dict) -> None:
        """Check what depends on the network and the data in a state, field by field.

        Raises:
            FieldError: a field is not what this agent would have.
        """
        fresh = self.state()
        self._check_losses(state)
        gathered = {"state": fresh["optimizer"]["state"], "param_groups": None}
        check_alike(state.get("optimizer"), gathered, "optimizer")
        check_finite(state["optimizer"]["state"], "optimizer.state")
        extra = {name: None for name in fresh["combination"] if name.endswith("_extra_state")}
        check_alike(state.get("combination"), fresh["combination"] | extra, "combination")
        check_finite(state["combination"] | extra, "combination")  # extra states check themselves
        generators = state.get("generators")
        if not isinstance(generators, dict) or "cpu" not in generators:
            raise FieldError("generators.cpu is missing")
        for name in fresh["generators"].keys() & generators.keys():
            _check_generator(generators[name], fresh["generators"][name], f"generators.{name}")

    def _check_losses(self, state: dict) -> None:
        """Check the losses of the running epoch in a state.

        Raises:
            FieldError: they are not those of its steps.
        """
        step, num_steps = state["step"], self.plan.steps_per_epoch
        if step > num_steps:
            raise FieldError(f"step is above {num_steps}, the number of steps of an epoch")
        check_alike(state.get("losses"), self.losses[:step], "losses")
        check_finite(state["losses"], "losses")
        check_alike(state.get("task_losses"), self.task_losses[:step], "task_losses")
        trained = torch.zeros_like(state["task_losses"], dtype=torch.bool)
        for row, drawn in zip(trained, self.plan.draws(len(state["epochs"]) + 1).tolist(), strict=False):
            for i in drawn:
                row[list(self.plan.sources[i].heads)] = True
        if not torch.equal(state["task_losses"].isfinite(), trained):
            raise FieldError("task_losses are not those of the heads that the steps trained")


def _check_generator(found: object, like: Tensor, field: str) -> None:
    """Check that something is the state of a generator, as another is.

    Raises:
        FieldError: it is not.
    """
    check_alike(found, like, field)
    try:
        torch.Generator(field.rpartition(".")[2]).set_state(found)
    except RuntimeError:
        raise FieldError(f"{field} is not the state of a generator") from None


def make_optimizer(model: Model, combination: Combination, run: Run) -> torch.optim.Optimizer:
    """SGD over the network and whatever the losses are formed with, by the recipe of the run."""
    groups = [{"params": list(model.parameters()), "weight_decay": run.weight_decay}]
    if learnt := list(combination.parameters()):
        groups.append({"params": learnt, "weight_decay": 0.0})
    optimizer = torch.optim.SGD(groups, lr=run.lr, momentum=run.momentum, fused=True)
    if run.momentum:  # from the start, as fused steps cannot tell one parameter's first step from another's
        for parameter in [parameter for group in groups for parameter in group["params"]]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors one after the other; a single one as it is."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


def _on_cpu(state: object) -> object:
    """A nested state with its tensors on the CPU."""
    if isinstance(state, Tensor):
        return state.cpu()
    if isinstance(state, dict):
        return {key: _on_cpu(value) for key, value in state.items()}
    return [_on_cpu(value) for value in state] if isinstance(state, list | tuple) else state


class StandardAgent(Agent):
    """Setting 0: one head over all classes."""

    def heads(self) -> Tensor:
        """Every class, as it is numbered."""
        return torch.arange(self.data.spec.num_classes)[None]

    def scored(self) -> dict[str, Tensor]:
        """One task of all classes."""
        return {"all classes": self.heads()[0]}

    def sources(self) -> list[Source]:
        """Every image."""
        return [Source("all classes", np.arange(len(self.data.train)), heads=(0,))]


class StandardByTaskAgent(StandardAgent):
    """Setting 1: trained as setting 0, scored task by task."""

    def scored(self) -> dict[str, Tensor]:
        """Every task."""
        return Agent.scored(self)


class SingleTaskAgent(Agent):
    """Setting 2: the images and the classes of one task, one head."""

    def heads(self) -> Tensor:
        """That of the task."""
        return self.data.tasks[self.run.task][None]

    def scored(self) -> dict[str, Tensor]:
        """The task."""
        return {list(self.data.spec.tasks)[self.run.task]: self.heads()[0]}

    def sources(self) -> list[Source]:
        """The images of the task."""
        return [Source(*self.scored(), self.data.images_of(self.run.task), heads=(0,))]


class TaskSamplingAgent(Agent):
    """Settings 3 and 4: each step draws tasks by their weights and trains the encoder and their heads."""

    def sources(self) -> list[Source]:
        """Each task's own images."""
        probabilities = normalised(self.run.weights, len(self.data.tasks))
        return [
            Source(name, self.data.images_of(task), heads=(task,), probability=probabilities[task])
            for task, name in enumerate(self.data.spec.tasks)
        ]


class SummedLossAgent(Agent):
    """Settings 5 and 6: each step trains the encoder and all heads on the weighted sum of the task losses."""

    def sources(self) -> list[Source]:
        """Every image for every task."""
        num_tasks = len(self.data.tasks)
        weights = tuple(normalised(self.run.weights, num_tasks))
        return [Source("all tasks", np.arange(len(self.data.train)), tuple(range(num_tasks)), weights)]


def normalised(weights: Sequence[float] | None, num_tasks: int) -> list[float]:
    """Weights of the tasks scaled to sum to 1; None stands for equal ones."""
    weights = np.ones(num_tasks) if weights is None else np.array(weights, dtype=np.float64)
    return (weights / weights.sum()).tolist()


AGENTS = (
    StandardAgent,
    StandardByTaskAgent,
    SingleTaskAgent,
    TaskSamplingAgent,
    TaskSamplingAgent,
    SummedLossAgent,
    SummedLossAgent,
)
"""The agent of each setting."""
