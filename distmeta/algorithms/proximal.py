"""Sequential pretraining with a proximal term: fine-tuning from task to task that stays near the previous θ.

The penalty is L2-SP of Xuhong Li, Yves Grandvalet, Franck Davoine. Explicit Inductive Bias for Transfer Learning with
Convolutional Networks. ICML 2018. https://arxiv.org/abs/1802.01483, with a reference that is updated after each round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from distmeta.algorithms.base import GradientBased, concatenate, gradient_of, registry
from distmeta.config import OuterConfig
from distmeta.errors import ConfigError
from distmeta.protocols import Model
from distmeta.types import Episode, Metrics, Params


@registry.register("proximal")
@dataclass(frozen=True, kw_only=True)
class Proximal(GradientBased):
    """Minimises Σ_i L_i(θ) + λ‖θ − θ_{t−1}‖² on all examples of round t's episodes, then adapts.

    θ_{t−1} is θ at the end of the previous round. The server owns θ, so it adds the penalty's gradient. With λ = 0 this
    is sequential fine-tuning.
    """

    proximal_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1  # λ
    learns_through_steps: ClassVar[bool] = False
    needs_rounds: ClassVar[bool] = True
    replays: ClassVar[bool] = False
    anchored: ClassVar[bool] = True

    def outer(self, outer: OuterConfig) -> OuterConfig:
        """The server's settings with λ‖·‖². The weight is doubled, because the server's regulariser has a factor ½.

        Raises:
            ConfigError: another regulariser is set.
        """
        if outer.regularizer != "none":
            found = f"{outer.regularizer}, but proximal has its own"
            raise ConfigError("outer.regularizer", found, "leave it out and set algorithm.proximal_weight")
        return outer.model_copy(update={"regularizer": "proximal", "regularizer_weight": 2 * self.proximal_weight})

    def meta_gradient(self, model: Model, meta_params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """Σ_i ∇L_i(θ), without inner steps."""
        batch = concatenate(episode.support, episode.query)

        def losses(leaves: Params) -> tuple[Tensor, Metrics]:
            outputs = model.outputs(leaves, {}, batch.inputs)
            return model.task.loss(outputs, batch), model.task.metrics(outputs, batch)

        return gradient_of(losses, meta_params)
