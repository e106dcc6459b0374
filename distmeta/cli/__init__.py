"""The command line. Nothing heavy is imported before a command runs.

Progress and tables go to stderr; with ``--json`` exactly one JSON object goes to stdout. A user's mistake is one
line and exit code 2; training that cannot go on exits with 1, Ctrl-C with 130.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import typer

from distmeta.cli.shared import app
from distmeta.errors import ConfigError, TrainingError, UserError, printable, refusals, usage_error
from distmeta.report.output import outlets

# They add their commands, in the order of this list.
# isort: split
from distmeta.cli import training  # noqa: F401

# isort: split
from distmeta.cli import using  # noqa: F401

# isort: split
from distmeta.cli import exporting, registering, reporting, serving  # noqa: F401

# isort: split
from distmeta.cli import watching  # noqa: F401

__all__ = ["app", "main"]


def _require_folders() -> None:
    """Refuses a working directory that was deleted. Gives a user without a home folder another one, with a remark."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise ConfigError("working directory", "was deleted", "change to another, such as `cd ~`") from error
    if not os.environ.get("HOME"):
        from distmeta.config.places import provide_home

        provide_home(lambda remark: print(f"distmeta: {printable(remark)}", file=sys.stderr))


def main() -> None:
    """Entry point: prints an error that a user can fix as one line."""
    usage: Any = typer.BadParameter.__mro__[1]  # Click's UsageError; Typer may have a copy of Click
    with outlets():
        try:
            _require_folders()
            with refusals():
                sys.exit(app(prog_name="distmeta", standalone_mode=len(sys.argv) < 2) or 0)  # alone it shows the help
        except (UserError, TrainingError, usage) as error:
            from distmeta.tracking import mask

            line = str(usage_error(error) if isinstance(error, usage) else error)
            print(f"distmeta: {printable(mask(line))}", file=sys.stderr)
            sys.exit(1 if isinstance(error, TrainingError) else 2)
