"""The optimizer of a run, with work-arounds for PyTorch's fused steps.

A fused step reads a parameter, its gradient and its momentum buffer as three blocks of memory, and takes for
granted that the blocks are there from the first step on and have their elements in the same order.
"""

from typing import Any

import torch
from torch import Tensor, nn

from losses import Combiner
from options import Run


def make_optimizer(model: nn.Module, combiner: Combiner, run: Run) -> torch.optim.Optimizer:
    """Make the optimizer of a run.

    It trains the network, without what is frozen, and, without weight decay, the parameters of the loss
    combiner.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": trained, "weight_decay": run.weight_decay},
        {"params": list(combiner.parameters()), "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    optimizer: torch.optim.Optimizer
    # All buffers are there from the start: a fused step of SGD fails if only some are, as when a head is
    # first trained later, and a checkpoint always has the same ones.
    if run.optimizer == "adamw":
        optimizer = torch.optim.AdamW(groups, lr=run.lr, fused=True)
        for parameter in _parameters(optimizer):
            averages = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.zeros((), device=parameter.device)} | averages
    else:
        optimizer = torch.optim.SGD(groups, lr=run.lr, momentum=run.momentum, fused=True)
        for parameter in _parameters(optimizer) if run.momentum else ():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    optimizer.register_step_pre_hook(_align_gradients)
    return optimizer


def load_state(optimizer: torch.optim.Optimizer, state: dict[int, dict[str, Any]]) -> None:
    """Load the buffers of an optimizer.

    Its hyperparameters stay those of the run.

    Args:
        optimizer: an optimizer of the same parameters.
        state: the entry `state` of its state dict, from any device.
    """
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    for parameter, buffers in optimizer.state.items():
        for name, value in buffers.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                buffers[name] = torch.empty_like(parameter).copy_(value)  # in the parameter's memory layout


def _align_gradients(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Bring gradients to the memory layout of their parameters."""
    for parameter in _parameters(optimizer):
        if parameter.grad is not None and parameter.grad.stride() != parameter.stride():
            parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
