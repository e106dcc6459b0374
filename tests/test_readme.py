"""What the README says is there."""

import re
from pathlib import Path

from distmeta.cli import app
from distmeta.config import RunConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_quickstart_is_two_commands_of_one_line() -> None:
    quickstart = README.split("\n## Quickstart\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", quickstart, flags=re.DOTALL)
    assert [block.count("\n") for block in blocks] == [1, 1]
    assert "distmeta train jobs/quickstart.yaml" in blocks[0]
    assert blocks[1].rstrip().endswith("pytest")


def test_the_commands_exist() -> None:
    commands = {command.callback.__name__ for command in app.registered_commands if command.callback}
    assert set(re.findall(r"^distmeta (\w+)", README, flags=re.MULTILINE)) == commands


def test_the_keys_exist() -> None:
    table = README.split("| key | meaning |")[1].split("\n\n")[0]
    section = ""
    keys = []
    for name in re.findall(r"`([a-z_]*\.[a-z_]+)`", "\n".join(line.split("|")[1] for line in table.splitlines()[2:])):
        section = name.split(".")[0] or section
        keys.append((section, name.split(".")[1]))
    assert len(keys) > 20
    for section, key in keys:
        assert key in RunConfig.model_fields[section].annotation.model_fields, (section, key)  # type: ignore[union-attr]


def test_the_files_exist() -> None:
    for name in re.findall(r"`((?:distmeta|tests|jobs)/[\w/.]*|[\w]+\.yaml)`", README):
        assert (ROOT / name).exists() or name in ("config.yaml", "best.yaml"), name
