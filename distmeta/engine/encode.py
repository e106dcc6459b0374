"""Features of corpus rows that many episodes use: a body that no task adapts runs once per row on the whole cluster.

A split's rows, shortest first, are cut into fixed chunks. A chunk is always encoded whole, so a row's features are the
same to the bit, whichever unit needs them first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from distmeta.protocols import Model, TaskFamily
from distmeta.types import Params, Stream

CHUNK = 64  # rows that the body encodes at once


class Chunks:
    """The chunks of each split's rows, by number."""

    def __init__(self, family: TaskFamily) -> None:
        self.family = family
        self._orders: dict[str, np.ndarray] = {}
        self._positions: dict[str, np.ndarray] = {}

    def rows(self, split: str, number: int) -> np.ndarray:
        """The rows of a chunk, (R,)."""
        rows: np.ndarray = self._order(split)[number * CHUNK : (number + 1) * CHUNK]
        return rows

    def positions(self, split: str, rows: np.ndarray) -> np.ndarray:
        """Positions of rows in their split, in the shape of `rows`; position p is in chunk p // CHUNK."""
        order = self._order(split)
        if split not in self._positions:
            self._positions[split] = np.empty(order.max() + 1, np.int64)
            self._positions[split][order] = np.arange(len(order))
        positions: np.ndarray = self._positions[split][rows]
        return positions

    def _order(self, split: str) -> np.ndarray:
        if split not in self._orders:
            self._orders[split] = self.family.rows(split)
        return self._orders[split]


def encode(model: Model, family: TaskFamily, device: str, meta_params: Params, rows: np.ndarray) -> Tensor:
    """(R, D) features of the rows of a chunk."""
    inputs = {name: value.to(device) for name, value in family.collate(rows[None]).items()}
    with torch.no_grad():
        return model.features(meta_params, {}, inputs)[0]


@dataclass(frozen=True, eq=False)
class Features:
    """A body's features of corpus rows under one θ: `rows` (R,) ascending, `values` (R, D) float32."""

    rows: np.ndarray
    values: np.ndarray

    def lookup(self, rows: Tensor) -> Tensor:
        """(..., D) features of rows of any shape.

        Raises:
            LookupError: a row has no features here.
        """
        indices = rows.numpy()
        positions = np.minimum(np.searchsorted(self.rows, indices), len(self.rows) - 1)
        if not np.array_equal(self.rows[positions], indices):
            raise LookupError("a unit needs features of rows that were not encoded")
        return torch.tensor(self.values[positions])  # a copy: arrays from Ray are read-only


class Place(NamedTuple):
    """What features belong to: the key of a θ, a family, and a split of its rows."""

    key: int
    family: str
    split: str


class FeatureStore:
    """The coordinator's features: finds the chunks that evaluations need, and stores encoded ones for each θ.

    Args:
        families: the task families whose rows are encoded, by name.
        body_is_frozen: whether features are the same under every θ.
    """

    def __init__(self, families: Mapping[str, TaskFamily], body_is_frozen: bool) -> None:
        self.chunks = {name: Chunks(family) for name, family in families.items()}
        self.body_is_frozen = body_is_frozen
        self._values: dict[Place, dict[int, np.ndarray]] = {}

    def key(self, theta: int) -> int:
        """The key of the features under the θ with key `theta`; 0 for every θ if the body is frozen."""
        return 0 if self.body_is_frozen else theta

    def keep(self, keys: Iterable[int]) -> None:
        """Drops the features of all other keys."""
        kept = set(keys)
        self._values = {place: values for place, values in self._values.items() if place.key in kept}

    def needed(self, stream: Stream, first_index: int, count: int) -> set[int]:
        """The chunks that hold the rows of consecutive episodes."""
        chunks = self.chunks[stream.family]
        draws = [chunks.family.draw(stream, index) for index in range(first_index, first_index + count)]
        episodes = chunks.family.batch(draws, tokens=False)
        rows = np.concatenate([batch.inputs["rows"].numpy().ravel() for batch in (episodes.support, episodes.query)])
        return set((chunks.positions(stream.split, rows) // CHUNK).tolist())

    def missing(self, place: Place, numbers: Set[int]) -> list[int]:
        """The chunks that are not encoded yet for `place`, longest texts first."""
        return sorted(numbers - self._values.get(place, {}).keys(), reverse=True)

    def add(self, place: Place, values: Mapping[int, np.ndarray]) -> None:
        """Stores encoded chunks, (R, D) each."""
        self._values.setdefault(place, {}).update(values)

    def gather(self, place: Place, numbers: Set[int]) -> Features:
        """Joins the features of chunks, all of which must have been encoded."""
        known = self._values.get(place, {})
        rows = np.concatenate([self.chunks[place.family].rows(place.split, number) for number in numbers])
        order = np.argsort(rows)
        return Features(rows[order], np.concatenate([known[number] for number in numbers])[order])
