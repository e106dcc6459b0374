"""An element is a whole example: a text, or numbers."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from distmeta.models.body import Body
from distmeta.models.heads.base import LinearHead, registry
from distmeta.types import Inputs


@registry.register("text")
class TextHead(LinearHead):
    """Elements are the body's pooled states, (B, D)."""

    one_element_each: ClassVar[bool] = True

    def dim(self, body: Body) -> int:
        """D of the body's pooled states."""
        return body.dim

    def elements(self, body: Body, inputs: Inputs) -> Tensor:
        """(B, …) → (B, D)."""
        features: Tensor = body(*(inputs[name] for name in body.inputs))
        return features

    def upper(self, body: Body, states: Tensor, inputs: Inputs) -> Tensor:
        """(B, L, H) → (B, D)."""
        return body.pool(states, inputs["attention_mask"])
