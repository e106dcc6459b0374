"""Files that list the classes of each split."""

from __future__ import annotations

import difflib
import json
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distmeta.errors import DataError, suggest

FILE_KEYS = {"train": "meta_train", "validation": "meta_validation", "test": "meta_test"}


def read_splits(path: Path, split: str, groups: Mapping[str, str]) -> dict[str, list[str]]:
    """The class lists of a file, checked: every name is a class of the data, no class or group is in two lists."""
    lists = _load(path, split)
    owners: dict[str, str] = {}
    group_owners: dict[str, str] = {}
    for key, names in lists.items():
        for name in names:
            if name not in groups:
                raise DataError(
                    str(path), f"{reprlib.repr(name)} of {key} is no class of the data", _nearest(name, groups)
                )
            if owners.setdefault(name, key) != key:
                found = f"{reprlib.repr(name)} is in {owners[name]} and in {key}"
                raise DataError(str(path), found, "keep it in one of them")
            if group_owners.setdefault(groups[name], key) != key:
                other = group_owners[groups[name]]
                found = f"group {reprlib.repr(groups[name])} of {reprlib.repr(name)} is in {other} and in {key}"
                raise DataError(str(path), found, "keep each group in one split")
    return {FILE_KEYS[key]: names for key, names in lists.items()}


def _load(path: Path, split: str) -> dict[str, list[str]]:
    """The lists train, validation and test of the chosen split, or of a file with a single split."""
    shape = 'give {"1": {"train": [...], "validation": [...], "test": [...]}}'
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(str(path), f"cannot be read ({error.strerror})", "check data.splits") from error
    except (ValueError, RecursionError) as error:
        raise DataError(str(path), f"not JSON ({error})", shape) from error
    if not isinstance(content, dict) or not content:
        raise DataError(str(path), "holds no splits", shape)
    if not FILE_KEYS.keys() & content.keys():
        if split not in content:
            raise DataError(str(path), f"no split {split!r} (data.split)", suggest(split, content))
        content = content[split]
    if not isinstance(content, dict) or content.keys() != FILE_KEYS.keys():
        found = ", ".join(content) if isinstance(content, dict) else f"a {type(content).__name__}"
        raise DataError(str(path), f"split {split!r} holds {found or 'nothing'}", shape)
    return {key: _strings(content[key], f"{path} {key}") for key in FILE_KEYS}


def _strings(names: Any, where: str) -> list[str]:
    """A list of class names as strings; whole numbers are converted, as in the data."""
    if not isinstance(names, list):
        raise DataError(where, f"a {type(names).__name__}", "give a list of class names")
    for name in names:
        if not isinstance(name, str | int) or isinstance(name, bool):
            raise DataError(where, f"{reprlib.repr(name)} in a list of class names", "give strings or whole numbers")
    return [str(name) for name in names]


def _nearest(name: str, classes: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(classes), n=1)
    return f"did you mean {near[0]!r}?" if near else "check data.label and data.splits"
