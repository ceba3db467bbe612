"""How the losses of a step's tasks become one update.

The losses of a step are a vector with one loss for each pair of images and head. One object turns them into
gradients. To form them in another way, write a class with a `forward` of its own and name it in COMBINATIONS
here and, with a few words for the help, in LOSSES of settings.py.

The methods of the literature are those of TorchJD (https://torchjd.org), which is imported where one is
made. This is the one place that looks into its objects. docs/losses.md says where each constant comes from.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module

import torch
from torch import Tensor, nn

from checks import FieldError, check_alike, check_finite
from settings import UserError

EXTRA = "combination._extra_state"
"""Name of the field in a saved training."""

SMALLEST = 1e-30
"""Smaller losses count as this, and gradients of a smaller squared length count as 0.

A cross-entropy in float32 is larger or exactly 0. Quotients by this number do not overflow in float32.
"""


class Combination(nn.Module):
    """Makes one loss of those of a step's tasks: here their weighted sum.

    Its parameters, if it has any, are trained along with the network; its state dict is saved and resumed.

    Attributes:
        constants: what it is made with beside the number of heads: plain values by name, for the history.
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
        """What is minimised: a single number, float32.

        Args:
            losses: float32, P: the mean cross-entropy of each pair of images and head of a step. In setting 5
                these are the heads, in order.
            weights: float32, P, summing to 1: what each of them weighs by the definition of the setting.
        """
        return losses @ weights

    def backward(
        self, losses: Sequence[Tensor], weights: Tensor, features: Tensor, encoder: Iterable[nn.Parameter]
    ) -> None:
        """Give every parameter that takes part its gradient.

        Args:
            losses: as in `forward`, but one by one, so that one can be differentiated without the others.
            weights: as in `forward`.
            features: float32 or bfloat16, B x features: what the encoder made of the batch, and the losses
                come from.
            encoder: the parameters of the encoder.
        """
        loss = self(torch.stack(list(losses)), weights)
        if loss.requires_grad:  # else all that the step has run is frozen
            loss.backward()

    def after_step(self, losses: Callable[[], Tensor]) -> None:
        """Called after each step; does nothing here.

        Args:
            losses: computes those of the same batch anew, as in `forward`, without gradients and without a
                trace in the network's buffers or in PyTorch's generators.
        """

    def after_epoch(self) -> None:
        """Called when an epoch is done; does nothing here."""

    def check_resumed(self, epochs: int, step: int, num_steps: int) -> None:
        """Called once a state was loaded: check that it is of this progress; accepts any by default.

        Args:
            epochs: number of epochs done.
            step: number of steps done in the epoch after these.
            num_steps: number of steps of an epoch.

        Raises:
            FieldError: it is not.
        """


class Method(Combination):
    """A method of TorchJD, times a constant.

    A subclass says where its class stands, and keeps the object.

    Attributes:
        package: of TorchJD, where the class is.
        size: the argument by which the class is told the number of losses, or None if it need not know.
    """

    package: str
    size: str | None = None

    def __init__(self, num_heads: int, name: str, scale: float = 1.0, **constants: float) -> None:
        """
        Args:
            num_heads: number of heads of the network.
            name: of the class in TorchJD.
            scale: what makes its first update that of `mean` for tasks with equal losses and gradients.
            constants: what the class is made with.
        """
        super().__init__(num_heads)
        self.constants = constants
        self.register_buffer("scale", torch.tensor(scale), persistent=False)
        warnings.filterwarnings("ignore", module=r"(torchjd|cvxpy)\b")  # about how they use what they rely on
        sizes = {self.size: num_heads} if self.size else {}
        self._keep(getattr(import_module(f"torchjd.{self.package}"), name)(**sizes, **constants))

    def _keep(self, method: nn.Module) -> None:
        raise NotImplementedError


class Scalarization(Method):
    """A function of the losses."""

    package = "scalarization"

    def _keep(self, method: nn.Module) -> None:
        self.scalarizer = method

    def forward(self, losses: Tensor, weights: Tensor) -> Tensor:
        """What is minimised; the weights of setting 5 are equal, and each method has its own.

        Methods divide by losses or take their logarithms, so that 0 counts as the smallest number.
        """
        return self.scale * self.scalarizer(losses.clamp(min=SMALLEST))


