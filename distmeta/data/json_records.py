"""Columns of JSON: an object a line, objects one after another, or a list of objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from distmeta.data.columns import Columns, Rows, find_columns
from distmeta.errors import DataError

_BLANKS = re.compile(r"[ \t\r\n]*")
_SHAPE = 'write lines such as {"text": "...", "label": "..."}'


def read_json(file: TextIO, columns: Columns, where: str) -> Rows:
    """The columns of JSON lines, of a list of objects, or of an object in which one list holds them.

    Raises:
        DataError: the text is malformed, or lacks a column.
    """
    names: list[str] = []
    records: list[Any] = []
    for line, record in _values(file, where):
        names.append(f"{where} line {line}")
        records.append(record)
    if len(records) == 1 and (items := _items(records[0], columns)) is not None:
        records, names = items, [f"{where} item {number}" for number in range(1, len(items) + 1)]
    for name, record in zip(names, records, strict=True):
        if not isinstance(record, dict):
            raise DataError(name, f"a JSON {type(record).__name__}, not an object", _SHAPE)
    if not records:
        return Rows({key: [] for key in columns}, [])
    if len(records) == 1 and not any(column.strip() in map(str.strip, records[0]) for column in columns.values()):
        found = f"a single JSON object, without {' and '.join(columns)} and without one list of objects"
        raise DataError(names[0], found, _SHAPE)
    keys = list(dict.fromkeys(key for record in records for key in record))
    index = find_columns(keys, columns, where)
    return Rows({key: [record.get(keys[index[key]]) for record in records] for key in columns}, names)


def _items(value: Any, columns: Columns) -> list[Any] | None:
    """The items of a list, or of the only list in an object that is no record itself."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and not value.keys() & set(columns.values()):
        lists = [its for its in value.values() if isinstance(its, list)]
        return lists[0] if len(lists) == 1 else None
    return None


def _values(file: TextIO, where: str) -> Iterator[tuple[int, Any]]:
    """JSON values, each after the line where it starts.

    Lines are parsed one by one, unless the first one is not a whole value: then values may take several lines.
    """
    is_first = True
    for number, line in enumerate(file, 1):
        if line.isspace():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            if is_first:
                yield from _concatenated(line + file.read(), number, where)
                return
            raise _malformed(error, f"{where} line {number}") from error
        is_first = False
        yield number, value


def _concatenated(text: str, line: int, where: str) -> Iterator[tuple[int, Any]]:
    """Values one after another, with blanks and line breaks between them; the text starts at `line`."""
    decoder, start, first = json.JSONDecoder(), 0, line
    while True:
        end = _end_of_blanks(text, start)
        line += text.count("\n", start, end)
        if end == len(text):
            return
        try:
            value, start = decoder.raw_decode(text, end)
        except json.JSONDecodeError as error:
            raise _malformed(error, f"{where} line {first - 1 + error.lineno}") from error
        except (ValueError, RecursionError) as error:
            raise _malformed(error, f"{where} line {line}") from error
        yield line, value
        line += text.count("\n", end, start)


def _end_of_blanks(text: str, start: int) -> int:
    match = _BLANKS.match(text, start)
    return match.end() if match else start


def _malformed(error: ValueError | RecursionError, where: str) -> DataError:
    if isinstance(error, json.JSONDecodeError):
        found = f"malformed JSON ({error.msg} at column {error.colno})"
        return DataError(where, found, "write one JSON object a line")
    if isinstance(error, RecursionError):
        return DataError(where, "malformed JSON (nested too deeply)", "write one JSON object a line")
    return DataError(where, "a number with too many digits", "write it as a string, or leave it out")
