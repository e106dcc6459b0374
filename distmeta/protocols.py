"""What acts on the nouns of `distmeta.types`: the interfaces between the rooms.

    Scoring         loss and figures of elements     (tasks/)
    TaskFamily      … and draws → Episode            (tasks/)
    Codec           … and examples → Batch           (tasks/)
    Model           pure functions of parameters     (models/)
    MetaLearner     an algorithm                     (algorithms/)
    Work            what is done to units            (engine/)

Those within the engine are in `distmeta.engine.interfaces`.

Axes are those of `distmeta.types`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from distmeta.config import OuterConfig
from distmeta.types import (
    Adapted,
    Batch,
    Episode,
    HeadSpec,
    Inputs,
    Metrics,
    Mix,
    Params,
    Score,
    Statistics,
    Stream,
)

Example = Mapping[str, Any]  # what a family says that it holds, such as text and label
Prediction = dict[str, Any]


class Draw(Protocol):
    """One episode before its tensors are made: small and picklable."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the targets stand for."""


class Scoring(Protocol):
    """What elements are, and how outputs on them are scored: all that learning a task needs of its family."""

    kind: ClassVar[str]  # under which the family is registered
    score: ClassVar[Score]
    head: ClassVar[HeadSpec]
    reads: ClassVar[str]  # the kind of inputs: text | numbers
    has_classes: ClassVar[bool]  # whether targets are classes of elements, (T, E) whole numbers

    @property
    def name(self) -> str:
        """In `Stream.family`, and of its head's parameters, `head.NAME.*`."""

    @property
    def classes(self) -> int:
        """How many classes all splits have together; `labels` (T, E) of inputs count up to it. 0: no such numbers."""

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean loss of each task, (T,)."""

    def statistics(self, outputs: Tensor, batch: Batch) -> Statistics:
        """Sums of each task, (T, …) each, detached: added over tasks they give the figures of all of them."""

    def figures(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Figures of the episodes along the first axis together; `loss` and the score's name are among them."""

    def metrics(self, outputs: Tensor, batch: Batch) -> Metrics:
        """Figures of each task, each (T,), detached."""


