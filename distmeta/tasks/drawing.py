"""Draws the classes and rows of classification episodes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from distmeta.data.corpus import Corpus
from distmeta.data.further import MARK, NONE
from distmeta.data.splits import SPLITS, Tasks
from distmeta.tasks.shapes import DESCRIBED
from distmeta.types import Stream


class Draw(NamedTuple):
    """One episode: class names in label order, and corpus rows of support (N, shots) and query (N, queries).

    `memory` holds rows (K, N, examples) of K earlier tasks for the warm start, and the tasks' weights (K,). `outside`
    holds rows (n,) of other classes, and `unlabelled` further rows (N, n) of the classes, for the support set.
    `described` holds the row of each class's description, (N,).
    """

    names: tuple[str, ...]
    support: np.ndarray
    query: np.ndarray
    memory: tuple[np.ndarray, np.ndarray] | None = None
    outside: np.ndarray | None = None
    unlabelled: np.ndarray | None = None
    described: np.ndarray | None = None


class Drawing(Protocol):
    """A way of drawing episodes."""

    def has_others(self, stream: Stream) -> bool:
        """Whether there are texts that belong to none of the classes of an episode."""

    def draw(self, stream: Stream, index: int) -> Draw:
        """The episode of that index."""


@dataclass(frozen=True)
class Classes:
    """Ordinary drawing: any classes of the split, or all classes of one task of the split.

    `tasks` holds the classes of each task of each split. With `tasks`, an episode has all classes of one task, in that
    order. With `drawn`, meta-training uses only these classes.
    """

    corpus: Corpus
    tasks: Mapping[str, Tasks] | None = None
    drawn: tuple[str, ...] | None = None

    def drawable(self, split: str) -> tuple[str, ...]:
        """The classes that a split's episodes use."""
        return self.drawn if self.drawn and split == "meta_train" else self.corpus.splits[split]

    def has_others(self, stream: Stream) -> bool:
        """Whether the split has more classes than an episode. What one task has no class for, another may."""
        return self.tasks is None and len(self.drawable(stream.split)) > stream["ways"]

    def draw(self, stream: Stream, index: int) -> Draw:
        """The episode of that index.

        Classes are in random order, so a label's position has no meaning. Without `label_shuffle`, the sorted classes
        are cut into N equal parts, and label n is always a class of part n. With probability `label_mixing`, each label
        stands for two classes, with half of the examples from each. Classes and rows are drawn without replacement, so
        support and query share no row. A text stands in an episode once (see `draw_rows`). With `tasks`, classes keep
        their labels. With `outside`, that many texts of other classes come on top, with `none` that many of no class,
        with `unlabelled` that many more of each class, and with `described` each class's description; the rest of the
        episode is the same.
        """
        shape = [stream["ways"], stream["shots"], stream["queries"]]
        entropy = [stream.seed, SPLITS.index(stream.split), index, *shape]
        # PCG64 by name, because numpy may change the algorithm of default_rng.
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
        mixing = stream.get("label_mixing", 0.0)
        mixed = bool(mixing) and generator.random() < mixing
        if self.tasks is None:
            labels = _draw_labels(self.drawable(stream.split), stream, 2 if mixed else 1, generator)
        else:
            tasks = self.tasks[stream.split]
            labels = [(name,) for name in tasks[generator.integers(len(tasks))]]
        pools = [self.corpus.rows_of(name) for names in labels for name in names]
        parts = _parts(len(labels[0]), stream) * len(labels)
        drawn = draw_rows(self.corpus, pools, [shots + queries for shots, queries in parts], generator)
        support = np.concatenate([rows[:shots] for rows, (shots, _) in zip(drawn, parts, strict=True)])
        query = np.concatenate([rows[shots:] for rows, (shots, _) in zip(drawn, parts, strict=True)])
        ways, outside, unlabelled = len(labels), None, None
        if count := stream.get("unlabelled", 0):
            of_label = [np.concatenate([self.corpus.rows_of(name) for name in names]) for names in labels]
            seed = np.random.SeedSequence([*entropy, 0, count])
            unlabelled = self._more(of_label, np.concatenate(drawn), seed, count)
        if count := stream.get("outside", 0):
            inside = {name for names in labels for name in names}
            outside = self._outside(stream.split, inside, pools, np.random.SeedSequence([*entropy, count]), count)
        if count := stream.get("none", 0):
            seed = np.random.SeedSequence([*entropy, 1, count])
            own = self._more([self.corpus.rows_of(NONE + stream.split)], np.concatenate(pools), seed, count)[0]
            outside = own if outside is None else np.concatenate([outside, own])
        described = None
        if stream.get(DESCRIBED):
            described = np.concatenate([self.corpus.rows_of(MARK + name) for (name,) in labels])
        names = tuple(" + ".join(names) for names in labels)
        support, query = support.reshape(ways, -1), query.reshape(ways, -1)
        return Draw(names, support, query, None, outside, unlabelled, described)

    def _more(
        self, pools: Sequence[np.ndarray], drawn: np.ndarray, seed: np.random.SeedSequence, count: int
    ) -> np.ndarray:
        """Rows (N, count) of the pools that were not drawn, with other texts as far as there are enough."""
        generator = np.random.Generator(np.random.PCG64(seed))
        texts = self.corpus.texts_of(drawn)
        pools = [self._apart(np.setdiff1d(pool, drawn), texts, count) for pool in pools]
        return np.stack([generator.choice(pool, count, replace=False) for pool in pools])

    def _apart(self, rows: np.ndarray, texts: np.ndarray, count: int) -> np.ndarray:
        """The rows whose text is none of `texts`, numbers of texts; all rows if those are fewer than `count`."""
        if not self.corpus.repeated.size:
            return rows
        its = self.corpus.texts_of(rows)
        free = rows[(its < 0) | ~np.isin(its, texts)]
        return free if len(free) >= count else rows

    def _outside(
        self,
        split: str,
        inside: Collection[str],
        pools: Sequence[np.ndarray],
        seed: np.random.SeedSequence,
        count: int,
    ) -> np.ndarray:
        """Rows (count,) of classes that are not in `inside`, from as many classes as there are, up to one a row.

        Texts that also belong to the classes inside, whose rows are `pools`, are not drawn.
        """
        generator = np.random.Generator(np.random.PCG64(seed))
        others = [name for name in self.drawable(split) if name not in inside]
        names = generator.choice(others, count, replace=len(others) < count)
        texts = np.concatenate([self.corpus.texts_of(pool) for pool in pools])
        rows = []
        for name, times in zip(*np.unique(names, return_counts=True), strict=True):
            pool = self._apart(self.corpus.rows_of(str(name)), texts, times)
            rows.append(generator.choice(pool, times, replace=False))
        return np.concatenate(rows)


