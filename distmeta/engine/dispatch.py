"""The dispatcher: runs each unit at least once, even if workers are late, silent or lost."""

from __future__ import annotations

import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from distmeta.config import ClusterConfig
from distmeta.engine.interfaces import Pool, Work
from distmeta.errors import TrainingError
from distmeta.types import Lost, Unit, UnitResult

MAX_LOSSES = 20  # workers that may be lost between two results; one more ends the run
LOSSES_PER_WORKER = 10  # the limit if it is higher: a failing network loses every worker several times
REMEMBERED = 50  # last units of a kind of work that give its median time
REPLACE_AFTER = 3  # deadlines without an answer, after which a worker counts as dead

Clock = Callable[[], float]


@dataclass(eq=False)
class Round:
    """A meta-batch, an evaluation or chunks to encode, cut into units. Dictionaries have a unit's first index as key.

    `handle` and `features` are the published θ and features for the next units.
    """

    work: Work
    counts: dict[int, int]
    handle: Any = None
    features: Any = None
    waiting: deque[int] = field(init=False)
    results: dict[int, UnitResult] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.waiting = deque(self.counts)

    @classmethod
    def cut(cls, work: Work, first: int, count: int, size: int) -> Round:
        """Cuts `count` episodes from index `first` into units of `size`; the last one may be shorter."""
        end = first + count
        return cls(work, {start: min(size, end - start) for start in range(first, end, size)})

    def redo(self) -> None:
        """Queues all units again, since some results were lost."""
        self.results.clear()
        self.waiting = deque(self.counts)

    @property
    def is_done(self) -> bool:
        """Whether all units have a result."""
        return len(self.results) == len(self.counts)

    def in_order(self) -> list[UnitResult]:
        """The results in index order."""
        return [self.results[first] for first in self.counts]


@dataclass(eq=False)
class _Copy:
    """A unit that runs on a worker: the first copy, or a backup of a late one. It may outlive its round."""

    round: Round
    unit: Unit
    started: float
    is_given_up: bool = False

    @property
    def is_open(self) -> bool:
        return self.unit.first_index not in self.round.results


