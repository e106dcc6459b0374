"""Faults that are real: processes killed and stopped, on Ray. The result stays that of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from mlflow import MlflowClient
from toy import start_training, toy_config, toy_settings, wait_for
from tracking_helpers import steps_in_mlflow

from distmeta.backends import open_backend
from distmeta.backends.ray import RayBackend
from distmeta.backends.server import RemoteCoordinator
from distmeta.engine.interfaces import Evaluation
from distmeta.engine.params import sha256
from distmeta.report.progress import Reporter
from distmeta.runs import train as driver
from distmeta.runs.experiment import build_experiment

STEPS = 12
ONCE_AND_AGAIN = [pytest.param(0, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.nightly)]  # seeds


@pytest.fixture
def toy(tmp_path: Path, ray_session: None) -> dict[str, Any]:
    return {
        "folder": tmp_path,
        "cluster__backend": "ray",
        "cluster__deadline_seconds": 0.5,
        "model__dropout": 0.3,
        "outer__steps": STEPS,
    }


@pytest.fixture
def expected(toy: dict[str, Any]) -> str:
    """Hash of the undisturbed run."""
    setup = build_experiment(toy_config(**toy)).setup
    with open_backend(toy_config(**{**toy, "cluster__backend": "inprocess"}).cluster) as backend:
        coordination = backend.start(setup, print)
        coordination.advance(STEPS)
        return sha256(coordination.state().arrays["meta_params"])


@pytest.fixture
def opened(toy: dict[str, Any]) -> Iterator[tuple[RayBackend, RemoteCoordinator, list[int]]]:
    """A backend that has started, its coordinator, and its workers' processes."""
    import ray

    config = toy_config(**toy)
    setup = build_experiment(config).setup
    with RayBackend(config.cluster) as backend:
        coordination = backend.start(setup, print)
        shared = [ray.put(setup)]
        workers = [ray.get(actor.place.remote(shared))[1] for actor in backend._actors[:2]]
        yield backend, coordination, workers


def later(seconds: float, process: int, what: signal.Signals) -> None:
    threading.Timer(seconds, os.kill, (process, what)).start()


@pytest.mark.parametrize("seed", ONCE_AND_AGAIN)
def test_a_worker_that_is_stopped_is_not_waited_for(
    expected: str, opened: tuple[RayBackend, RemoteCoordinator, list[int]], seed: int
) -> None:
    """Its unit is done by the other one, and it is replaced; SIGSTOP at a moment that the seed draws."""
    _, coordination, workers = opened
    coordination.advance(2)
    later(np.random.default_rng(seed).uniform(0, 0.2), workers[seed % 2], signal.SIGSTOP)
    reports = coordination.advance(STEPS - 2)
    assert sha256(coordination.state().arrays["meta_params"]) == expected
    assert reports[-1].outer_step == STEPS


@pytest.mark.parametrize("seed", ONCE_AND_AGAIN)
def test_a_server_that_is_killed_goes_on_from_what_was_kept(
    expected: str, opened: tuple[RayBackend, RemoteCoordinator, list[int]], seed: int
) -> None:
    import ray

    _, coordination, _ = opened
    assert [report.outer_step for report in coordination.advance(2)] == [1, 2]
    coordination.state()  # as for a checkpoint
    assert [report.outer_step for report in coordination.advance(2)] == [3, 4]
    victim = ray.get(coordination.actor.process_id.remote())
    later(np.random.default_rng(seed).uniform(0, 0.2), victim, signal.SIGKILL)
    steps = [report.outer_step for _ in range(STEPS - 4) for report in coordination.advance(1)]
    assert steps == list(range(5, STEPS + 1))  # each is reported once
    assert ray.get(coordination.actor.process_id.remote()) != victim, "the server was to be killed"
    assert sha256(coordination.state().arrays["meta_params"]) == expected


@pytest.mark.nightly
def test_a_shard_that_is_killed_takes_the_server_along_and_the_result_stays(
    toy: dict[str, Any], ray_session: None
) -> None:
    large = {**toy, "model__embedding_size": 1024, "model__filters": 96, "cluster__server_shards": 2}
    config = toy_config(**large)
    setup = build_experiment(config).setup
    with open_backend(toy_config(**{**large, "cluster__backend": "inprocess"}).cluster) as backend:
        alone = backend.start(setup, print)
        alone.advance(STEPS)
        undisturbed = sha256(alone.state().arrays["meta_params"])
    said: list[str] = []
    with RayBackend(config.cluster) as ray_backend:
        coordination = ray_backend.start(setup, said.append)
        coordination.advance(3)
        coordination.state()
        coordination.advance(2)
        victim = processes("ray::ShardActor")[0]
        os.kill(victim, signal.SIGKILL)
        coordination.advance(STEPS - 5)
        assert sha256(coordination.state().arrays["meta_params"]) == undisturbed
    assert any("another goes on from outer step 3" in words for words in said)


