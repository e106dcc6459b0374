"""Labelled texts as columns of Arrow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from distmeta.data.values import Places, coded, codes_of, first_rows, names_column, names_of, strings
from distmeta.errors import DataError


@dataclass(frozen=True, eq=False)
class Source:
    """Labelled texts in a fixed order, R rows.

    `groups` has the group of each row's class, or is None. `tasks` has each row's task, or is None. With tasks a label
    is ``task/label``, so that no two tasks share a label. `names` has each row's origin, such as a file and line.
    """

    texts: pa.Array  # of strings
    labels: pa.DictionaryArray
    groups: pa.DictionaryArray | None
    names: Places
    tasks: pa.DictionaryArray | None = None
    remarks: tuple[str, ...] = ()  # what was assumed in reading
    unlabelled: int = 0  # rows that were left out, because their label is a placeholder
    copies: Mapping[str, int] = field(default_factory=dict)  # rows of each class that were left out as copies
    numbers: np.ndarray | None = None  # (R,) int64, numbers among all rows of the files, if rows were left out

    @classmethod
    def of(
        cls,
        texts: Sequence[str],
        labels: Sequence[str],
        groups: Sequence[str] | None = None,
        tasks: Sequence[str] | None = None,
        names: Places | None = None,
    ) -> Source:
        """Labelled texts of Python strings."""
        rows = np.arange(len(texts))
        return cls(
            pa.array(texts, pa.large_string()),
            names_column(labels),
            None if groups is None else names_column(groups),
            names or Places(("row",), np.zeros(len(rows), np.int32), rows + 1),
            None if tasks is None else names_column(tasks),
        )

    @cached_property
    def classes(self) -> list[str]:
        """The different labels, in the order of their first rows."""
        return names_of(self.labels)

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many rows each class has, in the order of `classes`."""
        return dict(zip(self.classes, np.bincount(codes_of(self.labels)).tolist(), strict=True))

    @cached_property
    def text_numbers(self) -> np.ndarray:
        """A number for each row's text, (R,) int32: the same for equal texts."""
        numbers: np.ndarray = self.texts.dictionary_encode().indices.to_numpy()
        return numbers

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of texts, labels, groups and tasks in order, without `names`."""
        digest = hashlib.sha256()
        for column in (self.texts, self.labels, self.groups, *([self.tasks] if self.tasks is not None else [])):
            for piece in _json(column):
                digest.update(piece)
        return digest.hexdigest()

    def class_groups(self) -> dict[str, str]:
        """The group of each class; without groups, each class is its own group.

        Raises:
            DataError: the rows of a class belong to two groups.
        """
        if self.groups is None:
            return {label: label for label in self.classes}
        labels, groups, first = codes_of(self.labels), codes_of(self.groups), first_rows(self.labels)
        names = names_of(self.groups)
        if len(others := np.flatnonzero(groups != groups[first][labels])):
            row = others[0]
            at_first = first[labels[row]]
            found = f"class {self.classes[labels[row]]!r} is in group {names[groups[row]]!r}"
            found += f", but at {self.names[at_first]} in group {names[groups[at_first]]!r}"
            raise DataError(self.names[row], found, "give each class one group")
        return dict(zip(self.classes, (names[group] for group in groups[first]), strict=True))

    def rows_of(self, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The rows of some classes, (n,) ascending, and the index of each row's class in `classes`, (n,) int32."""
        number = {name: number for number, name in enumerate(classes)}
        labels = np.array([number.get(name, -1) for name in self.classes], np.int32)[codes_of(self.labels)]
        rows = np.flatnonzero(labels >= 0)
        return rows, labels[rows]

    def texts_of(self, classes: Sequence[str]) -> pa.Array:
        """The texts of some classes, in order."""
        return self.texts.take(pa.array(self.rows_of(classes)[0]))

    def take(self, rows: np.ndarray) -> Source:
        """Some of the rows, (n,) ascending."""
        groups, labels, tasks = (
            None if column is None else coded(codes_of(column)[rows], names_of(column))
            for column in (self.groups, self.labels, self.tasks)
        )
        numbers = rows if self.numbers is None else self.numbers[rows]
        texts = self.texts.take(pa.array(rows))
        names = self.names.take(rows)
        return replace(self, texts=texts, labels=labels, groups=groups, tasks=tasks, names=names, numbers=numbers)

    def joined(self) -> Source:
        """Makes labels ``task/label``; slashes in tasks are escaped if two pairs would otherwise be called the same."""
        assert self.tasks is not None, "labels without tasks"
        tasks, labels = names_of(self.tasks), self.classes
        numbers = codes_of(self.tasks).astype(np.int64) * len(labels) + codes_of(self.labels)
        used, codes = np.unique(numbers, return_inverse=True)
        pairs = [(tasks[number // len(labels)], labels[number % len(labels)]) for number in used.tolist()]
        names = [f"{task}/{label}" for task, label in pairs]
        if len(set(names)) < len(names):
            escaped = [task.replace("\\", "\\\\").replace("/", "\\/") for task in tasks]
            names = [f"{escaped[number // len(labels)]}/{labels[number % len(labels)]}" for number in used.tolist()]
        return replace(self, labels=coded(codes, names))

    def without_copies(self, enough: int = 0) -> Source:
        """Leaves out the rows with the text and label of an earlier row.

        Classes with fewer than `enough` different texts keep all of their rows.
        """
        labels = codes_of(self.labels)
        pairs = self.text_numbers.astype(np.int64) * len(self.classes) + labels
        stays = np.zeros(len(pairs), bool)
        stays[np.unique(pairs, return_index=True)[1]] = True
        stays |= (np.bincount(labels, stays) < enough)[labels]
        if stays.all():
            return self
        kept = self.take(np.flatnonzero(stays))
        left_out = {name: count - kept.counts[name] for name, count in self.counts.items()}
        return replace(kept, copies={name: count for name, count in left_out.items() if count})


def _json(column: pa.Array | None) -> Iterator[bytes]:
    """A column as a line of JSON, in pieces."""
    if column is None:
        yield b"null\n"
        return
    yield b"["
    for number, part in enumerate(strings(column)):
        yield (", " if number else "").encode() + json.dumps(part)[1:-1].encode()
    yield b"]\n"
