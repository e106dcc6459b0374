"""Adding gradients that lie on other machines: whole branches of the tree first where they lie, if so wished."""

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

LOST = (NodeDiedError, ObjectLostError, TaskUnschedulableError, WorkerCrashedError)  # what may become of a node's sum


def reason(error: RayError | ServerLostError) -> str:
    """Why an actor is lost, in a line; one that could not be built is no loss but an error to be seen."""
    if "creation task" in str(error):
        raise error
    return str(error).splitlines()[0]


class Remote(NamedTuple):
    """A gradient that lies on a node, in one part or several."""

    node: str
    parts: tuple[Any, ...]


class Branches(NamedTuple):
    """A sum of which the branches lie elsewhere: nested pairs of their numbers; what each counts; where it is."""

    tree: Any
    weights: list[float]
    references: list[Any]


def branches(leaves: Sequence[Leaf], part: int, by_node: bool) -> Branches:
    """Those of one part of remote gradients: the leaves themselves, or what their nodes are asked to add up."""
    weights: list[float] = []
    references: list[Any] = []

    def branch(node: Any, start: int, end: int) -> int:
        its = [gradient.parts[part] for gradient, _ in leaves[start:end]]
        counts = [weight for _, weight in leaves[start:end]]
        if by_node:
            here = NodeAffinitySchedulingStrategy(node, soft=False)
            task = ray.remote(_add).options(num_cpus=0, max_retries=0, scheduling_strategy=here)
            its, counts = [task.remote(counts, *its)], [1.0]
        references.extend(its)
        weights.extend(counts)
        return len(references) - 1

    places = [gradient.node if by_node else number for number, (gradient, _) in enumerate(leaves)]
    tree = reduction.fold(places, branch, lambda left, right: (left, right))
    return Branches(tree, weights, references)


def combine(tree: Any, weights: Sequence[float], arrays: Sequence[np.ndarray]) -> np.ndarray:
    """(P,) float32, the sum along the tree of branches that have arrived."""
    if isinstance(tree, int):
        return reduction.add([(arrays[tree], weights[tree])])
    left, right = (combine(half, weights, arrays) for half in tree)
    return reduction.join(left, right)


def add_here(leaves: Sequence[Leaf]) -> np.ndarray:
    """(P,) float32, the weighted sum of remote gradients in one part, added on their nodes as far as that goes.

    Raises:
        GradientsLostError: a node cannot say what lay on it.
    """
    its = branches(leaves, 0, by_node=True)
    try:
        return combine(its.tree, its.weights, ray.get(its.references))
    except LOST as error:
        raise GradientsLostError from error


def _add(weights: list[float], *gradients: np.ndarray) -> np.ndarray:
    return reduction.add(list(zip(gradients, weights, strict=True)))
