"""Data at an address: in fsspec's memory, and on a server of this machine."""

import gzip
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_helpers import fault, read

from distmeta.data import files

TABLE = "text,label\nhello there,a\ngood bye,b\n"


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as http:
        threading.Thread(target=http.serve_forever).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def labels(path: str) -> list[str]:
    return [str(label) for label in read(path).labels.to_pylist()]


def test_a_file_of_each_kind(memory: Any, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x", "y"], "label": ["a", "b"]}), tmp_path / "a.parquet")
    contents = {
        "a.csv": TABLE.encode(),
        "a.csv.gz": gzip.compress(TABLE.encode(), mtime=0),
        "a.jsonl": b'{"text": "x", "label": "a"}\n{"text": "y", "label": "b"}\n',
        "a.parquet": (tmp_path / "a.parquet").read_bytes(),
    }
    for name, content in contents.items():
        memory.pipe(f"/set/{name}", content)
        assert labels(f"memory://set/{name}") == ["a", "b"]


def test_a_folder_is_read_by_name(memory: Any) -> None:
    memory.pipe({"/set/b.csv": TABLE.replace(",a", ",c").encode(), "/set/a.csv": TABLE.encode(), "/set/x.md": b""})
    assert labels("memory://set") == ["a", "b", "c"]  # good bye, b is a copy
    memory.pipe("/set/c.jsonl", b"{}")
    assert "memory://set: files of several kinds (.csv, .jsonl); keep one kind or name one file" in fault(
        "memory://set"
    )


def test_over_http(server: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(TABLE)
    assert labels(f"{server}/a.csv") == ["a", "b"]
    assert labels(f"{server}/a.csv?version=2") == ["a", "b"]
    assert f"{server}/b.csv: cannot be read" in fault(f"{server}/b.csv")
    (tmp_path / "c.csv").write_text(TABLE + "only one\n")
    assert f"{server}/c.csv line 4: 1 values where the header has 2" in fault(f"{server}/c.csv")


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("memory://nothing.csv", "memory://nothing.csv: cannot be read (no such file)"),
        ("memory://nothing", "'no ending' is no known kind of file; save it as"),
        ("nonsense://host/a.csv", "nonsense://host/a.csv: cannot be read (Protocol not known: nonsense"),
        ("https://127.0.0.1:9/a.csv", "https://127.0.0.1:9/a.csv: cannot be read"),
        ("http://[::1/a.csv", "http://[::1/a.csv: cannot be read (Invalid IPv6 URL"),
    ],
)
def test_where_nothing_can_be_read(address: str, found: str) -> None:
    assert found in fault(address)


@pytest.mark.parametrize(("protocol", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_package_that_is_missing_is_named(protocol: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    line = fault(f"{protocol}://bucket/a.csv")
    assert line.startswith(f"{protocol}://bucket/a.csv: ")
    assert f"nstall {package}" in line


def test_a_fault_of_the_reader_is_none_of_the_address(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what the file system raises is a user's error."""
    memory.pipe("/a.csv", TABLE.encode())

    def broken(*_: Any) -> Iterator[Any]:
        raise LookupError("in our own code")

    monkeypatch.setitem(files.TEXTS, ".csv", broken)
    with pytest.raises(LookupError, match="our own code"):
        read("memory://a.csv")


def test_a_folder_here_of_the_same_name_does_not_matter(memory: Any, tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    memory.pipe({f"{tmp_path}/a.csv": TABLE.encode(), f"{tmp_path}/b.csv": TABLE.replace(",b", ",c").encode()})
    assert labels(f"memory://{tmp_path}") == ["a", "b", "c"]
