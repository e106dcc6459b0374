"""Columns of Arrow tables: parquet files, Arrow files and streams, and data sets of the hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

from distmeta.data.columns import Columns, Rows, find_columns
from distmeta.errors import DataError

NO_LABEL = -1  # the hub's convention for a row without a label


def read_parquet(file: BinaryIO, columns: Columns, where: str) -> Rows:
    """The columns of a parquet file.

    Raises:
        DataError: the file is damaged, or lacks a column.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(file) as parquet:
            present = parquet.schema_arrow.names
            index = find_columns(present, columns, where)
            table = parquet.read(columns=sorted({present[number] for number in index.values()}))
    except pa.ArrowException as error:
        raise DataError(where, f"not a readable parquet file ({error})", "write it again") from error
    return table_rows(table, columns, where)


def read_arrow(file: BinaryIO, columns: Columns, where: str) -> Rows:
    """The columns of an Arrow file or stream, such as `datasets.Dataset.save_to_disk` writes.

    Raises:
        DataError: the file is damaged, or lacks a column.
    """
    import pyarrow as pa

    try:
        try:
            table = pa.ipc.open_file(file).read_all()
        except pa.ArrowInvalid:
            file.seek(0)
            table = pa.ipc.open_stream(file).read_all()
    except pa.ArrowException as error:
        raise DataError(where, f"not a readable Arrow file ({error})", "write it again") from error
    return table_rows(table, columns, where, _features(table.schema))


def table_rows(table: Any, columns: Columns, where: str, features: Mapping[str, Any] | None = None) -> Rows:
    """Columns of an Arrow table; strings are returned as bytes, because Arrow does not check their UTF-8.

    With the `features` of `datasets`, numbers of classes become their names, and `NO_LABEL` of data.label stays.
    """
    import pyarrow as pa

    values = {}
    for key, index in find_columns(table.column_names, columns, where).items():
        column = table.column(index)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = column.cast(pa.large_binary())
        values[key] = column.to_pylist()
        if features and (names := getattr(features[table.column_names[index]], "names", None)):
            other = NO_LABEL if key == "data.label" else None
            values[key] = [_name(value, names, other) for value in values[key]]
    return Rows(values, [f"{where} row {row}" for row in range(1, table.num_rows + 1)])


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
