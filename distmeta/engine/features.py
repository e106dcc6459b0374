"""Features of corpus rows under one value of the meta-parameters, computed once and kept."""

from __future__ import annotations

import hashlib
import io
import uuid
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distmeta.protocols import Model, TaskKind
from distmeta.types import Params

CHUNK = 64  # rows that the body takes at once
DIGEST_BYTES = hashlib.sha256().digest_size


class FeatureCache:
    """Runs the body once a row.

    A split's rows, shortest first, are cut into fixed chunks, and a chunk is computed whole: a row's features are then
    the same to the bit whoever needs them first.

    Args:
        model: whose body.
        task: whose rows.
        device: a torch device.
        folder: where features of a body that is frozen are kept for other workers and runs too.
    """

    def __init__(self, model: Model, task: TaskKind, device: str, folder: Path | None = None) -> None:
        self.model, self.task, self.device, self.folder = model, task, device, folder
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
                path = self.folder / f"{split}-{number}.npy" if self.folder and not key.size else None
                if path and (found := kept(path)) is not None:
                    chunks[number] = torch.from_numpy(found).to(self.device)
                    continue
                chunks[number] = self._encode(meta_params, chosen)
                if path:
                    keep(path, chunks[number].cpu().numpy())
        flat = [chunks[p // CHUNK][p % CHUNK] for p in positions.reshape(-1).tolist()]
        return torch.stack(flat).view(*positions.shape, -1)

    def _encode(self, meta_params: Params, rows: np.ndarray) -> Tensor:
        inputs = {name: value.to(self.device) for name, value in self.task.collate(rows[None]).items()}
        with torch.no_grad():
            return self.model.features(meta_params, {}, inputs)[0]


def keep(path: Path, features: np.ndarray) -> None:
    """Writes features with a hash, aside, and renames: others, also elsewhere, may read and write at any time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.save(buffer, features, allow_pickle=False)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        aside.write_bytes(buffer.getvalue() + _digest(path, buffer.getvalue()))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def kept(path: Path) -> np.ndarray | None:
    """What `keep` wrote to this path, or none.

    A file that is damaged, or was written for another path, counts as none: features are derived, and are made again.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    array, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if digest != _digest(path, array):
        return None
    features: np.ndarray = np.load(io.BytesIO(array), allow_pickle=False)
    return features


def _digest(path: Path, array: bytes) -> bytes:
    """Hash of what features are of, which folders and name say (see `distmeta.engine.setup`), and of their file."""
    return hashlib.sha256("/".join(path.parts[-3:]).encode() + b"\0" + array).digest()
