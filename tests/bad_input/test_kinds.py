"""Whatever a user gets wrong: one line that names it, exit code 2, no traceback, nothing half-written."""

import shlex
from pathlib import Path

import pytest
import yaml
from bad_input.commands import fail, files, write
from bad_input.kinds_of_configurations import CONFIGURATIONS
from bad_input.kinds_of_files import FILES
from bad_input.kinds_of_runs import RUNS
from bad_input.kinds_of_settings import SETTINGS
from bad_input.kinds_of_words import WORDS
from toy import toy_settings

KINDS = [*CONFIGURATIONS, *FILES, *RUNS, *SETTINGS, *WORDS]
IN_TRAINING = ["prototypes without classes", "too few examples", "model folder without weights"]


class Refused:
    """Runs a command in a folder with a good configuration; it must be refused in one line, and leave no file."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._capsys, self._monkeypatch = folder, capsys, monkeypatch
        monkeypatch.chdir(folder)
        write(folder / "config.yaml", yaml.safe_dump(toy_settings(folder, run_dir="run")))

    def __call__(self, *words: str) -> str:
        before = files(self.folder)
        line = fail(list(words), self._capsys, self._monkeypatch)
        assert {p for p in files(self.folder) - before if p.suffix != ".lock" and p.name != "mlartifacts"} == set()
        return line


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    return Refused(tmp_path, capsys, monkeypatch)


def test_there_are_many_kinds() -> None:
    """Each of them is a test below: it is refused, with the words that name it and a remedy."""
    assert len(KINDS) >= 200


@pytest.mark.parametrize("kind", SETTINGS)
def test_settings(kind: str, refused: Refused) -> None:
    assert SETTINGS[kind] in refused("check", "config.yaml", kind)


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_configurations(kind: str, refused: Refused) -> None:
    content, words = CONFIGURATIONS[kind]
    write(refused.folder / "other.yaml", content)
    assert words in refused("check", "other.yaml")


@pytest.mark.parametrize("kind", WORDS)
def test_words_of_a_command(kind: str, refused: Refused) -> None:
    assert WORDS[kind] in refused(*shlex.split(kind))


@pytest.mark.parametrize("kind", FILES)
def test_files_of_data(kind: str, refused: Refused) -> None:
    content, words = FILES[kind]
    (refused.folder / "set").mkdir()
    write(refused.folder / "set" / kind, content)
    assert words in refused("check", "config.yaml", f"data.path=set/{kind}")


@pytest.mark.parametrize(
    ("command", "kind"), [*(("check", kind) for kind in RUNS), *(("train", kind) for kind in IN_TRAINING)]
)
def test_what_does_not_go_together(command: str, kind: str, refused: Refused) -> None:
    make, words = RUNS[kind]
    content = toy_settings(refused.folder, run_dir="run", **make(refused.folder))
    write(refused.folder / "config.yaml", yaml.safe_dump(content))
    assert words in refused(command, "config.yaml")
