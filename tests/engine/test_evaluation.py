"""Evaluations: their units are all there at once, features are encoded once, and one that diverges spoils no other."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from simulation import OTHER, Fate, SimulatedPool, coordinate
from toy import toy_config

from distmeta.backends.inprocess import InProcessPool
from distmeta.data.corpus import Corpus
from distmeta.engine import encode, features
from distmeta.engine.encode import Features, FeatureStore, Place
from distmeta.engine.evaluation import _joined
from distmeta.engine.interfaces import Evaluation, Work
from distmeta.engine.setup import RunSetup
from distmeta.engine.worker import Worker
from distmeta.runs.experiment import build_experiment
from distmeta.types import Done, Lost, Rejected, ServerState, Unit, UnitResult


def test_no_worker_waits_for_the_end_of_one_evaluation_to_begin_the_next() -> None:
    """Nine units of 1 s on two workers are done after 5 s; one evaluation of three after the other would take 6 s."""
    pool = SimulatedPool(2, [])
    coordinator, _ = coordinate(pool)
    figures = coordinator.evaluate([Evaluation(OTHER, 10 * n, 3, 1) for n in range(3)])
    assert (pool.now, len(figures)) == (5.0, 3)
    assert [unit.first_index for _, unit in pool.submitted] == [0, 1, 2, 10, 11, 12, 20, 21, 22]


def test_progress_is_told_after_each_unit_and_can_be_asked_for() -> None:
    coordinator, _ = coordinate(SimulatedPool(2, [Fate(0.5, dies=True)]))
    told: list[tuple[int, int]] = []
    assert coordinator.progress() == (0, 0)
    coordinator.evaluate([Evaluation(OTHER, 0, 3, 1), Evaluation(OTHER, 10, 4, 2)], lambda *its: told.append(its))
    assert told == [(0, 5), (1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]  # first a worker was lost
    assert coordinator.progress() == (5, 5)


class Planned:
    """Stands for a `FeatureStore`: each evaluation needs three chunks."""

    def __init__(self) -> None:
        self.added: list[int] = []

    def key(self, theta: int) -> int:
        return theta

    def keep(self, keys: Any) -> None:
        list(keys)

    def needed(self, stream: Any, first_index: int, count: int) -> set[int]:
        return {100, 101, 102}

    def missing(self, place: Place, numbers: set[int]) -> list[int]:
        return sorted(numbers, reverse=True)

    def add(self, place: Place, values: dict[int, Any]) -> None:
        self.added += values

    def gather(self, place: Place, numbers: set[int]) -> np.ndarray:
        return np.ones(1)


def test_while_the_last_chunk_is_encoded_other_workers_evaluate_something_else() -> None:
    """Three chunks, then two units that look them up, and two that do not: seven of 1 s, in 4 s."""
    pool = SimulatedPool(2, [])
    coordinator, _ = coordinate(pool)
    coordinator.evaluator.store = cast(Any, Planned())
    looking_up = replace(OTHER, cache_features=True)
    coordinator.evaluate([Evaluation(looking_up, 0, 2, 1), Evaluation(OTHER, 10, 2, 1)])
    assert [unit.first_index for _, unit in pool.submitted] == [102, 101, 100, 10, 0, 1, 11]
    assert pool.now == 4.0


class Recorder:
    """A worker that keeps what it was given."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.given: list[tuple[Work, Unit]] = []

    def run(self, work: Work, unit: Unit, vector: np.ndarray, features: Features | None = None) -> UnitResult:
        self.given.append((work, unit))
        return self.worker.run(work, unit, vector, features)

    @property
    def encoded(self) -> Counter[int]:
        """How often each chunk was."""
        return Counter(unit.first_index for work, unit in self.given if work.encodes)


class TwoWorkers(InProcessPool):
    """Each has features, if any, of its own."""

    def __init__(self, setup: RunSetup) -> None:
        self.recorders = {name: Recorder(setup.make_worker(name, "cpu")) for name in ("0", "1")}
        super().__init__(self.recorders["0"], 2)

    def wait(self, seconds: float) -> list[Done | Lost]:
        worker, work, unit, vector, features = self._waiting.popleft()
        return [Done(worker, self.recorders[worker].run(work, unit, vector, features))]


class Cluster:
    """Two workers in this process and their coordinator."""

    def __init__(self, folder: Path, **overrides: Any) -> None:
        self.experiment = build_experiment(toy_config(folder, **overrides))
        self.pool = TwoWorkers(self.experiment.setup)
        self.coordinator = self.experiment.setup.make_coordinator(self.pool)

    @property
    def encoded(self) -> Counter[int]:
        """How often each chunk was, by any worker."""
        return self.pool.recorders["0"].encoded + self.pool.recorders["1"].encoded

    def evaluations(self, episodes: int = 12) -> list[Evaluation]:
        """All contenders on meta-test episodes of one shot and of two."""
        return [
            Evaluation(self.experiment.work(its.learner, stream, 12), 0, episodes, 5, its.initial)
            for its in self.experiment.contenders("classification")
            for stream in self.experiment.evaluated("classification", "meta_test")
        ]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """32 rows of a split are eight chunks."""
    monkeypatch.setattr(encode, "CHUNK", 4)
    monkeypatch.setattr(features, "CHUNK", 4)


HEAD = {"algorithm__name": "protomaml", "inner__adapt": "head"}


