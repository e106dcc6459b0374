"""Commands for MLflow: sync and ui."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from distmeta.cli.shared import app
from distmeta.report.output import clean_stdout


@app.command()
def sync(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The directory of a run or study that has ended.")],
) -> None:
    """Send to MLflow what a run could not send while MLflow did not answer."""
    from distmeta import tracking
    from distmeta.runs import directory

    count = 0
    with clean_stdout():
        for run_dir in directory.within(Path(run)):
            config, about = directory.read(run_dir, [])
            with directory.locked(run_dir, print):
                count += tracking.sync(tracking.resolve_uri(config.tracking.uri), about["mlflow_run_id"], run_dir)
    print(f"distmeta: {count} entries sent" if count else "distmeta: nothing was waiting", file=sys.stderr)


@app.command()
def ui(
    uri: Annotated[str | None, typer.Option(help="MLflow's store; by default the one in this directory.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
) -> None:
    """Open the MLflow UI on the runs, on this machine only."""
    from distmeta import tracking

    address = tracking.resolve_uri(uri)
    tracking.check_store(address)
    command = tracking.ui_command(address, port)
    # The page of training runs. By default MLflow opens a page for traces of language models.
    page = f"http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning"
    print(f"distmeta: the runs are at {page}; Ctrl-C ends", file=sys.stderr)
    raise typer.Exit(tracking.serve(command))
