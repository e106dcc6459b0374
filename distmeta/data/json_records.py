"""Columns of JSON: an object a line, objects one after another, or a list of objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, TextIO

from distmeta.data.columns import Block, Columns, find_columns
from distmeta.data.values import BLOCK
from distmeta.errors import DataError

_BLANKS = re.compile(r"[ \t\r\n]*")
_SHAPE = 'write lines such as {"text": "...", "label": "..."}'


def read_json(file: TextIO, columns: Columns, where: str) -> Iterator[Block]:
    """The columns of JSON lines, of a list of objects, or of an object in which one list holds them.

    Raises:
        DataError: the text is malformed, or lacks a column.
    """
    values, unit = _values(file, where), "line"
    first = list(islice(values, 2))
    records: Iterable[tuple[int, Any]] = chain(first, values)
    if len(first) == 1:
        ((line, value),) = first
        if (items := _items(value, columns)) is not None:
            records, unit = enumerate(items, 1), "item"
        elif isinstance(value, dict) and not any(name.strip() in map(str.strip, value) for name in columns.values()):
            found = f"a single JSON object, without {' and '.join(columns)} and without one list of objects"
            raise DataError(f"{where} line {line}", found, _SHAPE)
    yield from _blocks(iter(records), columns, where, f"{where} {unit}")


def _blocks(records: Iterator[tuple[int, Any]], columns: Columns, where: str, counted: str) -> Iterator[Block]:
    """The columns of numbered objects. `counted` is what the numbers count."""
    present: dict[str, None] = {}  # all keys so far
    chosen: dict[str, str] = {}
    while block := list(islice(records, BLOCK)):
        for number, record in block:
            if not isinstance(record, dict):
                raise DataError(f"{counted} {number}", f"a JSON {type(record).__name__}, not an object", _SHAPE)
            present.update(dict.fromkeys(record))
        names = list(present)
        for key, place in find_columns(names, columns, where).items():
            if chosen.setdefault(key, names[place]) != names[place]:
                found = f"the keys {chosen[key]!r} and {names[place]!r}, which differ by blanks"
                raise DataError(where, found, "write all of them alike")
        values = {key: [record.get(name) for _, record in block] for key, name in chosen.items()}
        yield Block(values, counted, [number for number, _ in block])


def _items(value: Any, columns: Columns) -> list[Any] | None:
    """The items of a list, of the only list in an object that is no record itself, or of its lists by label."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and not value.keys() & set(columns.values()):
        lists = {name: its for name, its in value.items() if isinstance(its, list)}
        if len(lists) == 1:
            return next(iter(lists.values()))
        items = [(name, item) for name, its in lists.items() for item in its]
        if len(lists) == len(value) and "data.label" in columns and all(isinstance(item, dict) for _, item in items):
            return [{columns["data.label"]: name, **item} for name, item in items]
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
