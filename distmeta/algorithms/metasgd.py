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
from distmeta.types import Batch, Params


@registry.register("metasgd")
@dataclass(frozen=True, kw_only=True)
class MetaSGD(GradientBased):
    """MAML with θ′ = θ − α ∘ ∇L(θ), where α, a rate for each element of what is adapted, is meta-learned with θ.

    α lies in θ as `meta.rate.*`, each of its parameter's shape; it may become negative. The paper draws its starting
    values from a small range; here all are `inner_lr`, so that the key keeps its meaning, the untrained learner is
    MAML's, and no chance enters: gradients differ between elements anyway, and on sinusoids values drawn from 0.005 to
    0.1 trained no better. Several steps share α.
    """

    inner_steps: Steps = 1  # the paper's
    inner_learn_lr: Literal[True] = True

    def rates(self, params: Params) -> Params:
        """α: what is adapted, filled with `inner_lr`."""
        return {f"meta.rate.{name}": torch.full_like(params[name], self.inner_lr) for name in self.adapts(list(params))}

    def rate(self, meta_params: Params, support: Batch, name: str, step: int) -> float | Tensor:
        """α of a parameter, of its shape, whatever the step."""
        return meta_params[f"meta.rate.{name}"]
