"""Texts become token ids: the rows of a source, and the texts of one task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer

from distmeta.data.labelled import Source
from distmeta.errors import DataError
from distmeta.types import Inputs

CHUNK = 4096  # texts tokenised at once: an Encoding takes far more memory than its ids
Rows = list[list[int]]  # numbers of each text


class Reading(Protocol):
    """How texts become inputs. It is picklable."""

    @property
    def name(self) -> str:
        """Its part of a corpus's fingerprint; empty for plain texts."""

    def plain(self, text: str) -> str:
        """What a tokenizer sees of a text."""

    def __call__(self, texts: Sequence[str], tokenizer: Tokenizer) -> tuple[Rows, Mapping[str, Rows]]:
        """Token ids of each text, and by name further inputs, as many numbers for each text.

        Args:
            texts: of one task, or rows of a corpus.
            tokenizer: it truncates, and does not pad.

        Raises:
            TextError: a text cannot be used.
        """


class TextError(Exception):
    """A text cannot be used.

    Args:
        number: of the text, from 0.
        found: what is wrong with it.
        remedy: what would do.
    """

    def __init__(self, number: int, found: str, remedy: str) -> None:
        super().__init__(found)
        self.number, self.found, self.remedy = number, found, remedy


class Plain:
    """Texts as they are. Long ones are cut at their end."""

    name = ""

    def plain(self, text: str) -> str:
        """The text."""
        return text

    def __call__(self, texts: Sequence[str], tokenizer: Tokenizer) -> tuple[Rows, Mapping[str, Rows]]:
        """See `Reading`."""
        return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))], {}


PLAIN = Plain()


def tokens_of(
    texts: Sequence[str], tokenizer: Tokenizer, max_length: int, first: int = 1, reading: Reading = PLAIN
) -> Inputs:
    """Tokens of the texts of one task, in the form of `Corpus.tokens`.

    Returns:
        `input_ids` and `attention_mask`, both (1, texts, L) int64; and what `reading` adds, (1, texts, n) int64.

    Raises:
        DataError: a text cannot be used; the message gives the number of the text, counted from `first`.
    """
    tokenizer, pad_id = _prepared_once(tokenizer, max_length)
    try:
        tokens, more = reading(texts, tokenizer)
    except TextError as error:
        raise DataError(f"example {first + error.number}", error.found, error.remedy) from error
    for number, (text, ids) in enumerate(zip(texts, tokens, strict=True), first):
        if not ids:
            raise DataError(f"example {number}", f"no token in {text!r}", "leave it out")
    longest = max(map(len, tokens), default=0)
    padded = torch.tensor([[row + [pad_id] * (longest - len(row)) for row in tokens]])
    mask = torch.tensor([[[1] * len(row) + [0] * (longest - len(row)) for row in tokens]])
    further = {name: torch.tensor([rows]) for name, rows in more.items()}
    return {"input_ids": padded, "attention_mask": mask, **further}


def count_cut(texts: Sequence[str], tokenizer: Tokenizer, max_length: int, reading: Reading = PLAIN) -> int:
    """How many texts have more than `max_length` tokens, so that `tokens_of` cuts them."""
    tokenizer, _ = _prepared_once(tokenizer, max_length)
    seen = list(map(reading.plain, texts))
    parts = (tokenizer.encode_batch_fast(seen[start : start + CHUNK]) for start in range(0, len(seen), CHUNK))
    return sum(bool(encoding.overflowing) for encoding in chain.from_iterable(parts))


def prepared(tokenizer: Tokenizer, max_length: int) -> tuple[Tokenizer, int]:
    """A copy that truncates and does not pad, and the padding id."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_padding()
    copy.enable_truncation(max_length)
    known = (tokenizer.token_to_id(token) for token in ("[PAD]", "<pad>", "<|pad|>"))
    # If the tokenizer has no padding id, any id works: the mask hides it.
    pad_id = tokenizer.padding["pad_id"] if tokenizer.padding else next((i for i in known if i is not None), 0)
    return copy, pad_id


_prepared_once = lru_cache(maxsize=8)(prepared)  # a copy takes far longer than a text


def tokenise(source: Source, classes: Sequence[str], tokenizer: Tokenizer, reading: Reading = PLAIN) -> pa.Table:
    """The rows of some classes: `input_ids`, `label`, into `classes`, and `source_row`; and what `reading` adds.

    Raises:
        DataError: a text cannot be used; the error names its row.
    """
    rows, labels = source.rows_of(classes)
    values, lengths = [np.empty(0, np.int32)], [np.zeros(1, np.int64)]
    further: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        try:
            tokens, more = reading(source.texts.take(pa.array(chunk)).to_pylist(), tokenizer)
        except TextError as error:
            raise DataError(source.names[int(chunk[error.number])], error.found, error.remedy) from error
        lengths.append(np.array([len(ids) for ids in tokens], np.int64))
        if not lengths[-1].all():
            row = int(chunk[lengths[-1].argmin()])
            found = f"no token in {source.texts[row].as_py()!r}"
            raise DataError(source.names[row], found, "remove the row or use another tokenizer")
        values.append(np.fromiter(chain.from_iterable(tokens), np.int32))
        for name, its in more.items():
            further.setdefault(name, []).append(np.array(its, np.int32))
    offsets = pa.array(np.concatenate(lengths).cumsum(), pa.int32())
    ids = pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(values)))
    columns = {name: _lists(np.concatenate(parts)) for name, parts in further.items()}
    return pa.table({"input_ids": ids, "label": pa.array(labels), "source_row": pa.array(rows), **columns})


def _lists(values: np.ndarray) -> pa.Array:
    """(R, n) as a column of lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
