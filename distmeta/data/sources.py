"""Labelled texts from files, folders, the hub or a package: checked, and in one fixed order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from distmeta.config import DataConfig
from distmeta.config.base import is_address
from distmeta.data.arrow import table_blocks
from distmeta.data.attack import read_procedures
from distmeta.data.checked import source_of
from distmeta.data.columns import Block, Columns, MissingColumn
from distmeta.data.files import find_files, read_file, read_remote
from distmeta.data.labelled import Source
from distmeta.data.values import Places
from distmeta.errors import DataError

HUB_TIMEOUT_SECONDS = 10.0


def read_source(data: DataConfig, enough: int = 0) -> Source:
    """The labelled texts that `data.path` names, without copies unless `data.copies` is set.

    A class that would have fewer than `enough` examples keeps its copies.

    Raises:
        DataError: something is missing, unreadable, malformed, empty or not UTF-8; the message names the file and row.
    """
    source = _read(data)
    return source if data.copies else source.without_copies(enough)


def _read(data: DataConfig) -> Source:
    """Reads what `data.path` names: a file, a folder of files of one kind, ``-``, ``hub:owner/name`` or ``attack``.

    A path such as s3://bucket/file.csv is read through fsspec.
    """
    if data.path == "attack":
        return _read_attack(data)
    return source_of(read_blocks(data, [{"data.text": data.text, "data.label": data.label}]))


def read_blocks(data: DataConfig, layouts: Sequence[Columns]) -> Iterator[Block]:
    """The rows that `data.path` names, unchecked, in the first layout whose columns are all there.

    `data.group` and `data.task` name further columns.

    Args:
        data: what to read.
        layouts: columns that the data may have. What can be read once, such as a pipe, must have the first ones.

    Raises:
        DataError: something is missing, unreadable or malformed; the error is that of the first layout.
    """
    more = {f"data.{key}": name for key in ("group", "task") if (name := getattr(data, key)) is not None}
    first, *others = ({**columns, **more} for columns in layouts)
    try:
        return _begun(data, first)
    except MissingColumn as error:
        if data.path != "-":
            for columns in others:
                with contextlib.suppress(MissingColumn):
                    return _begun(data, columns)
        raise error


def _begun(data: DataConfig, columns: Columns) -> Iterator[Block]:
    """The rows, of which the first ones were read, so that a column that is missing is known."""
    blocks = _blocks(data, columns)
    if (first := next(blocks, None)) is None:
        raise DataError(str(data.path), "no rows", "give at least one labelled text")
    return chain([first], blocks)


def _blocks(data: DataConfig, columns: Columns) -> Iterator[Block]:
    if data.path is None:
        raise DataError("data.path", "missing", "give a file, a folder, hub:owner/name or attack")
    if data.path.startswith("hub:"):
        yield from _read_hub(data, columns)
        return
    if data.subset is not None:
        raise DataError("data.subset", f"{data.subset!r} with files", "leave it out: it is for hub: data only")
    if is_address(data.path):
        yield from read_remote(data.path, columns)
        return
    path = Path("/dev/stdin" if data.path == "-" else data.path)
    for file in find_files(path):
        yield from read_file(file, columns)


def _read_attack(data: DataConfig) -> Source:
    for key in ("text", "label", "group", "task", "subset"):
        if (value := getattr(data, key)) not in ((None,) if key == "task" else (None, key)):
            raise DataError(f"data.{key}", f"{value!r} with data.path=attack", "leave it out: it is fixed there")
    texts, labels, groups, ids = zip(*read_procedures(), strict=True)
    return Source.of(texts, labels, groups, names=Places(("attack",), np.zeros(len(ids), np.int32), np.array(ids)))


def _read_hub(data: DataConfig, columns: Columns) -> Iterator[Block]:
    """All splits of a hub data set, or of a folder ./owner/name in the hub's layout."""
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_OFFLINE

    path = str(data.path)
    name = path.removeprefix("hub:")
    if name.count("/") != 1 or not all(name.split("/")):
        raise DataError("data.path", f"{path!r} is not of the form hub:owner/name", "give owner and name")
    # Versions of the hub's client raise different exceptions for network errors, hence Exception.
    try:
        if not Path(name).is_dir() and not HF_HUB_OFFLINE:
            # A quick check: without a network load_dataset would retry for half a minute.
            HfApi().dataset_info(name, timeout=HUB_TIMEOUT_SECONDS)
        parts = datasets.load_dataset(name, data.subset)
    except Exception as error:
        remedy = "check the name, data.subset and the network (HF_HUB_OFFLINE=1 loads an earlier download)"
        raise DataError(path, f"cannot be loaded ({str(error) or type(error).__name__})", remedy) from error
    for split, part in parts.items():
        yield from table_blocks(part.with_format("arrow")[:], columns, f"{path} {split}", part.features)
