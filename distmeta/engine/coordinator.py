"""The coordinator: which meta-batches are worked on under which version of θ, and when they are applied.

It knows units and versions; what a gradient means is the aggregator's business, who does a unit the dispatcher's.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from distmeta.config import ClusterConfig, OuterConfig
from distmeta.engine.dispatch import Clock, Dispatcher, Round
from distmeta.engine.encode import FeatureStore
from distmeta.engine.evaluation import Evaluator, Progress, PublishedTheta
from distmeta.engine.interfaces import Aggregator, Evaluated, Evaluation, Pool
from distmeta.errors import GradientsLostError
from distmeta.protocols import Work
from distmeta.types import ServerState, StepReport, UnitResult


class Coordinator:
    """Drives a pool of workers through meta-batches and evaluations.

    Meta-batches are applied in order, each whole, so that each holds its own episodes once, whoever is fast. With
    `cluster.max_staleness` S > 0 the workers are ahead by up to S of them: a gradient is never older than S versions.
    That is the bounded delay of Qirong Ho et al. More Effective Distributed ML via a Stale Synchronous Parallel
    Parameter Server. NIPS 2013. https://papers.nips.cc/paper/4894, where it bounds workers' clocks.

    Args:
        pool: the workers.
        server: owner of θ.
        training: what each training unit is.
        outer: the episodes in an outer step, and how many steps there are.
        cluster: deadlines, staleness, and the episodes in a unit. The last shape the sums of floating-point numbers, so
            they are never derived from the number of workers.
        clock: seconds, of which differences are taken.
        store: of features, for evaluations that look them up.
    """

    def __init__(
        self,
        pool: Pool,
        server: Aggregator,
        training: Work,
        outer: OuterConfig,
        cluster: ClusterConfig,
        clock: Clock = time.monotonic,
        store: FeatureStore | None = None,
    ) -> None:
        self.server, self.training = server, training
        self.outer, self.cluster, self.clock = outer, cluster, clock
        self.dispatcher = Dispatcher(pool, cluster, clock)
        self.theta = PublishedTheta(pool, server)
        self.evaluator = Evaluator(self.dispatcher, self.theta, store)
        self._lock = threading.Lock()  # of the server, which `halt` reads from another thread
        self._is_whole, self._reports = True, list[StepReport]()
        self._open = deque[Round]()  # meta-batches from that of the server's version on

    def advance(self, steps: int) -> list[StepReport]:
        """Runs that many outer steps."""
        self._reports = []
        for _ in range(steps):
            self._outer_step()
        return self._reports

    def evaluate(self, evaluations: Sequence[Evaluation], progress: Progress | None = None) -> list[Evaluated]:
        """Evaluates, all at once; the figures are in the order given. One that diverges spoils no other's."""
        return self.evaluator.run(evaluations, progress)

    def progress(self) -> tuple[int, int]:
        """Units done, and units in all, of an `evaluate` that is going on; it may be called from another thread."""
        return self.evaluator.progress

    def state(self) -> ServerState:
        """The server's state."""
        return self.server.state()

    def load(self, state: ServerState) -> None:
        """Goes back to a state."""
        self.server.load(state)
        self.theta.forget()
        self.evaluator.forget()
        self._open.clear()

    def halt(self) -> tuple[ServerState, list[StepReport]] | None:
        """What an interrupted `advance` has come to: the state after the last whole step, and the steps' reports.

        It may be called from another thread. None where an update was interrupted half-way.
        """
        with self._lock:
            return (self.server.state(), list(self._reports)) if self._is_whole else None

    def _outer_step(self) -> None:
        started = self.clock()
        version, size = self.server.version, self.outer.meta_batch_size
        last = max(version, min(version + self.cluster.max_staleness, self.outer.steps - 1))
        for number in range(version + len(self._open), last + 1):
            self._open.append(Round.cut(self.training, number * size, size, self.cluster.tasks_per_unit))
        for round in self._open:
            round.handle = self.theta.handle(version)
        while True:
            self.dispatcher.work_on(self._open, version)
            try:
                report = self._apply(self._open[0].in_order())
                break
            except GradientsLostError:
                self._open[0].redo()
        seconds = max(self.clock() - started, 1e-6)  # two meta-batches may have become whole at once
        report.metrics["time/step_seconds"] = seconds
        report.metrics["time/tasks_per_second"] = size / seconds

    def _apply(self, results: Sequence[UnitResult]) -> StepReport:
        """The update, and what is to be said of it, as one piece to `halt`."""
        dispatcher = self.dispatcher
        with self._lock:
            self._is_whole = False
            try:
                report = self.server.apply(results, dispatcher.pool.add)
            except GradientsLostError:
                self._is_whole = True
                raise
            self._open.popleft()
            report.metrics["time/worker_seconds"] = sum(result.seconds for result in results)
            report.metrics["cluster/workers"] = float(len(dispatcher.pool.workers))
            report.metrics.update({f"cluster/{name}": float(count) for name, count in dispatcher.counts.items()})
            done = dispatcher.counts["units"] + dispatcher.counts["dropped_duplicates"]
            report.metrics["cluster/dropped_share"] = dispatcher.counts["dropped_duplicates"] / done
            self._reports.append(report)
            self._is_whole = True
            return report
