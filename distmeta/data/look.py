"""What stands out in labelled texts: copies, contradictions, labels that look alike, classes that are left out."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from distmeta.data.corpus import Corpus
from distmeta.data.sources import Source

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
    copies: int
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
                f"{self.copies:,} rows are copies of others with the same label: an episode may test on what it learns"
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
    counts = Counter(source.labels)
    by_size = sorted(counts.items(), key=lambda item: item[1])
    tasks = source.tasks or [""] * len(source.texts)
    pairs = Counter(zip(tasks, source.texts, source.labels, strict=True))
    labels_of: dict[tuple[str, str], list[str]] = {}
    for task, text, label in pairs:
        labels_of.setdefault((task, text), []).append(label)
    several = [(text, labels[0], labels[1]) for (_, text), labels in labels_of.items() if len(labels) > 1]
    spellings: dict[str, list[str]] = {}
    for label in counts:
        spellings.setdefault(_plain(label), []).append(label)
    alike = [pair for names in spellings.values() for pair in combinations(names, 2)]
    split_of = {name: split for split, names in splits.items() for name in names}
    used = [pair for pair in alike if pair[0] in split_of and pair[1] in split_of]
    apart = [pair for pair in used if split_of[pair[0]] != split_of[pair[1]]]
    twins = next(iter([*apart, *used, *alike]), None)
    return Look(
        rows=len(source.texts),
        classes=len(counts),
        smallest=by_size[0],
        largest=by_size[-1],
        copies=len(source.texts) - len(pairs),
        contradictions=len(several),
        contradiction=several[0] if several else None,
        alike=len(alike),
        twins=twins,
        twins_splits=(split_of[twins[0]], split_of[twins[1]]) if twins and twins in used else None,
        unlabelled=source.unlabelled,
        left_out=sum(count < min_examples for count in counts.values()),
        min_examples=min_examples,
        reading=source.remarks,
    )


def _plain(label: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold()).split())


def short(text: str) -> str:
    """A text in quotes, cut if it is long."""
    return repr(text if len(text) <= SHOWN else text[: SHOWN - 1] + "…")
