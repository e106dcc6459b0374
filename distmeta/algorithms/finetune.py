"""Fine-tuning of a linear classifier on a given encoder: the transfer baseline.

Yonglong Tian, Yue Wang, Dilip Krishnan, Joshua B. Tenenbaum, Phillip Isola. Rethinking Few-Shot Image Classification: a
Good Embedding Is All You Need? ECCV 2020. https://arxiv.org/abs/2003.11539
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distmeta.algorithms.base import GradientBased, Rate, Steps, registry, without_head
from distmeta.algorithms.inner import expand
from distmeta.protocols import Model
from distmeta.types import Batch, Params


@registry.register("finetune")
@dataclass(frozen=True, kw_only=True)
class FineTune(GradientBased):
    """A new head, all zeros, and what `inner.adapt` names of the body, trained on the support set by gradient descent.

    The body comes from elsewhere: pretraining, or meta-training by another algorithm such as `multitask`. The paper
    fits a logistic regression until it converges; here it is `inner_steps` steps from zero, which keeps the head small.
    """

    inner_lr: Rate = 0.5  # of the head: in units of one over the mean squared length of the support features
    inner_steps: Steps = 50
    inner_adapt: str | tuple[str, ...] = "head"
    baseline: ClassVar[str | None] = "fine-tuned head, frozen encoder"
    trains: ClassVar[bool] = False
    learns_through_steps: ClassVar[bool] = False

    def adapts(self, names: Sequence[str]) -> list[str]:
        """The chosen parameters of the body; the head, which is not in θ, always is."""
        return [name for name in super().adapts(names) if not name.startswith("head.")]

    def starting(self, params: Params) -> Params:
        """The body."""
        return without_head(params)

    def rate(self, meta_params: Params, support: Batch, name: str, step: int) -> float | Tensor:
        """Where the head alone is trained, a step that is stable whatever the length of the features."""
        rate = super().rate(meta_params, support, name, step)
        if "features" not in support.inputs:
            return rate
        squares = 1 + support.inputs["features"].square().sum(-1).mean(1)  # 1 for the bias
        return rate / squares.view(-1, *(1,) * (2 if name.endswith(".weight") else 1))

    def start(self, model: Model, meta_params: Params, support: Batch) -> Params:
        """A head of zeros for each task."""
        tasks = len(support.targets)
        head = model.head_of_zeros(tasks, support.outputs, like=next(iter(meta_params.values())))
        return {**expand(meta_params, self.adapts(list(meta_params)), tasks), **head}
