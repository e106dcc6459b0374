"""Texts with any number of labels: a row for each text and label, several labels in a cell, or lists."""

from __future__ import annotations

from typing import Any, NamedTuple

from distmeta.config import DataConfig
from distmeta.data.checked import LABEL, TEXT, refusal, usable
from distmeta.data.sources import read_blocks

SEPARATOR = "|"  # of labels in a cell


class LabelSets(NamedTuple):
    """Different texts, the labels of each, the names of their first rows, and what was assumed in reading."""

    texts: list[str]
    labels: list[list[str]]
    names: list[str]
    remarks: tuple[str, ...]


def read_label_sets(data: DataConfig) -> LabelSets:
    """The texts that `data.path` names. The rows of a text add up; an empty cell or list adds no label.

    Raises:
        DataError: something is missing, unreadable or malformed, or a text or label cannot be used.
    """
    found: dict[str, dict[str, None]] = {}
    names: dict[str, str] = {}
    remarks: dict[str, None] = {}
    for block in read_blocks(data, [{TEXT: data.text, LABEL: data.label}]):
        remarks.update(dict.fromkeys(block.remarks))
        for number, value, cell in zip(block.numbers, block.values[TEXT], block.values[LABEL], strict=True):
            if (text := usable(value)) is None:
                raise refusal(value, TEXT, f"{block.where} {number}")
            name = f"{block.where} {number}"
            found.setdefault(text, {}).update(dict.fromkeys(_labels(cell, name)))
            names.setdefault(text, name)
    return LabelSets(list(found), [list(its) for its in found.values()], list(names.values()), tuple(remarks))


def _labels(cell: Any, where: str) -> list[str]:
    if cell is None or (isinstance(cell, str | bytes) and not cell.strip()):
        return []
    if isinstance(cell, list):
        parts = [part for value in cell for part in _labels(value, where)]
    elif isinstance(cell, int) and not isinstance(cell, bool):
        parts = [str(cell)]
    elif (text := usable(cell)) is None:
        raise refusal(cell, LABEL, where)
    else:
        parts = [part.strip() for part in text.split(SEPARATOR) if part.strip()]
    return parts
