"""The parameter server owns θ, the optimiser and the version. It adds gradients, clips the sum and updates θ.

θ itself and all arithmetic on its numbers are in one `Shard` or in several.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from distmeta.config import OuterConfig
from distmeta.engine import reduction
from distmeta.engine.interfaces import MakeParameters
from distmeta.engine.shard import Shard
from distmeta.errors import TrainingError
from distmeta.types import Add, Rejected, ServerState, StepReport, UnitResult

STALENESS = "staleness_"  # prefix of a state's counters; the staleness in versions follows
OVERFLOW = "the {} of its meta-batch is not finite"


class ParameterServer:
    """Updates a flat vector of meta-parameters.

    Args:
        outer: the optimiser and its schedule.
        meta_params: the initial θ, (P,) float32.
        anchor_every: outer steps after which the proximal regulariser's anchor moves to θ; 0: never.
        regularized: (P,) mask of the regularised elements of θ; None: all.
        staleness_alpha: None if no gradient is older than θ. Else a gradient that is s versions old has the weight
            1/(1+s)^alpha (Wei Zhang et al. Staleness-aware Async-SGD for Distributed Deep Learning. IJCAI 2016.
            https://arxiv.org/abs/1511.05950 divides by s). The sum is still divided by the number of tasks, so old
            gradients make a step smaller.
        make_parameters: builds what stores θ, from `outer`, `meta_params` and `regularized`.
    """

    def __init__(
        self,
        outer: OuterConfig,
        meta_params: np.ndarray,
        anchor_every: int = 0,
        regularized: np.ndarray | None = None,
        staleness_alpha: float | None = None,
        make_parameters: MakeParameters = Shard,
    ) -> None:
        self.outer, self.version, self.anchor_every = outer, 0, anchor_every
        self.staleness_alpha, self.staleness = staleness_alpha, Counter[int]()
        self.rejected: list[Rejected] = []
        self.parameters = make_parameters(outer, meta_params, regularized)

    @property
    def meta_params(self) -> np.ndarray:
        """A copy of θ, (P,) float32."""
        return self.parameters.values

    @property
    def handle(self) -> Any:
        """θ in the form that `Pool.publish` takes."""
        return self.parameters.handle

    def apply(self, results: Sequence[UnitResult], add: Add = reduction.add) -> StepReport:
        """One outer step on a whole meta-batch, its units in index order: the order of additions changes the sum.

        A step is not taken if its gradient, or θ or the optimiser after it, would not be finite. All tasks of its
        meta-batch are then rejected.

        Raises:
            TrainingError: more rejected tasks than `outer.max_bad_tasks`.
        """
        assert all(result.gradient is not None for result in results), "a result has no gradient"
        ages = [self.version - result.unit.version for result in results]
        weights = [(1 + age) ** -(self.staleness_alpha or 0.0) for age in ages]
        leaves = [(result.gradient, weight) for result, weight in zip(results, weights, strict=True)]
        self.parameters.take(leaves, add)
        if self.anchor_every and self.version % self.anchor_every == 0:
            self.parameters.move_anchor()
        self.staleness.update(ages)
        rejected = [task for result in results for task in result.rejected]
        self._reject(rejected)
        accepted, step = _accepted(results), dict[str, float]()
        if accepted:
            try:
                step = self._step(len(accepted))
            except OverflowError as error:
                rejected += (overflows := [Rejected(index, names, str(error)) for index, names in accepted])
                self._reject(overflows)
        metrics = {f"meta_train/{name}": value for name, value in _means(results, rejected).items()} | step
        metrics["outer/rejected_tasks"] = float(len(self.rejected))
        if self.staleness_alpha is not None:
            metrics |= {"staleness/mean": float(np.mean(ages)), "staleness/max": float(max(ages))}
        self.version += 1
        return StepReport(self.version, metrics, tuple(rejected))

    def _reject(self, tasks: Sequence[Rejected]) -> None:
        self.rejected += tasks
        if len(self.rejected) > self.outer.max_bad_tasks:
            last = self.rejected[-1]
            raise TrainingError(
                f"outer step {self.version + 1}: task {last.index} ({', '.join(last.names)}) was rejected, "
                f"{last.reason}; that makes {len(self.rejected)}, outer.max_bad_tasks is {self.outer.max_bad_tasks}. "
                "A smaller inner.lr or outer.lr, or inner.clip_norm or outer.clip_norm, may help"
            )

    def _step(self, tasks: int) -> dict[str, float]:
        """Takes a step; returns its metrics.

        Raises:
            OverflowError: a number is not finite; the step was not taken.
        """
        norm, limit = math.sqrt(math.fsum(self.parameters.squares(tasks))), self.outer.clip_norm
        if not math.isfinite(norm):
            raise OverflowError(OVERFLOW.format("gradient"))
        rate = self.outer.lr * self._scale(self.version)
        if not self.parameters.step(limit / norm if limit is not None and norm > limit else 1.0, rate):
            self.parameters.undo()
            raise OverflowError(OVERFLOW.format("update"))
        return {"outer/grad_norm": norm, "outer/lr": rate}

    def _scale(self, step: int) -> float:
        """Factor of `outer.lr` at a step, counted from 0: a linear warm-up, then the schedule."""
        warmup, total = self.outer.warmup_steps, self.outer.steps
        if step < warmup:
            return (step + 1) / warmup
        if self.outer.schedule == "constant":
            return 1.0
        done = (step - warmup) / max(1, total - warmup)
        return 1 - done if self.outer.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2

    def state(self) -> ServerState:
        """A copy of everything that `load` needs to continue identically, to the bit."""
        rejected = [asdict(task) for task in self.rejected]
        ages = self.staleness if self.staleness_alpha is not None else {}
        counters = {STALENESS + str(age): count for age, count in sorted(ages.items())}
        return ServerState(self.parameters.arrays(), {"version": self.version, **counters}, rejected)

    def load(self, state: ServerState) -> None:
        """Restores a state."""
        self.parameters.load(state.arrays)
        self.version, self.staleness = state.counters["version"], Counter(staleness(state))
        self.rejected = [Rejected(task["index"], tuple(task["names"]), task["reason"]) for task in state.rejected]


def staleness(state: ServerState) -> dict[int, int]:
    """The number of units' gradients by their staleness, in versions, when they were applied."""
    prefix = STALENESS
    return {int(name.removeprefix(prefix)): n for name, n in state.counters.items() if name.startswith(prefix)}


def _accepted(results: Sequence[UnitResult]) -> list[tuple[int, tuple[str, ...]]]:
    """Index and names of the tasks whose gradients are in the results' sums."""
    rejected = {task.index for result in results for task in result.rejected}
    named = [(r.unit.first_index + n, r.names[n] if r.names else ()) for r in results for n in range(r.unit.count)]
    return [(index, names) for index, names in named if index not in rejected]


def _means(results: Sequence[UnitResult], rejected: Sequence[Rejected]) -> dict[str, float]:
    """Means over the accepted tasks; a figure of one family is averaged over that family's tasks."""
    indices = [task.index for task in rejected]
    values: dict[str, list[np.ndarray]] = {}
    for result in results:
        accepted = ~np.isin(result.unit.first_index + np.arange(result.unit.count), indices)
        for name, value in result.metrics.items():
            values.setdefault(name, []).append(value[accepted])
    means = {name: np.concatenate(parts) for name, parts in values.items()}
    return {name: float(value.mean()) for name, value in means.items() if len(value)}
