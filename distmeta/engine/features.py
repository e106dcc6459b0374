"""A cache of a frozen body's features: a worker computes a row's features once, when it first needs them."""

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
    """Runs the body once per row.

    Args:
        model: has the body, which must not change between lookups.
        family: has the rows.
        device: a torch device.
        folder: stores features for other workers and runs.
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
    """Writes features and a hash to a temporary file, then renames it: any machine may read or write meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.save(buffer, features, allow_pickle=False)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(buffer.getvalue() + _digest(path, buffer.getvalue()))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def kept(path: Path) -> np.ndarray | None:
    """The features that `keep` wrote to this path, or None.

    A damaged file, or one written for another path, also gives None: features can be computed again.
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
    """Hash of the folders and name, which identify the features (see `distmeta.engine.setup`), and of the array."""
    return hashlib.sha256("/".join(path.parts[-3:]).encode() + b"\0" + array).digest()
