"""Online meta-learning: follow the meta-leader.

Chelsea Finn, Aravind Rajeswaran, Sham Kakade, Sergey Levine. Online Meta-Learning. ICML 2019.
https://arxiv.org/abs/1902.08438
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distmeta.algorithms.base import GradientBased, Steps, registry
from distmeta.algorithms.inner import gradient_descent
from distmeta.protocols import Model
from distmeta.types import Batch, Params


@registry.register("online")
@dataclass(frozen=True, kw_only=True)
class Online(GradientBased):
    """θ is meta-trained on the present task and on remembered ones (`stream.replay`); a task starts near its like.

    The paper keeps all tasks, meets them evenly, and starts every one from θ. Here a buffer of the latest is replayed
    by similarity, and the graph of similar tasks decides on the start too: before its own support, a task takes
    `warm_steps` on what is kept of its `stream.neighbours` nearest, each by its weight. θ is meta-learned through both.
    Without a memory, as on tasks outside the stream or in its first round, it starts from θ.
    """

    needs_rounds: ClassVar[bool] = True
    starts_near: ClassVar[bool] = True

    warm_steps: Steps = 5

    def start(self, model: Model, meta_params: Params, support: Batch) -> Params:
        """θ after the warm start, (T, ...) each."""
        stacked = super().start(model, meta_params, support)
        if "memory" not in support.inputs:
            return stacked
        shared = {name: value for name, value in meta_params.items() if name not in stacked}
        memory = support.inputs["memory"].to(support.weights)
        some = memory.sum(1) > 0
        # Any weights do for a task without a memory: its loss counts for nothing.
        batch = support._replace(weights=torch.where(some.unsqueeze(1), memory, 1.0))

        def losses(point: Params) -> Tensor:
            outputs = model.outputs(shared, point, batch.inputs, self.inner_dropout)
            return self.objective(model, outputs, batch) * some

        def rate(name: str, step: int) -> float | Tensor:
            return self.rate(meta_params, support, name, step)

        *_, last = gradient_descent(
            losses, stacked, rate, self.warm_steps, self.inner_first_order, self.inner_clip_norm
        )
        return last
