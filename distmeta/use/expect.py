"""How good a task may be expected to be, by leaving out examples that it was learned from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from distmeta.models.functional import FunctionalModel
from distmeta.protocols import MetaLearner
from distmeta.types import Batch, Inputs, Params

MOST = 200  # examples that are left out one by one
FOLDS = 5  # for learners that adapt the body, and for tasks with more than SCORES: each adaptation takes its time
SCORES = 300_000  # of examples by classes
NUMBERS = 20_000_000  # of the largest tensor of stacked adaptations


class Expected(NamedTuple):
    """`right` of `tested` examples that were left out got their label; `low` to `high` is the share's 95 % interval."""

    right: int
    tested: int
    low: float
    high: float

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return self.right / self.tested


class Fold(NamedTuple):
    """Rows of a support set that a learner forgets, and those of them that it is then asked for."""

    forgotten: Tensor
    asked: Tensor


def cross_validate(
    algorithm: MetaLearner, model: FunctionalModel, theta: Params, support: Batch, tested: int
) -> Expected | None:
    """The accuracy of a task on examples that it was not learned from, by cross-validation.

    Examples that are all that their class has are not left out. The learner forgets one example at a time; if it
    adapts the body, or the task is large, a fifth of each class.

    Args:
        algorithm: the learner.
        model: the family's model, in evaluation mode.
        theta: its θ for tasks of this size.
        support: the examples, T = 1; with `features` if the body is not adapted.
        tested: how many of the first examples may be left out. The others describe classes, or have no label.

    Returns:
        None if no example can be left out, or the family has no classes of single elements.
    """
    if not model.task.has_classes or not model.one_element_each:
        return None
    folds = _folds(support.targets[0, : _labelled(support)], tested, None if _one_by_one(support) else FOLDS)
    if not folds:
        return None
    outputs = held_out(algorithm, model, theta, support, [Fold(rows, rows) for rows in folds])
    asked = torch.cat(folds)
    right = int((outputs.argmax(-1) == support.targets[0, asked]).sum())
    return Expected(right, len(asked), *_interval(right, len(asked)))


def held_out_texts(
    algorithm: MetaLearner, model: FunctionalModel, theta: Params, support: Batch, texts: np.ndarray, tested: int
) -> tuple[Tensor, np.ndarray]:
    """Outputs (n, N) on texts by learners that have not seen them, and the numbers of the texts (n,).

    Texts of which a class has no other one are not left out.

    Args:
        algorithm: see `cross_validate`.
        model: see `cross_validate`.
        theta: see `cross_validate`.
        support: see `cross_validate`.
        texts: the number of the text of each row of `support`, (B,), ascending.
        tested: texts with a number below may be left out.
    """
    rows = [torch.from_numpy(np.flatnonzero(texts == number)) for number in range(tested)]
    targets, remaining = support.targets[0], torch.bincount(support.targets[0], minlength=support.outputs)
    one_by_one, folds, numbers = _one_by_one(support), list[Fold](), list[int]()
    groups = (
        [[number] for number in range(tested)] if one_by_one else [list(range(k, tested, FOLDS)) for k in range(FOLDS)]
    )
    for group in groups[:: max(1, -(-len(groups) // MOST))]:
        left, chosen = remaining.clone(), list[int]()
        for number in group:
            its = targets[rows[number]]
            if len(its) and bool((left[its] > 1).all()):
                left[its] -= 1
                chosen.append(number)
        if chosen:
            folds.append(Fold(torch.cat([rows[n] for n in chosen]), torch.stack([rows[n][0] for n in chosen])))
            numbers += chosen
    if not folds:
        return torch.zeros(0, support.outputs), np.zeros(0, np.int64)
    return held_out(algorithm, model, theta, support, folds), np.array(numbers)


def held_out(
    algorithm: MetaLearner, model: FunctionalModel, theta: Params, support: Batch, folds: Sequence[Fold]
) -> Tensor:
    """(n, N) outputs on the rows that are asked for, fold after fold, by learners that have forgotten the fold's rows.

    Args:
        algorithm: see `cross_validate`.
        model: see `cross_validate`.
        theta: see `cross_validate`.
        support: see `cross_validate`.
        folds: of rows of `support`.
    """
    labelled = _labelled(support)
    size = labelled + (support.targets.shape[1] - labelled + 1) * support.outputs
    chunk = max(1, min(64, NUMBERS // (size * model.dim))) if _one_by_one(support) else 1
    parts = (_outputs(algorithm, model, theta, support, folds[n : n + chunk]) for n in range(0, len(folds), chunk))
    return torch.cat(list(parts))


def _labelled(support: Batch) -> int:
    return int((support.weights[0] > 0).sum())


def _one_by_one(support: Batch) -> bool:
    return "features" in support.inputs and support.targets.shape[1] * support.outputs <= SCORES


def _folds(targets: Tensor, tested: int, folds: int | None) -> list[Tensor]:
    """The examples to leave out together, among the first `tested` of (S,). No fold has all examples of a class."""
    counts = torch.bincount(targets)
    several = torch.nonzero(counts[targets[:tested]] > 1).flatten()
    if not len(several):
        return []
    if folds is None:
        step = max(1, -(-len(several) // MOST))
        return list(torch.split(several[::step], 1))
    fold = torch.zeros(tested, dtype=torch.long)
    for target in range(len(counts)):
        members = torch.nonzero(targets[:tested] == target).flatten()
        fold[members] = torch.arange(len(members)) % folds
    chosen = (several[fold[several] == number] for number in range(folds))
    return [examples for examples in chosen if len(examples)]


def _outputs(
    algorithm: MetaLearner, model: FunctionalModel, theta: Params, support: Batch, folds: Sequence[Fold]
) -> Tensor:
    """(n, N) outputs of one learner for each fold, all at once."""
    forgotten, asked = (
        pad_sequence(list(rows), batch_first=True, padding_value=-1) for rows in zip(*folds, strict=True)
    )
    first = torch.stack([fold.forgotten[0] for fold in folds])[:, None]
    weights = support.weights.repeat(len(folds), 1).scatter(1, torch.where(forgotten < 0, first, forgotten), 0.0)
    inputs: Inputs = {name: value.expand(len(folds), *value.shape[1:]) for name, value in support.inputs.items()}
    seen = Batch(inputs, support.targets.expand(len(folds), -1), weights, support.outputs)
    query = {name: value[0][asked.clamp(min=0)] for name, value in support.inputs.items()}
    outputs = algorithm.predict(model, algorithm.adapt(model, theta, seen), query)
    return outputs[asked >= 0]


def _interval(right: int, count: int) -> tuple[float, float]:
    """The exact 95 % interval of a share: Clopper, Pearson 1934, https://doi.org/10.1093/biomet/26.4.404."""
    from scipy.special import betaincinv

    low = float(betaincinv(right, count - right + 1, 0.025)) if right else 0.0
    high = float(betaincinv(right + 1, count - right, 0.975)) if right < count else 1.0
    return low, high
