"""One process at a time goes on with a run or a study."""

import errno
import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from toy import toy_config
from tune_helpers import config_of

from distmeta import cli
from distmeta.errors import CheckpointError
from distmeta.report.progress import Reporter
from distmeta.runs import directory, paths
from distmeta.runs import train as driver
from distmeta.tune import study

HOLD = """
import sys, time
from pathlib import Path
from distmeta.runs import directory
with directory.locked(Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def held(run_dir: Path) -> Iterator[int]:
    """Another process has the lock, until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run_dir)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def test_a_run_that_another_process_goes_on_with_is_refused_until_that_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config(tmp_path, outer__steps=1)
    first = driver.train(config, tmp_path / "run", Reporter())
    with held(tmp_path / "run") as number, monkeypatch.context() as patch:
        patch.setattr(directory, "LOCK_SECONDS", 0.2)
        refused = rf"run: process {number} on \S+ is going on with it; wait until it ends, or stop it$"
        for go_on in (
            lambda: driver.resume(tmp_path / "run", [], Reporter()),
            lambda: driver.evaluate(tmp_path / "run", [], Reporter()),
            lambda: driver.train_trial(config, tmp_path / "run", Reporter(), ""),
            lambda: cli.app(["sync", str(tmp_path / "run")], standalone_mode=False),
        ):
            with pytest.raises(CheckpointError, match=refused):
                go_on()
        cli.app(["compare", str(tmp_path / "run"), str(tmp_path / "run")], standalone_mode=False)  # only reads
    assert driver.resume(tmp_path / "run", [], Reporter()) == first


def test_a_run_is_locked_from_its_start_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(*_: Any, **__: Any) -> None:
        with (tmp_path / "run" / directory.LOCK).open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        seen.append(1)

    monkeypatch.setattr(Reporter, "step", look)
    driver.train(toy_config(tmp_path, outer__steps=1), tmp_path / "run", Reporter())
    assert seen == [1]


def test_a_study_that_another_process_goes_on_with_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "study"
    directory.create(folder, paths.absolute(config_of(tmp_path)), None, {"mlflow_run_id": None})
    monkeypatch.setattr(directory, "LOCK_SECONDS", 0.2)
    with held(folder), pytest.raises(CheckpointError, match=r"study: process .* is going on with it"):
        study.resume(folder, Reporter())


def test_a_disk_without_locks_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def flock(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(directory.fcntl, "flock", flock)  # type: ignore[attr-defined]
    notes: list[str] = []
    with directory.locked(tmp_path, notes.append):
        pass
    assert notes == [f"{tmp_path} is on a disk without locks (No locks available): let only one process go on with it"]
