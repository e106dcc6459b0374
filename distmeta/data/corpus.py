"""Texts as token ids: tokenised once, kept in a memory-mapped Arrow file, read without copying."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer

from distmeta.data.labelled import Source
from distmeta.data.tokens import PLAIN, Reading, prepared, tokenise
from distmeta.errors import DataError
from distmeta.types import Inputs

FORMAT = 1
_KEY = b"distmeta"


@dataclass(frozen=True, eq=False)
class Corpus:
    """The tokenised texts of all used classes, R rows in the source's order.

    `table` has `input_ids` (list of int32), `label` (int32, into `classes`) and `source_row` (int64), and what a
    `Reading` adds (lists of int32 of one size), each in one chunk. With pickle protocol 5 the table's buffers are sent
    out of band.
    """

    table: pa.Table
    classes: tuple[str, ...]  # sorted
    splits: Mapping[str, tuple[str, ...]]  # sorted class names of each split
    pad_id: int
    fingerprint: str  # of the texts, the splits, the tokenizer and max_length
    source_fingerprint: str  # of the labelled texts only
    max_length: int  # tokens; longer texts were cut
    # Rows, ascending, of texts that are to stand once in an episode and have several rows, and numbers of their texts.
    repeated: np.ndarray = field(default_factory=lambda: np.empty((2, 0), np.int64))  # (2, n)
    numbers: np.ndarray | None = None  # of the source's rows among all that were read, if some were left out

    def __reduce__(self) -> tuple[Any, ...]:
        # Only the fields: the cached properties would be sent as copies.
        return Corpus, tuple(getattr(self, name) for name in self.__dataclass_fields__)

    def rows_of(self, class_name: str) -> np.ndarray:
        """Rows of a class, (n,) int64, ascending."""
        number = self._number[class_name]
        return self._by_class[self._starts[number] : self._starts[number + 1]]

    def rows(self, split: str) -> np.ndarray:
        """Rows of a split's classes, (n,) int64, sorted by (length, row)."""
        parts = [self.rows_of(name) for name in self.splits[split]]
        return self.by_length(np.concatenate([np.empty(0, dtype=np.int64), *parts]))

    def by_length(self, rows: np.ndarray) -> np.ndarray:
        """Rows (n,), sorted by (length, row)."""
        rows = np.sort(rows)
        found: np.ndarray = rows[np.argsort(self.lengths[rows], kind="stable")]
        return found

    def tokens(self, rows: np.ndarray) -> Inputs:
        """Token ids of an array of rows of any shape, padded with `pad_id` to the length L of the longest.

        Returns:
            `input_ids` and `attention_mask`, both (*rows.shape, L) int64, and further inputs, (*rows.shape, n) int64.
        """
        starts, lengths = self._offsets[rows][..., None], self.lengths[rows][..., None]
        positions = np.arange(lengths.max(initial=0))
        mask = positions < lengths
        ids = np.full(mask.shape, self.pad_id, dtype=np.int64)
        ids[mask] = self._values[(starts + positions)[mask]]
        further = {name: torch.from_numpy(values[rows].astype(np.int64)) for name, values in self._further.items()}
        mask = mask.astype(np.int64)
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask), **further}

    def share(self, split: str, token: int) -> float:
        """Share of a token among all tokens of a split."""
        rows, counts = self.rows(split), np.add.reduceat(self._values == token, self._offsets[:-1], dtype=np.int64)
        return float(counts[rows].sum() / max(1, self.lengths[rows].sum()))

    def texts_of(self, rows: np.ndarray) -> np.ndarray:
        """A number for each row's text, the same for the same text, or -1 if no other row has the text, (n,) int64."""
        known, texts = self.repeated
        if not len(known):
            return np.full(len(rows), -1)
        place = np.searchsorted(known, rows).clip(max=len(known) - 1)
        return np.where(known[place] == rows, texts[place], -1)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each row, (R,) int64."""
        return np.diff(self._offsets)

    @cached_property
    def source_rows(self) -> np.ndarray:
        """Each row's number among all rows that were read, (R,) int64."""
        rows = _numpy(self.table, "source_row")
        return rows if self.numbers is None else self.numbers[rows]

    @cached_property
    def labels(self) -> np.ndarray:
        """Index of each row's class in `classes`, (R,) int32."""
        return _numpy(self.table, "label")

    @cached_property
    def _offsets(self) -> np.ndarray:
        offsets: np.ndarray = self.table["input_ids"].chunk(0).offsets.to_numpy().astype(np.int64)
        return offsets

    @cached_property
    def _values(self) -> np.ndarray:
        values: np.ndarray = self.table["input_ids"].chunk(0).values.to_numpy()
        return values

    @cached_property
    def _further(self) -> dict[str, np.ndarray]:
        """What a `Reading` has added, (R, n) int32 each."""
        return _further(self.table)

    @cached_property
    def _number(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.classes)}

    @cached_property
    def _by_class(self) -> np.ndarray:
        return np.argsort(self.labels, kind="stable")

    @cached_property
    def _starts(self) -> np.ndarray:
        """Where the rows of each class begin in `_by_class`, and the end of the last."""
        return np.searchsorted(self.labels[self._by_class], np.arange(len(self.classes) + 1))


