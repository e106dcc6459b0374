"""Tasks in which a text has any number of the labels: a threshold for each class, and F1.

The support set has a row for each text and label, so that any learner learns from it. The classes share one
probability, so a text of two classes gives each about a half; it gets those whose share reaches the class's threshold.
A threshold is the one with the best F1 on texts that were left out. So few texts choose it badly (Yiming Yang. A Study
of Thresholding Strategies for Text Categorization. SIGIR 2001. https://doi.org/10.1145/383952.383975), so it is drawn
to that of all classes together, and this one to `USUAL`. The constants were chosen on meta-validation classes of
ATT&CK, where shares also did better than outputs less their mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from distmeta.errors import DataError
from distmeta.protocols import Codec, Example, Prediction

USUAL = 0.3  # the threshold without texts to choose it by
COMMON, OWN = 50, 10  # how many labels `USUAL` counts for, and how many of a class the threshold of all classes
RESAMPLES = 1000  # of texts, for the interval of F1
SMALLEST = 1e-12  # share of a class
SETS = (list, tuple, set, frozenset)


class ExpectedF1(NamedTuple):
    """F1 of `tested` texts that were left out: of all labels, with its 95 % interval, and the mean over classes."""

    micro_f1: float
    macro_f1: float
    low: float
    high: float
    tested: int


def are_several(answers: Sequence[Any]) -> bool:
    """Whether an answer is a set of labels."""
    return any(isinstance(answer, SETS) for answer in answers)


def with_sets(examples: Sequence[Example], codec: Codec) -> list[Example]:
    """The examples, with a sorted list of labels as the answer of each that has one.

    Raises:
        DataError: a label is no string.
    """
    found = list[Example]()
    for number, example in enumerate(examples, 1):
        if codec.answer in example:
            given = example[codec.answer]
            labels = list(given) if isinstance(given, SETS) else [given]
            if wrong := [label for label in labels if not isinstance(label, str) or not label.strip()]:
                remedy = "give labels that are strings and not empty"
                raise DataError(f"example {number}", f"one of its labels is {wrong[0]!r}", remedy)
            found.append({**example, codec.answer: sorted(set(labels))})
        else:
            found.append(example)
    return found


def rows_of(examples: Sequence[Example], codec: Codec) -> tuple[list[Example], np.ndarray]:
    """A row for each label of each example, and the number of its example, (rows,)."""
    rows = [
        ({**example, codec.answer: label}, number)
        for number, example in enumerate(examples)
        for label in example.get(codec.answer, ())
    ]
    return [row for row, _ in rows], np.array([number for _, number in rows], np.int64)


def without_labels(examples: Sequence[Example], codec: Codec) -> list[Example]:
    """What the examples give, without their answers."""
    return [{key: example[key] for key in codec.given if key in example} for example in examples]


def truth_of(examples: Sequence[Example], codec: Codec, names: Sequence[str]) -> np.ndarray:
    """(n, N) whether an example has a class."""
    return np.array([[name in example[codec.answer] for name in names] for example in examples]).reshape(-1, len(names))


def shares_of(outputs: Tensor) -> np.ndarray:
    """(n, N) shares of the classes, from outputs (n, N)."""
    shares: np.ndarray = outputs.double().softmax(-1).numpy()
    return shares


def choose(shares: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The threshold of each class, (N,), a share.

    Args:
        shares: (n, N) of texts that the learner did not learn from.
        truth: (n, N) which classes they have.
    """
    scores, usual = _logit(shares), float(_logit(np.array(USUAL)))
    count, counts = truth.sum(), truth.sum(0)
    common = (count * _best(scores.ravel(), truth.ravel(), usual) + COMMON * usual) / (count + COMMON)
    own = np.array([_best(scores[:, n], truth[:, n], common) for n in range(scores.shape[1])])
    chosen: np.ndarray = 1 / (1 + np.exp(-(counts * own + OWN * common) / (counts + OWN)))
    return chosen


def _best(scores: np.ndarray, truth: np.ndarray, near: float) -> float:
    """The threshold with the highest F1; of several the nearest one to `near`. Without a positive, `near`."""
    if not truth.any():
        return near
    order = np.argsort(-scores, kind="stable")
    ordered, right = scores[order], np.cumsum(truth[order])
    f1 = 2 * right / (np.arange(1, len(order) + 1) + truth.sum())
    below = np.append(ordered[1:], ordered[-1] - 1)  # a threshold lies between a score and the next lower one
    f1[ordered == below] = -1.0
    low, high = (ends[f1 == f1.max()] for ends in (below, ordered))
    inside = np.where((low < near) & (near < high), near, (low + high) / 2)
    return float(inside[np.abs(inside - near).argmin()])


def _logit(shares: np.ndarray) -> np.ndarray:
    clipped = np.clip(shares, SMALLEST, 1 - SMALLEST)
    scores: np.ndarray = np.log(clipped) - np.log1p(-clipped)
    return scores


def figures(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """`micro_f1`, `macro_f1`, and `exact`, the share of texts with all labels right, from (n, N) each.

    Macro F1 leaves out classes that no text has or was given. Without any label, F1 is 1.
    """
    right, given, have = (found & truth).sum(0), found.sum(0), truth.sum(0)
    total, known = int((given + have).sum()), given + have > 0
    return {
        "micro_f1": 2 * float(right.sum()) / total if total else 1.0,
        "macro_f1": float((2 * right[known] / (given + have)[known]).mean()) if known.any() else 1.0,
        "exact": float((found == truth).all(1).mean()),
    }


def expected(shares: np.ndarray, truth: np.ndarray) -> ExpectedF1 | None:
    """F1 on texts that were left out; the thresholds for each half of them are chosen on the other half.

    None for fewer than four texts.
    """
    if len(shares) < 4:
        return None
    found, half = np.zeros_like(truth), np.arange(len(shares)) % 2 == 0
    for part in (half, ~half):
        found[part] = shares[part] >= choose(shares[~part], truth[~part])
    value, generator = figures(found, truth), np.random.Generator(np.random.PCG64(0))
    samples = generator.integers(len(truth), size=(RESAMPLES, len(truth)))
    low, high = np.quantile([figures(found[rows], truth[rows])["micro_f1"] for rows in samples], [0.025, 0.975])
    return ExpectedF1(value["micro_f1"], value["macro_f1"], float(low), float(high), len(truth))


def decide(
    outputs: Tensor, names: Sequence[str], thresholds: Sequence[float], answer: str, abstain: bool
) -> list[Prediction]:
    """Each text's labels, how certain they are, and the `probabilities` by label, which are shares of 1.

    The certainty is that of the least certain decision for or against a class: 0.5 at its threshold. Without
    `abstain`, a text that would get no label gets the likeliest one.

    Args:
        outputs: (n, N), calibrated.
        names: of the classes.
        thresholds: of the classes.
        answer: the key of the labels.
        abstain: whether a text may get no label.
    """
    shares, limits = shares_of(outputs), np.array(thresholds)
    distances = np.abs(_logit(shares) - _logit(limits)).min(1)
    predictions = list[Prediction]()
    for row, given, distance in zip(shares, shares >= limits, distances, strict=True):
        labels = [name for name, has in zip(names, given, strict=True) if has]
        labels = labels or ([] if abstain else [names[int(row.argmax())]])
        by_name: Mapping[str, float] = dict(zip(names, row.tolist(), strict=True))
        predictions.append({answer: labels, "certainty": float(1 / (1 + np.exp(-distance))), "probabilities": by_name})
    return predictions
