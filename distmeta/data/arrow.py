"""Columns of Arrow tables: parquet files, Arrow files and streams, and data sets of the hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow.parquet import ParquetFile

from distmeta.data.columns import Block, Columns, find_columns
from distmeta.data.values import BLOCK
from distmeta.errors import DataError

NO_LABEL = -1  # the hub's convention for a row without a label


def read_parquet(file: BinaryIO, columns: Columns, where: str) -> Iterator[Block]:
    """The columns of a parquet file.

    Raises:
        DataError: the file is damaged, or lacks a column.
    """
    try:
        with ParquetFile(file) as parquet:
            present = parquet.schema_arrow.names
            names = sorted({present[number] for number in find_columns(present, columns, where).values()})
            start = 0
            for batch in parquet.iter_batches(BLOCK, columns=names):
                yield from table_blocks(batch, columns, where, start=start)
                start += batch.num_rows
    except pa.ArrowException as error:
        raise DataError(where, f"not a readable parquet file ({error})", "write it again") from error


def read_arrow(file: BinaryIO, columns: Columns, where: str) -> Iterator[Block]:
    """The columns of an Arrow file or stream, such as `datasets.Dataset.save_to_disk` writes.

    Raises:
        DataError: the file is damaged, or lacks a column.
    """
    try:
        try:
            table = pa.ipc.open_file(file).read_all()
        except pa.ArrowInvalid:
            file.seek(0)
            table = pa.ipc.open_stream(file).read_all()
    except pa.ArrowException as error:
        raise DataError(where, f"not a readable Arrow file ({error})", "write it again") from error
    yield from table_blocks(table, columns, where, _features(table.schema))


def table_blocks(
    table: Any, columns: Columns, where: str, features: Mapping[str, Any] | None = None, start: int = 0
) -> Iterator[Block]:
    """Columns of an Arrow table or batch; strings are returned as bytes, because Arrow does not check their UTF-8.

    With the `features` of `datasets`, numbers of classes become their names, and `NO_LABEL` of data.label stays.
    Rows are counted from `start`.
    """
    index = find_columns(table.schema.names, columns, where)
    for first in range(0, table.num_rows, BLOCK):
        block, values = table.slice(first, BLOCK), {}
        for key, place in index.items():
            column = block.column(place)
            if pa.types.is_dictionary(column.type):
                column = column.cast(column.type.value_type)
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                column = column.cast(pa.large_binary())
            values[key] = column.to_pylist()
            if features and (names := getattr(features[table.schema.names[place]], "names", None)):
                other = NO_LABEL if key == "data.label" else None
                values[key] = [_name(value, names, other) for value in values[key]]
        begin = start + first + 1
        yield Block(values, f"{where} row", range(begin, begin + block.num_rows))


def _name(number: int | None, names: list[str], other: int | None) -> str | int | None:
    if number is not None and 0 <= number < len(names):
        return names[number]
    return other if number == NO_LABEL else None


def _features(schema: Any) -> Mapping[str, Any] | None:
    """What `datasets` has written about the columns, if it has."""
    if b"huggingface" not in (schema.metadata or {}):
        return None
    from datasets import Features

    features: Mapping[str, Any] = Features.from_arrow_schema(schema)
    return features
