"""Draws the classes and rows of classification episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from distmeta.data.corpus import Corpus
from distmeta.data.splits import SPLITS, Tasks
from distmeta.types import Stream


class Draw(NamedTuple):
    """One episode: class names in label order, and corpus rows of support (N, shots) and query (N, queries).

    `memory` holds rows (K, N, examples) of K earlier tasks for the warm start, and the tasks' weights (K,).
    """

    names: tuple[str, ...]
    support: np.ndarray
    query: np.ndarray
    memory: tuple[np.ndarray, np.ndarray] | None = None


class Drawing(Protocol):
    """A way of drawing episodes."""

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

    def draw(self, stream: Stream, index: int) -> Draw:
        """The episode of that index.

        Classes are in random order, so a label's position has no meaning. Without `label_shuffle`, the sorted classes
        are cut into N equal parts, and label n is always a class of part n. With probability `label_mixing`, each label
        stands for two classes, with half of the examples from each. Classes and rows are drawn without replacement, so
        support and query share no row. With `tasks`, classes keep their labels.
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
        support, query = zip(*(self._draw_rows(names, stream, generator) for names in labels), strict=True)
        return Draw(tuple(" + ".join(names) for names in labels), np.stack(support), np.stack(query))

    def _draw_rows(
        self, names: Sequence[str], stream: Stream, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows (shots,) and (queries,) of a label, in equal parts from each of the label's classes."""
        support, query = [], []
        for number, name in enumerate(names):
            # If a number is odd, the first class gives one more support row and the last one more query row.
            shots = (stream["shots"] + len(names) - 1 - number) // len(names)
            queries = (stream["queries"] + number) // len(names)
            rows = generator.choice(self.corpus.rows_of(name), shots + queries, replace=False)
            support.append(rows[:shots])
            query.append(rows[shots:])
        return np.concatenate(support), np.concatenate(query)


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
