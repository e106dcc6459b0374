"""What every model shares: options that build a body, a network of body and head, and its functional view."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from pydantic import Field
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.func import functional_call, vmap

from distmeta.models.body import Body
from distmeta.models.heads.base import LinearHead
from distmeta.models.heads.base import registry as heads
from distmeta.models.names import layer_of, match
from distmeta.protocols import Scoring
from distmeta.registry import Registry
from distmeta.types import Inputs, Params

registry = Registry("model.name", "distmeta.models")

Architecture = dict[str, Any]  # plain JSON: all that is needed to build a body on any machine, without files
CPU_CHUNK, GPU_CHUNK = 32, 512  # texts of like length that the body takes at once, where it runs once on all
HIDDEN = "hidden."  # `hidden.4` among inputs: (T, B, L, H) states after a body's first 4 layers


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Options that all models have."""

    reads: ClassVar[str] = "text"

    normalize: bool = False  # features of unit length
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # in meta-training only

    @property
    def twice_differentiable(self) -> bool:
        """Whether all of its kernels have a second derivative."""
        return True


class ModelFactory(Protocol):
    """What a registered options class offers."""

    reads: ClassVar[str]  # the task kinds that it suits: text | numbers

    @property
    def twice_differentiable(self) -> bool:
        """Whether all of its kernels have a second derivative."""

    @property
    def normalize(self) -> bool:
        """Whether features have unit length."""

    @property
    def dropout(self) -> float:
        """Share of features dropped in meta-training."""

    def prepare(self, path: str | None, texts: Iterable[str]) -> tuple[Tokenizer, Architecture]:
        """Finds or builds the tokenizer (from meta-training texts alone) and describes the body. Driver only.

        Models that read numbers are not asked; their architecture is the number of `inputs`.
        """

    def pretrained(self, path: str | None) -> Params | None:
        """The body's pretrained values by name, or None to start from random ones. Driver only."""

    def body(self, architecture: Architecture) -> Body:
        """Builds the body, its values random."""


def cut_of(inputs: Iterable[str]) -> int | None:
    """How many layers the body has gone through already, if it is not at its start."""
    return next((int(name.removeprefix(HIDDEN)) for name in inputs if name.startswith(HIDDEN)), None)


class Network(nn.Module):
    """A body, and the heads of families by their name; elements that are given are not made again."""

    def __init__(self, body: Body, heads: Mapping[str, tuple[LinearHead, int]], normalize: bool) -> None:
        super().__init__()
        self.body, self.normalize = body, normalize
        self.heads = {family: head for family, (head, _) in heads.items()}
        # Its names are those of the parameters: head.FAMILY.weight.
        self.head = nn.ModuleDict(
            {family: head.module(head.dim(body), outputs) for family, (head, outputs) in heads.items()}
        )

    def forward(
        self, inputs: Inputs, family: str, elements_only: bool, dropout: float = 0.0, layers: int | None = None
    ) -> Tensor:
        """(B, ...) inputs → (B, ..., D) elements or (B, ..., N) outputs; with `layers`, the states after so many."""
        if layers is not None:
            return self.body.lower(inputs["input_ids"], inputs["attention_mask"], layers)
        if "features" in inputs:
            elements = inputs["features"]
        else:
            head = self.heads[family]
            if (cut := cut_of(inputs)) is None:
                elements = head.elements(self.body, inputs)
            else:
                mask = inputs["attention_mask"]
                elements = head.upper(self.body, self.body.upper(inputs[f"{HIDDEN}{cut}"], mask, cut), mask)
            if self.normalize:
                elements = F.normalize(elements, dim=-1)
        return elements if elements_only else self.head[family](F.dropout(elements, dropout, self.training))


