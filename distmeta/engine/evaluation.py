"""Evaluations of learners: all their units are queued together, so that no worker waits for another.

Learners that do not adapt the body look features up. Units that encode these features come first. An evaluation's own
units follow as soon as its last feature is encoded; meanwhile other workers encode the features of the next one.
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

INITIAL = -1  # the key of the initial θ; the key of any other θ is its version
Progress = Callable[[int, int], None]  # units done, units in total


class PublishedTheta:
    """Handles of θ: each version and the initial θ are published once.

    Args:
        pool: publishes θ.
        server: the owner of θ.
    """

    def __init__(self, pool: Pool, server: Aggregator) -> None:
        self.pool, self.server = pool, server
        self._initial = server.meta_params
        self._handles: dict[int, Any] = {}

    def keys(self) -> dict[bool, int]:
        """Keys of the current θ (False) and of the initial θ (True); the same before anything was learned."""
        version = self.server.version
        is_initial = not version and np.array_equal(self._initial, self.server.meta_params)
        return {False: version, True: version if is_initial else INITIAL}

    def handle(self, key: int) -> Any:
        """The handle of the current θ or of the initial one."""
        if key not in self._handles:
            kept = {k: handle for k, handle in self._handles.items() if INITIAL in (k, key)}
            self._handles = {**kept, key: self.pool.publish(self._initial if key == INITIAL else self.server.handle)}
        return self._handles[key]

    def forget(self) -> None:
        """Drops all handles, since θ was replaced: the new one may reuse a version number."""
        self._handles.clear()


@dataclass
class _Encoding:
    """The chunks of a family's split that are needed under one θ, and the evaluations that wait for them."""

    place: Place
    chunks: set[int] = field(default_factory=set)
    waiting: list[Round] = field(default_factory=list)


class Evaluator:
    """Runs evaluations.

    Args:
        dispatcher: runs units.
        theta: the θ that they use.
        store: stores features; None if no learner looks any up.
    """

    def __init__(self, dispatcher: Dispatcher, theta: PublishedTheta, store: FeatureStore | None) -> None:
        self.dispatcher, self.theta, self.store = dispatcher, theta, store
        # Units done and units in total of the current or last `run`; other threads may read it.
        self.progress = (0, 0)

    def run(self, evaluations: Sequence[Evaluation], progress: Progress | None = None) -> list[Evaluated]:
        """The statistics of each evaluation, in the order given; `progress` is called after each unit."""
        self.progress = (0, 0)  # until the units are planned
        version, keys = self.theta.server.version, self.theta.keys()
        rounds = [Round.cut(e.work, e.first_index, e.count, e.per_unit) for e in evaluations]
        for evaluation, round in zip(evaluations, rounds, strict=True):
            round.handle = self.theta.handle(keys[evaluation.initial])
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
        return [_joined(e, round.in_order()) for e, round in zip(evaluations, rounds, strict=True)]

    def forget(self) -> None:
        """Drops the features of all but the initial θ: a θ that is loaded may reuse a version number."""
        if self.store is not None:
            self.store.keep([self.store.key(INITIAL)])

    def _encodings(
        self, evaluations: Sequence[Evaluation], rounds: Sequence[Round], keys: Mapping[bool, int]
    ) -> dict[Round, _Encoding]:
        """The rounds that encode features: each chunk that an episode needs, once per θ."""
        encodings: dict[Place, _Encoding] = {}
        chunks: dict[tuple[Stream, int, int], set[int]] = {}
        for e, round in zip(evaluations, rounds, strict=True):
            if not e.work.cache_features:
                continue
            assert self.store is not None, "an evaluation looks features up, but there is no feature store"
            key, stream = self.store.key(keys[e.initial]), e.work.stream
            assert isinstance(stream, Stream), "an evaluation must have one family"
            episodes, place = (stream, e.first_index, e.count), Place(key, stream.family, stream.split)
            if episodes not in chunks:
                chunks[episodes] = self.store.needed(*episodes)
            encoding = encodings.setdefault(place, _Encoding(place))
            encoding.chunks |= chunks[episodes]
            encoding.waiting.append(round)
        if self.store is not None:
            self.store.keep(map(self.store.key, keys.values()))
        return {self._round(encoding): encoding for encoding in encodings.values()}

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
    """Joins the results of an evaluation's units."""
    metrics: list[dict[str, np.ndarray]] = [result.metrics for result in results]
    if evaluation.work.curve:
        # A unit's curve stops where a task diverges. All curves end at the first such point; only its tasks are named.
        points = [next(iter(values.values())).shape[1] for values in metrics]
        end = min(points)
        results = [result for result, n in zip(results, points, strict=True) if n == end]
        metrics = [{name: value[:, :end] for name, value in values.items()} for values in metrics]
    if evaluation.work.answers:
        metrics = _padded(metrics)
    joined = {name: np.concatenate([values[name] for values in metrics]) for name in metrics[0]}
    rejected = [task for result in results for task in result.rejected]
    if not rejected:
        return Evaluated(joined)
    first, rest = rejected[0], len(rejected) - 1
    error = DivergedError(
        f"{evaluation.work.stream.split} task {first.index} ({', '.join(first.names)})"
        f"{f' and {rest} more' if rest else ''}: {first.reason}"
        f"{', under the meta-parameters that training started from' if evaluation.initial else ''}. "
        "A smaller inner.lr, or inner.clip_norm, may help"
    )
    return Evaluated(joined if evaluation.work.curve else {}, error)


def _padded(metrics: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Arrays (T, E, …) of several units with zeros behind their elements, so that E is the same in all."""
    longest = max(values["weights"].shape[1] for values in metrics)

    def pad(array: np.ndarray) -> np.ndarray:
        return np.pad(array, [(0, 0), (0, longest - array.shape[1]), *[(0, 0)] * (array.ndim - 2)])

    return [{name: pad(array) for name, array in values.items()} for values in metrics]
