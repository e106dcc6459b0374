"""A command that must be refused, and the files of its folder."""

import sys
from pathlib import Path

import pytest

from distmeta import cli
from distmeta.errors import LINE

PREFIX = "distmeta: "


def fail(arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a command that must be refused; returns its one line."""
    code, out, err = run(arguments, capsys, monkeypatch)
    assert code == 2, err
    assert out == ""
    assert is_one_line(err), err
    return err


def run(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[object, str, str]:
    """The exit code, stdout and stderr of a command."""
    monkeypatch.setattr(sys, "argv", ["distmeta", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code, *capsys.readouterr()


def is_one_line(err: str) -> bool:
    return err.startswith(PREFIX) and err.count("\n") == 1 and len(err) <= len(PREFIX) + LINE + 1


def files(folder: Path) -> set[Path]:
    return {p for p in folder.rglob("*") if "cache" not in p.parts}


def write(path: Path, content: bytes | str) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)
