"""Labelled texts are read whole and in order, and every fault names its file and row."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_helpers import fault, groups, labels, read, texts

from distmeta.data.labelled import Source

ROWS = [("wie spät ist es", "time"), ('say "hi", please', "greet"), ("how late\nis it", "time")]


def write(path: Path, texts: Any, labels: Any) -> Path:
    """Writes a file of the kind that the name ends in."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": texts, "label": labels}), path)
    elif path.suffix == ".csv":
        quoted = [
            ",".join('"' + str(v).replace('"', '""') + '"' for v in row) for row in zip(texts, labels, strict=True)
        ]
        path.write_text("\n".join(["text,label", *quoted]) + "\n", encoding="utf-8")
    else:
        records = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl", "ndjson"])
def test_reads_every_kind_alike(tmp_path: Path, ending: str) -> None:
    columns = tuple(list(column) for column in zip(*ROWS, strict=True))
    source = read(write(tmp_path / f"a.{ending}", *columns))
    assert (texts(source), labels(source), groups(source)) == (*columns, None)
    same = read(write(tmp_path / "b.jsonl", *columns))
    assert source.fingerprint == same.fingerprint


def test_fingerprint_is_of_content_in_order() -> None:
    source = Source.of(["a", "b"], ["x", "y"])
    others = [
        Source.of(["b", "a"], ["y", "x"]),
        Source.of(["a", "b"], ["x", "x"]),
        Source.of(["a", "b"], ["x", "y"], ["g", "g"]),
        Source.of(["a", 'b"],["x'], ["x", "y"]),
    ]
    assert len({s.fingerprint for s in [source, *others]}) == 5
    assert source.fingerprint == Source.of(["a", "b"], ["x", "y"]).fingerprint
    # sha256sum of the three lines ["a", "b"], ["x", "y"] and null
    assert source.fingerprint == "6b856013f6c00e5496ed14cc2b4fca8d8742ceeffcdf3a7f3a27e3eaa73d454e"


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_whole_number_labels_are_names(tmp_path: Path, ending: str) -> None:
    assert labels(read(write(tmp_path / f"a.{ending}", ["a", "b"], [7, 10]))) == ["7", "10"]


