"""Code shared by algorithms: the registry, the gradient of the query loss, and adaptation by gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from distmeta.algorithms.inner import expand, gradient_descent
from distmeta.algorithms.unlabelled import with_guesses
from distmeta.config import OuterConfig
from distmeta.errors import ConfigError, DataError
from distmeta.models.names import match
from distmeta.protocols import MetaLearner, Model
from distmeta.registry import Registry
from distmeta.types import Adapted, Batch, Episode, Inputs, Metrics, Params

registry = Registry("algorithm.name", "distmeta.algorithms")

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Steps = Annotated[int, Field(ge=0)]


def gradient_of(losses: Callable[[Params], tuple[Tensor, Metrics]], meta_params: Params) -> tuple[Params, Metrics]:
    """∇θ Σ_t of (T,) losses, by backpropagation, and the metrics that `losses` returns."""
    leaves = {name: value.detach().requires_grad_() for name, value in meta_params.items()}
    with torch.enable_grad():
        loss, metrics = losses(leaves)
    gradients = torch.autograd.grad(loss.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, gradients, strict=True)), metrics


class Algorithm:
    """Defaults: an algorithm needs nothing from the other packages and changes nothing there."""

    baseline: ClassVar[str | None] = None
    trains: ClassVar[bool] = True
    needs_rounds: ClassVar[bool] = False
    replays: ClassVar[bool] = True
    starts_near: ClassVar[bool] = False
    anchored: ClassVar[bool] = False
    has_teacher: ClassVar[bool] = False
    joins_sets: ClassVar[bool] = False
    starts_from_support: ClassVar[bool] = False

    def outer(self, outer: OuterConfig) -> OuterConfig:
        """The server's settings, unchanged."""
        return outer

    def sized(self, model: Model, meta_params: Params, outputs: int) -> Params:
        """θ itself: nothing in it depends on the number of outputs."""
        return meta_params


def query_gradient(learner: MetaLearner, model: Model, meta_params: Params, episode: Episode) -> tuple[Params, Metrics]:
    """∇θ Σ_t L_query(adapt(θ, support_t)), by backpropagation through the adaptation."""

    def losses(leaves: Params) -> tuple[Tensor, Metrics]:
        adapted = learner.adapt(model, leaves, episode.support)
        outputs = learner.predict(model, adapted, episode.query.inputs)
        return model.task.loss(outputs, episode.query), model.task.metrics(outputs, episode.query)

    return gradient_of(losses, meta_params)


def require_classes(model: Model, why: str) -> None:
    """Refuses task kinds without classes.

    Args:
        model: for its task.
        why: the reason that classes are needed.

    Raises:
        ConfigError: the tasks have no classes.
    """
    if not model.task.has_classes:
        remedy = "use maml, fomaml, metasgd, reptile, anil, boil or multitask"
        raise ConfigError("algorithm.name", f"{why}, and these tasks have no classes", remedy)


def without_head(params: Params) -> Params:
    """All parameters except the head's."""
    return {name: value for name, value in params.items() if not name.startswith("head.")}


