"""A pool of workers on a simulated clock, and a server that keeps what it is given."""

import heapq
import itertools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from arrays import f32
from hypothesis import strategies as st

from distmeta.config import ClusterConfig, OuterConfig
from distmeta.engine import reduction
from distmeta.engine.coordinator import Coordinator
from distmeta.engine.interfaces import Work
from distmeta.errors import GradientsLostError
from distmeta.types import Done, Leaf, Lost, ServerState, StepReport, Stream, Unit, UnitResult

LEARNER: Any = None
WORK = Work(Stream.of("classification", "meta_train", 0, ways=5, shots=1, queries=1), LEARNER, training=True)
OTHER = Work(Stream.of("classification", "meta_test", 0, ways=5, shots=1, queries=1), LEARNER, training=False)


class Fate(NamedTuple):
    """What becomes of a unit on a worker: it is done or its worker dies after so many seconds; None: silence."""

    seconds: float | None
    dies: bool = False


class SimulatedPool:
    """Workers whose units end when the schedule says; time passes only while it is waited for."""

    can_race: ClassVar[bool] = True

    def __init__(
        self, workers: int, fates: Sequence[Fate], slow: Sequence[float] = (), lost: Sequence[bool] = ()
    ) -> None:
        self.workers = tuple(map(str, range(workers)))
        self.now = 0.0
        self.seconds = dict.fromkeys(self.workers, 1.0) | dict(zip(self.workers, slow, strict=False))
        self.fates = iter(fates)  # of the units in the order in which they are handed out, then `seconds` of the worker
        self.events: list[tuple[float, int, str, Unit, bool]] = []
        self.busy: dict[str, int] = {}
        self.numbers = itertools.count()
        self.submitted: list[tuple[str, Unit]] = []
        self.replaced: list[str] = []
        self.told_after = 0.0  # seconds until a worker that was replaced is known to be lost
        self.lost = iter(lost)  # whether gradients are, each time that they are to be added
        self.idle = 0.0  # seconds of all workers

    def publish(self, value: np.ndarray) -> float:
        return float(value[0])

    def submit(self, worker: str, work: Work, unit: Unit, handle: Any, features: Any = None) -> None:
        assert worker not in self.busy, "a busy worker was given a unit"
        assert handle == unit.version
        fate = next(self.fates, Fate(self.seconds[worker]))
        self.busy[worker] = number = next(self.numbers)
        self.submitted.append((worker, unit))
        if fate.seconds is not None:
            heapq.heappush(self.events, (self.now + fate.seconds, number, worker, unit, fate.dies))

    def wait(self, seconds: float) -> list[Done | Lost]:
        assert seconds > 0
        until = self.now + seconds
        while self.events and self.events[0][0] <= until:
            then, number, worker, unit, dies = heapq.heappop(self.events)
            self._pass(then)
            if self.busy.get(worker) != number:
                continue  # it was replaced meanwhile
            del self.busy[worker]
            if dies:
                return [Lost(worker, "killed")]
            metrics = {"index": unit.first_index + np.arange(unit.count)}
            return [Done(worker, UnitResult(unit, f32(unit.first_index), metrics, (), worker, 0.0))]
        self._pass(until)
        return []

    def _pass(self, until: float) -> None:
        self.idle += (until - self.now) * (len(self.workers) - len(self.busy))
        self.now = until

    def add(self, leaves: Sequence[Leaf]) -> np.ndarray:
        if next(self.lost, False):
            raise GradientsLostError
        return reduction.add(leaves)

    def replace(self, worker: str) -> None:
        self.replaced.append(worker)
        unit = next(its for who, its in reversed(self.submitted) if who == worker)
        heapq.heappush(self.events, (self.now + self.told_after, self.busy[worker], worker, unit, True))


class Applied:
    """A server that keeps which gradients it was given."""

    def __init__(self, max_staleness: int = 0) -> None:
        self.version, self.max_staleness = 0, max_staleness
        self.applied: list[list[Unit]] = []

    @property
    def meta_params(self) -> np.ndarray:
        return f32(self.version)

    @property
    def handle(self) -> np.ndarray:
        return self.meta_params

    def apply(self, results: Sequence[UnitResult], add: Callable[[Sequence[Leaf]], np.ndarray]) -> StepReport:
        add([(result.gradient, 1.0) for result in results])
        for result in results:
            assert result.gradient is not None
            assert result.gradient[0] == result.unit.first_index
            assert 0 <= self.version - result.unit.version <= self.max_staleness
        self.applied.append([result.unit for result in results])
        self.version += 1
        return StepReport(self.version, {})

    @property
    def indices(self) -> list[list[int]]:
        """First indices of the units of each meta-batch that was applied."""
        return [[unit.first_index for unit in step] for step in self.applied]

    def state(self) -> ServerState:
        return ServerState({}, {"version": self.version})

    def load(self, state: ServerState) -> None:
        self.version = state.counters["version"]


CLUSTER = ClusterConfig(tasks_per_unit=1, deadline_factor=4, deadline_seconds=5, start_timeout_seconds=100)


def coordinate(
    pool: SimulatedPool, batch: int = 4, max_staleness: int = 0, steps: int = 1000
) -> tuple[Coordinator, Applied]:
    server = Applied(max_staleness)
    outer = OuterConfig(meta_batch_size=batch, steps=steps)
    cluster = CLUSTER.model_copy(update={"max_staleness": max_staleness})
    return Coordinator(pool, server, WORK, outer, cluster, clock=lambda: pool.now), server


fates = st.one_of(
    st.builds(Fate, st.floats(0.1, 60)),
    st.builds(Fate, st.floats(0.1, 60), st.just(True)),
    st.just(Fate(None)),
)
