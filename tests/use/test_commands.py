"""`distmeta adapt` and `distmeta predict`: from files that people have, and from pipes."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bad_input.commands import fail, run
from use_helpers import LABELS, NEW, TEXTS, untrained

import distmeta
from distmeta.use.task import Task


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a learner, examples and a task that was learned from them."""
    folder = tmp_path_factory.mktemp("use")
    learner = untrained(folder, "protonet")
    learner.save(folder / "learner")
    write(folder / "examples.csv", zip(TEXTS, LABELS, strict=True))
    learner.adapt(TEXTS, LABELS).save(folder / "task")
    return folder


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def write(path: Path, rows: Any, header: tuple[str, ...] = ("text", "label")) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


Run = Any


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command that succeeds: stdout and stderr."""

    def called(*words: str) -> tuple[str, str]:
        code, out, err = run(list(words), capsys, monkeypatch)
        assert code == 0, err
        return out, err

    return called


def test_a_task_is_learned_from_a_file_and_predicts_another(here: Path, call: Run, tmp_path: Path) -> None:
    out, err = call("adapt", "learner", "examples.csv", "--out", str(tmp_path / "my task"), "--json")
    about = json.loads(out)
    assert (about["classes"], about["examples"]) == (sorted(set(LABELS)), 12)
    assert "learned 4 classes from 12 examples" in err
    assert f"expect {about['expected']['accuracy']:.0%} right answers" in err
    assert f"`distmeta predict '{tmp_path / 'my task'}' TEXTS`" in err
    write(tmp_path / "new.tsv", [[text] for text in NEW], ("text",))
    out, _ = call("predict", str(tmp_path / "my task"), str(tmp_path / "new.tsv"))
    task = distmeta.load_task(tmp_path / "my task")
    assert [row["label"] for row in table(out)] == task.predict(NEW)
    assert [row["text"] for row in table(out)] == NEW
    shares = [[float(row[f"p({name})"]) for name in task.names] for row in table(out)]
    assert shares == pytest.approx(task.predict_proba(NEW), abs=1e-6)
    assert [float(row["certainty"]) for row in table(out)] == pytest.approx(task.predict_proba(NEW).max(1), abs=1e-6)


def test_json_lines_and_a_file(here: Path, call: Run, tmp_path: Path) -> None:
    write(tmp_path / "new.csv", [[text] for text in NEW], ("text",))
    out, _ = call("predict", "task", str(tmp_path / "new.csv"), "--out", str(tmp_path / "found.jsonl"))
    assert out == ""
    found = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert [row["text"] for row in found] == NEW
    assert [row["label"] for row in found] == distmeta.load_task("task").predict(NEW)
    assert all(sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5) for row in found)


def piped(here: Path, content: bytes, *words: str) -> list[dict[str, str]]:
    command = [sys.executable, "-m", "distmeta.cli", "predict", "task", "-", *words]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, input=content, capture_output=True, cwd=here, check=False, env=environment)
    assert result.returncode == 0, result.stderr.decode()
    return table(result.stdout.decode())


def test_standard_input_holds_lines_a_table_or_json(here: Path) -> None:
    expected = distmeta.load_task("task").predict(NEW)
    lines = "\n".join(NEW)
    for content in (
        lines,
        "\ufeff" + lines.replace("\n", "\r\n") + "\r\n",
        "id;text\n" + "".join(f"{n};{text}\n" for n, text in enumerate(NEW)),
        "\n".join(json.dumps({"text": text}) for text in NEW),
    ):
        found = piped(here, content.encode())
        assert [(row["text"], row["label"]) for row in found] == list(zip(NEW, expected, strict=True))


def test_a_line_that_has_no_text_has_no_answer_and_the_rest_has(here: Path, call: Run, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text(f"{NEW[0]}\n\n   \n{NEW[1]}\n[urgent] call, me\n")
    out, err = call("predict", "task", str(tmp_path / "new.txt"), "--always")
    assert [row["label"] != "" for row in table(out)] == [True, False, False, True, True]
    assert f"{tmp_path / 'new.txt'} line 2: no text, and no answer" in err.replace("\n", "")


def test_labels_and_texts_are_no_formulas(here: Path, call: Run, tmp_path: Path) -> None:
    """A spreadsheet takes a cell that begins with = for a formula."""
    write(tmp_path / "examples.csv", [("topic1", "=1+1"), ("topic2", "+2")])
    call("adapt", "learner", str(tmp_path / "examples.csv"), "--out", str(tmp_path / "task"))
    (tmp_path / "new.txt").write_text("=HYPERLINK(1) topic1\n")
    out, _ = call("predict", str(tmp_path / "task"), str(tmp_path / "new.txt"))
    assert [row["text"] for row in table(out)] == ["'=HYPERLINK(1) topic1"]
    assert {row["label"] for row in table(out)} <= {"'=1+1", "'+2"}


def test_a_task_grows_in_place_or_elsewhere(here: Path, call: Run, tmp_path: Path) -> None:
    call("adapt", "learner", "examples.csv", "--out", str(tmp_path / "task"))
    write(tmp_path / "more.csv", [("topic9 thing4", "class 9"), ("topic8 thing3", "class 8")])
    _, err = call("adapt", str(tmp_path / "task"), str(tmp_path / "more.csv"), "--out", str(tmp_path / "grown"))
    assert "learned 6 classes from 14 examples" in err
    assert len(distmeta.load_task(tmp_path / "task").names) == 4
    call("adapt", str(tmp_path / "task"), str(tmp_path / "more.csv"))
    assert distmeta.load_task(tmp_path / "task").names == distmeta.load_task(tmp_path / "grown").names


def test_what_stands_out_in_the_examples_is_said(here: Path, call: Run, tmp_path: Path) -> None:
    write(tmp_path / "examples.csv", [("topic1", "a"), ("topic1", "a"), ("topic2", "b"), ("topic2", "a")])
    _, err = call("adapt", "learner", str(tmp_path / "examples.csv"), "--out", str(tmp_path / "task"))
    assert "1 copies of other examples are left out" in err
    assert "1 texts have more than one label" in err
    write(tmp_path / "examples.csv", [("topic1", "a"), ("topic2", "b")])
    _, err = call("adapt", "learner", str(tmp_path / "examples.csv"), "--out", str(tmp_path / "other"))
    assert "how good it is cannot be said" in err


def test_texts_that_are_cut_are_counted(made: Path, call: Run, tmp_path: Path) -> None:
    """A text of four words stands in the limit of four tokens, one of five does not."""
    untrained(made, "protonet", data__max_length=4).save(tmp_path / "learner")
    whole, longer = ["topic1 word1 word2 word3", "topic2"], ["topic1 word1 word2 word3 word4", "topic2 " * 9]
    write(tmp_path / "examples.csv", [(whole[0], "a"), (longer[0], "a"), (whole[1], "b")])
    write(tmp_path / "new.csv", [[text] for text in [*whole, *longer, ""]], ("text",))
    task, new = str(tmp_path / "task"), str(tmp_path / "new.csv")
    out, err = call("adapt", str(tmp_path / "learner"), str(tmp_path / "examples.csv"), "--out", task, "--json")
    assert "note: 1 of 3 texts are longer than 4 tokens and were cut" in err.replace("\n", " ")
    assert json.loads(out)["cut"] == 1
    for command in ("predict", "suggest"):
        _, err = call(command, task, new)
        assert err.replace("\n", " ").count("note: 2 of 4 texts are longer than 4 tokens and were cut") == 1, command
    write(tmp_path / "new.csv", [[text] for text in whole], ("text",))
    assert "cut" not in call("predict", task, new)[1]


def test_the_remedy_for_another_column_works(
    here: Path, call: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "examples.csv", [("topic1", "a"), ("topic2", "b")], ("Text", "Intent"))
    words = ["adapt", "learner", str(tmp_path / "examples.csv"), "--out", str(tmp_path / "task")]
    err = fail(words, capsys, monkeypatch)
    assert "set data.text=Text" in err
    err = fail([*words, "data.text=Text"], capsys, monkeypatch)
    assert "no column 'label' among 'Text', 'Intent'; set data.label to one of them" in err
    assert not (tmp_path / "task").exists()
    call(*words, "data.text=Text", "data.label=Intent")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("adapt learner examples.csv", "--out: missing; name a folder for the task, such as --out my_task"),
        ("adapt learner examples.csv --out task", "--out: task exists; name another folder, or remove it"),
        ("adapt learner examples.csv --out new outer.steps=3", "outer.steps: no setting of this command"),
        (
            "adapt learner examples.csv --out new data.texd=x",
            "data.texd: no setting of this command; did you mean data.text?",
        ),
        ("adapt learner missing.csv --out new", "missing.csv: no such file or folder"),
        ("adapt nothing examples.csv --out new", "Run with id=nothing not found; check tracking.uri and the run"),
        ("adapt learner examples.csv --out new --wrong 0.05", "wrong: 0.05, and the learner was not calibrated"),
        ("adapt learner one.csv --out new", "examples: one class, 'a'; give examples of another class too"),
        ("predict learner examples.csv", "learner: holds no task; make one with `distmeta adapt RUN EXAMPLES"),
        ("predict task missing.csv", "missing.csv: no such file or folder"),
        ("predict task hub:a/b", "TEXTS: hub:a/b; give a file"),
        ("predict task latin.txt", "latin.txt: not UTF-8 (byte 0xE9); save the file as UTF-8"),
        ("predict task examples.csv data.text=body", "no column 'body' among 'text', 'label'"),
        ("predict task examples.csv --format xml", "predict: "),
    ],
)
def test_mistakes_are_one_line(
    here: Path, words: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here / "one.csv", [("topic1", "a"), ("topic2", "a")])
    (here / "latin.txt").write_bytes("café\n".encode("latin-1"))
    assert message in fail(words.split(), capsys, monkeypatch)
    assert not (here / "new").exists()


def test_a_task_predicts_without_ray_and_mlflow(here: Path) -> None:
    code = "import sys\nfrom distmeta import cli\nsys.argv = ['distmeta', 'predict', 'task', 'examples.csv']\n"
    code += "try: cli.main()\nfinally: sys.stderr.write(str({'ray', 'mlflow', 'transformers'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=here, check=True)
    assert result.stderr.endswith("set()"), result.stderr


def test_probabilities_of_classes_have_columns_of_their_own(tmp_path: Path, call: Run) -> None:
    """Also if a class is called like another column."""
    task: Task = untrained(tmp_path, "protonet").adapt(["topic1", "topic2"], ["text", "label"])
    task.save(tmp_path / "task")
    (tmp_path / "new.txt").write_text("topic1\n")
    out, _ = call("predict", str(tmp_path / "task"), str(tmp_path / "new.txt"))
    assert list(table(out)[0]) == ["text", "label", "certainty", "p(label)", "p(text)"]


def test_descriptions_and_texts_without_labels(
    here: Path, call: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "about.csv", [(f"topic{n}", f"class {n}") for n in range(4)])
    write(tmp_path / "more.csv", [[text, "x"] for text in [*NEW, ""]], ("text", "id"))
    files = ["--descriptions", str(tmp_path / "about.csv"), "--unlabelled", str(tmp_path / "more.csv")]
    words = ["adapt", "learner", "examples.csv", "--out"]
    out, err = call(*words, str(tmp_path / "task"), *files, "--json")
    assert "from 12 examples, 4 descriptions, 4 unlabelled in" in err
    assert "more.csv line 6: no text, left out" in err.replace("\n", "")
    counts = {name: json.loads(out)[name] for name in ("examples", "descriptions", "unlabelled")}
    assert counts == {"examples": 12, "descriptions": 4, "unlabelled": 4}
    described = {f"class {n}": f"topic{n}" for n in range(4)}
    expected = distmeta.load("learner").adapt(TEXTS, LABELS, descriptions=described, unlabelled=NEW)
    found = distmeta.load_task(tmp_path / "task")
    assert found.predict_proba(NEW) == pytest.approx(expected.predict_proba(NEW), abs=1e-6)
    call(*words, str(tmp_path / "named"), "--descriptions", "names")
    assert distmeta.load_task(tmp_path / "named").counts["descriptions"] == 4
    write(tmp_path / "about.csv", [("topic1", "class 1"), ("topic 1", "class 1")])
    err = fail([*words, str(tmp_path / "twice"), *files], capsys, monkeypatch)
    assert "about.csv line 3: a second description of 'class 1'; give one of each class" in err


def test_texts_with_several_labels_from_rows_cells_and_lists(here: Path, call: Run, tmp_path: Path) -> None:
    rows = [
        *zip(TEXTS, LABELS, strict=True),
        ("a b", "class 1"),
        ("a b", "class 0"),
        ("c", "class 2 | class 3"),
        ("d", ""),
    ]
    write(tmp_path / "sets.csv", rows)
    out, err = call(
        "adapt", "learner", str(tmp_path / "sets.csv"), "--multi-label", "--out", str(tmp_path / "t"), "--json"
    )
    about = json.loads(out)
    assert "2 of 15 texts have several labels, and 1 have none" in err
    assert f"expect a micro F1 of {about['expected_f1']['micro_f1']:.0%}" in err
    task = distmeta.load_task(tmp_path / "t")
    assert about["thresholds"] == task.limits
    assert [its["label"] for its in task.examples[-3:]] == [["class 0", "class 1"], ["class 2", "class 3"], []]
    write(tmp_path / "new.csv", [[text] for text in NEW], ("text",))
    out, _ = call("predict", str(tmp_path / "t"), str(tmp_path / "new.csv"))
    assert [row["label"] for row in table(out)] == ["|".join(its) for its in task.predict(NEW)]
    out, _ = call("predict", str(tmp_path / "t"), str(tmp_path / "new.csv"), "--format", "jsonl", "--always")
    assert [json.loads(line)["label"] for line in out.splitlines()] == task.predict(NEW, abstain=False)
    lists = [json.dumps({"text": "e", "label": ["class 0", "new"]}), json.dumps({"text": "f", "label": []})]
    (tmp_path / "more.jsonl").write_text("\n".join(lists))
    call("adapt", str(tmp_path / "t"), str(tmp_path / "more.jsonl"))
    assert distmeta.load_task(tmp_path / "t").names == (*task.names, "new")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ({"text": "e", "label": [1.5]}, "the label is 1.5, a float"),
        ({"text": "e", "label": {"a": 1}}, "the label is an object with the keys ['a']"),
        ({"text": " ", "label": ["a"]}, "the text is empty"),
    ],
)
def test_sets_of_labels_that_cannot_be_used(
    here: Path,
    tmp_path: Path,
    line: Any,
    found: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"{json.dumps({'text': 'd', 'label': ['a', 'b']})}\n{json.dumps(line)}\n")
    words = ["adapt", "learner", str(path), "--multi-label", "--out", str(tmp_path / "t")]
    assert f"{path} line 2: {found}" in fail(words, capsys, monkeypatch)
    assert not (tmp_path / "t").exists()
