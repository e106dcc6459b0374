"""Relation networks.

Flood Sung, Yongxin Yang, Li Zhang, Tao Xiang, Philip H. S. Torr, Timothy M. Hospedales. Learning to Compare: Relation
Network for Few-Shot Learning. CVPR 2018. https://arxiv.org/abs/1711.06025
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from distmeta.algorithms.base import Algorithm, gradient_of, registry, require_classes, without_head
from distmeta.algorithms.protonet import prototypes
from distmeta.algorithms.unlabelled import with_guesses
from distmeta.protocols import Model
from distmeta.types import Adapted, Batch, Episode, Inputs, Metrics, Params

SLOPE, MIDDLE = 10.0, 0.95  # at the start r = σ(SLOPE · (MIDDLE − distance)), for features of unit length


@registry.register("relation")
@dataclass(frozen=True, kw_only=True)
class Relation(Algorithm):
    """A learned comparison: r_n(x) = σ(v · relu(W [c_n; f(x)] + b) + d) in 0..1, the relation of a text to a class.

    c_n is the class's mean support feature. The paper takes the sum, which grows with the shots, so a module trained
    with 5 shots would fail with 1. The paper's module has convolutions for images; for vectors two layers are enough.
    Loss mse is the paper's objective, mean_n (r_n − 1[n is right])². Loss cross_entropy is that of
    P(n) = r_n / Σ r. Outputs are log r_n in both cases, so their softmax is P.

    The module starts as a distance, so that it need not learn to compare first. W holds random orthogonal directions,
    as a · (c − f) and as −a · (c − f). The relus of a pair add up to |a · (c − f)|, and their mean is proportional to
    the distance. More directions, up to twice the features, give a closer approximation.
    """

    hidden_size: Annotated[int, Field(ge=2, multiple_of=2)] = 768  # twice the features of a small encoder
    loss: Literal["mse", "cross_entropy"] = "mse"  # as in the paper; on pretrained features cross_entropy learned more

    def adapts(self, names: Sequence[str]) -> list[str]:
        """Nothing: texts are compared with classes, and no parameter is adapted."""
        return []

    def check(self, model: Model, outputs: int) -> None:
        """Refuses tasks without classes."""
        require_classes(model, "relations are between texts and classes")

    def init(self, model: Model, generator: torch.Generator) -> Params:
        """θ: the body and the relation module, `meta.relation.*`. H is `hidden_size`."""
        params = model.init()
        dtype = next(iter(params.values()), torch.empty(0)).dtype
        pairs = self.hidden_size // 2
        directions = torch.empty(pairs, model.dim, dtype=dtype)
        torch.nn.init.orthogonal_(directions, gain=max(pairs, model.dim) ** 0.5, generator=generator)
        half = torch.cat([directions, -directions], dim=1)
        # The mean absolute value of a normal variable is √(2/π).
        slope = -SLOPE * math.sqrt(math.pi / 2) / pairs
        return {
            **without_head(params),
            "meta.relation.hidden.weight": torch.cat([half, -half]),  # (H, 2D)
            "meta.relation.hidden.bias": torch.zeros(self.hidden_size, dtype=dtype),
            "meta.relation.score.weight": torch.full((1, self.hidden_size), slope, dtype=dtype),
            "meta.relation.score.bias": torch.full((1,), SLOPE * MIDDLE, dtype=dtype),
        }

    def adapt(self, model: Model, meta_params: Params, support: Batch) -> Adapted:
        """Class features (T, N, D) of the support set."""
        support = with_guesses(self, model, meta_params, support)
        features = model.features(meta_params, {}, support.inputs)
        return Adapted(meta_params, {"classes": prototypes(features, support)})

    def predict(self, model: Model, adapted: Adapted, inputs: Inputs) -> Tensor:
        """(T, Q, N) logarithms of the relation scores."""
        theta, classes = adapted.shared, adapted.stacked["classes"]
        of_class, of_query = theta["meta.relation.hidden.weight"].chunk(2, dim=1)
        # W [c; f] = W_c c + W_f f: each term is computed once, not once per pair.
        hidden = F.linear(model.features(theta, {}, inputs), of_query, theta["meta.relation.hidden.bias"]).unsqueeze(2)
        hidden = (hidden + F.linear(classes, of_class).unsqueeze(1)).relu()
        scores = F.linear(hidden, theta["meta.relation.score.weight"], theta["meta.relation.score.bias"])
        return F.logsigmoid(scores.squeeze(-1))

    def objective(self, model: Model, outputs: Tensor, batch: Batch) -> Tensor:
        """(T,) losses that meta-training minimises."""
        if self.loss == "cross_entropy":
            return model.task.loss(outputs, batch)
        right = F.one_hot(batch.targets, outputs.shape[-1])
        errors = (outputs.exp() - right).square().mean(-1)
        return (errors * batch.weights).sum(-1) / batch.weights.sum(-1)

    def meta_gradient(self, model: Model, meta_params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """Gradient of the objective on the query set, summed over tasks. The metrics are those of P."""

        def losses(leaves: Params) -> tuple[Tensor, Metrics]:
            adapted = self.adapt(model, leaves, episode.support)
            outputs = self.predict(model, adapted, episode.query.inputs)
            return self.objective(model, outputs, episode.query), model.task.metrics(outputs, episode.query)

        return gradient_of(losses, meta_params)
