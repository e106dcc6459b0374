"""Descriptions of classes, which join support sets as one more example of their class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from distmeta.config import DataConfig
from distmeta.config.tasks import NAMES
from distmeta.data.labelled import Source
from distmeta.data.sources import read_source
from distmeta.data.values import Places, names_column, strings
from distmeta.errors import DataError, suggest

MARK = "\0"  # before the label of a description among a corpus's classes; no label in a file begins with it


def read_descriptions(data: DataConfig, classes: Sequence[str]) -> dict[str, str]:
    """The description of each class, from the file that `data.descriptions` names; empty if it names none.

    Args:
        data: the section; the columns of the file are those of the data.
        classes: that must have one.

    Raises:
        DataError: the file cannot be used, a class has none or several.
    """
    if data.descriptions is None:
        return {}
    if data.descriptions == NAMES:
        return {name: name for name in classes}
    section = data.model_copy(update={"path": data.descriptions, "subset": None, "group": None})
    source = read_source(section)
    found: dict[str, str] = {}
    for row, label in enumerate(label for part in strings(source.labels) for label in part):
        if label in found:
            raise DataError(source.names[row], f"a second description of {label!r}", "give one of each class")
        found[label] = source.texts[row].as_py()
    for name in classes:
        if name not in found:
            remedy = suggest(name, list(found)) if found else "give one of each class"
            raise DataError(f"data.descriptions {data.descriptions}", f"none of the class {name!r}", remedy)
    return {name: found[name] for name in classes}


def with_descriptions(source: Source, descriptions: Mapping[str, str]) -> Source:
    """A source with a row behind the others for each description, whose label is that of its class behind `MARK`."""
    count, names = len(source.texts), source.names
    rows = np.arange(len(descriptions))
    files = (*names.files, "data.descriptions")
    file = np.concatenate([names.file, np.full(len(rows), len(names.files), np.int32)])
    number = np.concatenate([np.asarray(names.number, object), rows + 1])
    labels = [label for part in strings(source.labels) for label in part]
    texts = pa.concat_arrays([source.texts, pa.array(list(descriptions.values()), source.texts.type)])
    numbers = np.arange(count) if source.numbers is None else source.numbers
    behind = (numbers.max(initial=-1) + 1 + rows).astype(np.int64)
    return replace(
        source,
        texts=texts,
        labels=names_column([*labels, *(MARK + name for name in descriptions)]),
        groups=None,
        tasks=None,
        names=Places(files, file, number),
        numbers=np.concatenate([numbers, behind]),
    )
