"""Features of a body that never changes, computed once a row by the worker that needs them, and kept."""

from __future__ import annotations

import hashlib
import io
import uuid
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distmeta.engine.encode import CHUNK, Chunks, encode
from distmeta.protocols import Model, TaskFamily
from distmeta.types import Params

DIGEST_BYTES = hashlib.sha256().digest_size


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
            path = self.folder / f"{split}-{number}.npy" if self.folder else None
            if path and (found := kept(path)) is not None:
                features = torch.from_numpy(found).to(self.device)
            else:
                features = self._encode(meta_params, self.chunks.rows(split, number))
                if path:
                    keep(path, features.cpu().numpy())
            self._values[split, number] = features
        return self._values[split, number]

    def _encode(self, meta_params: Params, rows: np.ndarray) -> Tensor:
        return encode(self.model, self.family, self.device, meta_params, rows)


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
