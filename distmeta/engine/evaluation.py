"""Evaluations of learners: all their units are there to be done at once, so that no worker waits for another.

Learners that do not adapt the body look features up. To encode those is the work of units too, which come first. An
evaluation's own units follow as soon as the last of its features is there, and meanwhile workers encode the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from distmeta.engine.dispatch import Dispatcher, Round
from distmeta.engine.encode import FeatureStore, Place
from distmeta.engine.interfaces import Aggregator, Evaluated, Evaluation, Pool
from distmeta.errors import DivergedError
from distmeta.types import Stream, UnitResult

INITIAL = -1  # the key of what training started from; that of any other θ is its version
Progress = Callable[[int, int], None]  # units done, units in all


class PublishedTheta:
    """Handles of θ: each version is published once, and what training started from once.

    Args:
        pool: publishes.
        server: owner of θ.
    """

    def __init__(self, pool: Pool, server: Aggregator) -> None:
        self.pool, self.server = pool, server
        self._initial = server.meta_params
        self._handles: dict[int, Any] = {}

    def keys(self) -> dict[bool, int]:
        """Of the present θ, and (True) of the initial one; they are the same where nothing has been learned yet."""
        version = self.server.version
        is_initial = not version and np.array_equal(self._initial, self.server.meta_params)
        return {False: version, True: version if is_initial else INITIAL}

    def handle(self, key: int) -> Any:
        """Of the present θ or of the initial one."""
        if key not in self._handles:
            kept = {k: handle for k, handle in self._handles.items() if INITIAL in (k, key)}
            self._handles = {**kept, key: self.pool.publish(self._initial if key == INITIAL else self.server.handle)}
        return self._handles[key]

    def forget(self) -> None:
        """θ has been replaced, and may have a version that another one had."""
        self._handles.clear()


@dataclass
class _Encoding:
    """The chunks of a family's split that are wanted under one θ, and the evaluations that wait for them."""

    place: Place
    chunks: set[int] = field(default_factory=set)
    waiting: list[Round] = field(default_factory=list)


class Evaluator:
    """Runs evaluations.

    Args:
        dispatcher: has units done.
        theta: what they are done under.
        store: of features; none: no learner looks any up.
    """

    def __init__(self, dispatcher: Dispatcher, theta: PublishedTheta, store: FeatureStore | None) -> None:
        self.dispatcher, self.theta, self.store = dispatcher, theta, store
        # Units done and units in all, of the present evaluations or the last ones; other threads may read it.
        self.progress = (0, 0)

    def run(self, evaluations: Sequence[Evaluation], progress: Progress | None = None) -> list[Evaluated]:
        """The statistics of each evaluation, in the order given; `progress` is told after each unit."""
        self.progress = (0, 0)  # until the units are planned
        version, keys = self.theta.server.version, self.theta.keys()
        rounds = [Round.cut(its.work, its.first_index, its.count, its.per_unit) for its in evaluations]
        for its, round in zip(evaluations, rounds, strict=True):
            round.handle = self.theta.handle(keys[its.initial])
        encodings = self._encodings(evaluations, rounds, keys)
        total = sum(len(round.counts) for round in (*encodings, *rounds))

        def tell() -> None:
            self.progress = (sum(len(round.results) for round in (*encodings, *rounds)), total)
            if progress is not None:
                progress(*self.progress)

        queue = deque([*encodings, *(round for round in rounds if not round.work.cache_features)])
        while queue:
            self.dispatcher.work_on(queue, version, tell)
            if (done := queue.popleft()) in encodings:
                ready = self._hand_out(done, encodings[done])
                queue.extendleft(reversed(ready))
        return [_joined(its, round.in_order()) for its, round in zip(evaluations, rounds, strict=True)]

    def forget(self) -> None:
        """θ has been replaced, and may have a version that another one had."""
        if self.store is not None:
            self.store.keep([self.store.key(INITIAL)])

    def _encodings(
        self, evaluations: Sequence[Evaluation], rounds: Sequence[Round], keys: Mapping[bool, int]
    ) -> dict[Round, _Encoding]:
        """What must be encoded first: nothing twice under one θ, and no chunk that no episode has a row of."""
        wanted: dict[Place, _Encoding] = {}
        chunks: dict[tuple[Stream, int, int], set[int]] = {}
        for its, round in zip(evaluations, rounds, strict=True):
            if not its.work.cache_features:
                continue
            assert self.store is not None, "features are to be looked up, and there is no store of them"
            key, stream = self.store.key(keys[its.initial]), its.work.stream
            assert isinstance(stream, Stream), "an evaluation is of one family"
            episodes, place = (stream, its.first_index, its.count), Place(key, stream.family, stream.split)
            if episodes not in chunks:
                chunks[episodes] = self.store.needed(*episodes)
            encoding = wanted.setdefault(place, _Encoding(place))
            encoding.chunks |= chunks[episodes]
            encoding.waiting.append(round)
        if self.store is not None:
            self.store.keep(map(self.store.key, keys.values()))
        return {self._round(encoding): encoding for encoding in wanted.values()}

    def _round(self, encoding: _Encoding) -> Round:
        assert self.store is not None
        missing = self.store.missing(encoding.place, encoding.chunks)
        first = encoding.waiting[0]
        work = replace(first.work, cache_features=False, curve=False, encodes=True)
        return Round(work, dict.fromkeys(missing, 1), first.handle)

    def _hand_out(self, done: Round, encoding: _Encoding) -> list[Round]:
        """Gives features to the evaluations that wait for them."""
        assert self.store is not None
        values = {number: result.features for number, result in done.results.items()}
        self.store.add(encoding.place, values)
        features = self.store.gather(encoding.place, encoding.chunks)
        handle = self.dispatcher.pool.publish(features)
        for round in encoding.waiting:
            round.features = handle
        return encoding.waiting


def _joined(evaluation: Evaluation, results: Sequence[UnitResult]) -> Evaluated:
    """One evaluation's figures from those of its units."""
    metrics: list[dict[str, np.ndarray]] = [result.metrics for result in results]
    if evaluation.work.curve:
        # Units stop where one of their tasks diverges: all figures end at the first such point, with the tasks there.
        points = [next(iter(values.values())).shape[1] for values in metrics]
        end = min(points)
        results = [result for result, n in zip(results, points, strict=True) if n == end]
        metrics = [{name: value[:, :end] for name, value in values.items()} for values in metrics]
    joined = {name: np.concatenate([values[name] for values in metrics]) for name in metrics[0]}
    rejected = [task for result in results for task in result.rejected]
    if not rejected:
        return Evaluated(joined)
    first, others = rejected[0], len(rejected) - 1
    error = DivergedError(
        f"{evaluation.work.stream.split} task {first.index} ({', '.join(first.names)})"
        f"{f' and {others} more' if others else ''}: {first.reason}"
        f"{', under the meta-parameters that training started from' if evaluation.initial else ''}. "
        "A smaller inner.lr, or inner.clip_norm, may help"
    )
    return Evaluated(joined if evaluation.work.curve else {}, error)
