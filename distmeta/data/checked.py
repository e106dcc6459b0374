"""Checks the values of rows as they are read, and keeps them as a source."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from distmeta.data.columns import Block
from distmeta.data.labelled import Source
from distmeta.data.values import Places, coded
from distmeta.errors import DataError

TEXT, LABEL, GROUP, TASK = (f"data.{name}" for name in ("text", "label", "group", "task"))


class _Texts:
    """A column of texts. What cannot be used is kept by row, because its row may be left out later."""

    def __init__(self) -> None:
        self.refused: dict[int, Any] = {}
        self.rows = 0
        self.chunks: list[pa.Array] = []

    def add(self, values: Sequence[Any]) -> None:
        strings = [_string(value, TEXT) for value in values]
        self.refused |= {self.rows + row: values[row] for row, string in enumerate(strings) if string is None}
        self.chunks.append(pa.array(strings, pa.large_string()))
        self.rows += len(values)

    def column(self) -> pa.Array:
        """All texts in one chunk, so that single rows are found fast. The parts are freed."""
        column, self.chunks = pa.concat_arrays(self.chunks), []
        return column


class _Names:
    """A column of labels, groups or tasks: the different values as they were read, and the number of each row's."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[Any, int] = {}
        self._chunks: list[np.ndarray] = []

    def add(self, values: Sequence[Any]) -> None:
        self._chunks.append(np.fromiter(map(self._number, values), np.int32, len(values)))

    def _number(self, value: Any) -> int:
        key = value if type(value) is str else (type(value), value if isinstance(value, Hashable) else repr(value))
        if (number := self._numbers.setdefault(key, len(self.values))) == len(self.values):
            self.values.append(value)
        return number

    @cached_property
    def codes(self) -> np.ndarray:
        """(R,) int32, into `values`."""
        return np.concatenate(self._chunks)

    def column(self, key: str) -> pa.DictionaryArray:
        """The values as strings; 7 and "7" are the same."""
        number: dict[Any, int] = {}
        merged = [number.setdefault(_string(value, key), len(number)) for value in self.values]
        return coded(np.array(merged, np.int32)[self.codes], list(number))


def source_of(blocks: Iterable[Block]) -> Source:
    """A source of all rows, without those whose label is a placeholder.

    Raises:
        DataError: a value cannot be used; the error names the first such row.
    """
    columns: dict[str, Any] = {}
    files: dict[str, int] = {}
    parts: list[np.ndarray] = []
    numbers: list[np.ndarray] = []
    remarks: dict[str, None] = {}
    for block in blocks:
        for key, values in block.values.items():
            columns.setdefault(key, _Texts() if key == TEXT else _Names()).add(values)
        parts.append(np.full(len(block.numbers), files.setdefault(block.where, len(files)), np.int32))
        numbers.append(np.asarray(block.numbers, np.int64))
        remarks.update(dict.fromkeys(block.remarks))
    places = Places(tuple(files), np.concatenate(parts), np.concatenate(numbers))
    texts, labels = columns.pop(TEXT), columns[LABEL]
    left_out = _placeholders(labels.values, labels.codes, places.file)
    if count := int(left_out.sum()):
        remarks[f"{count} rows with the label -1 are left out: it stands for a label that is not known"] = None
        if left_out.all():
            raise DataError(places[0], "the label is -1 in all rows", "give rows whose labels are known")
    _check(texts, columns, left_out, places)
    named = {key: column.column(key) for key, column in columns.items()}
    source = Source(texts.column(), named[LABEL], named.get(GROUP), places, named.get(TASK), tuple(remarks), count)
    source = source.take(np.flatnonzero(~left_out)) if count else source
    return source if source.tasks is None else source.joined()


def _check(texts: _Texts, names: Mapping[str, _Names], left_out: np.ndarray, places: Places) -> None:
    """Raises the error of the first row, among those that are not left out, with a value that cannot be used."""
    faults = [(row, TEXT, value) for row, value in texts.refused.items() if not left_out[row]]
    for key, column in names.items():
        refused = np.array([_string(value, key) is None for value in column.values])[column.codes] & ~left_out
        if refused.any():
            row = int(refused.argmax())
            faults.append((row, key, column.values[column.codes[row]]))
    if faults:
        row, key, value = min(faults, key=lambda fault: fault[0])
        raise refusal(value, key, places[row])


def _placeholders(values: Sequence[Any], codes: np.ndarray, files: np.ndarray) -> np.ndarray:
    """The rows whose label is -1 where that is no class, (R,) bool.

    This is the hub's convention for a label that is not known. Whole numbers from 0 make it one, but for labels
    -1, 0 and 1 in one file, and so do names if the -1 is a number.

    Args:
        values: the different labels.
        codes: the number of each row's label, (R,).
        files: the number of each row's file, (R,).
    """
    numbers = [_number(value) for value in values]
    found: np.ndarray = np.array([number == -1 for number in numbers])[codes]
    others = {number for number in numbers if number != -1}
    whole = bool((np.bincount(files, found) == np.bincount(files)).any())
    if (whole or not others <= {0, 1}) and all(number is not None and number >= 0 for number in others):
        return found
    if all(isinstance(value, str | bytes) for value, number in zip(values, numbers, strict=True) if number != -1):
        found &= np.array([type(value) is int for value in values])[codes]
        return found
    return np.zeros(len(codes), bool)


def _number(value: Any) -> int | None:
    """A label as a whole number, if it is one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return int(value) if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,18}\s*", value) else None


def usable(value: Any) -> str | None:
    """A value as a text, or None if it is none."""
    return _string(value, TEXT)


def _string(value: Any, key: str) -> str | None:
    """A value as a string, or None if it cannot be used. A label, group or task may also be a whole number."""
    if isinstance(value, str | bytes):
        try:
            string = value.decode() if isinstance(value, bytes) else value
            if not string.isascii():
                string.encode()
        except UnicodeError:
            return None
        return string if string.strip() else None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and key != TEXT else None


def refusal(value: Any, key: str, where: str) -> DataError:
    """The error for a value that cannot be used."""
    what = key.removeprefix("data.")
    text = value.decode(errors="surrogateescape") if isinstance(value, bytes) else value
    if text is None or (isinstance(text, str) and not text.strip()):
        return DataError(where, f"the {what} is empty", "fill it in or remove the row")
    if isinstance(value, str | bytes):
        return _not_utf8(value, what, where)
    if isinstance(value, dict):
        found = f"the {what} is an object with the keys {reprlib.repr(list(value))}"
        return DataError(where, found, "write each of them as a column of its own, and name one")
    found = f"the {what} is {reprlib.repr(value)}, a {type(value).__name__}"
    return DataError(where, found, "give a string" if key == TEXT else "give a string or a whole number")


def _not_utf8(value: str | bytes, what: str, where: str) -> DataError:
    """The error for a text that has bytes of another encoding, or half of a character that JSON writes as a pair."""
    try:
        content = value if isinstance(value, bytes) else value.encode(errors="surrogateescape")
        content.decode()
    except UnicodeEncodeError as error:
        half = value[error.start]
        return DataError(where, f"the {what} is not UTF-8 ({half!r} is half of a pair)", "write the pair, or remove it")
    except UnicodeDecodeError as error:
        found = f"the {what} is not UTF-8 (byte 0x{content[error.start]:02X})"
        remedy = "save the file as UTF-8; iconv -f cp1252 -t utf-8 does that for Windows-1252"
        return DataError(where, found, remedy if isinstance(value, str) else "write the column as UTF-8")
    raise AssertionError("it is UTF-8")
