"""Lint, format and types, with the settings of pyproject.toml."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMANDS = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"])


def test_the_code_is_clean() -> None:
    for command in COMMANDS:
        result = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
