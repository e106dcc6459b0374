"""Which texts are most worth a label: uncertain ones, and different ones.

Fedor Zhdanov. Diverse mini-batch Active Learning. 2019. https://arxiv.org/abs/1901.05954: the texts next to the centres
of k-means, in which a text counts by how close its two likeliest classes are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distmeta.errors import DataError
from distmeta.use.examples import chunks
from distmeta.use.task import Task

ROUNDS = 20  # of k-means
LEAST = 1e-6  # weight of a text that is certain


def suggest(
    task: Task, inputs: Sequence[Any], count: int, progress: Callable[[int], None] = lambda done: None
) -> list[int]:
    """The positions of the inputs that are most worth a label, at most `count`, in the order of their weight.

    Inputs that the task was learned from, and copies of others, are not suggested.

    Args:
        task: a task with classes.
        inputs: without labels.
        count: how many to suggest.
        progress: gets how many inputs were looked at.

    Raises:
        DataError: no input is left to suggest, or one cannot be used.
    """
    if not inputs:
        raise DataError("TEXTS", "there are none", "give some that have no label")
    known = {str(example[key]) for example in task.examples for key in task.codec.given if task.codec.answer in example}
    first = {str(value): number for number, value in reversed(list(enumerate(inputs)))}
    places = sorted(number for value, number in first.items() if value not in known)
    if not places:
        raise DataError("TEXTS", "all of them have a label already", "give others")
    features, gaps = [], []
    for part in chunks(places):
        part_features, part_gaps = task.look([inputs[place] for place in part])
        features.append(part_features)
        gaps.append(part_gaps)
        progress(sum(map(len, gaps)))
    weights = 1 - np.concatenate(gaps) + LEAST
    chosen = central(np.concatenate(features), weights, min(count, len(places)))
    return [places[number] for number in sorted(chosen, key=lambda number: -weights[number])]


def central(features: np.ndarray, weights: np.ndarray, count: int) -> list[int]:
    """The elements next to the centres of weighted k-means, a different one for each of `count` centres.

    Args:
        features: (n, D), n of `count` or more.
        weights: (n,), above 0.
        count: the number of centres.
    """
    generator = np.random.Generator(np.random.PCG64(0))
    centres = features[generator.choice(len(features), count, replace=False, p=weights / weights.sum())]
    for _ in range(ROUNDS):
        nearest = _distances(features, centres).argmin(1)
        total = np.bincount(nearest, weights, count)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, features * weights[:, None])
        filled = total > 0
        centres[filled] = sums[filled] / total[filled, None]
    distances, chosen = _distances(features, centres), list[int]()
    for number in range(count):
        distances[chosen, number] = np.inf
        chosen.append(int(distances[:, number].argmin()))
    return chosen


def _distances(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances, (n, count)."""
    found: np.ndarray = np.square(features).sum(1)[:, None] - 2 * features @ centres.T + np.square(centres).sum(1)
    return found
