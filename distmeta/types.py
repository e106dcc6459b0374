"""The nouns of the system. Everything that crosses a room's door is defined here.

    Params          named tensors. θ (`meta_params`) and whatever an algorithm adapts
    Batch           examples of T tasks, stacked along a leading task axis
    Episode         a support and a query Batch: T tasks to learn
    Stream          which episodes: a split, their shape and the seed they are drawn from
    Visit           the Stream of tasks that arrive in rounds
    Unit            a few consecutive episodes of a stream, under one version of θ
    Work            what is done to units: a stream, and the learner that meets it
    UnitResult      what comes back: Σ gradient as one flat vector, metrics per task, or features
    Evaluation      episodes to evaluate a learner on; Evaluated: its figures
    StepReport      one outer step's metrics

What acts on them is in `distmeta.protocols`.

Axes: T tasks, S support, Q query, B examples (S or Q), N ways, D features, L tokens, P meta-parameters, R rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from distmeta.errors import DivergedError

if TYPE_CHECKING:
    from distmeta.protocols import MetaLearner

Params = dict[str, Tensor]
Metrics = dict[str, Tensor]  # each (T,)
Inputs = dict[str, Tensor]  # each (T, B, ...)
Leaf = tuple[Any, float]  # a unit's gradient as it is in its result, and what it counts in a sum
Add = Callable[[Sequence[Leaf]], np.ndarray]  # (P,) float32, their sum


class Batch(NamedTuple):
    """Examples of T tasks.

    `inputs` holds what a body reads, such as `input_ids` and `attention_mask` (T, B, L), or `features` (T, B, D) where
    it has already run (`hidden.K` (T, B, L, D) where its first K layers have); and (T, B) whole numbers: `rows` of the
    corpus, `labels` among all of its classes. `teacher` (T, B, N) holds a teacher's outputs, where there is one.
    `weights` (T, B) is 0 for padding.
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
    """An endless sequence of episodes, each a pure function of (stream, index).

    The last two are for classes in meta-training (see `distmeta.config.EpisodesConfig`).
    """

    split: str  # meta_train | meta_validation | meta_test
    ways: int
    shots: int
    queries: int
    seed: int
    label_shuffle: bool = True
    label_mixing: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for manifests, in which label options stand only where they are in use."""
        usual = {"label_shuffle": True, "label_mixing": 0.0}
        return {name: value for name, value in asdict(self).items() if name not in usual or value != usual[name]}


@dataclass(frozen=True)
class Visit(Stream):
    """Episodes of tasks that arrive in rounds (see `distmeta.tasks.rounds.Schedule`).

    Those of one `round`, on examples held out of training; or (None) those of training, in the schedule's order. With
    `neighbours`, what is kept of so many earlier rounds comes along: examples of weight 0 in the support, whose share
    in the warm start, (T, B), is the input `memory`.
    """

    round: int | None = None
    neighbours: int = 0


@dataclass(frozen=True)
class Unit:
    """`count` consecutive episodes from `first_index`, worked on under `version` of the meta-parameters."""

    version: int
    first_index: int
    count: int


@dataclass(frozen=True)
class Rejected:
    """A task whose meta-gradient was not finite and was left out of the sum; in evaluation, whose figures were not."""

    index: int
    names: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Work:
    """What is done to each unit: meta-gradients on a stream, or (not `training`) adaptation and its metrics.

    `cache_features` runs the body once a row instead of once an episode: for learners that do not adapt the body, while
    it does not change. A `curve` has the metrics after each of the learner's inner steps, from 0 on. With `encodes` a
    unit is no episodes but chunks of the rows of the stream's split (see `distmeta.engine.encode`), counted alike, and
    its result their features.
    """

    stream: Stream
    learner: MetaLearner
    training: bool
    cache_features: bool = False
    curve: bool = False
    encodes: bool = False


@dataclass(frozen=True)
class UnitResult:
    """What a worker returns for a unit.

    `gradient` is (P,) float32, summed over the unit's accepted tasks, None for evaluation; on its way to the server it
    may be packed (see `distmeta.engine.reduction`) or a handle of the pool's. `metrics` holds one (count,)
    float array a name, in the order of the unit's episodes; of a curve (count, points), up to the first point that is
    not finite in one of its tasks, which are `rejected`. `features` (R, D) float32 are those of a unit that encodes.
    """

    unit: Unit
    gradient: Any
    metrics: dict[str, np.ndarray]
    rejected: tuple[Rejected, ...]
    worker: str
    seconds: float
    features: Any = None


@dataclass(frozen=True)
class Evaluation:
    """`count` consecutive episodes to evaluate a learner on, under θ or (`initial`) what θ started from.

    They are cut into units of `per_unit`.
    """

    work: Work
    first_index: int
    count: int
    per_unit: int
    initial: bool = False


class Evaluated(NamedTuple):
    """The metrics of an evaluation, (count,) each; of a curve (count, points), up to the first point that diverged.

    `error` says which tasks diverged, if any. Then only a curve has metrics.
    """

    metrics: dict[str, np.ndarray]
    error: DivergedError | None = None

    def require(self) -> dict[str, np.ndarray]:
        """The metrics.

        Raises:
            DivergedError: there are none.
        """
        if self.error is not None:
            raise self.error
        return self.metrics


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


class Score(NamedTuple):
    """The figure by which learners of a task kind are compared; a share of 1 is shown in %."""

    name: str
    is_share: bool
    higher_is_better: bool

    def format(self, mean: float, half: float, sign: str = "") -> str:
        """A mean and its interval, as people read them: a share in %."""
        return f"{self.show(mean, sign)} ± {self.show(half)}"

    def show(self, value: float, sign: str = "") -> str:
        """A value, as people read it: a share in %."""
        return f"{100 * value:{sign}.1f}" if self.is_share else f"{value:{sign}.2f}"

    @property
    def sign(self) -> int:
        """What it is multiplied by where more is to be better."""
        return 1 if self.higher_is_better else -1

    @property
    def unit(self) -> str:
        """What stands after a formatted score."""
        return " %" if self.is_share else ""


class Done(NamedTuple):
    """A worker finished a unit."""

    worker: str
    result: UnitResult


class Lost(NamedTuple):
    """A worker died; it is being replaced, and what it was doing, if anything, must be done again."""

    worker: str
    reason: str


@dataclass
class ServerState:
    """All that must be kept to go on exactly: arrays by name (`meta_params`, the optimiser's), and plain JSON."""

    arrays: dict[str, np.ndarray]
    counters: dict[str, int]
    rejected: list[dict[str, Any]] = field(default_factory=list)
