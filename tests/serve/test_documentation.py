"""The commands of the page on serving, and those of the README that serve, as they are written there."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from serve_helpers import LocalService
from use_helpers import untrained

from distmeta.serve.limits import MIB, Limits

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "jobs" / "serving.md").read_text(encoding="utf-8")
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


@pytest.mark.slow
def test_the_readme_serves_and_asks(tmp_path: Path) -> None:
    """As in two terminals: the first command installs and serves, with a stand-in for pip; the rest is the other's."""
    shutil.which("curl") or pytest.skip("needs curl")
    pytest.importorskip("grpc_reflection", reason="needs the serve extra")
    use = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Use it\n")[1].split("\n## ")[0]
    _, block = re.findall(r"^```bash\n(.*?)^```", use, flags=re.DOTALL | re.MULTILINE)
    serving, asking = block.split("\n", 1)
    untrained(tmp_path, "protonet").save(tmp_path / "runs" / "quickstart-1" / "learner")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name, command in (("pip", "echo"), ("distmeta", f"exec {sys.executable} -m distmeta.cli")):
        (tmp_path / ".venv" / "bin" / name).write_text(f'#!/bin/sh\n{command} "$@"\n')
        (tmp_path / ".venv" / "bin" / name).chmod(0o755)
    given: dict[str, Any] = {"cwd": tmp_path, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    given["env"] = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    service = subprocess.Popen(["bash", "-ec", f"{serving} --port 0"], start_new_session=True, **given)
    try:
        assert service.stderr is not None
        said = next(line for line in service.stderr if "serving at " in line)
        address = said.partition("serving at ")[2].partition(",")[0]
        asking = asking.replace("http://127.0.0.1:8000", address)
        found = subprocess.run(["bash", "-ec", asking], check=True, **given).stdout
        assert json.loads(found)["classes"] == ["keylogging", "screenshots"], found
    finally:
        os.killpg(service.pid, signal.SIGTERM)
        out, _ = service.communicate(timeout=60)
    assert "install -q -e .[serve]" in out
