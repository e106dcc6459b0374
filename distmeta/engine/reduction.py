"""How gradients are added, whoever does it where: always along the same tree, so that the sum is the same to the bit.

The tree of n leaves in a row splits them at the largest power of two below n. Leaves that lie on one machine are added
there as far as they make up a whole branch; what is left is added where the sum is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from distmeta.types import Leaf


def pack(gradient: np.ndarray) -> np.ndarray:
    """(P,) float32 as bfloat16 in uint16: half of the bytes, 8 bits of each number; rounded to the nearest even."""
    packed: np.ndarray = torch.from_numpy(gradient).bfloat16().view(torch.uint16).numpy()
    return packed


def unpack(gradient: np.ndarray) -> np.ndarray:
    """(P,) float32 of what `pack` made; float32 stays as it is."""
    if gradient.dtype == np.float32:
        return gradient
    # A copy, since what Ray hands out cannot be written to, which torch warns of.
    unpacked: np.ndarray = torch.tensor(gradient).view(torch.bfloat16).float().numpy()
    return unpacked


def add(leaves: Sequence[Leaf]) -> np.ndarray:
    """(P,) float32, the weighted sum of gradients that are all here."""

    def value(_: int, start: int, end: int) -> np.ndarray:
        gradient, weight = leaves[start]
        values = unpack(gradient)
        return values if weight == 1 else values * np.float32(weight)

    total: np.ndarray = fold(range(len(leaves)), value, join)  # each in a place of its own
    return total


def join(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(P,) float32, a sum of two. It may be infinite: the parameter server looks before it takes a step."""
    with np.errstate(over="ignore", invalid="ignore"):
        total: np.ndarray = left + right
        return total


def fold(
    places: Sequence[Any], branch: Callable[[Any, int, int], Any], join: Callable[[Any, Any], Any], start: int = 0
) -> Any:
    """Goes through the tree of all leaves.

    Args:
        places: of each leaf, the machine it lies on.
        branch: is called for each largest branch that lies on one machine, with its leaves' range; returns their sum.
        join: adds two sums.
        start: of the range.
    """
    if len(set(places)) == 1:
        return branch(places[0], start, start + len(places))
    middle = _middle(len(places))
    left = fold(places[:middle], branch, join, start)
    return join(left, fold(places[middle:], branch, join, start + middle))


def _middle(count: int) -> int:
    """The largest power of two below a number of 2 or more."""
    return 1 << (count - 1).bit_length() - 1
