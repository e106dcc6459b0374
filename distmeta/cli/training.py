"""Commands of a run's life: train, evaluate, compare, check, tune, submit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distmeta.cli.shared import Config, Json, Overrides, Run, app, resumable, show
from distmeta.errors import ConfigError
from distmeta.report.output import clean_stdout

Step = Annotated[int | None, typer.Option(min=0, help="The outer step of the checkpoint; by default the newest.")]


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

    with resumable(run_dir), clean_stdout(), Reporter() as reporter:
        given = given and fitting(given, reporter.note)
        if resume is not None:
            result = driver.resume(run_dir, settings, reporter, given, step)
        else:
            assert given is not None
            result = driver.train(given, run_dir, reporter)
    show(result, as_json)


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
    show(result, as_json)


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
        show(beside([(name, resolve(name)) for name in [run, *others]], reporter), as_json)


@app.command()
def check(
    config: Config,
    overrides: Overrides = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Run one unit, and say how long and how much memory the run will take.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Validate a configuration, load its data and model, and show the plan. Starts no run."""
    from distmeta.config.load import load_config

    content = load_config(config, overrides or [])

    from distmeta.report.progress import Reporter
    from distmeta.runs.check import check as inspect
    from distmeta.runs.settings import fitting

    with clean_stdout(), Reporter() as reporter:
        content = fitting(content, reporter.note)
        result = inspect(content, reporter, measure)
        if content.tune:
            from distmeta.tune.check import check as inspect_study

            space, score = inspect_study(content, reporter)
            result["study"] = {"trials": space.trials, "keys": list(space.dimensions), "score": score.name}
            reporter.note(f"study: up to {space.trials} trials, by meta-validation {score.name}")
    show(result, as_json)


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

    with resumable(folder, "tune"), clean_stdout(), Reporter() as shown:
        result = study.resume(folder, shown) if resume else study.start(fit(content, shown.note), folder, shown)
    show(result, as_json)


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
