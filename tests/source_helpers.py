"""Reading a source, and the one line that a mistake is told in."""

from pathlib import Path
from typing import Any

import pytest

from distmeta.config import DataConfig
from distmeta.data.labelled import Source
from distmeta.data.sources import read_source
from distmeta.data.values import strings
from distmeta.errors import DataError


def read(path: Path | str, **keys: Any) -> Source:
    return read_source(DataConfig(path=str(path), **keys))


def fault(path: Path | str, **keys: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def texts(source: Source) -> list[str]:
    found: list[str] = source.texts.to_pylist()
    return found


def labels(source: Source) -> list[str]:
    return [label for part in strings(source.labels) for label in part]


def groups(source: Source) -> list[str] | None:
    return None if source.groups is None else [group for part in strings(source.groups) for group in part]
