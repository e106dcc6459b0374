"""Transfer learning: multi-task learning of one shared body, then fine-tuning.

Rich Caruana. Multitask Learning. Machine Learning 28, 1997. https://doi.org/10.1023/A:1007379606734. As a baseline of
few-shot classification: Wei-Yu Chen, Yen-Cheng Liu, Zsolt Kira, Yu-Chiang Frank Wang, Jia-Bin Huang. A Closer Look at
Few-shot Classification. ICLR 2019. https://arxiv.org/abs/1904.04232
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distmeta.algorithms.base import Rate, concatenate, gradient_of, registry
from distmeta.algorithms.finetune import FineTune
from distmeta.algorithms.inner import expand
from distmeta.errors import ConfigError
from distmeta.protocols import Model
from distmeta.types import Batch, Episode, Metrics, Params


@registry.register("multitask")
@dataclass(frozen=True, kw_only=True)
class MultiTask(FineTune):
    """Minimises Σ_i L_i over the support and query examples of all tasks, with one common head.

    In classification the common head has all classes as outputs, and a new task gets its own head. Otherwise the
    tasks share the head, and fine-tuning starts from it. The sum's λR is `outer.regularizer`.
    """

    scale: Rate = 1.0  # of the logits in meta-training; features of unit length need about 10
    baseline: ClassVar[str | None] = None
    trains: ClassVar[bool] = True
    joins_sets: ClassVar[bool] = True

    def check(self, model: Model, outputs: int) -> None:
        """Refuses a scale for tasks without classes, and what `FineTune` refuses."""
        if self.scale != MultiTask.scale and not model.task.classes:
            raise ConfigError("algorithm.scale", f"{self.scale:g}, and these tasks have no classes", "leave it out")
        super().check(model, outputs)

    def init(self, model: Model, generator: torch.Generator) -> Params:
        """θ: the body, and the common head."""
        params = super().init(model, generator)
        if not model.task.classes:
            return {**model.init(), **params}
        weight = torch.randn(model.task.classes, model.dim, generator=generator) / model.dim**0.5
        weight = weight.to(next(iter(params.values()))) if params else weight
        return {**params, f"{_common(model)}.weight": weight, f"{_common(model)}.bias": weight.new_zeros(len(weight))}

    def start(self, model: Model, meta_params: Params, support: Batch) -> Params:
        """A new head of zeros if there are classes, else the common head."""
        if model.task.classes:
            return super().start(model, meta_params, support)
        names = [*self.adapts(list(meta_params)), *(name for name in meta_params if name.startswith("head."))]
        return expand(meta_params, names, len(support.targets))

    def meta_gradient(self, model: Model, meta_params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """Σ_i ∇L_i, and the metrics of the common head."""
        batch = concatenate(episode.support, episode.query)

        def losses(leaves: Params) -> tuple[Tensor, Metrics]:
            if not model.task.classes:
                outputs, targets = model.outputs(leaves, {}, batch.inputs), batch
            else:
                features = model.features(leaves, {}, batch.inputs)
                weight, bias = leaves[f"{_common(model)}.weight"], leaves[f"{_common(model)}.bias"]
                outputs = self.scale * (features @ weight.T + bias)
                targets = batch._replace(targets=batch.inputs["labels"])
            return model.task.loss(outputs, targets), model.task.metrics(outputs, targets)

        return gradient_of(losses, meta_params)


def _common(model: Model) -> str:
    """Name of a family's common head."""
    return f"meta.classes.{model.task.name}"
