"""Labelled texts from files, folders, the hub or a package: checked, and in one fixed order."""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distmeta.config import DataConfig
from distmeta.data.arrow import table_rows
from distmeta.data.attack import read_procedures
from distmeta.data.columns import Rows
from distmeta.data.files import find_files, read_file
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
    remarks: tuple[str, ...] = ()  # what was assumed in reading
    unlabelled: int = 0  # rows that were left out, because their label is a placeholder

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of texts, labels, groups and tasks in order, without `names`."""
        digest = hashlib.sha256()
        for column in (self.texts, self.labels, self.groups, *([self.tasks] if self.tasks else [])):
            digest.update(json.dumps(column).encode() + b"\n")
        return digest.hexdigest()


def read_source(data: DataConfig) -> Source:
    """Reads what `data.path` names: a file, a folder of files of one kind, ``-``, ``hub:owner/name`` or ``attack``.

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
    if "\0" in data.path:
        raise DataError("data.path", f"{data.path!r} holds a NUL character", "leave it out")
    path = Path("/dev/stdin" if data.path == "-" else data.path)
    return _source([read_file(file, columns) for file in find_files(path)])


def _source(parts: list[Rows]) -> Source:
    """Checks every value and concatenates the parts, without rows whose label is a placeholder."""
    unlabelled = _placeholders([part.values["data.label"] for part in parts])
    remarks = list(dict.fromkeys(remark for part in parts for remark in part.remarks))
    names: list[str] = []
    checked: dict[str, list[str]] = {key: [] for key in parts[0].values}
    for part, left_out in zip(parts, unlabelled, strict=True):
        rows = [row for row in range(len(part.names)) if row not in left_out]
        names += [part.names[row] for row in rows]
        for key, values in part.values.items():
            checked[key] += [_string(values[row], key, part.names[row]) for row in rows]
    if count := sum(map(len, unlabelled)):
        remarks.append(f"{count} rows with the label -1 are left out: it stands for a label that is not known")
        if not names:
            raise DataError(parts[0].names[0], "the label is -1 in all rows", "give rows whose labels are known")
    labels, tasks = checked["data.label"], checked.get("data.task")
    if tasks is not None:
        labels = _joined(tasks, labels)
    return Source(checked["data.text"], labels, checked.get("data.group"), names, tasks, tuple(remarks), count)


def _placeholders(parts: list[list[Any]]) -> list[set[int]]:
    """The rows of each part whose label is -1 where that is no class.

    This is the hub's convention for a label that is not known. Whole numbers from 0 make it one, but for labels
    -1, 0 and 1 in one file, and so do names if the -1 is a number.
    """
    found = [{row for row, value in enumerate(part) if _number(value) == -1} for part in parts]
    others = [
        value for part, rows in zip(parts, found, strict=True) for row, value in enumerate(part) if row not in rows
    ]
    numbers = {_number(value) for value in others}
    whole = any(len(rows) == len(part) for part, rows in zip(parts, found, strict=True))
    if None not in numbers and (whole or not numbers <= {0, 1}) and all(n is not None and n >= 0 for n in numbers):
        return found
    if all(isinstance(value, str | bytes) for value in others):
        return [{row for row in rows if part[row] == -1} for part, rows in zip(parts, found, strict=True)]
    return [set() for _ in parts]


def _number(value: Any) -> int | None:
    """A label as a whole number, if it is one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return int(value) if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,18}\s*", value) else None


def _joined(tasks: list[str], labels: list[str]) -> list[str]:
    """Class names, ``task/label``; slashes in tasks are escaped if two pairs would otherwise be called the same."""
    pairs = dict.fromkeys(zip(tasks, labels, strict=True))
    if len({f"{task}/{label}" for task, label in pairs}) == len(pairs):
        return [f"{task}/{label}" for task, label in zip(tasks, labels, strict=True)]
    escaped = {task: task.replace("\\", "\\\\").replace("/", "\\/") for task, _ in pairs}
    return [f"{escaped[task]}/{label}" for task, label in zip(tasks, labels, strict=True)]


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
    return [
        table_rows(part.with_format("arrow")[:], columns, f"{path} {split}", part.features)
        for split, part in parts.items()
    ]
