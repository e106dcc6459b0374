"""Registered models behind MLflow's own servers: a registry at an address, and `mlflow models serve`."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from stores import store
from use_helpers import LABELS, NEW, TEXTS, untrained

import distmeta
from distmeta.errors import TrackingError
from distmeta.runs.models import registered
from distmeta.tracking import Tracker, check_store, fetch, ui_command

EXAMPLES = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]
QUERIES = [{"text": text} for text in NEW]


def unused_port() -> int:
    listener = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    listener.server_close()
    return int(listener.server_port)


@contextmanager
def running(command: list[str], folder: Path, env: dict[str, str]) -> Iterator[Callable[[str], None]]:
    """A server in a process group of its own; yields a function that waits until it answers at an address."""
    with (log := folder / "server.log").open("w") as file:
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file, env=env, start_new_session=True)

    def answers(url: str) -> None:
        deadline = time.monotonic() + 150
        while True:
            try:
                assert urllib.request.urlopen(url, timeout=5).status == 200
                return
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)

    try:
        yield answers
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 15)
            process.wait()


def ask(port: int, content: Any) -> Any:
    """The answer of a model's server, or the status it refuses with."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", json.dumps(content).encode(), {"Content-Type": "application/json"}
    )
    try:
        return json.load(urllib.request.urlopen(request, timeout=30))["predictions"]
    except urllib.error.HTTPError as error:
        return error.code


def serve(python: str, model: str, port: int) -> list[str]:
    command = [python, "-P", "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local"]
    return [*command, "--host", "127.0.0.1", "--port", str(port)]


def without_the_package(folder: Path, uri: str) -> dict[str, str]:
    """An environment in which the package is found nowhere but in the model."""
    (folder / "sitecustomize.py").write_text(
        "import sys\nsys.meta_path = [its for its in sys.meta_path if 'editable' not in str(its).lower()]\n"
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # of uvicorn
    return {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(folder),
        "MLFLOW_TRACKING_URI": uri,
    }


def check_served(port: int, task: Any, answers: Callable[[str], None]) -> None:
    answers(f"http://127.0.0.1:{port}/ping")
    wanted = list(task.answers(NEW))
    assert ask(port, {"inputs": [{"examples": EXAMPLES, "queries": QUERIES}]}) == [wanted]
    assert ask(port, {"dataframe_records": [{"examples": EXAMPLES, "queries": QUERIES}] * 2}) == [wanted] * 2
    for bad in (
        [{"examples": [], "queries": QUERIES}],
        [{"queries": QUERIES}],
        "text",
        [{"examples": 3, "queries": 4}],
    ):
        assert ask(port, {"inputs": bad}) == 400
    assert ask(port, {"inputs": [{"examples": [{"text": "", "label": "a"}], "queries": QUERIES}]}) == 400


@pytest.mark.slow
def test_mlflow_serves_a_learner_without_this_package_and_the_training_data(tmp_path: Path, uri: str) -> None:
    """Its code comes from the model."""
    learner = untrained(tmp_path, "protonet")
    learner.save(tmp_path / "learner")
    registered(str(tmp_path / "learner"), "intents", "champion", uri)
    for name in ("learner", "cache", "data.csv"):
        path = tmp_path / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    env, port = without_the_package(tmp_path, uri), unused_port()
    code = "import importlib.util; assert importlib.util.find_spec('distmeta') is None"
    subprocess.run([sys.executable, "-P", "-c", code], cwd="/", env=env, check=True)
    with running(serve(sys.executable, "models:/intents@champion", port), tmp_path, env) as answers:
        check_served(port, learner.adapt(TEXTS, LABELS), answers)


@pytest.mark.nightly
def test_a_registry_at_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes from it is kept, and works while it is away."""
    port = unused_port()
    uri = f"http://127.0.0.1:{port}"
    (there := tmp_path / "there").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    learner = untrained(tmp_path, "protonet")
    learner.save(tmp_path / "learner")
    task = learner.adapt(TEXTS, LABELS)
    task.save(tmp_path / "task")
    with running(ui_command(store(there), port), tmp_path, dict(os.environ)) as answers:
        answers(f"{uri}/health")
        check_store(uri)
        tracker = Tracker.start(uri, "distmeta", "run", {}, tmp_path)
        assert registered(str(tmp_path / "learner"), "intents", "champion").uri == "models:/intents/1"
        assert registered(str(tmp_path / "task"), "task", None).version == "1"
        tracker.finish()
        client = MlflowClient(uri)
        model = client.get_model_version("intents", "1").source.removeprefix("models:/")
        versions = json.loads(client.get_logged_model(model).tags["mlflow.modelVersions"])
        assert [(its["name"], str(its["version"])) for its in versions] == [("intents", "1")]
        loaded = distmeta.load("models:/intents@champion")
        assert np.array_equal(loaded.adapt(TEXTS, LABELS).predict_proba(NEW), task.predict_proba(NEW))
        assert np.array_equal(distmeta.load_task("models:/task/1").predict_proba(NEW), task.predict_proba(NEW))
        kept = fetch(uri, "models:/task/1")
        assert kept.is_relative_to(tmp_path / ".cache" / "distmeta" / "models")
        assert fetch(uri, "models:/task/latest") == kept
        with pytest.raises(TrackingError, match=f"is not in {uri}"):
            distmeta.load("models:/intents@other")
    with pytest.raises(TrackingError, match="does not answer"):
        distmeta.load("models:/intents@champion")


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_mlflow_serves_in_a_fresh_environment(tmp_path: Path, uri: str) -> None:
    """With nothing but the packages that the model names."""
    learner = untrained(tmp_path, "maml")
    learner.save(tmp_path / "learner")
    folder = fetch(uri, registered(str(tmp_path / "learner"), "intents", None, uri).uri).parents[1]
    model, python = tmp_path / "model", str(tmp_path / "venv" / "bin" / "python")
    shutil.copytree(folder, model)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", str(model / "requirements.txt")], check=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MLFLOW"))}
    (elsewhere := tmp_path / "elsewhere").mkdir()
    port = unused_port()
    path = f"{tmp_path / 'venv' / 'bin'}:{env['PATH']}"
    with running(serve(python, str(model), port), elsewhere, {**env, "PATH": path}) as answers:
        check_served(port, learner.adapt(TEXTS, LABELS), answers)
