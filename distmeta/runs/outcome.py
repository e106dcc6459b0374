"""What comes of meta-test: the learner, evaluation.json, figures and tables, each written or shown and logged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distmeta.engine.server import staleness
from distmeta.report import figures, scores
from distmeta.report.statistics import mean_ci95
from distmeta.report.tables import markdown_table, table_rows, table_title, trust_columns, trust_rows, trust_title
from distmeta.runs import directory
from distmeta.runs.models import log_model
from distmeta.runs.session import OpenRun
from distmeta.types import ServerState
from distmeta.use import learner


def keep_learner(opened: OpenRun, trained: learner.Learner) -> None:
    """Writes RUN/learner, and logs it as the run's model."""
    folder = opened.run_dir / learner.FOLDER
    trained.save(folder)
    if opened.experiment.config.tracking.log_model:
        log_model(opened.tracker, folder, trained, opened.reporter.note)


def keep_result(opened: OpenRun, result: dict[str, Any]) -> None:
    """Writes evaluation.json, and logs it and the figures of its rows."""
    path = opened.run_dir / "evaluation.json"
    directory.write_json(path, result)
    opened.tracker.log_artifact(path)
    for row in result["meta_test"]:
        figure = row["score"]["name"]
        name = f"meta_test/{figure}_{scores.slug(row['title']).replace('-', '_')}"
        trust = {f"{name}_{what}": pair[0] for what, pair in row.get("trust", {}).items() if what != "claim"}
        logged = {name: row[figure], f"{name}_ci95": row["ci95"], **trust}
        opened.tracker.log(result["outer_steps"], logged, again=True)


def draw_figures(opened: OpenRun, state: ServerState, curves: Mapping[str, Any]) -> None:
    """Draws and logs the ages of gradients, if any were old, and the adaptation curves (see `adaptation_curve`)."""
    experiment, run_dir = opened.experiment, opened.run_dir

    def draw() -> Iterator[Path]:
        if ages := staleness(state):
            figures.staleness(ages, path := run_dir / "staleness.png")
            yield path
        if curves:
            steps = range(experiment.config.evaluation.curve_steps + 1)
            points = {name: [*map(mean_ci95, its)] for name, its in curves.items()}
            curve = {name: ([m for m, _ in its], [half for _, half in its]) for name, its in points.items()}
            figures.adaptation_curve(steps, curve, experiment.score, path := run_dir / "adaptation_curve.png")
            yield path

    for path in figures.attempt(opened.reporter.note, draw):
        opened.tracker.log_artifact(path)


def show_result(opened: OpenRun, rows: Sequence[dict[str, Any]]) -> None:
    """Shows the tables of meta-test, and makes the first one the run's description in MLflow."""
    config, score, reporter = opened.experiment.config, opened.experiment.score, opened.reporter
    title = table_title(score, f" on {config.evaluation.episodes} episodes", "the meta-trained learner's")
    table = [("episodes", "learner", score.name, "difference"), *table_rows(rows)]
    reporter.table(title, table[0], table[1:])
    if trusted := trust_rows(rows):
        reporter.table(trust_title(rows), trust_columns(rows), trusted)
    opened.tracker.describe(f"{title}\n\n{markdown_table(table[0], table[1:])}")
    reporter.note(f"results are in {opened.run_dir}; `distmeta ui` shows the run in MLflow")
