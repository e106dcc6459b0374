"""The coordinator on a simulated clock, under thousands of schedules of slow, silent and dying workers."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation import OTHER, Fate, SimulatedPool, coordinate, fates

from distmeta.engine.dispatch import MAX_LOSSES, REPLACE_AFTER
from distmeta.engine.interfaces import Evaluation
from distmeta.errors import TrainingError
from distmeta.types import Unit


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
def test_evaluations_between_steps_are_whole_too(workers: int, schedule: list[Fate]) -> None:
    """Copies that outlive their round are nobody's answer in the next."""
    pool = SimulatedPool(workers, schedule)
    coordinator, server = coordinate(pool, 3)
    coordinator.advance(1)
    figures = coordinator.evaluate(
        [Evaluation(OTHER, 0, 5, 1), Evaluation(OTHER, 50, 4, 2), Evaluation(OTHER, 0, 1, 1)]
    )
    assert [its.require()["index"].tolist() for its in figures] == [[0, 1, 2, 3, 4], [50, 51, 52, 53], [0]]
    coordinator.advance(1)
    assert server.indices == [[0, 1, 2], [3, 4, 5]]


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


def test_a_silent_worker_is_replaced_once() -> None:
    """At 15 s; that it is gone is known at 19 s, and others have ended units until then."""
    pool = SimulatedPool(2, [Fate(None)])
    pool.told_after = 4.0
    coordinate(pool, 30)[0].advance(1)
    assert pool.replaced == ["0"]


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


def test_a_unit_of_which_one_copy_is_lost_waits_for_the_other() -> None:
    """Unit 0 dies at 8 s; its backup, from 5 s, is done at 9 s."""
    pool = SimulatedPool(3, [Fate(8.0, dies=True), Fate(1.0), Fate(1.0), Fate(4.0)])
    coordinator, _ = coordinate(pool, 3)
    coordinator.advance(1)
    assert ([unit.first_index for _, unit in pool.submitted], pool.now) == ([0, 1, 2, 0], 9.0)


def test_a_unit_that_has_been_answered_is_not_done_again_when_its_other_copy_is_lost() -> None:
    """Unit 0 dies at 8 s, its backup was done at 6 s; unit 9 takes from 4 s to 8.8 s."""
    pool = SimulatedPool(3, [Fate(8.0, dies=True), *[Fate(1.0)] * 8, Fate(4.8)])
    coordinator, _ = coordinate(pool, 10)
    coordinator.advance(1)
    assert ([unit.first_index for _, unit in pool.submitted], pool.now) == ([*range(10), 0], 8.8)


def test_without_any_worker_for_as_long_as_a_start_may_take_the_run_ends() -> None:
    pool = SimulatedPool(0, [])
    with pytest.raises(TrainingError, match="there has been no worker for 100 s"):
        coordinate(pool)[0].advance(1)
    assert pool.now == pytest.approx(200)


def test_workers_that_only_die_end_the_run() -> None:
    pool = SimulatedPool(2, [Fate(1.0, dies=True)] * 100)
    with pytest.raises(TrainingError, match=f"the {MAX_LOSSES + 1}th loss without a result: killed"):
        coordinate(pool)[0].advance(1)


def test_losses_are_counted_from_the_last_result() -> None:
    pool = SimulatedPool(2, [*[Fate(1.0, dies=True)] * MAX_LOSSES, Fate(1.0)] * 4)
    coordinator, server = coordinate(pool)
    coordinator.advance(1)
    assert server.indices == [[0, 1, 2, 3]]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2), st.integers(1, 5), st.lists(fates, max_size=8), st.lists(st.booleans(), max_size=20))
def test_gradients_that_went_down_with_their_machine_are_worked_out_again(
    max_staleness: int, batch: int, schedule: list[Fate], lost: list[bool]
) -> None:
    pool = SimulatedPool(3, schedule, lost=lost)
    coordinator, server = coordinate(pool, batch, max_staleness, 6)
    coordinator.advance(6)
    assert server.indices == [[v * batch + i for i in range(batch)] for v in range(6)]
    assert len(pool.submitted) >= batch * (6 + sum(itertools.takewhile(bool, lost)))
