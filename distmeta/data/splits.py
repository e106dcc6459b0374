"""Splits of the classes: meta-training, meta-validation and meta-test have no class in common."""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from distmeta.config import DataConfig, Fractions
from distmeta.data.sources import Source
from distmeta.errors import ConfigError, DataError, suggest

Splits = dict[str, list[str]]
Tasks = tuple[tuple[str, ...], ...]  # the classes of each task, in label order
SPLITS = ("meta_train", "meta_validation", "meta_test")
_FILL_ORDER = ("meta_test", "meta_validation", "meta_train")
_FILE_KEYS = {"train": "meta_train", "validation": "meta_validation", "test": "meta_test"}


def split_classes(source: Source, data: DataConfig, *, ways: Mapping[str, int], examples_per_class: int) -> Splits:
    """Sorted class names of the disjoint `meta_train`, `meta_validation` and `meta_test`; other classes are not used.

    Args:
        source: the labelled texts.
        data: `splits` is a JSON file of splits, from which `split` selects one, or shares of the
            classes, drawn anew for each `split`. Classes with fewer than `min_examples` examples are left out.
        ways: how many classes an episode of each split needs.
        examples_per_class: how many examples of a class an episode needs.

    Raises:
        DataError: the split file cannot be used, or a split is too small for its episodes.
    """
    counts = Counter(source.labels)
    splits = _split(counts, class_groups(source), data)
    _check_sizes(splits, counts, ways, examples_per_class)
    return splits


def split_tasks(
    source: Source, data: DataConfig, only: Sequence[str] = ("*",), *, ways: Mapping[str, int], examples_per_class: int
) -> tuple[Splits, dict[str, Tasks]]:
    """Like `split_classes`, for a source with tasks: each task is in one split and has as many classes as ways.

    A split file lists tasks, and `min_examples` leaves out tasks that have a smaller class.

    Returns:
        The sorted class names of each split, and the classes of each of its tasks, in order. The tasks of
        meta-training are those that match `only`.

    Raises:
        DataError: as `split_classes`, or a task has more or fewer classes than an episode has ways.
    """
    counts = Counter(source.labels)
    task_of = class_groups(replace(source, groups=source.tasks))
    members: dict[str, list[str]] = {}
    for name in sorted(counts):
        members.setdefault(task_of[name], []).append(name)
    smallest = {task: min(counts[name] for name in names) for task, names in members.items()}
    chosen = _split(smallest, class_groups(replace(source, labels=list(source.tasks or ()))), data)
    for split, number in ways.items():
        if not chosen[split]:
            remedy = "use more tasks or other data.splits, or lower data.min_examples"
            raise DataError(f"data.splits: {split}", f"none of {len(members)} tasks", remedy)
        for task in chosen[split]:
            if (count := len(members[task])) != number:
                remedy = f"set episodes.ways={count}" if split == "meta_train" else f"set evaluation.ways={count}"
                found = f"{count} classes, and episodes of {split} have {number} ways"
                raise DataError(f"task {task!r} (data.task)", found, f"{remedy}, or leave the task out")
    splits = {split: sorted(name for task in names for name in members[task]) for split, names in chosen.items()}
    _check_sizes(splits, counts, ways, examples_per_class)
    chosen["meta_train"] = chosen_for_training(chosen["meta_train"], only)
    return splits, {split: tuple(tuple(members[task]) for task in names) for split, names in chosen.items()}


def chosen_for_training(names: Sequence[str], only: Sequence[str]) -> list[str]:
    """The classes or tasks of meta-training that match one of the patterns.

    Raises:
        ConfigError: a pattern matches none.
    """
    matches = {
        pattern: {name for name in names if name == pattern or fnmatch.fnmatchcase(name, pattern)} for pattern in only
    }
    for pattern, matched in matches.items():
        if not matched:
            found = f"{pattern!r} fits none of the {len(names)} that meta_train has"
            raise ConfigError("episodes.only", found, suggest(pattern, names) if "*" not in pattern else "widen it")
    return [name for name in names if any(name in matched for matched in matches.values())]


def _split(counts: Mapping[str, int], groups: Mapping[str, str], data: DataConfig) -> Splits:
    """The names with enough examples, by split."""
    kept = sorted(name for name, count in counts.items() if count >= data.min_examples)
    if isinstance(data.splits, Fractions):
        return _draw(kept, groups, data.splits, data.split)
    splits = _listed(Path(data.splits), data.split, groups)
    return {split: sorted(set(names).intersection(kept)) for split, names in splits.items()}


