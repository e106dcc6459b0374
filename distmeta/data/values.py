"""Columns of strings as Arrow keeps them, and where their rows were read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

BLOCK = 65_536  # rows that are Python objects at once


@dataclass(frozen=True, eq=False)
class Places:
    """The origin of each of R rows, such as a file and line. A row's name is made when it is needed."""

    files: tuple[str, ...]  # what the numbers count, such as "a.csv line"
    file: np.ndarray  # (R,) int32, into `files`
    number: np.ndarray  # (R,), any type

    def __getitem__(self, row: int) -> str:
        return f"{self.files[self.file[row]]} {self.number[row]}"

    def __len__(self) -> int:
        return len(self.number)

    def __iter__(self) -> Iterator[str]:
        return (self[row] for row in range(len(self)))

    def take(self, rows: np.ndarray) -> Places:
        """The origins of some rows."""
        return Places(self.files, self.file[rows], self.number[rows])


def names_column(values: Sequence[str]) -> pa.DictionaryArray:
    """Strings of which many are the same, each kept once."""
    number: dict[str, int] = {}
    codes = np.fromiter((number.setdefault(value, len(number)) for value in values), np.int32, len(values))
    return coded(codes, list(number))


def coded(codes: np.ndarray, names: Sequence[str]) -> pa.DictionaryArray:
    """A column of names by their numbers (R,). Names are kept if they occur, in the order of their first rows."""
    used, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    kept = pa.array([names[code] for code in used[order].tolist()], pa.large_string())
    return pa.DictionaryArray.from_arrays(pa.array(rank[inverse]), kept)


def codes_of(column: pa.DictionaryArray) -> np.ndarray:
    """The number of each row's name, (R,) int32."""
    codes: np.ndarray = column.indices.to_numpy()
    return codes


def names_of(column: pa.DictionaryArray) -> list[str]:
    """The different names of a column, in the order of their first rows."""
    names: list[str] = column.dictionary.to_pylist()
    return names


def first_rows(column: pa.DictionaryArray) -> np.ndarray:
    """The first row of each name, ascending."""
    rows: np.ndarray = np.unique(codes_of(column), return_index=True)[1]
    return rows


def strings(column: pa.Array) -> Iterator[list[str]]:
    """All strings of a column, `BLOCK` at a time."""
    for start in range(0, len(column), BLOCK):
        part = column.slice(start, BLOCK)
        yield (part.dictionary_decode() if pa.types.is_dictionary(part.type) else part).to_pylist()
