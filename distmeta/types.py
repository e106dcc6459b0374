"""The nouns of the system: data types shared between packages.

    Params          named tensors: θ (`meta_params`), and what an algorithm adapts
    Batch           elements of T tasks, stacked along a leading task axis
    Episode         a support and a query Batch: T tasks to learn
    Stream          which episodes: a family, a split, a shape and a seed
    Mix             Streams of several families; each unit takes one
    Unit            a few consecutive episodes, under one version of θ
    UnitResult      a unit's result: Σ gradient as one flat vector, metrics per task
    StepReport      one outer step's metrics

The interfaces that use them are in `distmeta.protocols`.

Axes: T tasks, S support, Q query, B examples (S or Q), E elements that are scored (texts, tokens, …), N outputs,
D features, L tokens, P meta-parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    Params = dict[str, Tensor]
    Metrics = dict[str, Tensor]  # each (T,)
    Inputs = dict[str, Tensor]  # each (T, B, ...)
else:  # torch takes seconds to import; commands that only show scores or settings do not need it
    Params = Metrics = Inputs = dict
Statistics = dict[str, Any]  # sums of each task, (T, …) each, as tensors or arrays
Leaf = tuple[Any, float]  # `UnitResult.gradient`, and its weight in a sum
GOLDEN = (5**0.5 - 1) / 2
UNLABELLED = "unlabelled"  # among `Batch.inputs`
OTHER, OWN = 1, 2  # in the input `outside`: elements of other classes than the task's, and such that the data give
Add = Callable[[Sequence[Leaf]], np.ndarray]  # (P,) float32, their sum


class Batch(NamedTuple):
    """Elements of T tasks.

    `inputs` holds what a body reads, such as `input_ids` and `attention_mask` (T, B, L); or `features` (T, E, D) if
    body and head have already made the elements; or `hidden.K` (T, B, L, H) if the body's first K layers have run. The
    family may add entries, such as `rows` of the corpus (T, B). `unlabelled` (T, B) marks the last examples of a
    support set, if they have no label and weight 0: it holds the temperature of their guessed labels, else 0. `teacher`
    (T, E, N) holds a teacher's outputs, if there is one. `targets` is (T, E, …), in the order of the examples;
    `weights` (T, E) is 0 for elements that are not scored. `outputs` is N, the number of a head's outputs for these
    tasks.
    """

    inputs: Inputs
    targets: Tensor
    weights: Tensor
    outputs: int


class Episode(NamedTuple):
    """T stacked tasks of one family; `names[t]` lists the meanings of task t's targets."""

    family: str
    support: Batch
    query: Batch
    names: tuple[tuple[str, ...], ...]


class HeadSpec(NamedTuple):
    """The kind of a family's elements. It selects the head that makes them from a body's states: see `models.heads`."""

    element: str  # text | token | …


@dataclass(frozen=True)
class Stream:
    """An endless sequence of episodes, each a pure function of (stream, index).

    `shape` holds (name, value) pairs that the family defines: the size of episodes, and options for drawing them.
    """

    family: str
    split: str  # meta_train | meta_validation | meta_test
    seed: int
    shape: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, family: str, split: str, seed: int, **shape: Any) -> Stream:
        """A stream of episodes of a shape."""
        return cls(family, split, seed, tuple(shape.items()))

    def __getitem__(self, name: str) -> Any:
        """An entry of the shape."""
        return dict(self.shape)[name]

    def get(self, name: str, default: Any = None) -> Any:
        """An entry of the shape, or a default."""
        return dict(self.shape).get(name, default)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for manifests."""
        return {"split": self.split, "seed": self.seed, **dict(self.shape)}

    def taken_by(self, unit: Unit) -> Stream:
        """The stream of a unit's episodes: this one."""
        return self


@dataclass(frozen=True)
class Mix:
    """Streams of several families: each unit takes all of its episodes from one of them.

    The choice depends only on the unit's index. Over many consecutive units each stream gets its share by weight,
    evenly spread, since the fractional parts of multiples of the golden ratio are spread evenly over 0 to 1.
    """

    streams: tuple[Stream, ...]
    weights: tuple[float, ...]

    @property
    def split(self) -> str:
        """The split of all streams."""
        return self.streams[0].split

    def taken_by(self, unit: Unit) -> Stream:
        """The stream of a unit's episodes."""
        place = (unit.first_index // unit.count + 0.5) * GOLDEN % 1 * sum(self.weights)
        for stream, end in zip(self.streams, accumulate(self.weights), strict=True):
            if place < end:
                return stream
        return self.streams[-1]


@dataclass(frozen=True)
class Unit:
    """`count` consecutive episodes from `first_index`, processed with `version` of the meta-parameters."""

    version: int
    first_index: int
    count: int


@dataclass(frozen=True)
class Rejected:
    """A task that was left out, since its meta-gradient (in evaluation: its figures) was not finite."""

    index: int
    names: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class UnitResult:
    """A worker's result for a unit.

    `gradient` is (P,) float32, summed over the unit's accepted tasks; None for evaluation. On its way to the server it
    may be packed (see `distmeta.engine.reduction`) or a handle of the worker pool. `metrics` holds one (count,) float
    array per name, in the order of the unit's episodes. In evaluation these are statistics (count, …), and for a curve
    (count, points, …). A curve ends before the first point where a task is not finite; such tasks are `rejected`. In
    training, `names` lists the meanings of each episode's targets. `features` (R, D) float32 is set by a unit that
    encodes.
    """

    unit: Unit
    gradient: Any
    metrics: dict[str, np.ndarray]
    rejected: tuple[Rejected, ...]
    worker: str
    seconds: float
    names: tuple[tuple[str, ...], ...] = ()
    features: Any = None


@dataclass(frozen=True)
class StepReport:
    """One outer step: `outer_step` counts from 1; metrics are means over the meta-batch."""

    outer_step: int
    metrics: dict[str, float]
    rejected: tuple[Rejected, ...] = ()


class Adapted(NamedTuple):
    """A learner after adaptation: θ, and the parameters adapted or built for each task, (T, ...) each."""

    shared: Params
    stacked: Params


class Score(NamedTuple):
    """The figure by which learners of a task kind are compared; a share of 1 is shown in %."""

    name: str
    is_share: bool
    higher_is_better: bool

    def format(self, mean: float, half: float, sign: str = "") -> str:
        """A mean and its interval as text; a share in %."""
        return f"{self.show(mean, sign)} ± {self.show(half)}"

    def show(self, value: float, sign: str = "") -> str:
        """A value as text; a share in %."""
        return f"{100 * value:{sign}.1f}" if self.is_share else f"{value:{sign}.2f}"

    @property
    def sign(self) -> int:
        """1 if higher is better, else −1: the score times its sign is better when higher."""
        return 1 if self.higher_is_better else -1

    @property
    def unit(self) -> str:
        """The unit after a formatted score."""
        return " %" if self.is_share else ""


class Done(NamedTuple):
    """A worker finished a unit."""

    worker: str
    result: UnitResult


class Lost(NamedTuple):
    """A worker died. It is being replaced; its unit, if it had one, must be done again."""

    worker: str
    reason: str


@dataclass
class ServerState:
    """The state to go on from exactly: arrays by name (`meta_params`, the optimiser's), and plain JSON."""

    arrays: dict[str, np.ndarray]
    counters: dict[str, int]
    rejected: list[dict[str, Any]] = field(default_factory=list)
