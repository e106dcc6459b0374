"""What task kinds share: the registry, and what loading one gives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

from tokenizers import Tokenizer

from distmeta.config import RunConfig
from distmeta.protocols import TaskKind
from distmeta.registry import Registry

registry = Registry("data.kind", "distmeta.tasks")


class Split(NamedTuple):
    """What may be seen in meta-training, meta-validation or meta-test."""

    classes: tuple[str, ...]
    examples: int
    sample: str  # one of them, for people to see
    drawn: tuple[str, ...] | None = None  # the classes that episodes are of, where not all


class Loaded(NamedTuple):
    """A task kind ready to draw from, and what the model's body is to be built for."""

    task: TaskKind
    architecture: dict[str, Any]
    tokenizer: Tokenizer | None
    splits: dict[str, Split]


class Reader(Protocol):
    """What a task kind needs of the model."""

    def prepare(self, path: str | None, texts: Iterable[str]) -> tuple[Tokenizer, dict[str, Any]]:
        """The tokenizer, made of these meta-training texts if the model is not pretrained, and the architecture."""


class Kind(Protocol):
    """What a registered class of options offers."""

    def load(self, config: RunConfig, model: Reader) -> Loaded:
        """Reads the data and checks it against the configuration. Driver only.

        Raises:
            UserError: naming what does not fit.
        """
