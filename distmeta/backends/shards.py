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
    """Where to cut a vector: at block boundaries, into at most `shards` parts of about equal length."""
    blocks = -(-size // BLOCK)
    shards = min(shards, blocks)
    return [BLOCK * (blocks * n // shards) for n in range(1, shards)]


class ShardActor:
    """One part of θ and its optimiser."""

    def __init__(self, outer: OuterConfig, values: np.ndarray, regularized: np.ndarray | None) -> None:
        torch.set_num_threads(1)
        self._shard = Shard(outer, values, regularized)

    def take(self, tree: Any, weights: list[float], *arrays: np.ndarray) -> None:
        """Adds the branches of this part of a sum."""
        self._shard.take([], lambda _: combine(tree, weights, arrays))

    def step(self, scale: float, rate: float) -> tuple[bool, np.ndarray]:
        """Takes a step; returns whether all numbers are finite after it, and the new values."""
        return self._shard.step(scale, rate), self._shard.values

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls another method of the shard."""
        return getattr(self._shard, method)(*arguments)

    def values(self) -> np.ndarray:
        """The values of this part."""
        return self._shard.values


class RayShards:
    """Shards in actors, spread over the nodes. If an actor dies, the server is started again.

    Args:
        shards: how many, if θ is long enough.
        by_node: whether gradients are added on their nodes first.
        outer: the optimiser and the regulariser.
        meta_params: the initial θ, (P,) float32.
        regularized: (P,) mask of the regularised elements; None: all.
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
        """A copy of θ, (P,) float32."""
        return np.concatenate(_get(self._parts))

    @property
    def handle(self) -> tuple[Any, ...]:
        """References to the parts, which go directly from their nodes to the workers' nodes."""
        return tuple(self._parts)

    def take(self, leaves: Sequence[Leaf], add: Add) -> None:
        """Adds gradients for the next step; each actor adds its own part.

        Raises:
            GradientsLostError: some were lost with their node.
        """
        sums = [branches(leaves, part, self._by_node) for part in range(len(self._actors))]
        calls = [
            actor.take.remote(total.tree, total.weights, *total.references)
            for actor, total in zip(self._actors, sums, strict=True)
        ]
        try:
            _get(calls)
        except LOST as error:
            raise GradientsLostError from error

    def squares(self, tasks: int) -> list[float]:
        """The sum of squares of each block, in order."""
        return [square for part in self._call("squares", tasks) for square in part]

    def step(self, scale: float, rate: float) -> bool:
        """Takes a step with all parts; returns whether all numbers are finite after it."""
        calls = [actor.step.options(num_returns=2).remote(scale, rate) for actor in self._actors]
        self._parts = [values for _, values in calls]
        return all(_get([is_finite for is_finite, _ in calls]))

    def undo(self) -> None:
        """Undoes the last step in all parts."""
        self._call("undo")
        self._parts = [actor.values.remote() for actor in self._actors]

    def move_anchor(self) -> None:
        """Moves the anchor of the proximal regulariser to the current θ."""
        self._call("move_anchor")

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of all parts, joined."""
        parts = self._call("arrays")
        whole = {name: [part[name] for part in parts] for name in parts[0]}
        # Scalars, such as the number of steps, are the same in all parts.
        return {name: np.concatenate(arrays) if arrays[0].ndim else arrays[0] for name, arrays in whole.items()}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Restores what `arrays` returned."""
        split = {name: np.split(array, self._cuts) if array.ndim else None for name, array in arrays.items()}
        parts = [
            {name: arrays[name] if pieces is None else pieces[number] for name, pieces in split.items()}
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