def test_dictionary_and_large_strings(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": pa.array(["a", "b"], pa.large_string()),
            "label": pa.array(["x", "x"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert labels(read(tmp_path / "a.parquet")) == ["x", "x"]


def test_other_columns_and_groups(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\ufeffutterance,topic,intent,note\nhello,small talk,greet,\xe9\n", encoding="utf-8")
    source = read(path, text="utterance", label="intent", group="topic")
    assert (texts(source), labels(source), groups(source)) == (["hello"], ["greet"], ["small talk"])


def test_text_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\nNA,007\n 2020-01-01 ,null\n2020-01-01,x\n2020-01-01,x\n", encoding="utf-8")
    source = read(path, copies=True)
    assert texts(source) == ["NA", " 2020-01-01 ", "2020-01-01", "2020-01-01"]
    assert labels(source) == ["007", "null", "x", "x"]


def test_folder_is_read_by_name(tmp_path: Path) -> None:
    for number in (5, 2, 7, 0, 6, 3, 1, 4):
        write(tmp_path / f"{number}.csv", [str(number)], ["x"])
    (tmp_path / "README.md").write_text("about")
    (tmp_path / ".hidden.csv").write_text("x")
    source = read(tmp_path)
    assert texts(source) == list("01234567")
    assert list(source.names) == [f"{tmp_path}/{number}.csv line 2" for number in range(8)]


def test_folder_without_or_with_several_kinds(tmp_path: Path) -> None:
    assert "no data files in this folder" in fault(tmp_path)
    write(tmp_path / "a.csv", ["a"], ["x"])
    write(tmp_path / "b.jsonl", ["a"], ["x"])
    assert ".csv, .jsonl" in fault(tmp_path)


def test_missing_and_unknown(tmp_path: Path) -> None:
    assert f"{tmp_path}/none.csv: no such file" in fault(tmp_path / "none.csv")
    (tmp_path / "a.xlsx").write_text("x")
    assert re.search(r"a\.xlsx: '\.xlsx'.*\.parquet, \.csv", fault(tmp_path / "a.xlsx"))
    (tmp_path / "plain").write_text("x")
    assert "'no ending'" in fault(tmp_path / "plain")


@pytest.mark.parametrize("content", [b"", b"garbage bytes", b"PAR1" + b"\xff" * 40 + b"PAR1"])
def test_garbage_parquet(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    assert f"{tmp_path}/a.parquet: not a readable parquet file" in fault(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
@pytest.mark.parametrize("content", ["", "\n\n"])
def test_empty_file(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert f"{name}: no rows" in fault(tmp_path / name)


def test_header_or_schema_alone(tmp_path: Path) -> None:
    assert "a.csv: no rows" in fault(write(tmp_path / "a.csv", [], []))
    strings = pa.array([], pa.string())
    assert "a.parquet: no rows" in fault(write(tmp_path / "a.parquet", strings, strings))


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_missing_column_names_what_there_is(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"a.{ending}", ["a"], ["x"])
    assert re.search(r"no column 'txt' among 'text', 'label'; set data\.text=text", fault(path, text="txt"))
    assert "set data.group to one of them" in fault(path, group="zzz")


def test_column_given_twice(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label,text\na,b,c\n")
    assert "2 columns are called 'text'" in fault(tmp_path / "a.csv")


def test_not_utf8_names_the_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text,label\nfine,x\ncaf\xe9,x\n")
    expected = (
        "a.csv line 3: the text is not UTF-8 (byte 0xE9); save the file as UTF-8; iconv -f cp1252 -t utf-8 does that"
    )
    assert expected in fault(tmp_path / "a.csv")
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "fine", "label": "x"}\n{"text": "b", "label": "caf\xe9"}\n')
    assert "a.jsonl line 2: the label is not UTF-8" in fault(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_text('{"text": "half a pair \\ud800", "label": "x"}\n')
    expected = r"b.jsonl line 1: the text is not UTF-8 ('\ud800' is half of a pair); write the pair, or remove it"
    assert expected in fault(tmp_path / "b.jsonl")
    latin = pa.array([b"fine", b"caf\xe9"], pa.binary())
    write(tmp_path / "a.parquet", pa.Array.from_buffers(pa.string(), 2, latin.buffers()), ["x", "x"])
    expected = "a.parquet row 2: the text is not UTF-8 (byte 0xE9); write the column as UTF-8"
    assert expected in fault(tmp_path / "a.parquet")
    coded = pa.Array.from_buffers(pa.string(), 2, latin.buffers()).dictionary_encode()
    write(tmp_path / "b.parquet", ["a", "b"], coded)
    assert "b.parquet row 2: the label is not UTF-8" in fault(tmp_path / "b.parquet")


@pytest.mark.parametrize(("ending", "where"), [("parquet", "row 2"), ("jsonl", "line 2")])
@pytest.mark.parametrize("empty", [None, "", "  \t"])
def test_empty_value_names_the_row(tmp_path: Path, ending: str, where: str, empty: str | None) -> None:
    path = write(tmp_path / f"a.{ending}", ["a", empty], ["x", "x"])
    assert f"a.{ending} {where}: the text is empty" in fault(path)
    path = write(tmp_path / f"a.{ending}", ["a", "b"], ["x", empty])
    assert f"a.{ending} {where}: the label is empty" in fault(path)


def test_empty_csv_value_and_absent_json_key(tmp_path: Path) -> None:
    # The first record takes lines 2 and 3, line 4 is blank.
    (tmp_path / "a.csv").write_text('text,label\n"two\nlines",x\n\n,x\n')
    assert "a.csv line 5: the text is empty" in fault(tmp_path / "a.csv")
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": "x"}\n\n{"text": "b"}\n')
    assert "a.jsonl line 3: the label is empty" in fault(tmp_path / "a.jsonl")


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
def test_columns_inside_a_column_are_named(tmp_path: Path, name: str) -> None:
    line = fault(write(tmp_path / name, ["a"], [{"id": 1, "name": "x"}]))
    assert "1: the label is an object with the keys ['id', 'name']; write each of them as a column of its own" in line


@pytest.mark.parametrize("label", [1.5, True, ["x"]])
def test_label_of_another_type(tmp_path: Path, label: Any) -> None:
    for ending in ("jsonl", "parquet"):
        line = fault(write(tmp_path / f"a.{ending}", ["a"], [label]))
        assert f"1: the label is {label!r}, a {type(label).__name__}" in line


def test_text_must_be_a_string(tmp_path: Path) -> None:
    assert "line 1: the text is 5, a int" in fault(write(tmp_path / "a.jsonl", [5], ["x"]))


@pytest.mark.parametrize(
    "line", ['{"text": "b", "label": ', "not json", '["b", "x"]', '{"a": 1} {"b": 2}', "[" * 10**5]
)
def test_malformed_json_names_the_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": "x"}\n' + line + "\n")
    assert re.search(r"a\.jsonl line 2: (malformed JSON|a JSON list)", fault(tmp_path / "a.jsonl"))


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("a,b,c", "3 values where the header has 2"),
        ("a", "1 values"),
        ('"a"b,c', "malformed"),
        ('"a,b', "a quote that"),
    ],
)
def test_malformed_csv_names_the_line(tmp_path: Path, row: str, found: str) -> None:
    (tmp_path / "a.csv").write_text(f"text,label\nfine,x\n{row}\n")
    assert f"a.csv line 3: {found}" in fault(tmp_path / "a.csv")


def test_subset_is_for_the_hub(tmp_path: Path) -> None:
    assert fault(write(tmp_path / "a.csv", ["a"], ["x"]), subset="small").startswith("data.subset")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "rows", "copies", "classes"), [("banking77", 13083, 11, 77), ("clinc150", 22500, 1, 150)]
)
def test_real_files(real_data: Path, name: str, rows: int, copies: int, classes: int) -> None:
    source = read(real_data / f"{name}.parquet", copies=True)
    assert (len(source.texts), len(source.classes)) == (rows, classes)
    assert source.names[-1] == f"{real_data}/{name}.parquet row {rows}"
    once = read(real_data / f"{name}.parquet")
    assert (len(once.texts), sum(once.copies.values())) == (rows - copies, copies)


def test_a_data_set_of_the_hub_without_rows_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distmeta.data.sources._read_hub", lambda *_: iter(()))
    assert fault("hub:owner/empty") == "hub:owner/empty: no rows; give at least one labelled text"
