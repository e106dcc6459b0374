"""Users without a home, and folders of other users."""

import os
import pwd
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from toy import toy_settings

from distmeta import cli
from distmeta.config import DataConfig
from distmeta.config.places import barrier, exists, provide_home, stand_in
from distmeta.errors import ConfigError, TrackingError, UserError, refusals
from distmeta.runs.directory import require_new
from distmeta.tracking import check_store


@pytest.fixture
def homeless(uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user number without a name or a home; the temporary folder. `uri` comes first: to make it takes a home."""

    def unknown(number: int) -> Any:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME")
    (temporary := tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return temporary


class Locked:
    """Folders of another user: this one may neither enter nor change them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folders: list[Path] = []
        allowed, there = os.access, os.path.exists
        monkeypatch.setattr(os, "access", lambda path, mode: not self._holds(path) and allowed(path, mode))
        monkeypatch.setattr(
            os.path, "exists", lambda path: Path(path) in self.folders or (not self._holds(path) and there(path))
        )

    def _holds(self, path: str | Path) -> bool:
        return any(Path(path).is_relative_to(folder) for folder in self.folders)

    def folder(self, path: Path) -> Path:
        """Makes one."""
        path.mkdir(parents=True, exist_ok=True)
        self.folders.append(path)
        return path


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> Locked:
    return Locked(monkeypatch)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check"], ""),
        (["check", "cluster.backend=ray", "cluster.address=127.0.0.1:9"], "no token for the Ray at 127.0.0.1:9"),
    ],
)
def test_a_user_without_a_home_gets_one(
    words: list[str],
    said: str,
    homeless: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Libraries ask for it when they are imported, and so does the look for a token."""
    import yaml

    settings = toy_settings(tmp_path)
    del settings["data"]["cache"]
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["distmeta", words[0], str(tmp_path / "toy.yaml"), *words[1:]])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    lines = capfd.readouterr().err.splitlines()
    own = homeless / f"distmeta-{os.getuid()}"
    assert lines[0] == (
        f"distmeta: note: this user has no home folder; {own} stands in for it (set HOME to choose another)"
    )
    assert said in lines[-1]
    assert caught.value.code == (2 if said else 0)
    assert own.stat().st_mode & 0o777 == 0o700
    assert said or list((own / ".cache" / "distmeta").glob("*.arrow"))


def test_who_has_a_home_keeps_it() -> None:
    remarks: list[str] = []
    before = os.environ.get("HOME")
    provide_home(remarks.append)
    assert (remarks, os.environ.get("HOME")) == ([], before)


def test_texts_are_cached_elsewhere_if_the_home_cannot_be_written_to(
    locked: Locked, homeless: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(locked.folder(tmp_path / "home")))
    data = DataConfig()
    assert data.cache_folder == homeless / f"distmeta-{os.getuid()}" / "cache"
    assert data.cache_remark == (
        f"note: {tmp_path}/home/.cache/distmeta cannot be written to; texts are cached in {data.cache_folder}"
    )
    assert DataConfig(cache=str(tmp_path / "mine")).cache_remark == ""
    with pytest.raises(ConfigError, match=r"data\.cache: this user may not look into .*/home; name another folder"):
        _ = DataConfig(cache="~/mine").cache_folder


def test_a_folder_that_another_user_made_is_not_the_stand_in(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (homeless / f"distmeta-{os.getuid()}").symlink_to(homeless)
    with pytest.raises(
        ConfigError, match=r"HOME: no home folder, and .* belongs to another user; set HOME to a folder"
    ):
        stand_in()
    (homeless / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(homeless / "file"))
    with pytest.raises(ConfigError, match=r"HOME: no home folder, and no temporary one \(Not a directory\)"):
        stand_in()


def test_a_folder_of_another_user_is_named_with_its_key(locked: Locked, tmp_path: Path) -> None:
    """Also as the place of a run or a database, where `Path.exists` would raise an error."""
    other = locked.folder(tmp_path / "other")
    assert not exists(other / "run")
    assert barrier(other / "a" / "b") == other
    assert barrier(tmp_path / "a" / "b") is None
    with pytest.raises(ConfigError, match=r"run_dir: .*/other cannot be written to; choose another place"):
        require_new(other / "run")
    for place, said in (("other", "other is not writable"), ("other/deeper", "this user may not look into .*/other")):
        with pytest.raises(TrackingError, match=rf"tracking\.uri: .*{said}; choose another place"):
            check_store(f"sqlite:///{tmp_path}/{place}/mlflow.db")


@pytest.mark.parametrize("name", ["mlartifacts", "mlartifacts/.mlflow.db.lock"])
def test_artifacts_of_another_user_are_told_of_before_work_starts(name: str, locked: Locked, tmp_path: Path) -> None:
    locked.folder(tmp_path / name)
    with pytest.raises(TrackingError, match=rf"tracking\.uri: .*/{name} is not writable; choose another place"):
        check_store(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "/x/run"), "/x/run: Permission denied; allow this user to read and"),
        (OSError(30, "Read-only file system", "/x/run"), "/x/run: Read-only file system; allow this user"),
        (OSError(28, "No space left on device", "/x/run"), "/x/run: No space left on device; free some, or name"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    error: OSError, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: Any) -> None:
        raise error

    monkeypatch.setattr(cli, "app", refuse)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(f"distmeta: {said}")


@pytest.mark.parametrize("error", [OSError(5, "Input/output error", "/x"), PermissionError(1, "not permitted")])
def test_other_errors_of_the_system_keep_their_traceback(error: OSError) -> None:
    with pytest.raises(OSError, match=r"error|permitted") as caught, refusals():
        raise error
    assert not isinstance(caught.value, UserError)