class FunctionalModel:
    """A network as pure functions of its parameters, for one of its families (see `distmeta.protocols.Model`).

    Args:
        network: gives the structure, and the starting values for `init`.
        task: how the family's outputs are scored, and by its name which of the heads it is.
        freeze: patterns of parameter names that are neither adapted nor meta-learned.
        twice_differentiable: whether the body's kernels have a second derivative.
    """

    def __init__(
        self, network: Network, task: Scoring, freeze: Sequence[str] = (), twice_differentiable: bool = True
    ) -> None:
        self.network, self.task, self.twice_differentiable = network, task, twice_differentiable
        self.head, self.reads = network.heads[task.name], network.body.inputs
        self.dim, self.one_element_each = self.head.dim(network.body), self.head.one_element_each
        self._prefix = f"head.{task.name}."
        values = {name: value.detach() for name, value in self.own(dict(network.named_parameters())).items()}
        frozen = match(values, freeze, "model.freeze")
        self.frozen = {name: values[name] for name in frozen}
        self.free = [name for name in values if name not in self.frozen]
        self.frozen_head = any(name.startswith("head.") for name in frozen)

    def own(self, params: Params) -> Params:
        """Parameters without the heads of other families."""
        return {n: v for n, v in params.items() if not n.startswith("head.") or n.startswith(self._prefix)}

    def head_from_prototypes(self, centres: Tensor, scale: float) -> Params:
        """See `distmeta.models.heads.base.LinearHead.from_prototypes`."""
        return {self._prefix + name: value for name, value in self.head.from_prototypes(centres, scale).items()}

    def head_of_zeros(self, tasks: int, outputs: int, like: Tensor) -> Params:
        """A head for each task whose parameters are all zero, (T, ...) each."""
        return {self._prefix + name: value for name, value in self.head.zeros(tasks, outputs, self.dim, like).items()}

    def init(self) -> Params:
        """Copies of the starting values of all that is not frozen."""
        values = dict(self.network.named_parameters())
        return {name: values[name].detach().clone() for name in self.free}

    def train(self, mode: bool) -> None:
        """Switches dropout on or off."""
        self.network.train(mode)

    def encode(self, shared: Params, adapted: Iterable[str], inputs: Inputs) -> Inputs:
        """Runs once, on all tasks' inputs, what no task has parameters of its own for.

        That is the body and what makes elements, up to (T, E, D) `features`; or the body's layers below the first
        adapted one, up to `hidden.4`, where it splits (in meta-training, dropout there is drawn once and not at every
        inner step); or nothing. Texts are sorted by length and taken in chunks, so that short ones are not padded to
        the longest.
        """
        cut, own = cut_of(inputs), [name for name in adapted if name.startswith("body.")]
        below = self._below(own)
        if cut is not None and own and (below is None or below < cut):
            raise ValueError(f"the inputs are states after {cut} layers, and {own[0]} is adapted")
        if "features" in inputs or (own and (below is None or cut is not None)):
            return inputs
        reads = self.network.body.inputs if cut is None else (f"{HIDDEN}{cut}", "attention_mask")
        flat = {name: inputs[name].flatten(0, 1) for name in reads}
        by_length = "attention_mask" in reads
        values = self._by_length(shared, flat, below) if by_length else self._call(shared, flat, True)
        values = values.view(*inputs[reads[0]].shape[:2], *values.shape[1:])
        if below is None:
            values = _as_elements(values)
        others = {name: value for name, value in inputs.items() if name not in reads}
        if below is None:
            return {"features": values, **others}
        return {f"{HIDDEN}{below}": values, "attention_mask": inputs["attention_mask"], **others}

    def _below(self, own: list[str]) -> int | None:
        """How many of the body's layers lie below all of these parameters; None where it cannot be cut there."""
        layers = [layer for name in own if (layer := layer_of(name)) is not None]
        return min(layers) if self.network.body.splits and layers and len(layers) == len(own) else None

    def _by_length(self, shared: Params, flat: Inputs, layers: int | None) -> Tensor:
        mask = flat["attention_mask"]
        size = CPU_CHUNK if mask.device.type == "cpu" else GPU_CHUNK
        lengths = mask.sum(-1)
        order = torch.argsort(lengths, stable=True)
        parts = []
        for chunk in torch.split(order, size):
            longest = int(lengths[chunk[-1]])
            part = self._call(shared, {k: v[chunk, :longest] for k, v in flat.items()}, True, layers=layers)
            parts.append(part if part.dim() == 2 else F.pad(part, (0, 0, 0, mask.shape[1] - longest)))
        return torch.cat(parts)[torch.argsort(order)]

    def features(self, shared: Params, stacked: Params, inputs: Inputs) -> Tensor:
        """(T, E, D) elements."""
        encoded = self.encode(shared, stacked, inputs)
        return encoded["features"] if "features" in encoded else self._stacked(shared, stacked, encoded, True)

    def outputs(self, shared: Params, stacked: Params, inputs: Inputs, dropout: float = 0.0) -> Tensor:
        """(T, E, N) outputs; in meta-training, the share `dropout` of the features is dropped."""
        return self._stacked(shared, stacked, self.encode(shared, stacked, inputs), False, dropout)

    def _stacked(
        self, shared: Params, stacked: Params, inputs: Inputs, features_only: bool, dropout: float = 0.0
    ) -> Tensor:
        # vmap over the forward pass alone: torch.func.grad over vmap is wrong in second order through LayerNorm.
        def one_task(own: Params, its: Inputs) -> Tensor:
            return self._call({**shared, **own}, its, features_only, dropout)

        return _as_elements(vmap(one_task, randomness="different")(stacked, inputs))

    def _call(
        self, params: Params, inputs: Inputs, features_only: bool, dropout: float = 0.0, layers: int | None = None
    ) -> Tensor:
        needed = (self._prefix,) if "features" in inputs else ("body.", self._prefix)
        params = {n: v for n, v in {**self.frozen, **params}.items() if n.startswith(needed)}
        result: Tensor = functional_call(self.network, params, (inputs, self.task.name, features_only, dropout, layers))
        return result


def _as_elements(values: Tensor) -> Tensor:
    """(T, B, ..., D) → (T, E, D): the elements of all examples in a row."""
    return values.flatten(1, -2)


def build(
    options: ModelFactory,
    architecture: Architecture,
    outputs: Mapping[str, tuple[str, int]],
    values: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> Network:
    """Builds a network on any machine; `values` replace the seeded random ones.

    Args:
        options: of the body.
        architecture: of the body.
        outputs: by family, its element and how many outputs an element has.
        values: by name.
        seed: of the random values.
        device: a torch device.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = {family: (heads.get(element)(), count) for family, (element, count) in outputs.items()}
        network = Network(options.body(architecture), made, options.normalize)
    unknown = network.load_state_dict(dict(values or {}), strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"values for parameters that the network does not have: {', '.join(unknown)}")
    return network.to(device)
