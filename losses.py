"""Loss combiners: from the losses of the tasks to one update.

The losses of a step are a vector, with one loss for each of the P pairs of a sampled source and one of its
heads. A combiner turns them into gradients. To add one, write a class with a `forward` of its own and a line
in LOSSES of settings.py.

The methods of the literature are those of TorchJD (https://torchjd.org), imported when one is made. No other
file looks into its objects.
"""

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from errors import UserError
from settings import LOSSES, look_up, split_loss
from storage.checks import FieldError, check_alike, check_finite

EXTRA = "combination._extra_state"
"""Name, in a checkpoint, of the state that a combiner adds to its tensors."""

SMALLEST = 1e-30
"""Smaller losses count as this, and gradients with a smaller squared length count as 0.

A cross-entropy in float32 is larger or exactly 0. Dividing by this number does not overflow in float32.
"""


class Combiner(nn.Module):
    """Base class, and the default: minimises the weighted sum of the losses.

    Parameters, if there are any, are trained with the network; the state dict is saved and resumed.

    Attributes:
        constants: hyperparameters by name, recorded in the history.
        num_heads: number of heads of the network.
    """

    constants: Mapping[str, float] = {}

    def __init__(self, num_heads: int) -> None:
        """
        Args:
            num_heads: number of heads of the network.
        """
        super().__init__()
        self.num_heads = num_heads

    def forward(self, losses: Tensor, weights: Tensor) -> Tensor:
        """Compute the loss to minimise, a float32 scalar.

        Args:
            losses: mean cross-entropy of each pair: float32, P. In setting 5 there is one per head, in order.
            weights: weight of each by the definition of the setting, summing to 1: float32, P.
        """
        return losses @ weights

    def backward(
        self,
        separate: Sequence[Tensor],
        weights: Tensor,
        features: Sequence[Tensor],
        encoder: Iterable[nn.Parameter],
    ) -> None:
        """Set the gradient of every parameter that the step trains.

        Args:
            separate: the losses of `forward`, each of which can be differentiated without the others.
            weights: weights of the losses, as in `forward`.
            features: outputs of the encoder for the batch, or for parts of it: float32 or bfloat16, images x
                num_features.
            encoder: parameters of the encoder.
        """
        loss = self(torch.stack(list(separate)), weights)
        if loss.requires_grad:  # otherwise everything that the step ran is frozen
            loss.backward()

    def task_weights(self, losses: Tensor, weights: Tensor, gradients: Tensor) -> Tensor | None:
        """Weights of the tasks' gradients in the next update of the encoder: float32, P.

        Nothing changes, but PyTorch's generators may. None if the update has no such weights.

        Args:
            losses: as in `forward`.
            weights: as in `forward`.
            gradients: gradient of each loss: float32, P x number of parameters of the encoder.
        """
        losses = losses.detach().clone().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(copy.deepcopy(self)(losses, weights), losses)[0]

    def record(self) -> dict[str, float | list[float]]:
        """Numbers to record for the epoch that ends, by name; none by default."""
        return {}

    def after_step(self, recompute: Callable[[], Tensor]) -> None:
        """Called after each step; does nothing by default.

        Args:
            recompute: computes the losses of the same batch again, without gradients; the network's buffers
                and PyTorch's generators stay as they are.
        """

    def after_epoch(self) -> None:
        """Called after each epoch; does nothing by default."""

    def check_resumed(self, epochs: int, step: int, num_steps: int) -> None:
        """Check that a loaded state is that of a step.

        Accepts any by default.

        Args:
            epochs: number of finished epochs.
            step: number of steps done in the epoch after these.
            num_steps: number of steps of an epoch.

        Raises:
            FieldError: it is of another step.
        """


