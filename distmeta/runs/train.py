"""The driver: advances, evaluates, checkpoints and logs. It is the only outer loop, for every backend."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from distmeta.config import RunConfig
from distmeta.engine.params import sha256
from distmeta.report import scores
from distmeta.report.progress import Reporter
from distmeta.runs import answers, checkpoint, directory, paths
from distmeta.runs.arrivals import Arrivals, stored
from distmeta.runs.calibrate import calibrate, with_trust
from distmeta.runs.check import remarks
from distmeta.runs.evaluate import adaptation_curve, meta_test, meta_validation
from distmeta.runs.outcome import draw_figures, keep_learner, keep_result, show_result
from distmeta.runs.session import OpenRun, open_run
from distmeta.types import ServerState

REPORT_SECONDS = 0.5  # of training between two reports to the driver


def train(config: RunConfig, run_dir: Path, reporter: Reporter) -> dict[str, Any]:
    """Meta-trains from the start, then evaluates on meta-test.

    Returns:
        The figures that ``--json`` prints.

    Raises:
        UserError: a mistake of the user, before anything is written.
    """
    directory.require_new(run_dir)
    with open_run(paths.absolute(config), run_dir, reporter) as opened:
        for remark in remarks(opened.experiment):
            reporter.note(remark)
        return _train_and_test(opened, 0)


def resume(
    run_dir: Path, overrides: list[str], reporter: Reporter, given: RunConfig | None = None, step: int | None = None
) -> dict[str, Any]:
    """Goes on from a run's checkpoint, or starts if it has none. The result equals that of a run without a stop.

    Args:
        run_dir: the run.
        overrides: settings that do not change the result.
        reporter: where progress is shown.
        given: a configuration to use instead of the run's own; refused if it would change the result.
        step: the outer step of the checkpoint; none: the newest.
    """
    config, run = directory.read(run_dir, [] if given else overrides, reporter.note)
    config = paths.absolute(given) if given else config
    with directory.locked(run_dir, reporter.note):
        if step is None and not checkpoint.exists(run_dir):
            with open_run(config, run_dir, reporter, run) as opened:
                return _train_and_test(opened, 0)
        state, identity = checkpoint.load(run_dir, step)
        with open_run(config, run_dir, reporter, run, identity) as opened:
            opened.coordination.load(state)
            reporter.note(f"going on from outer step {state.counters['version']}")
            return _train_and_test(opened, state.counters["version"], is_kept=True)


def train_trial(
    config: RunConfig,
    run_dir: Path,
    reporter: Reporter,
    parent: str,
    until: int | None = None,
    start: ServerState | None = None,
    figures: Mapping[str, float] | None = None,
) -> None:
    """A trial of a study: starts or goes on with meta-training, up to a last meta-validation. It has no meta-test.

    Args:
        config: the trial's configuration.
        run_dir: the trial's directory; made if it is missing.
        reporter: gets the result of each meta-validation.
        parent: the study's MLflow run.
        until: the outer step to go to; none: the last one.
        start: another trial's state to go on from, with this trial's `config`.
        figures: further metrics, logged at the trial's start and end.
    """
    with ExitStack() as stack:
        run, state, identity, until = None, start, None, until or config.outer.steps
        if run_dir.exists():
            _, run = directory.read(run_dir, [])
            stack.enter_context(directory.locked(run_dir, reporter.note))
        is_kept = start is None and checkpoint.exists(run_dir)
        if is_kept:
            state, identity = checkpoint.load(run_dir)
        elif run and start is not None:
            directory.write_config(run_dir / directory.CONFIG, paths.absolute(config))
            identity = {}
        opened = stack.enter_context(open_run(paths.absolute(config), run_dir, reporter, run, identity, parent))
        done = 0
        if state:
            opened.coordination.load(state)
            done = state.counters["version"]
        arrivals = _arrivals(opened, done)
        opened.tracker.log(done, figures or {}, again=True)
        _train(opened, arrivals, done, is_kept, until)
        _validate(opened, until)
        opened.tracker.log(until, figures or {}, again=True)
        if arrivals and until == config.outer.steps:
            arrivals.finish(until)


def evaluate(run_dir: Path, overrides: list[str], reporter: Reporter, step: int | None = None) -> dict[str, Any]:
    """Evaluates a run's checkpoint on meta-test: the newest, or the one of a step."""
    config, run = directory.read(run_dir, overrides, reporter.note)
    with directory.locked(run_dir, reporter.note):
        state, identity = checkpoint.load(run_dir, step)
        with open_run(config, run_dir, reporter, run, identity) as opened:
            opened.coordination.load(state)
            return _test(opened, stored(run_dir), is_newest=step is None)


