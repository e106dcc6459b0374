"""The same answer, to the bit: in process or on Ray, one worker or two, disturbed, stopped and resumed."""

import dataclasses
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import DROPOUT, run, run_and_stop, toy_config

from distmeta.backends import open_backend
from distmeta.backends.workers import ask_place
from distmeta.engine.params import sha256
from distmeta.engine.server import staleness
from distmeta.errors import CheckpointError
from distmeta.report.progress import Reporter
from distmeta.runs import checkpoint
from distmeta.runs import train as driver
from distmeta.runs.experiment import build_experiment
from distmeta.tracking import Tracker


@pytest.mark.parametrize(
    ("adapt", "workers"),
    [
        ("all", 2),
        pytest.param("all", 1, marks=pytest.mark.nightly),
        pytest.param("head", 2, marks=pytest.mark.nightly),
    ],
)
def test_backends_and_numbers_of_workers_agree(tmp_path: Path, ray_session: None, adapt: str, workers: int) -> None:
    """Where the head alone is adapted, evaluation looks features up that workers have encoded for one another."""
    here = run(tmp_path, "here", inner__adapt=adapt)
    there = run(tmp_path, "there", cluster__backend="ray", cluster__workers=workers, inner__adapt=adapt)
    assert there["meta_params_sha256"] == here["meta_params_sha256"]
    assert there["meta_test"] == here["meta_test"]


LARGE = {"model__embedding_size": 1024, "model__filters": 96, "outer__meta_batch_size": 11}  # four blocks of a shard


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("reduce", "shards"),
    [("node", 3), ("node", 1), ("none", 2)],
)
def test_where_gradients_are_added_and_parameters_kept_changes_nothing(
    tmp_path: Path, ray_session: None, reduce: str, shards: int
) -> None:
    here = run(tmp_path, "here", **LARGE)
    places: dict[str, Any] = {"cluster__reduce": reduce, "cluster__server_shards": shards}
    there = run(tmp_path, "there", cluster__backend="ray", **LARGE, **places)
    assert there["meta_params_sha256"] == here["meta_params_sha256"]


