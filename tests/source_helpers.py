"""Reading a source, and the one line that a mistake is told in."""

from pathlib import Path
from typing import Any

import pytest

from distmeta.config import DataConfig
from distmeta.data.sources import Source, read_source
from distmeta.errors import DataError


def read(path: Path | str, **keys: Any) -> Source:
    return read_source(DataConfig(path=str(path), **keys))


def fault(path: Path | str, **keys: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)
