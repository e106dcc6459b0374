"""Meta networks.

Tsendsuren Munkhdalai, Hong Yu. Meta Networks. ICML 2017. https://arxiv.org/abs/1703.00837
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from distmeta.algorithms.base import Algorithm, Rate, gradient_of, registry, require_classes, without_head
from distmeta.algorithms.protonet import prototypes
from distmeta.algorithms.unlabelled import with_guesses
from distmeta.errors import ConfigError
from distmeta.protocols import Model
from distmeta.types import Adapted, Batch, Episode, Inputs, Metrics, Params

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
ENCODER, GENERATOR = "meta.encoder", "meta.generator"


@registry.register("metanet")
@dataclass(frozen=True, kw_only=True)
class MetaNet(Algorithm):
    """Meta-trained on α · L_task + β · L_meta. A task's head is slow weights plus generated fast weights.

    1. The encoder maps a text's features f to r = f + E(f). E has two layers, `meta.encoder.*`. The class
       encoding c_n is the mean r of the class's support texts. Slow weights of class n: w_n = c_n, b_n = −½‖c_n‖².
    2. A head scores class n by s_n(r) = 2 · scale · (w_n · r + b_n). L_meta is the loss of the slow head on the
       support texts. It is the paper's representation loss and pulls the encodings of a class together.
    3. The meta-information is the gradient of L_meta, with w_n as a free variable:
       m_n = −N / (2 · scale) · ∂L_meta/∂w_n = N Σ_i ω_i (1[y_i = n] − p_n(r_i)) r_i, with p = softmax(s) and weights
       ω of sum 1.
    4. The generator makes fast weights, with the same G for each class: [Δw_n; Δb_n] = G([c_n; m_n]). G has two
       layers, `meta.generator.*`. It works for any classes and any number of them.
    5. L_task is the loss of the head (w_n + Δw_n, b_n + Δb_n) on the query texts.

    E affects both losses, G only L_task. Both start at 0, so the learner starts as a nearest-prototype classifier.

    The paper differs: it generates weights per example and mixes them by attention (here per class); it has fast
    weights for the encoder too; it applies slow and fast weights side by side (here they are added); and it trains
    on L_task alone, which is beta = 0.
    """

    alpha: Weight = 1.0
    beta: Weight = 1.0
    scale: Rate = 10.0  # for features of unit length
    hidden_size: Count = 256  # of E and of G
    max_generated: Count = 1_000_000  # most numbers that are generated for a task

    def adapts(self, names: Sequence[str]) -> list[str]:
        """Nothing: weights are generated, not adapted."""
        return []

    def check(self, model: Model, outputs: int) -> None:
        """Refuses tasks without classes, an objective of 0, and heads too large to generate."""
        require_classes(model, "weights are generated class by class")
        if not self.alpha and not self.beta:
            raise ConfigError("algorithm.alpha", "0, and algorithm.beta is 0 too", "set one of them above 0")
        if (size := outputs * (model.dim + 1)) > self.max_generated:
            found = (
                f"{self.max_generated}, but a head is {outputs} classes × ({model.dim} features + 1) = {size} numbers"
            )
            fits = self.max_generated // (model.dim + 1)
            fewer = f"use at most {fits} classes in episodes and evaluation" if fits > 1 else "use protonet"
            raise ConfigError("algorithm.max_generated", found, f"set it to {size}, or {fewer}")

    def init(self, model: Model, generator: torch.Generator) -> Params:
        """θ: the body, the encoder E (D → D) and the generator G (2D → D + 1)."""
        params = model.init()
        dtype = next(iter(params.values()), torch.empty(0)).dtype
        theta = without_head(params)
        for name, inputs, outputs in ((ENCODER, model.dim, model.dim), (GENERATOR, 2 * model.dim, model.dim + 1)):
            hidden = torch.randn(self.hidden_size, inputs, generator=generator, dtype=dtype)
            theta[f"{name}.hidden.weight"] = hidden
            theta[f"{name}.hidden.bias"] = torch.zeros(self.hidden_size, dtype=dtype)
            theta[f"{name}.output.weight"] = torch.zeros(outputs, self.hidden_size, dtype=dtype)
            theta[f"{name}.output.bias"] = torch.zeros(outputs, dtype=dtype)
        return theta

    def encodings(self, model: Model, meta_params: Params, inputs: Inputs) -> Tensor:
        """r = f + E(f), (T, B, D)."""
        features = model.features(meta_params, {}, inputs)
        return features + _two_layers(meta_params, ENCODER, features)

    def scores(self, head: Params, encodings: Tensor) -> Tensor:
        """(T, B, N) scores from weights (T, N, D) and biases (T, N)."""
        return 2 * self.scale * (encodings @ head["weight"].mT + head["bias"].unsqueeze(1))

    def adapt(self, model: Model, meta_params: Params, support: Batch) -> Adapted:
        """The generated head: weights (T, N, D), biases (T, N)."""
        support = with_guesses(self, model, meta_params, support)
        encodings = self.encodings(model, meta_params, support.inputs)
        slow = slow_head(encodings, support)
        information = meta_information(encodings, self.scores(slow, encodings), support)
        fast = _two_layers(meta_params, GENERATOR, torch.cat([slow["weight"], information], dim=-1))
        head = {"weight": slow["weight"] + fast[..., :-1], "bias": slow["bias"] + fast[..., -1]}
        return Adapted(meta_params, head)

    def predict(self, model: Model, adapted: Adapted, inputs: Inputs) -> Tensor:
        """(T, B, N) scores."""
        return self.scores(adapted.stacked, self.encodings(model, adapted.shared, inputs))

    def meta_gradient(self, model: Model, meta_params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """Gradient of α · L_task + β · L_meta, summed over tasks; `meta_loss` is L_meta, the rest of the query."""

        def losses(leaves: Params) -> tuple[Tensor, Metrics]:
            support = episode.support._replace(inputs=model.encode(leaves, (), episode.support.inputs))
            outputs = self.predict(model, self.adapt(model, leaves, support), episode.query.inputs)
            encodings = self.encodings(model, leaves, support.inputs)
            meta_loss = model.task.loss(self.scores(slow_head(encodings, support), encodings), support)
            loss = self.alpha * model.task.loss(outputs, episode.query) + self.beta * meta_loss
            return loss, {**model.task.metrics(outputs, episode.query), "meta_loss": meta_loss.detach()}

        return gradient_of(losses, meta_params)


def slow_head(encodings: Tensor, support: Batch) -> Params:
    """The nearest-prototype classifier of the support encodings (T, S, D): weights (T, N, D), biases (T, N)."""
    centres = prototypes(encodings, support)
    return {"weight": centres, "bias": -0.5 * centres.square().sum(-1)}


def meta_information(encodings: Tensor, scores: Tensor, support: Batch) -> Tensor:
    """m_n (T, N, D) from encodings (T, S, D) and scores (T, S, N): the direction that lowers the support loss."""
    share = support.weights.to(scores.dtype) / support.weights.sum(-1, keepdim=True)
    errors = (F.one_hot(support.targets, support.outputs) - scores.softmax(-1)) * share.unsqueeze(-1)
    return scores.shape[-1] * errors.mT @ encodings


def _two_layers(params: Params, name: str, inputs: Tensor) -> Tensor:
    """Two layers. Hidden units are averaged, so a learning rate for features of unit length fits here too."""
    hidden = F.linear(inputs, params[f"{name}.hidden.weight"], params[f"{name}.hidden.bias"]).relu()
    return F.linear(hidden / hidden.shape[-1], params[f"{name}.output.weight"], params[f"{name}.output.bias"])
