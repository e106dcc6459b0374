"""Meta-SGD.

Zhenguo Li, Fengwei Zhou, Fei Chen, Hang Li. Meta-SGD: Learning to Learn Quickly for Few-Shot Learning. 2017.
https://arxiv.org/abs/1707.09835
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from distmeta.algorithms.base import GradientBased, Steps, registry
from distmeta.protocols import Model
from distmeta.types import Batch, Params


@registry.register("metasgd")
@dataclass(frozen=True, kw_only=True)
class MetaSGD(GradientBased):
    """MAML with θ′ = θ − α ∘ ∇L(θ). α has a rate for each adapted element and is meta-learned with θ.

    α is stored in θ as `meta.rate.*`, each with its parameter's shape. It may become negative. All steps share α.

    The paper draws the starting values of α from a small range. Here all are `inner_lr`: the key keeps its meaning,
    the untrained learner equals MAML's, and nothing is random. On sinusoids, values drawn from 0.005 to 0.1 trained no
    better.
    """

    inner_steps: Steps = 1  # as in the paper
    inner_learn_lr: Literal[True] = True

    def rates(self, params: Params) -> Params:
        """α: one tensor per adapted parameter, filled with `inner_lr`."""
        return {f"meta.rate.{name}": torch.full_like(params[name], self.inner_lr) for name in self.adapts(list(params))}

    def sized(self, model: Model, meta_params: Params, outputs: int) -> Params:
        """θ and α with a head of `outputs` outputs."""
        rates = {name: meta_params[f"meta.rate.{name}"] for name in self.adapts(list(meta_params))}
        resized = {f"meta.rate.{name}": value for name, value in model.resized(rates, outputs).items()}
        return {**super().sized(model, meta_params, outputs), **resized}

    def rate(self, meta_params: Params, support: Batch, name: str, step: int) -> float | Tensor:
        """α of a parameter, with its shape; the same at every step."""
        return meta_params[f"meta.rate.{name}"]
