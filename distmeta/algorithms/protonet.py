"""Prototypical networks.

Jake Snell, Kevin Swersky, Richard Zemel. Prototypical Networks for Few-shot Learning. NeurIPS 2017.
https://arxiv.org/abs/1703.05175
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from distmeta.algorithms.base import Algorithm, Rate, query_gradient, registry, require_classes, without_head
from distmeta.algorithms.unlabelled import with_guesses
from distmeta.protocols import Model
from distmeta.types import Adapted, Batch, Episode, Inputs, Metrics, Params


def prototypes(features: Tensor, support: Batch) -> Tensor:
    """The weighted mean feature of each class: (T, S, D) → (T, N, D)."""
    members = F.one_hot(support.targets, support.outputs).to(features.dtype) * support.weights.to(
        features.dtype
    ).unsqueeze(-1)
    return torch.einsum("tsn,tsd->tnd", members, features) / members.sum(1).unsqueeze(-1)


@registry.register("protonet")
@dataclass(frozen=True, kw_only=True)
class ProtoNet(Algorithm):
    """Scores a class by −scale · squared Euclidean distance to the mean of its support features."""

    baseline: ClassVar[str | None] = "prototypes, frozen encoder"

    scale: Rate = 1.0  # as in the paper; features of unit length need about 10

    def adapts(self, names: Sequence[str]) -> list[str]:
        """Nothing: prototypes are computed, not adapted."""
        return []

    def check(self, model: Model, outputs: int) -> None:
        """Refuses tasks without classes."""
        require_classes(model, "prototypes stand for classes")

    def init(self, model: Model, generator: torch.Generator) -> Params:
        """θ: the body; there is no head."""
        return without_head(model.init())

    def adapt(self, model: Model, meta_params: Params, support: Batch) -> Adapted:
        """Prototypes (T, N, D) of the support set."""
        support = with_guesses(self, model, meta_params, support)
        features = model.features(meta_params, {}, support.inputs)
        return Adapted(meta_params, {"prototypes": prototypes(features, support)})

    def predict(self, model: Model, adapted: Adapted, inputs: Inputs) -> Tensor:
        """(T, Q, N) scores."""
        features = model.features(adapted.shared, {}, inputs)
        difference = features.unsqueeze(2) - adapted.stacked["prototypes"].unsqueeze(1)
        return -self.scale * difference.square().sum(-1)

    def meta_gradient(self, model: Model, meta_params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """Gradient of the query loss, summed over tasks."""
        return query_gradient(self, model, meta_params, episode)
