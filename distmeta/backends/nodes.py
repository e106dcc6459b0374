"""Adding gradients on the nodes where they lie, before they cross the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import ray
from ray.exceptions import NodeDiedError, ObjectLostError, TaskUnschedulableError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distmeta import reduction
from distmeta.errors import GradientsLostError
from distmeta.types import Leaf

LOST = (NodeDiedError, ObjectLostError, TaskUnschedulableError, WorkerCrashedError)  # what may become of a node's sum


class Remote(NamedTuple):
    """A gradient that lies on a node."""

    node: str
    reference: Any


def add_by_node(leaves: Sequence[Leaf]) -> np.ndarray:
    """(P,) float32, the weighted sum of remote gradients: the same to the bit as that of `distmeta.reduction.add`.

    Raises:
        GradientsLostError: a node cannot say what lay on it.
    """
    sums: dict[Any, range] = {}  # of branches, by their reference

    def branch(node: str, start: int, end: int) -> Any:
        weights = [weight for _, weight in leaves[start:end]]
        here = NodeAffinitySchedulingStrategy(node, soft=False)
        task = ray.remote(_add).options(num_cpus=0, max_retries=0, scheduling_strategy=here)
        reference = task.remote(weights, *(gradient.reference for gradient, _ in leaves[start:end]))
        sums[reference] = range(start, end)
        return reference

    places = [gradient.node for gradient, _ in leaves]
    tree = reduction.fold(places, branch, lambda left, right: (left, right))
    values: dict[Any, np.ndarray] = {}
    lost: list[int] = []
    for reference, positions in sums.items():
        try:
            values[reference] = ray.get(reference)
        except LOST:
            lost += positions
    if lost:
        raise GradientsLostError(lost)

    def total(node: Any) -> np.ndarray:
        return total(node[0]) + total(node[1]) if isinstance(node, tuple) else values[node]

    return total(tree)


def _add(weights: list[float], *gradients: np.ndarray) -> np.ndarray:
    return reduction.add(list(zip(gradients, weights, strict=True)))
