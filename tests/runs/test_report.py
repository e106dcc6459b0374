"""A report is one page that needs nothing else, shows texts as they are, and says what is missing."""

import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from toy import run, toy_config

from distmeta.cli import main
from distmeta.errors import ConfigError
from distmeta.report.progress import Reporter
from distmeta.runs import answers
from distmeta.runs import train as driver
from distmeta.runs.report import report

HOSTILE = "<script>alert('x')</script> {{7*7}} \"><img src=x onerror=alert(1)>"
SECTIONS = [
    "Results on new tasks",
    "Learning",
    "Adaptation to a new task",
    "Tasks by difficulty",
    "Similarity of tasks",
    "Calibration",
    "Texts of none of the classes",
    "Gradient norms",
    "Settings and hashes",
]
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """The elements and texts of a page; elements must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def of(self, tag: str) -> list[str]:
        return [text for place, text in self.texts if place == tag and text]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs whose labels and texts are hostile."""
    folder = tmp_path_factory.mktemp("report")
    config = toy_config(folder, evaluation__validation_every=2)
    data = folder / "data.csv"
    lines = data.read_text().splitlines()
    hostile = HOSTILE.replace('"', '""')
    data.write_text(
        "\n".join([lines[0], *(re.sub(r"^(.*),(.*)$", rf'"\1","\2 {hostile}"', line) for line in lines[1:])])
    )
    driver.train(config, folder / "first", Reporter())
    run(folder, "second", evaluation__validation_every=2, outer__lr=0.02)
    return folder


def made(*runs: Path, out: Path | None = None) -> tuple[Page, str, dict[str, Any], list[str]]:
    notes: list[str] = []
    result = report([(path.name, path) for path in runs], out, notes.append)
    text = Path(result["file"]).read_text()
    return Page(text), text, result, notes


def test_a_report_is_whole_and_in_mlflow(folder: Path) -> None:
    from mlflow import MlflowClient

    page, _, result, notes = made(folder / "first")
    assert page.of("h3") == SECTIONS
    assert notes == []
    assert result["file"] == str(folder / "first" / "report.html")
    assert result["logged"] is True
    (about,) = result["runs"]
    assert about["run"] == "first"
    assert about["unchecked"] == []
    run_id = json.loads((folder / "first" / "run.json").read_text())["mlflow_run_id"]
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    assert "report.html" in {artifact.path for artifact in client.list_artifacts(run_id)}
    shown = {attrs.get("aria-label", "") for tag, attrs in page.elements if tag == "svg" and attrs.get("role") == "img"}
    for start in ("accuracy by outer step", "loss by", "accuracy on meta-validation", "Score by shots", "Norm of"):
        assert any(name and name.startswith(start) for name in shown), start
    assert any("share of right answers by certainty" in str(name) for name in shown)
    assert not any("missing" in text or "cannot be" in text for text in page.of("p"))


def test_texts_and_labels_are_data(folder: Path) -> None:
    page, text, _, _ = made(folder / "first")
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "img", "link", "iframe", "object"})
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert any(HOSTILE in cell for cell in page.of("td"))
    assert "49" not in re.findall(r"alert\('x'\).{0,40}", text)
    assert re.search(r"\{\{7\*7\}\}", text), "as typed"


def test_nothing_is_fetched(folder: Path) -> None:
    page, text, _, _ = made(folder / "first", folder / "second")
    addresses = [
        v for _, attrs in page.elements for n, v in attrs.items() if n in ("src", "href", "data", "xlink:href")
    ]
    assert addresses
    assert all(address and address.startswith("#") for address in addresses)
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_several_runs_are_compared(folder: Path, tmp_path: Path) -> None:
    page, _, result, _ = made(folder / "first", folder / "second", out=tmp_path / "both.html")
    assert page.of("h2") == ["Runs side by side", "Run first", "Run second"]
    assert page.of("h3")[:2] == ["Paired comparison", "Meta-validation"]
    assert page.of("h3")[2:] == SECTIONS * 2
    assert [run["run"] for run in result["runs"]] == ["first", "second"]
    assert any(
        caption.startswith("Meta-test, ± 95 % interval. Difference: first minus") for caption in page.of("caption")
    )


