"""What single answers say: classes that are hard, classes that are confused, certainty, and texts of no class.

Episodes are those of answers.json: `classes`, and of each query its target (a place in `classes`, or −1 for none), its
answer, its certainty and its `raw` certainty without temperature.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from distmeta.report.certainty import auroc

NO_CLASS = -1
BINS = 10  # of the reliability diagram
CURVE_POINTS = 40
FEW = 10  # queries

Episodes = Sequence[Mapping[str, Any]]


class OfClass(NamedTuple):
    """How a class fared over all episodes: queries, the share answered right, and the most frequent wrong answer."""

    name: str
    queries: int
    right: float
    taken_for: str | None
    times: int


class Pair(NamedTuple):
    """Two classes that met in episodes, and the share of their queries that was taken for the other of the two."""

    first: str
    second: str
    episodes: int
    queries: int
    confused: float


def by_class(episodes: Episodes) -> list[OfClass]:
    """All classes that were asked for, hardest first."""
    asked, right, wrong = Counter[str](), Counter[str](), dict[str, Counter[str]]()
    for target, answer in _named(episodes):
        asked[target] += 1
        right[target] += target == answer
        if target != answer:
            wrong.setdefault(target, Counter())[answer] += 1
    rows = []
    for name, queries in asked.items():
        (most, times) = wrong[name].most_common(1)[0] if name in wrong else (None, 0)
        rows.append(OfClass(name, queries, right[name] / queries, most, times))
    return sorted(rows, key=lambda row: (row.right, -row.queries, row.name))


def alike(episodes: Episodes) -> list[Pair]:
    """Classes that met at least once and were confused, most alike first.

    The similarity of two classes is the share of the queries of both, in the episodes that have both, that was
    answered with the other one. Few queries count for less in the order.
    """
    met, asked, taken = Counter[tuple[str, str]](), Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for episode in episodes:
        names = episode["classes"]
        of_class = Counter(target for target in episode["targets"] if target != NO_CLASS)
        for one in range(len(names)):
            for other in range(one + 1, len(names)):
                pair = _pair(names[one], names[other])
                met[pair] += 1
                asked[pair] += of_class[one] + of_class[other]
        for target, answer in _named([episode]):
            if target != answer:
                taken[_pair(target, answer)] += 1
    pairs = [Pair(*pair, met[pair], asked[pair], times / asked[pair]) for pair, times in taken.items()]
    return sorted(pairs, key=lambda its: (-its.confused * its.queries / (its.queries + FEW), its[:2]))


def reliability(episodes: Episodes, which: str) -> list[tuple[float, float, int]]:
    """Mean certainty, share of right answers and number of answers, in equal bins of `certainties` or `raw`."""
    sure, right = _inside(episodes, which)
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    return [
        (float(sure[bins == n].mean()), float(right[bins == n].mean()), int((bins == n).sum()))
        for n in range(BINS)
        if (bins == n).any()
    ]


class Outside(NamedTuple):
    """By threshold of certainty, from high to low: shares of texts of the classes, and of none, that are answered."""

    thresholds: list[float]
    answered: list[float]
    accepted: list[float]
    auroc: float


def outside(episodes: Episodes) -> Outside | None:
    """How well certainty tells texts of none of the classes from others; None if there are no such texts."""
    sure = np.concatenate([np.array(episode["certainties"], float) for episode in episodes] or [np.zeros(0)])
    targets = np.concatenate([np.array(episode["targets"], int) for episode in episodes] or [np.zeros(0, int)])
    inner, outer = sure[targets != NO_CLASS], sure[targets == NO_CLASS]
    if not len(inner) or not len(outer):
        return None
    thresholds = np.unique(np.quantile(sure, np.linspace(0, 1, CURVE_POINTS)))[::-1]
    return Outside(
        thresholds.tolist(),
        [float((inner >= value).mean()) for value in thresholds],
        [float((outer >= value).mean()) for value in thresholds],
        auroc(inner, outer),
    )


def _inside(episodes: Episodes, which: str) -> tuple[np.ndarray, np.ndarray]:
    """Certainties of the answers to what belongs to a class, and whether they are right, (n,) each."""
    rows = [
        (sure, target == answer)
        for episode in episodes
        for sure, target, answer in zip(episode[which], episode["targets"], episode["answers"], strict=True)
        if target != NO_CLASS
    ]
    values = np.array(rows, float).reshape(-1, 2)
    return values[:, 0], values[:, 1] > 0


def _named(episodes: Episodes) -> list[tuple[str, str]]:
    """Target and answer of what belongs to a class, by name."""
    return [
        (episode["classes"][target], episode["classes"][answer])
        for episode in episodes
        for target, answer in zip(episode["targets"], episode["answers"], strict=True)
        if target != NO_CLASS
    ]


def _pair(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one <= other else (other, one)
