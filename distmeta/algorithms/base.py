"""What algorithms share: the registry, the gradient of the query loss, and adaptation by gradient descent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from distmeta.inner import expand, gradient_descent
from distmeta.models.base import match
from distmeta.registry import Registry
from distmeta.types import Adapted, Batch, Episode, Inputs, MetaLearner, Metrics, Model, Params

registry = Registry("algorithm.name", "distmeta.algorithms")

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Steps = Annotated[int, Field(ge=0)]


def query_gradient(learner: MetaLearner, model: Model, meta_params: Params, episode: Episode) -> tuple[Params, Metrics]:
    """∇θ Σ_t L_query(adapt(θ, support_t)), by backpropagation through the adaptation."""
    leaves = {name: value.detach().requires_grad_() for name, value in meta_params.items()}
    with torch.enable_grad():
        adapted = learner.adapt(model, leaves, episode.support)
        outputs = learner.predict(model, adapted, episode.query.inputs)
        loss = model.task.loss(outputs, episode.query).sum()
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    metrics = model.task.metrics(outputs.detach(), episode.query)
    return dict(zip(leaves, gradients, strict=True)), metrics


@dataclass(frozen=True, kw_only=True)
class GradientBased:
    """A meta-learner that adapts by gradient descent on the support loss."""

    inner_lr: Rate = 0.01
    inner_steps: Steps = 5
    inner_adapt: str | tuple[str, ...] = "all"
    first_order: ClassVar[bool] = False

    def adapts(self, names: Sequence[str]) -> list[str]:
        """Which of these parameters each task gets a copy of."""
        return match(names, self.inner_adapt)

    def init(self, params: Params, generator: torch.Generator) -> Params:
        """θ: all of the model's parameters that are not frozen."""
        return params

    def start(self, model: Model, meta_params: Params, support: Batch) -> Params:
        """Where adaptation starts from, (T, ...) each; `support` is encoded already if the body is not adapted."""
        return expand(meta_params, self.adapts(list(meta_params)), len(support.targets))

    def adapt(self, model: Model, meta_params: Params, support: Batch) -> Adapted:
        """Gradient descent on the support loss; differentiable where gradients are enabled."""
        names = self.adapts(list(meta_params))
        support = support._replace(inputs=model.encode(meta_params, names, support.inputs))
        stacked = self.start(model, meta_params, support)
        shared = {name: value for name, value in meta_params.items() if name not in stacked}

        def losses(point: Params) -> Tensor:
            return model.loss(shared, point, support)

        adapted = gradient_descent(losses, stacked, self.inner_lr, self.inner_steps, self.first_order)
        return Adapted(shared, adapted)

    def predict(self, model: Model, adapted: Adapted, inputs: Inputs) -> Tensor:
        """(T, B, N) outputs."""
        return model.outputs(adapted.shared, adapted.stacked, inputs)

    def meta_gradient(self, model: Model, meta_params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """Gradient of the query loss after adaptation, summed over tasks."""
        return query_gradient(self, model, meta_params, episode)


def concatenate(first: Batch, second: Batch) -> Batch:
    """Both batches' examples, along the example axis; tokens are padded to the longer of the two."""

    def join(a: Tensor, b: Tensor) -> Tensor:
        if a.dim() > 2:
            length = max(a.shape[2], b.shape[2])
            a, b = (F.pad(x, (0, 0) * (x.dim() - 3) + (0, length - x.shape[2])) for x in (a, b))
        return torch.cat([a, b], dim=1)

    inputs = {name: join(first.inputs[name], second.inputs[name]) for name in first.inputs}
    return Batch(inputs, join(first.targets, second.targets), join(first.weights, second.weights))
