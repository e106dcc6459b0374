"""Features of corpus rows that many episodes ask for: a body that no task adapts runs once a row on the whole cluster.

A split's rows, shortest first, are cut into fixed chunks, and a chunk is encoded whole: a row's features are then the
same to the bit whoever needs them first.
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

CHUNK = 64  # rows that the body takes at once


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
        """Where rows of any shape stand in their split; position p is in chunk p // CHUNK."""
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
    """What a body makes of corpus rows under one θ: `rows` (R,) ascending, `values` (R, D) float32."""

    rows: np.ndarray
    values: np.ndarray

    def lookup(self, rows: Tensor) -> Tensor:
        """(..., D) features of rows of any shape.

        Raises:
            LookupError: some are not here.
        """
        wanted = rows.numpy()
        positions = np.minimum(np.searchsorted(self.rows, wanted), len(self.rows) - 1)
        if not np.array_equal(self.rows[positions], wanted):
            raise LookupError("a unit needs features of rows that were not encoded")
        return torch.tensor(self.values[positions])  # a copy: what Ray hands out cannot be written to


class Place(NamedTuple):
    """Where features belong: the key of a θ, a family, and a split of its rows."""

    key: int
    family: str
    split: str


class FeatureStore:
    """The coordinator's features: which chunks evaluations need under which θ, and those that have been encoded.

    Args:
        families: whose rows.
        body_is_frozen: whether features are the same under every θ.
    """

    def __init__(self, families: Mapping[str, TaskFamily], body_is_frozen: bool) -> None:
        self.chunks = {name: Chunks(family) for name, family in families.items()}
        self.body_is_frozen = body_is_frozen
        self._values: dict[Place, dict[int, np.ndarray]] = {}

    def key(self, theta: int) -> int:
        """Of the features under a θ of that key: of a frozen body they are all the same."""
        return 0 if self.body_is_frozen else theta

    def keep(self, keys: Iterable[int]) -> None:
        """Forgets all other features."""
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
        """Those of the chunks that have not been encoded there, the longest texts first."""
        return sorted(numbers - self._values.get(place, {}).keys(), reverse=True)

    def add(self, place: Place, values: Mapping[int, np.ndarray]) -> None:
        """Takes encoded chunks, (R, D) each."""
        self._values.setdefault(place, {}).update(values)

    def gather(self, place: Place, numbers: Set[int]) -> Features:
        """The features of chunks that have all been encoded."""
        known = self._values.get(place, {})
        rows = np.concatenate([self.chunks[place.family].rows(place.split, number) for number in numbers])
        order = np.argsort(rows)
        return Features(rows[order], np.concatenate([known[number] for number in numbers])[order])
