"""Raw columns of parquet, CSV and JSON-lines files. Errors name the file and the row."""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distmeta.errors import DataError

Columns = Mapping[str, str]  # column names by configuration key, such as data.text


class Rows(NamedTuple):
    """Unchecked values of a file by configuration key, and the origin of each row."""

    values: dict[str, list[Any]]
    names: list[str]


def find_files(path: Path) -> list[Path]:
    """The file itself, or the data files of a folder, sorted by name.

    Raises:
        DataError: the path does not exist, has no file of a known kind, or has files of several kinds.
    """
    if not path.exists():
        raise DataError(str(path), "no such file or folder", "check data.path")
    if path.is_file():
        if path.suffix not in READERS:
            raise DataError(str(path), f"{path.suffix or 'no ending'!r} is no known kind of file", f"give {KINDS}")
        return [path]
    files = sorted(p for p in path.iterdir() if p.suffix in READERS and p.is_file() and p.name[0] != ".")
    if not files:
        raise DataError(str(path), "no data files in this folder", f"put {KINDS} files there")
    if len(kinds := sorted({file.suffix for file in files})) > 1:
        raise DataError(str(path), f"files of several kinds ({', '.join(kinds)})", "keep one kind or name one file")
    return files


def read_file(path: Path, columns: Columns) -> Rows:
    """The given columns of one file, unchecked: bytes, strings, numbers or None.

    Raises:
        DataError: the file cannot be read or parsed, has no rows, or lacks a column.
    """
    try:
        rows = READERS[path.suffix](path, columns)
    except OSError as error:
        raise DataError(str(path), f"cannot be read ({error})", "check the file and its permissions") from error
    if not rows.names:
        raise DataError(str(path), "no rows", "give at least one labelled text")
    return rows


def table_rows(table: Any, columns: Columns, where: str) -> Rows:
    """Columns of an Arrow table; strings are returned as bytes, because Arrow does not check their UTF-8."""
    import pyarrow as pa

    values = {}
    for key, index in find_columns(table.column_names, columns, where).items():
        column = table.column(index)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = column.cast(pa.large_binary())
        values[key] = column.to_pylist()
    return Rows(values, [f"{where} row {row}" for row in range(1, table.num_rows + 1)])


def find_columns(present: Sequence[str], columns: Columns, where: str) -> dict[str, int]:
    """The index of each column, by configuration key."""
    for key, column in columns.items():
        if (count := list(present).count(column)) == 1:
            continue
        listed = ", ".join(map(repr, present))
        if count:
            raise DataError(where, f"{count} columns are called {column!r}", "rename all but one")
        near = difflib.get_close_matches(column, present, n=1)
        remedy = f"set {key}={near[0]}" if near else f"set {key} to one of them"
        raise DataError(where, f"no column {column!r} among {listed}", remedy)
    return {key: list(present).index(column) for key, column in columns.items()}


def _read_parquet(path: Path, columns: Columns) -> Rows:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            find_columns(file.schema_arrow.names, columns, str(path))
            table = file.read(columns=sorted(set(columns.values())))
    except pa.ArrowException as error:
        raise DataError(str(path), f"not a readable parquet file ({error})", "write it again") from error
    return table_rows(table, columns, str(path))


def _read_csv(path: Path, columns: Columns) -> Rows:
    values: dict[str, list[Any]] = {key: [] for key in columns}
    names: list[str] = []
    # Bytes that are not UTF-8 become lone surrogates here; the check of the values then names their line.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        records = _records(csv.reader(file, strict=True), path)
        _, header = next(records, ("", []))
        if not header:
            raise DataError(str(path), "no rows", "give a header and at least one labelled text")
        index = find_columns(header, columns, str(path))
        for name, record in records:
            if len(record) != len(header):
                found = f"{len(record)} values where the header has {len(header)}"
                raise DataError(name, found, "quote values that hold commas or line breaks")
            for key, column in values.items():
                column.append(record[index[key]])
            names.append(name)
    return Rows(values, names)


def _records(reader: Any, path: Path) -> Iterator[tuple[str, list[str]]]:
    """Records that are not blank, each after the file and line where it starts."""
    while True:
        name = f"{path} line {reader.line_num + 1}"
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(name, f"malformed CSV ({error})", "check its quotes") from error
        if record:
            yield name, record


def _read_jsonl(path: Path, columns: Columns) -> Rows:
    records: list[dict[str, Any]] = []
    names: list[str] = []
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            names.append(f"{path} line {number}")
            try:
                record = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise DataError(names[-1], f"malformed JSON ({error})", "write one JSON object a line") from error
            if not isinstance(record, dict):
                found = f"a JSON {type(record).__name__}, not an object"
                raise DataError(names[-1], found, 'write lines such as {"text": "...", "label": "..."}')
            records.append(record)
    if records:
        find_columns(list(dict.fromkeys(key for record in records for key in record)), columns, str(path))
    return Rows({key: [record.get(column) for record in records] for key, column in columns.items()}, names)


READERS: dict[str, Callable[[Path, Columns], Rows]] = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
}
KINDS = f"{', '.join(list(READERS)[:-1])} or {list(READERS)[-1]}"
