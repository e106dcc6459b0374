import base64
import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from distmeta.errors import TrackingError
from distmeta.tracking import sqlite as store_file
from distmeta.tracking import uri as tracking_uri
from distmeta.tracking.uri import check_store, database, mask, resolve_uri


def test_uri_is_configured_or_from_the_environment_or_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    assert resolve_uri("sqlite:///runs.db") == f"sqlite:///{tmp_path}/runs.db"
    assert resolve_uri("sqlite:////abs/runs.db") == "sqlite:////abs/runs.db"
    assert resolve_uri(None) == "http://tracker:5000"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert resolve_uri(None) == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("sqlite:////nowhere/mlflow.db", "tracking.uri: the folder /nowhere does not exist; create it"),
        ("sqlite:///{tmp}/text.db", "text.db is not an SQLite database"),
        ("sqlite:///{tmp}", "is a folder; name a file"),
        ("sqlite://", "names no SQLite file; give sqlite:///FOLDER/mlflow.db"),
        ("sqlite:///:memory:", "names no SQLite file"),
        ("./mlruns", "'./mlruns' is a file store, which MLflow 3 refuses; give sqlite:///FOLDER"),
        ("file:///data/mlruns", "is a file store, which MLflow 3 refuses; give sqlite:///FOLDER"),
        ("postgresql://u:secret@db/x", "'postgresql' is not supported; give sqlite:///FOLDER/mlflow.db or"),
        ("http://u:secret@127.0.0.1:1/x", r"http://\*\*\*@127.0.0.1:1/x does not answer .*; start it"),
        ("http://[::1", "is no address of a server; "),
        (
            "http://ann:se/secret@127.0.0.1:9",
            r"http://\*\*\*@127.0.0.1:9 is no address of a server; give http://HOST:PORT",
        ),
        (
            "http://ann:9/secret@127.0.0.1:9",
            r"http://\*\*\*@127.0.0.1:9 is no address of a server; give http://HOST:PORT",
        ),
        (
            "http://ann:9?secret@127.0.0.1:9",
            r"http://\*\*\*@127.0.0.1:9 is no address of a server; give http://HOST:PORT",
        ),
        ("http://127.0.0.1:9/?token=secret", "token=.* has parameters, .*; a token is given in MLFLOW_TRACKING_TOKEN"),
        ("http://127.0.0.1:1/se cret", "has a character that cannot be sent; remove blanks and line breaks"),
        ("sqlite://ann:secret@host/x", r"'sqlite://\*\*\*@host/x' names no SQLite file"),
        ("sqlite:////tmp/what?/mlflow.db", r"has a \? in its path; write it %3F"),
    ],
)
def test_unusable_store_is_one_line(uri: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("hello")
    with pytest.raises(TrackingError, match=message) as caught:
        check_store(uri.replace("{tmp}", str(tmp_path)))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["what?", "a#b", "50%41", "two words", "c:d", "a@b", "x;y&z=1", "ü", "-", "?a=b"])
def test_any_folder_has_an_address(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that leads SQLAlchemy to the same file, and that stays the same when it is resolved again."""
    (folder := tmp_path / name).mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = resolve_uri(None)
    assert make_url(uri).database == str(folder / "mlflow.db")
    assert database(uri) == folder / "mlflow.db"
    assert resolve_uri(uri) == uri == resolve_uri("sqlite:///mlflow.db")
    check_store(uri)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://host:5000/path", "http://host:5000/path"),
        ("http://ann@host", "http://***@host"),
        ("http://ann:secret@host", "http://***@host"),
        ("http://ann:sec/ret@host:1/x does not answer", "http://***@host:1/x does not answer"),
        ("http://ann:sec@ret@host", "http://***@host"),
        ("http://ann:sec ret@host", "http://***@host"),
        ("http://sec/ret@host", "http://***@host"),
        ("http://:secret@host", "http://***@host"),
        ("'tracking.uri=https://me:sec?r#et@host'", "'tracking.uri=https://***@host'"),
        ("http://host/x?token=secret&page=2", "http://host/x?token=***&page=2"),
        ("http://host/x?page=2&api_key=secret", "http://host/x?page=2&api_key=***"),
        ("GET /x?X-Amz-Signature=secret: 403", "GET /x?X-Amz-Signature=*** 403"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("postgresql://ann:secret@db/x", "postgresql://***@db/x"),
        ("first http://ann:secret@host\nsecond", "first http://***@host\nsecond"),
    ],
)
def test_secrets_are_never_shown(text: str, shown: str) -> None:
    assert mask(text) == shown


def test_a_token_with_a_line_break_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret\r\n")
    with pytest.raises(TrackingError, match="has a character that cannot be sent") as caught:
        check_store("http://127.0.0.1:1")
    assert "secret" not in str(caught.value)


def test_folder_without_write_access_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_store(f"sqlite:///{tmp_path}/mlflow.db")
    assert not any(tmp_path.iterdir())  # a check leaves nothing behind
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write anywhere
    with pytest.raises(TrackingError, match="is not writable"):
        check_store(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture
def server() -> Iterator[tuple[str, Callable[..., None], list[tuple[str, str | None]]]]:
    """An HTTP server: its address, what sets its answer, and the requests it has seen."""
    seen: list[tuple[str, str | None]] = []
    reply: dict[str, Any] = {"code": 200, "body": b"OK", "seconds": 0.0}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers["Authorization"]))
            time.sleep(reply["seconds"])
            self.send_response(reply["code"])
            self.end_headers()
            self.wfile.write(reply["body"])

        def log_message(self, *args: object) -> None: ...

    listener = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True).start()
    yield f"127.0.0.1:{listener.server_port}", lambda **new: reply.update(new), seen
    listener.shutdown()
    listener.server_close()


def test_server_is_asked_for_its_health_with_the_credentials(
    server: tuple[str, Callable[..., None], list[tuple[str, str | None]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, answer, seen = server
    check_store(f"http://{host}")
    check_store(f"http://us%40er:secret@{host}/prefix/")
    basic = "Basic " + base64.b64encode(b"us@er:secret").decode()
    assert seen == [("/health", None), ("/prefix/health", basic)]
    answer(code=403)
    with pytest.raises(TrackingError, match=r"http://\*\*\*@127.* answers /health with 403; .*USERNAME"):
        check_store(f"http://user:secret@{host}")
    answer(code=200, body=b"<html>")
    with pytest.raises(TrackingError, match="is not an MLflow server"):
        check_store(f"http://{host}")
    assert tracking_uri.HEALTH_TIMEOUT_SECONDS == 5
    monkeypatch.setattr(tracking_uri, "HEALTH_TIMEOUT_SECONDS", 0.1)
    answer(body=b"OK", seconds=0.3)
    with pytest.raises(TrackingError, match=r"does not answer \(timed out\)"):
        check_store(f"http://{host}")


def test_a_deleted_experiment_and_a_locked_or_damaged_database_are_one_line(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before MLflow is imported; the database's experiment is Other."""
    check_store(uri, "Other")
    path = database(uri)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name = 'Other'")
        connection.commit()
    check_store(uri, "New")
    with pytest.raises(TrackingError, match=r"tracking.experiment: 'Other' was deleted in MLflow; choose another name"):
        check_store(uri, "Other")
    monkeypatch.setattr(store_file, "LOCK_SECONDS", 0.01)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TrackingError, match=r"cannot be read \(database is locked\); wait until"):
            check_store(uri, "New")
    path.write_bytes(b"SQLite format 3\0" + b"nonsense" * 99)
    with pytest.raises(TrackingError, match="cannot be read"):
        check_store(uri, "New")
