"""How far to trust probabilities: calibration, abstention, and recognising what belongs to no class.

Answers are given as logits (n, N); an answer's certainty is its largest probability. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

BINS = 15  # of the calibration error, as in Guo et al. 2017
WRONG = (0.01, 0.02, 0.05, 0.1, 0.2)  # the shares of wrong answers for which a threshold is kept
HOTTEST = 6.0  # the largest |log temperature|
SIZES = {"queries"}  # of a shape, which say nothing of how hard its tasks are
ALWAYS = 2.0  # a threshold above every certainty


def certainty(logits: np.ndarray, temperature: float) -> np.ndarray:
    """The largest probability of each answer, (n,)."""
    from scipy.special import softmax

    found: np.ndarray = softmax(logits / temperature, axis=-1).max(-1)
    return found


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """The temperature with the smallest mean negative log likelihood of the targets (n,).

    Chuan Guo, Geoff Pleiss, Yu Sun, Kilian Q. Weinberger. On Calibration of Modern Neural Networks. ICML 2017.
    https://arxiv.org/abs/1706.04599
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    def loss(log_temperature: float) -> float:
        found = log_softmax(logits / math.exp(log_temperature), axis=-1)
        return -float(np.take_along_axis(found, targets[:, None], -1).mean())

    return math.exp(float(minimize_scalar(loss, bounds=(-HOTTEST, HOTTEST), method="bounded").x))


def calibration_error(certainties: np.ndarray, right: np.ndarray) -> float:
    """The expected calibration error: the mean distance between certainty and share of right answers, over bins.

    Args:
        certainties: of the answers, (n,).
        right: whether they are right, (n,).
    """
    bins = np.minimum((certainties * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, certainties, BINS) - np.bincount(bins, right, BINS)
    return float(np.abs(gaps).sum() / len(right))


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """The probability that a text of the classes has a higher certainty than one of none of them; ties count half."""
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(inside, outside, method="asymptotic").statistic / (len(inside) * len(outside)))


def threshold(certainties: np.ndarray, right: np.ndarray, wrong: float) -> float:
    """The lowest threshold at which at most the share `wrong` of the answers that are given is wrong.

    Answers below the threshold are not given. If no threshold does, it is above every certainty.
    """
    order = np.argsort(-certainties, kind="stable")
    ordered = certainties[order]
    share = np.cumsum(~right[order]) / np.arange(1, len(order) + 1)
    last = np.append(ordered[1:] != ordered[:-1], True)  # answers of equal certainty are given together
    allowed = np.flatnonzero((share <= wrong) & last)
    return float(ordered[allowed[-1]]) if len(allowed) else ALWAYS


def nearest(shape: Mapping[str, Any], known: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The calibration, among those of `known`, whose tasks' shape is most like a task's: by the ratios of its numbers.

    A number that is missing is 0, and ratios are of numbers plus 1. None if there are no calibrations.
    """

    def distance(calibration: Mapping[str, Any]) -> float:
        other = calibration["shape"]
        names = {*shape, *other} - SIZES
        return sum(abs(math.log((shape.get(name, 0) + 1) / (other.get(name, 0) + 1))) for name in names)

    return min(known, key=distance, default=None)
