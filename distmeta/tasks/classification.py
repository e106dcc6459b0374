"""N-way classification of texts: an episode draws classes, and support and query examples of each class.

The episodes of Vinyals et al. 2016, "Matching Networks for One Shot Learning" (https://arxiv.org/abs/1606.04080).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from distmeta.config import DataConfig, RunConfig
from distmeta.data.corpus import Corpus
from distmeta.data.further import MARK, NONE, is_class, read_descriptions, without_none
from distmeta.data.labelled import Source
from distmeta.data.sources import read_source
from distmeta.data.splits import SPLITS, chosen_for_training, split_classes, split_tasks
from distmeta.data.tokens import PLAIN, Reading
from distmeta.tasks.base import registry
from distmeta.tasks.classes import ClassScoring, TextCodec
from distmeta.tasks.drawing import Draw, Drawing
from distmeta.tasks.labelled import LabelledTexts
from distmeta.tasks.shapes import DESCRIBED, check_drawn, check_mixing, check_none
from distmeta.types import OTHER, OWN, UNLABELLED, Batch, Episode, Inputs, Stream


@dataclass(frozen=True)
class Classification(ClassScoring):
    """The task family (see `distmeta.protocols.TaskFamily`): targets are positions in an episode's list of classes.

    Within a batch the examples stand class by class, in label order. How episodes are drawn is `drawing`'s decision.
    """

    corpus: Corpus
    drawing: Drawing
    name: str = "classification"
    descriptions: Mapping[str, str] = field(default_factory=dict)  # of all classes, or none

    @property
    def fingerprint(self) -> str:
        """Hash of the texts, splits and tokens."""
        return self.corpus.fingerprint

    @property
    def source(self) -> str:
        """Hash of the labelled texts, independent of the tokenizer."""
        return self.corpus.source_fingerprint

    @property
    def classes(self) -> int:
        """The number of classes in all splits."""
        return sum(map(is_class, self.corpus.classes))

    @cached_property
    def _numbers(self) -> np.ndarray:
        """The number of the class of each of the corpus's labels, int64; 0 for texts of no class."""
        number = {name: n for n, name in enumerate(filter(is_class, self.corpus.classes))}
        return np.array([number.get(name.removeprefix(MARK), 0) for name in self.corpus.classes], np.int64)

    def draw(self, stream: Stream, index: int) -> Draw:
        """The episode of that index."""
        return self.drawing.draw(stream, index)

    def batch(self, draws: Sequence[Draw], tokens: bool = True) -> Episode:
        """Stacks T draws; S = ways × shots, Q = ways × queries."""
        support = self._batch(np.stack([draw.support for draw in draws]), tokens)
        if draws[0].memory is not None:
            support = self._with_memory(draws, support, tokens)
        if draws[0].described is not None:
            support = self._with_described(draws, support, tokens)
        if draws[0].unlabelled is not None:
            rows = np.stack([draw.unlabelled.ravel() for draw in draws if draw.unlabelled is not None])
            support = self._with_more(support, rows, UNLABELLED, torch.ones(rows.shape[1]), tokens)
        query = self._batch(np.stack([draw.query for draw in draws]), tokens)
        if draws[0].outside is not None:
            rows = np.stack([draw.outside for draw in draws if draw.outside is not None])
            names = (self.corpus.classes[label] for label in self.corpus.labels[rows[0]])
            marks = torch.tensor([OWN if name.startswith(NONE) else OTHER for name in names])
            query = self._with_more(query, rows, "outside", marks, tokens)
        return Episode(self.name, support, query, tuple(draw.names for draw in draws))

    def _batch(self, rows: np.ndarray, tokens: bool) -> Batch:
        """Rows (T, N, examples of a class) → a batch of B = N × examples."""
        tasks, ways, examples = rows.shape
        targets = torch.arange(ways).repeat_interleave(examples).repeat(tasks, 1)
        return Batch(self._inputs(rows.reshape(tasks, -1), tokens), targets, torch.ones(targets.shape), ways)

    def _with_memory(self, draws: Sequence[Draw], support: Batch, tokens: bool) -> Batch:
        """Puts the draws' memories before the support examples, with weight 0.

        The input `memory` (T, B) is an example's weight in the warm start: its task's weight, 0 for support examples.
        """
        rows, shares = (np.stack(part) for part in zip(*(draw.memory for draw in draws if draw.memory), strict=True))
        tasks, count, ways, size = rows.shape
        weights = torch.tensor(shares, dtype=support.weights.dtype).repeat_interleave(ways * size, dim=1)
        targets = torch.arange(ways).repeat_interleave(size).repeat(tasks, count)
        everything = np.concatenate([rows.reshape(tasks, -1), support.inputs["rows"].numpy()], axis=1)
        memory = torch.cat([weights, torch.zeros_like(support.weights)], dim=1)
        return Batch(
            {**self._inputs(everything, tokens), "memory": memory},
            torch.cat([targets, support.targets], dim=1),
            torch.cat([torch.zeros_like(weights), support.weights], dim=1),
            support.outputs,
        )

    def _with_described(self, draws: Sequence[Draw], support: Batch, tokens: bool) -> Batch:
        """Puts the description of each class behind the support examples, as one more example of it."""
        rows = np.stack([draw.described for draw in draws if draw.described is not None])
        everything = np.concatenate([support.inputs["rows"].numpy(), rows], axis=1)
        targets = torch.cat([support.targets, torch.arange(support.outputs).expand(len(draws), -1)], dim=1)
        weights = F.pad(support.weights, (0, support.outputs), value=1.0)
        return Batch(self._inputs(everything, tokens), targets, weights, support.outputs)

    def _with_more(self, batch: Batch, rows: np.ndarray, name: str, marks: torch.Tensor, tokens: bool) -> Batch:
        """Puts examples (T, n) of weight 0 behind the others. The input `name` (T, B) is `marks` (n,) there, else 0."""
        everything = np.concatenate([batch.inputs["rows"].numpy(), rows], axis=1)
        count = rows.shape[1]
        others = torch.zeros(batch.targets.shape, dtype=marks.dtype)
        inputs = {**self._inputs(everything, tokens), name: torch.cat([others, marks.expand(len(rows), -1)], dim=1)}
        return Batch(inputs, F.pad(batch.targets, (0, count)), F.pad(batch.weights, (0, count)), batch.outputs)

    def with_outside(self, stream: Stream) -> Stream | None:
        """The same episodes with texts of other classes, as many as queries of a class, and as many of no class."""
        count, more = stream["queries"], list[tuple[str, int]]()
        more += [("outside", count)] if self.drawing.has_others(stream) else []
        more += [("none", count)] if NONE + stream.split in self.corpus.classes else []
        return replace(stream, shape=(*stream.shape, *more)) if more else None

    def to_json(self, draw: Draw) -> dict[str, Any]:
        """Rows of the files. `support` and `query` hold one list of rows per class, in the order of `classes`.

        With texts of other classes, `outside` has their rows; with texts without labels, `unlabelled` by class.
        """
        rows = {"support": draw.support, "query": draw.query}
        rows |= {} if draw.outside is None else {"outside": draw.outside}
        rows |= {} if draw.unlabelled is None else {UNLABELLED: draw.unlabelled}
        texts = {} if draw.described is None else {"descriptions": [self.descriptions[name] for name in draw.names]}
        return {
            "classes": list(draw.names),
            **texts,
            **{name: self.corpus.source_rows[its].tolist() for name, its in rows.items()},
        }

    def rows(self, split: str) -> np.ndarray:
        """All corpus rows of a split, (n,), shortest text first; with descriptions and texts of no class."""
        corpus, rows = self.corpus, self.corpus.rows(split)
        marked = {NONE + split, *(MARK + name for name in corpus.splits[split])}
        more = [corpus.rows_of(name) for name in corpus.classes if name in marked]
        return corpus.by_length(np.concatenate([rows, *more])) if more else rows

    def collate(self, rows: np.ndarray) -> Inputs:
        """`input_ids` and `attention_mask` (*rows.shape, L), `rows` and their classes `labels`, all int64."""
        return self._inputs(rows, tokens=True)

    def _inputs(self, rows: np.ndarray, tokens: bool) -> Inputs:
        labels = torch.from_numpy(self._numbers[self.corpus.labels[rows]])
        known = {"rows": torch.from_numpy(rows.astype(np.int64)), "labels": labels}
        return {**self.corpus.tokens(rows), **known} if tokens else known

    def outputs(self, stream: Stream) -> int:
        """One output per class."""
        ways: int = stream["ways"]
        return ways

    def describe(self, shape: Mapping[str, Any]) -> str:
        """For example 5-way 1-shot."""
        title = f"{shape['ways']}-way {shape['shots']}-shot"
        more = ["descriptions"] if shape.get(DESCRIBED) else []
        more += [f"{shape[UNLABELLED]} unlabelled"] if shape.get(UNLABELLED) else []
        return f"{title} with {' and '.join(more)}" if more else title

    def codec_settings(self) -> dict[str, Any]:
        """The most tokens of a text, and the number of classes in all splits."""
        return {"max_length": self.corpus.max_length, "classes": self.classes}


