"""Proto-MAML.

Eleni Triantafillou et al. Meta-Dataset: A Dataset of Datasets for Learning to Learn from Few Examples. ICLR 2020, §3.
https://arxiv.org/abs/1903.03096
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from distmeta.algorithms.base import GradientBased, Rate, registry, require_classes, without_head
from distmeta.algorithms.inner import expand
from distmeta.algorithms.protonet import prototypes
from distmeta.errors import ConfigError
from distmeta.protocols import Model
from distmeta.types import Batch, Params


@registry.register("protomaml")
@dataclass(frozen=True, kw_only=True)
class ProtoMAML(GradientBased):
    """MAML whose head starts as the nearest-prototype classifier of the support set and is then adapted.

    Up to a term that all classes share, −scale ‖f − c‖² is linear in f with weight 2 · scale · c and bias
    −scale ‖c‖². The start depends on the body, so gradients flow through it too. All second derivatives are kept. The
    paper's experiments leave them out to save memory.
    """

    scale: Rate = 1.0  # as in the paper; features of unit length need about 10
    starts_from_support: ClassVar[bool] = True

    def adapts(self, names: Sequence[str]) -> list[str]:
        """The chosen parameters of the body, and always the head."""
        chosen = set(super().adapts(names))
        return [name for name in names if name in chosen or name.startswith("head.")]

    def check(self, model: Model, outputs: int) -> None:
        """Refuses tasks without classes, a frozen head, and what `GradientBased` refuses."""
        require_classes(model, "prototypes stand for classes")
        if model.frozen_head:
            found = "the head is frozen, but this algorithm makes it from each support set and adapts it"
            raise ConfigError("model.freeze", found, "leave the head out, or use protonet")
        super().check(model, outputs)

    def starting(self, params: Params) -> Params:
        """The body; the head is made from each support set."""
        return without_head(params)

    def start(self, model: Model, meta_params: Params, support: Batch) -> Params:
        """The head from prototypes, and a copy of the adapted body parameters for each task."""
        centres = prototypes(model.features(meta_params, {}, support.inputs), support)
        head = model.head_from_prototypes(centres, self.scale)
        return {**expand(meta_params, self.adapts(list(meta_params)), len(centres)), **head}
