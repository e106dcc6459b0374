"""Files and settings that nobody thought of: used as written, or refused in one line; never a traceback or a hang."""

import contextlib
import csv
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from bad_input.commands import is_one_line
from bad_input.kinds_of_files import CSV, GOOD, LINES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy import toy_settings

from distmeta import cli

Rows = list[tuple[str, str]]
LIMIT = timedelta(seconds=30)
TIMES = [pytest.param(30), pytest.param(1000, marks=pytest.mark.nightly)]
SHAPE = {"ways": 2, "shots": 1, "queries": 1}


def check(folder: Path, *words: str) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of `distmeta check` in a folder that has a configuration."""
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["distmeta", "check", "config.yaml", "--json", *words]
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as ended:
        return int(ended.code or 0), out.getvalue(), err.getvalue()
    finally:
        sys.argv = argv
    raise AssertionError("a command ends by SystemExit")


@contextlib.contextmanager
def folder_with_configuration(path: str = "data.csv") -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content = toy_settings(folder, data__path=path, episodes=SHAPE, model__name="text_cnn")
        content["evaluation"] |= {"shots": [1], "queries": 1}
        (folder / "config.yaml").write_text(yaml.safe_dump(content))
        yield folder


def runs(test: Callable[..., None], times: int, **strategies: Any) -> None:
    health = [HealthCheck.too_slow, HealthCheck.data_too_large]
    settings(max_examples=times, deadline=LIMIT, suppress_health_check=health)(given(**strategies)(test))()


LETTERS = st.one_of(
    st.characters(codec="utf-8"),
    st.characters(categories=("Cc", "Cf", "Zs", "Zl", "Zp", "Mn", "Lo", "So", "Cn")),
    st.sampled_from("\0\ufeff\u2028\u202e\u0301\ud800\U0001f469\u200d\"',;\t\r\n=@-+[]{}/\\%$*"),
)
CELLS = st.one_of(st.text(LETTERS, max_size=12), st.sampled_from(["-1", "nan", "null", "=1+1", "x" * 100_000]))


def as_csv(rows: Rows, delimiter: str = ",") -> bytes:
    writer = csv.writer(file := io.StringIO(newline=""), delimiter=delimiter)
    writer.writerows([("text", "label"), *rows])
    return file.getvalue().encode(errors="surrogatepass")


def as_lines(rows: Rows) -> bytes:
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows).encode()


def as_array(rows: Rows) -> bytes:
    return json.dumps([{"text": text, "label": label} for text, label in rows], ensure_ascii=True, indent=1).encode()


def as_parquet(rows: Rows) -> bytes:
    columns = [pa.array([cell.encode(errors="surrogatepass") for cell in column]) for column in zip(*rows, strict=True)]
    pq.write_table(pa.table(columns, ["text", "label"]), file := io.BytesIO())
    return file.getvalue()


WRITERS: dict[str, Callable[[Rows], bytes]] = {
    "a.csv": as_csv,
    "a.tsv": lambda rows: as_csv(rows, "\t"),
    "a.jsonl": as_lines,
    "a.json": as_array,
    "a.parquet": as_parquet,
}


def is_usable(cell: str) -> bool:
    return bool(cell.strip()) and not any("\ud800" <= letter <= "\udfff" for letter in cell)


@pytest.mark.parametrize("times", TIMES)
def test_any_texts_and_labels(times: int) -> None:
    """Twelve good classes, and rows of any kind."""
    good = [(f"word{n} of {label}", f"class {label}") for label in range(12) for n in range(4)]

    def test(rows: Rows, name: str) -> None:
        with folder_with_configuration(name) as folder:
            (folder / name).write_bytes(WRITERS[name]([*good, *rows]))
            code, out, err = check(folder, "data.min_examples=2")
        if name in ("a.csv", "a.tsv"):  # a row of blanks is none
            rows = [row for row in rows if any(map(str.strip, row))]
        if code == 0:
            assert all(is_usable(cell) for row in rows for cell in row)
            everything = {*good, *rows}
            seen = json.loads(out)["data"]
            assert (seen["rows"], seen["classes"]) == (len(everything), len({label for _, label in everything}))
        else:
            assert (code, out) == (2, "")
            assert is_one_line(err), err
            # A vocabulary of words has no token for text that is all blanks and control characters.
            assert not all(is_usable(cell) for row in rows for cell in row) or "no token in" in err, err

    runs(
        test,
        times,
        rows=st.lists(st.tuples(CELLS, CELLS), max_size=4, unique=True),
        name=st.sampled_from(sorted(WRITERS)),
    )


@pytest.mark.parametrize("times", TIMES)
def test_any_bytes(times: int) -> None:
    """Files of every kind: random, or good ones that were damaged."""
    contents = {"a.csv": CSV.encode(), "a.jsonl": LINES.encode(), "a.parquet": GOOD}
    names = [*contents, "a.json", "a.tsv", "a.arrow", "a.csv.gz", "a.jsonl.zst", "a.json.xz", "a.csv.bz2"]

    def test(name: str, noise: bytes, place: int, replaced: int) -> None:
        good = contents.get(name, b"")
        place %= len(good) + 1
        with folder_with_configuration(name) as folder:
            (folder / name).write_bytes(good[:place] + noise + good[place + replaced :])
            code, out, err = check(folder, "data.min_examples=2")
        assert (code, is_one_line(err)) == (2, True) if code else out.startswith("{"), err

    runs(
        test,
        times,
        name=st.sampled_from(names),
        noise=st.one_of(st.binary(max_size=40), st.sampled_from([b"\0", b'"', b"\xff\xfe", b"\r", b"[" * 10_000])),
        place=st.integers(0, 10**6),
        replaced=st.integers(0, 100),
    )


KEYS = st.sampled_from(
    [
        *("seed", "run_dir", "data.path", "data.text", "data.splits", "data.group", "episodes.ways", "episodes.only"),
        *("model.name", "model.widths", "model.freeze", "algorithm.name", "inner.lr", "outer.steps", "outer.clip_norm"),
        *("outer", "evaluation.shots", "tasks", "cluster.workers", "tracking.experiment", "tracking.uri", "tune.space"),
    ]
)
VALUES = st.one_of(
    st.text(LETTERS.filter(lambda letter: letter != "\0"), max_size=20),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["", "[]", "{}", "null", "~", "true", "[[1]]", "{a: {b: 1}}", "*a", "&a", "!!set", "<<", "$HOME"]),
)


@pytest.mark.parametrize("times", TIMES)
def test_any_settings(times: int) -> None:
    def test(key: str, value: str) -> None:
        with folder_with_configuration() as folder:
            code, out, err = check(folder, f"{key}={value}")
        assert (code, is_one_line(err)) == (2, True) if code else out.startswith("{"), err

    runs(test, times, key=st.one_of(KEYS, st.text(LETTERS, max_size=8)), value=VALUES)


@pytest.mark.parametrize("times", TIMES)
def test_any_configuration(times: int) -> None:
    """YAML that was damaged, and anything else."""

    def test(noise: str, place: int, replaced: int) -> None:
        with folder_with_configuration() as folder:
            good = (folder / "config.yaml").read_text()
            place %= len(good) + 1
            text = good[:place] + noise + good[place + replaced :]
            (folder / "config.yaml").write_bytes(text.encode(errors="surrogatepass"))
            code, out, err = check(folder)
        assert (code, is_one_line(err)) == (2, True) if code else out.startswith("{"), err

    noise = st.one_of(st.text(LETTERS, max_size=20), st.text("{}[]:,&*!<#|>'\"%@` \n\tab-~", max_size=20))
    runs(test, times, noise=noise, place=st.integers(0, 10**6), replaced=st.integers(0, 1000))
