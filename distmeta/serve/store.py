"""The tasks of a service on disk, which replicas share: back after a restart, or after a replica was killed.

FOLDER/tasks.json            format, and the hash of the learner's θ
       ID/00000001/          the newest version of a task: `distmeta.use.task` without its learner
                   served.json   name, time, and what it was asked for

A version is written aside and renamed, so that it is there completely or not at all. It is never changed: a grown
task is the next version. Of two processes that write the same version, one finds that it is taken.
"""

from __future__ import annotations

import fcntl
import json
import re
import secrets
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distmeta.config.places import barrier
from distmeta.errors import CheckpointError, ConfigError
from distmeta.storage import require_format, sync, write_sums

FORMAT = 1
DOCUMENT, SERVED = "tasks.json", "served.json"
ID = re.compile(r"[0-9a-f]{32}")
REMEDY = "name another folder with --tasks"


class UnknownTaskError(Exception):
    """There is no task with this id."""


class TakenError(Exception):
    """Another process has written this version."""


def new_id() -> str:
    """An id that cannot be guessed."""
    return secrets.token_hex(16)


class Store:
    """The tasks in a folder (see the module). Processes may share it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def opened(self, learner_sha256: str) -> Iterator[None]:
        """Makes or checks the folder (see `make`) and clears it. Inside, no other service can open the folder.

        Raises:
            UserError: the folder cannot be used.
        """
        self.make(learner_sha256)
        with (self.folder / DOCUMENT).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise CheckpointError(str(self.folder), "is in use by another service", REMEDY) from error
            self.clear()
            yield

    def make(self, learner_sha256: str) -> None:
        """Makes the folder, or checks that its tasks are of this learner.

        Raises:
            UserError: the folder cannot be used.
        """
        document = self.folder / DOCUMENT
        if closed := barrier(self.folder.absolute()):
            raise ConfigError("--tasks", f"{closed} cannot be written to", REMEDY)
        if not document.exists():
            if self.folder.is_dir() and any(self.folder.iterdir()):
                raise CheckpointError(str(self.folder), "holds something else than the tasks of a service", REMEDY)
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError("--tasks", f"{self.folder} cannot be made ({error.strerror})", REMEDY) from error
            content = {"format": FORMAT, "meta_params_sha256": learner_sha256}
            document.write_text(json.dumps(content) + "\n", encoding="utf-8")
        about = _read(document)
        require_format(about, document, FORMAT, remedy=REMEDY)
        if about.get("meta_params_sha256") != learner_sha256:
            raise CheckpointError(str(self.folder), "holds tasks of another learner", REMEDY)

    def clear(self) -> None:
        """Removes what killed processes have left half written. No other process may work in the folder."""
        for path in self.folder.iterdir():
            left = [path] if path.name.startswith(".") else [*path.glob(".*")] if ID.fullmatch(path.name) else []
            for part in left:
                shutil.rmtree(part, ignore_errors=True)
            if ID.fullmatch(path.name) and not any(path.iterdir()):
                path.rmdir()

    def ids(self) -> list[str]:
        """The ids of all tasks, sorted."""
        return sorted(path.name for path in self.folder.iterdir() if ID.fullmatch(path.name))

    def newest(self, task: str) -> Path:
        """The folder of a task's newest version; its name is the version's number.

        Raises:
            UnknownTaskError: there is none.
        """
        if not ID.fullmatch(task):
            raise UnknownTaskError(task)
        try:
            versions = [path for path in (self.folder / task).iterdir() if path.name.isdigit()]
        except FileNotFoundError as error:
            raise UnknownTaskError(task) from error
        if not versions:
            raise UnknownTaskError(task)
        return max(versions)

    def add(self, task: str, number: int, served: dict[str, Any], write: Callable[[Path], None]) -> Path:
        """Writes a version of a task and removes the earlier ones. The first version makes the task.

        Args:
            task: its id.
            number: of the version, from 1.
            served: the content of `served.json`.
            write: writes the task into a folder that exists.

        Raises:
            TakenError: this version is there already.
            UnknownTaskError: the task was deleted.
        """
        home = self.folder / task
        if number == 1:
            home.mkdir(exist_ok=True)
        aside, version = home / f".{uuid.uuid4().hex}", home / f"{number:08d}"
        try:
            try:
                aside.mkdir()
            except FileNotFoundError as error:
                raise UnknownTaskError(task) from error
            write(aside)
            (aside / SERVED).write_text(json.dumps(served) + "\n", encoding="utf-8")
            write_sums(aside)
            try:
                aside.rename(version)
            except OSError as error:
                if version.exists():
                    raise TakenError(task) from error
                if not home.exists():
                    raise UnknownTaskError(task) from error
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        for path in (home, self.folder):
            sync(path)
        for path in home.iterdir():
            if path.name.isdigit() and int(path.name) < number:
                shutil.rmtree(path, ignore_errors=True)
        return version

    def delete(self, task: str) -> None:
        """Removes a task.

        Raises:
            UnknownTaskError: there is none.
        """
        gone = self.newest(task).parent.with_name(f".{uuid.uuid4().hex}")
        try:
            (self.folder / task).rename(gone)
        except FileNotFoundError as error:
            raise UnknownTaskError(task) from error
        sync(self.folder)
        shutil.rmtree(gone, ignore_errors=True)

    def describe(self, task: str) -> dict[str, Any]:
        """What is known of a task, as plain JSON.

        Raises:
            UnknownTaskError: there is none.
            CheckpointError: it cannot be read.
        """
        while True:
            version = self.newest(task)
            try:
                about, served = _read(version / "task.json"), _read(version / SERVED)
                break
            except CheckpointError:
                if self.newest(task) == version:
                    raise  # else it has been replaced in the meantime
        expected = about["expected"]
        return {
            "id": task,
            "name": served["name"],
            "family": about["family"],
            "classes": about["names"],
            "examples": served["examples"],
            "cut": served.get("cut"),
            "version": int(version.name),
            "threshold": about["threshold"],
            "thresholds": about.get("thresholds"),
            "expected_f1": about.get("expected_f1"),
            "expected": expected and {**expected, "accuracy": expected["right"] / expected["tested"]},
            "changed": served["changed"],
        }


def served_of(version: Path) -> dict[str, Any]:
    """The content of a version's `served.json`."""
    return _read(version / SERVED)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(str(path), f"cannot be read ({error})", "copy it again, or delete the task") from error
    if not isinstance(content, dict):
        raise CheckpointError(str(path), "holds no object of keys", "copy it again, or delete the task")
    return content
