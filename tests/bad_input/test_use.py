"""What a user can get wrong when a learner is used: one line and exit code 2, and nothing is left half-written."""

import csv
import io
import json
import pickle
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bad_input.commands import fail, files, run, write
from serve_helpers import EXAMPLES, LocalService
from use_helpers import LABELS, TEXTS, untrained

from distmeta.storage import write_sums

GOOD = "text,label\n" + "".join(f"{text},{label}\n" for text, label in zip(TEXTS, LABELS, strict=True))
LINES = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in zip(TEXTS, LABELS, strict=True))
CALIBRATION = {
    **{"shape": {"ways": 4, "shots": 3}, "temperature": 0.5, "before": 0.2, "after": 0.1},
    **{"thresholds": [[0.05, 0.375], [0.1, 0.25]], "episodes": 7},
}
FILES: dict[str, str | bytes] = {
    "good.csv": GOOD,
    "one_class.csv": "text,label\ntopic1,a\ntopic2,a\n",
    "one_example.csv": "text,label\ntopic1,a\n",
    "contradiction.csv": GOOD + f"{TEXTS[0]},class 1\n",
    "header.csv": "text,label\n",
    "empty_text.csv": GOOD + ",class 1\n",
    "blanks.csv": GOOD + " \t ,class 1\n",
    "no_token.csv": GOOD + "\u0301\u0301,class 1\n",
    "latin.csv": GOOD.encode() + b"caf\xe9,class 1\n",
    "surrogate.jsonl": LINES + '{"text": "\\ud800", "label": "class 1"}\n',
    "surrogate_label.jsonl": LINES + '{"text": "topic1", "label": "\\ud800"}\n',
    "any.csv": GOOD
    + "a\0b,NUL\n\u202e\u05e9\u05dc\u05d5\u05dd topic1,\u05e9\u05dc\u05d5\u05dd\ne\u0301 o\u0308,e\u0301\n",
    "long.csv": GOOD + "topic1 " * 40_000 + ",class 1\n",
    "mixed/a.csv": GOOD,
    "mixed/b.jsonl": LINES,
    "binary.txt": bytes(range(256)),
    "nothing.txt": "",
    "no_token.txt": "topic7\n\u0301\u0301\n\n",
    "file": "a file",
}
REFUSED = {
    "adapt learner one_class.csv --out new": "examples: one class, 'a'; give examples of another class too",
    "adapt learner one_example.csv --out new": "examples: one class, 'a'; give examples of another class too",
    "adapt learner header.csv --out new": "header.csv: no rows; give at least one labelled text",
    "adapt learner empty_text.csv --out new": "empty_text.csv line 14: the text is empty; fill it in or remove the row",
    "adapt learner blanks.csv --out new": "blanks.csv line 14: the text is empty; fill it in or remove the row",
    "adapt learner no_token.csv --out new": "no_token.csv line 14: no token in '\u0301\u0301'; leave it out",
    "adapt task no_token.csv": "no_token.csv line 14: no token in '\u0301\u0301'; leave it out",
    "adapt learner latin.csv --out new": "latin.csv line 14: the text is not UTF-8 (byte 0xE9)",
    "adapt learner surrogate.jsonl --out new": "surrogate.jsonl line 13: the text is not UTF-8",
    "adapt learner surrogate_label.jsonl --out new": "surrogate_label.jsonl line 13: the label is not UTF-8",
    "adapt learner mixed --out new": "mixed: files of several kinds (.csv, .jsonl); keep one kind or name one file",
    "adapt learner good.csv --out file": "--out: file exists; name another folder, or remove it",
    "adapt learner good.csv --out file/new": "file cannot be written to; name another place",
    "adapt calibrated good.csv --out new --wrong 0": "wrong: 0; give one of 0.01, 0.02, 0.05, 0.1, 0.2",
    "adapt calibrated good.csv --out new --wrong 7": "wrong: 7; give one of 0.01, 0.02, 0.05, 0.1, 0.2",
    "adapt calibrated good.csv --out new --wrong nan": "wrong: nan; give one of 0.01, 0.02, 0.05, 0.1, 0.2",
    "adapt learner good.csv --out new --descriptions header.csv": "header.csv: no rows",
    "adapt learner good.csv --out new --family x": "family: this learner has no family 'x'; give one of classification",
    "adapt task good.csv --family x": "--family: x, and task is a task, which has one; leave it out",
    "adapt file good.csv --out new": "file: no such run directory; give a run directory or an MLflow run id",
    "predict learner good.csv": "learner: holds no task; make one with `distmeta adapt RUN EXAMPLES --out TASK`",
    "predict file good.csv": "file: holds no task; make one with",
    "predict task mixed": "mixed: files of several kinds (.csv, .jsonl)",
    "predict task binary.txt": "binary.txt: not UTF-8 (byte 0x80); save the file as UTF-8",
    "predict task good.csv --out mixed": "--out: mixed is a folder; name a file",
    "predict task good.csv --out file/new.csv": "file cannot be written to; name another place",
    "predict task good.csv --out /dev/full": "--out: /dev/full cannot be written (No space left on device); free some",
    "suggest learner good.csv": "learner: holds no task; make one with",
    "suggest task good.csv": "TEXTS: all of them have a label already; give others",
    "suggest task nothing.txt": "TEXTS: there are none; give some that have no label",
    "suggest task good.csv --out file/new.csv": "file cannot be written to; name another place",
    "export learner --format onnx --out new": "learner: holds no task; make one with",
    "export task --format onnx --out file/new": "file cannot be written to; name another place",
    "serve task": "task: is a task, and a learner is served; give the task's own: task/learner",
    "serve file": "file: no such run directory; give a run directory",
    "register file --name a": "file: no such run directory; give a run directory",
    "report task": "task: is not a run's directory",
    "report learner": "learner: is not a run's directory",
    "evaluate task": "task: is not a run's directory",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files, two learners, and a task of one of them."""
    folder = tmp_path_factory.mktemp("bad")
    learner = untrained(tmp_path_factory.mktemp("data"), "protonet")
    learner.save(folder / "learner")
    learner.calibrated({"classification": [CALIBRATION]}).save(folder / "calibrated")
    learner.adapt(TEXTS, LABELS).save(folder / "task")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write(folder / name, content)
    return folder


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[str, str]]:
    """A command that succeeds: stdout and stderr."""

    def called(words: str) -> tuple[str, str]:
        code, out, err = run(shlex.split(words), capsys, monkeypatch)
        assert code == 0, err
        return out, err.replace("\n", " ")

    return called


Call = Any


@pytest.mark.parametrize("words", REFUSED)
def test_it_is_refused_in_one_line(
    words: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in files(here)}
    assert REFUSED[words] in fail(shlex.split(words), capsys, monkeypatch)
    assert {path: path.stat().st_mtime_ns for path in files(here)} == before


@pytest.mark.parametrize("more", ["", " data.copies=true"])
def test_a_contradiction_is_counted(more: str, here: Path, call: Call, tmp_path: Path) -> None:
    _, err = call(f"adapt learner contradiction.csv --out {tmp_path}/task{more}")
    assert "note: 1 texts have more than one label" in err
    assert "learned 4 classes from 13 examples" in err


def test_texts_of_any_script_are_learned_and_predicted(here: Path, call: Call, tmp_path: Path) -> None:
    """NUL, right-to-left and combining marks come back as they were."""
    call(f"adapt learner any.csv --out {tmp_path}/task")
    out, _ = call(f"predict {tmp_path}/task any.csv --always")
    given, found = (list(csv.DictReader(io.StringIO(text))) for text in (str(FILES["any.csv"]), out))
    assert [row["text"] for row in found] == [row["text"] for row in given]
    assert {f"p({row['label']})" for row in given} < set(found[0])


def test_a_very_long_text_is_cut(here: Path, call: Call, tmp_path: Path) -> None:
    _, err = call(f"adapt learner long.csv --out {tmp_path}/task")
    assert "note: 1 of 13 texts are longer than 64 tokens and were cut" in err


def test_texts_without_labels_that_are_examples_teach_nothing(here: Path, call: Call, tmp_path: Path) -> None:
    """They would tell a learner of an example that is left out."""
    _, err = call(f"adapt learner good.csv --out {tmp_path}/alone")
    expected = err.partition("expect ")[2].partition("it is not")[0]
    out, err = call(f"adapt learner good.csv --out {tmp_path}/task --unlabelled good.csv --json")
    assert "note: 12 texts without labels are among the examples, and left out" in err
    assert json.loads(out)["unlabelled"] == 0
    assert expected in err


def test_rows_that_cannot_be_used_are_left_out_where_there_are_no_labels(
    here: Path, call: Call, tmp_path: Path
) -> None:
    for words in (
        "suggest task no_token.txt",
        f"adapt learner good.csv --unlabelled no_token.txt --out {tmp_path}/task",
    ):
        _, err = call(words)
        assert "no_token.txt line 2: no token in '\u0301\u0301', left out" in err
        assert "no_token.txt line 3: no text, left out" in err
    out, err = call("predict task nothing.txt")
    assert (len(out.splitlines()), err) == (1, ""), "the header"


def _pickled(folder: Path, name: str) -> None:
    """Another file in place of a learner's or a task's, or beside it, with hashes that are right."""
    (folder / name).write_bytes(pickle.dumps(_Alarm()))
    write_sums(folder)


class _Alarm:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return pytest.fail, ("a pickle was read",)


@pytest.mark.parametrize(
    ("place", "name"),
    [("learner", "theta.safetensors"), ("learner", "frozen.safetensors"), ("task", "adapted.safetensors")],
)
def test_a_pickle_in_place_of_tensors_is_not_read(
    place: str,
    name: str,
    here: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(here / place, tmp_path / place)
    _pickled(tmp_path / place, name)
    words = {"learner": "adapt {} good.csv --out new", "task": "predict {} good.csv"}[place]
    err = fail(words.format(tmp_path / place).split(), capsys, monkeypatch)
    assert f"{name}: is no file of safetensors" in err
    assert "; copy it again, or" in err


def test_a_pickle_beside_them_does_nothing(here: Path, call: Call, tmp_path: Path) -> None:
    """Even one whose hash is among the others."""
    shutil.copytree(here / "task", tmp_path / "task")
    for folder in (tmp_path / "task", tmp_path / "task" / "learner"):
        _pickled(folder, "data.pkl")
    assert call(f"predict {tmp_path}/task good.csv") == call("predict task good.csv")
    assert "learned 4 classes" in call(f"adapt {tmp_path}/task/learner good.csv --out {tmp_path}/new")[1]


def test_a_run_of_a_former_format_is_refused(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(here / "learner", tmp_path / "learner")
    document = tmp_path / "learner" / "learner.json"
    document.write_text(document.read_text().replace('"format": 1', '"format": 0'))
    words = ["adapt", str(tmp_path / "learner"), "good.csv", "--out", "new"]
    assert "learner.json: was altered or cut short; copy it again" in fail(words, capsys, monkeypatch)
    write_sums(tmp_path / "learner")
    assert "is of format 0, and this version of distmeta reads format 1; use the" in fail(words, capsys, monkeypatch)


@pytest.mark.parametrize("key", ["text", "label"])
def test_half_a_pair_is_refused_by_the_service(key: str, tmp_path: Path) -> None:
    service = LocalService(tmp_path)
    answer = service("POST", "/tasks", {"examples": [*EXAMPLES, {"text": "topic1", "label": "a", key: "\ud800"}]})
    assert 400 <= answer.status < 500
    assert answer.json["error"]["remedy"]
    assert service("GET", "/tasks").json["total"] == 0
