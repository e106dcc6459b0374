"""Gathers what is known of runs, and writes a report on them as one HTML page.

Reads the files of runs and their metrics in MLflow. The page says which of them are missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distmeta import tracking
from distmeta.config.places import barrier
from distmeta.errors import CheckpointError, ConfigError, TrackingError
from distmeta.report import scores
from distmeta.report.compare import paired_scores, rows_of
from distmeta.report.detectors import detect
from distmeta.report.page import Chapter, Section, Table, is_ours, render
from distmeta.report.sections import all_sections, curves
from distmeta.report.sources import Read, RunFigures, evidence
from distmeta.runs import answers, directory
from distmeta.storage import parse_object, require_format
from distmeta.use import learner

PAGE = "report.html"
METRICS = ("meta_train/", "meta_validation/", "outer/")

Note = Callable[[str], None]


def report(runs: Sequence[tuple[str, Path]], out: Path | None, note: Note) -> dict[str, Any]:
    """Writes the page, and adds it to the first run in MLflow.

    Args:
        runs: name and directory of each run.
        out: the file; none: report.html in the first run's directory.
        note: is called with what could not be read or sent.

    Returns:
        The figures that ``--json`` prints: the `file`, whether MLflow has it (`logged`), and for each run the
        `findings` of the detectors and what they could not look for (`unchecked`).

    Raises:
        UserError: not a run's directory, or the page cannot be written.
    """
    path = out or runs[0][1] / PAGE
    _require_place(path)
    gathered = [gather(name, run_dir) for name, run_dir in runs]
    found = [detect(evidence(its)) for its in gathered]
    chapters = [
        Chapter(f"Run {its.name}", all_sections(its), findings, unchecked)
        for its, (findings, unchecked) in zip(gathered, found, strict=True)
    ]
    if len(runs) > 1:
        chapters.insert(0, Chapter("Runs side by side", [_comparison(runs), _validations(gathered)]))
    names = ", ".join(name for name, _ in runs)
    subtitle = "Figures are of the runs' own files and of MLflow; ± is half of a 95 % interval."
    _write(path, render(f"Report on {names}", subtitle, chapters))
    for its in gathered:
        if not its.metrics:
            note(its.metrics.missing)
    result = [
        {"run": its.name, "findings": [finding._asdict() for finding in findings], "unchecked": unchecked}
        for its, (findings, unchecked) in zip(gathered, found, strict=True)
    ]
    return {"file": str(path), "logged": _attach(gathered[0], path, note), "runs": result}


def gather(name: str, run_dir: Path) -> RunFigures:
    """Reads all that is known of a run.

    Raises:
        CheckpointError: not a run's directory.
    """
    config, run = directory.read(run_dir, [])
    again = f"`distmeta evaluate {name}` makes it"
    evaluation = _read(run_dir / "evaluation.json", f"The run was not evaluated: {again}.", directory.EVALUATION_FORMAT)
    digest = evaluation.content["meta_params_sha256"] if evaluation else None

    def beside(file: str, what: str) -> Read:
        missing = f"The run has no {file}, from which {what} would be shown: {again}."
        read = _read(run_dir / file, missing, answers.FORMAT)
        if read and evaluation and read.content["meta_params_sha256"] != digest:
            return Read(missing=f"{file} is of other meta-parameters than evaluation.json: {again} anew.")
        return read

    try:
        scored = Read(scores.read(name, run_dir))
    except CheckpointError as error:
        scored = Read(missing=f"{error}.")
    return RunFigures(
        name,
        config,
        tracking.flatten(config.model_dump(mode="json", by_alias=True)),
        run,
        evaluation,
        scored,
        _manifests(run_dir, scored),
        beside(answers.ANSWERS, "single answers"),
        beside(answers.CURVE, "the adaptation curve"),
        _read(run_dir / learner.FOLDER / learner.DOCUMENT, f"The run holds no learner: {again}.", learner.FORMAT),
        _metrics(config.tracking.uri, run),
    )


def _read(path: Path, missing: str, known: int) -> Read:
    """A JSON file of a run, of a format that is known."""
    if not path.exists():
        return Read(missing=missing)
    try:
        content = parse_object(path.read_text(encoding="utf-8"))
        require_format(content, path, known, remedy="evaluate the run again")
    except CheckpointError as error:
        return Read(missing=f"{error}.")
    except (OSError, ValueError) as error:
        return Read(missing=f"{path.name} cannot be read ({error}): evaluate the run again.")
    return Read(content)


def _manifests(run_dir: Path, scored: Read) -> dict[str, Any]:
    """The manifests that belong to scores, by title."""
    found = {}
    for content in scored.content.values() if scored else ():
        path = run_dir / f"manifest-{scores.slug(content['title'])}.json"
        if path.exists():
            found[content["title"]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _metrics(uri: str | None, run: dict[str, Any]) -> Read:
    if not run.get("mlflow_run_id"):
        return Read(missing="The run is not in MLflow, which has the figures of its outer steps.")
    try:
        return Read(tracking.histories(tracking.resolve_uri(uri), run["mlflow_run_id"], METRICS))
    except TrackingError as error:
        return Read(missing=f"MLflow, which has the figures of the outer steps, could not be read: {error}.")


def _comparison(runs: Sequence[tuple[str, Path]]) -> Section:
    title = "Paired comparison"
    try:
        results = paired_scores(runs)
    except CheckpointError as error:
        return Section(title, [f"The runs cannot be compared. {error}."])
    score = results[0]["score"]["name"]
    caption = f"Meta-test, ± 95 % interval. Difference: {runs[0][0]} minus the row's, paired by episode"
    return Section(title, [Table(caption, ("episodes", "run", score, "difference"), rows_of(results))])


def _validations(gathered: Sequence[RunFigures]) -> Section:
    """Meta-validation of all runs in one chart."""
    title, score, lines = "Meta-validation", gathered[0].score, {}
    for its in gathered:
        name = f"meta_validation/{score.name}"
        halves = dict(its.history(f"{name}_ci95"))
        if points := its.history(name):
            lines[its.name] = [(step, value, halves.get(step)) for step, value in points]
    if not lines:
        return Section(title, [f"No run has figures of meta_validation/{score.name}."])
    without = [its.name for its in gathered if its.name not in lines]
    missing = [f"Without figures of meta_validation/{score.name}: {', '.join(without)}."] if without else []
    return Section(title, [curves(f"{score.name} on meta-validation tasks", lines, score, "outer step"), *missing])


def _require_place(path: Path) -> None:
    """Raises a `ConfigError` if the page cannot be written, or would replace what is no report."""
    if path.is_dir():
        raise ConfigError("--out", f"{path} is a folder", f"name a file, such as {path / PAGE}")
    if not path.parent.is_dir():
        raise ConfigError("--out", f"there is no folder {path.parent}", "make it, or name another place")
    if barrier(path.parent):
        raise ConfigError("--out", f"{path.parent} cannot be written to", "name another place with --out FILE.html")
    if path.exists() and not is_ours(path):
        raise ConfigError("--out", f"{path} exists and is no report of distmeta", "name another file")


def _write(path: Path, page: str) -> None:
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(page, encoding="utf-8")
    aside.replace(path)


def _attach(its: RunFigures, path: Path, note: Note) -> bool:
    if not its.run.get("mlflow_run_id"):
        note(f"{its.name} is not in MLflow, so the page is only in {path}")
        return False
    try:
        tracking.attach(tracking.resolve_uri(its.config.tracking.uri), its.run["mlflow_run_id"], path, note)
    except TrackingError as error:
        note(f"the page is only in {path}: {error}")
        return False
    return True
