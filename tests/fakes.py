"""Stand-ins that several tests use: families of tasks, and models whose arithmetic can be done on paper."""

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distmeta.tasks.classification import Classification
from distmeta.tasks.drawing import Classes
from distmeta.types import Batch, Episode, HeadSpec, Inputs, Metrics, Params


def classification(*classes: str) -> Classification:
    """A family without texts: all that models and algorithms need."""
    corpus: Any = SimpleNamespace(classes=classes)
    return Classification(corpus, Classes(corpus))


class CrossEntropy:
    """A task family of which models need only the loss."""

    name, head = "toy", HeadSpec("text")

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean over each task's examples, (T,)."""
        losses = F.cross_entropy(outputs.flatten(0, 1), batch.targets.flatten(), reduction="none")
        return losses.view(batch.targets.shape).mean(1)


class Quadratic:
    """L = ½ Σ w (p − t)², over Σ w if `mean`. It is family and model at once.

    p is the sum of all parameters: numbers, or vectors (N,). Targets t and weights w are (T, N); any N fits numbers.
    """

    task: Any
    twice_differentiable = True

    def __init__(self, start: dict[str, Any], mean: bool = True) -> None:
        self.task, self.mean = self, mean
        self.start = {name: torch.tensor(value, dtype=torch.float64) for name, value in start.items()}

    def init(self) -> Params:
        return {name: value.clone() for name, value in self.start.items()}

    def encode(self, shared: Params, adapted: list[str], inputs: Inputs) -> Inputs:
        return inputs

    def outputs(self, shared: Params, stacked: Params, inputs: Inputs, dropout: float = 0.0) -> Tensor:
        values = {**shared, **stacked}
        size = next(iter(self.start.values())).numel()
        return torch.as_tensor(sum(values[name] for name in self.start)).reshape(-1, size)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        total = (0.5 * (outputs - batch.targets).square() * batch.weights).sum(1)
        return total / batch.weights.sum(1) if self.mean else total

    def metrics(self, outputs: Tensor, batch: Batch) -> Metrics:
        return {"loss": self.loss(outputs, batch).detach()}


def quadratic_episode(support: list[list[float]], query: list[list[float]]) -> Episode:
    """Targets (T, N) for `Quadratic`."""

    def batch(targets: list[list[float]]) -> Batch:
        values = torch.tensor(targets, dtype=torch.float64)
        return Batch({"rows": torch.zeros(values.shape)}, values, torch.ones(values.shape), 1)

    return Episode("toy", batch(support), batch(query), (("t",),) * len(support))


class Given:
    """A model whose features are its inputs, float64, and which has nothing to learn."""

    twice_differentiable = True

    def __init__(self, dim: int, ways: int = 2) -> None:
        self.task: Any = classification("a", "b", "c")
        self.dim, self.ways = dim, ways

    def init(self) -> Params:
        return {"head.classification.bias": torch.zeros(self.ways, dtype=torch.float64)}

    def encode(self, shared: Params, adapted: Any, inputs: Inputs) -> Inputs:
        return inputs

    def features(self, shared: Params, stacked: Params, inputs: Inputs) -> Tensor:
        return inputs["features"]

    def outputs(self, shared: Params, stacked: Params, inputs: Inputs, dropout: float = 0.0) -> Tensor:
        return inputs["features"].sum(-1, keepdim=True) + shared["head.classification.bias"]
