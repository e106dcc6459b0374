"""The dispatcher: has units done at least once each, whoever of the workers is late, silent or lost."""

from __future__ import annotations

import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from distmeta.config import ClusterConfig
from distmeta.engine.interfaces import Pool
from distmeta.errors import TrainingError
from distmeta.protocols import Work
from distmeta.types import Lost, Unit, UnitResult

MAX_LOSSES = 20  # workers lost between two results before the run is given up
LOSSES_PER_WORKER = 10  # as many may be lost where that is more: a network that fails takes all of them several times
REMEMBERED = 50  # units of a kind of work that its median is taken of
REPLACE_AFTER = 3  # deadlines without an answer: by then a worker is taken for dead

Clock = Callable[[], float]


@dataclass(eq=False)
class Round:
    """Episodes that belong together, a meta-batch or an evaluation, cut into units; by the first index of each.

    `handle` is θ that its next units are worked on under, `features` what they look up, as the pool published them.
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
        """Cuts `count` episodes from `first` into units of `size`, the last one shorter where it must be."""
        end = first + count
        return cls(work, {start: min(size, end - start) for start in range(first, end, size)})

    def redo(self) -> None:
        """Opens all units again, since some results were lost."""
        self.results.clear()
        self.waiting = deque(self.counts)

    @property
    def is_done(self) -> bool:
        """Whether all units have a result."""
        return len(self.results) == len(self.counts)

    def in_order(self) -> list[UnitResult]:
        """The results by index."""
        return [self.results[first] for first in self.counts]


@dataclass(eq=False)
class _Copy:
    """A unit on a worker: the first one, or a backup of one that is late. It may outlive its round."""

    round: Round
    unit: Unit
    started: float
    is_given_up: bool = False

    @property
    def is_open(self) -> bool:
        return self.unit.first_index not in self.round.results


class Dispatcher:
    """Drives a pool of workers through rounds of units.

    A unit that is late gets a backup copy on an idle worker; the first result counts, the other is dropped. Late is
    `cluster.deadline_factor` times the running median of such units, and not below `cluster.deadline_seconds`. A worker
    that gives no answer for `REPLACE_AFTER` deadlines is replaced.

    Args:
        pool: the workers.
        cluster: deadlines, and whether staleness is allowed.
        clock: seconds, of which differences are taken.
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
        """Has units done until the first of the rounds is whole.

        Args:
            rounds: those that idle workers are given units of, first come first. What is still going on of others is
                put where it belongs when it ends.
            version: of θ.
            tell: is called when there may be another result.

        Raises:
            TrainingError: workers only die, or there has been none for `cluster.start_timeout_seconds`.
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
        """What an idle worker is to do: a unit that waits, else a backup of the one that has been late for longest.

        Where staleness is allowed there is nothing else to do only if the oldest meta-batch holds all others up: then a
        unit is late already when it takes longer than usual.
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
        """The unit that has been late for longest, of those of which there is one copy."""
        copies = [copy for copy in self._running.values() if copy.round is round and copy.is_open]
        times = Counter(copy.unit.first_index for copy in copies)
        late = [c for c in copies if times[c.unit.first_index] == 1 and self.clock() - c.started >= limit(c)]
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
        if copy is None:  # it was lost while it started
            return
        first = copy.unit.first_index
        others = [its.unit.first_index for its in self._running.values() if its.round is copy.round]
        if copy.is_open and first not in others:
            copy.round.waiting.appendleft(first)

    def _median(self, copy: _Copy) -> float:
        """What such a unit takes as a rule, in seconds; without an answer to go by, as long as a start."""
        seconds = self._seconds.get(copy.round.work)
        return statistics.median(seconds) if seconds else self.cluster.start_timeout_seconds

    def _deadline(self, copy: _Copy) -> float:
        """Seconds after which a copy is late."""
        if copy.round.work not in self._seconds:
            return self.cluster.start_timeout_seconds
        return max(self.cluster.deadline_seconds, self.cluster.deadline_factor * self._median(copy))

    def _patience(self) -> float:
        """Seconds until some copy becomes late, or silent for too long; enough of them for any clock to move."""
        now, waits = self.clock(), [float(self.cluster.start_timeout_seconds)]
        for copy in self._running.values():
            deadline, age = self._deadline(copy), now - copy.started
            usual = self._median(copy) if self.cluster.max_staleness else 0.0
            waits += [limit - age for limit in (usual, deadline, REPLACE_AFTER * deadline) if limit > age]
        return max(0.001, min(waits))

    def _replace_silent_workers(self) -> None:
        for worker, copy in self._running.items():
            silent = self.clock() - copy.started >= REPLACE_AFTER * self._deadline(copy)
            if silent and not copy.is_given_up:
                copy.is_given_up = True
                self.pool.replace(worker)
