"""The command that gives a learner or a task a name in MLflow: register."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from distmeta.cli.shared import Json, app, show
from distmeta.errors import printable
from distmeta.report.output import clean_stdout

Registered = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run, a learner, a task of `distmeta adapt`, or models:/NAME@ALIAS."),
]


@app.command()
def register(
    run: Registered,
    name: Annotated[str, typer.Option(help="The name in MLflow's model registry; each time it gets a new version.")],
    alias: Annotated[str | None, typer.Option(help="A name for this version, such as champion.")] = None,
    uri: Annotated[str | None, typer.Option(help="MLflow's store; by default the run's, or the one here.")] = None,
    as_json: Json = False,
) -> None:
    """Register a learner or a task in MLflow: models:/NAME@ALIAS then works wherever RUN does, and MLflow serves it."""
    from distmeta import tracking

    tracking.check_names(name, alias)

    from distmeta.runs.models import registered

    with clean_stdout():
        made = registered(run, name, alias, uri)
    also = f", models:/{name}@{alias}" if alias else ""
    print(f"distmeta: {printable(made.uri + also)}", file=sys.stderr)
    show(made._asdict(), as_json)
