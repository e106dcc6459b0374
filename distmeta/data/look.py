"""What stands out in labelled texts: copies, contradictions, labels that look alike, classes that are left out."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from distmeta.data.corpus import Corpus
from distmeta.data.labelled import Source
from distmeta.data.values import codes_of

SHOWN = 60  # characters of a text in a remark
MANY = 0.25  # a share of texts or words that is remarked on


@dataclass(frozen=True)
class Look:
    """Counts of a source. `contradiction` and `twins` are examples, or None.

    A copy is a row with the text and label of an earlier row. A contradiction is a text with several labels (of one
    task, if there are tasks). Labels look alike if they differ only by case, blanks or forms of the same characters.
    """

    rows: int
    classes: int
    smallest: tuple[str, int]  # a class and its examples
    largest: tuple[str, int]
    copies: int  # that were left out
    copies_kept: int  # that are among the rows
    contradictions: int
    contradiction: tuple[str, str, str] | None  # a text and two of its labels
    alike: int  # pairs of labels
    twins: tuple[str, str] | None  # one such pair; of two splits if there is one
    twins_splits: tuple[str, str] | None  # the splits of that pair, if both are used
    unlabelled: int
    left_out: int  # classes with too few examples
    min_examples: int
    reading: tuple[str, ...]  # what was assumed in reading
    longest: float = 0.0  # share of the texts with data.max_length tokens; longer ones were cut to that
    unknown: dict[str, float] = field(default_factory=dict)  # share of unknown words by split, of a vocabulary of words

    def remarks(self) -> list[str]:
        """Sentences about what may be wrong; the first one sums up the data."""
        (low, fewest), (high, most) = self.smallest, self.largest
        said = [
            f"{self.rows:,} rows in {self.classes:,} classes of {fewest:,} ({short(low)}) to {most:,} ({short(high)})"
        ]
        said += self.reading
        if self.left_out:
            said.append(f"{self.left_out} classes with fewer than data.min_examples={self.min_examples} are left out")
        if self.copies:
            said.append(
                f"{self.copies:,} more rows are copies of these with the same label and are left out "
                "(data.copies=true keeps them)"
            )
        if self.copies_kept:
            said.append(
                f"{self.copies_kept:,} rows are copies of others with the same label, and stay: "
                "an episode may test on what it learns"
            )
        if self.contradiction:
            text, first, second = map(short, self.contradiction)
            said.append(f"{self.contradictions:,} texts have several labels, such as {text}: {first} and {second}")
        if self.twins:
            first, second = map(short, self.twins)
            where = ""
            if self.twins_splits:
                where = ", in " + " and ".join(dict.fromkeys(self.twins_splits))
            said.append(f"{self.alike:,} pairs of labels look alike, such as {first} and {second}{where}")
        if self.longest > MANY:
            said.append(f"{self.longest:.0%} of the texts have data.max_length tokens or were cut to that")
        if self.unknown and (worst := max(self.unknown.values())) > MANY:
            split = next(name for name, share in self.unknown.items() if share == worst)
            said.append(
                f"{worst:.0%} of the words of {split} are unknown: model.vocabulary=wordpieces knows their parts"
            )
        return said

    def with_tokens(self, corpus: Corpus, tokenizer: Tokenizer) -> Look:
        """Adds the figures of the tokens."""
        unknown = getattr(tokenizer.model, "unk_token", None) if isinstance(tokenizer.model, WordLevel) else None
        token = tokenizer.token_to_id(unknown) if unknown else None
        shares = {split: corpus.share(split, token) for split in corpus.splits} if token is not None else {}
        return replace(self, longest=float((corpus.lengths >= corpus.max_length).mean()), unknown=shares)

    def as_json(self) -> dict[str, Any]:
        """All counts, as plain JSON."""
        return asdict(self)


def look(source: Source, splits: Mapping[str, Sequence[str]], min_examples: int) -> Look:
    """Counts what stands out.

    Args:
        source: the labelled texts.
        splits: the class names of each split.
        min_examples: classes with fewer examples are left out.
    """
    by_size = sorted(source.counts.items(), key=lambda item: item[1])
    kept, several, contradiction = _contradictions(source)
    alike, twins, twins_splits = _twins(source.classes, splits)
    return Look(
        rows=len(source.texts),
        classes=len(source.classes),
        smallest=by_size[0],
        largest=by_size[-1],
        copies=sum(source.copies.values()),
        copies_kept=kept,
        contradictions=several,
        contradiction=contradiction,
        alike=alike,
        twins=twins,
        twins_splits=twins_splits,
        unlabelled=source.unlabelled,
        left_out=sum(count < min_examples for count in source.counts.values()),
        min_examples=min_examples,
        reading=source.remarks,
    )


def _contradictions(source: Source) -> tuple[int, int, tuple[str, str, str] | None]:
    """The number of copies, that of texts with several labels of one task, and the first of these with two labels."""
    texts, labels = source.text_numbers.astype(np.int64), codes_of(source.labels)
    _, first = np.unique(texts * len(source.classes) + labels, return_index=True)
    copies, rows = len(texts) - len(first), np.sort(first)
    tasks = np.zeros(1, np.int64) if source.tasks is None else codes_of(source.tasks)[rows].astype(np.int64)
    keys = tasks * len(texts) + texts[rows]
    _, first, inverse, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    several = np.flatnonzero(counts > 1)
    if not len(several):
        return copies, 0, None
    one = several[first[several].argmin()]
    example, other = rows[np.flatnonzero(inverse == one)[:2]].tolist()
    names = [source.classes[labels[row]] for row in (example, other)]
    return copies, len(several), (source.texts[example].as_py(), names[0], names[1])


def _twins(
    classes: Sequence[str], splits: Mapping[str, Sequence[str]]
) -> tuple[int, tuple[str, str] | None, tuple[str, str] | None]:
    """The number of pairs of labels that look alike, one pair, and its splits if both are used.

    A pair of two splits comes first, then one that is used.
    """
    split_of = {name: split for split, names in splits.items() for name in names}
    spellings: dict[str, list[str]] = {}
    for label in classes:
        spellings.setdefault(_plain(label), []).append(label)
    found: dict[str, tuple[str, str]] = {}
    for names in spellings.values():
        used = [name for name in names if name in split_of]
        apart = [used[0], *(name for name in used if split_of[name] != split_of[used[0]])] if used else []
        for kind, several in (("apart", apart), ("used", used), ("all", names)):
            if len(several) > 1:
                found.setdefault(kind, (several[0], several[1]))
    twins = found.get("apart") or found.get("used") or found.get("all")
    number = sum(len(names) * (len(names) - 1) // 2 for names in spellings.values())
    in_splits = (split_of[twins[0]], split_of[twins[1]]) if twins and {*twins} <= split_of.keys() else None
    return number, twins, in_splits


def _plain(label: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold()).split())


def short(text: str) -> str:
    """A text in quotes, cut if it is long."""
    return repr(text if len(text) <= SHOWN else text[: SHOWN - 1] + "…")
