"""A run in progress: opened in the order in which it can fail, and ended whatever happens."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distmeta import tracking
from distmeta.backends import open_backend
from distmeta.backends.base import Coordination
from distmeta.backends.resources import preflight
from distmeta.config import RunConfig
from distmeta.errors import CheckpointError, TrackingError
from distmeta.report.progress import Reporter
from distmeta.runs import directory
from distmeta.runs.experiment import Experiment, build_experiment
from distmeta.runs.identity import difference
from distmeta.runs.stop import Stopper, stopper
from distmeta.runs.teacher import with_teacher
from distmeta.tasks.base import Split
from distmeta.tracking import Ended, Tracker

PARENT_TAG = "mlflow.parentRunId"  # below which run MLflow shows a trial


@dataclass(frozen=True)
class OpenRun:
    """A run in progress: it has its workers, its directory and its MLflow run."""

    experiment: Experiment
    coordination: Coordination
    tracker: Tracker
    run_dir: Path
    reporter: Reporter
    asked: Stopper


@contextmanager
def open_run(
    config: RunConfig,
    run_dir: Path,
    reporter: Reporter,
    run: dict[str, Any] | None = None,
    identity: dict[str, Any] | None = None,
    parent: str | None = None,
) -> Iterator[OpenRun]:
    """Builds everything in the order in which it can fail; a run's directory is made when nothing else is in doubt.

    Args:
        config: of the run.
        run_dir: its directory.
        reporter: where progress is shown.
        run: its `run.json`; none: a new run.
        identity: what its checkpoint belongs to; none where it has none, and is what it was when it was made.
        parent: the MLflow run of its study; such a run is a trial, and has no meta-test.
    """
    tracking.check_store(tracking.resolve_uri(config.tracking.uri))
    if parent is None:  # a study has looked already
        preflight(config.cluster)
    experiment = replace(with_teacher(build_experiment(config)), has_meta_test=parent is None)
    if identity is None:
        identity = (run or {}).get("identity")
    if identity and (found := difference(identity, experiment.identity)):
        raise CheckpointError(str(run_dir), f"was made with {found}", "restore it, or start a new run")
    reporter.note(describe(experiment))
    with stopper() as asked, open_backend(config.cluster) as backend:
        asked.listen()  # Ray has set handlers of its own
        coordination = backend.start(experiment.setup, reporter.note)
        tokenizer = experiment.tokenizer and experiment.tokenizer.to_str()
        tags = {PARENT_TAG: parent} if parent else {}
        with tracked(config, run_dir, reporter, run, tags, tokenizer, experiment.identity) as tracker:
            yield OpenRun(experiment, coordination, tracker, run_dir, reporter, asked)


@contextmanager
def tracked(
    config: RunConfig,
    folder: Path,
    reporter: Reporter,
    run: dict[str, Any] | None,
    tags: dict[str, str],
    tokenizer: str | None = None,
    identity: dict[str, str] | None = None,
) -> Iterator[Tracker]:
    """The MLflow run of a run or a study, and its directory, which is made where it is new; ended whatever happens.

    The directory comes first: a process that is killed before it has kept the id of its MLflow run leaves the key of it
    there, by which the next one finds that run, if it was made. Who goes on with a run has locked its directory.
    """
    with ExitStack() as stack:
        uri, is_new = tracking.resolve_uri(config.tracking.uri), run is None
        if run is None:
            run = {
                "format": directory.FORMAT,
                "mlflow_uri": tracking.mask(uri),
                "mlflow_run_id": None,
                "key": uuid.uuid4().hex,
            }
            run |= {"identity": identity} if identity else {}
            directory.create(folder, config, tokenizer, run)
            stack.enter_context(directory.locked(folder, reporter.note))
        try:
            tracker = Tracker.start(
                uri,
                config.tracking.experiment,
                folder.name,
                config.model_dump(mode="json", by_alias=True),
                folder,
                run_id=run["mlflow_run_id"],
                key=run.get("key"),
                tags=tags,
                note=reporter.note,
            )
        except TrackingError:
            if is_new:
                shutil.rmtree(folder)
            raise
        status: Ended = "FAILED"
        try:
            if run["mlflow_run_id"] is None:
                tracker.log_artifact(folder / directory.CONFIG)
                directory.write_json(folder / directory.RUN, {**run, "mlflow_run_id": tracker.run_id})
            yield tracker
            status = "FINISHED"
        except (KeyboardInterrupt, SystemExit):  # the latter from Ray Tune, of a trial that it stops
            status = "KILLED"
            raise
        finally:
            tracker.finish(status, is_trial=PARENT_TAG in tags)


def describe(experiment: Experiment) -> str:
    """A run in a line: data, model, what is adapted, where."""
    config, layout = experiment.config, experiment.setup.layout
    data = "; ".join(_describe(name, splits) for name, splits in experiment.splits.items())
    where = f"{config.cluster.workers} Ray workers" if config.cluster.backend == "ray" else "this process"
    return (
        f"{config.algorithm.name} on {config.model.name}: {layout.size:,} meta-parameters; "
        f"{data} to meta-train / -validate / -test on; {where}"
    )


def _describe(name: str, splits: dict[str, Split]) -> str:
    classes = " / ".join(str(len(split.classes)) for split in splits.values())
    return f"{classes} classes" if any(split.classes for split in splits.values()) else f"{name} tasks"
