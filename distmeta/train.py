"""The driver: advance, evaluate, checkpoint, log. The only outer loop there is, whatever the backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distmeta import checkpoint, figures, runs, tracking
from distmeta.arrivals import Arrivals, stored
from distmeta.backends import Coordination, open_backend
from distmeta.backends.resources import preflight
from distmeta.config import RunConfig
from distmeta.errors import CheckpointError
from distmeta.evaluate import adaptation_curve, meta_test, meta_validation, table_rows, table_title
from distmeta.experiment import Experiment, build_experiment
from distmeta.params import sha256
from distmeta.progress import Reporter
from distmeta.server import staleness
from distmeta.stop import Stopper, stopper
from distmeta.tracking import Tracker
from distmeta.types import ServerState

REPORT_SECONDS = 0.5  # of training between two reports to the driver


@dataclass(frozen=True)
class OpenRun:
    """A run in progress: it has its workers, its directory and its MLflow run."""

    experiment: Experiment
    coordination: Coordination
    tracker: Tracker
    run_dir: Path
    reporter: Reporter
    asked: Stopper


def train(config: RunConfig, run_dir: Path, reporter: Reporter) -> dict[str, Any]:
    """Meta-trains from the start, then evaluates on meta-test.

    Returns:
        The figures that ``--json`` prints.

    Raises:
        UserError: before anything is written.
    """
    runs.require_new(run_dir)
    with _open(runs.absolute(config), run_dir, reporter) as opened:
        return _train_and_test(opened, 0)


def resume(
    run_dir: Path, overrides: list[str], reporter: Reporter, given: RunConfig | None = None, step: int | None = None
) -> dict[str, Any]:
    """Goes on from a run's checkpoint; the result is that of a run that was never stopped.

    Args:
        run_dir: the run.
        overrides: settings that do not change the result.
        reporter: where progress is shown.
        given: a configuration to use instead of the run's own; refused unless it decides on the same result.
        step: of the checkpoint; none: the newest.
    """
    config, run = runs.read(run_dir, [] if given else overrides)
    config = runs.absolute(given) if given else config
    state, identity = checkpoint.load(run_dir, step)
    with _open(config, run_dir, reporter, run["mlflow_run_id"], identity) as opened:
        opened.coordination.load(state)
        reporter.note(f"going on from outer step {state.counters['version']}")
        return _train_and_test(opened, state.counters["version"], is_kept=True)


def evaluate(run_dir: Path, overrides: list[str], reporter: Reporter, step: int | None = None) -> dict[str, Any]:
    """Evaluates a run's checkpoint, the newest or that of a step, on meta-test."""
    config, run = runs.read(run_dir, overrides)
    state, identity = checkpoint.load(run_dir, step)
    with _open(config, run_dir, reporter, run["mlflow_run_id"], identity) as opened:
        opened.coordination.load(state)
        return _test(opened, stored(run_dir))


@contextmanager
def _open(
    config: RunConfig,
    run_dir: Path,
    reporter: Reporter,
    mlflow_run_id: str | None = None,
    identity: dict[str, str] | None = None,
) -> Iterator[OpenRun]:
    """Builds everything in the order in which it can fail; a run's directory is made when nothing else is in doubt."""
    uri = tracking.resolve_uri(config.tracking.uri)
    tracking.check_store(uri)
    preflight(config.cluster)
    experiment = build_experiment(config)
    for name, expected in (identity or {}).items():
        if experiment.identity[name] != expected:
            raise CheckpointError(
                str(run_dir),
                f"was made with other {name.replace('_', ' ')}",
                "restore it, or start a new run",
            )
    reporter.note(describe(experiment))
    with stopper() as asked, open_backend(config.cluster) as backend:
        asked.listen()  # Ray has set handlers of its own
        coordination = backend.start(experiment.setup, reporter.note)
        tracker = Tracker.start(
            uri,
            config.tracking.experiment,
            run_dir.name,
            config.model_dump(mode="json"),
            run_dir,
            run_id=mlflow_run_id,
            note=reporter.note,
        )
        status: Literal["FINISHED", "FAILED", "KILLED"] = "FAILED"
        try:
            if mlflow_run_id is None:
                tokenizer = experiment.tokenizer and experiment.tokenizer.to_str()
                runs.create(run_dir, config, tokenizer)
                runs.write_json(run_dir / runs.RUN, {"mlflow_uri": tracking.mask(uri), "mlflow_run_id": tracker.run_id})
                tracker.log_artifact(run_dir / runs.CONFIG)
            yield OpenRun(experiment, coordination, tracker, run_dir, reporter, asked)
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            tracker.finish(status)


def _train_and_test(opened: OpenRun, done: int, is_kept: bool = False) -> dict[str, Any]:
    config, coordination = opened.experiment.config, opened.coordination
    arrivals = None
    if config.stream.steps_per_task:
        arrivals = Arrivals(opened.experiment, coordination, opened.run_dir, opened.tracker, done)
    try:
        _train(opened, arrivals, done, is_kept)
    except KeyboardInterrupt:
        _abandon(opened)
        raise
    return _test(opened, arrivals.finish(config.outer.steps) if arrivals else None)


