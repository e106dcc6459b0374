"""Files as people have them are read as they were written, or one line says what to do."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import random
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_helpers import fault, labels, read, texts

from distmeta.data import files
from distmeta.errors import DataError

ROWS = [("wie spät ist es", "time"), ('say "hi", please; now', "greet"), ("how late\nis it", "time")]
RECORDS = [{"text": text, "label": label} for text, label in ROWS]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS)


def table(delimiter: str = ",", header: tuple[str, ...] = ("text", "label"), rows: Any = ROWS) -> str:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return file.getvalue()


def zstandard(content: bytes) -> bytes:
    compressed: bytes = pa.compress(content, codec="zstd", asbytes=True)
    return compressed


def arrow(make: Callable[..., Any]) -> bytes:
    content = pa.table({"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]})
    sink = pa.BufferOutputStream()
    with make(sink, content.schema) as writer:
        writer.write_table(content)
    written: bytes = sink.getvalue().to_pybytes()
    return written


READ: dict[str, bytes] = {
    "A.CSV": table().encode(),
    "a.tsv": table("\t").encode(),
    "semicolons.csv": table(";").encode(),
    "tabs.csv": table("\t").encode(),
    "bars.csv": table("|").encode(),
    "blanks.csv": table(header=(" text", "label ")).encode(),
    "a.csv.gz": gzip.compress(table().encode(), mtime=0),
    "a.Csv.BZ2": bz2.compress(table().encode()),
    "a.csv.xz": lzma.compress(table().encode()),
    "a.jsonl.bz2": bz2.compress(LINES.encode()),
    "a.jsonl.zst": zstandard(LINES.encode()),
    **{f"{name}.csv": table().encode(name) for name in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")},
    **{f"{name}.jsonl": LINES.encode(name) for name in ("utf-8-sig", "utf-16", "utf-32-le", "utf-32-be")},
    "cyrillic.csv": table(header=("text", "label", "метка")[:2]).encode("utf-16-le"),
    "array.json": json.dumps(RECORDS).encode(),
    "indented.json": json.dumps(RECORDS, indent=1).encode(),
    "nested.json": json.dumps({"version": 1, "data": RECORDS}).encode(),
    "lines.json": LINES.encode(),
    "indented.jsonl": json.dumps(RECORDS, indent=1).encode(),
    "objects.jsonl": "\n".join(json.dumps(record, indent=1) for record in RECORDS).encode(),
    "blanks.jsonl": LINES.replace('"label"', '"label "').encode(),
    "file.arrow": arrow(pa.ipc.new_file),
    "stream.arrow": arrow(pa.ipc.new_stream),
    "a.feather": arrow(pa.ipc.new_file),
    "a.arrow.gz": gzip.compress(arrow(pa.ipc.new_stream), mtime=0),
}


@pytest.mark.parametrize("name", READ)
def test_other_forms_are_read_alike(tmp_path: Path, name: str) -> None:
    (tmp_path / "set #2?%41").mkdir()
    (path := tmp_path / "set #2?%41" / name).write_bytes(READ[name])
    for given_path in (path, path.parent):
        source = read(given_path)
        assert list(zip(texts(source), labels(source), strict=True)) == ROWS
    assert [("separated" in remark) for remark in source.remarks] == [True] * (
        path.stem in ("semicolons", "tabs", "bars")
    )


@pytest.mark.parametrize(
    "content",
    [
        "text,label,\na,x,\nb,y,\n",
        "text,label\na,x,\nb,y,,,\n",
        "text,label\na,x\n,\nb,y\n,,,,\n , \n",
        "sep=,\ntext,label\na,x\nb,y\n",
        '"sep=;"\ntext;label\na;x\nb;y\n',
        "sep=\t\r\ntext\tlabel\r\na\tx\r\nb\ty\r\n",
    ],
)
def test_what_spreadsheets_leave_behind(tmp_path: Path, content: str) -> None:
    """Empty cells at the end of rows, rows of empty cells, and the line that declares the delimiter."""
    (tmp_path / "a.csv").write_text(content, newline="")
    source = read(tmp_path / "a.csv")
    assert (source.texts.to_pylist(), source.labels.to_pylist()) == (["a", "b"], ["x", "y"])
    (tmp_path / "a.csv").write_text(content + content.splitlines()[-1][:1] + "z", newline="")
    assert f"a.csv line {content.count(chr(10)) + 1}: 1 values where the header has" in fault(tmp_path / "a.csv")


def test_cells_of_any_length(tmp_path: Path) -> None:
    rows = [("word " * 60_000, "a")]
    (tmp_path / "a.csv").write_text(table(rows=rows))
    assert texts(read(tmp_path / "a.csv")) == [rows[0][0]]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('"text,label\na,b\n', 1),
        ('text,label\na,b\n"c,d\n', 3),
        ('text,label\n"a\n""b""",c\nd,"e\nf,g\n', 4),
        ('text,label\r\n"a\r\nb","c\r\n' + "x,y\r\n" * 9, 3),
    ],
)
def test_a_quote_that_is_never_closed_has_its_line(tmp_path: Path, content: str, line: int) -> None:
    (tmp_path / "a.csv").write_text(content, newline="")
    assert f"a.csv line {line}: a quote that opens here is never closed" in fault(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.jsonl", '{"text": "a", "label": ' + "9" * 5000 + "}", "line 1: a number with too many digits"),
        ("a.json", '[\n{"text": "a", "label": ' + "9" * 5000 + "}\n]", "line 1: a number with too many digits"),
        ("a.jsonl", '{"text": "a", "label": NaN}', "line 1: the label is nan, a float"),
        ("a.jsonl", '{"text": "a", "label": -Infinity}', "line 1: the label is -inf, a float"),
        ("a.json", "[" * 10**5, "line 1: malformed JSON (nested too deeply)"),
        ("a.json", '[\n{"text": "a",\n"label": }]', "line 3: malformed JSON (Expecting value at column 10)"),
        ("a.json", '{"train": [1], "test": [2]}', "a single JSON object, without data.text and data.label"),
        ("a.json", '["a", "b"]', "item 1: a JSON str, not an object"),
        ("a.json", "5", "line 1: a JSON int, not an object"),
        ("a.json", "[]", "a.json: no rows"),
        ("a.csv", "Text;Label\na;b\n", "no column 'text' among 'Text', 'Label'; set data.text=Text"),
        ("a.csv", "text,my labels\na,b\n", "among 'text', 'my labels'; set 'data.label=my labels'"),
        ("a.csv", "text,label,label \na,b,c\n", ""),
        ("a.csv", "text, label,label \na,b,c\n", "2 columns are called 'label'"),
        ("a.csv.gz", table(), "a.csv.gz: cannot be read (Not a gzipped file"),
        ("a.csv.xz", table(), "a.csv.xz: cannot be read (Input format"),
        ("a.txt.gz", table(), "'.txt.gz' is no known kind of file; save it as .parquet, .csv"),
        ("a.arrow", "ARROW1 and so on", "a.arrow: not a readable Arrow file"),
        ("a.csv", b"\xff\xfet\0e\0\x00\xd8", "a.csv: not valid utf-16"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str, content: str | bytes, found: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    if found:
        assert found in fault(tmp_path / name)
    else:
        assert labels(read(tmp_path / name)) == ["b"]


def test_a_compressed_file_that_was_cut(tmp_path: Path) -> None:
    whole = table(rows=[(f"text {random.random()}", "a") for _ in range(999)]).encode()
    compressors: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
        "zst": zstandard,
    }
    for ending, compress in compressors.items():
        (path := tmp_path / f"a.csv.{ending}").write_bytes(compress(whole)[:-30])
        assert f"a.csv.{ending}: cannot be read" in fault(path)


