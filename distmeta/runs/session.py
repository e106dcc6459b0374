"""A run in progress: checks come first when it is opened, and it is always ended properly."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distmeta import tracking
from distmeta.backends import open_backend
from distmeta.backends.base import Coordination
from distmeta.backends.resources import preflight
from distmeta.config import RunConfig
from distmeta.config.base import is_path
from distmeta.errors import CheckpointError, TrackingError
from distmeta.report.progress import Reporter
from distmeta.runs import directory
from distmeta.runs.experiment import Experiment, build_experiment
from distmeta.runs.identity import difference
from distmeta.runs.stop import Stopper, stopper
from distmeta.runs.teacher import with_teacher
from distmeta.tasks.base import Split
from distmeta.tracking import Ended, Tracker

PARENT_TAG = "mlflow.parentRunId"  # the run under which MLflow shows a trial


@dataclass(frozen=True)
class OpenRun:
    """A run in progress, with workers, a directory and an MLflow run."""

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
    """Builds all parts of a run. A new run's directory is made only after the checks, and after the workers started.

    Args:
        config: the run's configuration.
        run_dir: the run's directory.
        reporter: where progress is shown.
        run: the content of `run.json`; none: a new run.
        identity: the checkpoint's identity. None: the one in `run.json`, if any. Empty: it is not compared.
        parent: the MLflow run of the study. The run is then a trial, without meta-test.
    """
    own = (run or {}).get("mlflow_run_id")
    tracking.check_system(config.tracking.system_metrics)
    tracking.check_store(tracking.resolve_uri(config.tracking.uri), config.tracking.experiment, own)
    if parent is None:  # a study has checked already
        preflight(config.cluster)
    experiment = replace(with_teacher(build_experiment(config)), has_meta_test=parent is None)
    if identity is None:
        identity = (run or {}).get("identity")
    if identity and (found := difference(identity, experiment.identity)):
        raise CheckpointError(str(run_dir), f"was made with {found}", "restore it, or start a new run")
    reporter.note(describe(experiment))
    with stopper() as asked, open_backend(config.cluster) as backend:
        asked.listen()  # Ray has set its own handlers
        coordination = backend.start(experiment.setup, reporter.note)
        tokenizer = experiment.tokenizer and experiment.tokenizer.to_str()
        tags = {PARENT_TAG: parent} if parent else {}
        data = datasets(experiment)
        with tracked(config, run_dir, reporter, run, tags, tokenizer, experiment.identity, data) as tracker:
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
    data: Sequence[tracking.Dataset] = (),
) -> Iterator[Tracker]:
    """The MLflow run of a run or study, which is always ended. Makes the directory of a new one.

    The directory comes first, with a key of the MLflow run. If a process is killed before it has written the MLflow run
    id, the next process finds the MLflow run by this key, if it exists. The caller must have locked an old directory.
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
                origin=lambda: tracking.origin(config.source),
                has_system_metrics=config.tracking.system_metrics,
                note=reporter.note,
            )
        except TrackingError:
            if is_new:
                shutil.rmtree(folder)
            raise
        status: Ended = "FAILED"
        try:
            if run["mlflow_run_id"] is None:
                for dataset in data:
                    tracker.log_dataset(dataset)
                tracker.log_artifact(folder / directory.CONFIG)
                directory.write_json(folder / directory.RUN, {**run, "mlflow_run_id": tracker.run_id})
            yield tracker
            status = "FINISHED"
        except (KeyboardInterrupt, SystemExit):  # Ray Tune raises SystemExit in a trial that it stops
            status = "KILLED"
            raise
        finally:
            tracker.finish(status, is_trial=PARENT_TAG in tags)


def datasets(experiment: Experiment) -> list[tracking.Dataset]:
    """The splits of each family's data. A trial of a study has no meta-test."""
    found = []
    for name, splits in experiment.splits.items():
        family, data = experiment.setup.families[name], experiment.config.families[name].data
        path = data.path or family.kind
        label = Path(path).name if is_path(path) else path
        for key, split in splits.items():
            if key == "meta_test" and not experiment.has_meta_test:
                continue
            digest = hashlib.sha256(json.dumps([family.source, key, split.classes]).encode()).hexdigest()
            counts = {"num_rows": split.examples, "num_classes": len(split.classes)} if split.examples else {}
            columns = [data.text, data.label] if split.examples and family.has_classes else []
            found.append(tracking.Dataset(label, path, data.subset, digest, columns, counts, key))
    return found


def describe(experiment: Experiment) -> str:
    """A run in one line: algorithm, model, data, and where it runs."""
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
