"""First-order MAML.

Chelsea Finn, Pieter Abbeel, Sergey Levine. Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks.
ICML 2017, §5.2. https://arxiv.org/abs/1703.03400
"""

from dataclasses import dataclass
from typing import Literal

from distmeta.algorithms.base import GradientBased, registry


@registry.register("fomaml")
@dataclass(frozen=True, kw_only=True)
class FOMAML(GradientBased):
    """MAML that treats inner gradients as constants: the meta-gradient is Σ_t ∇L_t at the adapted parameters."""

    inner_first_order: Literal[True] = True
