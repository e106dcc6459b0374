"""An element is a pair of entities in a text.

Livio Baldini Soares, Nicholas FitzGerald, Jeffrey Ling, Tom Kwiatkowski. Matching the Blanks: Distributional Similarity
for Relation Learning. ACL 2019, §3.2. https://arxiv.org/abs/1906.03158
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from distmeta.models.body import Body
from distmeta.models.heads.base import LinearHead, registry
from distmeta.types import Inputs


@registry.register("pair")
class PairHead(LinearHead):
    """Elements are the mean states of head and tail, side by side, (B, 2H).

    `spans` (B, 4) of the inputs has the first token of the head, the one behind its last, and the same of the tail.
    """

    one_element_each: ClassVar[bool] = True
    inputs: ClassVar[tuple[str, ...]] = ("spans",)

    def dim(self, body: Body) -> int:
        """2H, for the widths of two states."""
        return 2 * body.width

    def elements(self, body: Body, inputs: Inputs) -> Tensor:
        """(B, L) and `spans` (B, 4) → (B, 2H)."""
        return self.upper(body, body.states(*(inputs[name] for name in body.inputs)), inputs)

    def upper(self, body: Body, states: Tensor, inputs: Inputs) -> Tensor:
        """(B, L, H) and `spans` (B, 4) → (B, 2H)."""
        positions = torch.arange(states.shape[-2], device=states.device)
        starts, ends = inputs["spans"][..., 0::2, None], inputs["spans"][..., 1::2, None]
        inside = ((positions >= starts) & (positions < ends)).to(states.dtype)  # (B, 2, L)
        means = inside @ states / inside.sum(-1, keepdim=True)
        return means.flatten(-2)
