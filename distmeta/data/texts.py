"""Texts without labels, from files that people have or line by line as they arrive."""

from __future__ import annotations

import codecs
import io
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from distmeta.config import DataConfig
from distmeta.config.base import is_address
from distmeta.data.checked import usable
from distmeta.data.columns import Block, Columns
from distmeta.data.delimited import DELIMITERS
from distmeta.data.files import find_files, read_file, read_remote, read_stream
from distmeta.errors import DataError

READ = 65_536  # bytes at once
JSON = re.compile(r"""\s*(\{\s*("|$)|\[\s*([{"[]|$))""")  # how a first line of JSON begins
STDIN = "standard input"


class Texts(NamedTuple):
    """Some consecutive texts, None where a row has none, and the rows' names."""

    texts: Sequence[str | None]
    names: Sequence[str]


def read_texts(data: DataConfig) -> Iterator[Texts]:
    """The texts of the column `data.text` of what `data.path` names, or the lines of a file ``.txt``.

    Standard input (``-``) holds lines too, unless its first line is one of JSON or a header with that column.

    Raises:
        DataError: something is missing, unreadable or malformed.
    """
    columns = {"data.text": data.text}
    for block in _blocks(data, columns):
        values = block.values["data.text"]
        yield Texts([usable(value) for value in values], [f"{block.where} {number}" for number in block.numbers])


def _blocks(data: DataConfig, columns: Columns) -> Iterator[Block]:
    if data.path is None or data.path.startswith("hub:") or data.path == "attack":
        raise DataError("TEXTS", data.path or "missing", "give a file, a folder, an address, or - for standard input")
    if data.path == "-":
        return _standard_input(data.text, columns)
    if is_address(data.path):
        return read_remote(data.path, columns)
    path = Path(data.path)
    if path.suffix.lower() == ".txt" and path.is_file():
        return _lines_of(path)
    return chain.from_iterable(read_file(file, columns) for file in find_files(path))


def _lines_of(path: Path) -> Iterator[Block]:
    try:
        with path.open("rb", buffering=0) as file:
            yield from _lines(file, str(path))
    except OSError as error:
        found = f"cannot be read ({error.strerror})"
        raise DataError(str(path), found, "check the file and its permissions") from error


def _standard_input(column: str, columns: Columns) -> Iterator[Block]:
    raw = io.FileIO(sys.stdin.fileno(), closefd=False)
    if raw.isatty():
        print("distmeta: type a text on each line; Ctrl-D ends", file=sys.stderr)
    head = b""
    while b"\n" not in head and (more := raw.read(READ)):
        head += more
    whole = _Whole(head, raw)
    if _is_table(head.split(b"\n", 1)[0].decode("utf-8-sig", "replace"), column):
        return read_stream(io.BufferedReader(whole), columns, STDIN)
    return _lines(whole, STDIN)


def _is_table(line: str, column: str) -> bool:
    """Whether a first line is one of JSON, or a header with the column."""
    cells = [cell.strip().strip('"') for delimiter in DELIMITERS for cell in line.split(delimiter)]
    return bool(JSON.match(line)) or column in cells


def _lines(raw: io.RawIOBase, where: str) -> Iterator[Block]:
    """Complete lines, as many as arrive at once."""
    decoder, rest, number = codecs.getincrementaldecoder("utf-8-sig")("strict"), "", 1
    ended = False
    while not ended:
        content = raw.read(READ) or b""
        ended = not content
        try:
            *lines, rest = (rest + decoder.decode(content, ended)).split("\n")
        except UnicodeDecodeError as error:
            remedy = "save the file as UTF-8; iconv -f cp1252 -t utf-8 does that for Windows-1252"
            raise DataError(where, f"not UTF-8 (byte 0x{error.object[error.start]:02X})", remedy) from error
        lines += [rest] if ended and rest else []
        if lines:
            values = [line.removesuffix("\r") for line in lines]
            yield Block({"data.text": values}, f"{where} line", range(number, number + len(lines)))
            number += len(lines)


class _Whole(io.RawIOBase):
    """What was read already, and then the rest."""

    def __init__(self, head: bytes, rest: io.RawIOBase) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        content = self._head[: len(buffer)] or self._rest.read(len(buffer)) or b""
        self._head = self._head[len(buffer) :]
        buffer[: len(content)] = content
        return len(content)
