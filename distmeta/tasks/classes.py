"""Text classification without data: scoring of outputs, and conversion of users' texts and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from distmeta.data.tokens import PLAIN, Reading, count_cut, tokens_of
from distmeta.errors import DataError
from distmeta.protocols import Example, Prediction
from distmeta.tasks.base import Family, weighted_mean
from distmeta.types import UNLABELLED, Batch, HeadSpec, Score, Statistics


class ClassScoring(Family):
    """Scores outputs whose targets are classes of texts."""

    kind: ClassVar[str] = "classification"
    score: ClassVar[Score] = Score("accuracy", is_share=True, higher_is_better=True)
    head: ClassVar[HeadSpec] = HeadSpec("text")
    has_classes: ClassVar[bool] = True
    reads: ClassVar[str] = "text"

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Weighted mean cross-entropy of each task: outputs (T, B, N) → (T,)."""
        # Flattened because the kernel for (T, N, B) is not deterministic on GPUs.
        losses = F.cross_entropy(outputs.flatten(0, 1), batch.targets.flatten(), reduction="none")
        return weighted_mean(losses.view_as(batch.targets), batch.weights)

    def statistics(self, outputs: Tensor, batch: Batch) -> Statistics:
        """Sums over the examples of each task, (T,) each: `loss`, `right` answers and `weight`."""
        weights = batch.weights.double()
        right = (outputs.argmax(-1) == batch.targets).double()
        total = weights.sum(-1)
        return {"loss": self.loss(outputs, batch) * total, "right": (right * weights).sum(-1), "weight": total}

    def figures(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Weighted mean `loss` and `accuracy`."""
        total = {name: float(value.sum()) for name, value in statistics.items()}
        return {"loss": total["loss"] / total["weight"], "accuracy": total["right"] / total["weight"]}


@dataclass(frozen=True)
class TextCodec(ClassScoring):
    """Converts users' texts and labels (see `distmeta.protocols.Codec`): ``{"text": …, "label": …}``."""

    given: ClassVar[tuple[str, ...]] = ("text",)
    answer: ClassVar[str] = "label"
    samples: ClassVar[tuple[Example, ...]] = (
        {"text": "where is my parcel", "label": "delivery"},
        {"text": "it has not arrived yet", "label": "delivery"},
        {"text": "I want my money back", "label": "refund"},
        {"text": "please take back the payment", "label": "refund"},
    )

    name: str
    tokenizer: Tokenizer
    max_length: int
    classes: int
    reading: Reading = PLAIN

    def cut(self, examples: Sequence[Example]) -> int:
        """How many texts have more than `max_length` tokens."""
        return count_cut([example["text"] for example in examples], self.tokenizer, self.max_length, self.reading)

    def names(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """The labels, sorted."""
        return tuple(sorted({self._string(example, "label", n) for n, example in enumerate(examples, 1)}))

    def encode(self, examples: Sequence[Example], names: Sequence[str], first: int = 1) -> Batch:
        """One task. Examples without a label have target 0 and weight 0."""
        texts = [self._string(example, "text", number) for number, example in enumerate(examples, first)]
        number = {name: target for target, name in enumerate(names)}
        targets = torch.tensor([[number[example["label"]] if "label" in example else 0 for example in examples]])
        weights = torch.tensor([[float("label" in example) for example in examples]])
        inputs = tokens_of(texts, self.tokenizer, self.max_length, first, self.reading)
        return Batch(inputs, targets, weights, len(names))

    def shape(self, batch: Batch) -> dict[str, float]:
        """Ways, and shots: how many examples a class has, as the geometric mean; and those without a label, a class."""
        counts = torch.bincount(batch.targets[0], batch.weights[0], minlength=batch.outputs)
        more = int((batch.weights == 0).sum())
        shape = {"ways": batch.outputs, "shots": float(counts.clamp(min=1).log().mean().exp())}
        return {**shape, UNLABELLED: more / batch.outputs} if more else shape

    def decode(self, outputs: Tensor, batch: Batch, names: Sequence[str], threshold: float = 0.0) -> list[Prediction]:
        """Each text's `label`, its `certainty`, and its `probabilities` by label."""
        predictions: list[Prediction] = []
        for shares in outputs[0].softmax(-1).tolist():
            certainty, label = max(zip(shares, names, strict=True), key=lambda pair: pair[0])
            answer = label if certainty >= threshold else None
            by_name = dict(zip(names, shares, strict=True))
            predictions.append({"label": answer, "certainty": certainty, "probabilities": by_name})
        return predictions

    def _string(self, example: Example, key: str, number: int) -> str:
        if not isinstance(value := example.get(key), str) or not value.strip():
            found = f"{key} is {value!r}" if key in example else f"has no {key}"
            raise DataError(f"example {number}", found, f"give a {key} that is a string and not empty")
        return value
