"""A family's network as pure functions of its parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, vmap

from distmeta.models.base import HIDDEN, Network, cut_of
from distmeta.models.names import layer_of, match
from distmeta.protocols import Scoring
from distmeta.types import Inputs, Params

CPU_CHUNK, GPU_CHUNK = 32, 512  # most texts of similar length per run of the body in `encode`


class FunctionalModel:
    """One family's network as pure functions of its parameters (see `distmeta.protocols.Model`).

    Args:
        network: gives the structure, and the starting values for `init`.
        task: scores the family's outputs. Its name selects the head.
        freeze: patterns of names of parameters that are neither adapted nor meta-learned.
        twice_differentiable: whether the body's kernels have a second derivative.
    """

    def __init__(
        self, network: Network, task: Scoring, freeze: Sequence[str] = (), twice_differentiable: bool = True
    ) -> None:
        self.network, self.task, self.twice_differentiable = network, task, twice_differentiable
        self.head = network.heads[task.name]
        self.reads = (*network.body.inputs, *self.head.inputs)
        self.dim, self.one_element_each = self.head.dim(network.body), self.head.one_element_each
        self._prefix = f"head.{task.name}."
        values = {name: value.detach() for name, value in self.own(dict(network.named_parameters())).items()}
        frozen = match(values, freeze, "model.freeze")
        self.frozen = {name: values[name] for name in frozen}
        self.free = [name for name in values if name not in self.frozen]
        self.frozen_head = any(name.startswith("head.") for name in frozen)
        every = list(network.named_parameters(remove_duplicate=False))
        self._tied = len(every) > len(list(network.named_parameters()))  # whether a parameter has two names

    def own(self, params: Params) -> Params:
        """Parameters without the heads of other families."""
        return {n: v for n, v in params.items() if not n.startswith("head.") or n.startswith(self._prefix)}

    def head_from_prototypes(self, centres: Tensor, scale: float) -> Params:
        """See `distmeta.models.heads.base.LinearHead.from_prototypes`."""
        return {self._prefix + name: value for name, value in self.head.from_prototypes(centres, scale).items()}

    def head_of_zeros(self, tasks: int, outputs: int, like: Tensor) -> Params:
        """A head of zeros for each task, (T, ...) each."""
        return {self._prefix + name: value for name, value in self.head.zeros(tasks, outputs, self.dim, like).items()}

    def resized(self, params: Params, outputs: int) -> Params:
        """Parameters of a head with another number of outputs. Others stay as they are.

        For fewer outputs the first rows are kept. For more, each output gets the mean row: with labels shuffled in
        each episode, no output of a meta-trained head has a meaning of its own.
        """

        def change(value: Tensor) -> Tensor:
            if outputs <= len(value):
                return value[:outputs]
            return value.mean(0, keepdim=True).expand(outputs, *value.shape[1:])

        return {name: change(value) if name.startswith(self._prefix) else value for name, value in params.items()}

    def init(self) -> Params:
        """Copies of the starting values of all parameters that are not frozen."""
        values = dict(self.network.named_parameters())
        return {name: values[name].detach().clone() for name in self.free}

    def train(self, mode: bool) -> None:
        """Switches dropout on or off."""
        if self.network.training != mode:
            self.network.train(mode)

    def encode(self, shared: Params, adapted: Iterable[str], inputs: Inputs) -> Inputs:
        """Runs the part of the network that all tasks share, once on all tasks' inputs.

        If no body parameter is adapted, this gives (T, E, D) `features`. If the body splits, this runs the layers below
        the first adapted one and gives, for example, `hidden.4`; dropout there is drawn once, not at every inner step.
        Otherwise inputs are unchanged. Texts are sorted by length and run in chunks, so that short texts are not padded
        to the longest.
        """
        cut, own = cut_of(inputs), [name for name in adapted if name.startswith("body.")]
        below = self._below(own)
        if cut is not None and own and (below is None or below < cut):
            raise ValueError(f"the inputs are states after {cut} layers, and {own[0]} is adapted")
        if "features" in inputs or (own and (below is None or cut is not None)):
            return inputs
        reads = self.reads if cut is None else (f"{HIDDEN}{cut}", "attention_mask", *self.head.inputs)
        flat = {name: inputs[name].flatten(0, 1) for name in reads}
        by_length = "attention_mask" in reads
        values = self._by_length(shared, flat, below) if by_length else self._call(shared, flat, True)
        values = values.view(*inputs[reads[0]].shape[:2], *values.shape[1:])
        if below is None:
            values = _as_elements(values)
        rest = {name: value for name, value in inputs.items() if name not in reads}
        if below is None:
            return {"features": values, **rest}
        kept = {name: inputs[name] for name in ("attention_mask", *self.head.inputs)}
        return {f"{HIDDEN}{below}": values, **kept, **rest}

    def _below(self, own: list[str]) -> int | None:
        """The number of body layers below all of these parameters; None if the body cannot be cut there."""
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
            short = {k: v[chunk] if k in self.head.inputs else v[chunk, :longest] for k, v in flat.items()}
            part = self._call(shared, short, True, layers=layers)
            parts.append(part if part.dim() == 2 else F.pad(part, (0, 0, 0, mask.shape[1] - longest)))
        return torch.cat(parts)[torch.argsort(order)]

    def features(self, shared: Params, stacked: Params, inputs: Inputs) -> Tensor:
        """(T, E, D) elements."""
        encoded = self.encode(shared, stacked, inputs)
        return encoded["features"] if "features" in encoded else self._stacked(shared, stacked, encoded, True)

    def outputs(self, shared: Params, stacked: Params, inputs: Inputs, dropout: float = 0.0) -> Tensor:
        """(T, E, N) outputs. In meta-training, the share `dropout` of the features is dropped."""
        return self._stacked(shared, stacked, self.encode(shared, stacked, inputs), False, dropout)

    def _stacked(
        self, shared: Params, stacked: Params, inputs: Inputs, features_only: bool, dropout: float = 0.0
    ) -> Tensor:
        # vmap only the forward pass: torch.func.grad over vmap is wrong in second order through LayerNorm.
        def one_task(own: Params, task_inputs: Inputs) -> Tensor:
            return self._call({**shared, **own}, task_inputs, features_only, dropout)

        return _as_elements(vmap(one_task, randomness="different")(stacked, inputs))

    def _call(
        self, params: Params, inputs: Inputs, features_only: bool, dropout: float = 0.0, layers: int | None = None
    ) -> Tensor:
        values = {**self.frozen, **params}
        if "features" in inputs:
            return self._head(values, inputs["features"], features_only, dropout)
        values = {name: value for name, value in values.items() if name.startswith(("body.", self._prefix))}
        arguments = inputs, self.task.name, features_only, dropout, layers
        result: Tensor = functional_call(self.network, values, arguments, tie_weights=self._tied)
        return result

    def _head(self, values: Params, features: Tensor, features_only: bool, dropout: float) -> Tensor:
        """As the network, whose body is not needed: to put parameters into its head alone takes a tenth of the time."""
        if features_only:
            return features
        head, start = self.network.head[self.task.name], len(self._prefix)
        own = {name[start:]: value for name, value in values.items() if name.startswith(self._prefix)}
        result: Tensor = functional_call(head, own, (F.dropout(features, dropout, self.network.training),))
        return result


def _as_elements(values: Tensor) -> Tensor:
    """(T, B, ..., D) → (T, E, D): the elements of all examples along one axis."""
    return values.flatten(1, -2)
