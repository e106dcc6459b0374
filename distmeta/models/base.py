"""Code shared by models: options that build a body, a network of body and heads, and its functional view."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from pydantic import Field
from tokenizers import Tokenizer
from torch import Tensor, nn

from distmeta.models.body import Body
from distmeta.models.heads.base import LinearHead
from distmeta.models.heads.base import registry as heads
from distmeta.models.memory import allocating
from distmeta.registry import Registry
from distmeta.types import Inputs, Params

registry = Registry("model.name", "distmeta.models")

Architecture = dict[str, Any]  # plain JSON that builds a body on any machine, without files
HIDDEN = "hidden."  # `hidden.4` among inputs: (T, B, L, H) states after a body's first 4 layers


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Options of all models."""

    reads: ClassVar[str] = "text"

    normalize: bool = False  # features of unit length
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # in meta-training only

    @property
    def twice_differentiable(self) -> bool:
        """Whether all kernels have a second derivative."""
        return True


class ModelFactory(Protocol):
    """Interface of a registered options class."""

    reads: ClassVar[str]  # the inputs that the body reads: text | numbers

    @property
    def twice_differentiable(self) -> bool:
        """Whether all kernels have a second derivative."""

    @property
    def normalize(self) -> bool:
        """Whether features have unit length."""

    @property
    def dropout(self) -> float:
        """Share of features dropped in meta-training."""

    def prepare(self, path: str | None, texts: Iterable[str]) -> tuple[Tokenizer, Architecture]:
        """Finds or builds the tokenizer (from meta-training texts alone) and describes the body. Driver only.

        Not called for models that read numbers. Their architecture is the number of `inputs`.
        """

    def pretrained(self, path: str | None) -> Params | None:
        """The body's pretrained values by name, or None for random values. Driver only."""

    def body(self, architecture: Architecture) -> Body:
        """Builds the body with random values."""


def cut_of(inputs: Iterable[str]) -> int | None:
    """The number of body layers already applied to the inputs, or None."""
    return next((int(name.removeprefix(HIDDEN)) for name in inputs if name.startswith(HIDDEN)), None)


class Network(nn.Module):
    """A body, and the heads of families by family name. Given `features` are used as elements."""

    def __init__(self, body: Body, heads: Mapping[str, tuple[LinearHead, int]], normalize: bool) -> None:
        super().__init__()
        self.body, self.normalize = body, normalize
        self.heads = {family: head for family, (head, _) in heads.items()}
        # This gives the parameters their names: head.FAMILY.weight.
        self.head = nn.ModuleDict(
            {family: head.module(head.dim(body), outputs) for family, (head, outputs) in heads.items()}
        )

    def forward(
        self, inputs: Inputs, family: str, elements_only: bool, dropout: float = 0.0, layers: int | None = None
    ) -> Tensor:
        """(B, ...) inputs → (B, ..., D) elements or (B, ..., N) outputs; with `layers`, the states after them."""
        if layers is not None:
            return self.body.lower(inputs["input_ids"], inputs["attention_mask"], layers)
        if "features" in inputs:
            elements = inputs["features"]
        else:
            head = self.heads[family]
            if (cut := cut_of(inputs)) is None:
                elements = head.elements(self.body, inputs)
            else:
                states = self.body.upper(inputs[f"{HIDDEN}{cut}"], inputs["attention_mask"], cut)
                elements = head.upper(self.body, states, inputs)
            if self.normalize:
                elements = F.normalize(elements, dim=-1)
        return elements if elements_only else self.head[family](F.dropout(elements, dropout, self.training))


def build(
    options: ModelFactory,
    architecture: Architecture,
    outputs: Mapping[str, tuple[str, int]],
    values: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> Network:
    """Builds a network on any machine. `values` replace the seeded random values.

    Args:
        options: of the model.
        architecture: of the body.
        outputs: for each family, its element and the number of outputs per element.
        values: parameter values by name.
        seed: of the random values.
        device: a torch device.

    Raises:
        ModelError: the network does not fit into memory.
    """
    with torch.random.fork_rng(devices=[]), allocating("model"):
        torch.manual_seed(seed)
        made = {family: (heads.get(element)(), count) for family, (element, count) in outputs.items()}
        network = Network(options.body(architecture), made, options.normalize)
    if unknown := network.load_state_dict(dict(values or {}), strict=False).unexpected_keys:
        raise ValueError(f"values for parameters that the network does not have: {', '.join(unknown)}")
    return network.to(device)
