"""Adds gradients always along the same tree, so that the sum is the same to the bit, wherever it is computed.

The tree splits n leaves in a row at the largest power of two below n. Leaves of a whole branch that are on one machine
are added there; the rest is added where the sum is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from distmeta.types import Leaf


def pack(gradient: np.ndarray) -> np.ndarray:
    """(P,) float32 as bfloat16 in uint16: half the bytes, 8 significant bits, rounded to the nearest even."""
    packed: np.ndarray = torch.from_numpy(gradient).bfloat16().view(torch.uint16).numpy()
    return packed


def unpack(gradient: np.ndarray) -> np.ndarray:
    """(P,) float32 from the output of `pack`; float32 stays as it is."""
    if gradient.dtype == np.float32:
        return gradient
    # A copy: arrays from Ray are read-only, and torch warns about them.
    unpacked: np.ndarray = torch.tensor(gradient).view(torch.bfloat16).float().numpy()
    return unpacked


def add(leaves: Sequence[Leaf]) -> np.ndarray:
    """(P,) float32, the weighted sum of gradients that are all in this process."""

    def value(_: int, start: int, end: int) -> np.ndarray:
        gradient, weight = leaves[start]
        values = unpack(gradient)
        return values if weight == 1 else values * np.float32(weight)

    total: np.ndarray = fold(range(len(leaves)), value, join)  # no two leaves share a place
    return total


def join(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(P,) float32, the sum of two. It may be infinite: the parameter server checks it before a step."""
    with np.errstate(over="ignore", invalid="ignore"):
        total: np.ndarray = left + right
        return total


def fold(
    places: Sequence[Any], branch: Callable[[Any, int, int], Any], join: Callable[[Any, Any], Any], start: int = 0
) -> Any:
    """Folds the tree of all leaves into one sum.

    Args:
        places: the machine of each leaf.
        branch: called for each largest branch on one machine, with the machine and the range of leaves; returns a sum.
        join: adds two sums.
        start: the index of the first leaf.
    """
    if len(set(places)) == 1:
        return branch(places[0], start, start + len(places))
    middle = _middle(len(places))
    left = fold(places[:middle], branch, join, start)
    return join(left, fold(places[middle:], branch, join, start + middle))


def _middle(count: int) -> int:
    """The largest power of two below `count`, which is 2 or more."""
    return 1 << (count - 1).bit_length() - 1
