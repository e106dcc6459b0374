"""A range of θ and its optimiser state: all of θ in one process, or a part of it in its own actor.

All operations are elementwise, except the sum of squares, which is taken in blocks. So if a vector is cut at block
boundaries, its parts give the same result as the whole, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from distmeta.config import OuterConfig
from distmeta.types import Add, Leaf

BLOCK = 1 << 16  # elements


class Shard:
    """Updates a flat vector, on the CPU.

    Args:
        outer: the optimiser and the regulariser.
        values: the initial values, (P,) float32.
        regularized: (P,) mask of the regularised elements; None: all.
    """

    def __init__(self, outer: OuterConfig, values: np.ndarray, regularized: np.ndarray | None = None) -> None:
        self.outer = outer
        self._regularized = 1.0 if regularized is None else torch.tensor(regularized)
        self._theta = torch.tensor(values, dtype=torch.float32, requires_grad=True)
        self._anchor, self._anchor_moved = self._theta.detach().clone(), False
        self._total = self._gradient = torch.empty(0)
        self._optimizer = self._make_optimizer()
        self._before = dict[str, torch.Tensor]()  # the numbers before the last step

    @property
    def values(self) -> np.ndarray:
        """A copy of the values, (P,) float32."""
        return self._theta.detach().numpy().copy()

    @property
    def handle(self) -> np.ndarray:
        """What `Pool.publish` takes: the values themselves."""
        return self.values

    def take(self, leaves: Sequence[Leaf], add: Add) -> None:
        """Adds gradients for the next step."""
        total = add(leaves)
        # Arrays from Ray are read-only, and torch warns about them.
        self._total = torch.from_numpy(total if total.flags.writeable else total.copy())

    def squares(self, tasks: int) -> list[float]:
        """Computes the mean gradient plus the regulariser's; returns the sum of squares of each block."""
        self._gradient = self._total / tasks + self._regularizer_gradient()
        blocks = np.split(self._gradient.numpy(), range(BLOCK, len(self._gradient), BLOCK))
        return [float(np.square(block, dtype=np.float64).sum()) for block in blocks]

    def step(self, scale: float, rate: float) -> bool:
        """Takes an optimiser step with `scale` times the gradient; returns whether all numbers are finite after it."""
        # Reuses the memory of an earlier step: new memory takes twice as long.
        self._before = {
            name: self._before.get(name, torch.empty_like(value)).copy_(value)
            for name, value in self._numbers().items()
        }
        if scale != 1:
            self._gradient *= scale
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._theta.grad = self._gradient
        self._optimizer.step()
        self._theta.grad = None
        return all(torch.stack(torch.aminmax(value)).isfinite().all() for value in self._numbers().values())

    def undo(self) -> None:
        """Undoes the last step."""
        self.load({name: value.numpy() for name, value in self._before.items()})

    def move_anchor(self) -> None:
        """Moves the anchor of the proximal regulariser to the current θ."""
        self._anchor, self._anchor_moved = self._theta.detach().clone(), True

    def arrays(self) -> dict[str, np.ndarray]:
        """A copy of everything that `load` needs to continue identically, to the bit."""
        arrays = {name: value.numpy().copy() for name, value in self._numbers().items()}
        if self._anchor_moved:
            arrays["anchor"] = self._anchor.numpy().copy()
        return arrays

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Restores what `arrays` returned; if that has no anchor, the present anchor stays."""
        with torch.no_grad():
            self._theta.copy_(torch.tensor(arrays["meta_params"]))
        if "anchor" in arrays:
            self._anchor, self._anchor_moved = torch.tensor(arrays["anchor"]), True
        prefix = "optimizer."
        moments = {
            name.removeprefix(prefix): torch.tensor(value) for name, value in arrays.items() if name.startswith(prefix)
        }
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": {0: moments} if moments else {}, "param_groups": groups})

    def _numbers(self) -> dict[str, torch.Tensor]:
        """All numbers that a step changes."""
        moments = self._optimizer.state_dict()["state"].get(0, {})
        state = {f"optimizer.{name}": value for name, value in moments.items() if value is not None}
        return {"meta_params": self._theta.detach(), **state}

    def _regularizer_gradient(self) -> torch.Tensor | float:
        """λ∇R(θ), 0 for elements that are not regularised."""
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

    def _make_optimizer(self) -> torch.optim.Optimizer:
        outer = self.outer
        if outer.optimizer == "sgd":
            return torch.optim.SGD([self._theta], lr=outer.lr, momentum=outer.momentum, weight_decay=outer.weight_decay)
        kind = torch.optim.Adam if outer.optimizer == "adam" else torch.optim.AdamW
        # Fused: one pass over the flat vector, about nine times faster than the plain loop.
        return kind([self._theta], lr=outer.lr, weight_decay=outer.weight_decay, fused=True)
