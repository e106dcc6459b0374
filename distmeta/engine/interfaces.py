"""The interfaces of one outer step: workers, and the owner of θ.

Pool            workers, here or as Ray actors   (backends/)
Parameters      where θ is kept and updated      (shard.py, backends/shards.py)
Aggregator      what the coordinator feeds       (server.py)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from distmeta.config import OuterConfig
from distmeta.errors import DivergedError
from distmeta.protocols import Work
from distmeta.types import Add, Done, Leaf, Lost, ServerState, StepReport, Unit, UnitResult


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
    """Statistics of an evaluation, (count, …) each; of a curve (count, points, …), up to the first that diverged.

    `error` says which tasks diverged, if any. Then only a curve has statistics.
    """

    statistics: dict[str, np.ndarray]
    error: DivergedError | None = None

    def require(self) -> dict[str, np.ndarray]:
        """The statistics.

        Raises:
            DivergedError: there are none.
        """
        if self.error is not None:
            raise self.error
        return self.statistics


class Pool(Protocol):
    """Workers that each do one unit at a time."""

    can_race: ClassVar[bool]  # whether a second copy of a unit may be faster than the first

    @property
    def workers(self) -> Sequence[str]:
        """The names of those that can be given a unit; they may join and leave at any time."""

    def publish(self, value: Any) -> Any:
        """Makes what `Aggregator.handle` gives, or `Features`, readable by all workers; a handle for `submit`."""

    def submit(self, worker: str, work: Work, unit: Unit, handle: Any, features: Any = None) -> None:
        """Starts a unit on an idle worker, under θ and, where it looks them up, features; both are handles."""

    def wait(self, seconds: float) -> list[Done | Lost]:
        """Blocks until something has happened, or nothing has for so long."""

    def add(self, leaves: Sequence[Leaf]) -> np.ndarray:
        """(P,) float32, the weighted sum of results' gradients in their order (see `distmeta.engine.reduction`).

        Raises:
            GradientsLostError: some went down with the machine they lay on, and must be worked out again.
        """

    def replace(self, worker: str) -> None:
        """Ends a worker that does not answer and starts another of its name; `wait` tells of it as lost."""


class Parameters(Protocol):
    """Where θ is kept and updated: in one `distmeta.engine.shard.Shard`, or in several."""

    @property
    def values(self) -> np.ndarray:
        """A copy, (P,) float32."""

    @property
    def handle(self) -> Any:
        """What `Pool.publish` takes: the values, or references of their parts."""

    def take(self, leaves: Sequence[Leaf], add: Add) -> None:
        """Has gradients added up for the next step; raises what `add` does."""

    def squares(self, tasks: int) -> list[float]:
        """Makes the mean gradient over so many tasks; the sum of squares of each of its blocks, in order."""

    def step(self, scale: float, rate: float) -> bool:
        """One step of the optimiser along the gradient times `scale`; whether all numbers are finite after it."""

    def undo(self) -> None:
        """Goes back to before the last step."""

    def move_anchor(self) -> None:
        """From now on the proximal regulariser pulls to where θ is."""

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays of a `ServerState`."""

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Goes back to what `arrays` returned."""


MakeParameters = Callable[[OuterConfig, np.ndarray, np.ndarray | None], Parameters]


class Aggregator(Protocol):
    """Owner of θ: the coordinator hands it a whole meta-batch at a time, in index order."""

    @property
    def version(self) -> int:
        """Updates so far."""

    @property
    def meta_params(self) -> np.ndarray:
        """A copy of θ, (P,) float32."""

    @property
    def handle(self) -> Any:
        """θ as a pool publishes it."""

    def apply(self, results: Sequence[UnitResult], add: Add) -> StepReport:
        """Has the gradients added in the order given, clips, updates θ, and counts the version up.

        What `add` raises is raised before anything has changed.
        """

    def state(self) -> ServerState:
        """A copy of everything `load` needs."""

    def load(self, state: ServerState) -> None:
        """Goes back to a state."""