def test_what_a_run_lacks_is_said(folder: Path, tmp_path: Path) -> None:
    """As a run that was stopped has it, of which MLflow is gone too."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.yaml", "run.json"):
        shutil.copy(folder / "first" / name, bare)
    (bare / "config.yaml").write_text(
        (bare / "config.yaml").read_text().replace(f"{folder}/mlflow.db", f"{tmp_path}/no.db")
    )
    page, _, result, notes = made(bare)
    assert page.of("h3") == SECTIONS, "no section vanishes"
    assert result["logged"] is False
    assert not (tmp_path / "no.db").exists()
    said = " ".join(page.of("p"))
    assert "The run was not evaluated: `distmeta evaluate bare` makes it." in said
    assert "MLflow, which has the figures of the outer steps, could not be read" in said
    assert "no adaptation_curve.json" in said
    assert [note for note in notes if "the page is only in" in note]
    page, *_ = made(folder / "first", bare, out=tmp_path / "both.html")
    assert any("The runs cannot be compared" in text for text in page.of("p"))


def test_figures_of_other_parameters_or_formats_are_not_shown(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder / "first", other)
    for name, change in (("answers.json", {"meta_params_sha256": "x"}), ("adaptation_curve.json", {"format": 9})):
        content = json.loads((other / name).read_text())
        (other / name).write_text(json.dumps({**content, **change}))
    (other / "learner" / "learner.json").write_text("{")
    said = " ".join(made(other)[0].of("p"))
    assert "answers.json is of other meta-parameters than evaluation.json" in said
    assert "is of format 9, and this version of distmeta reads format 1" in said
    assert "learner.json cannot be read" in said
    (other / "evaluation.json").write_text(
        (other / "evaluation.json").read_text().replace('"format": 2', '"format": 1')
    )
    said = " ".join(made(other)[0].of("p"))
    assert "is of format 1, and this version of distmeta reads format 2" in said
    assert "answers.json is of other" not in said, "than which is not known"


def test_a_file_of_something_else_stays(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.html").write_text("years of work")
    with pytest.raises(ConfigError, match=r"thesis\.html exists and is no report of distmeta; name another file"):
        made(folder / "first", out=tmp_path / "thesis.html")
    assert (tmp_path / "thesis.html").read_text() == "years of work"
    with pytest.raises(ConfigError, match="is a folder"):
        made(folder / "first", out=tmp_path)
    with pytest.raises(ConfigError, match="there is no folder"):
        made(folder / "first", out=tmp_path / "no" / "x.html")
    made(folder / "first", out=tmp_path / "again.html")
    made(folder / "first", out=tmp_path / "again.html")


def test_answers_are_those_of_the_episodes(folder: Path) -> None:
    """Their accuracy on the episodes that are kept is that of the scores."""
    kept = json.loads((folder / "first" / "answers.json").read_text())
    for shape in kept["shapes"]:
        title = shape["title"].replace("-", "").replace(" ", "-")
        scores = json.loads((folder / "first" / f"scores-{title}.json").read_text())["scores"]
        manifest = json.loads((folder / "first" / f"manifest-{title}.json").read_text())["episodes"]
        assert shape["left_out"] == 0
        assert len(shape["episodes"]) == 6
        for episode, score, drawn in zip(shape["episodes"], scores, manifest, strict=False):
            pairs = [pair for pair in zip(episode["targets"], episode["answers"], strict=True) if pair[0] >= 0]
            assert sum(target == answer for target, answer in pairs) / len(pairs) == pytest.approx(score)
            assert episode["classes"] == drawn["classes"]
            assert episode["rows"][:6] == [row for rows in drawn["query"] for row in rows]
            assert len(episode["rows"]) == 8, "two of other classes"
        worst = shape["worst"]
        assert all(len(error["text"]) <= 300 for error in worst)
        assert all(error["target"] != error["answer"] for error in worst)
        lines = (folder / "data.csv").read_text().splitlines()[1:]
        error = worst[0]
        assert error["text"].split()[0] in lines[error["row"]] or "[UNK]" in error["text"]


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["distmeta", "report", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_command_prints_findings_and_the_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels that do not change are one that all runs can have."""
    fixed = tmp_path / "fixed"
    shutil.copytree(folder / "first", fixed)
    settings = (fixed / "config.yaml").read_text()
    (fixed / "config.yaml").write_text(settings.replace("label_shuffle: true", "label_shuffle: false"))
    assert command(monkeypatch, str(fixed), str(folder / "second"), "--out", str(tmp_path / "x.html"), "--json") == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert result["file"] == str(tmp_path / "x.html")
    first, second = result["runs"]
    names = [finding["name"] for finding in first["findings"]]
    assert "tasks can be memorised" in names
    assert "tasks can be memorised" not in [finding["name"] for finding in second["findings"]]
    assert "set episodes.label_shuffle=true" in " ".join(shown.err.split())
    assert "Tasks can be memorised." in Page((tmp_path / "x.html").read_text()).of("strong")
    assert command(monkeypatch, str(tmp_path / "nothing")) == 2
    assert command(monkeypatch, str(folder)) == 2


def test_what_is_kept_of_answers_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 6 episodes has 6 queries and two texts of other classes."""
    monkeypatch.setattr(answers, "MOST", 20)
    monkeypatch.setattr(answers, "LETTERS", 12)
    run(tmp_path, "short", outer__steps=1)
    for shape in json.loads((tmp_path / "short" / "answers.json").read_text())["shapes"]:
        assert [len(episode["answers"]) for episode in shape["episodes"]] == [8, 8]
        assert shape["left_out"] == 4
        assert shape["worst"]
        assert max(error["episode"] for error in shape["worst"]) <= 1
        assert all(len(error["text"]) <= 12 for error in shape["worst"])
    page, *_ = made(tmp_path / "short")
    assert any("in 2 episodes; 4 episodes are left out" in caption for caption in page.of("caption"))


@pytest.mark.slow
def test_runs_of_several_families_and_of_another_kind(tmp_path: Path) -> None:
    """The score of meta-validation is the families' mean; charts in % are of shares."""
    from tasks.test_mixed import config_of

    driver.train(config_of(tmp_path), tmp_path / "mixed", Reporter())
    curves = {"data": {"kind": "sinusoid"}, "model": {"name": "dense"}, "episodes": {"shots": 2, "queries": 2}}
    run(tmp_path, "curves", evaluation__validation_every=2, **curves)
    page, _, result, _ = made(tmp_path / "mixed", tmp_path / "curves")
    mixed = result["runs"][0]
    assert not [each for each in mixed["unchecked"] if "fewer than two meta-validations" in each]
    shown = [attrs.get("aria-label") or "" for tag, attrs in page.elements if tag == "svg"]
    assert any(name.startswith("mean_score on meta-validation tasks") for name in shown), shown
    assert "outer step, exact in %" in ", ".join(page.of("th"))
    assert any("Without figures of meta_validation/mean_score: curves." in each for each in page.of("p"))
    assert any("The runs cannot be compared. curves: was evaluated on other episodes" in each for each in page.of("p"))
    assert "mean_score" in page.of("th")