def processes(name: str) -> list[int]:
    """Those whose title begins so."""
    return [one.pid for one in psutil.process_iter(["cmdline"]) if " ".join(one.info["cmdline"] or []).startswith(name)]


@pytest.mark.parametrize(
    ("share", "victim"),
    [
        pytest.param(0.0, "worker", marks=pytest.mark.nightly),
        pytest.param(0.5, "server", marks=pytest.mark.slow),
        pytest.param(0.5, "worker", marks=pytest.mark.nightly),
        pytest.param(0.0, "server", marks=pytest.mark.nightly),
    ],
)
def test_a_process_that_is_killed_in_mid_evaluation_changes_no_figure(
    toy: dict[str, Any], monkeypatch: pytest.MonkeyPatch, share: float, victim: str
) -> None:
    """Early, and when half of the units are done; features are encoded first."""
    import ray

    config = toy_config(**{**toy, "algorithm__name": "protomaml", "inner__adapt": "head", "model__dropout": 0.0})
    experiment = build_experiment(config)
    asked = [
        Evaluation(experiment.work(its.learner, stream, 300), 0, 300, 3, its.initial)
        for its in experiment.contenders("classification")
        for stream in experiment.evaluated("classification", "meta_test")
    ]
    with open_backend(toy_config(**{**toy, "cluster__backend": "inprocess"}).cluster) as backend:
        here = backend.start(experiment.setup, print)
        here.advance(2)
        expected = [its.require() for its in here.evaluate(asked)]
    monkeypatch.setattr("distmeta.backends.server.PROGRESS_SECONDS", 0.05)
    killed: list[int] = []
    with RayBackend(config.cluster) as ray_backend:
        coordination = ray_backend.start(experiment.setup, print)
        coordination.advance(2)

        def strike(done: int, total: int) -> None:
            if not killed and share * total <= done < total:
                process = coordination.actor.process_id.remote()
                if victim == "worker":
                    process = ray_backend._actors[0].place.remote([ray.put(experiment.setup)])
                answer = ray.get(process)
                killed.append(answer[1] if victim == "worker" else answer)
                os.kill(killed[0], signal.SIGKILL)

        figures = coordination.evaluate(asked, strike)
        assert killed, "a process was to be killed in mid-evaluation"
    for one, other in zip(figures, expected, strict=True):
        assert {name: value.tolist() for name, value in one.require().items()} == {
            name: value.tolist() for name, value in other.items()
        }


@pytest.mark.nightly
def test_mlflow_shows_every_step_once_though_the_server_is_killed(
    toy: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed before there is a checkpoint, and once more after one."""
    import ray

    victims: list[int] = []
    advance = RemoteCoordinator.advance

    def dying(self: RemoteCoordinator, steps: int) -> Any:
        reports = advance(self, 1)
        if reports[-1].outer_step in (1, 7):
            victims.append(ray.get(self.actor.process_id.remote()))
            os.kill(victims[-1], signal.SIGKILL)
        return reports

    monkeypatch.setattr(RemoteCoordinator, "advance", dying)
    folder = toy["folder"]
    result = driver.train(toy_config(**toy, checkpoint__every=5), folder / "run", Reporter())
    assert len(set(victims)) == 2
    assert result["meta_params_sha256"] == expected
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    history = client.get_metric_history(result["mlflow_run_id"], "meta_train/loss")
    assert [metric.step for metric in history] == list(range(1, STEPS + 1))


@pytest.mark.nightly
def test_a_driver_that_is_killed_is_gone_on_from_in_the_same_mlflow_run(tmp_path: Path) -> None:
    steps = 250
    settings = toy_settings(tmp_path, outer__steps=steps, checkpoint__every=20, cluster__backend="ray")
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings))
    first = start_training(tmp_path, "toy.yaml", "run_dir=run")
    wait_for(tmp_path / "run" / "checkpoints" / "step-00000020", first)
    time.sleep(np.random.default_rng(0).uniform(0, 2))
    first.kill()
    first.communicate()
    kept = max(path.name for path in (tmp_path / "run" / "checkpoints").glob("step-*"))
    assert int(kept.removeprefix("step-")) < steps, "it was to be killed before the end"
    out, said = start_training(tmp_path, "--resume", "run").communicate(timeout=200)
    assert out, said
    result = json.loads(out)
    straight, said = start_training(tmp_path, "toy.yaml", "run_dir=straight", "cluster.backend=inprocess").communicate()
    assert straight, said
    assert result["meta_params_sha256"] == json.loads(straight)["meta_params_sha256"]
    assert result["mlflow_run_id"] == json.loads((tmp_path / "run" / "run.json").read_text())["mlflow_run_id"]
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert steps_in_mlflow(uri, result["mlflow_run_id"]) == list(range(1, steps + 1))
