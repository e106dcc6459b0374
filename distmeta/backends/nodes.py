"""Adds gradients from other machines; each machine may first add its whole branches of the tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import ray
from ray.exceptions import NodeDiedError, ObjectLostError, RayError, TaskUnschedulableError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distmeta.engine import reduction
from distmeta.errors import GradientsLostError, ServerLostError
from distmeta.types import Leaf

LOST = (NodeDiedError, ObjectLostError, TaskUnschedulableError, WorkerCrashedError)  # how a node's sum may fail


def reason(error: RayError | ServerLostError) -> str:
    """Why an actor was lost, in one line; raises the error if the actor could not be built."""
    if "creation task" in str(error):
        raise error
    return str(error).splitlines()[0]


class Remote(NamedTuple):
    """A gradient that is stored on a node, in one part or several."""

    node: str
    parts: tuple[Any, ...]


class Branches(NamedTuple):
    """A sum of remote branches: nested pairs of branch numbers, the branches' weights, and references to them."""

    tree: Any
    weights: list[float]
    references: list[Any]


def branches(leaves: Sequence[Leaf], part: int, by_node: bool) -> Branches:
    """The branches of one part of remote gradients: the leaves themselves, or (`by_node`) sums made on nodes."""
    weights: list[float] = []
    references: list[Any] = []

    def branch(node: Any, start: int, end: int) -> int:
        gradients = [gradient.parts[part] for gradient, _ in leaves[start:end]]
        counts = [weight for _, weight in leaves[start:end]]
        if by_node:
            strategy = NodeAffinitySchedulingStrategy(node, soft=False)
            task = ray.remote(_add).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)
            gradients, counts = [task.remote(counts, *gradients)], [1.0]
        references.extend(gradients)
        weights.extend(counts)
        return len(references) - 1

    places = [gradient.node if by_node else number for number, (gradient, _) in enumerate(leaves)]
    tree = reduction.fold(places, branch, lambda left, right: (left, right))
    return Branches(tree, weights, references)


def combine(tree: Any, weights: Sequence[float], arrays: Sequence[np.ndarray]) -> np.ndarray:
    """(P,) float32, the sum along the tree of branches that were fetched."""
    if isinstance(tree, int):
        return reduction.add([(arrays[tree], weights[tree])])
    left, right = (combine(half, weights, arrays) for half in tree)
    return reduction.join(left, right)


def add_here(leaves: Sequence[Leaf]) -> np.ndarray:
    """(P,) float32, the weighted sum of remote gradients in one part; nodes add their whole branches first.

    Raises:
        GradientsLostError: some were lost with their node.
    """
    total = branches(leaves, 0, by_node=True)
    try:
        return combine(total.tree, total.weights, ray.get(total.references))
    except LOST as error:
        raise GradientsLostError from error


def _add(weights: list[float], *gradients: np.ndarray) -> np.ndarray:
    return reduction.add(list(zip(gradients, weights, strict=True)))
