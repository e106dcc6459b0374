"""Expected numbers stand beside the assertions, worked out by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from arrays import f32
from toy import toy_config

from distmeta.config import OuterConfig
from distmeta.config.load import validate
from distmeta.engine.server import ParameterServer, staleness
from distmeta.errors import ConfigError, TrainingError
from distmeta.report.progress import Reporter
from distmeta.runs import train as driver
from distmeta.runs.experiment import build_experiment
from distmeta.types import Rejected, Unit, UnitResult


def result(first: int, gradient: list[float], count: int = 1, rejected: tuple[Rejected, ...] = ()) -> UnitResult:
    metrics = {"loss": np.arange(first, first + count, dtype=float)}
    return UnitResult(Unit(0, first, count), f32(*gradient), metrics, rejected, "0", 0.1)


def server(**outer: Any) -> ParameterServer:
    return ParameterServer(OuterConfig(**{"optimizer": "sgd", "lr": 0.5, "steps": 10, **outer}), f32(1.0, 2.0))


def test_sgd_on_the_mean_gradient_of_the_tasks() -> None:
    """Two units of 1 and 3 tasks: (4 + 8, 0 − 4) / 4 = (3, −1); θ − 0.5 · that = (−0.5, 2.5)."""
    its = server()
    report = its.apply([result(0, [4.0, 0.0]), result(1, [8.0, -4.0], count=3)])
    assert its.meta_params.tolist() == [-0.5, 2.5]
    assert (report.outer_step, its.version) == (1, 1)
    assert report.metrics["outer/grad_norm"] == pytest.approx(10**0.5)
    assert report.metrics["meta_train/loss"] == 1.5  # of tasks 0, 1, 2, 3


def aged(age: int, *gradient: float) -> UnitResult:
    """A unit of one task, worked on `age` versions before version 2."""
    return UnitResult(Unit(2 - age, 0, 1), f32(*gradient), {"loss": np.array([1.0])}, (), "0", 0.0)


def test_old_gradients_count_less() -> None:
    """θ = (1, 2) - 0.5 · ((4, 0) + (0, 4)/√4 + (2, 2)/√1) / 3 with alpha = 0.5 and ages 0, 3, 0."""
    outer = OuterConfig(optimizer="sgd", lr=0.5, steps=10)
    its = ParameterServer(outer, f32(1.0, 2.0), staleness_alpha=0.5)
    its.version = 2
    report = its.apply([aged(0, 4.0, 0.0), aged(3, 0.0, 4.0), aged(0, 2.0, 2.0)])
    assert its.meta_params.tolist() == pytest.approx([1 - 0.5 * 6 / 3, 2 - 0.5 * 4 / 3])
    assert (report.metrics["staleness/mean"], report.metrics["staleness/max"]) == (1.0, 3.0)
    state = its.state()
    assert staleness(state) == {0: 2, 3: 1}
    other = ParameterServer(outer, f32(0.0, 0.0), staleness_alpha=0.5)
    other.load(state)
    assert staleness(other.state()) == {0: 2, 3: 1}


def test_without_staleness_nothing_is_said_of_it() -> None:
    its = server()
    its.version = 2
    assert "staleness/mean" not in its.apply([aged(0, 4.0, 0.0)]).metrics
    assert its.state().counters == {"version": 3}


def test_clipping_shortens_the_mean_gradient() -> None:
    """(3, 4) has norm 5; cut to 1 it is (0.6, 0.8)."""
    its = server(clip_norm=1.0)
    its.apply([result(0, [3.0, 4.0])])
    assert its.meta_params.tolist() == pytest.approx([1 - 0.3, 2 - 0.4])


def test_adams_first_step_is_the_rate_times_the_sign() -> None:
    its = server(optimizer="adam", lr=0.1)
    its.apply([result(0, [5.0, -0.01])])
    assert its.meta_params.tolist() == pytest.approx([0.9, 2.1], abs=1e-6)


def test_adamw_decays_apart_from_the_gradient() -> None:
    """θ ← θ (1 − 0.1 · 0.5) − 0.1 · sign."""
    its = server(optimizer="adamw", lr=0.1, weight_decay=0.5)
    its.apply([result(0, [1.0, 1.0])])
    assert its.meta_params.tolist() == pytest.approx([0.95 - 0.1, 1.9 - 0.1], abs=1e-6)


@pytest.mark.parametrize(
    ("outer", "shares"),
    [
        ({"schedule": "constant"}, [1, 1, 1, 1]),
        ({"schedule": "linear"}, [1, 0.75, 0.5, 0.25]),
        ({"schedule": "linear", "warmup_steps": 2}, [0.5, 1, 1, 0.5]),
        ({"schedule": "cosine"}, [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5]),
    ],
)
def test_schedules(outer: dict[str, Any], shares: list[float]) -> None:
    its = server(steps=4, **outer)
    rates = [its.apply([result(0, [1.0, 1.0])]).metrics["outer/lr"] for _ in range(4)]
    assert rates == pytest.approx([0.5 * share for share in shares])


BAD = Rejected(1, ("a", "b"), "its loss is not finite")


def test_a_rejected_task_counts_neither_in_the_sum_nor_in_the_mean() -> None:
    its = server(max_bad_tasks=1)
    report = its.apply([result(0, [4.0, 0.0], count=2, rejected=(BAD,)), result(2, [2.0, 0.0])])
    assert its.meta_params.tolist() == [1 - 0.5 * 3, 2.0]  # (4 + 2) / 2 accepted tasks
    assert report.rejected == (BAD,)
    assert report.metrics["meta_train/loss"] == 1.0  # of tasks 0 and 2
    assert report.metrics["outer/rejected_tasks"] == 1


def test_a_meta_batch_of_rejected_tasks_changes_nothing() -> None:
    its = server(max_bad_tasks=1)
    report = its.apply([result(1, [0.0, 0.0], rejected=(BAD,))])
    assert (its.meta_params.tolist(), its.version) == ([1.0, 2.0], 1)
    assert "meta_train/loss" not in report.metrics


def test_too_many_rejected_tasks_stop_the_run_by_name() -> None:
    its = server(max_bad_tasks=1)
    its.apply([result(0, [0.0, 0.0], rejected=(BAD,))])
    with pytest.raises(TrainingError, match=r"step 2: task 1 \(a, b\) was rejected, its loss is not finite"):
        its.apply([result(0, [0.0, 0.0], rejected=(BAD,))])


def test_rejected_tasks_are_counted_across_a_resume() -> None:
    its, resumed = server(max_bad_tasks=1), server(max_bad_tasks=1)
    its.apply([result(0, [0.0, 0.0], rejected=(BAD,))])
    resumed.load(its.state())
    with pytest.raises(TrainingError, match="that makes 2"):
        resumed.apply([result(0, [0.0, 0.0], rejected=(BAD,))])


@pytest.mark.parametrize(
    ("gradients", "outer", "what"),
    [
        ((3e38, 3e38), {"optimizer": "adam", "clip_norm": 1.0}, "gradient"),  # their sum is not a float32 number
        ((3e38, float("nan")), {"momentum": 0.9}, "gradient"),
        ((0.0, 0.0), {"momentum": 0.9, "regularizer": "l2", "regularizer_weight": 1e39}, "gradient"),
        ((1e22, 1e22), {"optimizer": "adam"}, "update"),  # which squares them
        ((1e10, 1e10), {"momentum": 0.9, "lr": 1e30}, "update"),
    ],
)
def test_a_step_that_is_not_finite_is_not_taken_and_names_its_tasks(
    gradients: tuple[float, float], outer: dict[str, Any], what: str
) -> None:
    usual = server(**{"optimizer": outer.get("optimizer", "sgd"), "momentum": outer.get("momentum", 0)})
    usual.apply([result(0, [1.0, -1.0])])
    before = usual.state()
    its = server(max_bad_tasks=3, **outer)
    its.load(before)
    bad, names = Rejected(3, ("a", "b"), "its loss is not finite"), ("c", "d")
    units = [result(2, [gradients[0], 0.0], 2, (bad,)), result(4, [gradients[1], 0.0])]
    report = its.apply([replace(unit, names=(names,) * unit.unit.count) for unit in units])
    reason = f"the {what} of its meta-batch is not finite"
    assert report.rejected == (bad, Rejected(2, names, reason), Rejected(4, names, reason))
    assert report.metrics == {"outer/rejected_tasks": 3.0}
    with pytest.raises(TrainingError, match=rf"step 3: task 8 \(\) was rejected, {reason}; that makes 5, "):
        its.apply([result(7, [gradients[0], 0.0]), result(8, [gradients[1], 0.0])])
    assert its.version == 2
    after = its.state().arrays
    assert after.keys() == before.arrays.keys()
    assert all(np.array_equal(after[name], value) for name, value in before.arrays.items())


def test_a_first_step_that_is_not_taken_leaves_no_moments() -> None:
    its, plain = server(optimizer="adam", max_bad_tasks=1), server(optimizer="adam")
    its.apply([result(0, [1e22, 0.0])])
    assert its.state().arrays.keys() == {"meta_params"}
    for one in (its, plain):
        one.apply([result(1, [1.0, -1.0])])
    assert its.meta_params.tobytes() == plain.meta_params.tobytes()


@pytest.mark.parametrize("outer", [{"optimizer": "adam"}, {"momentum": 0.9}, {"optimizer": "adamw"}])
def test_state_and_load_go_on_to_the_bit(outer: dict[str, Any]) -> None:
    gradients = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    straight, stopped = server(**outer), server(**outer)
    for gradient in gradients:
        straight.apply([result(0, list(gradient))])
    for gradient in gradients[:3]:
        stopped.apply([result(0, list(gradient))])
    resumed = server(**outer)
    resumed.load(stopped.state())
    for gradient in gradients[3:]:
        resumed.apply([result(0, list(gradient))])
    assert resumed.meta_params.tobytes() == straight.meta_params.tobytes()
    assert resumed.version == 6


def test_a_state_is_a_copy() -> None:
    its = server(optimizer="adam")
    its.apply([result(0, [1.0, 1.0])])
    state = its.state()
    before = {name: value.copy() for name, value in state.arrays.items()}
    its.apply([result(0, [1.0, 1.0])])
    assert all(np.array_equal(before[name], state.arrays[name]) for name in before)


@pytest.mark.parametrize(
    ("regularizer", "expected"),
    [
        ("l2", [1.5 - 0.1 * 1.5, -2.5 - 0.1 * -2.5, 0.0]),  # θ − 0.5 · 0.2 · θ
        ("l1", [1.5 - 0.1, -2.5 + 0.1, 0.0]),  # θ − 0.5 · 0.2 · sign θ, and sign 0 = 0
        ("proximal", [1.5 - 0.1 * 0.5, -2.5 - 0.1 * -0.5, 0.0]),  # θ − 0.5 · 0.2 · (θ − θ₀)
    ],
)
def test_one_step_of_each_regularizer(regularizer: Any, expected: list[float]) -> None:
    """From θ₀ = (1, −2, 0) one step brings θ to (1.5, −2.5, 0); from there no task pulls, R alone does."""
    plain = OuterConfig(optimizer="sgd", lr=0.5)
    weighed = plain.model_copy(update={"regularizer": regularizer, "regularizer_weight": 0.2})
    first, its = (ParameterServer(outer, f32(1.0, -2.0, 0.0)) for outer in (plain, weighed))
    first.apply([result(0, [-1.0, 1.0, 0.0])])
    its.load(first.state())
    its.apply([result(0, [0.0, 0.0, 0.0])])
    assert its.meta_params.tolist() == pytest.approx(expected)


def test_only_what_is_regularized_is() -> None:
    """θ − 0.5 · 0.2 · θ for the first; the second is left alone."""
    outer = OuterConfig(optimizer="sgd", lr=0.5, regularizer="l2", regularizer_weight=0.2)
    its = ParameterServer(outer, f32(2.0, 2.0), regularized=np.array([True, False]))
    its.apply([result(0, [0.0, 0.0])])
    assert its.meta_params.tolist() == pytest.approx([1.8, 2.0])


@pytest.mark.parametrize(("name", "inner"), [("metasgd", {}), ("maml", {"learn_lr": True, "steps": 2})])
def test_learned_rates_are_not_regularized(tmp_path: Path, name: str, inner: dict[str, Any]) -> None:
    """R = ½‖θ‖² of the learner's parameters alone: without a gradient of the tasks, a step of 0.1 takes a tenth."""
    outer = {"optimizer": "sgd", "lr": 0.1, "regularizer": "l2", "regularizer_weight": 1.0}
    config = toy_config(tmp_path, algorithm__name=name, inner={"lr": 0.3, **inner}, outer={**outer, "steps": 1})
    setup = build_experiment(config).setup
    server: Any = setup.make_coordinator(MagicMock()).server
    server.apply([result(0, [0.0] * setup.layout.size)])
    before, after = (setup.layout.unflatten(vector) for vector in (setup.meta_params, server.meta_params))
    rates = {each for each in before if each.startswith("meta.rate.")}
    assert rates
    for each, value in before.items():
        torch.testing.assert_close(after[each], value if each in rates else 0.9 * value)


