"""N-way classification of texts: an episode draws classes, and examples of each to learn from and to test on.

The episodes of Vinyals et al. 2016, "Matching Networks for One Shot Learning" (https://arxiv.org/abs/1606.04080).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from distmeta.config import RunConfig
from distmeta.data.corpus import Corpus, build_corpus
from distmeta.data.sources import read_source
from distmeta.data.splits import SPLITS, Tasks, chosen_for_training, split_classes, split_tasks
from distmeta.errors import ConfigError
from distmeta.tasks.base import Loaded, Reader, Split, registry
from distmeta.tasks.rounds import Schedule
from distmeta.tasks.visits import visit_rows, with_memory
from distmeta.types import Batch, Episode, Inputs, Metrics, Score, Stream, Visit

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
        if config.episodes.label_mixing and config.data.task is not None:
            found = "classes of different tasks (data.task) do not mix"
            raise ConfigError("episodes.label_mixing", found, "leave it out")
        source = read_source(config.data)
        ways = {"meta_train": config.episodes.ways}
        ways |= dict.fromkeys(("meta_validation", "meta_test"), config.evaluation_ways)
        only, needed = config.episodes.only, config.examples_per_class
        if source.tasks is None:
            splits, tasks = split_classes(source, config.data, ways=ways, examples_per_class=needed), None
            drawn = chosen_for_training(splits["meta_train"], only)
            _check_drawn(config, drawn)
        else:
            splits, tasks = split_tasks(source, config.data, only, ways=ways, examples_per_class=needed)
            drawn = sorted(name for names in tasks["meta_train"] for name in names)
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
        some = tuple(drawn) if len(drawn) < len(splits["meta_train"]) else None
        described["meta_train"] = described["meta_train"]._replace(drawn=some)
        return Loaded(Classification(corpus, tasks, some), architecture, tokenizer, described)


def _check_drawn(config: RunConfig, drawn: Sequence[str]) -> None:
    """There are classes enough to draw from, of which mixed episodes need twice as many."""
    ways, found = config.episodes.ways, len(drawn)
    if found < ways:
        remedy = "widen it, or lower episodes.ways"
        raise ConfigError("episodes.only", f"fits {found} classes, and episodes have {ways} ways", remedy)
    if config.episodes.label_mixing and found < 2 * ways:
        remedy = "leave it out, lower episodes.ways, or use more classes"
        raise ConfigError("episodes.label_mixing", f"takes {2 * ways} classes, and meta_train has {found}", remedy)


class Draw(NamedTuple):
    """One episode: class names in label order, and corpus rows, support (N, shots) and query (N, queries)."""

    names: tuple[str, ...]
    support: np.ndarray
    query: np.ndarray


@dataclass(frozen=True)
class Classification:
    """The task kind (see `distmeta.protocols.TaskKind`): targets are positions among an episode's classes.

    Within a batch the examples stand class by class, in label order. With `tasks`, the classes of each task of each
    split, an episode is of one task and has all of its classes, in that order. With `drawn`, meta-training knows these
    of its classes alone. With a `schedule`, the tasks of meta-training arrive in rounds.
    """

    corpus: Corpus
    tasks: Mapping[str, Tasks] | None = None
    drawn: tuple[str, ...] | None = None
    schedule: Schedule | None = None
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

    def drawable(self, split: str) -> tuple[str, ...]:
        """The classes that the episodes of a split are of."""
        return self.drawn if self.drawn and split == "meta_train" else self.corpus.splits[split]

    def episode_at(self, stream: Stream, index: int) -> Draw:
        """The episode of that index: the same on any machine, whatever was drawn before.

        Classes come in random order, so that a label's position tells nothing; without `label_shuffle` the sorted
        classes are cut into N equal parts, and label n always is a class of the n-th. With the probability
        `label_mixing` each label stands for two classes, with half of the examples from each. Classes and rows are
        drawn without replacement, so that support and query share no row. Tasks that persist keep their labels.
        """
        if isinstance(stream, Visit):
            assert self.schedule is not None, "a visit to tasks without a schedule"
            names, rows = visit_rows(self.corpus, self.schedule, stream, index)
            return Draw(names, rows[:, : stream.shots], rows[:, stream.shots :])
        entropy = [stream.seed, SPLITS.index(stream.split), index, stream.ways, stream.shots, stream.queries]
        # PCG64 by name: numpy may change what default_rng stands for.
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
        mixed = bool(stream.label_mixing) and generator.random() < stream.label_mixing
        if self.tasks is None:
            labels = _draw_labels(self.drawable(stream.split), stream, 2 if mixed else 1, generator)
        else:
            tasks = self.tasks[stream.split]
            labels = [(name,) for name in tasks[generator.integers(len(tasks))]]
        support, query = zip(*(self._draw_rows(names, stream, generator) for names in labels), strict=True)
        return Draw(tuple(" + ".join(names) for names in labels), np.stack(support), np.stack(query))

    def _draw_rows(
        self, names: Sequence[str], stream: Stream, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows (shots,) and (queries,) of a label, in equal parts from each of its classes."""
        support, query = [], []
        for number, name in enumerate(names):
            # Of odd numbers the first class gives more of the support and the last more of the query.
            shots = (stream.shots + len(names) - 1 - number) // len(names)
            queries = (stream.queries + number) // len(names)
            rows = generator.choice(self.corpus.rows_of(name), shots + queries, replace=False)
            support.append(rows[:shots])
            query.append(rows[shots:])
        return np.concatenate(support), np.concatenate(query)

    def episodes(self, stream: Stream, first_index: int, count: int, tokens: bool = True) -> Episode:
        """Stacks the T = `count` episodes from `first_index`; S = ways × shots, Q = ways × queries."""
        draws = [self.episode_at(stream, index) for index in range(first_index, first_index + count)]
        support = self._batch(np.stack([draw.support for draw in draws]), tokens)
        if isinstance(stream, Visit) and stream.neighbours:
            support = with_memory(self, stream, first_index, support, tokens)
        query = self._batch(np.stack([draw.query for draw in draws]), tokens)
        return Episode(support, query, tuple(draw.names for draw in draws))

    def _batch(self, rows: np.ndarray, tokens: bool) -> Batch:
        """Rows (T, N, examples of a class) → a batch of B = N × examples."""
        tasks, ways, examples = rows.shape
        targets = torch.arange(ways).repeat_interleave(examples).repeat(tasks, 1)
        return Batch(self.collate(rows.reshape(tasks, -1), tokens), targets, torch.ones(targets.shape))

    def rows(self, split: str) -> np.ndarray:
        """All corpus rows of a split, (n,), shortest text first."""
        return self.corpus.rows(split)

    def collate(self, rows: np.ndarray, tokens: bool = True) -> Inputs:
        """`input_ids` and `attention_mask` (*rows.shape, L), `rows` themselves and their classes, all int64."""
        labels = torch.from_numpy(self.corpus.labels[rows].astype(np.int64))
        known = {"rows": torch.from_numpy(rows.astype(np.int64)), "labels": labels}
        return {**self.corpus.tokens(rows), **known} if tokens else known

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
            "stream": stream.to_json(),
            "episodes": [
                {
                    "classes": list(draw.names),
                    "support": self.corpus.source_rows[draw.support].tolist(),
                    "query": self.corpus.source_rows[draw.query].tolist(),
                }
                for draw in draws
            ],
        }


def _draw_labels(
    classes: Sequence[str], stream: Stream, each: int, generator: np.random.Generator
) -> list[tuple[str, ...]]:
    """N labels of `each` classes."""
    if stream.label_shuffle:
        drawn = [classes[i] for i in generator.choice(len(classes), stream.ways * each, replace=False)]
        return [tuple(drawn[n * each : (n + 1) * each]) for n in range(stream.ways)]
    ordered = sorted(classes)
    parts = np.array_split(np.arange(len(ordered)), stream.ways)
    return [tuple(ordered[i] for i in generator.choice(part, each, replace=False)) for part in parts]


def manifest_sha256(manifest: dict[str, Any]) -> str:
    """SHA-256 hex of the manifest's canonical JSON: sorted keys, no spaces."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum(-1) / weights.sum(-1)