def test_folders(tmp_path: Path) -> None:
    for name in ("train", "test", ".cache"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part.jsonl").write_text(LINES)
    assert read(tmp_path).names[0] == f"{tmp_path}/test/part.jsonl line 1"
    assert len(read(tmp_path, copies=True).texts) == 6
    (tmp_path / "splits.json").write_text("{}")
    (tmp_path / "a.CSV").write_text(table())
    assert len(read(tmp_path).texts) == 3  # what the folder has itself, without JSON that is no data
    (tmp_path / "b.csv.gz").symlink_to(tmp_path / "nowhere")
    assert f"b.csv.gz: a link to {tmp_path}/nowhere, which does not exist" in fault(tmp_path)
    assert "a link to" in fault(tmp_path / "b.csv.gz")


def test_a_whole_disk_is_no_folder_of_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    for number in range(4):
        (tmp_path / "deep" / f"{number}.csv").write_text(table())
    assert len(read(tmp_path).texts) == len(ROWS)
    monkeypatch.setattr(files, "MOST", 3)
    assert "over 3 files below, and none beside; name the folder of the data" in fault(tmp_path)


def test_paths_that_cannot_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cannot be read (File name too long)" in fault(tmp_path / ("a" * 300))
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    assert "loop.csv" in fault(tmp_path / "loop.csv")

    def denied(path: Path, *_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    for method in ("stat", "iterdir", "open"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, method, denied)
            (tmp_path / "a.csv").touch()
            path = tmp_path if method == "iterdir" else tmp_path / "a.csv"
            assert f"{path}: cannot be read (Permission denied)" in fault(path)


def test_what_datasets_saves(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    part = Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    DatasetDict({"train": part, "test": part}).save_to_disk(tmp_path / "saved")
    source = read(tmp_path / "saved")
    assert (labels(source), source.unlabelled, source.copies) == (["yes", "no"], 2, {"yes": 1, "no": 1})
    (tmp_path / "saved" / "train" / "cache-1.arrow").write_bytes(b"computed")
    assert labels(read(tmp_path / "saved" / "train")) == ["yes", "no"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (LINES, None),
        (json.dumps(RECORDS, indent=1), None),
        (table(";"), None),
        (gzip.compress(table().encode(), mtime=0), "its content is compressed by gzip"),
        (arrow(pa.ipc.new_stream), "neither JSON nor delimited text"),
        ("", "no rows"),
    ],
)
def test_pipes(tmp_path: Path, content: str | bytes, found: str | None) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")

    def write() -> None:
        with pipe.open("wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())

    writer = threading.Thread(target=write)
    writer.start()
    if found:
        assert found in fault(pipe)
    else:
        source = read(pipe)
        assert list(zip(texts(source), labels(source), strict=True)) == ROWS
        assert "can be read once" in source.remarks[-1]
    writer.join()


def test_a_descriptor_and_devices(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(table())
    with (tmp_path / "a").open() as file:
        assert texts(read(f"/dev/fd/{file.fileno()}")) == [text for text, _ in ROWS]
    assert "/dev/null: no rows" in fault("/dev/null")
    leader, follower = os.openpty()
    assert "a terminal; name a file" in fault(os.ttyname(follower))
    os.close(leader)
    os.close(follower)


@pytest.mark.parametrize(
    ("parts", "kept"),
    [
        ([["0", "1", "2"], ["-1", "-1"]], ["0", "1", "2"]),
        ([["0", "1"], ["-1"]], ["0", "1"]),
        ([["0", "5", "-1"]], ["0", "5"]),
        ([["0", "1", "-1"]], ["0", "1", "-1"]),  # a polarity
        ([["1", "-1"]], ["1", "-1"]),
        ([["-2", "-1", "7"]], ["-2", "-1", "7"]),
        ([["a", "-1"]], ["a", "-1"]),
        ([["a", -1]], ["a"]),
    ],
)
def test_placeholders_are_left_out(tmp_path: Path, parts: list[list[Any]], kept: list[str]) -> None:
    for number, part in enumerate(parts):
        lines = [json.dumps({"text": "t", "label": label}) for label in part]
        (tmp_path / f"{number}.jsonl").write_text("\n".join(lines))
    source = read(tmp_path)
    assert labels(source) == kept
    assert source.unlabelled == sum(map(len, parts)) - len(kept)
    assert len(source.remarks) == bool(source.unlabelled)


def test_placeholders_alone(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,-1\nb,-1\n")
    assert "a.csv line 2: the label is -1 in all rows" in fault(tmp_path / "a.csv")


def test_two_pairs_of_task_and_label_are_two_classes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("domain,text,label\na,t,b/c\na/b,t,c\na/b,t,d\n")
    assert labels(read(tmp_path / "a.csv", task="domain")) == ["a/b/c", r"a\/b/c", r"a\/b/d"]
    (tmp_path / "a.csv").write_text("domain,text,label\na,t,b/c\na/b,t,d\n")
    assert labels(read(tmp_path / "a.csv", task="domain")) == ["a/b/c", "a/b/d"]


CELLS = st.one_of(
    st.text(st.characters(codec="utf-8")),
    st.text(st.characters(categories=("Cc", "Zs", "Cs", "Lo"))),
    st.sampled_from(["", " ", "\0", '"', "\ud800", "=1+1", "-1", "\ufeff", "\u2028", "x" * 200_000]),
)


def is_refused(cell: str) -> bool:
    return not cell.strip() or any("\ud800" <= letter <= "\udfff" for letter in cell)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=4), kind=st.sampled_from([".csv", ".tsv", ".jsonl"]))
def test_any_cells_are_read_as_written_or_refused_in_one_line(rows: list[tuple[str, str]], kind: str) -> None:
    if kind == ".jsonl":
        content = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    else:
        content = table("\t" if kind == ".tsv" else ",", rows=rows)
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder) / f"a{kind}").write_bytes(content.encode(errors="surrogatepass"))
        line, source = "", None
        try:
            source = read(path, copies=True)
        except DataError as error:
            line = str(error)
    if kind != ".jsonl":  # a row of blanks is none
        rows = [row for row in rows if any(map(str.strip, row))]
    if source is None:
        assert len(line.splitlines()) == 1
        assert (
            not rows
            or any(map(is_refused, [cell for row in rows for cell in row]))
            or {row[1].strip() for row in rows} == {"-1"}
        )
    else:
        kept = [row for row in rows if not (source.unlabelled and row[1].strip() == "-1")]
        assert list(zip(texts(source), labels(source), strict=True)) == kept
