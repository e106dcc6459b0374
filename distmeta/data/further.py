"""Texts beside those of the classes: descriptions of classes, and texts that belong to none of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from distmeta.config import DataConfig
from distmeta.config.tasks import NAMES
from distmeta.data.corpus import Corpus, build_corpus
from distmeta.data.labelled import Source
from distmeta.data.sources import read_source
from distmeta.data.splits import Splits
from distmeta.data.tokens import Reading
from distmeta.data.values import Places, codes_of, names_column, strings
from distmeta.errors import DataError, suggest

# Before the labels of descriptions, and of texts of no class, among a corpus's classes; no label begins so.
MARK, NONE = "\0", "\1"


def read_descriptions(data: DataConfig, classes: Sequence[str]) -> dict[str, str]:
    """The description of each class, from the file that `data.descriptions` names; empty if it names none.

    Args:
        data: the section; the columns of the file are those of the data.
        classes: that must have one.

    Raises:
        DataError: the file cannot be used, a class has none or several.
    """
    if data.descriptions is None:
        return {}
    if data.descriptions == NAMES:
        return {name: name for name in classes}
    found = one_each(read_source(data.model_copy(update={"path": data.descriptions, "subset": None, "group": None})))
    for name in classes:
        if name not in found:
            remedy = suggest(name, list(found)) if found else "give one of each class"
            raise DataError(f"data.descriptions {data.descriptions}", f"none of the class {name!r}", remedy)
    return {name: found[name] for name in classes}


def one_each(source: Source) -> dict[str, str]:
    """The text of each class of a source.

    Raises:
        DataError: a class has several.
    """
    found: dict[str, str] = {}
    for row, label in enumerate(label for part in strings(source.labels) for label in part):
        if label in found:
            raise DataError(source.names[row], f"a second description of {label!r}", "give one of each class")
        found[label] = source.texts[row].as_py()
    return found


def without_none(source: Source, label: str | None) -> tuple[Source, list[str]]:
    """A source without the rows of a label that stands for no class, and those rows' different texts.

    Raises:
        DataError: no row has the label, or no other class is left.
    """
    if label is None:
        return source, []
    if label not in source.counts or len(source.counts) == 1:
        found = f"{label!r} is the label of {'all rows' if label in source.counts else 'no row'}"
        raise DataError("data.none", found, suggest(label, source.classes))
    rows, _ = source.rows_of([label])
    _, first = np.unique(source.text_numbers[rows], return_index=True)
    rows = rows[np.sort(first)]
    kept = source.take(np.flatnonzero(codes_of(source.labels) != source.classes.index(label)))
    remark = f"{len(rows):,} texts with the label {label!r} belong to no class"
    return replace(kept, remarks=(*kept.remarks, remark)), source.texts.take(pa.array(rows)).to_pylist()


def corpus_of(
    source: Source,
    splits: Splits,
    tokenizer: Tokenizer,
    data: DataConfig,
    descriptions: Mapping[str, str],
    none: Sequence[str],
    reading: Reading,
) -> Corpus:
    """The tokens of a source, with a row for each description, labelled with its class behind `MARK`, and of each text
    of no class, labelled with its split behind `NONE`.

    Its `splits` and `source_fingerprint` are those of the source alone, so that manifests go by them.
    """
    settings = (tokenizer, data.max_length, data.cache_folder, data.copies, reading)
    if not descriptions and not none:
        return build_corpus(source, splits, *settings)
    places = [NONE + split_of(text) for text in none]
    labels = [*(MARK + name for name in descriptions), *places]
    more = _behind(source, [*descriptions.values(), *none], labels)
    corpus = build_corpus(more, {**splits, "further": sorted(set(labels))}, *settings)
    kept = {split: corpus.splits[split] for split in splits}
    return replace(corpus, splits=kept, source_fingerprint=source.fingerprint)


def is_class(name: str) -> bool:
    """Whether a name among a corpus's classes is a class of the data."""
    return not name.startswith((MARK, NONE))


def split_of(text: str) -> str:
    """The split of a text of no class, which depends on nothing but the text."""
    return ("meta_validation", "meta_test")[hashlib.sha256(text.encode()).digest()[0] % 2]


def _behind(source: Source, texts: Sequence[str], labels: Sequence[str]) -> Source:
    """A source with further rows behind its own."""
    names, rows = source.names, np.arange(len(texts))
    file = np.concatenate([names.file, np.full(len(rows), len(names.files), np.int32)])
    number = np.concatenate([np.asarray(names.number, object), rows + 1])
    numbers = np.arange(len(source.texts)) if source.numbers is None else source.numbers
    return replace(
        source,
        texts=pa.concat_arrays([source.texts, pa.array(texts, source.texts.type)]),
        labels=names_column([*(label for part in strings(source.labels) for label in part), *labels]),
        groups=None,
        tasks=None,
        names=Places((*names.files, "further text"), file, number),
        numbers=np.concatenate([numbers, numbers.max(initial=-1) + 1 + rows]).astype(np.int64),
    )
