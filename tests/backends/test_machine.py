"""Folders and limits of a private Ray."""

import os
import resource
import tempfile
from pathlib import Path

import pytest

from distmeta.backends import machine
from distmeta.backends.machine import allow_open_files, ray_folder
from distmeta.backends.private import job_config
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


def test_as_many_open_files_as_the_user_may_have() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        allow_open_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(hard, machine.OPEN_FILES), hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_workers_look_for_modules_where_this_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a file random.py in the working directory would stand for the module; a notebook's own folder stays."""
    config = job_config()
    monkeypatch.syspath_prepend(tmp_path / "mine")
    config._py_driver_sys_path.extend([str(tmp_path / "mine"), str(tmp_path)])
    assert config._py_driver_sys_path == [str(tmp_path / "mine")]
