"""Matching networks.

Oriol Vinyals, Charles Blundell, Timothy Lillicrap, Koray Kavukcuoglu, Daan Wierstra. Matching Networks for One Shot
Learning. NeurIPS 2016. https://arxiv.org/abs/1606.04080
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distmeta.algorithms.base import Algorithm, Rate, Steps, query_gradient, registry, require_classes, without_head
from distmeta.algorithms.unlabelled import with_guesses
from distmeta.errors import ConfigError
from distmeta.protocols import Model
from distmeta.types import Adapted, Batch, Episode, Inputs, Metrics, Params

FORWARD, BACKWARD, READER = (f"meta.context.{name}" for name in ("forward", "backward", "reader"))


@registry.register("matching")
@dataclass(frozen=True, kw_only=True)
class Matching(Algorithm):
    """P(n | x) = Σ_{i of class n} a(x, x_i), a = softmax_i(scale · cos(f(x), g(x_i))): attention over the support set.

    With `full_context`, g(x_i) also depends on the rest of the support set, and f(x) on all of it (appendix A of the
    paper). The set is read as a sequence, in the episode's order. As in the paper, another order gives other
    embeddings. Without `full_context`, the order has no effect. Support examples of weight 0 are ignored; others
    count by their weight.
    """

    scale: Rate = 1.0  # as in the paper; cosines of pretrained features lie close together and need about 10
    full_context: bool = False
    context_steps: Steps = 5  # K: how often a query reads the support set; only with full_context

    def adapts(self, names: Sequence[str]) -> list[str]:
        """Nothing: queries attend to the support set, and no parameter is adapted."""
        return []

    def check(self, model: Model, outputs: int) -> None:
        """Refuses tasks without classes, and `context_steps` without `full_context`."""
        require_classes(model, "attention is summed over the examples of a class")
        if not self.full_context and self.context_steps != Matching.context_steps:
            found = f"{self.context_steps}, but algorithm.full_context is false"
            raise ConfigError("algorithm.context_steps", found, "leave it out, or set algorithm.full_context to true")

    def init(self, model: Model, generator: torch.Generator) -> Params:
        """θ: the body, and with `full_context` three recurrent cells, `meta.context.*`."""
        params = model.init()
        if not self.full_context:
            return without_head(params)
        dtype = next(iter(params.values()), torch.empty(0)).dtype
        context: Params = {}
        for name, read in ((FORWARD, 0), (BACKWARD, 0), (READER, model.dim)):
            context |= _cell(name, 2 * model.dim + read, model.dim, generator, dtype)
        return {**without_head(params), **context}

    def adapt(self, model: Model, meta_params: Params, support: Batch) -> Adapted:
        """Keys g(x_i) (T, S, D), and members (T, S, N): an example's weight in its class's column, else 0."""
        support = with_guesses(self, model, meta_params, support)
        keys = model.features(meta_params, {}, support.inputs)
        weights = support.weights.to(keys.dtype)
        members = F.one_hot(support.targets, support.outputs).to(keys.dtype) * weights.unsqueeze(-1)
        if self.full_context:
            states = (_read_through(meta_params, name, keys, weights) for name in (FORWARD, BACKWARD))
            keys = keys + sum(states)
        return Adapted(meta_params, {"keys": keys, "members": members})

    def predict(self, model: Model, adapted: Adapted, inputs: Inputs) -> Tensor:
        """(T, Q, N) log probabilities."""
        keys, members = adapted.stacked["keys"], adapted.stacked["members"]
        queries = model.features(adapted.shared, {}, inputs)
        if self.full_context:
            queries = _read(adapted.shared, queries, keys, members.sum(-1), self.context_steps)
        cosines = F.normalize(queries, dim=-1) @ F.normalize(keys, dim=-1).mT
        # The log of weight 0 is −∞, so an example of another class adds exp(−∞) = 0.
        each = self.scale * cosines.unsqueeze(-1) + members.log().unsqueeze(1)
        return each.logsumexp(2).log_softmax(-1)

    def meta_gradient(self, model: Model, meta_params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """Gradient of the query loss, summed over tasks."""
        return query_gradient(self, model, meta_params, episode)


def _cell(name: str, inputs: int, dim: int, generator: torch.Generator, dtype: torch.dtype) -> Params:
    """A recurrent cell, (4D, inputs) and (4D,): input, forget and output gate, and the candidate.

    The candidate's weights start at 0, so the cell's output is 0 and training starts from plain attention.
    """
    weight = torch.randn(4 * dim, inputs, generator=generator, dtype=dtype) / inputs**0.5
    weight[3 * dim :] = 0
    return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(4 * dim, dtype=dtype)}


def _step(params: Params, name: str, inputs: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """One step of a long short-term memory: (…, inputs), (…, D) → output and memory, (…, D) each."""
    gates = F.linear(inputs, params[f"{name}.weight"], params[f"{name}.bias"])
    enter, keep, show, new = gates.chunk(4, dim=-1)
    memory = keep.sigmoid() * memory + enter.sigmoid() * new.tanh()
    return show.sigmoid() * memory.tanh(), memory


def _read_through(params: Params, name: str, features: Tensor, weights: Tensor) -> Tensor:
    """The cell's outputs (T, S, D) along the support set. `BACKWARD` reads from the end. Padding is skipped.

    Equations of appendix A.2: h_i, c_i = LSTM(g′(x_i), h_{i−1}, c_{i−1}).
    """
    output = memory = torch.zeros_like(features[:, 0])
    positions = range(features.shape[1])
    outputs = [output] * len(positions)
    for i in positions[::-1] if name == BACKWARD else positions:
        stepped = _step(params, name, torch.cat([features[:, i], output], dim=-1), memory)
        present = weights[:, i, None] > 0
        output, memory = (torch.where(present, a, b) for a, b in zip(stepped, (output, memory), strict=True))
        outputs[i] = output
    return torch.stack(outputs, dim=1)


def _read(params: Params, queries: Tensor, keys: Tensor, weights: Tensor, steps: int) -> Tensor:
    """f(x) (T, Q, D) after `steps` reads of the support set.

    Appendix A.1: h_k = ĥ_k + f′(x), ĥ_k, c_k = LSTM(f′(x), [h_{k−1}, r_{k−1}], c_{k−1}), where
    r_{k−1} = Σ_i softmax_i(h_{k−1} · g(x_i)) g(x_i). It starts from ĥ_0 = c_0 = 0.
    """
    state, memory = queries, torch.zeros_like(queries)
    for _ in range(steps):
        read = (state @ keys.mT + weights.log().unsqueeze(1)).softmax(-1) @ keys
        output, memory = _step(params, READER, torch.cat([queries, state, read], dim=-1), memory)
        state = queries + output
    return state