@pytest.mark.parametrize(
    ("outer", "what"),
    [
        pytest.param(
            {"outer__regularizer": "l2", "outer__regularizer_weight": 1e39}, "gradient", marks=pytest.mark.nightly
        ),
        pytest.param(
            {"outer__optimizer": "adamw", "outer__lr": 1e30, "outer__weight_decay": 1e30},
            "update",
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_steps_that_are_not_finite_are_left_out_wherever_parameters_are_kept(
    tmp_path: Path, ray_session: None, outer: dict[str, Any], what: str
) -> None:
    """Both of them, and every task of both is named."""
    options = {**LARGE, **outer, "outer__steps": 2, "outer__max_bad_tasks": 22}
    here = run(tmp_path, "here", **options)
    there = run(tmp_path, "there", cluster__backend="ray", cluster__server_shards=2, **options)
    start = sha256(build_experiment(toy_config(tmp_path, **options)).setup.meta_params)
    assert here["meta_params_sha256"] == there["meta_params_sha256"] == start
    rejected = [checkpoint.load(tmp_path / name)[0].rejected for name in ("here", "there")]
    assert rejected[0] == rejected[1]
    assert [task["index"] for task in rejected[0]] == list(range(22))
    assert all(len(task["names"]) == 3 and f"the {what} of its" in task["reason"] for task in rejected[0])


@pytest.mark.nightly
@pytest.mark.parametrize("shards", [(3, 1), (1, 2)])
def test_what_shards_keep_is_gone_on_from_without_them_and_back(
    tmp_path: Path, ray_session: None, shards: tuple[int, int]
) -> None:
    """With gradients added on their node."""
    straight = run(tmp_path, "straight", **LARGE)
    before, after = shards
    places: dict[str, Any] = {"cluster__reduce": "node", "cluster__server_shards": before}
    run(tmp_path, "run", cluster__backend="ray", **places, **{**LARGE, "outer__steps": 2})
    resumed = driver.resume(tmp_path / "run", ["outer.steps=5", f"cluster.server_shards={after}"], Reporter())
    assert resumed["meta_params_sha256"] == straight["meta_params_sha256"]


@pytest.mark.nightly
def test_compression_changes_the_result_and_that_is_the_same_anywhere(tmp_path: Path, ray_session: None) -> None:
    plain = run(tmp_path, "plain")
    here = run(tmp_path, "here", cluster__compression="bf16")
    there = run(tmp_path, "there", cluster__compression="bf16", cluster__backend="ray", cluster__reduce="node")
    assert here["meta_params_sha256"] == there["meta_params_sha256"] != plain["meta_params_sha256"]
    with pytest.raises(CheckpointError, match=r'other settings: cluster\.compression was its default, and is "bf16"'):
        driver.resume(tmp_path / "plain", ["cluster.compression=bf16"], Reporter())


@pytest.mark.parametrize("changed", [{"seed": 1}, {"cluster__tasks_per_unit": 3}, {"outer__meta_batch_size": 4}])
def test_the_hash_says_something(tmp_path: Path, changed: dict[str, Any]) -> None:
    first = run(tmp_path, "first", outer__steps=2)
    other = run(tmp_path, "other", outer__steps=2, **changed)
    assert first["meta_params_sha256"] != other["meta_params_sha256"]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_stopped_and_resumed_is_straight_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    options: dict[str, Any] = {"outer__optimizer": optimizer, "outer__momentum": 0.9, "outer__schedule": "linear"}
    straight = run(tmp_path, "straight", **options)
    stopped = run_and_stop(tmp_path, monkeypatch, **options)
    resumed = driver.resume(stopped, [], Reporter())
    assert resumed["meta_params_sha256"] == straight["meta_params_sha256"]
    assert resumed["meta_test"] == straight["meta_test"]
    again = driver.evaluate(stopped, [], Reporter())
    assert again["meta_test"] == straight["meta_test"]
    assert again["mlflow_run_id"] == resumed["mlflow_run_id"]


def test_a_run_that_is_to_take_fewer_steps_than_it_has_is_evaluated(tmp_path: Path) -> None:
    first = run(tmp_path, "run")
    again = driver.resume(tmp_path / "run", ["outer.steps=3"], Reporter())
    assert (again["outer_steps"], again["meta_params_sha256"]) == (5, first["meta_params_sha256"])


def test_a_validation_that_was_interrupted_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    def interrupted(*_: Any) -> dict[str, float]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(driver, "meta_validation", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, "run", evaluation__validation_every=2)
    driver.resume(tmp_path / "run", [], Reporter())
    run_id = json.loads((tmp_path / "run" / "run.json").read_text())["mlflow_run_id"]
    history = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_metric_history(run_id, "meta_validation/accuracy")
    assert [metric.step for metric in history] == [2, 4]


@pytest.mark.parametrize("killed", [False, True])
def test_mlflow_holds_each_step_once_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    from mlflow import MlflowClient

    with monkeypatch.context() as patch:
        if killed:  # what was not sent by then is lost
            patch.setattr(Tracker, "finish", lambda *arguments, **options: None)
        stopped = run_and_stop(tmp_path, monkeypatch)
    result = driver.resume(stopped, [], Reporter())
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    history = client.get_metric_history(result["mlflow_run_id"], "meta_train/loss")
    assert [metric.step for metric in history] == [1, 2, 3, 4, 5]
    assert client.get_run(result["mlflow_run_id"]).info.status == "FINISHED"


def process_of(worker: Any, shared: list[Any]) -> int:
    """Once it is there: the others do not wait for a worker that starts again."""
    import ray

    return int(ray.get(ask_place(worker, shared))[1])


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(tmp_path: Path, ray_session: None) -> None:
    import ray

    config = toy_config(tmp_path, cluster__backend="ray", **DROPOUT)
    setup = build_experiment(config).setup
    with open_backend(config.cluster) as backend:
        undisturbed = backend.start(setup, print)
        undisturbed.advance(8)
        expected = undisturbed.state()
    with open_backend(config.cluster) as backend:
        coordination = backend.start(setup, print)
        worker: Any = backend._actors[0]  # type: ignore[attr-defined]
        shared = [ray.put(setup)]
        victim = process_of(worker, shared)
        threading.Timer(0.05, os.kill, (victim, signal.SIGKILL)).start()
        coordination.advance(8)
        assert process_of(worker, shared) != victim, "the worker was to be replaced"
        assert sha256(coordination.state().arrays["meta_params"]) == sha256(expected.arrays["meta_params"])


def test_an_error_in_a_worker_reaches_the_driver(tmp_path: Path, ray_session: None) -> None:
    config = toy_config(tmp_path, cluster__backend="ray")
    setup = build_experiment(config).setup
    broken = dataclasses.replace(setup, meta_params=np.zeros(3, np.float32))
    with open_backend(config.cluster) as backend, pytest.raises(ValueError, match="does not fit a layout"):
        backend.start(broken, print).advance(1)


def test_an_asynchronous_run_in_one_process_can_be_repeated_and_tells_how_old_gradients_were(tmp_path: Path) -> None:
    """Three units a meta-batch, and more workers than two of them need: those of the next one are given out at once."""
    stale: dict[str, Any] = {"cluster__max_staleness": 1, "cluster__workers": 9, "outer__steps": 6}
    first, second = (run(tmp_path, name, **stale) for name in ("first", "second"))
    straight = run(tmp_path, "straight", outer__steps=6)
    assert first["meta_params_sha256"] == second["meta_params_sha256"] != straight["meta_params_sha256"]
    state, _ = checkpoint.load(tmp_path / "first")
    assert staleness(state) == {0: 3, 1: 15}
    assert state.counters["version"] == 6
    assert (tmp_path / "first" / "staleness.png").stat().st_size > 1000
    assert not (tmp_path / "straight" / "staleness.png").exists()


@pytest.mark.slow
def test_an_asynchronous_run_on_ray_ends_with_every_task_counted(tmp_path: Path, ray_session: None) -> None:
    stale: dict[str, Any] = {"cluster__max_staleness": 2, "cluster__backend": "ray", "outer__steps": 8}
    run(tmp_path, "run", **stale)
    state, _ = checkpoint.load(tmp_path / "run")
    assert sum(staleness(state).values()) == 8 * 3
    assert max(staleness(state)) <= 2
