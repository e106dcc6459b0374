"""What task families share: the registry, what loading one gives, figures of single tasks, and manifests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from tokenizers import Tokenizer
from torch import Tensor

from distmeta.config import RunConfig
from distmeta.protocols import Codec, Scoring, TaskFamily
from distmeta.registry import Registry
from distmeta.types import Batch, Metrics, Statistics, Stream

registry = Registry("data.kind", "distmeta.tasks")

MANIFEST_FORMAT = 1


class Split(NamedTuple):
    """What may be seen in meta-training, meta-validation or meta-test."""

    classes: tuple[str, ...]
    examples: int
    sample: str  # one of them, for people to see
    drawn: tuple[str, ...] | None = None  # the classes that episodes are of, where not all


class Loaded(NamedTuple):
    """A task family ready to draw from.

    `streams` are the episodes of each split: one stream for meta-training and meta-validation, any number of them for
    meta-test.
    """

    family: TaskFamily
    splits: dict[str, Split]
    streams: dict[str, list[Stream]]


class Examples(Protocol):
    """The examples of a family, read and split."""

    reads: str  # the kind of inputs: text | numbers
    architecture: dict[str, Any]  # for a body that reads numbers

    def texts(self) -> Iterable[str]:
        """Those of meta-training, of which a tokenizer may be made."""

    def load(self, tokenizer: Tokenizer | None, architecture: Mapping[str, Any]) -> Loaded:
        """The family, its texts tokenised.

        Args:
            tokenizer: None where numbers are read.
            architecture: of the body; `max_length`, if it is there, is the most tokens that it takes.

        Raises:
            UserError: naming what does not fit.
        """


class Kind(Protocol):
    """What a registered class of options offers."""

    def read(self, name: str, config: RunConfig) -> Examples:
        """Reads the data and checks it against the configuration of this one family. Driver only.

        Args:
            name: of the family.
            config: `RunConfig.single(name)` of the run's.

        Raises:
            UserError: naming what does not fit.
        """

    def codec(self, name: str, settings: Mapping[str, Any], tokenizer: Tokenizer | None) -> Codec:
        """What a learner of this family needs of it, without any data.

        Args:
            name: of the family.
            settings: what `TaskFamily.codec_settings` returned.
            tokenizer: of the learner; None where numbers are read.
        """


class Family:
    """What all families do alike."""

    def statistics(self, outputs: Tensor, batch: Batch) -> Statistics:
        """Sums of each task, (T, …) each."""
        raise NotImplementedError

    def figures(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Figures of the episodes along the first axis together."""
        raise NotImplementedError

    def metrics(self, outputs: Tensor, batch: Batch) -> Metrics:
        """Figures of each task, each (T,) float64, detached."""
        statistics = {name: value.cpu() for name, value in self.statistics(outputs.detach(), batch).items()}
        rows = each(self, statistics)
        return {name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in rows[0]}


def each(family: Scoring | Family, statistics: Mapping[str, Any]) -> list[dict[str, float]]:
    """The figures of each single episode."""
    count = len(next(iter(statistics.values())))
    return [family.figures({name: value[t : t + 1] for name, value in statistics.items()}) for t in range(count)]


def manifest(family: TaskFamily, stream: Stream, episodes: int) -> dict[str, Any]:
    """Which examples the first episodes of a stream are made of, as plain JSON."""
    return {
        "format": MANIFEST_FORMAT,
        "kind": family.kind,
        "source": family.source,
        "stream": stream.to_json(),
        "episodes": [family.to_json(family.draw(stream, index)) for index in range(episodes)],
    }


def manifest_sha256(content: Mapping[str, Any]) -> str:
    """SHA-256 hex of a manifest's canonical JSON: sorted keys, no spaces."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Means over the elements of each task, (T, E) and (T, E) → (T,)."""
    return (values * weights).sum(-1) / weights.sum(-1)
