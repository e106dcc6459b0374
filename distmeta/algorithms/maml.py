"""Model-agnostic meta-learning (MAML).

Chelsea Finn, Pieter Abbeel, Sergey Levine. Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks.
ICML 2017. https://arxiv.org/abs/1703.03400
"""

from dataclasses import dataclass

from distmeta.algorithms.base import GradientBased, registry


@registry.register("maml")
@dataclass(frozen=True, kw_only=True)
class MAML(GradientBased):
    """θ ← θ − β ∇θ Σ_t L_t(θ − α ∇L_t(θ)), with all second derivatives (algorithm 2 of the paper).

    The server takes the mean over tasks instead of the sum.
    """