class Dispatcher:
    """Drives a pool of workers through rounds of units.

    A late unit gets a backup copy on an idle worker; the first result counts, the other is dropped. The deadline is
    `cluster.deadline_factor` times the running median of such units, but at least `cluster.deadline_seconds`. A worker
    that does not answer for `REPLACE_AFTER` deadlines is replaced.

    Args:
        pool: the workers.
        cluster: deadlines, and whether staleness is allowed.
        clock: gives seconds; only differences are used.
    """

    def __init__(self, pool: Pool, cluster: ClusterConfig, clock: Clock = time.monotonic) -> None:
        self.pool, self.cluster, self.clock = pool, cluster, clock
        self.counts: Counter[str] = Counter(
            dict.fromkeys(("units", "backups", "dropped_duplicates", "lost_workers"), 0)
        )
        self._running: dict[str, _Copy] = {}
        self._seconds: dict[Work, deque[float]] = {}
        self._losses = 0

    def work_on(self, rounds: Sequence[Round], version: int, tell: Callable[[], None] = lambda: None) -> None:
        """Runs units until the first round is complete.

        Args:
            rounds: idle workers get units of these, in this order. Units of other rounds may still be running; their
                results go to their own rounds.
            version: the version of θ.
            tell: called when there may be a new result.

        Raises:
            TrainingError: workers only die, or there was no worker for `cluster.start_timeout_seconds`.
        """
        if rounds[0].is_done:
            return
        idle_since = self.clock()
        while not rounds[0].is_done:
            for worker in self.pool.workers:
                if worker not in self._running and (chosen := self._next(rounds)):
                    round, first = chosen
                    unit = Unit(version, first, round.counts[first])
                    self._running[worker] = _Copy(round, unit, self.clock())
                    self.pool.submit(worker, round.work, unit, round.handle, round.features)
            for event in self.pool.wait(self._patience()):
                if isinstance(event, Lost):
                    self._lose(event)
                else:
                    self._accept(self._running.pop(event.worker), event.result)
            tell()
            self._replace_silent_workers()
            idle_since = self.clock() if self.pool.workers else idle_since
            if self.clock() - idle_since > self.cluster.start_timeout_seconds:
                raise TrainingError(f"there has been no worker for {self.cluster.start_timeout_seconds} s")

    def _next(self, rounds: Sequence[Round]) -> tuple[Round, int] | None:
        """The next unit for an idle worker: a waiting one, else a backup of the one that has been late for longest.

        If staleness is allowed, a worker without a unit means that the oldest meta-batch holds up all others. A unit
        is then late as soon as it takes longer than the median.
        """
        limits = [self._deadline, self._median] if self.cluster.max_staleness else [self._deadline]
        for limit in limits:
            for round in rounds:
                if round.waiting:
                    return round, round.waiting.popleft()
                if self.pool.can_race and (first := self._latest(round, limit)) is not None:
                    self.counts["backups"] += 1
                    return round, first
        return None

    def _latest(self, round: Round, limit: Callable[[_Copy], float]) -> int | None:
        """The unit that has been late for longest, among those with one copy."""
        copies = [copy for copy in self._running.values() if copy.round is round and copy.is_open]
        numbers = Counter(copy.unit.first_index for copy in copies)
        late = [c for c in copies if numbers[c.unit.first_index] == 1 and self.clock() - c.started >= limit(c)]
        return min(late, key=lambda copy: copy.started).unit.first_index if late else None

    def _accept(self, copy: _Copy, result: UnitResult) -> None:
        self._losses = 0
        self._seconds.setdefault(copy.round.work, deque(maxlen=REMEMBERED)).append(self.clock() - copy.started)
        if copy.is_open:
            self.counts["units"] += 1
            copy.round.results[copy.unit.first_index] = result
        else:
            self.counts["dropped_duplicates"] += 1

    def _lose(self, event: Lost) -> None:
        self.counts["lost_workers"] += 1
        self._losses += 1
        if self._losses > max(MAX_LOSSES, LOSSES_PER_WORKER * self.cluster.range.max):
            raise TrainingError(
                f"worker {event.worker} was lost, the {self._losses}th loss without a result: {event.reason}"
            )
        copy = self._running.pop(event.worker, None)
        if copy is None:  # the worker was lost while it started
            return
        first = copy.unit.first_index
        indices = [other.unit.first_index for other in self._running.values() if other.round is copy.round]
        if copy.is_open and first not in indices:
            copy.round.waiting.appendleft(first)

    def _median(self, copy: _Copy) -> float:
        """The median seconds of such units; before the first result, the limit for a start."""
        seconds = self._seconds.get(copy.round.work)
        return statistics.median(seconds) if seconds else self.cluster.start_timeout_seconds

    def _deadline(self, copy: _Copy) -> float:
        """Seconds after which a copy is late."""
        if copy.round.work not in self._seconds:
            return self.cluster.start_timeout_seconds
        return max(self.cluster.deadline_seconds, self.cluster.deadline_factor * self._median(copy))

    def _patience(self) -> float:
        """Seconds until a copy becomes late, or silent for too long; at least 0.001, so that any clock moves."""
        now, waits = self.clock(), [float(self.cluster.start_timeout_seconds)]
        for copy in self._running.values():
            deadline, age = self._deadline(copy), now - copy.started
            median = self._median(copy) if self.cluster.max_staleness else 0.0
            waits += [limit - age for limit in (median, deadline, REPLACE_AFTER * deadline) if limit > age]
        return max(0.001, min(waits))

    def _replace_silent_workers(self) -> None:
        for worker, copy in self._running.items():
            is_silent = self.clock() - copy.started >= REPLACE_AFTER * self._deadline(copy)
            if is_silent and not copy.is_given_up:
                copy.is_given_up = True
                self.pool.replace(worker)
