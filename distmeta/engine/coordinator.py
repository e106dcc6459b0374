"""The coordinator decides which meta-batches run under which version of θ, and when they are applied.

It knows only units and versions. The aggregator handles gradients; the dispatcher gives units to workers.
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
from distmeta.engine.interfaces import Aggregator, Evaluated, Evaluation, Pool, Work
from distmeta.errors import GradientsLostError
from distmeta.types import ServerState, StepReport, UnitResult


class Coordinator:
    """Drives a pool of workers through meta-batches and evaluations.

    Meta-batches are applied whole and in order. Each holds its own episodes once, however fast each worker is. With
    `cluster.max_staleness` S > 0 workers are up to S meta-batches ahead: a gradient is never older than S versions.
    This is the bounded delay of Qirong Ho et al. More Effective Distributed ML via a Stale Synchronous Parallel
    Parameter Server. NIPS 2013. https://papers.nips.cc/paper/4894, which bounds workers' clocks.

    Args:
        pool: the workers.
        server: the owner of θ.
        training: the work of a training unit.
        outer: the number of episodes in an outer step, and the number of steps.
        cluster: deadlines, staleness, and the number of episodes in a unit. The last changes floating-point sums, so it
            never depends on the number of workers.
        clock: gives seconds; only differences are used.
        store: stores features, for evaluations that look them up.
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
        self._lock = threading.Lock()  # guards the server, which `halt` reads from another thread
        self._is_whole, self._reports = True, list[StepReport]()
        self._open = deque[Round]()  # meta-batches that are not applied yet, the next one first

    def advance(self, steps: int) -> list[StepReport]:
        """Runs `steps` outer steps."""
        self._reports = []
        for _ in range(steps):
            self._outer_step()
        return self._reports

    def evaluate(self, evaluations: Sequence[Evaluation], progress: Progress | None = None) -> list[Evaluated]:
        """Runs all evaluations together; results are in the order given. One that diverges does not affect others."""
        return self.evaluator.run(evaluations, progress)

    def progress(self) -> tuple[int, int]:
        """Units done and units in total of a running `evaluate`; may be called from another thread."""
        return self.evaluator.progress

    def state(self) -> ServerState:
        """The server's state."""
        return self.server.state()

    def load(self, state: ServerState) -> None:
        """Restores a state."""
        self.server.load(state)
        self.theta.forget()
        self.evaluator.forget()
        self._open.clear()

    def halt(self) -> tuple[ServerState, list[StepReport]] | None:
        """The state after the last complete step of an interrupted `advance`, and the steps' reports.

        May be called from another thread. None if an update was interrupted half-way.
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
        seconds = max(self.clock() - started, 1e-6)  # two meta-batches may be complete at once
        report.metrics["time/step_seconds"] = seconds
        report.metrics["time/tasks_per_second"] = size / seconds

    def _apply(self, results: Sequence[UnitResult]) -> StepReport:
        """Applies the update and records its report; `halt` sees both or neither."""
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
            results_in_all = dispatcher.counts["units"] + dispatcher.counts["dropped_duplicates"]
            report.metrics["cluster/dropped_share"] = dispatcher.counts["dropped_duplicates"] / results_in_all
            self._reports.append(report)
            self._is_whole = True
            return report
