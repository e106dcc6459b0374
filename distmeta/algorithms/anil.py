"""Almost no inner loop (ANIL).

Aniruddh Raghu, Maithra Raghu, Samy Bengio, Oriol Vinyals. Rapid Learning or Feature Reuse? Towards Understanding the
Effectiveness of MAML. ICLR 2020. https://arxiv.org/abs/1909.09157
"""

from dataclasses import dataclass
from typing import Literal

from distmeta.algorithms.base import GradientBased, registry
from distmeta.errors import ConfigError
from distmeta.protocols import Model


@registry.register("anil")
@dataclass(frozen=True, kw_only=True)
class ANIL(GradientBased):
    """MAML that adapts only the head, in meta-training and at meta-test. The body is meta-learned."""

    inner_adapt: Literal["head"] = "head"

    def check(self, model: Model, outputs: int) -> None:
        """Refuses a fully frozen head, and what `GradientBased` refuses."""
        if not self.adapts(list(model.init())):
            raise ConfigError(
                "model.freeze", "anil adapts the head, but all of it is frozen", "freeze less, or use boil"
            )
        super().check(model, outputs)
