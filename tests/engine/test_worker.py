"""What a worker returns for a unit, and features that are kept between episodes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_helpers import episodes
from toy import evaluated, toy_config, training_stream

from distmeta.algorithms.protonet import ProtoNet
from distmeta.engine import reduction
from distmeta.engine.encode import CHUNK, Features, FeatureStore, Place
from distmeta.engine.finite import DIVERGED
from distmeta.engine.interfaces import Work
from distmeta.engine.worker import Worker
from distmeta.protocols import Model
from distmeta.runs.experiment import Experiment, build_experiment
from distmeta.tasks.base import each
from distmeta.types import Adapted, Batch, Episode, Metrics, Params, Unit, UnitResult


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return build_experiment(toy_config(tmp_path, algorithm__name="protomaml", inner__adapt="head"))


def make_worker(experiment: Experiment) -> Worker:
    return experiment.setup.make_worker("7", "cpu")


def total(results: list[UnitResult]) -> np.ndarray:
    gradients: list[Any] = [result.gradient for result in results]
    return np.stack(gradients).sum(0)  # type: ignore[no-any-return]


def test_a_units_gradient_is_the_sum_of_its_episodes(experiment: Experiment) -> None:
    worker, setup = make_worker(experiment), experiment.setup
    both = worker.run(setup.training, Unit(0, 4, 2), setup.meta_params)
    parts = [worker.run(setup.training, Unit(0, index, 1), setup.meta_params) for index in (4, 5)]
    assert both.gradient is not None
    assert both.gradient.dtype == np.float32
    np.testing.assert_allclose(both.gradient, total(parts), rtol=1e-4, atol=1e-7)
    for name, values in both.metrics.items():
        np.testing.assert_allclose(values, np.concatenate([part.metrics[name] for part in parts]), rtol=1e-5)
    assert (both.worker, both.rejected) == ("7", ())


def test_a_unit_is_the_same_on_any_worker_whatever_it_did_before(experiment: Experiment, tmp_path: Path) -> None:
    experiment = build_experiment(toy_config(tmp_path, model__dropout=0.5))
    setup, unit = experiment.setup, Unit(0, 6, 3)
    fresh, used = make_worker(experiment), make_worker(experiment)
    used.run(setup.training, Unit(0, 0, 2), setup.meta_params)
    results = [worker.run(setup.training, unit, setup.meta_params).gradient for worker in (fresh, used)]
    assert np.array_equal(*results)


def encoded(worker: Worker, work: Work, theta: np.ndarray) -> Features:
    """Features of all rows of a split, as the coordinator hands them out."""
    store, place = FeatureStore(worker.families, body_is_frozen=False), Place(0, "classification", work.stream.split)
    chunks = set(range(-(-len(worker.families[place.family].rows(place.split)) // CHUNK)))
    results = {n: worker.run(replace(work, cache_features=False, encodes=True), Unit(0, n, 1), theta) for n in chunks}
    store.add(place, {number: result.features for number, result in results.items()})
    return store.gather(place, chunks)


def evaluation(experiment: Experiment, cache_features: bool) -> Work:
    stream = evaluated(experiment, "meta_test", 2)
    return Work(stream, experiment.learner, training=False, cache_features=cache_features)


def test_kept_features_change_no_figure(experiment: Experiment) -> None:
    worker, setup = make_worker(experiment), experiment.setup
    looked_up = evaluation(experiment, True)
    for first in (0, 10):
        unit = Unit(0, first, 10)
        features = encoded(worker, looked_up, setup.meta_params)
        kept = worker.run(looked_up, unit, setup.meta_params, features)
        direct = worker.run(evaluation(experiment, False), unit, setup.meta_params)
        assert kept.gradient is None
        np.testing.assert_allclose(kept.metrics["loss"], direct.metrics["loss"], rtol=1e-4)


def test_dropout_is_for_meta_training_alone(tmp_path: Path) -> None:
    plain, dropping = (build_experiment(toy_config(tmp_path, model__dropout=rate)) for rate in (0.0, 0.5))
    unit, theta = Unit(0, 0, 4), plain.setup.meta_params
    evaluated = [make_worker(its).run(evaluation(its, False), unit, theta).metrics["loss"] for its in (plain, dropping)]
    assert evaluated[0].tolist() == evaluated[1].tolist()
    trained = [make_worker(its).run(its.setup.training, unit, theta).metrics["loss"] for its in (plain, dropping)]
    assert trained[0].tolist() != trained[1].tolist()


def test_features_are_made_anew_for_other_meta_parameters(experiment: Experiment) -> None:
    worker, setup, unit = make_worker(experiment), experiment.setup, Unit(0, 0, 10)
    other = setup.meta_params + np.random.default_rng(0).normal(size=setup.meta_params.shape).astype(np.float32)
    looked_up = evaluation(experiment, True)
    encoded(worker, looked_up, setup.meta_params)
    kept = worker.run(looked_up, unit, other, encoded(worker, looked_up, other)).metrics["loss"]
    direct = make_worker(experiment).run(evaluation(experiment, False), unit, other).metrics["loss"]
    np.testing.assert_allclose(kept, direct, rtol=1e-4)
    with pytest.raises(ValueError, match="its body is not frozen"):
        worker.run(looked_up, unit, other)


def test_a_frozen_body_runs_once_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toy_config(tmp_path, algorithm__name="anil", inner__adapt="head", model__freeze=["body.*"])
    setup = build_experiment(config).setup
    assert {name.split(".")[0] for name in setup.layout.names} == {"head"}
    worker = setup.make_worker("0", "cpu")
    rows: list[int] = []
    cache = worker.caches["classification"]
    encode = cache._encode

    def encoding(meta_params: Params, asked: np.ndarray) -> torch.Tensor:
        rows.extend(asked.tolist())
        return encode(meta_params, asked)

    monkeypatch.setattr(cache, "_encode", encoding)
    for step in range(3):
        theta = setup.meta_params + np.float32(step)
        result = worker.run(setup.training, Unit(step, 4 * step, 4), theta)
        assert result.gradient is not None
        assert result.gradient.any()
    assert len(rows) == len(set(rows))


@dataclass(frozen=True)
class Diverging(ProtoNet):
    """Fails on the episodes that hold a class."""

    bad: str = ""

    def meta_gradient(self, model: Model, meta_params: Params, episode: Episode) -> tuple[Params, Metrics]:
        gradient, metrics = super().meta_gradient(model, meta_params, episode)
        if any(self.bad in names for names in episode.names):
            gradient = {name: value * float("nan") for name, value in gradient.items()}
        return gradient, metrics


def test_a_gradient_that_is_not_finite_names_its_task_and_spares_the_others(experiment: Experiment) -> None:
    worker, setup = make_worker(experiment), experiment.setup
    drawn = episodes(setup.families["classification"], training_stream(setup), 0, 6).names
    bad = next(name for name in sorted(set(sum(drawn, ()))) if 0 < sum(name in names for names in drawn) < 4)
    work = replace(setup.training, learner=Diverging(bad=bad))
    result = worker.run(work, Unit(0, 0, 6), setup.meta_params)
    assert [task.index for task in result.rejected] == [i for i, names in enumerate(drawn) if bad in names]
    assert all(bad in task.names for task in result.rejected)
    good = [i for i, names in enumerate(drawn) if bad not in names]
    plain = replace(setup.training, learner=ProtoNet())
    expected = total([worker.run(plain, Unit(0, i, 1), setup.meta_params) for i in good])
    assert result.gradient is not None
    np.testing.assert_allclose(result.gradient, expected, rtol=1e-4, atol=1e-6)


@dataclass(frozen=True)
class Steep(ProtoNet):
    """Has a gradient of this norm."""

    norm: float = 1.0

    def meta_gradient(self, model: Model, meta_params: Params, episode: Episode) -> tuple[Params, Metrics]:
        gradient, metrics = super().meta_gradient(model, meta_params, episode)
        elements = sum(value.numel() for value in gradient.values())
        return {name: torch.full_like(value, self.norm / elements**0.5) for name, value in gradient.items()}, metrics


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("norm", "reason"),
    [
        (1.8e19, None),  # 1.8e19² = 3.24e38, and the largest float32 number is 3.40e38
        (1.9e19, "its meta-gradient has a norm of 1.9e+19, more than float32 can square"),
        (3.4e38, "its meta-gradient has a norm of 3.4e+38, more than float32 can square"),
    ],
)
def test_a_gradient_that_float32_cannot_square_names_its_task(
    experiment: Experiment, norm: float, reason: str | None, packed: bool
) -> None:
    worker, setup = make_worker(experiment), experiment.setup
    worker.packed = packed
    result = worker.run(replace(setup.training, learner=Steep(norm=norm)), Unit(0, 4, 2), setup.meta_params)
    names = episodes(
        setup.families["classification"], experiment.streams["classification"]["meta_train"][0], 4, 2
    ).names
    assert result.names == names
    assert [(task.index, task.names, task.reason) for task in result.rejected] == (
        [(4 + t, its, reason) for t, its in enumerate(names)] if reason else []
    )
    gradient = reduction.unpack(result.gradient)
    assert np.isfinite(gradient).all()
    assert gradient.any() == (reason is None)


BAD_RATE = 1e30  # the first inner step leaves numbers that cannot be squared


def test_a_diverged_inner_loop_is_told_from_a_gradient_that_is_not_finite(
    experiment: Experiment, tmp_path: Path
) -> None:
    setup, unit = experiment.setup, Unit(0, 3, 1)
    ((bad, *_),) = episodes(setup.families["classification"], training_stream(setup), 3, 1).names
    work = replace(setup.training, learner=Diverging(bad=bad))
    (by_gradient,) = make_worker(experiment).run(work, unit, setup.meta_params).rejected
    assert by_gradient.reason == "its meta-gradient is not finite, though adaptation went well"
    wild = build_experiment(toy_config(tmp_path, inner__lr=BAD_RATE))
    result = make_worker(wild).run(wild.setup.training, unit, wild.setup.meta_params)
    assert [(task.index, task.reason) for task in result.rejected] == [(3, DIVERGED)]
    assert not result.gradient.any()


@dataclass(frozen=True)
class Exploding(ProtoNet):
    """Has adapted well, but its training loss is not finite."""

    def meta_gradient(self, model: Model, meta_params: Params, episode: Episode) -> tuple[Params, Metrics]:
        gradient, metrics = super().meta_gradient(model, meta_params, episode)
        return gradient, {**metrics, "loss": metrics["loss"] * float("inf")}


def test_a_training_loss_that_is_not_finite_is_named_as_such(experiment: Experiment) -> None:
    work = replace(experiment.setup.training, learner=Exploding())
    (task,) = make_worker(experiment).run(work, Unit(0, 0, 1), experiment.setup.meta_params).rejected
    assert task.reason == "its loss is not finite, though adaptation went well"


def test_an_evaluation_names_the_tasks_that_diverged(experiment: Experiment) -> None:
    """Accuracy would count them as if all of their outputs had been the first class."""
    setup, work = experiment.setup, evaluation(experiment, False)
    family = setup.families["classification"]
    names = episodes(family, evaluated(experiment, "meta_test", 2), 5, 4).names
    bad = next(name for name in sorted({n for its in names for n in its}) if 0 < sum(name in n for n in names) < 4)

    @dataclass(frozen=True)
    class DivergingOnOne(ProtoNet):
        def adapt(self, model: Model, meta_params: Params, support: Batch) -> Adapted:
            adapted = super().adapt(model, meta_params, support)
            factor = torch.tensor([float("nan") if bad in its else 1.0 for its in names])
            return adapted._replace(stacked={"prototypes": adapted.stacked["prototypes"] * factor.view(-1, 1, 1)})

    result = make_worker(experiment).run(replace(work, learner=DivergingOnOne()), Unit(0, 5, 4), setup.meta_params)
    expected = [(5 + t, its, DIVERGED) for t, its in enumerate(names) if bad in its]
    assert [(task.index, task.names, task.reason) for task in result.rejected] == expected
    assert np.isfinite([figures["accuracy"] for figures in each(family, result.metrics)]).all()
    assert make_worker(experiment).run(work, Unit(0, 5, 4), setup.meta_params).rejected == ()


def test_kept_features_leave_what_else_is_known_of_a_row(tmp_path: Path) -> None:
    """A common head over all classes needs each example's class."""
    config = toy_config(tmp_path, algorithm__name="multitask", inner__lr=0.5, model__freeze=["body.*"])
    setup = build_experiment(config).setup
    assert setup.training.cache_features
    result = setup.make_worker("0", "cpu").run(setup.training, Unit(0, 0, 2), setup.meta_params)
    direct = replace(setup.training, cache_features=False)
    expected = setup.make_worker("0", "cpu").run(direct, Unit(0, 0, 2), setup.meta_params)
    np.testing.assert_allclose(result.gradient, expected.gradient, rtol=1e-4, atol=1e-6)