def _train_and_test(opened: OpenRun, done: int, is_kept: bool = False) -> dict[str, Any]:
    config, arrivals = opened.experiment.config, _arrivals(opened, done)
    try:
        _train(opened, arrivals, done, is_kept, config.outer.steps)
    except KeyboardInterrupt:
        _abandon(opened)
        raise
    return _test(opened, arrivals.finish(config.outer.steps) if arrivals else None)


def _arrivals(opened: OpenRun, done: int) -> Arrivals | None:
    if not opened.experiment.config.stream.steps_per_task:
        return None
    return Arrivals(opened.experiment, opened.coordination, opened.run_dir, opened.tracker, opened.reporter.note, done)


def _train(opened: OpenRun, arrivals: Arrivals | None, done: int, is_kept: bool, until: int) -> None:
    """Trains from outer step `done` up to `until`. `is_kept`: step `done` has a checkpoint.

    If it has none, one is written first: this shows before any work whether checkpoints can be written.
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
        if done >= until:  # it is greater if a run goes on with fewer outer steps
            return
        if arrivals and done % config.stream.steps_per_task == 0:
            arrivals.arrive(done // config.stream.steps_per_task, done)
        stop = min([until, *(done - done % n + n for n in every if n)])
        for report in coordination.advance(min(stop - done, max(1, int(REPORT_SECONDS / seconds)))):
            done, seconds = report.outer_step, report.metrics["time/step_seconds"]
            opened.tracker.log(done, report.metrics)
            opened.reporter.step(report, total)
        if done == until or (keep_every and done % keep_every == 0):
            _save(opened, coordination.state())


def _validate(opened: OpenRun, done: int) -> None:
    """Runs meta-validation, unless a resumed run has its result already."""
    score = opened.experiment.score
    if opened.tracker.last_step(f"meta_validation/{score.name}") >= done and opened.reporter.has_validation(done):
        return
    validation = meta_validation(opened.experiment, opened.coordination)
    opened.tracker.log(done, validation)
    opened.tracker.flush()  # the report may end a trial
    opened.reporter.validation(done, validation, score)


def _abandon(opened: OpenRun) -> None:
    """Writes a checkpoint of an interrupted run, if its state is consistent."""
    if halted := opened.coordination.halt():
        state, reports = halted
        for report in reports:  # the tracker skips those that it has logged already
            opened.tracker.log(report.outer_step, report.metrics)
        _save(opened, state)


def _save(opened: OpenRun, state: ServerState) -> None:
    # MLflow must never be behind the checkpoint: a resumed run does not log earlier steps again.
    opened.tracker.flush()
    keep = opened.experiment.config.checkpoint.keep
    checkpoint.save(opened.run_dir, state, opened.experiment.identity, keep)


def _test(opened: OpenRun, stream: dict[str, Any] | None, is_newest: bool = True) -> dict[str, Any]:
    """Calibrates and keeps the learner, runs meta-test, and writes, logs and shows what came of it."""
    experiment, coordination = opened.experiment, opened.coordination
    state = coordination.state()
    theta = np.asarray(state.arrays["meta_params"])
    steps, digest = state.counters["version"], sha256(theta)
    calibrations = calibrate(experiment, coordination, opened.reporter.episodes, opened.reporter.note)
    if is_newest:
        keep_learner(opened, experiment.trained(theta, steps).calibrated(calibrations))
    rows = meta_test(experiment, coordination, opened.run_dir, opened.reporter.episodes, digest)
    rows, answered = with_trust(experiment, coordination, rows, calibrations, opened.reporter.episodes)
    result = {
        "format": directory.EVALUATION_FORMAT,
        "run_dir": str(opened.run_dir),
        "mlflow_run_id": opened.tracker.run_id,
        "outer_steps": steps,
        "meta_params_sha256": digest,
        "meta_test": rows,
        **({} if stream is None else {"stream": stream}),
    }
    keep_result(opened, result)
    kept = [*scores.files(opened.run_dir), answers.keep_answers(opened.run_dir, digest, experiment, answered)]
    curves = adaptation_curve(experiment, coordination, opened.reporter.episodes, opened.reporter.note)
    kept.append(answers.keep_curve(opened.run_dir, digest, experiment, curves))
    for path in kept:
        opened.tracker.log_artifact(path)
    draw_figures(opened, state, curves)
    show_result(opened, rows)
    return result