@dataclass(frozen=True, kw_only=True)
class GradientBased(Algorithm):
    """A meta-learner that adapts by gradient descent on the support loss.

    Learned rates and the loss over several steps come from MAML++: Antoniou, Edwards, Storkey, "How to train your
    MAML", ICLR 2019, https://arxiv.org/abs/1810.09502. The paper has one rate per layer and lets the weight of the
    earlier steps fade during training. Here there is one rate per tensor, and the weight is constant.
    """

    inner_lr: Rate = 0.01
    inner_steps: Steps = 5
    inner_adapt: str | tuple[str, ...] = "all"
    inner_learn_lr: bool = False  # meta-learn a rate per step and tensor, starting from inner_lr
    inner_multi_step_loss: Share = 0.0  # weight of the mean query loss after the earlier steps
    inner_clip_norm: Rate | None = None  # largest norm of each task's gradient
    inner_dropout: Share = 0.0  # share of support features dropped, in meta-training only
    inner_first_order: bool = False  # inner gradients count as constants (Finn et al. 2017, §5.2)
    learns_through_steps: ClassVar[bool] = True  # the meta-gradient differentiates the loss after the inner steps

    def check(self, model: Model, outputs: int) -> None:
        """Refuses options without effect, and second derivatives that the body's kernels do not have."""
        for key, used, needed in (
            ("inner.learn_lr", self.inner_learn_lr, 1),
            ("inner.multi_step_loss", self.inner_multi_step_loss, 2),
            ("inner.first_order", self.inner_first_order, 0),
        ):
            if used and not self.learns_through_steps:
                found = "this algorithm does not differentiate the loss after the inner steps"
                raise ConfigError(key, found, "leave it out, or use maml, fomaml, anil or protomaml")
            if used and self.inner_steps < needed:
                earlier = "earlier steps" if needed > 1 else "steps"
                found = f"there are no {earlier}, since inner.steps is {self.inner_steps}"
                raise ConfigError(key, found, f"leave it out, or set inner.steps to {needed} or more")
        through_body = any(name.startswith("body.") for name in self.adapts(list(model.init())))
        second_order = self.learns_through_steps and not self.inner_first_order and self.inner_steps > 0
        if through_body and second_order and not model.twice_differentiable:
            found = "this algorithm needs second derivatives, which this attention kernel does not have"
            raise ConfigError(
                "model.attention", found, "set it to eager, or set inner.first_order=true or inner.adapt=head"
            )

    def adapts(self, names: Sequence[str]) -> list[str]:
        """The parameters that each task gets its own copy of."""
        return match([name for name in names if not name.startswith("meta.")], self.inner_adapt)

    def init(self, model: Model, generator: torch.Generator) -> Params:
        """θ: the model's parameters that are not frozen, and the learned rates."""
        params = model.init()
        return {**self.starting(params), **self.rates(params)}

    def starting(self, params: Params) -> Params:
        """The model's parameters that are meta-learned."""
        return params

    def sized(self, model: Model, meta_params: Params, outputs: int) -> Params:
        """θ with a head of `outputs` outputs, if it has a head."""
        heads = [name for name in meta_params if name.startswith("head.")]
        if not heads or len(meta_params[heads[0]]) == outputs:
            return meta_params
        is_adapted = set(heads) <= set(self.adapts(list(meta_params)))
        if not is_adapted and outputs > (most := len(meta_params[heads[0]])):
            found = f"{outputs} classes, and this learner does not adapt its head of {most}"
            raise DataError("examples", found, f"give at most {most}, or meta-train with protomaml or protonet")
        return model.resized(meta_params, outputs)

    def rates(self, params: Params) -> Params:
        """Learned rates, `meta.rate.*`: one per step for each adapted tensor of the model, (steps,) each."""
        if not self.inner_learn_lr:
            return {}
        names, steps = self.adapts(list(params)), max(1, self.inner_steps)
        return {f"meta.rate.{name}": torch.full((steps,), self.inner_lr) for name in names}

    def rate(self, meta_params: Params, support: Batch, name: str, step: int) -> float | Tensor:
        """The rate of a parameter at a step. Steps after the last learned one use its rate."""
        if not self.inner_learn_lr:
            return self.inner_lr
        rates = meta_params[f"meta.rate.{name}"]
        return rates[min(step, len(rates) - 1)]

    def start(self, model: Model, meta_params: Params, support: Batch) -> Params:
        """Start of adaptation, (T, ...) each. If the body is not adapted, `support` is already encoded."""
        return expand(meta_params, self.adapts(list(meta_params)), len(support.targets))

    def objective(self, model: Model, outputs: Tensor, batch: Batch) -> Tensor:
        """(T,) losses, of support or query."""
        return model.task.loss(outputs, batch)

    def trajectory(self, model: Model, meta_params: Params, support: Batch) -> Iterator[Adapted]:
        """The learner after 0, 1, …, `inner_steps` steps on the support loss."""
        names = self.adapts(list(meta_params))
        support = with_guesses(self, model, meta_params, support)
        support = support._replace(inputs=model.encode(meta_params, names, support.inputs))
        stacked = self.start(model, meta_params, support)
        shared = {name: value for name, value in meta_params.items() if name not in stacked}

        def losses(point: Params) -> Tensor:
            outputs = model.outputs(shared, point, support.inputs, self.inner_dropout)
            return self.objective(model, outputs, support)

        def rate(name: str, step: int) -> float | Tensor:
            return self.rate(meta_params, support, name, step)

        points = gradient_descent(losses, stacked, rate, self.inner_steps, self.inner_first_order, self.inner_clip_norm)
        return (Adapted(shared, point) for point in points)

    def adapt(self, model: Model, meta_params: Params, support: Batch) -> Adapted:
        """Gradient descent on the support loss. Differentiable if gradients are enabled."""
        for adapted in self.trajectory(model, meta_params, support):
            last = adapted
        return last

    def predict(self, model: Model, adapted: Adapted, inputs: Inputs) -> Tensor:
        """(T, B, N) outputs."""
        return model.outputs(adapted.shared, adapted.stacked, inputs)

    def meta_gradient(self, model: Model, meta_params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """Gradient of the query loss after adaptation, summed over tasks."""

        def losses(leaves: Params) -> tuple[Tensor, Metrics]:
            query, early = episode.query, []
            names = self.adapts(list(leaves))
            query = query._replace(inputs=model.encode(leaves, names, query.inputs))
            for step, adapted in enumerate(self.trajectory(model, leaves, episode.support)):
                if step == self.inner_steps or (step and self.inner_multi_step_loss):
                    outputs = self.predict(model, adapted, query.inputs)
                    early.append(self.objective(model, outputs, query))
            loss = early.pop()
            if early:
                weight = self.inner_multi_step_loss
                loss = (1 - weight) * loss + weight * torch.stack(early).mean(0)
            return loss, model.task.metrics(outputs, episode.query)

        return gradient_of(losses, meta_params)


def concatenate(first: Batch, second: Batch) -> Batch:
    """Concatenates two batches along the example axis. Tokens are padded to the longer batch.

    Elements (T, E, …) belong to examples (T, B, …), the same number to each. They are padded with weight 0.
    """
    examples = [next(iter(batch.inputs.values())).shape[1] for batch in (first, second)]

    def join(a: Tensor, b: Tensor) -> Tensor:
        if a.dim() > 2:
            length = max(a.shape[2], b.shape[2])
            a, b = (F.pad(x, (0, 0) * (x.dim() - 3) + (0, length - x.shape[2])) for x in (a, b))
        return torch.cat([a, b], dim=1)

    def join_elements(a: Tensor, b: Tensor) -> Tensor:
        a, b = (x.reshape(len(x), count, -1, *x.shape[2:]) for x, count in zip((a, b), examples, strict=True))
        return join(a, b).flatten(1, 2)

    inputs = {name: join(first.inputs[name], second.inputs[name]) for name in first.inputs}
    targets = join_elements(first.targets, second.targets)
    weights = join_elements(first.weights, second.weights)
    return Batch(inputs, targets, weights, first.outputs)
