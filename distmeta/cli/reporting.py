"""Commands that explain a run: report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distmeta.cli.shared import Json, app, show
from distmeta.report.output import clean_stdout


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run directories or MLflow run ids.")],
    out: Annotated[
        str | None,
        typer.Option(metavar="FILE.html", help="The file to write; by default report.html in the first run."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one HTML page on runs: curves, hard tasks, trust, comparison, and what seems wrong."""
    from distmeta.report.progress import Reporter
    from distmeta.runs.directory import resolve
    from distmeta.runs.report import report as write

    with clean_stdout(), Reporter() as reporter:
        result = write([(name, resolve(name)) for name in runs], Path(out) if out else None, reporter.note)
        for run in result["runs"]:
            for finding in run["findings"]:
                reporter.note(f"{run['run']}: {finding['name']}: {finding['found']}; {finding['remedy']}")
        reporter.note(f"the report is in {result['file']}")
    show(result, as_json)
