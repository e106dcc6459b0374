"""While MLflow is away training goes on, and nothing of it is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from toy import start_training, toy_settings, wait_for
from tracking_helpers import history, run_of, steps_in_mlflow
from tune_helpers import config_of, settings

from distmeta.errors import TrackingError
from distmeta.tracking import Tracker, check_store, end, sync, ui_command, wait
from distmeta.tune.records import Records, Trial
from distmeta.tune.trial import run_trial


class Outage:
    """An MLflow that is away while `on`, as its client tells of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from mlflow import MlflowClient

        self.on, self.calls = False, 0
        for name in (
            "log_batch",
            "log_artifact",
            "set_tag",
            "set_terminated",
            "get_run",
            "create_run",
            "search_experiments",
        ):
            monkeypatch.setattr(MlflowClient, name, self._between(getattr(MlflowClient, name)))

    def _between(self, real: Callable[..., Any]) -> Callable[..., Any]:
        from mlflow.exceptions import MlflowException

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.on:
                raise MlflowException("API request failed: http://me:secret@host refused")
            return real(*args, **kwargs)

        return call


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    monkeypatch.setattr("distmeta.tracking.tracker.FLUSH_SECONDS", 0.0)
    for its in ("tracker", "store"):
        monkeypatch.setattr(f"distmeta.tracking.{its}.RETRY_SECONDS", 0.2)
    monkeypatch.setattr("distmeta.tracking.tracker.FINISH_SECONDS", 0.0)
    return Outage(monkeypatch)


def test_while_mlflow_is_away_metrics_wait_on_disk_and_are_delivered_later(
    uri: str, tmp_path: Path, outage: Outage
) -> None:
    said: list[str] = []
    tracker = Tracker.start(uri, "exp", "run", {}, tmp_path, note=said.append)
    tracker.log(1, {"loss": 1.0})
    outage.on = True
    for step in (2, 3):
        tracker.log(step, {"loss": float(step)})
    assert len((tmp_path / "unsent.jsonl").read_text().splitlines()) == 2
    assert said == ["MLflow is away (API request failed: http://***@host refused); metrics wait on disk"]
    tried = outage.calls
    tracker.log(4, {"loss": 4.0})
    assert outage.calls == tried, "it is not asked at every step"
    outage.on = False
    time.sleep(0.2)
    tracker.log(5, {"loss": 5.0})
    assert history(tracker, "loss") == [(step, float(step)) for step in range(1, 6)]
    assert not (tmp_path / "unsent.jsonl").exists()
    assert said[1:] == ["MLflow is back and has all entries that waited"]


def test_what_could_not_be_sent_in_the_end_is_sent_by_sync(uri: str, tmp_path: Path, outage: Outage) -> None:
    said: list[str] = []
    tracker = Tracker.start(uri, "exp", "run", {}, tmp_path, note=said.append)
    outage.on = True
    tracker.log(1, {"loss": 1.0})
    (tmp_path / "a.txt").write_text("a")
    tracker.log_artifact(tmp_path / "a.txt")
    tracker.finish()
    assert f"`distmeta sync {tmp_path}` sends them" in said[-1]
    with pytest.raises(TrackingError, match="still away; try again when it answers"):
        sync(uri, tracker.run_id, tmp_path)
    outage.on = False
    assert sync(uri, tracker.run_id, tmp_path) == 3
    assert history(tracker, "loss") == [(1, 1.0)]
    assert run_of(tracker).info.status == "FINISHED"
    assert [f.path for f in tracker._client.list_artifacts(tracker.run_id)] == ["a.txt"]
    assert sync(uri, tracker.run_id, tmp_path) == 0


