"""The coordinator on a simulated clock, under thousands of schedules of slow, silent and dying workers."""

import heapq
import itertools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
from arrays import f32
from hypothesis import given, settings
from hypothesis import strategies as st

from distmeta import reduction
from distmeta.config import ClusterConfig, OuterConfig
from distmeta.coordinator import Coordinator
from distmeta.dispatch import MAX_LOSSES, REPLACE_AFTER, Round
from distmeta.errors import GradientsLostError, TrainingError
from distmeta.types import Done, Leaf, Lost, ServerState, StepReport, Stream, Unit, UnitResult, Work

LEARNER: Any = None
WORK = Work(Stream("meta_train", 5, 1, 1, 0), LEARNER, training=True)
OTHER = Work(Stream("meta_test", 5, 1, 1, 0), LEARNER, training=False)


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
        self.lost = iter(lost)  # whether gradients are, each time that they are to be added
        self.idle = 0.0  # seconds of all workers

    def publish(self, vector: np.ndarray) -> float:
        return float(vector[0])

    def submit(self, worker: str, work: Work, unit: Unit, handle: Any) -> None:
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
            return [Done(worker, UnitResult(unit, f32(unit.first_index), {}, (), worker, 0.0))]
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
        heapq.heappush(self.events, (self.now, self.busy[worker], worker, unit, True))


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


@settings(max_examples=2000, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 4), st.lists(fates, max_size=MAX_LOSSES))
def test_every_unit_is_applied_once_whatever_becomes_of_the_workers(
    workers: int, batch: int, steps: int, schedule: list[Fate]
) -> None:
    """Exactly once, in order, and in finite time: what is silent is replaced after three deadlines of 100 s at most."""
    pool = SimulatedPool(workers, schedule)
    coordinator, server = coordinate(pool, batch)
    reports = coordinator.advance(steps)
    assert server.applied == [[Unit(v, v * batch + i, 1) for i in range(batch)] for v in range(steps)]
    longest = REPLACE_AFTER * max(100, 4 * 60)
    assert pool.now <= longest * (len(schedule) + 1) + batch * steps
    lost = sum(fate.dies or fate.seconds is None for fate in schedule)
    assert reports[-1].metrics["cluster/lost_workers"] <= lost + len(pool.replaced)


@settings(max_examples=500, deadline=None)
@given(st.integers(1, 4), st.lists(fates, max_size=8))
def test_an_evaluation_between_steps_is_whole_too(workers: int, schedule: list[Fate]) -> None:
    """Copies that outlive their round are nobody's answer in the next."""
    pool = SimulatedPool(workers, schedule)
    coordinator, server = coordinate(pool, 3)
    coordinator.advance(1)
    round = Round.cut(OTHER, 0, 5, 1)
    coordinator.dispatcher.work_on([round], 1, server.meta_params)
    assert [result.unit for result in round.in_order()] == [Unit(1, i, 1) for i in range(5)]
    coordinator.advance(1)
    assert [[unit.first_index for unit in step] for step in server.applied] == [[0, 1, 2], [3, 4, 5]]


def test_a_late_unit_gets_one_backup_and_the_first_result_wins() -> None:
    """Of four units of 1 s one takes 30: late after max(5, 4 · 1) s, its backup is done at 6 s; the rest is dropped."""
    pool = SimulatedPool(3, [Fate(30.0)])
    coordinator, server = coordinate(pool)
    (report,) = coordinator.advance(1)
    assert pool.now == 6.0
    assert [unit.first_index for _, unit in pool.submitted] == [0, 1, 2, 3, 0]
    assert report.metrics["cluster/backups"] == 1
    for _ in range(10):
        (report,) = coordinator.advance(1)
    assert pool.now == pytest.approx(26.0)  # two workers for four units a step, and the third is not waited for
    assert pool.replaced == ["0"]  # silent from 0 s to 15 s
    assert report.metrics["cluster/dropped_duplicates"] == 0
    assert server.version == 11


def test_a_late_result_is_dropped_and_counted() -> None:
    pool = SimulatedPool(2, [Fate(10.0)])
    coordinator, server = coordinate(pool, 3)
    (report,) = coordinator.advance(1)  # 1 s each of two, late at 5 s, done at 6 s
    assert report.metrics["cluster/dropped_duplicates"] == 0
    for _ in range(3):
        (report,) = coordinator.advance(1)
    assert (report.metrics["cluster/dropped_duplicates"], pool.replaced) == (1, [])
    assert [len(step) for step in server.applied] == [3] * 4


def test_the_only_worker_is_replaced_when_it_is_silent() -> None:
    """Without an answer to go by it may take as long as a start: 3 · 100 s."""
    pool = SimulatedPool(1, [Fate(None)])
    coordinator, server = coordinate(pool, 2)
    (report,) = coordinator.advance(1)
    assert (pool.replaced, pool.now) == (["0"], 302.0)
    assert report.metrics["cluster/lost_workers"] == 1
    assert server.version == 1


