"""The columns that a configuration names, found in a file."""

from __future__ import annotations

import difflib
import reprlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from distmeta.errors import DataError

Columns = Mapping[str, str]  # column names by configuration key, such as data.text
LISTED = 10  # columns of a file that an error lists


class Block(NamedTuple):
    """Consecutive rows of a file: their values by configuration key, unchecked, and their numbers.

    Values are bytes, strings, numbers or None. `remarks` says what a reader has assumed about the file.
    """

    values: Mapping[str, Sequence[Any]]
    where: str  # what the numbers count, such as "a.csv line"
    numbers: Sequence[int]
    remarks: tuple[str, ...] = ()


class MissingColumn(DataError):
    """A column that a configuration names is not in a file."""


def find_columns(present: Sequence[str], columns: Columns, where: str) -> dict[str, int]:
    """The index of each column, by configuration key. Blanks around a name count only if two names differ by them.

    Raises:
        DataError: a column is missing, or two have its name.
    """
    return {key: _find(present, key, column, where) for key, column in columns.items()}


def _find(present: Sequence[str], key: str, column: str, where: str) -> int:
    exact = [index for index, name in enumerate(present) if name == column]
    found = exact or [index for index, name in enumerate(present) if name.strip() == column.strip()]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(where, f"{len(found)} columns are called {reprlib.repr(column)}", "rename all but one")
    listed = ", ".join(map(reprlib.repr, present[:LISTED]))
    more = f" and {len(present) - LISTED} more" if len(present) > LISTED else ""
    near = [name for name in present if name.casefold() == column.casefold()]
    near = near or difflib.get_close_matches(column, present, n=1)
    remedy = f"set {shlex.quote(f'{key}={near[0]}')}" if near else f"set {key} to one of them"
    raise MissingColumn(where, f"no column {reprlib.repr(column)} among {listed}{more}", remedy)
