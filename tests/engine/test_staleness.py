"""Workers that may be ahead: bounded, each meta-batch whole and in its turn, and nobody idle."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation import OTHER, Fate, SimulatedPool, coordinate, fates

from distmeta.engine.dispatch import MAX_LOSSES, REPLACE_AFTER
from distmeta.engine.interfaces import Evaluation
from distmeta.types import ServerState


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
    assert server.indices == [[v * batch + i for i in range(batch)] for v in range(steps)]
    assert max(unit.first_index for _, unit in pool.submitted) < batch * steps  # no work beyond the last step
    longest = REPLACE_AFTER * max(100, 4 * 60)
    assert pool.now <= longest * (len(schedule) + 1) + batch * steps


def test_work_ahead_survives_an_evaluation_and_is_forgotten_by_load() -> None:
    pool = SimulatedPool(3, [])
    coordinator, server = coordinate(pool, 2, 2, 10)
    coordinator.advance(1)  # at 1 s units 0 and 1 are done, and unit 2 of the second meta-batch
    coordinator.evaluate([Evaluation(OTHER, 100, 4, 1)])
    coordinator.advance(2)
    assert [unit.first_index for _, unit in pool.submitted].count(2) == 1
    state = coordinator.state()
    coordinator.load(ServerState({}, {"version": 1}))
    coordinator.advance(2)
    assert state.counters["version"] == server.version == 3
    assert server.indices == [[0, 1], [2, 3], [4, 5], [2, 3], [4, 5]]


@pytest.mark.parametrize("max_staleness", [1, 2, 4, 8])
def test_workers_of_which_one_is_ten_times_slower_are_busy_and_all_tasks_count(max_staleness: int) -> None:
    """At least 90 % of the time; and though it is seldom in time, each of 100 meta-batches is whole."""
    pool = SimulatedPool(4, [], slow=[10.0])
    coordinator, server = coordinate(pool, 4, max_staleness, 100)
    coordinator.advance(100)
    assert server.indices == [[4 * v, 4 * v + 1, 4 * v + 2, 4 * v + 3] for v in range(100)]
    assert pool.idle / (4 * pool.now) <= 0.1
    # What was done twice is little: the slow worker does a tenth of a fast one's work at best.
    assert len(pool.submitted) <= 1.1 * 400


def test_without_staleness_the_same_workers_wait() -> None:
    """What the last test measures is not always so: three workers wait for one that takes 5 s until its backup."""
    pool = SimulatedPool(4, [], slow=[10.0])
    coordinator, _ = coordinate(pool, 4, 0, 100)
    coordinator.advance(10)
    assert pool.idle / (4 * pool.now) > 0.4
