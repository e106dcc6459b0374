"""Reptile.

Alex Nichol, Joshua Achiam, John Schulman. On First-Order Meta-Learning Algorithms. 2018.
https://arxiv.org/abs/1803.02999
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from distmeta.algorithms.base import GradientBased, concatenate, registry
from distmeta.errors import ConfigError
from distmeta.protocols import Model
from distmeta.types import Episode, Metrics, Params


@registry.register("reptile")
@dataclass(frozen=True, kw_only=True)
class Reptile(GradientBased):
    """θ ← θ + ε mean_t(θ′_t − θ): with `outer.optimizer: sgd`, ε is `outer.lr`.

    The paper has no query set. Here the learner adapts to support and query examples together, and a step's metrics are
    computed on query examples that the learner has seen. Each inner step is plain gradient descent on all examples.
    The paper takes one minibatch per step, and Adam in its experiments.
    """

    learns_through_steps: ClassVar[bool] = False
    joins_sets: ClassVar[bool] = True

    def check(self, model: Model, outputs: int) -> None:
        """Refuses 0 inner steps, and what `GradientBased` refuses."""
        if not self.inner_steps:
            found = "0, but reptile learns from the result of the inner steps"
            raise ConfigError("inner.steps", found, "set it to 1 or more")
        super().check(model, outputs)

    def meta_gradient(self, model: Model, meta_params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """Σ_t (θ − θ′_t) for adapted parameters, 0 for the others."""
        with torch.no_grad():
            adapted = self.adapt(model, meta_params, concatenate(episode.support, episode.query))
            outputs = self.predict(model, adapted, episode.query.inputs)
            gradient = {name: torch.zeros_like(value) for name, value in meta_params.items()}
            for name, value in adapted.stacked.items():
                gradient[name] = (meta_params[name] - value).sum(0)
        return gradient, model.task.metrics(outputs, episode.query)
