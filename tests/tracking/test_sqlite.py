"""Databases of other versions, deleted runs, and a database that another program keeps locked."""

from __future__ import annotations

import contextlib
import shlex
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from stores import store
from toy import run, toy_config
from tracking_helpers import history, run_of

from distmeta.errors import TrackingError
from distmeta.report.progress import Reporter
from distmeta.runs import train as driver
from distmeta.tracking import Tracker, check_store, database, private, resolve_uri
from distmeta.tracking import sqlite as store_file


def change(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@contextlib.contextmanager
def held(path: Path, how: str = "EXCLUSIVE") -> Iterator[None]:
    """Another program locks the database."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"BEGIN {how}")
        yield


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (["UPDATE alembic_version SET version_num = '0a8213491aaa'"], "was made by an older MLflow; copy it, then run"),
        (["UPDATE alembic_version SET version_num = 'f00'"], "was made by a newer MLflow, with tables of version f00"),
        (["DROP TABLE experiments"], "holds tables of another program, such as "),
    ],
)
def test_a_database_of_another_version_is_refused_before_anything_is_built(
    statements: list[str], said: str, uri: str, tmp_path: Path
) -> None:
    check_store(uri)
    change(database(uri), *statements)
    config = toy_config(tmp_path)
    with pytest.raises(TrackingError, match=rf"^tracking\.uri: .*mlflow\.db {said}"):
        driver.train(config, tmp_path / "run", Reporter())
    assert not list(tmp_path.glob("*run*"))
    assert not (tmp_path / "cache").exists()


def test_the_installed_mlflow_has_one_latest_version_of_its_tables(uri: str) -> None:
    latest, known = private.schemas()
    assert latest in known
    assert private.look(database(uri), None, None, 0).schema == latest


@pytest.mark.nightly
def test_the_remedies_work_to_the_letter(uri: str, tmp_path: Path) -> None:
    """The database is brought up to date by the command of the message, and a run and an experiment come back."""
    tracker = Tracker.start(uri, "Mine", "run", {}, tmp_path)
    tracker.finish()

    def follow(said: str) -> None:
        words = shlex.split(said.rpartition("`")[0].rpartition("`")[2])
        program = words.index("mlflow")
        subprocess.run(
            ["env", *words[:program], sys.executable, "-m", *words[program:]], check=True, capture_output=True
        )

    tracker._client.delete_run(tracker.run_id)
    with pytest.raises(TrackingError, match="was deleted in MLflow; restore it with") as caught:
        check_store(uri, "Mine", tracker.run_id)
    follow(str(caught.value))
    check_store(uri, "Mine", tracker.run_id)
    tracker._client.delete_experiment(run_of(tracker).info.experiment_id)
    with pytest.raises(TrackingError, match="'Mine' was deleted in MLflow; choose another name, or restore") as caught:
        check_store(uri, "Mine")
    follow(str(caught.value))
    check_store(uri, "Mine", tracker.run_id)


def test_a_run_whose_mlflow_run_is_gone_names_what_helps(tmp_path: Path) -> None:
    """Its MLflow run was deleted in the UI, then removed for good: it goes on in another one."""
    run_id = run(tmp_path, "run", outer__steps=1)["mlflow_run_id"]
    path, folder = tmp_path / "mlflow.db", tmp_path / "run"
    change(path, "UPDATE runs SET lifecycle_stage = 'deleted'")
    for going_on in (driver.evaluate, driver.resume):
        with pytest.raises(TrackingError, match=f"MLflow run {run_id}: was deleted .* runs restore --run-id {run_id}`"):
            going_on(folder, [], Reporter())
    tables = ("tags", "params", "metrics", "latest_metrics", "runs")
    change(path, *(f"DELETE FROM {name} WHERE run_uuid = '{run_id}'" for name in tables))
    with pytest.raises(TrackingError, match=r"is not in .*mlflow_run_id in run\.json to null to go on in another"):
        driver.evaluate(folder, [], Reporter())
    about = folder / "run.json"
    about.write_text(about.read_text().replace(f'"{run_id}"', "null"))
    assert driver.evaluate(folder, [], Reporter())["mlflow_run_id"] not in (run_id, None)


@pytest.mark.parametrize("how", ["EXCLUSIVE", "IMMEDIATE"])
def test_a_database_that_is_locked_at_the_start_is_told_of_within_seconds(
    how: str, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_file, "LOCK_SECONDS", 0.1)
    began = time.monotonic()
    with held(database(uri), how):
        with pytest.raises(TrackingError, match=r"tracking\.uri: .*cannot be read \(database is locked\); wait until"):
            check_store(uri)
        with pytest.raises(TrackingError, match=r"MLflow at sqlite:.*database is locked"):
            Tracker.start(uri, "exp", "run", {}, tmp_path)
    assert time.monotonic() - began < 10


def test_training_does_not_wait_for_a_database_that_is_locked(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """MLflow would wait for 20 seconds at each flush. Points wait, and are sent in the end."""
    monkeypatch.setattr("distmeta.tracking.tracker.FLUSH_SECONDS", 0.0)
    monkeypatch.setattr("distmeta.tracking.tracker.RETRY_SECONDS", 0.2)
    monkeypatch.setattr("distmeta.tracking.tracker.BUSY_SECONDS", 0.1)
    notes: list[str] = []
    tracker = Tracker.start(uri, "exp", "run", {}, tmp_path, note=notes.append)
    with held(database(uri)):
        began = time.monotonic()
        for step in range(1, 11):
            tracker.log(step, {"loss": float(step)})
        assert time.monotonic() - began < 5
        assert len((tmp_path / "unsent.jsonl").read_text().splitlines()) == 10
        assert [note.partition(" (")[0] for note in notes] == ["MLflow is away"]
        assert "database is locked" in notes[0]
    tracker.finish()
    assert history(tracker, "loss") == [(step, float(step)) for step in range(1, 11)]
    assert run_of(tracker).info.status == "FINISHED"
    assert notes[1:] == ["MLflow is back and has all entries that waited"]
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_a_run_goes_on_while_the_database_is_locked(uri: str, tmp_path: Path) -> None:
    """For 12 seconds in mid-run: all steps are in MLflow once."""
    steps, locked_at = 120, threading.Event()

    class Slow(Reporter):
        def step(self, report: object, total: int) -> None:
            locked_at.set()
            time.sleep(0.1)
            super().step(report, total)  # type: ignore[arg-type]

    def hold() -> None:
        locked_at.wait()
        with held(database(uri)):
            time.sleep(12)

    thread = threading.Thread(target=hold)
    thread.start()
    config = toy_config(tmp_path, outer__steps=steps, checkpoint__every=0)
    began = time.monotonic()
    result = driver.train(config, tmp_path / "run", Slow())
    thread.join()
    assert time.monotonic() - began < 60
    with contextlib.closing(sqlite3.connect(database(uri))) as connection:
        query = "SELECT step FROM metrics WHERE run_uuid = ? AND key = 'meta_train/loss' ORDER BY step"
        found = [step for (step,) in connection.execute(query, (result["mlflow_run_id"],))]
    assert found == list(range(1, steps + 1))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("sqlite:////nowhere/mlflow.db", r"\$MLFLOW_TRACKING_URI: the folder /nowhere does not exist"),
        ("file:///data/mlruns", r"\$MLFLOW_TRACKING_URI: .* is a file store"),
        ("http://127.0.0.1:1/x", r"\$MLFLOW_TRACKING_URI: .* does not answer"),
        ("sqlite:///$NO_SUCH/mlflow.db", r"\$MLFLOW_TRACKING_URI: invalid value"),
    ],
)
def test_an_address_from_the_environment_is_named_by_its_variable(
    given: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    with pytest.raises(TrackingError, match=f"^{said}"):
        check_store(resolve_uri(None))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store(tmp_path))
    with pytest.raises(TrackingError, match=r"^tracking\.uri: "):
        check_store(resolve_uri(given))
