"""The interface of bodies: token states, and their pooling to one vector per text."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn


class Body(nn.Module):
    """Computes states (B, L, H) of the tokens in its `inputs`, and pools them to text features (B, D).

    A text's states and features must not depend on the padding of its batch. `width` is H, `dim` is D. Bodies for
    numbers have only features: they override `forward`.
    """

    width: int
    dim: int
    inputs: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask")
    splits = False  # whether `lower` and `upper` exist; `states` is then `upper` of `lower`, cut at any layer

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L) ids and mask → (B, L, H)."""
        raise NotImplementedError

    def pool(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L, H) and (B, L) → (B, D)."""
        raise NotImplementedError

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L) → (B, D)."""
        return self.pool(self.states(input_ids, attention_mask), attention_mask)

    def for_onnx(self) -> Body:
        """The body that is exported to ONNX: its operators take texts of any length. By default it is itself."""
        return self

    def lower(self, input_ids: Tensor, attention_mask: Tensor, layers: int) -> Tensor:
        """(B, L) → (B, L, H): states after the first `layers` layers."""
        raise NotImplementedError

    def upper(self, states: Tensor, attention_mask: Tensor, layers: int) -> Tensor:
        """(B, L, H) states after `layers` layers → (B, L, H) after the last layer."""
        raise NotImplementedError
