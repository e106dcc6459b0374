"""Code shared by task families: the registry, loaded data, figures of single tasks, and manifests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from tokenizers import Tokenizer
from torch import Tensor

from distmeta.config import RunConfig
from distmeta.data.look import Look
from distmeta.protocols import Codec, Scoring, TaskFamily
from distmeta.registry import Registry
from distmeta.types import Batch, Metrics, Statistics, Stream

registry = Registry("data.kind", "distmeta.tasks")

MANIFEST_FORMAT = 1


class Split(NamedTuple):
    """The classes and examples of meta-training, meta-validation or meta-test."""

    classes: tuple[str, ...]
    examples: int
    sample: str  # one example, as shown to users
    drawn: tuple[str, ...] | None = None  # the classes that episodes use; None: all


class Loaded(NamedTuple):
    """A task family that is ready for drawing episodes.

    `streams` holds each split's streams: one for meta-training, one for meta-validation, any number for meta-test.
    `look` says what stands out in the data, if they were read.
    """

    family: TaskFamily
    splits: dict[str, Split]
    streams: dict[str, list[Stream]]
    look: Look | None = None


class Examples(Protocol):
    """The examples of a family, read and split."""

    reads: str  # the kind of inputs: text | numbers
    architecture: dict[str, Any]  # for a body that reads numbers

    def texts(self) -> Iterable[str]:
        """The texts of meta-training, from which a tokenizer may be built."""

    def load(self, tokenizer: Tokenizer | None, architecture: Mapping[str, Any]) -> Loaded:
        """Tokenises the texts and returns the family.

        Args:
            tokenizer: None for families of numbers.
            architecture: of the body. `max_length`, if present, is the most tokens that the body takes.

        Raises:
            UserError: the data or its settings cannot be used; the error names what is wrong.
        """


class Kind(Protocol):
    """Interface of a registered options class."""

    def read(self, name: str, config: RunConfig) -> Examples:
        """Reads the data and checks it against this family's configuration. Driver only.

        Args:
            name: of the family.
            config: `RunConfig.single(name)` of the run's configuration.

        Raises:
            UserError: the data or its settings cannot be used; the error names what is wrong.
        """

    def codec(self, name: str, settings: Mapping[str, Any], tokenizer: Tokenizer | None) -> Codec:
        """The family's codec, which a learner uses without the family's data.

        Args:
            name: of the family.
            settings: what `TaskFamily.codec_settings` returned.
            tokenizer: of the learner; None for families of numbers.
        """


class Family:
    """Code that is the same for all families."""

    def statistics(self, outputs: Tensor, batch: Batch) -> Statistics:
        """Sums of each task, (T, …) each."""
        raise NotImplementedError

    def figures(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Figures over all episodes of the first axis."""
        raise NotImplementedError

    def with_outside(self, stream: Stream) -> Stream | None:
        """None: there is nothing that belongs to no class."""
        return None

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
    """The examples in the first episodes of a stream, as plain JSON."""
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
    """Weighted mean over each task's elements, (T, E) and (T, E) → (T,)."""
    return (values * weights).sum(-1) / weights.sum(-1)
