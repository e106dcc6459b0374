"""The command that hands a task to other programs: export."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from distmeta.cli.shared import Json, app, require_place, show
from distmeta.errors import CheckpointError, printable
from distmeta.report.output import clean_stdout


class Form(StrEnum):
    """The forms of an exported task."""

    HF = "hf"
    ONNX = "onnx"


@app.command()
def export(
    task: Annotated[str, typer.Argument(metavar="TASK", help="The folder of a task, from `distmeta adapt`.")],
    form: Annotated[Form, typer.Option("--format", help="hf: a folder for transformers. onnx: for onnxruntime.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder to make.")],
    as_json: Json = False,
) -> None:
    """Export a task as a folder that transformers or onnxruntime use without distmeta."""
    if out.exists():
        raise CheckpointError(str(out), "exists", "name another folder")
    require_place(out)

    from distmeta.use.export.write import export as write
    from distmeta.use.saved import load_task

    with clean_stdout():
        difference = write(load_task(task), out, form.value)
    print(
        f"distmeta: {printable(str(out))} is written; it gives the task's probabilities to {max(difference, 1e-9):.0e}",
        file=sys.stderr,
    )
    show({"folder": str(out), "format": form.value, "largest_difference": difference}, as_json)
