"""N-way classification of texts: an episode draws classes, and examples of each to learn from and to test on.

The episodes of Vinyals et al. 2016, "Matching Networks for One Shot Learning" (https://arxiv.org/abs/1606.04080).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from distmeta.config import RunConfig
from distmeta.errors import ConfigError
from distmeta.tasks.base import Loaded, Reader, Split, registry
from distmeta.tasks.corpus import Corpus, build_corpus
from distmeta.tasks.sources import read_source
from distmeta.tasks.splits import SPLITS, split_classes
from distmeta.types import Batch, Episode, Inputs, Metrics, Score, Stream

MANIFEST_FORMAT = 1


@registry.register("classification")
@dataclass(frozen=True, kw_only=True)
class ClassificationData:
    """Labelled texts; the section's own keys say where they are."""

    def load(self, config: RunConfig, model: Reader) -> Loaded:
        """Reads, splits and tokenises the texts.

        Raises:
            UserError: naming the key, file or row that does not do.
        """
        source = read_source(config.data)
        ways = {"meta_train": config.episodes.ways}
        ways |= dict.fromkeys(("meta_validation", "meta_test"), config.evaluation_ways)
        splits = split_classes(source, config.data, ways=ways, examples_per_class=config.examples_per_class)
        seen = set(splits["meta_train"])
        texts = (text for text, label in zip(source.texts, source.labels, strict=True) if label in seen)
        tokenizer, architecture = model.prepare(config.model.path, texts)
        if (longest := architecture.get("max_length", config.data.max_length)) < config.data.max_length:
            raise ConfigError(
                "data.max_length", f"{config.data.max_length} tokens", f"{config.model.name} takes at most {longest}"
            )
        corpus = build_corpus(source, splits, tokenizer, config.data.max_length, config.data.cache)
        samples = {names[0]: source.texts[source.labels.index(names[0])] for names in splits.values()}
        described = {
            split: Split(tuple(names), len(corpus.rows(split)), f"{names[0]}: {samples[names[0]]}")
            for split, names in splits.items()
        }
        return Loaded(Classification(corpus), architecture, tokenizer, described)


class Draw(NamedTuple):
    """One episode: class names in label order, and corpus rows, support (N, shots) and query (N, queries)."""

    names: tuple[str, ...]
    support: np.ndarray
    query: np.ndarray


@dataclass(frozen=True)
class Classification:
    """The task kind (see `distmeta.types.TaskKind`): targets are positions among an episode's classes.

    Within a batch the examples stand class by class, in label order.
    """

    corpus: Corpus
    score: ClassVar[Score] = Score("accuracy", is_share=True, higher_is_better=True)
    has_classes: ClassVar[bool] = True
    reads: ClassVar[str] = "text"

    @property
    def fingerprint(self) -> str:
        """Of the texts, their splits and their tokens."""
        return self.corpus.fingerprint

    @property
    def classes(self) -> int:
        """The classes of all splits."""
        return len(self.corpus.classes)

    def episode_at(self, stream: Stream, index: int) -> Draw:
        """The episode of that index: the same on any machine, whatever was drawn before.

        Classes come in random order, so that a label's position tells nothing. Classes and rows are drawn
        without replacement, so that support and query share no row.
        """
        entropy = [stream.seed, SPLITS.index(stream.split), index, stream.ways, stream.shots, stream.queries]
        # PCG64 by name: numpy may change what default_rng stands for.
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
        classes = self.corpus.splits[stream.split]
        names = tuple(classes[i] for i in generator.choice(len(classes), stream.ways, replace=False))
        size = stream.shots + stream.queries
        rows = np.stack([generator.choice(self.corpus.rows_of(name), size, replace=False) for name in names])
        return Draw(names, rows[:, : stream.shots], rows[:, stream.shots :])

    def episodes(self, stream: Stream, first_index: int, count: int) -> Episode:
        """Stacks the T = `count` episodes from `first_index`; S = ways × shots, Q = ways × queries."""
        draws = [self.episode_at(stream, index) for index in range(first_index, first_index + count)]
        support = self._batch(np.stack([draw.support for draw in draws]))
        query = self._batch(np.stack([draw.query for draw in draws]))
        return Episode(support, query, tuple(draw.names for draw in draws))

    def _batch(self, rows: np.ndarray) -> Batch:
        """Rows (T, N, examples of a class) → a batch of B = N × examples."""
        tasks, ways, examples = rows.shape
        targets = torch.arange(ways).repeat_interleave(examples).repeat(tasks, 1)
        return Batch(self.collate(rows.reshape(tasks, -1)), targets, torch.ones(targets.shape))

    def rows(self, split: str) -> np.ndarray:
        """All corpus rows of a split, (n,), shortest text first."""
        return self.corpus.rows(split)

    def collate(self, rows: np.ndarray) -> Inputs:
        """`input_ids` and `attention_mask` (*rows.shape, L), `rows` themselves and their classes, all int64."""
        labels = torch.from_numpy(self.corpus.labels[rows].astype(np.int64))
        return {**self.corpus.tokens(rows), "rows": torch.from_numpy(rows.astype(np.int64)), "labels": labels}

    def outputs(self, ways: int) -> int:
        """One output a class."""
        return ways

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Weighted mean cross-entropy of each task: outputs (T, B, N) → (T,)."""
        # Flattened, because the kernel for (T, N, B) is not deterministic on GPUs.
        losses = F.cross_entropy(outputs.flatten(0, 1), batch.targets.flatten(), reduction="none")
        return _mean(losses.view_as(batch.targets), batch.weights)

    def metrics(self, outputs: Tensor, batch: Batch) -> Metrics:
        """Weighted `loss` and `accuracy` of each task, (T,) each, detached."""
        outputs = outputs.detach()
        right = (outputs.argmax(-1) == batch.targets).double()
        return {"loss": self.loss(outputs, batch), "accuracy": _mean(right, batch.weights.double())}

    def manifest(self, stream: Stream, episodes: int) -> dict[str, Any]:
        """The first `episodes` episodes as plain JSON, in rows of the source: no tokenizer enters into it.

        `support` and `query` hold one list of rows a class, in the order of `classes`.
        """
        draws = (self.episode_at(stream, index) for index in range(episodes))
        return {
            "format": MANIFEST_FORMAT,
            "kind": "classification",
            "source": self.corpus.source_fingerprint,
            "stream": asdict(stream),
            "episodes": [
                {
                    "classes": list(draw.names),
                    "support": self.corpus.source_rows[draw.support].tolist(),
                    "query": self.corpus.source_rows[draw.query].tolist(),
                }
                for draw in draws
            ],
        }


def manifest_sha256(manifest: dict[str, Any]) -> str:
    """SHA-256 hex of the manifest's canonical JSON: sorted keys, no spaces."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum(-1) / weights.sum(-1)
