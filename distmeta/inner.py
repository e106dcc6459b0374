"""The differentiable inner loop over stacked tasks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from distmeta.types import Params


def gradient_descent(
    losses: Callable[[Params], Tensor], stacked: Params, lr: float, steps: int, first_order: bool = False
) -> Params:
    """Takes `steps` of θ′ ← θ′ − lr ∇L(θ′) in every task at once.

    With gradients enabled the result depends differentiably on `stacked` and on what `losses` closes over; with
    `first_order` the inner gradients count as constants (Finn et al. 2017, §5.2). Under `torch.no_grad` it is detached.

    Args:
        losses: stacked parameters → (T,) losses; task t's loss depends on row t alone.
        stacked: what is adapted, (T, ...) each.
        lr: step size.
        steps: number of steps, 0 or more.
        first_order: leave second derivatives out.

    Returns:
        The adapted parameters, (T, ...) each.
    """
    differentiable = torch.is_grad_enabled()
    for _ in range(steps):
        with torch.enable_grad():
            # One gradient call serves all tasks: the sum's derivative in row t is that of task t's loss.
            points = {
                name: value if differentiable and value.requires_grad else value.detach().requires_grad_()
                for name, value in stacked.items()
            }
            gradients = torch.autograd.grad(
                losses(points).sum(),
                list(points.values()),
                create_graph=differentiable and not first_order,
                allow_unused=True,
                materialize_grads=True,
            )
        steps_taken = zip(points.items(), gradients, strict=True)
        stacked = {name: value - lr * gradient for (name, value), gradient in steps_taken}
    return stacked


def expand(params: Params, names: list[str], tasks: int) -> Params:
    """A copy of each named parameter for every task, (T, ...)."""
    return {name: params[name].unsqueeze(0).expand(tasks, *params[name].shape) for name in names}
