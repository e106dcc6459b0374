"""What commands share: the application, kinds of arguments, and how a result is shown."""

from __future__ import annotations

import contextlib
import json
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

import distmeta
from distmeta.errors import REFUSALS, ConfigError, printable

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=distmeta.__doc__)

Config = Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, such as jobs/quickstart.yaml.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run directory, an MLflow run id, or models:/NAME@ALIAS.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings such as outer.steps=50.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


@contextlib.contextmanager
def resumable(run_dir: Path, command: str = "train") -> Iterator[None]:
    """Prints after Ctrl-C how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        how = f"go on with `distmeta {command} --resume {run_dir}`" if run_dir.exists() else "nothing had been started"
        print(f"distmeta: interrupted; {printable(how)}", file=sys.stderr)
        raise typer.Exit(getattr(error, "code", 130)) from None


def show(result: dict[str, Any], as_json: bool) -> None:
    """Prints a result, if it is asked for."""
    if as_json:
        print(json.dumps(result))


def require_place(out: Path) -> None:
    """Raises a `ConfigError` if what `--out` names cannot be made, before any work for it."""
    from distmeta.config.places import barrier

    if closed := barrier(out.parent):
        raise ConfigError("--out", f"{closed} cannot be written to", "name another place")


@contextlib.contextmanager
def output(out: str | None) -> Iterator[TextIO]:
    """Where predictions go: stdout, or a file that is there when all is written.

    Raises:
        ConfigError: the file cannot be written.
    """
    if out is None:
        yield sys.stdout
        return
    path = Path(out)
    aside = path if path.exists() and not path.is_file() else path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w", encoding="utf-8", newline="") as file:
            yield file
        aside.replace(path)
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        raise ConfigError("--out", f"{out} cannot be written ({error.strerror})", REFUSALS[error.errno]) from error
    finally:
        if aside != path:
            aside.unlink(missing_ok=True)


def require_file(out: str | None) -> None:
    """Raises a `ConfigError` if `--out` names a folder, or a file that cannot be made."""
    if out is not None:
        if Path(out).is_dir():
            raise ConfigError("--out", f"{out} is a folder", "name a file")
        require_place(Path(out))
