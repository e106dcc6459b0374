"""The interface of bodies: states of tokens, and how a text's states are pooled."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn


class Body(nn.Module):
    """Makes states (B, L, H) of the tokens of its `inputs`, and pools them to features of texts, (B, D).

    What it makes of one text must not depend on the padding that other texts of its batch need. `width` is H, `dim` D.
    Bodies of numbers have features alone: they override `forward`.
    """

    width: int
    dim: int
    inputs: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask")
    splits = (
        False  # whether `lower` and `upper` are there: then `states` is the upper after the lower, cut at any layer
    )

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L) ids and mask → (B, L, H)."""
        raise NotImplementedError

    def pool(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L, H) and (B, L) → (B, D)."""
        raise NotImplementedError

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L) → (B, D)."""
        return self.pool(self.states(input_ids, attention_mask), attention_mask)

    def lower(self, input_ids: Tensor, attention_mask: Tensor, layers: int) -> Tensor:
        """(B, L) → (B, L, H): states after the first so many layers."""
        raise NotImplementedError

    def upper(self, states: Tensor, attention_mask: Tensor, layers: int) -> Tensor:
        """(B, L, H) states after so many layers → (B, L, H) after the last one."""
        raise NotImplementedError
