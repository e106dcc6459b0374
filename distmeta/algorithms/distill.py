"""Meta knowledge distillation: a small learner is meta-trained on the labels and on a large learner's predictions.

Yong Wu, Shekhor Chanda, Mehrdad Hosseinzadeh, Zhi Liu, Yang Wang. Few-Shot Learning of Compact Models via Task-Specific
Meta Distillation. WACV 2023. https://arxiv.org/abs/2210.09922: a teacher adapted to a task guides the student's
adaptation. The paper meta-trains both together, and a new task needs both. Here a new task needs only the student,
and the teacher is meta-trained first, as in Haojie Pan et al. Meta-KD: A Meta Knowledge Distillation Framework for
Language Model Compression across Domains. ACL 2021. https://arxiv.org/abs/2012.01266.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from distmeta.algorithms.base import Rate, registry
from distmeta.algorithms.protomaml import ProtoMAML
from distmeta.config.base import Location
from distmeta.protocols import Model
from distmeta.types import Batch


def imitation(outputs: Tensor, teacher: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """τ² · KL(teacher ‖ student) of the softened predictions: a weighted mean over each task's examples.

    Geoffrey Hinton, Oriol Vinyals, Jeff Dean. Distilling the Knowledge in a Neural Network. 2015, §2.
    https://arxiv.org/abs/1503.02531. The factor τ² keeps the size of the gradient independent of τ.

    Args:
        outputs: of the student, (T, B, N).
        teacher: outputs of the teacher, (T, B, N).
        weights: of the examples, (T, B).
        temperature: τ. Both outputs are divided by it.

    Returns:
        (T,) losses.
    """
    target, prediction = (teacher / temperature).log_softmax(-1), (outputs / temperature).log_softmax(-1)
    divergence = (target.exp() * (target - prediction)).sum(-1)
    return temperature**2 * (divergence * weights).sum(-1) / weights.sum(-1)


@registry.register("distill")
@dataclass(frozen=True, kw_only=True)
class Distill(ProtoMAML):
    """Proto-MAML whose inner and outer losses are (1 − weight) · label loss + weight · `imitation`.

    The teacher's outputs are in `batch.inputs["teacher"]`, in meta-training only. Without them the loss is the
    label loss.
    """

    has_teacher: ClassVar[bool] = True

    teacher: Location | None = None  # run directory of the teacher; required in meta-training
    # Chosen for jobs/distill.yaml by meta-validation: a teacher adapted to few examples is soft enough.
    weight: Annotated[float, Field(ge=0, le=1)] = 0.9  # of `imitation`, from 0 to 1
    temperature: Rate = 1.0

    def objective(self, model: Model, outputs: Tensor, batch: Batch) -> Tensor:
        """(T,) losses, of support or query."""
        labels = super().objective(model, outputs, batch)
        if "teacher" not in batch.inputs:
            return labels
        soft = imitation(outputs, batch.inputs["teacher"], batch.weights, self.temperature)
        return (1 - self.weight) * labels + self.weight * soft