def test_the_regularizer_is_added_to_the_mean_gradient_and_clipped_with_it() -> None:
    """(6, 0) / 2 + 2 · (0, 2) = (3, 4), of norm 5; without R it would be 3."""
    its = ParameterServer(
        OuterConfig(optimizer="sgd", lr=1.0, clip_norm=1.0, regularizer="l2", regularizer_weight=2.0), f32(0.0, 2.0)
    )
    report = its.apply([result(0, [6.0, 0.0], count=2)])
    assert report.metrics["outer/grad_norm"] == pytest.approx(5)
    assert its.meta_params.tolist() == pytest.approx([-0.6, 2 - 0.8])


def test_a_resumed_run_is_held_to_where_it_truly_started() -> None:
    """θ₀ = (1, 2), at the checkpoint θ = (3, 2): half a step back is (2, 2), not (3, 2)."""
    options = {"regularizer": "proximal", "regularizer_weight": 1.0}
    its, resumed = server(**options), server(**options)
    its.apply([result(0, [-4.0, 0.0])])
    assert its.meta_params.tolist() == [3.0, 2.0]
    resumed.load(its.state())
    for one in (its, resumed):
        one.apply([result(0, [0.0, 0.0])])
        assert one.meta_params.tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("outer", "message"),
    [
        ({"regularizer": "l2"}, "regularizer_weight: invalid value 0.0; outer.regularizer l2 needs a weight above 0"),
        ({"regularizer": "l1", "regularizer_weight": 0}, "regularizer_weight: invalid value 0; outer.regularizer l1"),
        ({"regularizer_weight": 0.1}, "regularizer_weight: invalid value 0.1; there is no regularizer to weigh"),
    ],
)
def test_a_regularizer_and_its_weight_come_together(outer: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^outer\.{message}"):
        validate({"outer": outer})
    validate({"outer": {"regularizer": "none", "regularizer_weight": 0}})  # as a run's own config.yaml has it


def test_a_whole_run_that_is_resumed_is_held_to_where_it_truly_started(tmp_path: Path) -> None:
    options = {"outer__regularizer": "proximal", "outer__regularizer_weight": 5.0}
    long = driver.train(toy_config(tmp_path, outer__steps=4, **options), tmp_path / "long", Reporter())
    driver.train(toy_config(tmp_path, outer__steps=2, **options), tmp_path / "short", Reporter())
    resumed = driver.resume(tmp_path / "short", ["outer.steps=4"], Reporter())
    assert resumed["meta_params_sha256"] == long["meta_params_sha256"]
