"""θ and its optimiser spread over actors: `distmeta.engine.interfaces.Parameters` in parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import ActorDiedError, ActorUnavailableError

from distmeta.backends.nodes import LOST, branches, combine, reason
from distmeta.config import OuterConfig
from distmeta.engine.shard import BLOCK, Shard
from distmeta.errors import GradientsLostError, ServerLostError
from distmeta.types import Add, Leaf


def cuts(size: int, shards: int) -> list[int]:
    """Where to cut a vector: at block boundaries, into as many parts as that allows, no longer than need be."""
    blocks = -(-size // BLOCK)
    shards = min(shards, blocks)
    return [BLOCK * (blocks * n // shards) for n in range(1, shards)]


class ShardActor:
    """One part."""

    def __init__(self, outer: OuterConfig, values: np.ndarray, regularized: np.ndarray | None) -> None:
        torch.set_num_threads(1)
        self._shard = Shard(outer, values, regularized)

    def take(self, tree: Any, weights: list[float], *arrays: np.ndarray) -> None:
        """Adds the branches of its part of a sum."""
        self._shard.take([], lambda _: combine(tree, weights, arrays))

    def step(self, scale: float, rate: float) -> tuple[bool, np.ndarray]:
        """One step: whether all numbers are finite after it, and the new values."""
        return self._shard.step(scale, rate), self._shard.values

    def call(self, method: str, *arguments: Any) -> Any:
        """Anything else that a shard does."""
        return getattr(self._shard, method)(*arguments)

    def values(self) -> np.ndarray:
        """Its values."""
        return self._shard.values


class RayShards:
    """Shards in actors, spread over the nodes; an actor that dies takes the server along, which starts again.

    Args:
        shards: how many, where θ is long enough.
        by_node: whether gradients are added on their nodes first.
        outer: the optimiser and the regulariser.
        meta_params: θ to start from, (P,) float32.
        regularized: (P,) which elements the regulariser is of; none: all.
    """

    def __init__(
        self,
        shards: int,
        by_node: bool,
        outer: OuterConfig,
        meta_params: np.ndarray,
        regularized: np.ndarray | None = None,
    ) -> None:
        self._cuts, self._by_node = cuts(len(meta_params), shards), by_node
        kind = ray.remote(ShardActor).options(num_cpus=0, scheduling_strategy="SPREAD")
        starts = np.split(meta_params, self._cuts)
        masks = [None] * len(starts) if regularized is None else np.split(regularized, self._cuts)
        self._actors = [kind.remote(outer, values, mask) for values, mask in zip(starts, masks, strict=True)]
        self._parts = [actor.values.remote() for actor in self._actors]

    @property
    def values(self) -> np.ndarray:
        """A copy, (P,) float32."""
        return np.concatenate(_get(self._parts))

    @property
    def handle(self) -> tuple[Any, ...]:
        """References of the parts, which go from their nodes straight to the workers'."""
        return tuple(self._parts)

    def take(self, leaves: Sequence[Leaf], add: Add) -> None:
        """Has each part added up by its actor.

        Raises:
            GradientsLostError: some went down with their node.
        """
        sums = [branches(leaves, part, self._by_node) for part in range(len(self._actors))]
        calls = [
            actor.take.remote(its.tree, its.weights, *its.references)
            for actor, its in zip(self._actors, sums, strict=True)
        ]
        try:
            _get(calls)
        except LOST as error:
            raise GradientsLostError from error

    def squares(self, tasks: int) -> list[float]:
        """The blocks' sums of squares, in order."""
        return [square for part in self._call("squares", tasks) for square in part]

    def step(self, scale: float, rate: float) -> bool:
        """One step of all parts; whether all numbers are finite after it."""
        calls = [actor.step.options(num_returns=2).remote(scale, rate) for actor in self._actors]
        self._parts = [values for _, values in calls]
        return all(_get([is_finite for is_finite, _ in calls]))

    def undo(self) -> None:
        """Goes back to before the last step, in all parts."""
        self._call("undo")
        self._parts = [actor.values.remote() for actor in self._actors]

    def move_anchor(self) -> None:
        """From now on the proximal regulariser pulls to where θ is."""
        self._call("move_anchor")

    def arrays(self) -> dict[str, np.ndarray]:
        """All parts' arrays, put together."""
        parts = self._call("arrays")
        whole = {name: [part[name] for part in parts] for name in parts[0]}
        # What is not a vector, such as the number of steps, is the same in all.
        return {name: np.concatenate(its) if its[0].ndim else its[0] for name, its in whole.items()}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Goes back to what `arrays` returned."""
        split = {name: np.split(its, self._cuts) if its.ndim else None for name, its in arrays.items()}
        parts = [
            {name: arrays[name] if its is None else its[number] for name, its in split.items()}
            for number in range(len(self._actors))
        ]
        _get([actor.call.remote("load", part) for actor, part in zip(self._actors, parts, strict=True)])
        self._parts = [actor.values.remote() for actor in self._actors]

    def _call(self, method: str, *arguments: Any) -> list[Any]:
        return _get([actor.call.remote(method, *arguments) for actor in self._actors])


def _get(references: Sequence[Any]) -> list[Any]:
    try:
        answers: list[Any] = ray.get(list(references))
    except (ActorDiedError, ActorUnavailableError) as error:
        raise ServerLostError(reason(error)) from error
    return answers
