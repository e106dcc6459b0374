"""The interfaces between packages, which use the data types of `distmeta.types`.

    Scoring         loss and figures of elements     (tasks/)
    TaskFamily      … and draws → Episode            (tasks/)
    Codec           … and examples → Batch           (tasks/)
    Model           pure functions of parameters     (models/)
    MetaLearner     an algorithm                     (algorithms/)

Interfaces within the engine are in `distmeta.engine.interfaces`.

Axes are those of `distmeta.types`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    Params,
    Score,
    Statistics,
    Stream,
)

Example = Mapping[str, Any]  # the family defines its keys, such as text and label
Prediction = dict[str, Any]


class Draw(Protocol):
    """One episode before its tensors are made. It is small and picklable."""

    @property
    def names(self) -> tuple[str, ...]:
        """The meanings of the targets."""


class Scoring(Protocol):
    """The kind of elements, and how their outputs are scored: all that learning a task needs from its family."""

    kind: ClassVar[str]  # the name it is registered under
    score: ClassVar[Score]
    head: ClassVar[HeadSpec]
    reads: ClassVar[str]  # the kind of inputs: text | numbers
    has_classes: ClassVar[bool]  # whether targets are classes of elements, (T, E) whole numbers

    @property
    def name(self) -> str:
        """The family's name, in `Stream.family` and in its head's parameters, `head.NAME.*`."""

    @property
    def classes(self) -> int:
        """How many classes all splits have together; `labels` (T, E) of inputs are below it. 0: there are no labels."""

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean loss of each task, (T,)."""

    def statistics(self, outputs: Tensor, batch: Batch) -> Statistics:
        """Sums of each task, (T, …) each, detached. Added over tasks, they give the figures of all tasks."""

    def figures(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Figures of all episodes along the first axis together, with `loss` and the score's name among them."""

    def metrics(self, outputs: Tensor, batch: Batch) -> Metrics:
        """Figures of each task, each (T,), detached."""


class Codec(Scoring, Protocol):
    """Converts for users: examples → batches, outputs → predictions. It needs no training data."""

    given: ClassVar[tuple[str, ...]]  # what an example to predict holds: its keys, or columns of a file
    answer: ClassVar[str]  # the key of what is predicted
    samples: ClassVar[tuple[Example, ...]]  # a small task, to show users how examples look

    @property
    def max_length(self) -> int:
        """How many tokens of an input are read; the others are cut. 0: inputs have no length."""

    def cut(self, examples: Sequence[Example]) -> int:
        """How many examples, which `encode` takes, have more tokens than are read."""

    def names(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """The meanings of a new task's targets, from its examples."""

    def encode(self, examples: Sequence[Example], names: Sequence[str], first: int = 1) -> Batch:
        """Examples of one task, with targets or without, as a batch with T = 1.

        Raises:
            DataError: an example cannot be used; the error gives its number, counted from `first`.
        """

    def shape(self, batch: Batch) -> dict[str, float]:
        """The shape of a task with this support batch (T = 1), in the terms of `Stream.shape`."""

    def decode(self, outputs: Tensor, batch: Batch, names: Sequence[str], threshold: float = 0.0) -> list[Prediction]:
        """Predictions, one an example, from the outputs (1, E, N) on a batch.

        With classes, a prediction has its `certainty`; below `threshold` it abstains: its answer is None.
        """


class TaskFamily(Scoring, Protocol):
    """One kind of task: how its episodes are made, and how they are scored.

    It is picklable: workers draw episodes themselves.
    """

    @property
    def fingerprint(self) -> str:
        """Hash of all data that the family draws from."""

    @property
    def source(self) -> str:
        """Hash of the examples that are drawn, independent of how the model reads them."""

    def draw(self, stream: Stream, index: int) -> Draw:
        """The episode of an index: a pure function, the same on any machine and after any other draws."""

    def batch(self, draws: Sequence[Any], tokens: bool = True) -> Episode:
        """Stacks draws of one stream. Equal draws give equal tensors anywhere.

        Without `tokens`, inputs hold the row numbers and the like, but not what a body reads. Only families with rows
        are called so.
        """

    def to_json(self, draw: Any) -> dict[str, Any]:
        """A draw for manifests: the examples of the source that it uses."""

    def rows(self, split: str) -> np.ndarray:
        """All corpus rows of a split, shortest text first; empty if examples are generated when they are needed."""

    def collate(self, rows: np.ndarray) -> Inputs:
        """Inputs of any rows, padded to the longest, with the shape of `rows` in front."""

    def outputs(self, stream: Stream) -> int:
        """How many outputs a head needs for a stream's episodes."""

    def describe(self, shape: Mapping[str, Any]) -> str:
        """The title of episodes of a shape, such as 5-way 1-shot."""

    def with_outside(self, stream: Stream) -> Stream | None:
        """The episodes of a stream, with elements in the query sets that belong to none of the episode's classes.

        They have weight 0, and the input `outside` (T, E) is 1 for them. None if there are no such elements.
        """

    def codec_settings(self) -> dict[str, Any]:
        """The codec's settings besides the tokenizer, as plain JSON."""


class Model(Protocol):
    """Pure functions of parameters, for one family: inputs → elements (body and head) → outputs (head).

    Parameters are named `body.*` and `head.FAMILY.*`.
    """

    task: Scoring
    dim: int  # D, the number of features of an element
    twice_differentiable: bool  # whether all of its kernels have a second derivative
    reads: tuple[str, ...]  # the inputs that the body takes
    frozen_head: bool  # whether a parameter of the head is frozen
    one_element_each: bool  # whether an example is one element, so that features can be cached by row

    def own(self, params: Params) -> Params:
        """Parameters without the heads of other families."""

    def init(self) -> Params:
        """Starting values of all parameters that are not frozen."""

    def resized(self, params: Params, outputs: int) -> Params:
        """Parameters whose head has another number of outputs, or rates of such parameters."""

    def encode(self, shared: Params, adapted: Iterable[str], inputs: Inputs) -> Inputs:
        """Runs the layers before the first parameter in `adapted` once over all tasks' inputs."""

    def features(self, shared: Params, stacked: Params, inputs: Inputs) -> Tensor:
        """(T, E, D) elements; `stacked` holds the parameters that differ between tasks, (T, ...) each."""

    def outputs(self, shared: Params, stacked: Params, inputs: Inputs, dropout: float = 0.0) -> Tensor:
        """(T, E, N) outputs of the head on the elements. Meta-training drops the share `dropout` of their features."""

    def head_from_prototypes(self, centres: Tensor, scale: float) -> Params:
        """A head for each task that scores by −scale · squared distance to centres (T, N, D), up to a constant."""

    def head_of_zeros(self, tasks: int, outputs: int, like: Tensor) -> Params:
        """A head for each task whose parameters are all zero."""

    def train(self, mode: bool) -> None:
        """Switches dropout on or off."""


class MetaLearner(Protocol):
    """A published algorithm: a frozen dataclass whose fields are its hyperparameters.

    Its own parameters in θ are named `meta.*`; the model's are `body.*` and `head.*`. It declares what it needs from
    the rest of the system and what it changes there; `distmeta.algorithms.base.Algorithm` has the defaults.
    """

    baseline: ClassVar[str | None]  # name of its row in every evaluation, without any meta-training
    trains: ClassVar[bool]  # whether it has a meta-gradient
    needs_rounds: ClassVar[bool]  # whether its tasks must arrive in rounds
    replays: ClassVar[bool]  # whether examples of earlier rounds may be replayed
    starts_near: ClassVar[bool]  # whether a task starts from the most similar earlier rounds
    anchored: ClassVar[bool]  # whether the proximal regulariser's anchor is set to θ at each round
    joins_sets: ClassVar[bool]  # whether meta-training learns from support and query set as one, all of it labelled
    has_teacher: ClassVar[bool]  # whether it learns from another run's learner: the option `teacher` names the run
    starts_from_support: ClassVar[bool]  # whether it knows something of a task before its first inner step

    def check(self, model: Model, outputs: int) -> None:
        """Raises a `ConfigError` if it does not fit the model or its family.

        Args:
            model: its parameters and its family are checked.
            outputs: N of the largest episodes.
        """

    def outer(self, outer: OuterConfig) -> OuterConfig:
        """The server's settings, changed as this algorithm needs."""

    def adapts(self, names: Sequence[str]) -> list[str]:
        """The names of the model's parameters that each task gets a copy of."""

    def init(self, model: Model, generator: torch.Generator) -> Params:
        """θ from the model's starting values. It may leave some out and add its own parameters."""

    def meta_gradient(self, model: Model, meta_params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """The gradient with respect to θ, summed over the episode's tasks, and figures of each task."""

    def sized(self, model: Model, meta_params: Params, outputs: int) -> Params:
        """θ for tasks with another number of outputs than those of meta-training.

        Raises:
            DataError: it cannot learn such tasks.
        """

    def adapt(self, model: Model, meta_params: Params, support: Batch) -> Adapted:
        """Learns each task from its support set."""

    def predict(self, model: Model, adapted: Adapted, inputs: Inputs) -> Tensor:
        """(T, E, N) outputs of the adapted learners."""


class StepwiseLearner(MetaLearner, Protocol):
    """A learner that adapts step by step, so that its adaptation curve can be drawn."""

    def trajectory(self, model: Model, meta_params: Params, support: Batch) -> Iterator[Adapted]:
        """The learner after 0, 1, 2, … of its steps; the last is what `adapt` returns."""
