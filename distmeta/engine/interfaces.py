"""The interfaces of one outer step: workers, and the owner of θ.

Work            what is done for each unit
Pool            workers, here or as Ray actors   (backends/)
Parameters      stores and updates θ             (shard.py, backends/shards.py)
Aggregator      applies meta-batches to θ        (server.py)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from distmeta.config import OuterConfig
from distmeta.errors import DivergedError
from distmeta.protocols import MetaLearner
from distmeta.types import Add, Done, Leaf, Lost, Mix, ServerState, StepReport, Stream, Unit, UnitResult


@dataclass(frozen=True)
class Work:
    """What workers compute for each unit: meta-gradients, or (not `training`) the statistics after adaptation.

    `cache_features` runs the body once a row instead of once an episode. It is for learners that do not adapt the body,
    while the body does not change. A `curve` has the statistics after each inner step, from 0 on. With `encodes` a unit
    counts chunks of rows of the stream's split instead of episodes (see `distmeta.engine.encode`), and its result holds
    their features. With `answers` the statistics are the `outputs` (T, E, N) on the query sets, their `targets` and
    `weights`, and `outside`, if the episodes have it.
    """

    stream: Stream | Mix
    learner: MetaLearner
    training: bool
    cache_features: bool = False
    curve: bool = False
    encodes: bool = False
    answers: bool = False


@dataclass(frozen=True)
class Evaluation:
    """`count` consecutive episodes to evaluate a learner on, under the current θ or (`initial`) the initial one.

    They are cut into units of `per_unit` episodes.
    """

    work: Work
    first_index: int
    count: int
    per_unit: int
    initial: bool = False


class Evaluated(NamedTuple):
    """Statistics of an evaluation, (count, …) each; of a curve (count, points, …), up to the first diverged point.

    `error` names the tasks that diverged, if any. Only a curve then has statistics.
    """

    statistics: dict[str, np.ndarray]
    error: DivergedError | None = None

    def require(self) -> dict[str, np.ndarray]:
        """The statistics.

        Raises:
            DivergedError: a task diverged.
        """
        if self.error is not None:
            raise self.error
        return self.statistics


class Pool(Protocol):
    """Workers that each run one unit at a time."""

    can_race: ClassVar[bool]  # whether a second copy of a unit may be faster than the first

    @property
    def workers(self) -> Sequence[str]:
        """The names of the workers that can take a unit; workers may join and leave at any time."""

    def publish(self, value: Any) -> Any:
        """Makes an `Aggregator.handle` or `Features` readable by all workers; returns a handle for `submit`."""

    def submit(self, worker: str, work: Work, unit: Unit, handle: Any, features: Any = None) -> None:
        """Starts a unit on an idle worker, with handles of θ and of the features that it looks up, if any."""

    def wait(self, seconds: float) -> list[Done | Lost]:
        """Blocks until something happens, for about `seconds` at most."""

    def add(self, leaves: Sequence[Leaf]) -> np.ndarray:
        """(P,) float32, the weighted sum of gradients in the order given (see `distmeta.engine.reduction`).

        Raises:
            GradientsLostError: some were lost with their machine and must be computed again.
        """

    def replace(self, worker: str) -> None:
        """Kills a worker that does not answer and starts another under its name; `wait` reports it as lost."""


class Parameters(Protocol):
    """Stores and updates θ: in one `distmeta.engine.shard.Shard`, or in several."""

    @property
    def values(self) -> np.ndarray:
        """A copy of θ, (P,) float32."""

    @property
    def handle(self) -> Any:
        """What `Pool.publish` takes: the values, or references to their parts."""

    def take(self, leaves: Sequence[Leaf], add: Add) -> None:
        """Adds gradients for the next step with `add`; raises what `add` raises."""

    def squares(self, tasks: int) -> list[float]:
        """Computes the mean gradient over `tasks` tasks; returns the sum of squares of each block, in order."""

    def step(self, scale: float, rate: float) -> bool:
        """Takes an optimiser step with `scale` times the gradient; returns whether all numbers are finite after it."""

    def undo(self) -> None:
        """Undoes the last step."""

    def move_anchor(self) -> None:
        """Moves the anchor of the proximal regulariser to the current θ."""

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays of a `ServerState`."""

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Restores what `arrays` returned."""


MakeParameters = Callable[[OuterConfig, np.ndarray, np.ndarray | None], Parameters]


class Aggregator(Protocol):
    """The owner of θ: the coordinator gives it one whole meta-batch at a time, in index order."""

    @property
    def version(self) -> int:
        """Updates so far."""

    @property
    def meta_params(self) -> np.ndarray:
        """A copy of θ, (P,) float32."""

    @property
    def handle(self) -> Any:
        """θ in the form that `Pool.publish` takes."""

    def apply(self, results: Sequence[UnitResult], add: Add) -> StepReport:
        """Adds the gradients in the order given, clips the sum, updates θ, and increments the version.

        If `add` raises, nothing has changed.
        """

    def state(self) -> ServerState:
        """A copy of everything `load` needs."""

    def load(self, state: ServerState) -> None:
        """Restores a state."""
