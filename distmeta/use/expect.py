"""How good a task may be expected to be, by leaving out examples that it was learned from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from distmeta.models.functional import FunctionalModel
from distmeta.protocols import MetaLearner
from distmeta.types import Batch, Inputs, Params

MOST = 200  # examples that are left out one by one
FOLDS = 5  # for learners that adapt the body: each adaptation takes its time
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


def cross_validate(
    algorithm: MetaLearner, model: FunctionalModel, theta: Params, support: Batch, tested: int
) -> Expected | None:
    """The accuracy of a task on examples that it was not learned from, by cross-validation.

    Examples that are all that their class has are not left out. The learner forgets one example at a time; if it
    adapts the body, a fifth of each class.

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
    labelled = int((support.weights[0] > 0).sum())
    left_out = _folds(support.targets[0, :labelled], tested, None if "features" in support.inputs else FOLDS)
    if not left_out:
        return None
    right = 0
    size = labelled + (support.targets.shape[1] - labelled + 1) * support.outputs
    chunk = max(1, min(64, NUMBERS // (size * model.dim))) if "features" in support.inputs else 1
    for start in range(0, len(left_out), chunk):
        right += _right(algorithm, model, theta, support, left_out[start : start + chunk])
    count = sum(map(len, left_out))
    return Expected(right, count, *_interval(right, count))


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


def _right(
    algorithm: MetaLearner, model: FunctionalModel, theta: Params, support: Batch, left_out: list[Tensor]
) -> int:
    """How many examples get their label from learners that have not seen them, one learner a fold.

    Args:
        algorithm: see `cross_validate`.
        model: see `cross_validate`.
        theta: see `cross_validate`.
        support: see `cross_validate`.
        left_out: the examples of each fold, the same number in each.
    """
    tasks, rows = len(left_out), torch.stack(left_out)
    weights = support.weights.repeat(tasks, 1).scatter(1, rows, 0.0)
    inputs: Inputs = {name: value.expand(tasks, *value.shape[1:]) for name, value in support.inputs.items()}
    seen = Batch(inputs, support.targets.expand(tasks, -1), weights, support.outputs)
    query = {name: value[0][rows] for name, value in support.inputs.items()}
    outputs = algorithm.predict(model, algorithm.adapt(model, theta, seen), query)
    return int((outputs.argmax(-1) == support.targets[0][rows]).sum())


def _interval(right: int, count: int) -> tuple[float, float]:
    """The exact 95 % interval of a share: Clopper, Pearson 1934, https://doi.org/10.1093/biomet/26.4.404."""
    from scipy.special import betaincinv

    low = float(betaincinv(right, count - right + 1, 0.025)) if right else 0.0
    high = float(betaincinv(right + 1, count - right, 0.975)) if right < count else 1.0
    return low, high
