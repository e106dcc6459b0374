"""A reader of stdout or stderr that goes away: what it no longer takes is given up, and the command ends well."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distmeta.report.output import Outlet

# Stands for a long command: it prints, logs and draws, and says in a file that it came to its end.
COMMAND = """
import logging, pathlib, sys
from distmeta import cli

def check(*_):
    from distmeta.report.progress import Reporter
    with Reporter() as reporter:
        for number in range(2_000):
            reporter.note(f"line {number} " + "of many words " * 5)
    logging.getLogger("library").warning("said by a library")
    print("x" * 200_000)
    pathlib.Path("done").touch()
cli.app.registered_commands.clear()
cli.app.command("check")(lambda: check())
cli.app.callback()(lambda: None)
sys.argv = ["distmeta", "check"]
cli.main()
"""


@pytest.mark.parametrize("closed", ["stdout", "stderr", "both", "from the start"])
def test_a_command_goes_on_when_nobody_reads_what_it_prints(closed: str, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    words = [sys.executable, "-c", COMMAND]
    if closed == "from the start":
        words = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *words]
    with (tmp_path / "said").open("w") as file:
        out, err = (writer if closed in (name, "both") else file for name in ("stdout", "stderr"))
        process = subprocess.Popen(words, cwd=tmp_path, stdout=out, stderr=err)
    os.close(writer)
    if closed != "from the start":
        assert os.read(reader, 1)
    os.close(reader)
    code, said = process.wait(timeout=60), (tmp_path / "said").read_text()
    assert code == 0, said
    assert (tmp_path / "done").exists()
    assert "Traceback" not in said
    assert "BrokenPipe" not in said


@pytest.mark.parametrize("holds_results", [True, False])
def test_results_that_find_the_disk_full_are_no_success(
    holds_results: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as full:
        outlet = Outlet(full, holds_results)
        outlet.write("a text\n")
        if holds_results:
            with pytest.raises(SystemExit, match="2"):
                outlet.flush()
        else:
            outlet.flush()
    said = "distmeta: standard output: No space left on device; free some, or name another place\n"
    assert capsys.readouterr().err == (said if holds_results else "")
