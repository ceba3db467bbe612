"""Agents: one class per setting, and the training loop that they share.

An agent trains one shared encoder and a head per task. Its class defines which heads the model has, from
which sources steps sample their images, and which tasks are scored. `Agent._train_step` does one step.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from data import DataSet, augmented
from errors import UserError
from losses import Combiner, make_combiner
from models import Dimensions, Model, computing_in, encode_apart, make_model, normalise_by_groups, takes_task
from optimizers import load_state, make_optimizer
from options import ALL, Run
from sampling import AUGMENTING, Plan, Source
from scoring import Prediction, Scorer, Scores
from settings import SCHEDULES, SETTINGS, look_up
from storage.checkpoint import check_agent
from storage.checks import FieldError, check_alike, check_finite
from storage.history import ALL_CLASSES

Network = Callable[[Dimensions], Model]
"""Makes the model."""


class Agent:
    """Trains and evaluates one model on one data set.

    Attributes:
        names: names of the scored tasks, in the order of every list of scores.
        model: the network.
        combiner: combines the losses of a step into one update.
        plan: decides the sources and images of each step.
        scorer: scores models on the test images.
        epochs: records of the finished epochs, as `train` yields them.
        step: number of steps done in the current epoch.
        losses: weighted sum of the losses of each step of the current epoch: float32, steps.
        task_losses: loss of each head in each of these steps, NaN if it was not trained: float32, steps x
            heads.
        hits: number of correct answers of each head in these steps: int64, heads; None in an epoch that
            version 2.1 has begun.
        gradients: how the gradients of the tasks agreed in the first of these steps, with --gradients.
        scores: scores of the last evaluation, None before it.
        kept: with --keep best, a copy of `scored_state` after the best epoch so far; None before the first.
        seconds: time spent on these steps.
    """

    def __init__(self, data: DataSet, run: Run, network: Network | None = None) -> None:
        self.data = data
        self.run = run
        device = data.device
        torch.manual_seed(run.seed)  # for initial weights, dropout, random losses
        targets, scored = self.targets(), self.scored()
        self.names = list(scored)
        size = data.train.images.shape[-1]
        num_classes = (targets.amax(dim=1) + 1).tolist()
        dimensions = Dimensions(data.spec.channels, size, num_classes, data.spec.mean, data.spec.std)
        self.model = network(dimensions) if network else make_model(dimensions, run.encoder, run.head)
        if run.normalisation == "group":
            normalise_by_groups(self.model)
        self.model.to(device).to(memory_format=torch.channels_last)
        if takes_task(self.model):
            _check_single_tasks(self.sources(), run)
        if run.compile:
            self.model.encoder.compile(dynamic=False)
        self.combiner = self.make_combiner(len(targets)).to(device)
        per_step = None if run.tasks_per_step == ALL else run.tasks_per_step or 1
        apart = takes_task(self.model) or run.normalisation == "apart"
        self.plan = Plan(self.sources(), run.batch_size, run.seed, per_step, apart)
        self.scorer = Scorer(data.test, torch.stack(list(scored.values())), targets)
        self.epochs: list[dict[str, Any]] = []
        self.scores: Scores | None = None
        self.kept: dict[str, Any] | None = None
        self.step = 0
        self.seconds = 0.0
        num_steps = self.plan.steps_per_epoch
        self.losses = torch.zeros(num_steps, device=device)
        self.task_losses = torch.full((num_steps, len(targets)), torch.nan, device=device)
        self.hits: Tensor | None = torch.zeros(len(targets), dtype=torch.int64, device=device)
        self.gradients: dict[str, Any] | None = None
        self._optimizer = make_optimizer(self.model, self.combiner, run)
        self._targets = targets.to(device)
        self._heads_of = [torch.tensor(source.heads, device=device) for source in self.plan.sources]
        self._weights_of = [torch.tensor(source.weights, device=device) for source in self.plan.sources]
        self._planned_epoch = 0
        self._sampled: np.ndarray  # sources of the planned epoch, as `Plan.sampled` returns them
        self._indices: Tensor  # images of the planned epoch, as `Plan.indices` returns them

    # What a subclass defines

    def targets(self) -> Tensor:
        """Target of each class at each head: int64, heads x classes.

        -1 where a head leaves a class out. Default: a head per task.
        """
        return self.data.tasks

    def scored(self) -> dict[str, Tensor]:
        """Target of each class in each scored task, by name.

        Each is int64, one entry per class, -1 where the task leaves the class out. Default: all tasks.
        """
        return dict(zip(self.data.spec.tasks, self.data.tasks, strict=True))

    def sources(self) -> list[Source]:
        """Sources that steps sample, each with the heads that it trains."""
        raise NotImplementedError

    def make_combiner(self, num_heads: int) -> Combiner:
        """Make the loss combiner; default: that of --loss."""
        return make_combiner(self.run.loss or "mean", num_heads)

    # A step

    def _train_step(self, sampled: list[int]) -> None:
        """Train on the next batch, without waiting for the device.

        Args:
            sampled: the source of each slice of the batch, by number; a source may come twice.
        """
        images, labels = self._batch()
        losses, hits, features = self._forward(sampled, images, labels)
        heads, weights = self._heads_and_weights(sampled)
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        self._optimizer.zero_grad()  # sets them to None, so a head without gradient stays as it is
        self.combiner.backward(losses, weights, features, self.model.encoder.parameters())
        self._optimizer.step()
        values = torch.stack([loss.detach() for loss in losses])
        self.losses[self.step] = values @ weights
        self.task_losses[self.step].index_copy_(0, heads, values)
        if self.hits is not None:
            self.hits.index_add_(0, heads, torch.stack(hits))
        self.combiner.after_step(lambda: self._recompute(sampled, images, labels))
        self.after_step()

    def _forward(
        self, sampled: list[int], images: Tensor, labels: Tensor
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Compute losses, numbers of correct answers, and features of a batch.

        There is a loss and a number of correct answers for each sampled source at each of its heads.
        """
        losses, hits = [], []
        with computing_in(self.run.precision, self.data.device):
            features, features_of = self._encode(sampled, images)
            labels_of = _by_source(labels, sampled)
            for source in features_of:
                for head in self.plan.sources[source].heads:
                    logits = self.model.heads[head](features_of[source]).float()
                    targets = self._targets[head][labels_of[source]]
                    losses.append(F.cross_entropy(logits, targets))
                    hits.append((logits.detach().argmax(dim=1) == targets).sum())
        return losses, hits, features

    def _batch(self) -> tuple[Tensor, Tensor]:
        """The images and labels of the next step."""
        images, labels = self.data.train.batch(self._indices[self.step])
        if self.run.augment:
            images = augmented(images, (self.run.seed, AUGMENTING, len(self.epochs), self.step))
        return images, labels

    def _encode(self, sampled: list[int], images: Tensor) -> tuple[list[Tensor], dict[int, Tensor]]:
        """Compute the features of a batch: as the encoder returns them, and by source."""
        if self.plan.apart:
            slices = _by_source(images, sampled)
            tasks = [self.plan.sources[source].heads[0] for source in slices]
            features = encode_apart(self.model, list(slices.values()), tasks)
            return features, dict(zip(slices, features, strict=True))
        together = self.model.encoder(images)
        return [together], _by_source(together, sampled)

    def _heads_and_weights(self, sampled: list[int]) -> tuple[Tensor, Tensor]:
        """Head and weight of each loss.

        A source weighs its share of the slices.
        """
        counts = Counter(sampled)
        weights = [self._weights_of[source] * (count / len(sampled)) for source, count in counts.items()]
        return _concatenate([self._heads_of[source] for source in counts]), _concatenate(weights)

    def _recompute(self, sampled: list[int], images: Tensor, labels: Tensor) -> Tensor:
        """Compute the losses of a step again, without gradients.

        The result is float32, one number per loss. Buffers and generators stay as they are.
        """
        with torch.no_grad(), self._leaving_no_trace():
            return torch.stack(self._forward(sampled, images, labels)[0])

    @contextmanager
    def _leaving_no_trace(self) -> Iterator[None]:
        """Restore the buffers of the model and PyTorch's generators afterwards."""
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        with torch.random.fork_rng(self._cuda_devices()):
            yield
        with torch.no_grad():
            for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(before)

    def _measure_gradients(self, sampled: list[int]) -> dict[str, Any]:
        """How the gradients of the tasks agree in the next step, which stays as it is.

        Returns:
            `norms`: length of each task's gradient of the encoder; `cosines`: a row per task, its cosine with
            each task, 0 where a gradient is 0; `weights`: weight of each in the update, or None if the loss
            combiner has none.
        """
        encoder = [each for each in self.model.encoder.parameters() if each.requires_grad]
        with self._leaving_no_trace(), self._uncompiled():
            losses, _, _ = self._forward(sampled, *self._batch())
            rows = []
            for loss in losses:
                found: Sequence[Tensor | None] = [None] * len(encoder)
                if encoder and loss.requires_grad:  # otherwise the encoder, or the whole network, is frozen
                    found = torch.autograd.grad(loss, encoder, retain_graph=True, allow_unused=True)
                filled = [
                    torch.zeros_like(p) if g is None else g for p, g in zip(encoder, found, strict=True)
                ]
                rows.append(torch.cat([loss.new_zeros(0), *(each.flatten() for each in filled)]))
            gradients = torch.stack(rows).float()
            _, weights = self._heads_and_weights(sampled)
            given = self.combiner.task_weights(torch.stack(losses), weights, gradients)
        norms = torch.linalg.vector_norm(gradients, dim=1, dtype=torch.float64)  # which does not overflow
        units = gradients / norms.float().clamp(min=torch.finfo(torch.float32).tiny)[:, None]
        return {
            "norms": norms.tolist(),
            "cosines": (units @ units.T).tolist(),
            "weights": None if given is None else given.tolist(),
        }

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return self._learning_rate_at(self.steps_done / (self.run.epochs * self.plan.steps_per_epoch))

    def learning_rate_of(self, epoch: int) -> float:
        """Learning rate of the first step of an epoch, numbered from 1."""
        return self._learning_rate_at((epoch - 1) / self.run.epochs)

    def _learning_rate_at(self, progress: float) -> float:
        """Learning rate after a share of the steps of the run."""
        return self.run.lr * SCHEDULES[self.run.schedule].rate(progress)

    @property
    def steps_done(self) -> int:
        """Number of steps done in all epochs."""
        return len(self.epochs) * self.plan.steps_per_epoch + self.step

    def after_step(self) -> None:
        """Called after each step; does nothing by default."""

    # The loop

    def train(self, epochs: int, pause: Callable[[], None] = lambda: None) -> Iterator[dict[str, Any]]:
        """Train from the current step until a number of epochs is done.

        Args:
            epochs: number of epochs in all, including those that are done.
            pause: called after every step and after every batch of an evaluation. If it raises, `train` can
                be called again, with the same result.

        Yields:
            the record of each epoch: `epoch` (from 1), `accuracy` and `balanced_accuracy` (of each scored
            task), `loss` (mean over the steps), `task_loss` (of each head, mean over the steps that trained
            it, None where none did), `train_accuracy` (of each head in these steps, likewise), `test_loss`
            (of each scored task), `steps`, `images`, `seconds` (of training), `evaluation_seconds` and
            `images_per_second` (of training); with --gradients `gradients`; `combiner`, if the loss combiner
            records numbers.

        Raises:
            UserError: a loss or part of the model is not finite, or a source does not fill a batch.
        """
        num_steps = self.plan.steps_per_epoch
        total, done = epochs * num_steps, self.steps_done
        with tqdm(total=total, initial=done, desc="training", unit="steps", smoothing=0, disable=None) as bar:

            def advance() -> None:
                bar.update()
                pause()

            while len(self.epochs) < epochs:
                self.train_steps(num_steps - self.step, advance)
                start = time.perf_counter()
                scores = self.evaluate(pause=pause)
                for record in self.epochs:
                    record.get("gradients", {}).pop("cosines", None)  # only the last epoch has them
                self.epochs.append(self._record(scores, time.perf_counter() - start))
                if self.kept_epoch == len(self.epochs):
                    self.kept = None  # so that there are never two copies
                    self.kept = _copied(self.scored_state())
                self.combiner.after_epoch()
                self.step, self.seconds, self.gradients = 0, 0.0, None
                self.hits = torch.zeros(len(self._targets), dtype=torch.int64, device=self.data.device)
                mean = np.mean(scores.accuracy)
                bar.set_postfix_str(f"epoch {len(self.epochs)}/{epochs}, accuracy {mean:.4f}")
                yield self.epochs[-1]

    def train_steps(self, count: int, after_step: Callable[[], None] = lambda: None) -> None:
        """Do the next steps of the current epoch.

        Args:
            count: number of steps, at most those that are left.
            after_step: called after each step; if it raises, that step is done.

        Raises:
            UserError: as for `train`.
        """
        self._plan_epoch()
        self.model.train()
        start = time.perf_counter()
        try:
            for sampled in self._sampled[self.step : self.step + count].tolist():
                if self.run.gradients and self.step == 0:
                    self.gradients = self._measure_gradients(sampled)
                self._train_step(sampled)
                self.step += 1
                after_step()
            self.check_diverged()
        finally:
            if self.data.device.type == "cuda":
                torch.cuda.synchronize(self.data.device)  # the time of all steps counts
            self.seconds += time.perf_counter() - start

    def _plan_epoch(self) -> None:
        """Sample the sources and images of the current epoch, once."""
        epoch = len(self.epochs) + 1
        if self._planned_epoch == epoch:
            return
        for source in self.plan.sources:
            if source.probability > 0 and len(source.images) < self.run.batch_size:
                raise UserError(
                    f"{source.name} has {len(source.images)} training images, which do not fill a batch "
                    f"of {self.run.batch_size}: use a smaller --batch_size"
                )
        self._sampled = self.plan.sampled(epoch)
        self._indices = torch.from_numpy(self.plan.indices(epoch)).to(self.data.device)
        self.task_losses[self.step :] = torch.nan
        self._planned_epoch = epoch

    def _record(self, scores: Scores, evaluation_seconds: float) -> dict[str, Any]:
        """The record of the epoch that ends."""
        num_steps = self.plan.steps_per_epoch
        num_images = num_steps * self.run.batch_size
        task_loss = self.task_losses.double().nanmean(dim=0).tolist()
        more: dict[str, Any] = {}
        if self.gradients:
            cosines = np.array(self.gradients["cosines"])
            mean = (cosines.sum(axis=1) - np.diagonal(cosines)) / (len(cosines) - 1)
            more["gradients"] = self.gradients | {"mean_cosines": mean.tolist()}
        if recorded := self.combiner.record():
            more["combiner"] = recorded
        return more | {
            "epoch": len(self.epochs) + 1,
            "accuracy": scores.accuracy,
            "balanced_accuracy": scores.balanced_accuracy,
            "loss": self.losses.double().mean().item(),
            "task_loss": [None if math.isnan(loss) else loss for loss in task_loss],
            "test_loss": scores.loss,
            "train_accuracy": self._train_accuracy(),
            "steps": num_steps,
            "images": num_images,
            "seconds": self.seconds,
            "evaluation_seconds": evaluation_seconds,
            "images_per_second": num_images / self.seconds,
        }

    def _train_accuracy(self) -> list[float | None]:
        """Accuracy of each head in the steps of the epoch; None where no step trained it."""
        counts = np.zeros(len(self._targets), dtype=np.int64)
        for number, times in enumerate(np.bincount(self._sampled.ravel(), minlength=len(self.plan.sources))):
            counts[list(self.plan.sources[number].heads)] += times * self.plan.slice_size
        hits = [0] * len(counts) if self.hits is None else self.hits.tolist()
        known = self.hits is not None
        return [
            hit / count if known and count else None for hit, count in zip(hits, counts.tolist(), strict=True)
        ]

    def check_diverged(self) -> None:
        """Check that training has not diverged.

        The losses show this for every update but the last, which shows in the weights; a running statistic
        may overflow where no loss does.

        Raises:
            UserError: a loss of the current epoch, or part of the state of the model or of the combiner, is
                not finite.
        """
        if problem := self._divergence():
            raise UserError(
                f"{problem}, at learning rate {self.run.lr}: use a smaller --lr; nothing was saved since"
            )

    def _divergence(self) -> str | None:
        """What is not finite, and since when, or None."""
        epoch = len(self.epochs) + 1
        wrong = (~self.losses[: self.step].isfinite()).nonzero().flatten().tolist()
        if wrong:
            sources = dict.fromkeys(self.plan.sampled(epoch)[wrong[0]].tolist())
            names = ", ".join(self.plan.sources[source].name for source in sources)
            return f"the loss of {names} is not finite from step {wrong[0] + 1} of epoch {epoch} on"
        try:
            check_finite(self.model.state_dict(), "model")
            check_finite(self.combiner.state_dict(), "combination")
        except FieldError as error:
            return f"{error} after step {self.step} of epoch {epoch}"
        return None

    # Evaluation

    @property
    def scored_model(self) -> Model:
        """The network that is scored and evaluated; by default the one that is trained."""
        return self.model

    @property
    def kept_epoch(self) -> int | None:
        """With --keep best, the first epoch with the highest mean accuracy so far; None before any."""
        if self.run.keep != "best" or not self.epochs:
            return None
        means = [fmean(record["accuracy"]) for record in self.epochs]
        return means.index(max(means)) + 1

    def evaluate(
        self,
        progress: bool = False,
        pause: Callable[[], None] = lambda: None,
        predictions: list[Prediction] | None = None,
    ) -> Scores:
        """Score the model, which stays as it is.

        Args:
            progress: whether to show a bar.
            pause: called after every batch; may raise.
            predictions: a list that gets what is answered in each scored task.
        """
        with self._uncompiled():
            self.scores = self.scorer(
                self.scored_model, self.run.precision, progress=progress, pause=pause, predictions=predictions
            )
        return self.scores

    def evaluate_as_trained(
        self, progress: bool = False, pause: Callable[[], None] = lambda: None, scorer: Scorer | None = None
    ) -> Scores | None:
        """Score the model with batch-norm statistics of batches like those of its training.

        The model stays as it is.

        Args:
            progress: whether to show a bar.
            pause: called after every batch; may raise.
            scorer: scores models on the test images; default: the agent's own.

        Returns:
            the scores, or None where the network has no batch normalisation.
        """
        scorer = scorer or self.scorer
        with self._uncompiled():
            return scorer.as_trained(
                self.scored_model, self.data.train, self.plan, self.run.precision, progress, pause
            )

    def _uncompiled(self) -> AbstractContextManager[object]:
        """Context in which the encoder runs uncompiled.

        Otherwise it would be compiled again for the batch sizes of an evaluation.
        """
        return torch.compiler.set_stance("force_eager") if self.run.compile else nullcontext()

    # Saving and resuming

    def state(self) -> dict[str, Any]:
        """State that `resume` needs besides the network.

        It consists of plain values, and tensors on the CPU. The seed and the number of steps done decide
        which tasks and images come next.
        """
        generators = {"cpu": torch.get_rng_state()}
        for device in self._cuda_devices():
            generators["cuda"] = torch.cuda.get_rng_state(device)
        return {
            "epochs": self.epochs,
            "step": self.step,
            "losses": self.losses[: self.step].cpu(),
            "task_losses": self.task_losses[: self.step].cpu(),
            "hits": None if self.hits is None else self.hits.cpu(),
            "gradients": self.gradients,
            "extra": _on_cpu(self.get_extra_state()),
            "seconds": self.seconds,
            "optimizer": _on_cpu(self._optimizer.state_dict()),
            "combination": _on_cpu(self.combiner.state_dict()),
            "generators": generators,
        }

    def scored_state(self) -> dict[str, Any]:
        """What decides the scores.

        Returns:
            `network`: state dict of the network that is trained; `extra`: what `get_extra_state` returns;
            `weights`: state dict of the network that is scored if that is another one, else None.
        """
        other = self.scored_model is not self.model
        return {
            "network": self.model.state_dict(),
            "extra": self.get_extra_state(),
            "weights": self.scored_model.state_dict() if other else None,
        }

    def get_extra_state(self) -> dict[str, Any]:
        """State besides the network: tensors by name; by default that of a scored network of its own."""
        return {} if self.scored_model is self.model else self.scored_model.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Load what `get_extra_state` returned."""
        if self.scored_model is not self.model:
            self.scored_model.load_state_dict(state)

    def load(self, network: dict[str, Tensor], extra: object) -> None:
        """Load what is scored: the network, and the state that `get_extra_state` returned.

        Raises:
            RuntimeError: the network is another one.
            FieldError: the state is another one.
        """
        check_alike(extra, self.get_extra_state(), "extra")
        check_finite(extra, "extra")
        self.model.load_state_dict(network)
        self.set_extra_state(extra)  # type: ignore[arg-type]

    def resume(self, network: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Load the state of an agent with the same data and options.

        Args:
            network: state dict of its model.
            state: what its `state` returned; `epochs`, `step` and `seconds` are not checked here.

        Raises:
            RuntimeError: the network is another one.
            FieldError: a field of the state is not what this agent would have; the text names it.
        """
        check_agent(state, self.state(), self._trained(len(state["epochs"]) + 1))
        self.load(network, state.get("extra", {}))
        self.epochs = list(state["epochs"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.losses[: self.step] = state["losses"].to(self.losses.device)
        self.task_losses[: self.step] = state["task_losses"].to(self.losses.device)
        hits = state.get("hits")
        self.hits = None if hits is None else hits.to(self.losses.device)
        self.gradients = state.get("gradients")
        try:
            self.combiner.load_state_dict(state["combination"])
            self.combiner.check_resumed(len(self.epochs), self.step, self.plan.steps_per_epoch)
        except FieldError:
            raise
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise FieldError(f"combination cannot be resumed ({error})") from error
        load_state(self._optimizer, state["optimizer"]["state"])
        torch.set_rng_state(state["generators"]["cpu"])
        for device in self._cuda_devices():
            if "cuda" in state["generators"]:
                torch.cuda.set_rng_state(state["generators"]["cuda"], device)

    def resume_kept(self, network: dict[str, Tensor], kept: Any) -> None:
        """Load what a run with --keep best has kept, after `resume`.

        Args:
            network: state dict of the network after the best epoch, which fits.
            kept: the other entries of its `scored_state` then, from a file.

        Raises:
            FieldError: it is not what this agent would have.
        """
        like = {name: state for name, state in self.scored_state().items() if name != "network"}
        check_alike(kept, like, "kept")
        if like["weights"] is None and kept["weights"] is not None:
            raise FieldError("kept.weights does not belong there")
        check_finite(kept, "kept")
        if self.epochs:
            self.kept = {"network": network, **kept}

    def _trained(self, epoch: int) -> Tensor:
        """Which heads each step of an epoch trains: bool, steps x heads."""
        trained = torch.zeros(self.task_losses.shape, dtype=torch.bool)
        for row, sampled in zip(trained, self.plan.sampled(epoch).tolist(), strict=True):
            for source in sampled:
                row[list(self.plan.sources[source].heads)] = True
        return trained

    def _cuda_devices(self) -> list[torch.device]:
        """The GPU of the model, if it is on one."""
        return [self.data.device] if self.data.device.type == "cuda" else []


def _check_single_tasks(sources: Sequence[Source], run: Run) -> None:
    """Check that each image is of one task, as an encoder that takes the task needs it.

    Raises:
        UserError: it is not, or the encoder is to be compiled, which takes long for every task.
    """
    if any(len(source.heads) > 1 for source in sources):
        raise UserError(
            f"the encoder takes the task of its images, and in setting {run.setting} they are of all tasks "
            f"at once: use --setting 3 or 4, maybe with --tasks_per_step {ALL}"
        )
    if run.compile:
        raise UserError("--compile does not go with an encoder that takes the task: leave --compile out")


def _by_source(batch: Tensor, sampled: list[int]) -> dict[int, Tensor]:
    """Split a batch into equal slices, concatenated by source."""
    slices: dict[int, list[Tensor]] = {}
    for source, part in zip(sampled, batch.split(len(batch) // len(sampled)), strict=True):
        slices.setdefault(source, []).append(part)
    return {source: _concatenate(parts) for source, parts in slices.items()}


def _concatenate(tensors: list[Tensor]) -> Tensor:
    """Concatenate tensors; a single one is returned without a copy."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _copied(state: Any) -> Any:
    """Copy a nested state to the CPU."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    return [_copied(value) for value in state] if isinstance(state, list | tuple) else state


def _on_cpu(state: Any) -> Any:
    """Copy a nested state with its tensors on the CPU."""
    if isinstance(state, Tensor):
        return state.cpu()
    if isinstance(state, dict):
        return {key: _on_cpu(value) for key, value in state.items()}
    return [_on_cpu(value) for value in state] if isinstance(state, list | tuple) else state


# The settings


class StandardAgent(Agent):
    """Setting 0: one head over all classes, scored as one task."""

    def targets(self) -> Tensor:
        """One head, with a target for every class."""
        return torch.arange(self.data.spec.num_classes)[None]

    def scored(self) -> dict[str, Tensor]:
        """One task of all classes."""
        return {ALL_CLASSES: self.targets()[0]}

    def sources(self) -> list[Source]:
        """All images."""
        return [Source(ALL_CLASSES, np.arange(len(self.data.train)), heads=(0,))]


class StandardByTaskAgent(StandardAgent):
    """Setting 1: trained as setting 0, scored task by task."""

    def scored(self) -> dict[str, Tensor]:
        """All tasks."""
        return Agent.scored(self)


class SingleTaskAgent(Agent):
    """Setting 2: one head for one task, trained on its images."""

    def targets(self) -> Tensor:
        """The head of the task."""
        return self.data.tasks[self.run.task][None]

    def scored(self) -> dict[str, Tensor]:
        """The task."""
        return {self._name: self.targets()[0]}

    def sources(self) -> list[Source]:
        """The images of the task."""
        return [Source(self._name, self.data.images_of(self.run.task), heads=(0,))]

    @property
    def _name(self) -> str:
        return list(self.data.spec.tasks)[self.run.task]


class TaskSamplingAgent(Agent):
    """Settings 3 and 4: each step samples tasks and trains their heads."""

    def sources(self) -> list[Source]:
        """The images of each task."""
        probabilities = normalised(self.run.weights, len(self.data.tasks))
        return [
            Source(name, self.data.images_of(task), heads=(task,), probability=probabilities[task])
            for task, name in enumerate(self.data.spec.tasks)
        ]


class SummedLossAgent(Agent):
    """Settings 5 and 6: each step trains all heads."""

    def sources(self) -> list[Source]:
        """All images, for all tasks."""
        num_tasks = len(self.data.tasks)
        weights = tuple(normalised(self.run.weights, num_tasks))
        return [Source("all tasks", np.arange(len(self.data.train)), tuple(range(num_tasks)), weights)]


def normalised(weights: Iterable[float] | None, num_tasks: int) -> list[float]:
    """Scale the weights of the tasks to sum to 1.

    None means equal weights.
    """
    values = np.ones(num_tasks) if weights is None else np.array(weights, dtype=np.float64)
    return (values / values.sum()).tolist()


def make_agent(data: DataSet, run: Run, network: Network | None = None) -> Agent:
    """Make the agent of a run's setting.

    Args:
        data: the data set.
        run: options of the run.
        network: makes the model; default: that of --encoder and --head.

    Raises:
        UserError: the setting names no class of this file.
    """
    agent = look_up(globals(), SETTINGS[run.setting].agent, "agents.py", "SETTINGS of settings.py")
    return agent(data, run, network)