class TorchJdMethod(Combiner):
    """A method of TorchJD, multiplied by a constant.

    Attributes:
        package: package of TorchJD that has its class.
        size: name of the argument by which the class takes the number of losses, or None if it takes none.
        scale: the constant.
    """

    package: str
    size: str | None = None
    scale: Tensor

    def __init__(self, num_heads: int, method: str, scale: Callable[..., float], **constants: float) -> None:
        """
        Args:
            num_heads: number of heads of the network.
            method: name of the class in TorchJD.
            scale: returns, for a number of tasks and the hyperparameters, the constant that makes the first
                update equal to that of `mean` if all tasks have equal losses and gradients.
            constants: hyperparameters of the class.
        """
        super().__init__(num_heads)
        self.constants = constants
        self.register_buffer("scale", torch.tensor(float(scale(num_heads, **constants))), persistent=False)
        warnings.filterwarnings("ignore", module=r"(torchjd|cvxpy)\b")  # about the libraries that they use
        sizes = {self.size: num_heads} if self.size else {}
        self._keep(getattr(import_module(f"torchjd.{self.package}"), method)(**sizes, **constants))

    def _keep(self, method: nn.Module) -> None:
        """Keep TorchJD's object as an attribute."""
        raise NotImplementedError


class Scalarization(TorchJdMethod):
    """A scalarization: one loss from those of the tasks."""

    package = "scalarization"
    scalarizer: Any  # TorchJD's class, whose private attributes subclasses save

    def _keep(self, method: nn.Module) -> None:
        self.scalarizer = method

    def forward(self, losses: Tensor, weights: Tensor) -> Tensor:
        """Compute the loss to minimise, a float32 scalar.

        The weights of the setting are equal and not used: each method has its own. Methods divide by losses
        or take their logarithms, so 0 counts as SMALLEST.
        """
        return self.scale * self.scalarizer(losses.clamp(min=SMALLEST))


class LearntScalarization(Scalarization):
    """A scalarization with a parameter for each loss, trained with the network."""

    size = "shape"


class Dwa(Scalarization):
    """Weights losses by how fast they fell over the last two epochs."""

    def after_epoch(self) -> None:
        """Start the next epoch."""
        self.scalarizer.step()

    def get_extra_state(self) -> dict:
        """Running sum and earlier averages of the losses.

        `sum` is over the steps of the epoch so far, `steps` is their number, and `averages` are those of
        earlier epochs.
        """
        method = self.scalarizer
        return {"sum": method._loss_sum, "steps": method._n_batches, "averages": method._previous_averages}

    def set_extra_state(self, state: dict) -> None:
        """Load what `get_extra_state` returned.

        Raises:
            FieldError: it is something else.
        """
        check_alike(state, {"sum": None, "steps": None, "averages": None}, EXTRA)
        total, steps, averages = state["sum"], state["steps"], state["averages"]
        if type(steps) is not int or not isinstance(averages, list) or (total is None) != (steps == 0):
            raise FieldError(f"{EXTRA} is not what dwa remembers")
        losses = dict(enumerate(averages)) | ({} if total is None else {"sum": total})
        check_alike(losses, dict.fromkeys(losses, torch.zeros(self.num_heads)), EXTRA)
        check_finite(losses, EXTRA)
        method, device = self.scalarizer, self.scale.device
        method._loss_sum = None if total is None else total.to(device)
        method._n_batches = steps
        method._previous_averages = [average.to(device) for average in averages]

    def check_resumed(self, epochs: int, step: int, num_steps: int) -> None:
        """Check that the state is that of a step.

        It must have as many steps, and the averages of the last two epochs.
        """
        if (self.scalarizer._n_batches, len(self.scalarizer._previous_averages)) != (step, min(epochs, 2)):
            raise FieldError(f"{EXTRA} is not that of step {step} after {epochs} epochs")


