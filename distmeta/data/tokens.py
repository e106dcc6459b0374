"""Texts become token ids: the rows of a source, and the texts of one task."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer

from distmeta.data.labelled import Source
from distmeta.errors import DataError
from distmeta.types import Inputs

CHUNK = 4096  # texts tokenised at once: an Encoding takes far more memory than its ids


def tokens_of(texts: Sequence[str], tokenizer: Tokenizer, max_length: int, first: int = 1) -> Inputs:
    """Tokens of the texts of one task, in the form of `Corpus.tokens`.

    Returns:
        `input_ids` and `attention_mask`, both (1, texts, L) int64.

    Raises:
        DataError: a text has no token; the message gives the number of the text, counted from `first`.
    """
    tokenizer, pad_id = _prepared_once(tokenizer, max_length)
    tokens = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]
    for number, (text, ids) in enumerate(zip(texts, tokens, strict=True), first):
        if not ids:
            raise DataError(f"example {number}", f"no token in {text!r}", "leave it out")
    longest = max(map(len, tokens), default=0)
    padded = torch.tensor([[row + [pad_id] * (longest - len(row)) for row in tokens]])
    mask = torch.tensor([[[1] * len(row) + [0] * (longest - len(row)) for row in tokens]])
    return {"input_ids": padded, "attention_mask": mask}


def count_cut(texts: Sequence[str], tokenizer: Tokenizer, max_length: int) -> int:
    """How many texts have more than `max_length` tokens, so that `tokens_of` cuts them."""
    tokenizer, _ = _prepared_once(tokenizer, max_length)
    parts = (tokenizer.encode_batch_fast(list(texts[start : start + CHUNK])) for start in range(0, len(texts), CHUNK))
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


def tokenise(source: Source, classes: Sequence[str], tokenizer: Tokenizer) -> pa.Table:
    """The rows of some classes: `input_ids`, `label`, into `classes`, and `source_row`.

    Raises:
        DataError: a text has no token; the error names its row.
    """
    rows, labels = source.rows_of(classes)
    values, lengths = [np.empty(0, np.int32)], [np.zeros(1, np.int64)]
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        tokens = [encoding.ids for encoding in tokenizer.encode_batch(source.texts.take(pa.array(chunk)).to_pylist())]
        lengths.append(np.array([len(ids) for ids in tokens], np.int64))
        if not lengths[-1].all():
            row = int(chunk[lengths[-1].argmin()])
            found = f"no token in {source.texts[row].as_py()!r}"
            raise DataError(source.names[row], found, "remove the row or use another tokenizer")
        values.append(np.fromiter(chain.from_iterable(tokens), np.int32))
    offsets = pa.array(np.concatenate(lengths).cumsum(), pa.int32())
    ids = pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(values)))
    return pa.table({"input_ids": ids, "label": pa.array(labels), "source_row": pa.array(rows)})