@registry.register("classification")
@dataclass(frozen=True, kw_only=True)
class ClassificationData:
    """Labelled texts. The keys of the section `data` say where they are."""

    family: ClassVar[type[Classification]] = Classification

    @property
    def reading(self) -> Reading:
        """How texts become inputs."""
        return PLAIN

    def source(self, data: DataConfig, enough: int) -> Source:
        """The labelled texts; a class that would have fewer than `enough` keeps its copies."""
        return read_source(data, enough)

    def read(self, name: str, config: RunConfig) -> LabelledTexts:
        """Reads and splits the texts.

        Raises:
            UserError: a key, file or row cannot be used; the error names it.
        """
        check_mixing(config)
        ways = {SPLITS[0]: config.episodes.ways, **dict.fromkeys(SPLITS[1:], config.evaluation_ways)}
        only, needed = config.episodes.only, config.examples_per_class
        enough = max(needed, config.data.min_examples)
        source, none = without_none(self.source(config.data, enough), config.data.none)
        check_none(config, none)
        if source.tasks is None:
            splits, tasks = split_classes(source, config.data, ways=ways, examples_per_class=needed), None
            drawn = chosen_for_training(splits["meta_train"], only)
            check_drawn(config, drawn)
        else:
            splits, tasks = split_tasks(source, config.data, only, ways=ways, examples_per_class=needed)
            drawn = sorted(label for names in tasks["meta_train"] for label in names)
        descriptions = read_descriptions(config.data, sorted(chain.from_iterable(splits.values())))
        if descriptions:
            remark = f"each of {len(descriptions):,} classes has a description, which joins its support sets"
            source = replace(source, remarks=(*source.remarks, remark))
        return LabelledTexts(name, config, source, splits, tasks, drawn, descriptions, none, self.family, self.reading)

    def codec(self, name: str, settings: Mapping[str, Any], tokenizer: Tokenizer | None) -> TextCodec:
        """The codec of a learner without data."""
        assert tokenizer is not None, "texts without a tokenizer"
        return TextCodec(name, tokenizer, settings["max_length"], settings["classes"])
