"""Splits of the classes: meta-training, meta-validation and meta-test have no class in common."""

from __future__ import annotations

import fnmatch
import hashlib
import math
import reprlib
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from distmeta.config import DataConfig, Fractions
from distmeta.data.labelled import Source
from distmeta.data.split_files import FILE_KEYS, read_splits
from distmeta.errors import ConfigError, DataError, suggest

Splits = dict[str, list[str]]
Tasks = tuple[tuple[str, ...], ...]  # the classes of each task, in label order
SPLITS = ("meta_train", "meta_validation", "meta_test")
_FILL_ORDER = ("meta_test", "meta_validation", "meta_train")


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
    counts, groups = source.counts, source.class_groups()

    def split_of(least: int) -> Splits:
        return _split(counts, groups, data.model_copy(update={"min_examples": least}))

    splits = split_of(data.min_examples)
    for split, number in ways.items():
        if (found := len(splits[split])) < number:
            left_out = sum(count < data.min_examples for count in counts.values())
            fallen = (
                f" (data.min_examples={data.min_examples} leaves out {left_out} of {len(counts)})" if left_out else ""
            )
            if left_out and examples_per_class < data.min_examples and _are_enough(split_of(examples_per_class), ways):
                remedy = f"set data.min_examples={examples_per_class}"
            else:
                remedy = _more_classes(splits, groups, data, ways)
            raise DataError(f"data.splits: {split}", f"{found} classes for episodes of {number} ways{fallen}", remedy)
    _check_examples(splits, source, examples_per_class, lambda: _are_enough(split_of(examples_per_class), ways))
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
    task_of = replace(source, groups=source.tasks).class_groups()
    members: dict[str, list[str]] = {}
    for name in sorted(source.classes):
        members.setdefault(task_of[name], []).append(name)
    groups = replace(source, labels=source.tasks).class_groups()

    smallest = {task: min(source.counts[name] for name in names) for task, names in members.items()}
    chosen = _split(smallest, groups, data)
    used = [task for split in ways for task in chosen[split]]
    widths = {len(members[task]) for task in used}
    one_each = dict.fromkeys(ways, 1)

    for split, number in ways.items():
        if not chosen[split]:
            remedy = "use more tasks or other data.splits, or lower data.min_examples"
            if isinstance(data.splits, Fractions):
                remedy = f"use more tasks, at least {_least(data.splits, one_each)}"
                remedy += ", or lower data.min_examples" if data.min_examples else ""
            raise DataError(f"data.splits: {split}", f"none of {len(members)} tasks", remedy)
        for task in chosen[split]:
            if (count := len(members[task])) != number:
                remedy = f"set episodes.ways={count} evaluation.ways={count}"
                if len(widths) > 1:
                    fit = sum(len(members[task]) == number for task in used)
                    remedy = (
                        f"keep tasks with one number of classes, such as the {fit} of {len(used)} that have {number}"
                    )
                found = f"{count} classes, and episodes of {split} have {number} ways"
                raise DataError(f"task {reprlib.repr(task)} (data.task)", found, remedy)
    splits = {split: sorted(name for task in names for name in members[task]) for split, names in chosen.items()}
    fewer = data.model_copy(update={"min_examples": examples_per_class})
    _check_examples(
        splits,
        source,
        examples_per_class,
        can_leave_out=lambda: _are_enough(_split(smallest, groups, fewer), one_each),
    )
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
    splits = read_splits(Path(data.splits), data.split, groups)
    return {split: sorted(set(names).intersection(kept)) for split, names in splits.items()}


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


def _are_enough(splits: Splits, ways: Mapping[str, int]) -> bool:
    return all(len(splits[split]) >= number for split, number in ways.items())


def _more_classes(splits: Splits, groups: Mapping[str, str], data: DataConfig, ways: Mapping[str, int]) -> str:
    """The settings with which the classes suffice for episodes of most ways, or how many classes are needed."""
    if not isinstance(data.splits, Fractions):
        return f"list more classes in {data.splits}, or lower episodes.ways or evaluation.ways"
    classes = sorted(name for names in splits.values() for name in names)
    for most in range(max(ways.values()), 1, -1):
        fewer = {split: min(number, most) for split, number in ways.items()}
        total = sum(fewer.values())
        shares = {key: int(100 * fewer.get(split, 1) / total) / 100 or 0.01 for key, split in FILE_KEYS.items()}
        settings = []
        if fewer != ways:
            settings = [f"episodes.ways={fewer['meta_train']}"] if "meta_train" in fewer else []
            settings += [f"evaluation.ways={fewer['meta_test']}"] if "meta_test" in fewer else []
        if not _are_enough(splits, fewer):
            if sum(shares.values()) > 1 or not _are_enough(
                _draw(classes, groups, Fractions(**shares), data.split), fewer
            ):
                continue
            listed = ", ".join(f"{key}: {share:g}" for key, share in shares.items())
            settings.append(f"'data.splits={{{listed}}}'")
        return f"set {' '.join(settings)}, or use at least {_least(data.splits, ways)} classes"
    return (
        f"each needs classes that the others do not have: use at least {_least(data.splits, ways)} classes; "
        f"or if the same labels recur in many domains, name the column of the domain in data.task"
    )


def _least(shares: Fractions, ways: Mapping[str, int]) -> int:
    """How many classes give each split its ways."""
    share: dict[str, float] = {split: getattr(shares, key) for key, split in FILE_KEYS.items()}
    return max(math.ceil(number / share[split] - 1e-9) for split, number in ways.items())


def _check_examples(splits: Splits, source: Source, needed: int, can_leave_out: Callable[[], bool]) -> None:
    for split in SPLITS:
        for name in splits[split]:
            if (count := source.counts[name]) < needed:
                found = f"{count} examples, and episodes take {needed} of each class"
                remedy = "lower shots or queries (of evaluation too)"
                if can_leave_out():
                    remedy = f"set data.min_examples={needed} to leave it out, or {remedy}"
                else:
                    remedy += f": without the classes that have fewer than {needed} examples, too few are left"
                raise DataError(f"class {reprlib.repr(name)} of {split}", found, remedy)