def build_corpus(
    source: Source,
    splits: Mapping[str, Sequence[str]],
    tokenizer: Tokenizer,
    max_length: int,
    cache_dir: str | Path,
    repeats: bool = False,
    reading: Reading = PLAIN,
) -> Corpus:
    """Tokenises the rows of all used classes, or maps an earlier call's file into memory.

    Args:
        source: the labelled texts.
        splits: class names of each split, disjoint.
        tokenizer: its own padding and truncation are not used.
        max_length: tokens, special ones included; longer texts are cut.
        cache_dir: the folder of the file, which is named by the corpus's fingerprint.
        repeats: whether a text may stand in an episode several times.
        reading: how texts become inputs.

    Raises:
        DataError: a text cannot be used, or the cache folder cannot be written.
    """
    tokenizer, pad_id = prepared(tokenizer, max_length)
    about: dict[str, Any] = {
        "format": FORMAT,
        "source": source.fingerprint,
        "splits": {split: sorted(names) for split, names in splits.items()},
        "tokenizer": hashlib.sha256(tokenizer.to_str().encode()).hexdigest(),
        "max_length": max_length,
        "pad_id": pad_id,
    }
    classes = sorted(name for names in splits.values() for name in names)
    repeated = np.empty((2, 0), np.int64) if repeats else _repeated(source, classes)
    if repeated.size:
        about["repeats"] = False  # where no text is repeated, it decides nothing
    if reading.name:
        about["reading"] = reading.name
    fingerprint = hashlib.sha256(_json(about)).hexdigest()
    path = Path(cache_dir) / f"{fingerprint}.arrow"
    if (table := _open(path, about)) is None:
        new = tokenise(source, classes, tokenizer, reading)
        _write(path, new.replace_schema_metadata({_KEY: _json({**about, "content": _content(new)})}))
        if (table := _open(path, about)) is None:
            raise DataError(str(path), "reads back differently from what was written", "check the disk")
    names_of = {split: tuple(names) for split, names in about["splits"].items()}
    about_texts = (fingerprint, source.fingerprint, max_length, repeated, source.numbers)
    return Corpus(table, tuple(classes), names_of, pad_id, *about_texts)


def _repeated(source: Source, classes: Sequence[str]) -> np.ndarray:
    """Corpus rows, ascending, of texts that several rows have, and the numbers of their texts, (2, n)."""
    texts = source.text_numbers[source.rows_of(classes)[0]]
    rows = np.flatnonzero(np.bincount(texts)[texts] > 1)
    return np.stack([rows, texts[rows]])


def _open(path: Path, about: Mapping[str, Any]) -> pa.Table | None:
    """The file's table, memory-mapped; None if the file is missing, damaged or made from other inputs."""
    if not path.exists():
        return None
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        written = json.loads(table.schema.metadata[_KEY])
        intact = written == {**about, "content": _content(table)}
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError):
        # A damaged file loses nothing: it is made again from the texts.
        return None
    return table if intact else None


def _write(path: Path, table: pa.Table) -> None:
    """Writes a temporary file and renames it, so that several processes may write at once."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with pa.OSFile(str(aside), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise DataError("data.cache", f"cannot write {path} ({error})", "set data.cache to a folder") from error


def _content(table: pa.Table) -> str:
    """SHA-256 of the values; it detects a flipped bit."""
    ids = table["input_ids"].chunk(0)
    arrays = [
        ids.offsets.to_numpy(),
        ids.values.to_numpy(),
        _numpy(table, "label"),
        _numpy(table, "source_row"),
        *_further(table).values(),
    ]
    return hashlib.sha256(b"".join(hashlib.sha256(array).digest() for array in arrays)).hexdigest()


def _further(table: pa.Table) -> dict[str, np.ndarray]:
    """The columns of lists of one size, (R, n) each."""
    found = {}
    for name in table.schema.names:
        if pa.types.is_fixed_size_list(kind := table.schema.field(name).type):
            found[name] = table[name].chunk(0).flatten().to_numpy().reshape(-1, kind.list_size)
    return found


def _numpy(table: pa.Table, column: str) -> np.ndarray:
    array: np.ndarray = table[column].chunk(0).to_numpy()
    return array


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
