"""Two task families that the package does not have: elements that are tokens, and outputs that are positions in a text.

Their texts are made up. `tags`: each token has a class, and which words are of which class differs between tasks.
`spans`: a word of the task stands somewhere in a text, and the answer begins behind it and is as long as the task says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from distmeta.config import RunConfig
from distmeta.data.splits import SPLITS
from distmeta.tasks.base import Family, Loaded, Split, registry, weighted_mean
from distmeta.types import Batch, Episode, HeadSpec, Inputs, Score, Statistics, Stream

WORDS = [f"w{number}" for number in range(24)]
GROUPS = 4  # of words that always share a class
LONGEST = 7


class Draw(NamedTuple):
    """Words of each text, and of each word what is right: support and query."""

    name: str
    texts: tuple[list[list[int]], list[list[int]]]
    answers: tuple[list[list[int]], list[list[int]]]

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)


@dataclass(frozen=True)
class MadeUp(Family):
    """What both families share: words, batches of texts, streams."""

    name: str
    ids: tuple[int, ...] = ()  # of WORDS in the tokenizer
    reads: ClassVar[str] = "text"
    head: ClassVar[HeadSpec] = HeadSpec("token")
    has_classes: ClassVar[bool]
    classes: ClassVar[int] = 0
    fingerprint: ClassVar[str] = "made up"
    source: ClassVar[str] = "made up"
    samples: ClassVar[tuple[dict[str, Any], ...]] = ()
    max_length: ClassVar[int] = 0

    def cut(self, examples: Sequence[Mapping[str, Any]]) -> int:
        return 0

    def sentence(self, generator: np.random.Generator) -> list[int]:
        return [int(word) for word in generator.integers(len(WORDS), size=generator.integers(4, LONGEST))]

    def draw(self, stream: Stream, index: int) -> Draw:
        raise NotImplementedError

    def generator(self, stream: Stream, index: int) -> np.random.Generator:
        return np.random.default_rng([stream.seed, SPLITS.index(stream.split), index, stream["shots"]])

    def batch(self, draws: Sequence[Draw], tokens: bool = True) -> Episode:
        support, query = (
            self._batch([draw.texts[n] for draw in draws], [draw.answers[n] for draw in draws]) for n in (0, 1)
        )
        return Episode(self.name, support, query, tuple(draw.names for draw in draws))

    def _batch(self, texts: list[list[list[int]]], answers: list[list[list[int]]]) -> Batch:
        raise NotImplementedError

    def _padded(self, rows: list[list[list[int]]], longest: int) -> np.ndarray:
        """(T, B, L), padded with −1."""
        return np.array([[row + [-1] * (longest - len(row)) for row in task] for task in rows])

    def _inputs(self, texts: list[list[list[int]]]) -> tuple[Inputs, Tensor]:
        longest = max(len(text) for task in texts for text in task)
        words = self._padded(texts, longest)
        ids = np.array(self.ids)[np.maximum(words, 0)]
        mask = torch.from_numpy(words >= 0).long()
        return {"input_ids": torch.from_numpy(ids), "attention_mask": mask}, mask

    def to_json(self, draw: Draw) -> dict[str, Any]:
        return {"texts": draw.texts, "answers": draw.answers}

    def rows(self, split: str) -> np.ndarray:
        return np.zeros(0, np.int64)

    def collate(self, rows: np.ndarray) -> Inputs:
        raise IndexError("no rows")

    def describe(self, shape: Mapping[str, Any]) -> str:
        return f"{shape['shots']}-shot"

    def codec_settings(self) -> dict[str, Any]:
        return {"ids": self.ids}

    def names(self, examples: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        return ("first", "second")

    def _no_answer(self, words: Sequence[int]) -> list[int]:
        return [0] * (len(words) if self.has_classes else 2)

    def encode(self, examples: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Batch:
        """Examples as draws have them: ``{"words": […], "answer": […]}``."""
        answers = [list(example.get("answer", self._no_answer(example["words"]))) for example in examples]
        return self._batch([[list(example["words"]) for example in examples]], [answers])


@dataclass(frozen=True)
class Tags(MadeUp):
    """Targets are the tokens' classes, (T, E) with E = B · L; padding has weight 0."""

    kind: ClassVar[str] = "tags"
    score: ClassVar[Score] = Score("accuracy", is_share=True, higher_is_better=True)
    has_classes: ClassVar[bool] = True

    def draw(self, stream: Stream, index: int) -> Draw:
        generator = self.generator(stream, index)
        class_of = generator.permutation(GROUPS) % 2
        texts = tuple(
            [[*range(0, len(WORDS), len(WORDS) // GROUPS)], *(self.sentence(generator) for _ in range(stream[name]))]
            for name in ("shots", "queries")
        )
        answers = tuple([[int(class_of[w * GROUPS // len(WORDS)]) for w in text] for text in part] for part in texts)
        return Draw(f"classes {class_of.tolist()}", texts, answers)  # type: ignore[arg-type]

    def _batch(self, texts: list[list[list[int]]], answers: list[list[list[int]]]) -> Batch:
        inputs, mask = self._inputs(texts)
        targets = torch.from_numpy(np.maximum(self._padded(answers, mask.shape[-1]), 0))
        return Batch(inputs, targets.flatten(1), mask.flatten(1).float(), 2)

    def outputs(self, stream: Stream) -> int:
        return 2

    def decode(self, outputs: Tensor, batch: Batch, names: Sequence[str]) -> list[dict[str, Any]]:
        mask = batch.inputs["attention_mask"][0]
        classes = outputs[0].argmax(-1).view(mask.shape)
        return [{"answer": row[present.bool()].tolist()} for row, present in zip(classes, mask, strict=True)]

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        losses = F.cross_entropy(outputs.flatten(0, 1), batch.targets.flatten(), reduction="none")
        return weighted_mean(losses.view_as(batch.targets), batch.weights)

    def statistics(self, outputs: Tensor, batch: Batch) -> Statistics:
        weights = batch.weights.double()
        right = (outputs.argmax(-1) == batch.targets).double()
        total = weights.sum(-1)
        return {"loss": self.loss(outputs, batch) * total, "right": (right * weights).sum(-1), "tokens": total}

    def figures(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        total = {name: float(value.sum()) for name, value in statistics.items()}
        return {"loss": total["loss"] / total["tokens"], "accuracy": total["right"] / total["tokens"]}


@dataclass(frozen=True)
class Spans(MadeUp):
    """Targets (T, E, 2) mark where a text's answer starts and ends; a softmax goes over the positions of a text."""

    kind: ClassVar[str] = "spans"
    score: ClassVar[Score] = Score("exact", is_share=True, higher_is_better=True)
    has_classes: ClassVar[bool] = False

    def draw(self, stream: Stream, index: int) -> Draw:
        generator = self.generator(stream, index)
        word = int(generator.integers(4))

        def text() -> tuple[list[int], list[int]]:
            words = [w for w in self.sentence(generator) if w > 3] + [10, 11]
            place = int(generator.integers(len(words) - 1))
            return [*words[:place], word, *words[place:]], [place, place + 1]

        parts = [[text() for _ in range(stream[name])] for name in ("shots", "queries")]
        texts, answers = (tuple([its[n] for its in part] for part in parts) for n in (0, 1))
        return Draw(f"behind {WORDS[word]}", texts, answers)  # type: ignore[arg-type]

    def _batch(self, texts: list[list[list[int]]], answers: list[list[list[int]]]) -> Batch:
        inputs, mask = self._inputs(texts)
        targets = F.one_hot(torch.tensor(answers), mask.shape[-1]).transpose(2, 3)  # (T, B, L, 2)
        return Batch(inputs, targets.flatten(1, 2), mask.flatten(1).float(), 2)

    def outputs(self, stream: Stream) -> int:
        return 2

    def decode(self, outputs: Tensor, batch: Batch, names: Sequence[str]) -> list[dict[str, Any]]:
        found = self._by_text(outputs, batch)[0].argmax(2)[0]
        return [{"answer": ends} for ends in found.tolist()]

    def _by_text(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(T, B, L, 2) log probabilities of positions, and targets."""
        texts = int(batch.targets[0, :, 0].sum())  # each has one start
        shape = (len(outputs), texts, -1, 2)
        masked = outputs.masked_fill(batch.weights.unsqueeze(-1) == 0, torch.finfo(outputs.dtype).min)
        return masked.view(shape).log_softmax(2), batch.targets.view(shape)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        known, targets = self._by_text(outputs, batch)
        return -known.masked_fill(targets == 0, 0.0).sum((2, 3)).mean(1)

    def statistics(self, outputs: Tensor, batch: Batch) -> Statistics:
        known, targets = self._by_text(outputs, batch)
        exact = (known.argmax(2) == targets.argmax(2)).all(-1).double()
        texts = torch.full((len(outputs),), float(exact.shape[1]), dtype=torch.float64)
        return {"loss": self.loss(outputs, batch) * texts, "exact": exact.sum(-1), "texts": texts}

    def figures(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        total = {name: float(value.sum()) for name, value in statistics.items()}
        return {"loss": total["loss"] / total["texts"], "exact": total["exact"] / total["texts"]}


@dataclass(frozen=True)
class Sentences:
    """Made-up texts (see `distmeta.tasks.base.Examples`)."""

    family: type[MadeUp]
    name: str
    config: RunConfig
    reads: str = "text"
    architecture: dict[str, Any] = field(default_factory=dict)

    def texts(self) -> Iterator[str]:
        return iter([" ".join(WORDS)] * 2)

    def load(self, tokenizer: Tokenizer | None, architecture: Mapping[str, Any]) -> Loaded:
        assert tokenizer is not None
        family = self.family(self.name, tuple(tokenizer.token_to_id(word) or 0 for word in WORDS))
        episodes, evaluation = self.config.episodes, self.config.evaluation

        def stream(split: str, seed: int, shots: int, queries: int) -> Stream:
            return Stream.of(self.name, split, seed, shots=shots, queries=queries)

        streams = {
            "meta_train": [stream("meta_train", self.config.seed, episodes.shots, episodes.queries)],
            "meta_validation": [stream("meta_validation", evaluation.seed, episodes.shots, evaluation.queries)],
            "meta_test": [stream("meta_test", evaluation.seed, n, evaluation.queries) for n in evaluation.shots],
        }
        made: Any = family
        return Loaded(made, {split: Split((), 0, "made up") for split in SPLITS}, streams)


@registry.register("tags")
@dataclass(frozen=True, kw_only=True)
class TagsData:
    def read(self, name: str, config: RunConfig) -> Sentences:
        return Sentences(Tags, name, config)

    def codec(self, name: str, settings: Mapping[str, Any], tokenizer: Tokenizer | None) -> Tags:
        return Tags(name, tuple(settings["ids"]))


@registry.register("spans")
@dataclass(frozen=True, kw_only=True)
class SpansData:
    def read(self, name: str, config: RunConfig) -> Sentences:
        return Sentences(Spans, name, config)

    def codec(self, name: str, settings: Mapping[str, Any], tokenizer: Tokenizer | None) -> Spans:
        return Spans(name, tuple(settings["ids"]))