class Famo(LearntScalarization):
    """Weights losses by how much they fell over the last step.

    An optimizer of its own trains the logits of the weights. They are a parameter without gradient, so the
    optimizer of the network leaves them alone.
    """

    def after_step(self, recompute: Callable[[], Tensor]) -> None:
        """Update the weights by what the step did to its losses."""
        self.scalarizer.update(recompute())

    def get_extra_state(self) -> dict | None:
        """State of the optimizer; None until the first step makes it."""
        optimizer = self.scalarizer._optimizer
        return None if optimizer is None else optimizer.state_dict()

    def set_extra_state(self, state: dict | None) -> None:
        """Load what `get_extra_state` returned.

        Raises:
            FieldError: it is something else.
        """
        if state is None:
            return
        method = self.scalarizer
        gathered = {"step": torch.zeros(()), "exp_avg": method._w, "exp_avg_sq": method._w}
        check_alike(state, {"state": {0: gathered}, "param_groups": None}, EXTRA)
        check_finite(state["state"], f"{EXTRA}.state")
        method._optimizer = torch.optim.Adam([method._w], lr=method.lr, weight_decay=method.weight_decay)
        method._optimizer.load_state_dict(method._optimizer.state_dict() | {"state": state["state"]})

    def check_resumed(self, epochs: int, step: int, num_steps: int) -> None:
        """Check that the optimizer did as many steps as the training."""
        optimizer = self.scalarizer._optimizer
        done = 0 if optimizer is None else optimizer.state[self.scalarizer._w]["step"].item()
        if done != epochs * num_steps + step:
            raise FieldError(f"{EXTRA} is not that of step {step} after {epochs} epochs")


