"""What the tests of matching, relation and meta networks share: episodes of given features, models, differences."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from fakes import Given, classification
from model_helpers import TEXTS, build, make_options, random_batch
from torch import Tensor

from distmeta.models.functional import FunctionalModel
from distmeta.types import Batch, Episode, Params

TASK = classification("a", "b", "c")
SIZES: dict[str, dict[str, Any]] = {
    "text_cnn": {"embedding_size": 4, "filters": 3, "widths": (2,)},
    "mlp": {"embedding_size": 4, "hidden_sizes": (5,)},
}


def without_classes(dim: int) -> Any:
    """A model for tasks that have no classes."""
    model: Any = Given(dim)
    model.task = SimpleNamespace(has_classes=False)
    return model


def given(features: Any, targets: list[int], weights: list[float] | None = None) -> Batch:
    """A batch of one task of two classes."""
    values = torch.tensor([features], dtype=torch.float64)
    marks = torch.tensor([weights or [1.0] * len(targets)], dtype=torch.float64)
    return Batch({"features": values}, torch.tensor([targets]), marks, 2)


def random_given(tasks: int, ways: int, each: int, dim: int, seed: int) -> Batch:
    """Random features, class by class."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(tasks, ways * each, dim, generator=generator, dtype=torch.float64)
    targets = torch.arange(ways).repeat_interleave(each).repeat(tasks, 1)
    return Batch({"features": features}, targets, torch.ones(targets.shape, dtype=torch.float64), ways)


def take(batch: Batch, order: list[int]) -> Batch:
    """The examples at these positions."""
    inputs = {name: value[:, order] for name, value in batch.inputs.items()}
    return Batch(inputs, batch.targets[:, order], batch.weights[:, order], batch.outputs)


def with_padding(batch: Batch, at: int) -> Batch:
    """One more example, far away, of class 0 and of weight 0, at a position."""
    features = batch.inputs["features"]
    far = torch.full_like(features[:, :1], 7.0)
    zeros = torch.zeros_like(batch.targets[:, :1])
    return Batch(
        {"features": torch.cat([features[:, :at], far, features[:, at:]], dim=1)},
        torch.cat([batch.targets[:, :at], zeros, batch.targets[:, at:]], dim=1),
        torch.cat([batch.weights[:, :at], zeros.double(), batch.weights[:, at:]], dim=1),
        batch.outputs,
    )


def outputs_of(learner: Any, model: Any, theta: Params, support: Batch, query: Batch) -> Tensor:
    """(T, Q, N) outputs for the query set after adaptation to the support set."""
    with torch.no_grad():
        outputs: Tensor = learner.predict(model, learner.adapt(model, theta, support), query.inputs)
    return outputs


def small_model(name: str) -> FunctionalModel:
    """A small model of texts, in float64."""
    options = make_options(name, **SIZES[name])
    _, architecture = options.prepare(None, TEXTS)
    model = build(options, json.loads(json.dumps(architecture)), TASK, 2, seed=3)
    model.network.double()
    return model


def text_episode() -> Episode:
    """Two tasks of two classes, two support and two query texts each; a support text of each task does not count."""

    def batch(texts: int, seed: int, weights: list[float]) -> Batch:
        made = random_batch((2, texts, 5), 12, seed)
        targets = torch.arange(2).repeat_interleave(texts // 2).repeat(2, 1)
        return made._replace(targets=targets, weights=torch.tensor([weights] * 2, dtype=torch.float64), outputs=2)

    return Episode("classification", batch(6, 5, [1, 1, 0, 1, 0.5, 1]), batch(4, 6, [1, 1, 1, 0]), (("a", "b"),) * 2)


def scattered(theta: Params, size: float) -> Params:
    """θ moved at random, so that nothing is 0 any more."""
    generator = torch.Generator().manual_seed(4)
    return {n: v + size * torch.randn(v.shape, generator=generator, dtype=torch.float64) for n, v in theta.items()}


def slope(objective: Callable[[Params], Tensor], theta: Params, gradient: Params) -> tuple[float, float]:
    """Along a random direction: the derivative by the gradient, and by central differences of the objective."""
    generator = torch.Generator().manual_seed(1)
    direction = {n: torch.randn(v.shape, generator=generator, dtype=torch.float64) for n, v in theta.items()}

    def at(step: float) -> float:
        with torch.no_grad():
            return float(objective({n: theta[n] + step * direction[n] for n in theta}))

    h = 1e-6
    return sum(float((gradient[n] * direction[n]).sum()) for n in theta), (at(h) - at(-h)) / (2 * h)