class SizedScalarization(Scalarization):
    """One with a parameter for each loss: trained along with the network."""

    size = "shape"


class Dwa(Scalarization):
    """Weights by how fast each loss fell over the last two epochs."""

    def after_epoch(self) -> None:
        """Go on to the next epoch."""
        self.scalarizer.step()

    def get_extra_state(self) -> dict:
        """The losses of the running epoch, summed over its steps, their number, and earlier averages."""
        method = self.scalarizer
        return {"sum": method._loss_sum, "steps": method._n_batches, "averages": method._previous_averages}

    def set_extra_state(self, state: dict) -> None:
        """Take over what `get_extra_state` gave.

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
        """Check that the running epoch has as many steps, and that there are the averages of two before."""
        if (self.scalarizer._n_batches, len(self.scalarizer._previous_averages)) != (step, min(epochs, 2)):
            raise FieldError(f"{EXTRA} is not that of step {step} after {epochs} epochs")


class Famo(SizedScalarization):
    """Weights by how much each loss fell over the last step, learnt by an optimiser of the method's own.

    Its logits are a parameter without a gradient, which the optimiser of the network leaves alone.
    """

    def after_step(self, losses: Callable[[], Tensor]) -> None:
        """Learn from what the step did to the losses of its batch."""
        self.scalarizer.update(losses())

    def get_extra_state(self) -> dict | None:
        """The state of the optimiser, which the first step makes."""
        optimizer = self.scalarizer._optimizer
        return None if optimizer is None else optimizer.state_dict()

    def set_extra_state(self, state: dict | None) -> None:
        """Take over what `get_extra_state` gave.

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
        """Check that the optimizer has done as many steps as the training."""
        optimizer = self.scalarizer._optimizer
        done = 0 if optimizer is None else optimizer.state[self.scalarizer._w]["step"].item()
        if done != epochs * num_steps + step:
            raise FieldError(f"{EXTRA} is not that of step {step} after {epochs} epochs")


