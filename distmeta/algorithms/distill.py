"""Meta knowledge distillation: a small learner is meta-trained on a large one's soft predictions beside the labels.

Yong Wu, Shekhor Chanda, Mehrdad Hosseinzadeh, Zhi Liu, Yang Wang. Few-Shot Learning of Compact Models via Task-Specific
Meta Distillation. WACV 2023. https://arxiv.org/abs/2210.09922: the teacher, adapted to a task, guides the student's
adaptation. There both are meta-trained together, and a new task needs both. Here a new task needs the student alone,
and the teacher is meta-trained beforehand, as in Haojie Pan et al. Meta-KD: A Meta Knowledge Distillation Framework for
Language Model Compression across Domains. ACL 2021. https://arxiv.org/abs/2012.01266.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from distmeta.algorithms.base import Rate, registry
from distmeta.algorithms.protomaml import ProtoMAML
from distmeta.protocols import Model
from distmeta.types import Batch


def imitation(outputs: Tensor, teacher: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """τ² · KL(teacher ‖ student) of the softened predictions, as a weighted mean over each task's examples.

    Geoffrey Hinton, Oriol Vinyals, Jeff Dean. Distilling the Knowledge in a Neural Network. 2015, §2.
    https://arxiv.org/abs/1503.02531. With τ² the gradient keeps its size whatever τ.

    Args:
        outputs: the student's, (T, B, N).
        teacher: the teacher's, (T, B, N).
        weights: of the examples, (T, B).
        temperature: τ, by which both outputs are divided.

    Returns:
        (T,) losses.
    """
    known, said = (teacher / temperature).log_softmax(-1), (outputs / temperature).log_softmax(-1)
    divergence = (known.exp() * (known - said)).sum(-1)
    return temperature**2 * (divergence * weights).sum(-1) / weights.sum(-1)


@registry.register("distill")
@dataclass(frozen=True, kw_only=True)
class Distill(ProtoMAML):
    """Proto-MAML whose inner and outer losses are (1 − weight) · loss of the labels + weight · `imitation`.

    The teacher's outputs are in `batch.inputs["teacher"]`, in meta-training alone; without them the loss is that of the
    labels.
    """

    has_teacher: ClassVar[bool] = True

    teacher: str | None = None  # its run directory; must be given to meta-train
    # Chosen for jobs/distill.yaml on its meta-validation: a teacher that has adapted to few examples is soft enough.
    weight: Annotated[float, Field(ge=0, le=1)] = 0.9  # of the teacher against the labels
    temperature: Rate = 1.0

    def objective(self, model: Model, outputs: Tensor, batch: Batch) -> Tensor:
        """(T,) losses that support and query are learned by."""
        labels = super().objective(model, outputs, batch)
        if "teacher" not in batch.inputs:
            return labels
        soft = imitation(outputs, batch.inputs["teacher"], batch.weights, self.temperature)
        return (1 - self.weight) * labels + self.weight * soft
