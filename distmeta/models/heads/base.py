"""Code shared by heads: the registry, and a linear map from an element's features to its outputs."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from distmeta.models.body import Body
from distmeta.registry import Registry
from distmeta.types import Inputs, Params

registry = Registry("head", "distmeta.models.heads")


class LinearHead:
    """Outputs are a linear function of an element's features. A subclass defines the elements."""

    one_element_each: ClassVar[bool]  # whether an example is one element
    inputs: ClassVar[tuple[str, ...]] = ()  # inputs that the head takes besides the body's

    def dim(self, body: Body) -> int:
        """D, the number of features of an element."""
        raise NotImplementedError

    def elements(self, body: Body, inputs: Inputs) -> Tensor:
        """Inputs of examples (B, …) → elements (B, …, D)."""
        raise NotImplementedError

    def upper(self, body: Body, states: Tensor, inputs: Inputs) -> Tensor:
        """A body's states (B, L, H), with `attention_mask` and the head's own inputs → elements (B, …, D)."""
        raise NotImplementedError

    def module(self, dim: int, outputs: int) -> nn.Linear:
        """The head's module: elements (…, D) → outputs (…, N)."""
        return nn.Linear(dim, outputs)

    def from_prototypes(self, centres: Tensor, scale: float) -> Params:
        """Parameters that score class n by −scale · ‖f − c_n‖², up to a term that all classes share.

        The score is linear in f with weight 2 · scale · c_n and bias −scale ‖c_n‖²: centres (T, N, D) → (T, N, D),
        (T, N).
        """
        return {"weight": 2 * scale * centres, "bias": -scale * centres.square().sum(-1)}

    def zeros(self, tasks: int, outputs: int, dim: int, like: Tensor) -> Params:
        """Zero parameters for each of `tasks` tasks."""
        made = {"dtype": like.dtype, "device": like.device}
        weight, bias = torch.zeros(tasks, outputs, dim, **made), torch.zeros(tasks, outputs, **made)  # type: ignore[call-overload]
        return {"weight": weight, "bias": bias}
