"""The commands of the page on serving, as they are written there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from serve_helpers import LocalService

from distmeta.serve.limits import MIB, Limits

PAGE = (Path(__file__).parents[2] / "jobs" / "serving.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_the_commands_and_the_code_of_the_page_work(tmp_path: Path) -> None:
    shutil.which("curl") or pytest.skip("needs curl")
    shell = next(text for language, text in BLOCKS if language == "bash" and "curl" in text)
    code = next(text for language, text in BLOCKS if language == "python")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    given: dict[str, Any] = {"cwd": tmp_path, "capture_output": True, "text": True, "env": environment}
    with LocalService(tmp_path).listening() as address:
        found = subprocess.run(["bash", "-ec", shell.replace("http://127.0.0.1:8000", address)], check=True, **given)
        assert '"predictions":[{"label":' in found.stdout
        subprocess.run([sys.executable, "-c", code.replace("http://127.0.0.1:8000", address)], check=True, **given)


def test_the_defaults_are_those_of_the_page() -> None:
    limits = Limits()
    written = [f"{limits.body_bytes // MIB}", f"{limits.texts}", f"{limits.characters}"]
    written += [f"{limits.classes}, {limits.examples}", f"{limits.tasks}", f"{limits.memory_bytes // MIB}"]
    written += [f"{limits.rate:g}", f"{limits.pending}", f"{limits.adaptations}"]
    assert re.findall(r"^\| `--.*?\| (.*?) \|", PAGE, flags=re.MULTILINE) == written
