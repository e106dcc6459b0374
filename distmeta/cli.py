"""The command line. Nothing heavy is imported before a command runs.

Progress and tables go to stderr; with ``--json`` exactly one JSON object goes to stdout. A user's mistake is one
line and exit code 2; training that cannot go on exits with 1, Ctrl-C with 130.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

import distmeta
from distmeta.errors import ConfigError, TrainingError, UserError, printable, refusals, usage_error
from distmeta.report.output import clean_stdout, outlets

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=distmeta.__doc__)

Config = Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, such as jobs/quickstart.yaml.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run directory or an MLflow run id.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings such as outer.steps=50.")
]
Step = Annotated[int | None, typer.Option(min=0, help="The outer step of the checkpoint; by default the newest.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


@app.command()
def train(
    config: Annotated[str | None, typer.Argument(metavar="CONFIG", help="A YAML file; optional with --resume.")] = None,
    overrides: Overrides = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with a run from its last checkpoint.")
    ] = None,
    step: Step = None,
    as_json: Json = False,
) -> None:
    """Meta-train, then evaluate on meta-test."""
    from distmeta.config.load import default_run_dir, load_config

    settings, given = list(overrides or []), None  # they are checked before slow imports
    if resume is not None:
        from distmeta.runs.directory import read, resolve

        if config and "=" in config:
            settings.insert(0, config)
        elif config:
            given = load_config(config, settings)
        run_dir = resolve(resume, settings)
        if settings and given is None:
            read(run_dir, settings)
    elif step is not None:
        raise ConfigError("--step", "names a checkpoint to go on from", "give --resume RUN too")
    elif config is None:
        raise ConfigError("CONFIG", "missing", "give a YAML file such as jobs/quickstart.yaml, or --resume RUN")
    else:
        given = load_config(config, settings)
        run_dir = Path(given.run_dir) if given.run_dir else default_run_dir(config)

    from distmeta.report.progress import Reporter
    from distmeta.runs import train as driver
    from distmeta.runs.settings import fitting

    with _resumable(run_dir), clean_stdout(), Reporter() as reporter:
        given = given and fitting(given, reporter.note)
        if resume is not None:
            result = driver.resume(run_dir, settings, reporter, given, step)
        else:
            assert given is not None
            result = driver.train(given, run_dir, reporter)
    _print(result, as_json)


@app.command()
def evaluate(run: Run, overrides: Overrides = None, step: Step = None, as_json: Json = False) -> None:
    """Evaluate a run's checkpoint, the newest or that of --step, on its fixed meta-test episodes."""
    from distmeta.runs.directory import read, resolve

    settings = overrides or []
    run_dir = resolve(run, settings)
    if settings:
        read(run_dir, settings)

    from distmeta.report.progress import Reporter
    from distmeta.runs import train as driver

    with clean_stdout(), Reporter() as reporter:
        result = driver.evaluate(run_dir, settings, reporter, step)
    _print(result, as_json)


@app.command()
def compare(
    run: Run,
    others: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs to compare it with.")],
    as_json: Json = False,
) -> None:
    """Show a run's lead over other runs on the same meta-test episodes."""
    from distmeta.report.compare import compare as beside
    from distmeta.report.progress import Reporter
    from distmeta.runs.directory import resolve

    with Reporter() as reporter:
        _print(beside([(name, resolve(name)) for name in [run, *others]], reporter), as_json)


@app.command()
def check(config: Config, overrides: Overrides = None, as_json: Json = False) -> None:
    """Validate a configuration, load its data and model, and show the plan. Starts nothing."""
    from distmeta.config.load import load_config

    content = load_config(config, overrides or [])

    from distmeta.report.progress import Reporter
    from distmeta.runs.check import check as inspect
    from distmeta.runs.settings import fitting

    with clean_stdout(), Reporter() as reporter:
        content = fitting(content, reporter.note)
        result = inspect(content, reporter)
        if content.tune:
            from distmeta.tune.check import check as inspect_study

            space, score = inspect_study(content, reporter)
            result["study"] = {"trials": space.trials, "keys": list(space.dimensions), "score": score.name}
            reporter.note(f"study: up to {space.trials} trials, by meta-validation {score.name}")
    _print(result, as_json)


@app.command()
def tune(
    config: Annotated[str | None, typer.Argument(metavar="CONFIG", help="A YAML file with a section `tune`.")] = None,
    overrides: Overrides = None,
    resume: Annotated[
        str | None, typer.Option(metavar="STUDY", help="Go on with a study that was stopped, given by its directory.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Search for better settings, then evaluate the best ones and those of the file on meta-test."""
    from distmeta.config.load import default_run_dir, load_config

    if resume is not None:
        if config is not None:
            raise ConfigError("--resume", "uses the settings of the study", "leave out CONFIG and settings")
        folder = Path(resume)
    elif config is None:
        raise ConfigError("CONFIG", "missing", "give a YAML file such as jobs/tune_attack.yaml, or --resume STUDY")
    else:
        content = load_config(config, overrides or [])
        folder = Path(content.run_dir) if content.run_dir else default_run_dir(config)

    from distmeta.report.progress import Reporter
    from distmeta.runs.settings import fitting as fit
    from distmeta.tune import study

    with _resumable(folder, "tune"), clean_stdout(), Reporter() as shown:
        result = study.resume(folder, shown) if resume else study.start(fit(content, shown.note), folder, shown)
    _print(result, as_json)


@app.command()
def submit(
    config: Config,
    address: Annotated[str, typer.Option(help="The address of Ray's dashboard, such as http://head:8265.")],
    overrides: Overrides = None,
) -> None:
    """Run a configuration as a job on a Ray cluster, and follow its log."""
    from distmeta.backends import submit as job

    command = job.train_command(config, overrides or [], Path.cwd())
    raise typer.Exit(job.submit(address, command, Path.cwd()))


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


@contextlib.contextmanager
def _resumable(run_dir: Path, command: str = "train") -> Iterator[None]:
    """Prints after Ctrl-C how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        how = f"go on with `distmeta {command} --resume {run_dir}`" if run_dir.exists() else "nothing had been started"
        print(f"distmeta: interrupted; {printable(how)}", file=sys.stderr)
        raise typer.Exit(getattr(error, "code", 130)) from None


def _print(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))


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


if __name__ == "__main__":
    main()
