"""Folders and limits of a private Ray."""

import os
import resource
import tempfile
from pathlib import Path

import pytest

from distmeta.backends import machine
from distmeta.backends.machine import raise_limits, ray_folder, require_limits, store_bytes, store_folder
from distmeta.backends.private import job_config
from distmeta.backends.resources import preflight
from distmeta.config import ClusterConfig
from distmeta.errors import ClusterError


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a short path, named by TMPDIR."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_the_folder_for_sockets_is_that_of_ray_if_it_can_be_used(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ray_folder() == (None, "")
    for name in ("TMPDIR", "RAY_TMPDIR"):
        (long := short / ("x" * 60)).mkdir(exist_ok=True)
        monkeypatch.setenv(name, str(long))
        folder, why = ray_folder()
        assert folder is not None
        assert len(str(folder)) < 20
        assert why == f"the path {long}/ray is too long for a socket"


def test_a_folder_of_another_user_is_not_used(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (other := short / "ray").mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != other and access(path, mode))
    folder, why = ray_folder()
    assert folder is not None
    assert folder != other
    assert why == f"{other} cannot be written to"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ClusterError, match=r"\$TMPDIR: Ray cannot use it: .*; set RAY_TMPDIR to a folder"):
        ray_folder()


def test_limits_are_raised_as_far_as_the_user_may() -> None:
    wanted = {resource.RLIMIT_NOFILE: machine.OPEN_FILES, resource.RLIMIT_NPROC: None}
    before = {limit: resource.getrlimit(limit) for limit in wanted}
    try:
        for limit, (_, hard) in before.items():
            resource.setrlimit(limit, (256, hard))
        raise_limits()
        for limit, (_, hard) in before.items():
            most = wanted[limit]
            assert resource.getrlimit(limit) == (min(hard, most) if most and hard > 0 else hard, hard)
    finally:
        for limit, values in before.items():
            resource.setrlimit(limit, values)


class Limits:
    """The hard limits of this process, as the system tells them; all others are unlimited."""

    def __init__(self, **hard: int) -> None:
        self.hard = {getattr(resource, f"RLIMIT_{name}"): value for name, value in hard.items()}

    def __call__(self, limit: int) -> tuple[int, int]:
        value = self.hard.get(limit, resource.RLIM_INFINITY)
        return value, value


@pytest.mark.parametrize(
    ("hard", "said"),
    [
        (
            {"NOFILE": 64},
            "ulimit -n: a private Ray with 2 workers needs about 72 open files, and 64 are allowed",
        ),
        ({"NPROC": 50}, "ulimit -u: a private Ray with 2 workers needs about 248 processes and threads, and 50 are"),
        ({"AS": 3 * 2**30}, "ulimit -v: a private Ray with 2 workers needs about 4456448 KiB of memory, and 3145728 "),
    ],
)
def test_too_small_a_limit_is_told_of_before_ray_is_started(
    hard: dict[str, int], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray itself would wait for half a minute, or for ever."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(resource, "getrlimit", Limits(**hard))
    with pytest.raises(ClusterError, match=f"^{said}"):
        preflight(ClusterConfig(workers=2))
    preflight(ClusterConfig(backend="inprocess"))


def test_limits_that_are_high_enough_are_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", Limits(NOFILE=72, NPROC=248, AS=6 * 2**30))
    require_limits(2)
    assert store_bytes() == 2**30  # half of what is left beside 4 GiB
    monkeypatch.setattr(resource, "getrlimit", Limits(AS=2**50))
    assert store_bytes() is None
    monkeypatch.setattr(resource, "getrlimit", Limits())
    require_limits(1000)
    assert store_bytes() is None


def test_the_store_is_elsewhere_if_shared_memory_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path)
    assert store_folder() is None
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert store_folder() == tempfile.gettempdir()


def test_workers_look_for_modules_where_this_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a file random.py in the working directory would stand for the module; a notebook's own folder stays."""
    config = job_config()
    monkeypatch.syspath_prepend(tmp_path / "mine")
    config._py_driver_sys_path.extend([str(tmp_path / "mine"), str(tmp_path)])
    assert config._py_driver_sys_path == [str(tmp_path / "mine")]