class Aggregation(Method):
    """One gradient of the encoder out of those of the tasks; each head's is that of `mean`."""

    package = "aggregation"

    def _keep(self, method: nn.Module) -> None:
        # Out of reach of `to`: what they remember belongs where they compute with it, on the CPU.
        self._hidden = (method,)

    @property
    def aggregator(self) -> nn.Module:
        """TorchJD's object."""
        return self._hidden[0]

    def backward(
        self, losses: Sequence[Tensor], weights: Tensor, features: Tensor, encoder: Iterable[nn.Parameter]
    ) -> None:
        """Give every parameter its gradient.

        Raises:
            UserError: the method has found no gradient.
        """
        from torchjd.autojac import mtl_backward

        if not features.requires_grad:  # the encoder is frozen: there is nothing to aggregate
            super().backward(losses, weights, features, encoder)
            return
        # One backward pass of the encoder after the other: vmap is slower on a CPU and cannot take whatever a
        # network may do. The heads get their gradients as well, weighted; the encoder's rows have to be those
        # of the losses themselves.
        mtl_backward(losses, features, grad_tensors=list(weights), parallel_chunk_size=1)
        encoder = [parameter for parameter in encoder if hasattr(parameter, "jac")]  # the others are frozen
        gradients = torch.cat([parameter.jac.reshape(len(losses), -1) for parameter in encoder], dim=1)
        for parameter in encoder:
            del parameter.jac
        gradients.div_(weights[:, None])
        too_short = torch.linalg.vector_norm(gradients, dim=1, keepdim=True) < SMALLEST**0.5
        gradients.mul_(~too_short)
        try:
            update = self.aggregate(gradients)
        except MemoryError:
            raise
        except Exception as error:  # each solver has its own ones
            if isinstance(error, RuntimeError) and not isinstance(error, torch.linalg.LinAlgError):
                raise
            raise UserError(
                f"the gradients of the tasks cannot be combined ({error}), as where a loss is not finite: "
                "use a smaller --lr, or another --loss; nothing was saved since"
            ) from error
        parts = update.mul(self.scale).split([parameter.numel() for parameter in encoder])
        for parameter, part in zip(encoder, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def aggregate(self, gradients: Tensor) -> Tensor:
        """One gradient out of those of the tasks: float32, parameters.

        Args:
            gradients: float32, P x parameters of the encoder. Those too short to be squared are 0.
        """
        return self.aggregator(gradients)


class GradVac(Aggregation):
    """Aligns gradients as much as they were aligned before: a running mean for each pair of tasks."""

    def get_extra_state(self) -> Tensor:
        """The mean, float32, tasks x tasks; it is 0 before the first step."""
        mean = self.aggregator.gramian_weighting._phi_t
        return torch.zeros(self.num_heads, self.num_heads) if mean is None else mean

    def set_extra_state(self, state: Tensor) -> None:
        """Take over what `get_extra_state` gave.

        Raises:
            FieldError: it is something else.
        """
        check_alike(state, torch.zeros(self.num_heads, self.num_heads), EXTRA)
        check_finite(state, EXTRA)
        method = self.aggregator.gramian_weighting
        method._phi_t = state.clone()
        method._state_key = (len(state), state.dtype)


class NashMtl(Aggregation):
    """The solution of a bargaining game, searched from that of the step before.

    A task whose gradient is 0 has nothing to gain, and the game no solution with it: the others play alone.
    """

    size = "n_tasks"

    def aggregate(self, gradients: Tensor) -> Tensor:
        """The bargain of the tasks that have a gradient; 0 if none has."""
        lengths = torch.linalg.vector_norm(gradients, dim=1)
        playing = lengths != 0
        num_playing = int(playing.sum())
        if lengths.max() ** 4 == 0:  # as the game takes the square of products
            return torch.zeros_like(gradients[0])
        if num_playing == 1:  # the solver takes no game of one, which gets what it wants
            return gradients[playing][0] * (self.aggregator.max_norm / lengths.max()).clamp(max=1)
        if num_playing == len(gradients):
            return super().aggregate(gradients)
        game, fewer = self.aggregator.weighting, type(self.aggregator)(n_tasks=num_playing)
        places = playing.cpu().numpy()
        fewer.weighting.prvs_alpha = game.prvs_alpha[places]
        update = fewer(gradients[playing])
        game.prvs_alpha = game.prvs_alpha.copy()
        game.prvs_alpha[places] = fewer.weighting.prvs_alpha
        return update

    def get_extra_state(self) -> Tensor:
        """The solution, tasks."""
        return torch.from_numpy(self.aggregator.weighting.prvs_alpha)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over what `get_extra_state` gave; the game is laid out anew by the next step.

        Raises:
            FieldError: it is something else.
        """
        solved = getattr(state, "dtype", None) == torch.float64  # as the solver gives it
        check_alike(
            state, torch.zeros(self.num_heads, dtype=torch.float64 if solved else torch.float32), EXTRA
        )
        check_finite(state, EXTRA)
        self.aggregator.weighting.prvs_alpha = state.clone().numpy()


COMBINATIONS: dict[str, Callable[[int], Combination]] = {
    "mean": Combination,
    "uw": lambda n: SizedScalarization(n, "UW", 2 / n),
    "dwa": lambda n: Dwa(n, "DWA", 1 / n),
    "geometric_mean": lambda n: Scalarization(n, "GeometricMean"),
    "random": lambda n: Scalarization(n, "Random"),
    "imtl_l": lambda n: SizedScalarization(n, "IMTLL", 1 / n),
    "famo": lambda n: Famo(n, "FAMO"),
    "stch": lambda n: Scalarization(n, "STCH", n, mu=0.01),
    "mgda": lambda n: Aggregation(n, "MGDA"),
    "pcgrad": lambda n: Aggregation(n, "PCGrad", 1 / n),
    "gradvac": lambda n: GradVac(n, "GradVac", 1 / n),
    "graddrop": lambda n: Aggregation(n, "GradDrop", 1 / n),
    "cagrad": lambda n: Aggregation(n, "CAGrad", 1 / 1.5, c=0.5),
    "imtl_g": lambda n: Aggregation(n, "IMTLG"),
    "aligned_mtl": lambda n: Aggregation(n, "AlignedMTL"),
    "fairgrad": lambda n: Aggregation(n, "FairGrad", alpha=2.0),
    "nash_mtl": lambda n: NashMtl(n, "NashMTL"),
    "upgrad": lambda n: Aggregation(n, "UPGrad"),
    "config": lambda n: Aggregation(n, "ConFIG", 1 / n),
}
"""What makes the combination behind each name of LOSSES, of the number of heads."""
