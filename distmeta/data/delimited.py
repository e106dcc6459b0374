"""Columns of CSV and of other delimited text."""

from __future__ import annotations

import csv
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TextIO

from distmeta.data.columns import Block, Columns, find_columns
from distmeta.data.values import BLOCK
from distmeta.errors import DataError

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
csv.field_size_limit(sys.maxsize)  # a text may be longer than the 128 kB that the module allows


def read_delimited(file: TextIO, columns: Columns, where: str, usual: str = ",") -> Iterator[Block]:
    """The columns of a file opened with ``newline=""``.

    The delimiter is the one with which the header has all columns. `usual` is tried first, and another one is
    remarked on.

    Raises:
        DataError: the text is malformed, or lacks a column.
    """
    first = file.readline()
    if declared := re.fullmatch(r'"?sep=([^"\n])"?\s*', first):  # a line that Excel writes and reads
        if declared[1] not in DELIMITERS:
            raise DataError(f"{where} line 1", f"columns separated by {declared[1]!r}", "separate them by commas")
        first, usual = "\n", declared[1]
    delimiter, lines = _delimiter(chain([first], file), columns, where, usual)
    records = _records(lines, delimiter, where)
    _, header = next(records, (1, []))
    if not header:
        raise DataError(where, "no rows", "give a header and at least one labelled text")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in "".join(header)):
        raise DataError(where, "its first line is not text of UTF-8", "save it as CSV in UTF-8")
    index = find_columns(header, columns, where)
    remark = f"the columns are separated by {DELIMITERS[delimiter]}, not by {DELIMITERS[usual]}"
    while block := list(islice(records, BLOCK)):
        for line, record in block:
            if len(record) > len(header) and not any(record[len(header) :]):
                del record[len(header) :]  # empty cells that spreadsheets leave at the end of a row
            if len(record) != len(header):
                found = f"{len(record)} values where the header has {len(header)}"
                remedy = f"quote values that hold {DELIMITERS[delimiter]} or line breaks"
                raise DataError(f"{where} line {line}", found, remedy)
        values = {key: [record[place] for _, record in block] for key, place in index.items()}
        yield Block(values, f"{where} line", [line for line, _ in block], (remark,) if delimiter != usual else ())


def _delimiter(file: Iterator[str], columns: Columns, where: str, usual: str) -> tuple[str, Iterator[str]]:
    """The delimiter of the columns, and all lines of the file. If none fits, the one that gives most columns."""
    taken: list[str] = []
    widths: dict[str, int] = {}
    for delimiter in sorted(DELIMITERS, key=lambda its: its != usual):
        try:
            _, header = next(_records(chain(list(taken), _kept(file, taken)), delimiter, where), (1, []))
            widths[delimiter] = len(header)
            find_columns(header, columns, where)
        except DataError:
            continue  # the caller reads the header again, and raises what is wrong with it
        return delimiter, chain(taken, file)
    return max(widths, key=lambda its: widths[its], default=usual), chain(taken, file)


def _kept(lines: Iterable[str], kept: list[str]) -> Iterator[str]:
    """The lines, each appended to `kept` when it is taken."""
    for line in lines:
        kept.append(line)
        yield line


def _records(lines: Iterable[str], delimiter: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Records that are not blank, each after the line where it starts."""
    kept: list[str] = []  # the lines of the record
    reader = csv.reader(_kept(lines, kept), delimiter=delimiter, strict=True)
    while True:
        kept.clear()
        start = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if (offset := _open_quote(kept, delimiter)) is not None:
                remedy = 'close it, or put the text in quotes and write "" for a quote inside'
                line = f"{where} line {start + offset}"
                raise DataError(line, "a quote that opens here is never closed", remedy) from error
            raise DataError(f"{where} line {start}", f"malformed CSV ({error})", "check its quotes") from error
        if any(map(str.strip, record)):
            yield start, record


def _open_quote(lines: list[str], delimiter: str) -> int | None:
    """The index of the line where a quote opens that no later line closes, if there is one."""
    text, end = "".join(lines), re.escape(delimiter)
    value = re.compile(rf'(?:"[^"]*+(?:""[^"]*+)*+"|[^"{end}\r\n][^{end}\r\n]*+)?{end}')
    start = 0
    while match := value.match(text, start):
        start = match.end()
    if not re.compile(r'"[^"]*+(?:""[^"]*+)*+\Z').match(text, start):
        return None
    for index, line in enumerate(lines):
        start -= len(line)
        if start < 0:
            return index
    return None