class Aggregation(TorchJdMethod):
    """An aggregation: one gradient of the encoder from the tasks' gradients.

    Heads train as with `mean`.
    """

    package = "aggregation"

    def _keep(self, method: nn.Module) -> None:
        self._hidden = (method,)  # hidden from `to`: aggregators compute with their state on the CPU

    @property
    def aggregator(self) -> Any:  # TorchJD's class, whose private attributes subclasses save
        """TorchJD's aggregator."""
        return self._hidden[0]

    def backward(
        self,
        separate: Sequence[Tensor],
        weights: Tensor,
        features: Sequence[Tensor],
        encoder: Iterable[nn.Parameter],
    ) -> None:
        """Set the gradient of every parameter that the step trains.

        Raises:
            UserError: the method fails to combine the gradients.
        """
        if not any(
            part.requires_grad for part in features
        ):  # the encoder is frozen: there is nothing to aggregate
            super().backward(separate, weights, features, encoder)
            return
        trained, gradients = _task_gradients(separate, weights, features, encoder)
        try:
            update = self.aggregate(gradients)
        except Exception as error:  # each solver has errors of its own
            if isinstance(error, MemoryError | RuntimeError) and not isinstance(
                error, torch.linalg.LinAlgError
            ):
                raise  # PyTorch's own: out of memory, or a bug
            raise UserError(
                f"the gradients of the tasks cannot be combined ({error}), as where a loss is not finite: "
                "use a smaller --lr, or another --loss; nothing was saved since"
            ) from error
        parts = update.mul(self.scale).split([parameter.numel() for parameter in trained])
        for parameter, part in zip(trained, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def task_weights(self, losses: Tensor, weights: Tensor, gradients: Tensor) -> Tensor | None:
        """Weights of the tasks' gradients, if the method is a weighted sum of them."""
        weighting = getattr(copy.deepcopy(self.aggregator), "weighting", None)
        gradients = _without_too_short(gradients.clone())
        if weighting is None or not gradients.any() or not gradients.isfinite().all():
            return None  # some methods fail where there is nothing to weigh
        before = torch.get_rng_state()  # some methods sample
        try:
            found = weighting(gradients)
        except (ArithmeticError, ValueError):  # some solvers fail where one task has no gradient
            return None
        torch.set_rng_state(before)
        update = copy.deepcopy(self).aggregate(gradients)
        same = torch.allclose(found @ gradients, update, rtol=1e-3, atol=1e-5 * float(update.abs().max()))
        return found * self.scale.to(found.device) if same else None

    def aggregate(self, gradients: Tensor) -> Tensor:
        """Combine the gradients of the tasks into one.

        Args:
            gradients: float32, P x number of parameters of the encoder; rows too short to be squared are 0.

        Returns:
            float32, number of parameters.
        """
        return self.aggregator(gradients)


def _task_gradients(
    separate: Sequence[Tensor], weights: Tensor, features: Sequence[Tensor], encoder: Iterable[nn.Parameter]
) -> tuple[list[nn.Parameter], Tensor]:
    """Compute the encoder's gradients, and set those of the heads.

    Returns:
        the parameters of the encoder that are not frozen; float32, P x their number: the gradient of each
        loss, or 0 if it is too short to be squared.
    """
    from torchjd.autojac import mtl_backward

    # One backward pass after another: vmap is slower on a CPU and does not support every network. The heads
    # get weighted gradients; the rows of the encoder have to be the gradients of plain losses.
    mtl_backward(separate, features, grad_tensors=list(weights), parallel_chunk_size=1)
    trained = [parameter for parameter in encoder if hasattr(parameter, "jac")]
    gradients = torch.cat([parameter.jac.reshape(len(separate), -1) for parameter in trained], dim=1)
    for parameter in trained:
        del parameter.jac
    return trained, _without_too_short(gradients.div_(weights[:, None]))


def _without_too_short(gradients: Tensor) -> Tensor:
    """Set the gradients to 0, in place, that are too short to be squared."""
    too_short = torch.linalg.vector_norm(gradients, dim=1, keepdim=True) < SMALLEST**0.5
    return gradients.mul_(~too_short)


class GradVac(Aggregation):
    """Aligns each pair of gradients to its running mean similarity."""

    def get_extra_state(self) -> Tensor:
        """Running mean of the similarities: float32, tasks x tasks.

        It is 0 before the first step.
        """
        mean = self.aggregator.gramian_weighting._phi_t
        return torch.zeros(self.num_heads, self.num_heads) if mean is None else mean

    def set_extra_state(self, state: Tensor) -> None:
        """Load what `get_extra_state` returned.

        Raises:
            FieldError: it is something else.
        """
        check_alike(state, torch.zeros(self.num_heads, self.num_heads), EXTRA)
        check_finite(state, EXTRA)
        method = self.aggregator.gramian_weighting
        method._phi_t = state.clone()
        method._state_key = (len(state), state.dtype)


class NashMtl(Aggregation):
    """The solution of a bargaining game between the tasks.

    The search starts from the solution of the last step. A game with a task whose gradient is 0 has no
    solution, so the others play alone.
    """

    size = "n_tasks"

    def aggregate(self, gradients: Tensor) -> Tensor:
        """Solve the game of the tasks that have a gradient.

        The result is 0 if none has.
        """
        lengths = torch.linalg.vector_norm(gradients, dim=1)
        playing = lengths != 0
        num_playing = int(playing.sum())
        if lengths.max() ** 4 == 0:  # the game squares products
            return torch.zeros_like(gradients[0])
        if num_playing == 1:  # alone, a task gets what it wants
            return gradients[playing][0] * (self.aggregator.max_norm / lengths.max()).clamp(max=1)
        if num_playing == len(gradients):
            return super().aggregate(gradients)
        game, fewer = self.aggregator.weighting, type(self.aggregator)(n_tasks=num_playing)
        mask = playing.cpu().numpy()
        fewer.weighting.prvs_alpha = game.prvs_alpha[mask]
        update = fewer(gradients[playing])
        game.prvs_alpha = game.prvs_alpha.copy()
        game.prvs_alpha[mask] = fewer.weighting.prvs_alpha
        return update

    def get_extra_state(self) -> Tensor:
        """The solution: one number per task."""
        return torch.from_numpy(self.aggregator.weighting.prvs_alpha)

    def set_extra_state(self, state: Tensor) -> None:
        """Load what `get_extra_state` returned.

        Raises:
            FieldError: it is something else.
        """
        solved = getattr(state, "dtype", None) == torch.float64  # float32 until the first step
        check_alike(
            state, torch.zeros(self.num_heads, dtype=torch.float64 if solved else torch.float32), EXTRA
        )
        check_finite(state, EXTRA)
        self.aggregator.weighting.prvs_alpha = state.clone().numpy()


def make_combiner(loss: str, num_heads: int) -> Combiner:
    """Make the combiner of an entry of LOSSES.

    Args:
        loss: name of the entry, maybe with parameters, as of --loss.
        num_heads: number of heads of the network.

    Raises:
        UserError: the entry names no class of this file, or the method refuses a parameter.
    """
    name, parameters = split_loss(loss)
    entry = LOSSES[name]
    combiner = look_up(globals(), entry.combiner, "losses.py", "LOSSES of settings.py")
    try:
        return combiner(num_heads, **entry.arguments, **parameters)
    except ValueError as error:
        raise UserError(f"--loss {loss}: {error}") from error
