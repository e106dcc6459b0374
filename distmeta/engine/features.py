"""Features of a body that never changes, computed once a row by the worker that needs them, and kept."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distmeta.engine.encode import CHUNK, Chunks, encode
from distmeta.protocols import Model, TaskFamily
from distmeta.types import Params


class FeatureCache:
    """Runs the body once a row.

    Args:
        model: whose body, which is the same whenever it is asked.
        family: whose rows.
        device: a torch device.
        folder: where features are kept for other workers and runs too.
    """

    def __init__(self, model: Model, family: TaskFamily, device: str, folder: Path | None = None) -> None:
        self.model, self.family, self.device, self.folder = model, family, device, folder
        self.chunks = Chunks(family)
        self._values: dict[tuple[str, int], Tensor] = {}

    def lookup(self, meta_params: Params, split: str, rows: Tensor) -> Tensor:
        """(T, B, D) features of (T, B) rows of a split."""
        positions = self.chunks.positions(split, rows.cpu().numpy())
        numbers = np.unique(positions // CHUNK).tolist()
        values = {number: self.chunk(meta_params, split, number) for number in numbers}
        flat = [values[p // CHUNK][p % CHUNK] for p in positions.reshape(-1).tolist()]
        return torch.stack(flat).view(*positions.shape, -1)

    def chunk(self, meta_params: Params, split: str, number: int) -> Tensor:
        """(R, D) features of a chunk of a split's rows."""
        if (split, number) not in self._values:
            kept = self.folder / f"{split}-{number}.npy" if self.folder else None
            if kept and kept.exists():
                features = torch.from_numpy(np.load(kept, allow_pickle=False)).to(self.device)
            else:
                features = self._encode(meta_params, self.chunks.rows(split, number))
                if kept:
                    _keep(kept, features)
            self._values[split, number] = features
        return self._values[split, number]

    def _encode(self, meta_params: Params, rows: np.ndarray) -> Tensor:
        return encode(self.model, self.family, self.device, meta_params, rows)


def _keep(path: Path, features: Tensor) -> None:
    """Writes aside and renames: others may read at any time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}")
    with aside.open("wb") as file:
        np.save(file, features.cpu().numpy(), allow_pickle=False)
    aside.replace(path)
