"""Labelled texts from files, folders, the hub or a package: checked, and in one fixed order."""

from __future__ import annotations

import hashlib
import json
import reprlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distmeta.config import DataConfig
from distmeta.data.attack import read_procedures
from distmeta.data.files import Rows, find_files, read_file, table_rows
from distmeta.errors import DataError

HUB_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Source:
    """Labelled texts in a fixed order.

    `groups` has the group of each row's class, or is None. `names` has each row's origin, such as a file and line.
    `tasks` has each row's task, or is None. With tasks a label is ``task/label``, so that no two tasks share a label.
    """

    texts: list[str]
    labels: list[str]
    groups: list[str] | None
    names: list[str]
    tasks: list[str] | None = None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of texts, labels, groups and tasks in order, without `names`."""
        digest = hashlib.sha256()
        for column in (self.texts, self.labels, self.groups, *([self.tasks] if self.tasks else [])):
            digest.update(json.dumps(column).encode() + b"\n")
        return digest.hexdigest()


def read_source(data: DataConfig) -> Source:
    """Reads what `data.path` names: a file, a folder of files of one kind, ``hub:owner/name`` or ``attack``.

    Raises:
        DataError: something is missing, unreadable, malformed, empty or not UTF-8; the message names the file and row.
    """
    if data.path is None:
        raise DataError("data.path", "missing", "give a file, a folder, hub:owner/name or attack")
    if data.path == "attack":
        return _read_attack(data)
    columns = {"data.text": data.text, "data.label": data.label}
    if data.group is not None:
        columns["data.group"] = data.group
    if data.task is not None:
        columns["data.task"] = data.task
    if data.path.startswith("hub:"):
        return _source(_read_hub(data, columns))
    if data.subset is not None:
        raise DataError("data.subset", f"{data.subset!r} with files", "leave it out: it is for hub: data only")
    return _source([read_file(file, columns) for file in find_files(Path(data.path))])


def _source(parts: list[Rows]) -> Source:
    """Checks every value and concatenates the parts."""
    checked: dict[str, list[str]] = {key: [] for key in parts[0].values}
    for part in parts:
        for key, values in part.values.items():
            checked[key] += [_string(value, key, name) for value, name in zip(values, part.names, strict=True)]
    names = [name for part in parts for name in part.names]
    labels, tasks = checked["data.label"], checked.get("data.task")
    if tasks is not None:
        labels = [f"{task}/{label}" for task, label in zip(tasks, labels, strict=True)]
    return Source(checked["data.text"], labels, checked.get("data.group"), names, tasks)


def _string(value: Any, key: str, where: str) -> str:
    """A value as a string; a label, group or task may also be a whole number."""
    what = key.removeprefix("data.")
    if isinstance(value, int) and not isinstance(value, bool) and what != "text":
        return str(value)
    if value is None or (isinstance(value, str | bytes) and not value.strip()):
        raise DataError(where, f"the {what} is empty", "fill it in or remove the row")
    if not isinstance(value, str | bytes):
        found = f"the {what} is {reprlib.repr(value)}, a {type(value).__name__}"
        raise DataError(where, found, "give a string" if what == "text" else "give a string or a whole number")
    try:
        string = value.decode() if isinstance(value, bytes) else value
        string.encode()
    except UnicodeError as error:
        raise DataError(where, f"the {what} is not UTF-8", "save the file as UTF-8") from error
    return string


def _read_attack(data: DataConfig) -> Source:
    for key in ("text", "label", "group", "task", "subset"):
        if (value := getattr(data, key)) not in ((None,) if key == "task" else (None, key)):
            raise DataError(f"data.{key}", f"{value!r} with data.path=attack", "leave it out: it is fixed there")
    procedures = read_procedures()
    texts, labels, groups, names = (list(column) for column in zip(*procedures, strict=True))
    return Source(texts, labels, groups, names)


def _read_hub(data: DataConfig, columns: dict[str, str]) -> list[Rows]:
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
    return [_hub_rows(part, columns, f"{path} {split}") for split, part in parts.items()]


def _hub_rows(part: Any, columns: dict[str, str], where: str) -> Rows:
    from datasets import ClassLabel

    rows = table_rows(part.with_format("arrow")[:], columns, where)
    for key, column in columns.items():
        if isinstance(feature := part.features[column], ClassLabel):
            # The hub's convention for a row without a label is -1.
            known = range(len(feature.names))
            rows.values[key][:] = [feature.names[v] if v in known else None for v in rows.values[key]]
    return rows