def test_files_that_wait_are_found_after_a_move_and_those_that_are_gone_are_told_of(
    uri: str, tmp_path: Path, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    (folder := tmp_path / "run").mkdir()
    tracker = Tracker.start(uri, "exp", "run", {}, folder)
    outage.on = True
    for name in ("kept.txt", "gone.txt"):
        (folder / name).touch()
        tracker.log_artifact(folder / name)
    outage.on = False
    (folder / "gone.txt").unlink()
    moved = folder.rename(tmp_path / "moved")
    assert sync(uri, tracker.run_id, moved, note=notes.append) == 2
    assert [f.path for f in tracker._client.list_artifacts(tracker.run_id)] == ["kept.txt"]
    assert notes == [f"{moved}/gone.txt is no longer there; MLflow does not get it"]


def test_a_full_disk_is_an_outage(uri: str, tmp_path: Path, outage: Outage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the artifacts: training goes on, and they wait."""
    notes: list[str] = []
    tracker = Tracker.start(uri, "exp", "run", {}, tmp_path, note=notes.append)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "a.txt").touch()
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifact", full)
        tracker.log_artifact(tmp_path / "a.txt")
        assert notes == ["MLflow is away ([Errno 28] No space left on device); metrics wait on disk"]
    tracker.flush(now=True)
    assert [f.path for f in tracker._client.list_artifacts(tracker.run_id)] == ["a.txt"]


def test_that_a_run_has_ended_waits_too(uri: str, tmp_path: Path, outage: Outage) -> None:
    """As a study says it of a trial whose process was lost."""
    tracker = Tracker.start(uri, "exp", "run", {}, tmp_path)
    outage.on = True
    assert not end(uri, tracker.run_id, tmp_path, "FAILED", "it was lost")
    outage.on = False
    assert run_of(tracker).info.status == "RUNNING"
    assert sync(uri, tracker.run_id, tmp_path) == 2
    assert (run_of(tracker).info.status, run_of(tracker).data.tags["distmeta.reason"]) == ("FAILED", "it was lost")
    assert end(uri, tracker.run_id, tmp_path, "KILLED")
    assert run_of(tracker).info.status == "KILLED"


def test_mlflow_is_waited_for(uri: str, outage: Outage) -> None:
    said: list[str] = []
    wait(uri, said.append)
    assert said == []
    outage.on = True
    threading.Timer(0.5, lambda: setattr(outage, "on", False)).start()
    wait(uri, said.append)
    assert not outage.on
    assert said == ["MLflow is away (API request failed: http://***@host refused); waiting for it"]


def test_a_trial_of_a_study_begins_when_mlflow_is_back(
    uri: str, tmp_path: Path, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And if it goes away just then, the trial has not failed: it is tried again."""
    monkeypatch.setattr("ray.tune.report", lambda figures: None)
    parent = Tracker.start(uri, "Default", "study", {}, tmp_path)
    records = Records(tmp_path / "trials")
    records.write(Trial("trial-0000", {"outer.lr": 0.01}))
    trial = partial(run_trial, {"name": "trial-0000"}, records.folder, config_of(tmp_path), parent.run_id, {})
    outage.on = True
    with monkeypatch.context() as patch:
        patch.setattr("distmeta.tracking.wait", lambda uri, note: None)
        with pytest.raises(TrackingError):
            trial()
    assert records.read("trial-0000").status == "running"
    threading.Timer(0.5, lambda: setattr(outage, "on", False)).start()
    trial()
    assert records.read("trial-0000").status == "finished"


def test_a_run_that_goes_on_brings_along_what_waited(uri: str, tmp_path: Path, outage: Outage) -> None:
    """And nothing twice, though MLflow does not hold it yet; that the run had ended is forgotten."""
    first = Tracker.start(uri, "exp", "run", {}, tmp_path, note=lambda _: None)
    outage.on = True
    first.log(1, {"loss": 1.0})
    first.finish("KILLED")
    outage.on = False
    second = Tracker.start(uri, "exp", "run", {}, tmp_path, run_id=first.run_id)
    second.log(1, {"loss": 7.0})
    second.log(2, {"loss": 2.0})
    assert history(second, "loss") == [(1, 1.0), (2, 2.0)]
    assert run_of(second).info.status == "RUNNING"


def test_what_mlflow_refuses_is_not_an_outage(uri: str, tmp_path: Path) -> None:
    from mlflow.exceptions import MlflowException

    tracker = Tracker.start(uri, "exp", "run", {}, tmp_path)
    tracker.log(1, {"no such {key}": 1.0})
    with pytest.raises(MlflowException, match="no such"):
        tracker.flush()


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path)
    server.start()
    try:
        yield server
    finally:
        server.kill()


class MlflowServer:
    """A real server on this machine, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri, self.folder = f"http://127.0.0.1:{self.port}", folder
        Tracker.start(f"sqlite:///{folder}/server.db", "first", "first", {}, folder).finish()  # makes the database

    def start(self) -> None:
        command = ui_command(f"sqlite:///{self.folder}/server.db", self.port)
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 90
        while True:
            try:
                return check_store(self.uri)
            except TrackingError:
                assert time.monotonic() < deadline, (self.folder / "server.log").read_text()
                time.sleep(0.2)

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.mark.slow
def test_training_goes_on_while_the_mlflow_server_is_away(tmp_path: Path, mlflow_server: MlflowServer) -> None:
    """It is killed in mid-run and comes back before the end: every step is there once, and the run has ended well."""
    steps = 800
    toy = toy_settings(tmp_path, outer__steps=steps, checkpoint__every=100, tracking__uri=mlflow_server.uri)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(toy))
    process = start_training(tmp_path, "toy.yaml", "run_dir=run")
    checkpoints = tmp_path / "run" / "checkpoints"
    wait_for(checkpoints / "step-00000100", process)
    mlflow_server.kill()
    wait_for(tmp_path / "run" / "unsent.jsonl", process)
    away_at = max(path.name for path in checkpoints.glob("step-*"))
    while max(path.name for path in checkpoints.glob("step-*")) == away_at:  # it goes on
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    mlflow_server.start()
    out, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert "MLflow is away" in said
    run_id = json.loads(out)["mlflow_run_id"]
    assert steps_in_mlflow(mlflow_server.uri, run_id) == list(range(1, steps + 1))
    assert MlflowClient(mlflow_server.uri).get_run(run_id).info.status == "FINISHED"
    assert not (tmp_path / "run" / "unsent.jsonl").exists()
    mlflow_server.kill()
    late = start_training(tmp_path, "toy.yaml", "run_dir=late")
    _, said = late.communicate(timeout=60)
    assert (late.returncode, (tmp_path / "late").exists()) == (2, False)
    assert "tracking.uri" in said or "MLflow at" in said


@pytest.mark.nightly
def test_a_study_goes_on_while_the_mlflow_server_is_away(tmp_path: Path, mlflow_server: MlflowServer) -> None:
    """A trial that ends meanwhile keeps what it could not send, the next begins when it is back; none has failed."""
    space = {"outer.lr": {"choice": [0.001, 0.01, 0.1]}}
    overrides: dict[str, Any] = {"tune__space": space, "tune__scheduler": "none", "tune__searcher": "grid"}
    overrides |= {"tune__winner_seeds": 0, "tune__concurrent": 1, "outer__steps": 40}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings(tmp_path, **overrides, tracking__uri=mlflow_server.uri)))
    process = start_training(tmp_path, "toy.yaml", "run_dir=study", command="tune")
    begun = tmp_path / "study" / "trials" / "trial-0001" / "run.json"
    wait_for(begun, process)
    while json.loads(begun.read_text())["mlflow_run_id"] is None:  # a trial waits for MLflow to begin
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    mlflow_server.kill()
    wait_for(tmp_path / "study" / "trials" / "trial-0002.log", process)
    assert (tmp_path / "study" / "trials" / "trial-0001" / "unsent.jsonl").exists()
    time.sleep(3)
    assert not (tmp_path / "study" / "trials" / "trial-0002").exists()
    mlflow_server.start()
    out, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    log = (tmp_path / "study" / "trials" / "trial-0001.log").read_text()
    assert "trial-0001/unsent.jsonl has the unsent entries" in log
    result = json.loads(out)
    assert result["trials"] == {"finished": 3, "stopped": 0, "failed": 0}
    assert not list((tmp_path / "study").rglob("unsent.jsonl"))
    client = MlflowClient(mlflow_server.uri)
    experiments = [its.experiment_id for its in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.`mlflow.parentRunId` = '{result['mlflow_run_id']}'")
    assert sorted(run.info.run_name for run in runs) == ["trial-0000", "trial-0001", "trial-0002"]
    for run in runs:
        assert run.info.status == "FINISHED"
        assert steps_in_mlflow(mlflow_server.uri, run.info.run_id) == list(range(1, 41))
