"""Files are read block by block: what stands in a later block is read and named as if there were one."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_helpers import fault, labels, read, texts

from distmeta.data.values import coded, codes_of, names_of

ROWS = [(f"text {number}", f"class {number % 3}") for number in range(10)]
READERS = ("delimited", "json_records", "arrow", "values")


@pytest.fixture(params=[1, 3, 4, 10, 11], autouse=True)
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for reader in READERS:
        monkeypatch.setattr(f"distmeta.data.{reader}.BLOCK", request.param)


def write(path: Path, rows: list[tuple[Any, Any]]) -> Path:
    columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
    match path.suffix:
        case ".parquet":
            pq.write_table(pa.table(columns), path, row_group_size=4)
        case ".arrow":
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, pa.table(columns).schema) as writer:
                writer.write_table(pa.table(columns), max_chunksize=4)
        case ".csv":
            path.write_text("\n".join(["text,label", *(f"{text or ''},{label}" for text, label in rows)]))
        case _:
            path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    return path


@pytest.mark.parametrize(
    ("ending", "last"), [("csv", "line 11"), ("jsonl", "line 10"), ("parquet", "row 10"), ("arrow", "row 10")]
)
def test_all_rows_are_read_and_named(tmp_path: Path, ending: str, last: str) -> None:
    source = read(write(tmp_path / f"a.{ending}", ROWS))
    assert list(zip(texts(source), labels(source), strict=True)) == ROWS
    assert source.names[9] == f"{tmp_path}/a.{ending} {last}"
    assert source.classes == ["class 0", "class 1", "class 2"]
    assert source.counts == {"class 0": 4, "class 1": 3, "class 2": 3}
    lines = "".join(json.dumps([row[column] for row in ROWS]) + "\n" for column in (0, 1)) + "null\n"
    assert source.fingerprint == hashlib.sha256(lines.encode()).hexdigest()
    assert f"a.{ending} {last}: the text is empty" in fault(write(tmp_path / f"a.{ending}", [*ROWS[:9], (None, "x")]))


def test_the_first_row_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    rows = [*ROWS[:4], ("fine", ["no", "label"]), (5, "no text"), (None, "class 0")]
    assert "line 5: the label is ['no', 'label'], a list" in fault(write(tmp_path / "a.jsonl", rows))
    assert "line 5: the text is 5, a int" in fault(write(tmp_path / "a.jsonl", [*rows[:4], *rows[5:]]))


def test_a_row_without_a_known_label_may_lack_a_text(tmp_path: Path) -> None:
    source = read(write(tmp_path / "a.jsonl", [*ROWS, (None, -1), ("", -1)]))
    assert (len(source.texts), source.unlabelled) == (10, 2)


def test_labels_of_two_types_are_one_class(tmp_path: Path) -> None:
    source = read(write(tmp_path / "a.jsonl", [("a", 7), ("b", "7"), ("c", "8"), ("d", 8), ("e", 7)]))
    assert (source.counts, labels(source)) == ({"7": 3, "8": 2}, list("77887"))


@pytest.mark.parametrize("at", range(1, 10, 4))
def test_keys_that_differ_by_blanks(tmp_path: Path, at: int) -> None:
    records = [{"text": text, "label" if number < at else "label ": label} for number, (text, label) in enumerate(ROWS)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert f"a.jsonl line {at + 1}: the label is empty" in fault(tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, reversed(records))))
    line = fault(tmp_path / "a.jsonl")
    assert (
        "line 1: the label is empty" in line or "a.jsonl: the keys 'label ' and 'label', which differ by blanks" in line
    )


def test_names_are_kept_in_the_order_of_their_first_rows() -> None:
    column = coded(np.array([4, 1, 4, 2, 1]), list("abcde"))
    assert (names_of(column), codes_of(column).tolist()) == (["e", "b", "c"], [0, 1, 0, 2, 1])