def test_every_chunk_is_encoded_once_under_each_theta_on_all_workers_together(
    tmp_path: Path, small_chunks: None
) -> None:
    cluster = Cluster(tmp_path, **HEAD)
    cluster.coordinator.advance(1)
    assert all(its.work.cache_features for its in cluster.evaluations())
    figures = cluster.coordinator.evaluate(cluster.evaluations())
    chunks = range(8)
    assert cluster.encoded == dict.fromkeys(chunks, 2)  # under θ, and under the first θ
    assert all(its.encoded for its in cluster.pool.recorders.values())
    again = cluster.coordinator.evaluate(cluster.evaluations())
    assert cluster.encoded == dict.fromkeys(chunks, 2)
    for one, other in zip(figures, again, strict=True):
        assert one.require()["loss"].tolist() == other.require()["loss"].tolist()
    cluster.coordinator.advance(1)
    cluster.coordinator.evaluate(cluster.evaluations())
    assert cluster.encoded == dict.fromkeys(chunks, 3)  # θ has changed, the first one has not
    state = cluster.coordinator.state()
    cluster.coordinator.load(ServerState({**state.arrays, "meta_params": -state.arrays["meta_params"]}, state.counters))
    cluster.coordinator.evaluate(cluster.evaluations()[:2])
    assert cluster.encoded == dict.fromkeys(chunks, 4)  # so has another θ of the same version


def test_where_nothing_has_been_learned_both_theta_are_one(tmp_path: Path, small_chunks: None) -> None:
    cluster = Cluster(tmp_path, **HEAD)
    cluster.coordinator.evaluate(cluster.evaluations())
    assert set(cluster.encoded.values()) == {1}


def test_a_frozen_body_encodes_once_whatever_theta(tmp_path: Path, small_chunks: None) -> None:
    cluster = Cluster(tmp_path, algorithm__name="anil", inner__adapt="head", model__freeze=["body.*"])
    for _ in range(2):
        cluster.coordinator.advance(1)
        cluster.coordinator.evaluate(cluster.evaluations())
    assert cluster.encoded == dict.fromkeys(range(8), 1)


def test_chunks_that_no_episode_has_a_row_of_are_not_encoded(tmp_path: Path, small_chunks: None) -> None:
    """One 1-shot episode of 3 ways and 2 queries has nine rows."""
    cluster = Cluster(tmp_path, **HEAD)
    evaluation = cluster.evaluations(episodes=1)[0]
    cluster.coordinator.evaluate([evaluation])
    family = cluster.experiment.setup.families["classification"]
    drawn = family.batch([family.draw(cast(Any, evaluation.work.stream), 0)])
    rows = {int(row) for batch in (drawn.support, drawn.query) for row in batch.inputs["rows"].flatten()}
    order = family.rows("meta_test").tolist()
    assert cluster.encoded == dict.fromkeys({order.index(row) // 4 for row in rows}, 1)
    assert len(cluster.encoded) < 8


def test_what_is_looked_up_is_not_padded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens are collated to be encoded, and of no episode."""
    cluster, collated = Cluster(tmp_path, **HEAD), list[tuple[int, ...]]()
    tokens = Corpus.tokens

    def collating(self: Corpus, rows: np.ndarray) -> Any:
        collated.append(rows.shape)
        return tokens(self, rows)

    monkeypatch.setattr(Corpus, "tokens", collating)
    cluster.coordinator.evaluate(cluster.evaluations())
    assert collated == [(1, 32)]


def test_features_of_other_rows_are_an_error() -> None:
    given = Features(np.array([3, 5, 8]), np.array([[0.0], [1.0], [2.0]], np.float32))
    assert given.lookup(torch.tensor([[8, 3], [5, 5]])).tolist() == [[[2], [0]], [[1], [1]]]
    for row in (2, 4, 9):
        with pytest.raises(LookupError):
            given.lookup(torch.tensor([3, row]))


def test_a_store_forgets_what_it_is_not_to_keep() -> None:
    store = FeatureStore({}, body_is_frozen=False)
    one, other = (Place(key, "toy", "meta_test") for key in (1, 2))
    store.add(one, {7: np.zeros((4, 2))})
    assert store.missing(one, {6, 7, 8}) == [8, 6]
    assert store.missing(other, {7}) == [7]
    assert store.missing(one._replace(family="another"), {7}) == [7]
    store.keep([1])
    assert store.missing(one, {7}) == []
    store.keep([2])
    assert store.missing(one, {7}) == [7]


def test_a_curve_ends_where_the_first_task_of_any_unit_diverges() -> None:
    """The second unit stops after one point, with tasks 2 and 3; the third after two, with task 5."""
    points = {"loss": np.array([[0.0, 0.1, 0.2], [1.0, 1.1, 1.2]])}

    def result(first: int, reached: int, *bad: int) -> UnitResult:
        rejected = tuple(Rejected(index, ("x", f"y{index}"), "it diverged") for index in bad)
        cut = {name: (first + value)[:, :reached] for name, value in points.items()}
        return UnitResult(Unit(0, first, 2), None, cut, rejected, "0", 0.0)

    evaluation = Evaluation(replace(OTHER, curve=True), 0, 6, 2)
    figures = _joined(evaluation, [result(0, 3), result(2, 1, 2, 3), result(4, 2, 5)])
    assert figures.statistics["loss"].tolist() == [[0], [1], [2], [3], [4], [5]]
    assert str(figures.error).startswith("meta_test task 2 (x, y2) and 1 more: it diverged")
    assert _joined(evaluation, [result(0, 3), result(2, 3)]).error is None
