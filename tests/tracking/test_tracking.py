import os
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from stores import store
from tracking_helpers import history, run_of

from distmeta.errors import TrackingError
from distmeta.tracking import Tracker, check_store, find_run_dir, flatten, resolve_uri, ui_command


def test_importing_costs_nothing() -> None:
    code = "import sys, distmeta.tracking; sys.exit('mlflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_flatten_uses_dots_json_and_no_credentials() -> None:
    config = {"outer": {"lr": 0.001, "steps": 5}, "adapt": ["head", None], "on": True, "none": None}
    config |= {"tracking": {"uri": "https://me:pw@host/x"}, "long": "é" * 6001}
    assert flatten(config) == {
        "outer.lr": "0.001",
        "outer.steps": "5",
        "adapt": '["head", null]',
        "on": "true",
        "none": "null",
        "tracking.uri": "https://***@host/x",
        "long": "é" * 5999 + "…",  # 6000 characters, MLflow's limit
    }


def test_parameters_are_sent_100_at_a_time(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr("mlflow.MlflowClient.log_batch", lambda _, run_id, params: sizes.append(len(params)))
    Tracker.start(uri, "exp", "run", {"many": {f"k{i}": i for i in range(250)}}, tmp_path)
    assert sizes == [100, 100, 50]  # a server refuses more


def test_run_holds_parameters_metrics_tags_and_artifacts(uri: str, tmp_path: Path) -> None:
    many = {f"k{i}": i for i in range(250)}
    tracker = Tracker.start(
        uri, "exp", "run one", {"many": many, "long": "x" * 9000}, tmp_path / "run", tags={"a": "b"}
    )
    for step in range(1, 4):
        tracker.log(step, {"meta_train/loss": 1 / step, "outer/norm": float("nan")})
    tracker.log_artifact(Path(__file__), "code")
    tracker.finish("KILLED")
    run = run_of(tracker)
    assert len(run.data.params) == 251
    assert run.data.params["many.k249"] == "249"
    assert len(run.data.params["long"]) == 6000
    assert history(tracker, "meta_train/loss") == [(1, 1), (2, 1 / 2), (3, 1 / 3)]
    assert len(history(tracker, "outer/norm")) == 3
    assert (run.data.tags["a"], run.data.tags["distmeta.run_dir"]) == ("b", str(tmp_path / "run"))
    assert (run.info.status, run.info.run_name) == ("KILLED", "run one")
    # Beside the database, by an absolute path, wherever the process runs.
    artifact = tmp_path / "mlartifacts" / tracker.run_id / "artifacts" / "code" / Path(__file__).name
    assert artifact.read_bytes() == Path(__file__).read_bytes()
    assert run.info.artifact_uri == artifact.parents[1].as_uri()


def count_batches(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []
    monkeypatch.setattr(tracker._client, "log_batch", lambda run_id, metrics: sizes.append(len(list(metrics))))
    return sizes


def test_metrics_are_sent_in_batches(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    tracker = Tracker.start(uri, "exp", "run", {}, tmp_path)
    sizes = count_batches(tracker, monkeypatch)
    for step in range(499):
        tracker.log(step, {"a": 0.0})
    assert sizes == []
    tracker.log(499, {"a": 0.0})
    assert sizes == [500]
    tracker.log(500, {"a": 0.0})
    clock[0] += 1.9
    tracker.log(501, {"a": 0.0})
    assert sizes == [500]
    clock[0] += 0.2  # 2.1 seconds since the last flush
    tracker.log(502, {"a": 0.0})
    assert sizes == [500, 3]
    tracker.log(503, {f"k{i}": 0.0 for i in range(2100)})
    assert sizes == [500, 3, 1000, 1000, 100]
    tracker.flush()
    assert len(sizes) == 5


def test_continued_run_logs_no_step_twice(uri: str, tmp_path: Path) -> None:
    tracker = Tracker.start(uri, "exp", "run", {"lr": 1, "old": 2}, tmp_path)
    for step in range(1, 6):
        tracker.log(step, {"meta_train/loss": float(step)})
    tracker.log(4, {"meta_validation/loss": 4.0})
    tracker.finish("FAILED")
    again = Tracker.start(uri, "exp", "run", {"lr": 3, "new": 4}, tmp_path / "moved", run_id=tracker.run_id)
    assert again.run_id == tracker.run_id
    assert run_of(again).info.status == "RUNNING"
    for step in range(4, 8):  # from the checkpoint of step 3
        again.log(step, {"meta_train/loss": 10.0 * step, "meta_validation/loss": 10.0 * step})
    again.finish()
    assert history(again, "meta_train/loss") == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 60), (7, 70)]
    assert history(again, "meta_validation/loss") == [(4, 4), (5, 50), (6, 60), (7, 70)]
    data = run_of(again).data
    assert data.params == {"lr": "1", "old": "2", "new": "4"}
    assert data.tags["distmeta.resumed.lr"] == "3"
    assert "distmeta.resumed.old" not in data.tags
    assert data.tags["distmeta.run_dir"] == str(tmp_path / "moved")
    assert run_of(again).info.status == "FINISHED"


def test_figures_can_be_logged_again(uri: str, tmp_path: Path) -> None:
    first = Tracker.start(uri, "E", "r", {}, tmp_path)
    first.log(5, {"meta_test/accuracy": 0.5})
    first.finish()
    again = Tracker.start(uri, "E", "r", {}, tmp_path, run_id=first.run_id)
    again.log(5, {"meta_test/accuracy": 0.75}, again=True)
    again.finish()
    assert history(again, "meta_test/accuracy") == [(5, 0.5), (5, 0.75)]


def test_the_ui_opens_on_training_runs_with_a_description(uri: str, tmp_path: Path) -> None:
    tracker = Tracker.start(uri, "E", "r", {}, tmp_path)
    tracker.describe("| a | b |")
    tracker.flush()
    tags = tracker._client.get_experiment_by_name("E").tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert run_of(tracker).data.tags["mlflow.note.content"] == "| a | b |"


def test_run_dir_is_found_by_run_id(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tracker = Tracker.start(uri, "exp", "run", {}, "runs/one")  # relative here, absolute in the tag
    with pytest.raises(TrackingError, match=r"runs/one is not on this machine"):
        find_run_dir(uri, tracker.run_id)
    (tmp_path / "runs" / "one").mkdir(parents=True)
    assert find_run_dir(uri, tracker.run_id) == tmp_path / "runs" / "one"
    with pytest.raises(TrackingError, match="nosuchrun"):
        find_run_dir(uri, "nosuchrun")
    tracker._client.delete_tag(tracker.run_id, "distmeta.run_dir")
    with pytest.raises(TrackingError, match=r"has no tag distmeta.run_dir"):
        find_run_dir(uri, tracker.run_id)
    with pytest.raises(TrackingError, match=r"other.db does not exist"):
        find_run_dir(f"sqlite:///{tmp_path}/other.db", tracker.run_id)
    assert not (tmp_path / "other.db").exists()


def test_processes_that_open_a_fresh_database_at_once_all_run_quietly(tmp_path: Path) -> None:
    code = """
import sys, time, pathlib
import mlflow
from distmeta.tracking import Tracker
here = pathlib.Path(sys.argv[1])
(here / sys.argv[2]).touch()
while len(list(here.glob("ready*"))) < 2:
    time.sleep(0.01)
tracker = Tracker.start(f"sqlite:///{here}/mlflow.db", "exp", "run", {"a": 1}, here)
tracker.log(1, {"a": 1.0})
tracker.finish()
"""
    words = [sys.executable, "-c", code, str(tmp_path)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes = [subprocess.Popen([*words, f"ready{i}"], cwd=tmp_path, **pipes) for i in range(2)]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs == ["", ""]


@pytest.mark.nightly
def test_ui_shows_the_store_from_any_directory(uri: str, tmp_path: Path, unused_port: int) -> None:
    tracker = Tracker.start(uri, "exp", "run", {}, tmp_path)
    (tmp_path / "hello.txt").write_text("hello")
    tracker.log_artifact(tmp_path / "hello.txt")
    tracker.finish()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with (tmp_path / "ui.log").open("w") as log:
        process = subprocess.Popen(
            ui_command(uri, unused_port), cwd=elsewhere, stdout=log, stderr=log, start_new_session=True
        )
    try:
        base = f"http://127.0.0.1:{unused_port}"
        deadline = time.monotonic() + 60
        while True:
            try:
                check_store(base)
                break
            except TrackingError:
                assert process.poll() is None, (tmp_path / "ui.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.2)
        url = f"{base}/get-artifact?path=hello.txt&run_uuid={tracker.run_id}"
        assert urllib.request.urlopen(url, timeout=10).read() == b"hello"
        remote = Tracker.start(base, "remote", "run", {"a": 1}, tmp_path)
        remote.log(1, {"a": 2.0})
        remote.finish()
        assert find_run_dir(base, remote.run_id) == tmp_path
    finally:
        os.killpg(process.pid, 15)
        process.wait()


@pytest.fixture
def unused_port() -> int:
    listener = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    listener.server_close()
    return listener.server_port


def test_ui_on_a_port_in_use_is_refused_and_told_a_free_one(uri: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(TrackingError, match=rf"--port: {port} is in use by another program; give .* --port \d+"):
            ui_command(uri, port)
    assert ui_command(uri, port)[1:4] == ["-P", "-m", "mlflow"]


def test_ui_of_a_server_or_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"open https://\*\*\*@host:5000 in a browser"):
        ui_command("https://me:secret@host:5000", 5000)
    with pytest.raises(TrackingError, match=r"mlflow.db does not exist"):
        ui_command(f"sqlite:///{tmp_path}/mlflow.db", 5000)


def test_a_run_in_a_folder_with_an_odd_name_stays_there(tmp_path: Path) -> None:
    """Database and artifacts; nothing else is made."""
    (folder := tmp_path / "what? #50%41").mkdir()
    store(folder)
    uri = resolve_uri(f"sqlite:///{urllib.parse.quote(str(folder))}/mlflow.db")
    (file := tmp_path / "file.txt").touch()
    tracker = Tracker.start(uri, "Odd", "run", {}, folder)
    tracker.log_artifact(file)
    tracker.finish()
    assert find_run_dir(uri, tracker.run_id) == folder
    assert len(list((folder / "mlartifacts").rglob("file.txt"))) == 1
    assert {path.name for path in tmp_path.iterdir()} == {folder.name, "file.txt"}
