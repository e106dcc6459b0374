"""Runs that are killed before their first checkpoint, at each moment from which something is left behind."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from toy import start_training, toy_config, toy_settings, wait_for

from distmeta.errors import CheckpointError, ConfigError, TrackingError
from distmeta.report.progress import Reporter
from distmeta.runs import checkpoint, directory
from distmeta.runs import train as driver
from distmeta.tracking import Tracker


class Killed(BaseException):
    """Stands for the end of the process: nothing is done after it."""


def kill(*_: Any, **__: Any) -> None:
    raise Killed


def kill_after(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        function(*arguments, **options)
        raise Killed

    return call


def kill_at_its_id(aside: Path, path: Path, replace: Callable[..., Any] = Path.replace) -> Path:
    if path.name == "run.json" and not path.parent.name.startswith("."):
        raise Killed
    return replace(aside, path)  # type: ignore[no-any-return]


MOMENTS: dict[str, tuple[Any, str, Any]] = {
    "before the directory has its name": (Path, "rename", kill),
    "after the directory was made": (directory, "create", kill_after(directory.create)),
    "after the MLflow run was made": (Tracker, "_log_params", kill),
    "before its id was kept": (Tracker, "log_artifact", kill_after(Tracker.log_artifact)),
    "while its id is kept": (Path, "replace", kill_at_its_id),
    "before the first checkpoint": (checkpoint, "save", kill),
}


def killed(monkeypatch: pytest.MonkeyPatch, moment: str, run: Callable[[], Any]) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(*MOMENTS[moment])
        patch.setattr(Tracker, "finish", lambda *_, **__: None)
        with pytest.raises(Killed):
            run()


def mlflow_runs(folder: Path, name: str) -> list[Any]:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return [run for run in client.search_runs(experiments) if run.info.run_name == name]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_was_killed_before_its_first_checkpoint_goes_on(
    moment: str, tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config(tmp_path, outer__steps=2)
    straight = driver.train(config, tmp_path / "straight", Reporter())
    killed(monkeypatch, moment, lambda: driver.train(config, tmp_path / "run", Reporter()))
    if moment == "before the directory has its name":
        assert not (tmp_path / "run").exists()
        result = driver.train(config, tmp_path / "run", Reporter())
    else:
        with pytest.raises(ConfigError, match="--resume"):
            driver.train(config, tmp_path / "run", Reporter())
        result = driver.resume(tmp_path / "run", [], Reporter())
    assert result["meta_params_sha256"] == straight["meta_params_sha256"]
    (run,) = mlflow_runs(tmp_path, "run")
    assert (run.info.run_id, run.info.status) == (result["mlflow_run_id"], "FINISHED")
    assert run.data.params["outer.steps"] == "2"
    client = MlflowClient(uri)
    assert [m.step for m in client.get_metric_history(run.info.run_id, "meta_train/loss")] == [1, 2]
    assert "config.yaml" in {artifact.path for artifact in client.list_artifacts(run.info.run_id)}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_trial_that_was_killed_before_its_first_checkpoint_is_tried_again(
    moment: str, tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config(tmp_path, outer__steps=2)
    parent = Tracker.start(uri, "distmeta", "study", {}, tmp_path).run_id

    def search() -> None:
        driver.train_trial(config, tmp_path / "trial", Reporter(), parent)

    killed(monkeypatch, moment, search)
    search()
    (run,) = mlflow_runs(tmp_path, "trial")
    assert (run.info.status, run.data.tags["mlflow.parentRunId"]) == ("FINISHED", parent)
    assert checkpoint.load(tmp_path / "trial")[0].counters == {"version": 2}


def test_a_run_without_a_checkpoint_goes_on_as_what_it_was(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config(tmp_path, outer__steps=2)
    killed(monkeypatch, "before the first checkpoint", lambda: driver.train(config, tmp_path / "run", Reporter()))
    with pytest.raises(CheckpointError, match="was made with other settings: seed was its default, and is 1"):
        driver.resume(tmp_path / "run", [], Reporter(), toy_config(tmp_path, outer__steps=2, seed=1))
    with pytest.raises(CheckpointError, match=r"has no checkpoint; train it with `distmeta train --resume .*run`"):
        driver.evaluate(tmp_path / "run", [], Reporter())
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        driver.resume(tmp_path / "run", [], Reporter(), step=1)


def test_a_run_that_mlflow_refuses_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Tracker:
        raise TrackingError("MLflow", "refuses", "ask it why")

    monkeypatch.setattr(Tracker, "start", refuse)
    with pytest.raises(TrackingError):
        driver.train(toy_config(tmp_path), tmp_path / "run", Reporter())
    assert {path.name for path in tmp_path.iterdir()} <= {"data.csv", "cache", "mlflow.db"}


@pytest.mark.slow
def test_a_process_killed_as_soon_as_it_has_a_directory_goes_on(tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(toy_settings(tmp_path, outer__steps=2)))
    process = start_training(tmp_path, "toy.yaml", "run_dir=run")
    wait_for(tmp_path / "run", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not checkpoint.exists(tmp_path / "run")
    out, said = start_training(tmp_path, "--resume", "run").communicate(timeout=200)
    assert out, said
    (run,) = mlflow_runs(tmp_path, "run")
    assert run.info.run_id == json.loads(out)["mlflow_run_id"]