def draw_rows(
    corpus: Corpus, pools: Sequence[np.ndarray], counts: Sequence[int], generator: np.random.Generator
) -> list[np.ndarray]:
    """Rows of one episode: a number from each pool, without replacement.

    A text stands in the episode once, unless `corpus` allows repeats. If a text was drawn from several pools, one of
    its rows stays, chosen at random. The others are replaced by rows of their pools with texts that were not drawn. A
    row whose pool has no other such row stays too.
    """
    drawn = [generator.choice(pool, count, replace=False) for pool, count in zip(pools, counts, strict=True)]
    if not corpus.repeated.size:
        return drawn
    texts = [corpus.texts_of(rows) for rows in drawn]
    found, times = np.unique(np.concatenate(texts), return_counts=True)
    for text in found[(found >= 0) & (times > 1)]:
        places = [(pool, place) for pool, its in enumerate(texts) for place in np.flatnonzero(its == text)]
        surplus = len(places) - 1
        for number in generator.permutation(len(places)):
            pool, place = places[number]
            others = np.setdiff1d(pools[pool], drawn[pool])
            known = corpus.texts_of(others)
            others = others[(known < 0) | ~np.isin(known, np.concatenate(texts))]
            if surplus and len(others):
                drawn[pool][place] = generator.choice(others)
                texts[pool][place] = corpus.texts_of(drawn[pool][[place]])[0]
                surplus -= 1
    return drawn


def _parts(classes: int, stream: Stream) -> list[tuple[int, int]]:
    """How many support and query rows of a label each of its classes gives, in equal parts.

    If a number is odd, the first class gives one more support row and the last one more query row.
    """
    shots, queries = stream["shots"], stream["queries"]
    return [((shots + classes - 1 - n) // classes, (queries + n) // classes) for n in range(classes)]


def _draw_labels(
    classes: Sequence[str], stream: Stream, each: int, generator: np.random.Generator
) -> list[tuple[str, ...]]:
    """N labels with `each` classes per label."""
    ways = stream["ways"]
    if stream.get("label_shuffle", True):
        drawn = [classes[i] for i in generator.choice(len(classes), ways * each, replace=False)]
        return [tuple(drawn[n * each : (n + 1) * each]) for n in range(ways)]
    ordered = sorted(classes)
    parts = np.array_split(np.arange(len(ordered)), ways)
    return [tuple(ordered[i] for i in generator.choice(part, each, replace=False)) for part in parts]
