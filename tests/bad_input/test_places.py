"""Addresses where nobody answers, and runs that cannot go on."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from bad_input.commands import fail, write
from toy import toy_config, toy_settings

from distmeta.report.progress import Reporter
from distmeta.runs import train as driver


@pytest.fixture(params=["silent", "closed"])
def dead_port(request: pytest.FixtureRequest) -> Iterator[int]:
    """A port that nobody listens on, or that accepts connections and never says anything."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "silent":
            listener.listen()
        yield listener.getsockname()[1]


def test_an_address_where_no_ray_answers(
    dead_port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"127.0.0.1:{dead_port}"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    content = toy_settings(tmp_path, run_dir="run", cluster__backend="ray", cluster__address=address)
    path = write(tmp_path / "config.yaml", yaml.safe_dump(content))
    started = time.monotonic()
    assert f"no Ray answers at {address}" in fail(["train", path], capsys, monkeypatch)
    assert time.monotonic() - started < 15


def test_an_mlflow_that_does_not_answer(
    dead_port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"http://user:secret@127.0.0.1:{dead_port}"
    path = write(tmp_path / "config.yaml", yaml.safe_dump(toy_settings(tmp_path, run_dir="run", tracking__uri=uri)))
    message = fail(["train", path], capsys, monkeypatch)
    assert "tracking.uri: http://***@127.0.0.1" in message
    assert "does not answer" in message


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run's directory."""
    driver.train(toy_config(tmp_path, outer__steps=1), tmp_path / "run", Reporter())
    return tmp_path / "run"


def test_runs_that_cannot_go_on(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one test, since a finished run takes seconds to make."""
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "config.yaml", yaml.safe_dump(toy_settings(tmp_path, run_dir="run")))

    def refused(*arguments: str) -> str:
        return fail(list(arguments), capsys, monkeypatch)

    assert "run_dir: run exists" in refused("train", path)
    assert "inner.lr: cannot change in a run that has begun" in refused("train", "--resume", "run", "inner.lr=2")
    other = refused("train", path, "inner.lr=2", "--resume", "run")
    assert "was made with other settings: inner.lr was 0.1, and is 2.0" in other
    assert "no such run directory" in refused("evaluate", "no/run")
    assert "Run with id=0123456789abcdef not found" in refused("evaluate", "0123456789abcdef")
    assert "is not a run's directory" in refused("evaluate", str(tmp_path))
    assert "CONFIG: missing" in refused("train")

    (data := tmp_path / "data.csv").write_text(data.read_text().replace("topic", "subject"))
    assert "was made with other data" in refused("train", "--resume", "run")
    state = finished / "checkpoints" / "step-00000001" / "state.safetensors"
    for content in (state.read_bytes()[:-1], b"x" + state.read_bytes()[1:]):
        state.write_bytes(content)
        assert "state.safetensors: was altered or cut short" in refused("evaluate", "run")
