"""Features of corpus rows under one value of the meta-parameters, computed once and kept."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distmeta.protocols import Model
from distmeta.types import Params

CHUNK = 64  # rows that the body takes at once


class FeatureCache:
    """Runs the body once a row.

    A split's rows, shortest first, are cut into fixed chunks, and a chunk is computed whole: a row's features are then
    the same to the bit whoever needs them first.

    Args:
        model: whose body, and whose family's rows.
        device: a torch device.
        folder: where features of a body that is frozen are kept for other workers and runs too.
    """

    def __init__(self, model: Model, device: str, folder: Path | None = None) -> None:
        self.model, self.task, self.device, self.folder = model, model.task, device, folder
        self._key: np.ndarray | None = None
        self._splits: dict[str, tuple[np.ndarray, dict[int, Tensor]]] = {}

    def lookup(self, key: np.ndarray, meta_params: Params, split: str, rows: Tensor) -> Tensor:
        """(T, B, D) features of (T, B) rows of a split; `key` is the flat vector that the body is made of."""
        if self._key is None or not np.array_equal(self._key, key):
            self._key, self._splits = key.copy(), {}
        if split not in self._splits:
            self._splits[split] = (self.task.rows(split), {})
        order, chunks = self._splits[split]
        position_of = np.empty(order.max() + 1, np.int64)
        position_of[order] = np.arange(len(order))
        positions = position_of[rows.cpu().numpy()]
        for number in np.unique(positions // CHUNK):
            if number not in chunks:
                chosen = order[number * CHUNK : (number + 1) * CHUNK]
                kept = self.folder / f"{split}-{number}.npy" if self.folder and not key.size else None
                if kept and kept.exists():
                    chunks[number] = torch.from_numpy(np.load(kept, allow_pickle=False)).to(self.device)
                    continue
                chunks[number] = self._encode(meta_params, chosen)
                if kept:
                    _keep(kept, chunks[number])
        flat = [chunks[p // CHUNK][p % CHUNK] for p in positions.reshape(-1).tolist()]
        return torch.stack(flat).view(*positions.shape, -1)

    def _encode(self, meta_params: Params, rows: np.ndarray) -> Tensor:
        inputs = {name: value.to(self.device) for name, value in self.task.collate(rows[None]).items()}
        with torch.no_grad():
            return self.model.features(meta_params, {}, inputs)[0]


def _keep(path: Path, features: Tensor) -> None:
    """Writes aside and renames: others may read at any time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}")
    with aside.open("wb") as file:
        np.save(file, features.cpu().numpy(), allow_pickle=False)
    aside.replace(path)