class Codec(Scoring, Protocol):
    """What a person gives and gets: examples → batches, outputs → predictions. It needs no data."""

    def names(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """What the targets of a new task stand for, from its examples."""

    def encode(self, examples: Sequence[Example], names: Sequence[str]) -> Batch:
        """Examples of one task, with targets or without, as a batch with T = 1.

        Raises:
            DataError: an example that lacks something; it is named by its number, from 1.
        """

    def decode(self, outputs: Tensor, batch: Batch, names: Sequence[str]) -> list[Prediction]:
        """Outputs (1, E, N) on a batch as predictions, one an example."""


class TaskFamily(Scoring, Protocol):
    """One kind of task: how its episodes are made, and how they are scored.

    It is picklable: workers draw by themselves.
    """

    @property
    def fingerprint(self) -> str:
        """Hash of all the data that it draws from."""

    @property
    def source(self) -> str:
        """Hash of the examples that draws are made of, whatever becomes of them in the model."""

    def draw(self, stream: Stream, index: int) -> Draw:
        """The episode of that index: a pure function, the same on any machine, whatever was drawn before."""

    def batch(self, draws: Sequence[Any], tokens: bool = True) -> Episode:
        """Stacks draws of one stream; the same ones give the same tensors anywhere.

        Without `tokens`, inputs hold what is known of the rows, but not what a body reads of them. That is asked of a
        family with rows alone.
        """

    def to_json(self, draw: Any) -> dict[str, Any]:
        """A draw for manifests: which examples of the source it is made of."""

    def rows(self, split: str) -> np.ndarray:
        """All corpus rows of a split, shortest text first; none where examples are made up as they are needed."""

    def collate(self, rows: np.ndarray) -> Inputs:
        """Inputs of any rows, padded to the longest, with the shape of `rows` in front."""

    def outputs(self, stream: Stream) -> int:
        """How many outputs a head needs for a stream's episodes."""

    def describe(self, shape: Mapping[str, Any]) -> str:
        """What people call episodes of a shape, such as 5-way 1-shot."""

    def codec_settings(self) -> dict[str, Any]:
        """What its codec needs beside the tokenizer, as plain JSON."""


class Model(Protocol):
    """Pure functions of parameters, for one family: body and head make elements of inputs, the head outputs of them.

    Parameters are named `body.*` and `head.FAMILY.*`.
    """

    task: Scoring
    dim: int  # D, the number of features of an element
    twice_differentiable: bool  # whether all of its kernels have a second derivative
    reads: tuple[str, ...]  # the inputs that the body takes
    frozen_head: bool  # whether a parameter of the head is frozen
    one_element_each: bool  # whether an example is one element, so that its features can be kept by its row

    def own(self, params: Params) -> Params:
        """Parameters without the heads of other families."""

    def init(self) -> Params:
        """Starting values of everything that is not frozen."""

    def encode(self, shared: Params, adapted: Iterable[str], inputs: Inputs) -> Inputs:
        """Runs once over all tasks' inputs what comes before the first of the names that differ between tasks."""

    def features(self, shared: Params, stacked: Params, inputs: Inputs) -> Tensor:
        """(T, E, D) elements; `stacked` holds the parameters that differ between tasks, (T, ...) each."""

    def outputs(self, shared: Params, stacked: Params, inputs: Inputs, dropout: float = 0.0) -> Tensor:
        """(T, E, N) outputs of the head on the elements, of which meta-training drops the share `dropout`."""

    def head_from_prototypes(self, centres: Tensor, scale: float) -> Params:
        """A head for each task that scores by −scale · squared distance to centres (T, N, D), up to a constant."""

    def head_of_zeros(self, tasks: int, outputs: int, like: Tensor) -> Params:
        """A head for each task whose parameters are all zero."""

    def train(self, mode: bool) -> None:
        """Switches dropout on or off."""


class MetaLearner(Protocol):
    """A published algorithm: a frozen dataclass whose fields are its hyperparameters.

    Parameters of its own in θ are named `meta.*`; the model's are `body.*` and `head.*`. It tells what it needs of the
    rest, and what it changes there; `distmeta.algorithms.base.Algorithm` has the defaults.
    """

    baseline: ClassVar[str | None]  # its row in every evaluation, by that name, without any meta-training
    trains: ClassVar[bool]  # whether it has a meta-gradient at all
    needs_rounds: ClassVar[bool]  # whether its tasks must arrive in rounds
    replays: ClassVar[bool]  # whether examples of earlier rounds may be met again
    starts_near: ClassVar[bool]  # whether a task starts from the most similar earlier rounds
    anchored: ClassVar[bool]  # whether the proximal regulariser's anchor moves up to θ with each round
    has_teacher: ClassVar[bool]  # whether another run's learner meets its episodes: the option `teacher` names the run

    def check(self, model: Model, outputs: int) -> None:
        """Raises a `ConfigError` where it cannot go together with the model or its family.

        Args:
            model: is asked for its parameters and its family.
            outputs: N of the largest episodes.
        """

    def outer(self, outer: OuterConfig) -> OuterConfig:
        """The server's settings, as this algorithm needs them."""

    def adapts(self, names: Sequence[str]) -> list[str]:
        """Which of the model's parameters each task gets a copy of."""

    def init(self, model: Model, generator: torch.Generator) -> Params:
        """θ from the model's starting values: may leave some out and add its own."""

    def meta_gradient(self, model: Model, meta_params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """The gradient with respect to θ summed over the episode's tasks, and figures of each task."""

    def adapt(self, model: Model, meta_params: Params, support: Batch) -> Adapted:
        """Learns each task from its support set."""

    def predict(self, model: Model, adapted: Adapted, inputs: Inputs) -> Tensor:
        """(T, E, N) outputs of the adapted learners."""


class StepwiseLearner(MetaLearner, Protocol):
    """A learner that adapts step by step, so that its adaptation curve can be drawn."""

    def trajectory(self, model: Model, meta_params: Params, support: Batch) -> Iterator[Adapted]:
        """The learner after 0, 1, 2, … of its steps; the last is what `adapt` returns."""


@dataclass(frozen=True)
class Work:
    """What is done to each unit: meta-gradients on a stream, or (not `training`) adaptation and its statistics.

    `cache_features` runs the body once a row instead of once an episode: for learners that do not adapt the body, while
    it does not change. A `curve` has the statistics after each of the learner's inner steps, from 0 on. With `encodes`
    a unit is no episodes but chunks of the rows of the stream's split (see `distmeta.engine.encode`), counted alike,
    and its result their features.
    """

    stream: Stream | Mix
    learner: MetaLearner
    training: bool
    cache_features: bool = False
    curve: bool = False
    encodes: bool = False
