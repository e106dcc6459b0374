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
    """Meta-trains θ on the current task and on remembered ones (`stream.replay`), with a warm start for each task.

    The paper keeps all tasks, samples them uniformly, and starts each from θ. Here a buffer of the latest tasks is
    replayed by similarity, and similar tasks also give the start: before its own support, a task takes `warm_steps` on
    the kept examples of its `stream.neighbours` nearest tasks, each with its weight. θ is meta-learned through both.
    Tasks without a memory start from θ: those outside the stream and those of the first round.
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
        has_memory = memory.sum(1) > 0
        # A task without a memory may have any weights, because its loss is multiplied by 0.
        batch = support._replace(weights=torch.where(has_memory.unsqueeze(1), memory, 1.0))

        def losses(point: Params) -> Tensor:
            outputs = model.outputs(shared, point, batch.inputs, self.inner_dropout)
            return self.objective(model, outputs, batch) * has_memory

        def rate(name: str, step: int) -> float | Tensor:
            return self.rate(meta_params, support, name, step)

        *_, last = gradient_descent(
            losses, stacked, rate, self.warm_steps, self.inner_first_order, self.inner_clip_norm
        )
        return last
