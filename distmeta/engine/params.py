"""Named tensors ⇄ one flat float32 vector: the only form in which processes exchange parameters and gradients."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch

from distmeta.types import Params


@dataclass(frozen=True)
class Layout:
    """The order, names and shapes behind a flat vector of `size` elements."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, params: Params) -> Layout:
        """The layout of these parameters, in their order."""
        return cls(tuple(params), tuple(tuple(value.shape) for value in params.values()))

    @property
    def sizes(self) -> list[int]:
        """Elements of each tensor."""
        return [math.prod(shape) for shape in self.shapes]

    @property
    def size(self) -> int:
        """P, the number of elements of all tensors."""
        return sum(self.sizes)

    def flatten(self, params: Params) -> np.ndarray:
        """(P,) contiguous float32 numpy vector on the CPU."""
        if not self.names:
            return np.zeros(0, np.float32)
        flat = torch.cat([params[name].detach().reshape(-1) for name in self.names])
        return flat.to("cpu", torch.float32).numpy()

    def unflatten(self, vector: np.ndarray, device: str | torch.device = "cpu") -> Params:
        """Named float32 tensors; a copy, since a vector in shared memory must not be written to."""
        if vector.shape != (self.size,):
            raise ValueError(f"a vector of shape {vector.shape} does not fit a layout of {self.size} elements")
        parts = torch.split(torch.tensor(vector, dtype=torch.float32, device=device), self.sizes)
        return {n: p.view(s) for n, p, s in zip(self.names, parts, self.shapes, strict=True)}


class LastParams:
    """Named tensors of vectors. It keeps the last ones, since many units in a row use one θ.

    A read-only vector is recognised by its address. The vector is kept too, so that no other can get this address.
    """

    def __init__(self, layout: Layout, device: str) -> None:
        self.layout, self.device = layout, device
        self._vector: np.ndarray | None = None
        self._params: Params = {}

    def of(self, vector: np.ndarray) -> Params:
        """The named tensors of a vector, (P,) float32; they must not be changed in place."""
        last = self._vector
        if last is not None and last.ctypes.data == vector.ctypes.data and last.shape == vector.shape:
            return self._params
        self._vector, self._params = None, {}  # frees the old tensors before the new ones are made
        params = self.layout.unflatten(vector, self.device)
        if not vector.flags.writeable:
            self._vector, self._params = vector, params
        return params


def sha256(vector: np.ndarray) -> str:
    """Hash of a flat vector's bytes (little-endian float32)."""
    return hashlib.sha256(np.ascontiguousarray(vector, dtype="<f4").tobytes()).hexdigest()