def class_groups(source: Source) -> dict[str, str]:
    """The group of each class; if the source has no groups, each class is its own group.

    Raises:
        DataError: the rows of a class belong to two groups.
    """
    if source.groups is None:
        return {label: label for label in source.labels}
    first: dict[str, int] = {}
    for row, label in enumerate(source.labels):
        other = first.setdefault(label, row)
        if source.groups[row] != source.groups[other]:
            found = f"class {label!r} is in group {source.groups[row]!r}, but at {source.names[other]} in group"
            remedy = "give each class one group"
            raise DataError(source.names[row], f"{found} {source.groups[other]!r}", remedy)
    return {label: source.groups[row] for label, row in first.items()}


def _draw(classes: Sequence[str], groups: Mapping[str, str], shares: Fractions, split: str) -> Splits:
    """Distributes whole groups in the order of a hash of their names; meta-test gets its share of the classes first."""
    members: dict[str, list[str]] = {}
    for name in classes:
        members.setdefault(groups[name], []).append(name)
    order = sorted(members, key=lambda group: hashlib.sha256(f"{split}:{group}".encode()).digest())
    splits: Splits = {name: [] for name in SPLITS}
    shares_in_order = (shares.test, shares.validation, shares.train)
    ends = list(accumulate(len(classes) * share for share in shares_in_order))
    start = 0
    for group in order:
        # A group goes to the split in which its middle falls: each end of a split is off by at most half a group.
        middle = start + len(members[group]) / 2
        start += len(members[group])
        if middle <= ends[-1]:
            splits[_FILL_ORDER[bisect_left(ends, middle)]] += members[group]
    return {name: sorted(names) for name, names in splits.items()}


def _listed(path: Path, split: str, groups: Mapping[str, str]) -> Splits:
    """The class lists of a file, checked: every name is a class of the data, no class or group is in two lists."""
    lists = _load(path, split)
    owners: dict[str, str] = {}
    group_owners: dict[str, str] = {}
    for key, names in lists.items():
        for name in names:
            if name not in groups:
                raise DataError(str(path), f"{name!r} of {key} is no class of the data", _nearest(name, groups))
            if owners.setdefault(name, key) != key:
                found = f"{name!r} is in {owners[name]} and in {key}"
                raise DataError(str(path), found, "keep it in one of them")
            if group_owners.setdefault(groups[name], key) != key:
                other = group_owners[groups[name]]
                found = f"group {groups[name]!r} of {name!r} is in {other} and in {key}"
                raise DataError(str(path), found, "keep each group in one split")
    return {_FILE_KEYS[key]: names for key, names in lists.items()}


def _load(path: Path, split: str) -> dict[str, list[str]]:
    """The lists train, validation and test of the chosen split, or of a file with a single split."""
    shape = 'give {"1": {"train": [...], "validation": [...], "test": [...]}}'
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(str(path), f"cannot be read ({error.strerror})", "check data.splits") from error
    except ValueError as error:
        raise DataError(str(path), f"not JSON ({error})", shape) from error
    if not isinstance(content, dict) or not content:
        raise DataError(str(path), "holds no splits", shape)
    if not _FILE_KEYS.keys() & content.keys():
        if split not in content:
            raise DataError(str(path), f"no split {split!r} (data.split)", suggest(split, content))
        content = content[split]
    if not isinstance(content, dict) or content.keys() != _FILE_KEYS.keys():
        found = ", ".join(content) if isinstance(content, dict) else f"a {type(content).__name__}"
        raise DataError(str(path), f"split {split!r} holds {found or 'nothing'}", shape)
    return {key: _strings(content[key], f"{path} {key}") for key in _FILE_KEYS}


def _strings(names: Any, where: str) -> list[str]:
    """A list of class names as strings; whole numbers are converted, as in the data."""
    if not isinstance(names, list):
        raise DataError(where, f"a {type(names).__name__}", "give a list of class names")
    for name in names:
        if not isinstance(name, str | int) or isinstance(name, bool):
            raise DataError(where, f"{name!r} in a list of class names", "give strings or whole numbers")
    return [str(name) for name in names]


def _nearest(name: str, classes: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(classes), n=1)
    return f"did you mean {near[0]!r}?" if near else "check data.label and data.splits"


def _check_sizes(splits: Splits, counts: Mapping[str, int], ways: Mapping[str, int], needed: int) -> None:
    for split, number in ways.items():
        if (count := len(splits[split])) < number:
            remedy = "lower episodes.ways or evaluation.ways, or use more classes or other data.splits"
            raise DataError(f"data.splits: {split}", f"{count} classes for episodes of {number} ways", remedy)
    for split in SPLITS:
        for name in splits[split]:
            if counts[name] < needed:
                found = f"{counts[name]} examples, and episodes take {needed} of each class"
                remedy = (
                    f"set data.min_examples={needed} to leave it out, or lower shots or queries (of evaluation too)"
                )
                raise DataError(f"class {name!r} of {split}", found, remedy)