def _train(opened: OpenRun, arrivals: Arrivals | None, done: int, is_kept: bool) -> None:
    """Goes on from outer step `done`, of which there is a checkpoint if `is_kept`.

    There is one of the start too: before any work it shows whether they can be written.
    """
    config, coordination, seconds = opened.experiment.config, opened.coordination, REPORT_SECONDS
    total, keep_every, validate_every = config.outer.steps, config.checkpoint.every, config.evaluation.validation_every
    every = (keep_every, validate_every, config.stream.steps_per_task)
    if not is_kept:
        _save(opened, coordination.state())
    while True:
        opened.asked.check()
        if done and validate_every and done % validate_every == 0:
            _validate(opened, done)
        if done >= total:  # more than it is now to take, where it goes on with another number
            return
        if arrivals and done % config.stream.steps_per_task == 0:
            arrivals.arrive(done // config.stream.steps_per_task, done)
        stop = min([total, *(done - done % n + n for n in every if n)])
        for report in coordination.advance(min(stop - done, max(1, int(REPORT_SECONDS / seconds)))):
            done, seconds = report.outer_step, report.metrics["time/step_seconds"]
            opened.tracker.log(done, report.metrics)
            opened.reporter.step(report, total)
        if done == total or (keep_every and done % keep_every == 0):
            _save(opened, coordination.state())


def _validate(opened: OpenRun, done: int) -> None:
    """Meta-validation, unless a run that goes on from here has it already."""
    score = opened.experiment.model.task.score
    if opened.tracker.last_step(f"meta_validation/{score.name}") >= done:
        return
    validation = meta_validation(opened.experiment, opened.coordination)
    opened.tracker.log(done, validation)
    opened.reporter.validation(done, validation, score)


def _abandon(opened: OpenRun) -> None:
    """Keeps how far an interrupted run has come, if that can be told."""
    if halted := opened.coordination.halt():
        state, reports = halted
        for report in reports:  # those that were logged already are not logged again
            opened.tracker.log(report.outer_step, report.metrics)
        _save(opened, state)


def _save(opened: OpenRun, state: ServerState) -> None:
    # What is in MLflow must never be behind the checkpoint: a resumed run does not log earlier steps again.
    opened.tracker.flush()
    keep = opened.experiment.config.checkpoint.keep
    checkpoint.save(opened.run_dir, state, opened.experiment.identity, keep)


def _test(opened: OpenRun, stream: dict[str, Any] | None) -> dict[str, Any]:
    experiment, coordination, tracker = opened.experiment, opened.coordination, opened.tracker
    progress: Callable[[str, int, int], None] = opened.reporter.episodes
    state, score = coordination.state(), experiment.model.task.score
    steps = state.counters["version"]
    rows = meta_test(experiment, coordination, opened.run_dir, progress)
    result = {
        "run_dir": str(opened.run_dir),
        "mlflow_run_id": tracker.run_id,
        "outer_steps": steps,
        "meta_params_sha256": sha256(np.asarray(state.arrays["meta_params"])),
        "meta_test": rows,
    }
    if stream is not None:
        result["stream"] = stream
    runs.write_json(opened.run_dir / "evaluation.json", result)
    tracker.log_artifact(opened.run_dir / "evaluation.json")
    for row in rows:
        name = f"meta_test/{score.name}_{row['ways']}way_{row['shots']}shot"
        tracker.log(steps, {name: row[score.name], f"{name}_ci95": row["ci95"]}, again=True)
        for kind in ("manifest", "scores"):
            tracker.log_artifact(opened.run_dir / f"{kind}-{row['ways']}way-{row['shots']}shot.json")
    if ages := staleness(state):
        figures.staleness(ages, opened.run_dir / "staleness.png")
        tracker.log_artifact(opened.run_dir / "staleness.png")
    if curve := adaptation_curve(experiment, coordination, progress, opened.reporter.note):
        path = opened.run_dir / "adaptation_curve.png"
        figures.adaptation_curve(range(experiment.config.evaluation.curve_steps + 1), curve, score, path)
        tracker.log_artifact(path)
    title = table_title(score, f" on {experiment.config.evaluation.episodes} episodes", "the meta-trained learner's")
    table = [("episodes", "learner", score.name, "difference"), *table_rows(rows, score)]
    opened.reporter.table(title, table[0], table[1:])
    lines = [table[0], ("---",) * 4, *table[1:]]
    tracker.describe("\n".join([title, "", *(f"| {' | '.join(line)} |" for line in lines)]))
    opened.reporter.note(f"kept in {opened.run_dir}; `distmeta ui` shows the run in MLflow")
    return result


def describe(experiment: Experiment) -> str:
    """A run in a line: data, model, what is adapted, where."""
    config, layout = experiment.config, experiment.setup.layout
    classes = " / ".join(str(len(split.classes)) for split in experiment.splits.values())
    data = f"{classes} classes" if experiment.setup.task.has_classes else f"{config.data.kind} tasks"
    where = f"{config.cluster.workers} Ray workers" if config.cluster.backend == "ray" else "this process"
    return (
        f"{config.algorithm.name} on {config.model.name}: {layout.size:,} meta-parameters; "
        f"{data} to meta-train / -validate / -test on; {where}"
    )
