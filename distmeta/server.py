"""The parameter server: owner of θ, its optimiser and its version. It adds gradients, clips, updates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
import torch

from distmeta import reduction
from distmeta.config import OuterConfig
from distmeta.errors import TrainingError
from distmeta.types import Leaf, Rejected, ServerState, StepReport, UnitResult

STALENESS = "staleness_"  # a counter of a state: + versions


class ParameterServer:
    """Updates a flat vector of meta-parameters, on the CPU.

    Args:
        outer: the optimiser and its schedule.
        meta_params: θ to start from, (P,) float32.
        anchor_every: outer steps after which the proximal regulariser's anchor moves up to θ; 0: never.
        regularized: (P,) which elements of θ the regulariser is of; none: all.
        staleness_alpha: none where no gradient is older than θ. Else one that is s versions old counts 1/(1+s)^alpha
            (Wei Zhang et al. Staleness-aware Async-SGD for Distributed Deep Learning. IJCAI 2016.
            https://arxiv.org/abs/1511.05950 divides by s). The sum is divided by the number of tasks all the same, so
            that old gradients make a step smaller.
    """

    def __init__(
        self,
        outer: OuterConfig,
        meta_params: np.ndarray,
        anchor_every: int = 0,
        regularized: np.ndarray | None = None,
        staleness_alpha: float | None = None,
    ) -> None:
        self.outer, self.version, self.anchor_every = outer, 0, anchor_every
        self._regularized = 1.0 if regularized is None else torch.tensor(regularized)
        self.staleness_alpha, self.staleness = staleness_alpha, Counter[int]()
        self.rejected: list[Rejected] = []
        self._theta = torch.tensor(meta_params, dtype=torch.float32, requires_grad=True)
        self._anchor = self._theta.detach().clone()
        self._optimizer = self._make_optimizer()

    @property
    def meta_params(self) -> np.ndarray:
        """A copy of θ, (P,) float32."""
        return self._theta.detach().numpy().copy()

    def apply(
        self, results: Sequence[UnitResult], add: Callable[[Sequence[Leaf]], np.ndarray] = reduction.add
    ) -> StepReport:
        """One outer step on a whole meta-batch, its units in index order: the order of the additions is the result.

        Raises:
            TrainingError: more tasks without a finite gradient than `outer.max_bad_tasks`.
        """
        assert all(result.gradient is not None for result in results), "an evaluation's result"
        ages = [self.version - result.unit.version for result in results]
        weights = [(1 + age) ** -(self.staleness_alpha or 0.0) for age in ages]
        total = add([(result.gradient, weight) for result, weight in zip(results, weights, strict=True)])
        if self.anchor_every and self.version % self.anchor_every == 0:
            self._anchor = self._theta.detach().clone()
        self.staleness.update(ages)
        rejected = tuple(task for result in results for task in result.rejected)
        self.rejected += rejected
        if len(self.rejected) > self.outer.max_bad_tasks:
            worst = self.rejected[-1]
            raise TrainingError(
                f"outer step {self.version + 1}: task {worst.index} ({', '.join(worst.names)}) was rejected, "
                f"{worst.reason}; that makes {len(self.rejected)}, outer.max_bad_tasks is {self.outer.max_bad_tasks}. "
                "A smaller inner.lr or outer.lr, or inner.clip_norm or outer.clip_norm, may help"
            )
        accepted = sum(result.unit.count for result in results) - len(rejected)
        metrics = {f"meta_train/{name}": value for name, value in _means(results).items()}
        metrics |= self._step(total, accepted) if accepted else {}
        metrics["outer/rejected_tasks"] = float(len(self.rejected))
        if self.staleness_alpha is not None:
            metrics |= {"staleness/mean": float(np.mean(ages)), "staleness/max": float(max(ages))}
        self.version += 1
        return StepReport(self.version, metrics, rejected)

    def _step(self, total: np.ndarray, tasks: int) -> dict[str, float]:
        # What Ray hands out cannot be written to, which torch warns of.
        gradient = (
            torch.from_numpy(total if total.flags.writeable else total.copy()) / tasks + self._regularizer_gradient()
        )
        norm = float(torch.linalg.vector_norm(gradient))
        if self.outer.clip_norm is not None and norm > self.outer.clip_norm:
            gradient *= self.outer.clip_norm / norm
        rate = self.outer.lr * self._scale(self.version)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._theta.grad = gradient
        self._optimizer.step()
        self._theta.grad = None
        return {"outer/grad_norm": norm, "outer/lr": rate}

    def _regularizer_gradient(self) -> torch.Tensor | float:
        """λ∇R(θ), 0 for what R is not of."""
        if self.outer.regularizer == "none":
            return 0.0
        theta, weight = self._theta.detach(), self.outer.regularizer_weight * self._regularized
        match self.outer.regularizer:
            case "l2":
                return weight * theta
            case "l1":
                return weight * theta.sign()
            case "proximal":
                return weight * (theta - self._anchor)

    def _scale(self, step: int) -> float:
        """Share of `outer.lr` at a step, counted from 0: a linear warm-up, then the schedule down to 0 at the end."""
        warmup, total = self.outer.warmup_steps, self.outer.steps
        if step < warmup:
            return (step + 1) / warmup
        if self.outer.schedule == "constant":
            return 1.0
        done = (step - warmup) / max(1, total - warmup)
        return 1 - done if self.outer.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2

    def _make_optimizer(self) -> torch.optim.Optimizer:
        outer = self.outer
        if outer.optimizer == "sgd":
            return torch.optim.SGD([self._theta], lr=outer.lr, momentum=outer.momentum, weight_decay=outer.weight_decay)
        kind = torch.optim.Adam if outer.optimizer == "adam" else torch.optim.AdamW
        # Fused: one pass over the flat vector, about nine times faster than the plain loop.
        return kind([self._theta], lr=outer.lr, weight_decay=outer.weight_decay, fused=True)

    def state(self) -> ServerState:
        """A copy of everything `load` needs to go on to the bit."""
        moments = self._optimizer.state_dict()["state"].get(0, {})
        arrays = {f"optimizer.{name}": value.numpy().copy() for name, value in moments.items() if value is not None}
        if self.anchor_every:
            arrays["anchor"] = self._anchor.numpy().copy()
        rejected = [asdict(task) for task in self.rejected]
        ages = (
            {}
            if self.staleness_alpha is None
            else {STALENESS + str(age): count for age, count in sorted(self.staleness.items())}
        )
        return ServerState({"meta_params": self.meta_params, **arrays}, {"version": self.version, **ages}, rejected)

    def load(self, state: ServerState) -> None:
        """Goes back to a state."""
        with torch.no_grad():
            self._theta.copy_(torch.tensor(state.arrays["meta_params"]))
        if self.anchor_every:
            self._anchor = torch.tensor(state.arrays["anchor"])
        prefix = "optimizer."
        moments = {
            name.removeprefix(prefix): torch.tensor(value)
            for name, value in state.arrays.items()
            if name.startswith(prefix)
        }
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": {0: moments} if moments else {}, "param_groups": groups})
        self.version, self.staleness = state.counters["version"], Counter(staleness(state))
        self.rejected = [Rejected(task["index"], tuple(task["names"]), task["reason"]) for task in state.rejected]


def staleness(state: ServerState) -> dict[int, int]:
    """How many units' gradients were how many versions old when they were applied."""
    prefix = STALENESS
    return {int(name.removeprefix(prefix)): n for name, n in state.counters.items() if name.startswith(prefix)}


def _means(results: Sequence[UnitResult]) -> dict[str, float]:
    """Means over the accepted tasks; empty where there are none."""
    rejected = {task.index for result in results for task in result.rejected}
    indices = np.concatenate([r.unit.first_index + np.arange(r.unit.count) for r in results])
    accepted = ~np.isin(indices, list(rejected))
    if not accepted.any():
        return {}
    values = {name: np.concatenate([result.metrics[name] for result in results]) for name in results[0].metrics}
    return {name: float(value[accepted].mean()) for name, value in values.items()}
