"""Labelled texts after reading and splitting, which become a family of classification."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from tokenizers import Tokenizer

from distmeta.config import RunConfig
from distmeta.data.further import corpus_of
from distmeta.data.labelled import Source
from distmeta.data.look import look
from distmeta.data.splits import Splits, Tasks
from distmeta.data.tokens import Reading
from distmeta.data.values import strings
from distmeta.errors import ConfigError, shortened
from distmeta.protocols import TaskFamily
from distmeta.tasks.base import Loaded, Split
from distmeta.tasks.drawing import Classes
from distmeta.tasks.shapes import streams_of

SAMPLE = 300  # characters of a text that users are shown


@dataclass(frozen=True)
class LabelledTexts:
    """Texts after reading and splitting (see `distmeta.tasks.base.Examples`)."""

    name: str
    config: RunConfig
    source: Source
    splits: Splits
    tasks: dict[str, Tasks] | None
    drawn: list[str]
    descriptions: dict[str, str]
    none: list[str]
    family: Callable[..., TaskFamily]  # makes one of a corpus, a drawing, a name and descriptions
    reading: Reading
    reads: str = "text"
    architecture: dict[str, Any] = field(default_factory=dict)

    def texts(self) -> Iterator[str]:
        """The texts of meta-training."""
        texts = chain.from_iterable(strings(self.source.texts_of(self.splits["meta_train"])))
        return map(self.reading.plain, texts)

    def load(self, tokenizer: Tokenizer | None, architecture: Mapping[str, Any]) -> Loaded:
        """Tokenises the texts.

        Raises:
            UserError: a key or row cannot be used; the error names it.
        """
        assert tokenizer is not None, "texts without a tokenizer"
        config, data, source = self.config, self.config.data, self.source
        if (longest := architecture.get("max_length", data.max_length)) < data.max_length:
            found = f"{data.max_length} tokens"
            raise ConfigError("data.max_length", found, f"{config.model.name} takes at most {longest}")
        corpus = corpus_of(source, self.splits, tokenizer, data, self.descriptions, self.none, self.reading)
        samples = {names[0]: source.texts_of(names[:1])[0].as_py() for names in self.splits.values()}
        described = {
            split: Split(tuple(names), len(corpus.rows(split)), shortened(f"{names[0]}: {samples[names[0]]}", SAMPLE))
            for split, names in self.splits.items()
        }
        subset = tuple(self.drawn) if len(self.drawn) < len(self.splits["meta_train"]) else None
        described["meta_train"] = described["meta_train"]._replace(drawn=subset)
        family = self.family(corpus, Classes(corpus, self.tasks, subset), self.name, self.descriptions)
        seen = look(source, self.splits, data.min_examples).with_tokens(corpus, tokenizer)
        return Loaded(family, described, streams_of(self.name, config), seen)
