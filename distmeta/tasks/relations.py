"""Relations between two entities that are marked in a sentence: N-way classification of pairs.

The episodes of FewRel: Xu Han, Hao Zhu, Pengfei Yu, Ziyun Wang, Yuan Yao, Zhiyuan Liu, Maosong Sun. FewRel: A
Large-Scale Supervised Few-Shot Relation Classification Dataset with State-of-the-Art Evaluation. EMNLP 2018.
https://arxiv.org/abs/1810.10147
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tokenizers import Tokenizer

from distmeta.config import DataConfig, RunConfig
from distmeta.data.labelled import Source
from distmeta.data.marked import read_marked
from distmeta.data.pairs import Pairs
from distmeta.errors import ConfigError
from distmeta.protocols import Example
from distmeta.tasks.base import registry
from distmeta.tasks.classes import ClassScoring, TextCodec
from distmeta.tasks.classification import Classification, ClassificationData
from distmeta.tasks.labelled import LabelledTexts
from distmeta.types import HeadSpec


class PairScoring(ClassScoring):
    """Scores outputs whose targets are relations."""

    kind: ClassVar[str] = "relations"
    head: ClassVar[HeadSpec] = HeadSpec("pair")


@dataclass(frozen=True)
class Relations(PairScoring, Classification):
    """The task family: texts of `distmeta.tasks.classification` in which head and tail are marked."""


@dataclass(frozen=True)
class PairCodec(PairScoring, TextCodec):
    """Converts users' sentences, in which ``[E1]…[/E1]`` and ``[E2]…[/E2]`` mark head and tail."""

    samples: ClassVar[tuple[Example, ...]] = (
        {"text": "[E1]Lyon[/E1] is a city in [E2]France[/E2]", "label": "country"},
        {"text": "the capital of [E2]Peru[/E2] is [E1]Lima[/E1]", "label": "country"},
        {"text": "[E1]Emma[/E1] was written by [E2]Jane Austen[/E2]", "label": "author"},
        {"text": "[E2]Tolstoy[/E2] published [E1]War and Peace[/E1] in 1869", "label": "author"},
    )


@registry.register("relations")
@dataclass(frozen=True, kw_only=True)
class RelationsData(ClassificationData):
    """Sentences with two marked entities.

    `pair` says what stands for an entity: the mean state of its tokens, or the state of a sign that is put before it.
    """

    family: ClassVar[type[Classification]] = Relations
    pair: Literal["spans", "points"] = "spans"

    @property
    def reading(self) -> Pairs:
        """How sentences become inputs."""
        return Pairs(points=self.pair == "points")

    def read(self, name: str, config: RunConfig) -> LabelledTexts:
        """Reads and splits the sentences.

        Raises:
            UserError: a key, file or row cannot be used; the error names it.
        """
        if config.data.descriptions is not None:
            found = "a relation is shown by sentences with marked entities, not by a description"
            raise ConfigError("data.descriptions", found, "leave it out")
        return super().read(name, config)

    def source(self, data: DataConfig, enough: int) -> Source:
        """The sentences; a relation that would have fewer than `enough` keeps its copies."""
        return read_marked(data, enough)

    def codec(self, name: str, settings: Mapping[str, Any], tokenizer: Tokenizer | None) -> PairCodec:
        """The codec of a learner without data."""
        assert tokenizer is not None, "texts without a tokenizer"
        return PairCodec(name, tokenizer, settings["max_length"], settings["classes"], self.reading)
