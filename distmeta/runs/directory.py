"""A run's directory: made once, given by path or by MLflow run id.

RUN/config.yaml        the resolved configuration
    run.json           MLflow's address and run id, and hashes of what decides the result
    tokenizer.json
    checkpoints/       see distmeta.runs.checkpoint
    learner/           the meta-trained learner: see distmeta.use.learner
    evaluation.json    the figures, as --json prints them
    stream.json        evaluations of a stream's rounds; task_graph.csv and .png hold their similarities
    manifest-*.json    which rows the meta-test episodes are made of
    scores-*.json      the meta-trained learner's score on each of them
    answers.json       its answers on the first of them, and adaptation_curve.json: see distmeta.runs.answers
    .lock              locked by the process that works on the run, until that process ends
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distmeta import tracking
from distmeta.config import RunConfig
from distmeta.config.load import override, validate
from distmeta.config.places import barrier, exists
from distmeta.config.syntax import dump_yaml, parse_yaml
from distmeta.errors import CheckpointError, ConfigError
from distmeta.runs.paths import beside
from distmeta.storage import SUMS, parse_object, require_format

CONFIG, RUN, LOCK = "config.yaml", "run.json", ".lock"
FORMAT = 2  # of run.json; format 1 had no number, key or identity
EVALUATION_FORMAT = 2  # of evaluation.json, which is never read back; in format 1 rows had ways and shots, no shape
LOCK_SECONDS = 5.0  # for a killed process to end
# Settings that may change when a run goes on. None of them decides its result.
RESUMABLE = (
    *("cluster.", "tracking.", "checkpoint.", "evaluation.", "outer.steps"),
    # Where data and weights are does not matter either: their content is compared.
    *("data.cache", "data.copies", "data.descriptions", "data.path", "data.splits", "model.path", "algorithm.teacher"),
)

Note = Callable[[str], None]


def _ignore(remark: str) -> None: ...


def require_new(run_dir: Path, command: str = "train") -> None:
    """Raises a `ConfigError` if the directory exists already, or cannot be made."""
    if exists(run_dir):
        raise _exists(run_dir, command)
    try:
        run_dir.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # not there, or named below
    except OSError as error:  # such as a name that is too long
        raise _not_made(run_dir, error) from error
    if closed := barrier(run_dir.absolute().parent):
        raise ConfigError("run_dir", f"{closed} cannot be written to", "choose another place")


def _exists(run_dir: Path, command: str = "train") -> ConfigError:
    remedy = f"choose another, or go on with `distmeta {command} --resume {run_dir}`"
    return ConfigError("run_dir", f"{run_dir} exists", remedy)


def _not_made(run_dir: Path, error: OSError) -> ConfigError:
    return ConfigError("run_dir", f"{run_dir} cannot be made ({error.strerror})", "choose another place")


def create(run_dir: Path, config: RunConfig, tokenizer: str | None, run: dict[str, Any] | None = None) -> None:
    """Makes the directory of a new run aside, then renames it: after a kill it is either complete or missing.

    A password in MLflow's address is not kept: when the run goes on, MLflow reads it from the environment.

    Args:
        run_dir: the directory to make.
        config: the run's configuration.
        tokenizer: as JSON, if there is one.
        run: the content of `run.json`.

    Raises:
        ConfigError: it cannot be made, or another process has made it in the meantime.
    """
    aside = run_dir.with_name(f".{uuid.uuid4().hex}")
    try:
        aside.mkdir(parents=True)
    except OSError as error:
        raise _not_made(run_dir, error) from error
    write_config(aside / CONFIG, config)
    if tokenizer is not None:
        (aside / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    if run is not None:
        write_json(aside / RUN, run)
    try:
        aside.rename(run_dir)
    except OSError as error:
        shutil.rmtree(aside)
        raise _exists(run_dir) from error


def write_config(path: Path, config: RunConfig, leave_out: Iterable[str] = ()) -> None:
    """Writes settings as YAML, without the password in MLflow's address and without the sections `leave_out`."""
    content = config.model_dump(mode="json", by_alias=True, exclude=set(leave_out))
    if config.tracking.uri is not None:
        content["tracking"]["uri"] = tracking.mask(config.tracking.uri).replace("***@", "")
    _replace(path, dump_yaml(content))


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes JSON for people to read."""
    _replace(path, json.dumps(content, indent=1) + "\n")


def _replace(path: Path, text: str) -> None:
    """Writes aside and renames: if the process is killed, the old file stays."""
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def read(run_dir: Path, overrides: list[str], note: Note = _ignore) -> tuple[RunConfig, dict[str, Any]]:
    """The configuration of a run with overrides, and the content of its `run.json`.

    `note` gets a remark if the run was moved.

    Raises:
        CheckpointError: not a run's directory.
        ConfigError: an override of a setting that may decide the run's result.
    """
    try:
        content = parse_yaml((run_dir / CONFIG).read_text(encoding="utf-8"), str(run_dir / CONFIG))
        run = parse_object((run_dir / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            str(run_dir), f"is not a run's directory ({error})", "give one with config.yaml and run.json"
        ) from error
    require_format(run, run_dir / RUN, 1, FORMAT)
    for item in overrides:
        key = item.partition("=")[0]
        own = re.sub(r"^tasks\.[^.]+\.data\.", "data.", key)  # of one family among several
        if not own.startswith(RESUMABLE) or own == "cluster.tasks_per_unit":
            raise ConfigError(
                key, "cannot change in a run that has begun", "start a new run with `distmeta train CONFIG`"
            )
    kept = beside(validate(content), run_dir, note).model_dump(mode="json", by_alias=True)
    return validate(override(kept, overrides)), run


@contextmanager
def locked(run_dir: Path, note: Note) -> Iterator[None]:
    """Locks a run or study, so that no other process works on it. Processes that only read it need no lock.

    The operating system releases the lock when the process ends, even if it is killed. On a disk without locks, `note`
    gets a warning.

    Raises:
        CheckpointError: another process has the lock, or the directory cannot be written to.
    """
    try:
        file = (run_dir / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(str(run_dir), f"cannot be written to ({error.strerror})", "allow writing") from error
    with file:
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError) as error:
                if time.monotonic() > until:
                    file.seek(0)
                    found = f"{file.read() or 'another process'} is going on with it"
                    raise CheckpointError(str(run_dir), found, "wait until it ends, or stop it") from error
                time.sleep(0.1)
            except OSError as error:
                note(f"{run_dir} is on a disk without locks ({error.strerror}): let only one process go on with it")
                break
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def within(run_dir: Path) -> list[Path]:
    """The directory of a run; for a study, also the directories of its trials."""
    return [run_dir, *sorted(path.parent for path in run_dir.glob(f"*/[!.]*/{RUN}"))]


def resolve(run: str, overrides: Sequence[str] = ()) -> Path:
    """The directory of a run, given as a path, as an MLflow run id, or by its registered learner.

    Args:
        run: ``models:/NAME@ALIAS`` names a registered learner.
        overrides: may set `tracking.uri`.

    Raises:
        UserError: it is none of them, or the run has gone on since its learner was registered.
    """
    if (path := Path(run)).is_dir():
        return path
    uri = _store(overrides)
    if run.startswith(tracking.PREFIX):
        run_dir = tracking.find_run_dir(uri, tracking.run_of(uri, run))
        kept, own = (folder / SUMS for folder in (tracking.fetch(uri, run), run_dir / "learner"))
        if not own.is_file() or own.read_bytes() != kept.read_bytes():
            raise CheckpointError(run, f"{run_dir} has another learner now", "give the run directory")
        return run_dir
    if not run.isalnum() or exists(path):
        raise CheckpointError(run, "no such run directory", "give a run directory or an MLflow run id")
    run_dir = tracking.find_run_dir(uri, run)
    if read(run_dir, [])[1]["mlflow_run_id"] != run:
        raise CheckpointError(run, f"{run_dir} is the directory of another run", "give its run directory")
    return run_dir


def place(run: str, overrides: Sequence[str] = ()) -> Path:
    """The folder of a run, of a learner or of a task: as `resolve`, but a registered one needs no run on this machine.

    Raises:
        UserError: there is none.
    """
    return tracking.fetch(_store(overrides), run) if run.startswith(tracking.PREFIX) else resolve(run, overrides)


def _store(overrides: Sequence[str]) -> str:
    settings = validate(override({}, [item for item in overrides if item.startswith("tracking.")]))
    return tracking.resolve_uri(settings.tracking.uri)
