"""Fine-tunes a linear classifier on a given encoder: the transfer baseline.

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
    """Trains a new head and the body's parameters in `inner.adapt` on the support set, by gradient descent.

    The body comes from pretraining, or from meta-training by another algorithm such as `multitask`. The paper fits a
    logistic regression until it converges. Here the head takes `inner_steps` steps from zero, so it stays small.
    """

    inner_lr: Rate = 0.5  # the head's is divided by the mean squared length of the support features
    inner_steps: Steps = 50
    inner_adapt: str | tuple[str, ...] = "head"
    baseline: ClassVar[str | None] = "fine-tuned head, frozen encoder"
    trains: ClassVar[bool] = False
    learns_through_steps: ClassVar[bool] = False

    def adapts(self, names: Sequence[str]) -> list[str]:
        """The chosen parameters of the body. The head is not in θ and is always adapted."""
        return [name for name in super().adapts(names) if not name.startswith("head.")]

    def starting(self, params: Params) -> Params:
        """The body."""
        return without_head(params)

    def rate(self, meta_params: Params, support: Batch, name: str, step: int) -> float | Tensor:
        """The step size. If only the head is trained, features of any length give stable steps."""
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
