"""Body only update in inner loop (BOIL).

Jaehoon Oh, Hyungjun Yoo, ChangHwan Kim, Se-Young Yun. BOIL: Towards Representation Change for Few-shot Learning.
ICLR 2021. https://arxiv.org/abs/2008.08882
"""

from dataclasses import dataclass
from typing import Literal

from distmeta.algorithms.base import GradientBased, registry
from distmeta.errors import ConfigError
from distmeta.protocols import Model


@registry.register("boil")
@dataclass(frozen=True, kw_only=True)
class BOIL(GradientBased):
    """MAML that adapts only the body, in meta-training and at meta-test. Body and head are meta-learned."""

    inner_adapt: Literal["body"] = "body"

    def check(self, model: Model, outputs: int) -> None:
        """Refuses a fully frozen body, and what `GradientBased` refuses."""
        if not self.adapts(list(model.init())):
            raise ConfigError(
                "model.freeze", "boil adapts the body, but all of it is frozen", "freeze less, or use anil"
            )
        super().check(model, outputs)
