"""An element is a token."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from distmeta.models.body import Body
from distmeta.models.heads.base import LinearHead, registry
from distmeta.types import Inputs


@registry.register("token")
class TokenHead(LinearHead):
    """Elements are the body's states, (B, L, H). States of padding are included and have weight 0 in a batch."""

    one_element_each: ClassVar[bool] = False

    def dim(self, body: Body) -> int:
        """H, the width of a state."""
        return body.width

    def elements(self, body: Body, inputs: Inputs) -> Tensor:
        """(B, L) → (B, L, H)."""
        return body.states(*(inputs[name] for name in body.inputs))

    def upper(self, body: Body, states: Tensor, inputs: Inputs) -> Tensor:
        """The states, unchanged."""
        return states
