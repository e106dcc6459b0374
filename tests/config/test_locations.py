"""Keys that name a place: variables and ~ are expanded, a name with a $ that exists is not."""

import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from config_helpers import value_of

from distmeta import tracking
from distmeta.config.load import load_config, override, validate
from distmeta.errors import ConfigError, TrackingError
from distmeta.runs import directory, paths

KEYS = ["run_dir", "data.path", "data.splits", "model.path", "tasks.a.data.path"]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("text", ["$HOME/x", "${HOME}/x", "~/x"])
def test_variables_and_the_home_are_expanded(key: str, text: str) -> None:
    assert value_of(validate(override({}, [f"{key}={text}"])), key) == "/home/ann/x"


@pytest.mark.parametrize("text", ["a$", "a$1", "$ x", "x/~", "a~b", "hub:a/$b", "package:~", "kept $HOME.csv"])
def test_other_names_stay(text: str, tmp_path: Path) -> None:
    (tmp_path / "kept $HOME.csv").touch()
    assert validate(override({}, [f"data.path={text}"])).data.path == text


@pytest.mark.parametrize("key", [*KEYS, "data.cache", "algorithm.teacher", "tracking.uri"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("$UNSET/x", "the environment variable UNSET is not set; set it, or write the path in full"),
        ("${UNSET:-y}/x", "the environment variable UNSET:-y is not set"),
        ("$EMPTY/x", "the environment variable EMPTY is not set"),
        ("~no-such-user/x", "there is no user 'no-such-user', or write the path in full"),
    ],
)
def test_what_cannot_be_expanded_is_refused(key: str, text: str, message: str) -> None:
    text = f"sqlite:///{text}" if key == "tracking.uri" else text
    with pytest.raises((ConfigError, TrackingError)) as caught:
        _ = paths.absolute(validate(override({}, [f"{key}={text}"]))).data.cache_folder
    assert str(caught.value).startswith(f"{key}: invalid value {text!r}; {message}")


@pytest.mark.parametrize("home", [None, ""])
def test_without_a_variable_the_home_is_that_of_the_user(home: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "") if home == "" else monkeypatch.delenv("HOME")
    assert validate({"run_dir": "~/x"}).run_dir == f"{pwd.getpwuid(os.getuid()).pw_dir}/x"

    def unknown(user: int) -> Any:
        raise KeyError(user)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(ConfigError, match=r"^run_dir: .* this user has no home folder; set HOME, or write the path"):
        validate({"run_dir": "~/x"})


def test_a_store_and_a_teacher() -> None:
    assert tracking.resolve_uri("sqlite:///$HOME/m.db") == "sqlite:////home/ann/m.db"
    config = paths.absolute(validate({"algorithm": {"name": "distill", "teacher": "~/run"}}))
    assert config.algorithm.model_extra == {"teacher": "/home/ann/run"}


def test_the_cache_is_expanded_where_it_is_used(tmp_path: Path) -> None:
    config = validate({"data": {"cache": "$HOME/c"}})
    assert str(config.data.cache_folder) == "/home/ann/c"
    assert str(validate({}).data.cache_folder) == "/home/ann/.cache/distmeta"
    directory.write_config(tmp_path / "config.yaml", validate({"tasks": {"a": {}}}))
    assert load_config(tmp_path / "config.yaml") == validate({"tasks": {"a": {}}})
