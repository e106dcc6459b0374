"""The nouns of the system, in one file. Everything that crosses a room's door is defined here.

    Params          named tensors. θ (`meta_params`) and whatever an algorithm adapts
    Batch           examples of T tasks, stacked along a leading task axis
    Episode         a support and a query Batch: T tasks to learn
    Stream          which episodes: a split, their shape and the seed they are drawn from
    Unit            a few consecutive episodes of a stream, under one version of θ
    Work            what is done to units: a stream, and the learner that meets it
    UnitResult      what comes back: Σ gradient as one flat vector, metrics per task
    StepReport      one outer step's metrics

    TaskKind        rows → Batch, loss, metrics      (tasks/)
    Model           pure functions of parameters     (models/)
    MetaLearner     an algorithm                     (algorithms/)
    Pool            workers, here or as Ray actors   (backends/)
    Aggregator      what the coordinator feeds       (server.py)

Axes: T tasks, S support, Q query, B examples (S or Q), N ways, D features, L tokens, P meta-parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

Params = dict[str, Tensor]
Metrics = dict[str, Tensor]  # each (T,)
Inputs = dict[str, Tensor]  # each (T, B, ...)


class Batch(NamedTuple):
    """Examples of T tasks.

    `inputs` holds `input_ids` and `attention_mask` (T, B, L), or `features` (T, B, D) where the body has already run;
    `rows` (T, B) always says which rows of the corpus they are. `weights` (T, B) is 0 for padding.
    """

    inputs: Inputs
    targets: Tensor
    weights: Tensor


class Episode(NamedTuple):
    """T stacked tasks; `names[t]` lists what task t's targets stand for."""

    support: Batch
    query: Batch
    names: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Stream:
    """An endless sequence of episodes, each a pure function of (stream, index)."""

    split: str  # meta_train | meta_validation | meta_test
    ways: int
    shots: int
    queries: int
    seed: int


@dataclass(frozen=True)
class Unit:
    """`count` consecutive episodes from `first_index`, worked on under `version` of the meta-parameters."""

    version: int
    first_index: int
    count: int


@dataclass(frozen=True)
class Rejected:
    """A task whose meta-gradient was not finite and was left out of the sum."""

    index: int
    names: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Work:
    """What is done to each unit: meta-gradients on a stream, or (not `training`) adaptation and its metrics.

    `cache_features` runs the body once a row instead of once an episode: for learners that do not adapt the body, while
    it does not change.
    """

    stream: Stream
    learner: MetaLearner
    training: bool
    cache_features: bool = False


@dataclass(frozen=True)
class UnitResult:
    """What a worker returns for a unit.

    `gradient` is (P,) float32, summed over the unit's accepted tasks, None for evaluation. `metrics` holds one (count,)
    float array a name, in the order of the unit's episodes.
    """

    unit: Unit
    gradient: np.ndarray | None
    metrics: dict[str, np.ndarray]
    rejected: tuple[Rejected, ...]
    worker: str
    seconds: float


@dataclass(frozen=True)
class StepReport:
    """One outer step: `outer_step` counts from 1; metrics are means over the meta-batch."""

    outer_step: int
    metrics: dict[str, float]
    rejected: tuple[Rejected, ...] = ()


class Adapted(NamedTuple):
    """A learner after adaptation: θ, and what was adapted or built for each task, (T, ...) each."""

    shared: Params
    stacked: Params


class TaskKind(Protocol):
    """One kind of task over a corpus: how rows become episodes, the loss, the metrics."""

    def episodes(self, stream: Stream, first_index: int, count: int) -> Episode:
        """Draws and stacks episodes; the same arguments give the same tensors anywhere."""

    def rows(self, split: str) -> np.ndarray:
        """All corpus rows of a split, shortest text first."""

    def collate(self, rows: np.ndarray) -> Inputs:
        """Tokens of any rows, padded to the longest, with the shape of `rows` in front."""

    def outputs(self, ways: int) -> int:
        """How many outputs a head needs for an episode of that many ways."""

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean loss of each task, (T,)."""

    def metrics(self, outputs: Tensor, batch: Batch) -> Metrics:
        """Figures of each task, each (T,)."""

    def manifest(self, stream: Stream, episodes: int) -> dict[str, Any]:
        """Which rows of the source the first episodes of a stream are made of, as plain JSON."""


class Model(Protocol):
    """Pure functions of parameters; `body.*` makes features of inputs, `head.*` outputs of features."""

    task: TaskKind

    def init(self) -> Params:
        """Starting values of everything that is not frozen."""

    def encode(self, shared: Params, adapted: Iterable[str], inputs: Inputs) -> Inputs:
        """Runs the body once over all tasks' inputs, unless the names of what differs between tasks are of the body."""

    def features(self, shared: Params, stacked: Params, inputs: Inputs) -> Tensor:
        """(T, B, ..., D) features; `stacked` holds the parameters that differ between tasks, (T, ...) each."""

    def outputs(self, shared: Params, stacked: Params, inputs: Inputs) -> Tensor:
        """(T, B, ..., N) outputs of the head on the features."""

    def loss(self, shared: Params, stacked: Params, batch: Batch) -> Tensor:
        """The task kind's loss on the outputs, (T,)."""

    def train(self, mode: bool) -> None:
        """Switches dropout on or off."""


class MetaLearner(Protocol):
    """A published algorithm: a frozen dataclass whose fields are its hyperparameters."""

    def adapts(self, names: Sequence[str]) -> list[str]:
        """Which of the model's parameters each task gets a copy of."""

    def init(self, params: Params, generator: torch.Generator) -> Params:
        """θ from the model's starting values: may leave some out and add its own."""

    def meta_gradient(self, model: Model, meta_params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """The gradient with respect to θ summed over the episode's tasks, and figures of each task."""

    def adapt(self, model: Model, meta_params: Params, support: Batch) -> Adapted:
        """Learns each task from its support set."""

    def predict(self, model: Model, adapted: Adapted, inputs: Inputs) -> Tensor:
        """(T, B, ..., N) outputs of the adapted learners."""


class Done(NamedTuple):
    """A worker finished a unit."""

    worker: str
    result: UnitResult


class Lost(NamedTuple):
    """A worker died; it is being replaced, and what it was doing must be done again."""

    worker: str
    reason: str


class Pool(Protocol):
    """Workers that each do one unit at a time."""

    @property
    def workers(self) -> Sequence[str]:
        """Their names."""

    def publish(self, vector: np.ndarray) -> Any:
        """Makes a flat vector of meta-parameters readable by all workers; returns a handle for `submit`."""

    def submit(self, worker: str, work: Work, unit: Unit, handle: Any) -> None:
        """Starts a unit on an idle worker."""

    def wait(self) -> list[Done | Lost]:
        """Blocks until something has happened."""


@dataclass
class ServerState:
    """All that must be kept to go on exactly: arrays by name (`meta_params`, the optimiser's), and plain JSON."""

    arrays: dict[str, np.ndarray]
    counters: dict[str, int]
    rejected: list[dict[str, Any]] = field(default_factory=list)


class Aggregator(Protocol):
    """Owner of θ: the coordinator hands it a whole meta-batch at a time, in index order."""

    @property
    def version(self) -> int:
        """Updates so far."""

    @property
    def meta_params(self) -> np.ndarray:
        """A copy of θ, (P,) float32."""

    def apply(self, results: Sequence[UnitResult]) -> StepReport:
        """Adds the gradients in the order given, clips, updates θ, and counts the version up."""

    def state(self) -> ServerState:
        """A copy of everything `load` needs."""

    def load(self, state: ServerState) -> None:
        """Goes back to a state."""
