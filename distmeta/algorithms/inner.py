"""The differentiable inner loop over stacked tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from distmeta.types import Params


def gradient_descent(
    losses: Callable[[Params], Tensor],
    stacked: Params,
    rate: Callable[[str, int], float | Tensor],
    steps: int,
    first_order: bool = False,
    clip_norm: float | None = None,
) -> Iterator[Params]:
    """Takes `steps` of θ′ ← θ′ − rate · ∇L(θ′) in every task at once, and yields θ′ after 0, 1, …, `steps` of them.

    With gradients enabled, the result is differentiable in `stacked`, in the rates and in the tensors that `losses`
    closes over. With `first_order`, inner gradients count as constants (Finn et al. 2017, §5.2). Under
    `torch.no_grad`, the result is detached.

    Args:
        losses: stacked parameters → (T,) losses. Task t's loss depends on row t alone.
        stacked: the adapted parameters, (T, ...) each.
        rate: name and step, counted from 0 → a number, or a tensor that fits a task's parameter.
        steps: number of steps, 0 or more.
        first_order: leaves out second derivatives.
        clip_norm: each task's gradient is scaled down to this norm over all of its parameters.
    """
    differentiable = torch.is_grad_enabled()
    yield stacked
    for step in range(steps):
        with torch.enable_grad():
            # One gradient call serves all tasks: row t of the sum's derivative is the derivative of task t's loss.
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
        if clip_norm is not None:
            gradients = _clip(gradients, clip_norm)
        stacked = {
            name: value - rate(name, step) * gradient
            for (name, value), gradient in zip(points.items(), gradients, strict=True)
        }
        yield stacked


def _clip(gradients: tuple[Tensor, ...], limit: float) -> tuple[Tensor, ...]:
    """Scales each task's gradients, (T, ...) each, so that their joint norm is at most `limit`."""
    squares = sum(gradient.reshape(len(gradient), -1).square().sum(1) for gradient in gradients)
    # Clamp before the root: the root's derivative at 0 is infinite, and a task that has converged has gradient 0.
    norms = torch.as_tensor(squares).clamp(min=limit**2).sqrt()
    scale = limit / norms
    return tuple(gradient * scale.view(-1, *(1,) * (gradient.dim() - 1)) for gradient in gradients)


def expand(params: Params, names: list[str], tasks: int) -> Params:
    """A copy of each named parameter for every task, (T, ...)."""
    return {name: params[name].unsqueeze(0).expand(tasks, *params[name].shape) for name in names}