def test_units_that_wait_come_before_backups() -> None:
    pool = SimulatedPool(2, [Fate(100.0), *[Fate(3.0)] * 9])
    coordinator, _ = coordinate(pool, 10)
    coordinator.advance(1)
    assert [unit.first_index for _, unit in pool.submitted] == [*range(10), 0]


def test_a_unit_that_has_been_answered_gets_no_further_backup() -> None:
    """Units 0 and 1 are silent; 0 is answered by its backup, then only 1 wants one."""
    pool = SimulatedPool(3, [Fate(None), Fate(None), Fate(1.0), Fate(1.0), Fate(8.0), Fate(1.0)])
    coordinator, _ = coordinate(pool, 4)
    coordinator.advance(1)
    assert [unit.first_index for _, unit in pool.submitted] == [0, 1, 2, 3, 0, 1]


def test_without_any_worker_for_as_long_as_a_start_may_take_the_run_ends() -> None:
    pool = SimulatedPool(0, [])
    with pytest.raises(TrainingError, match="there has been no worker for 100 s"):
        coordinate(pool)[0].advance(1)
    assert pool.now == pytest.approx(200)


def test_workers_that_only_die_end_the_run() -> None:
    pool = SimulatedPool(2, [Fate(1.0, dies=True)] * 100)
    with pytest.raises(TrainingError, match=f"the {MAX_LOSSES + 1}th loss without a result: killed"):
        coordinate(pool)[0].advance(1)


@settings(max_examples=2000, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 8), st.integers(1, 4), st.lists(fates, max_size=MAX_LOSSES))
def test_with_staleness_every_meta_batch_is_whole_and_in_its_turn(
    workers: int, batch: int, steps: int, max_staleness: int, schedule: list[Fate]
) -> None:
    """Exactly once, in finite time, and nothing too old (see `Applied`)."""
    pool = SimulatedPool(workers, schedule)
    coordinator, server = coordinate(pool, batch, max_staleness, steps)
    for _ in range(steps):
        coordinator.advance(1)
    applied = [[unit.first_index for unit in step] for step in server.applied]
    assert applied == [[v * batch + i for i in range(batch)] for v in range(steps)]
    assert max(unit.first_index for _, unit in pool.submitted) < batch * steps  # no work beyond the last step
    longest = REPLACE_AFTER * max(100, 4 * 60)
    assert pool.now <= longest * (len(schedule) + 1) + batch * steps


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2), st.integers(1, 5), st.lists(fates, max_size=8), st.lists(st.booleans(), max_size=20))
def test_gradients_that_went_down_with_their_machine_are_worked_out_again(
    max_staleness: int, batch: int, schedule: list[Fate], lost: list[bool]
) -> None:
    pool = SimulatedPool(3, schedule, lost=lost)
    coordinator, server = coordinate(pool, batch, max_staleness, 6)
    coordinator.advance(6)
    applied = [[unit.first_index for unit in step] for step in server.applied]
    assert applied == [[v * batch + i for i in range(batch)] for v in range(6)]
    assert len(pool.submitted) >= batch * (6 + sum(itertools.takewhile(bool, lost)))


def test_work_ahead_survives_an_evaluation_and_is_forgotten_by_load() -> None:
    pool = SimulatedPool(3, [])
    coordinator, server = coordinate(pool, 2, 2, 10)
    coordinator.advance(1)  # at 1 s units 0 and 1 are done, and unit 2 of the second meta-batch
    coordinator.dispatcher.work_on([Round.cut(OTHER, 100, 4, 1)], 1, server.meta_params)
    coordinator.advance(2)
    assert [unit.first_index for _, unit in pool.submitted].count(2) == 1
    state = coordinator.state()
    coordinator.load(ServerState({}, {"version": 1}))
    coordinator.advance(2)
    assert state.counters["version"] == server.version == 3
    assert [[unit.first_index for unit in step] for step in server.applied] == [[0, 1], [2, 3], [4, 5], [2, 3], [4, 5]]


@pytest.mark.parametrize("max_staleness", [1, 2, 4, 8])
def test_workers_of_which_one_is_ten_times_slower_are_busy_and_all_tasks_count(max_staleness: int) -> None:
    """At least 90 % of the time; and though it is seldom in time, each of 100 meta-batches is whole."""
    pool = SimulatedPool(4, [], slow=[10.0])
    coordinator, server = coordinate(pool, 4, max_staleness, 100)
    coordinator.advance(100)
    assert [[unit.first_index for unit in step] for step in server.applied] == [
        [4 * v, 4 * v + 1, 4 * v + 2, 4 * v + 3] for v in range(100)
    ]
    assert pool.idle / (4 * pool.now) <= 0.1
    # What was done twice is little: the slow worker does a tenth of a fast one's work at best.
    assert len(pool.submitted) <= 1.1 * 400


def test_without_staleness_the_same_workers_wait() -> None:
    """What the last test measures is not always so: three workers wait for one that takes 5 s until its backup."""
    pool = SimulatedPool(4, [], slow=[10.0])
    coordinator, _ = coordinate(pool, 4, 0, 100)
    coordinator.advance(10)
    assert pool.idle / (4 * pool.now) > 0.4
