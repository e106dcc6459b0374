"""What the pages say is there: commands, settings, files and links."""

import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import typer
import yaml

from distmeta.algorithms.base import registry as algorithms
from distmeta.cli import app
from distmeta.config import RunConfig, Section
from distmeta.config.load import load_config, override
from distmeta.models.base import registry as models
from distmeta.tasks.base import registry as kinds

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    path.relative_to(ROOT): path.read_text(encoding="utf-8")
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("jobs/*.md"), *ROOT.glob("distmeta/*.md")])
}
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
SECTIONS = {name: field.annotation for name, field in RunConfig.model_fields.items()}
OF_A_RUN = {"config.yaml", "best.yaml"}  # files that a run or a study writes

pages = pytest.mark.parametrize("page", PAGES, ids=str)


def inline(page: Path) -> list[str]:
    """What stands between backticks, on one line each."""
    prose = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.DOTALL | re.MULTILINE)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]


def blocks(page: Path) -> list[str]:
    """The lines of the blocks of commands; what a backslash continues is one line."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```", PAGES[page], flags=re.DOTALL | re.MULTILINE)
    found = [re.sub(r"\s*\\\n\s*", " ", block) for language, block in fences if language in ("", "bash")]
    return [line for block in found for line in block.splitlines()]


def commands(page: Path, program: str) -> Iterator[list[str]]:
    """The words after `program` of each command."""
    for line in [*blocks(page), *inline(page)]:
        without_note = re.split(r"\s{2,}", line.strip())[0]
        for command in re.findall(rf"(?<![\w/.-])(?:[\w./]+/)?{program} ([^&]*)", without_note):
            yield shlex.split(command)


def test_the_readme_can_be_read_in_a_sitting() -> None:
    assert len(README.splitlines()) <= 200


def test_the_quickstart_is_two_commands_of_one_line() -> None:
    quickstart = README.split("\n## Quickstart\n")[1].split("\n## ")[0]
    found = re.findall(r"```bash\n(.*?)```", quickstart, flags=re.DOTALL)
    assert [block.count("\n") for block in found] == [1, 1]
    assert "distmeta train jobs/quickstart.yaml" in found[0]
    assert found[1].rstrip().endswith("pytest")


def test_the_readme_names_every_command() -> None:
    assert set(re.findall(r"^distmeta (\w+)", README, flags=re.MULTILINE)) == set(COMMANDS)


def test_the_jobs_page_has_a_section_for_every_recipe() -> None:
    sections = re.findall(r"^## (\w+)$", PAGES[Path("jobs/README.md")], flags=re.MULTILINE)
    assert set(sections) == {path.stem for path in (ROOT / "jobs").glob("*.yaml")}


@pages
def test_the_commands_are_accepted(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its options, and with its settings where it names a file of `jobs/`."""
    monkeypatch.chdir(ROOT)
    for name, *arguments in commands(page, "distmeta"):
        assert name in COMMANDS
        if not arguments:  # only named
            continue
        # Raises for an unknown option or a missing argument.
        given = COMMANDS[name].make_context(name, list(arguments)).params
        if str(config := given.get("config")).startswith("jobs/"):
            accept(config, given["overrides"] or [])


@pages
def test_the_scripts_are_there_and_accept_their_settings(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for script, *arguments in commands(page, "python"):
        if not script.startswith("jobs/"):
            continue
        assert Path(script).exists(), script
        if (needed := {"benchmark_data": ["FOLDER"], "benchmark_serve": ["RUN"]}.get(Path(script).stem)) is not None:
            assert arguments == needed
            continue
        if Path(script).stem == "benchmark_use":
            assert arguments[0] == "RUN"
            assert set(arguments[2::2]) <= {"--shots", "--episodes", "--setfit", "--out", "--beside"}
            continue
        file, settings = arguments[0], [word for word in arguments if "=" in word]
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        match Path(script).stem:
            case "leaderboard":
                accept(content[arguments[1]]["config"], settings)
            case "scale":
                assert set(override({}, settings)) <= set(content), arguments
            case "chaos":
                accept(file, settings)
            case other:
                pytest.fail(f"{other}: say here what its arguments are")


@pages
def test_the_keys_exist(page: Path) -> None:
    """Keys between backticks such as `outer.lr` or `outer.lr=0.1`; `.steps` is of the section of the key before it."""
    section = ""
    for code in inline(page):
        for word in code.split():
            match = re.match(r"['\"]?([a-z_]*)\.([a-z_]+)(?![\w/])", word)
            if not match or match[2] in ("yaml", "py", "md", "db"):
                continue
            if match[1]:
                section = match[1]
            if section in SECTIONS:
                assert match[2] in keys(section), word
            else:
                assert match[1], f"{word}: of which section?"


def accept(config: str, settings: list[str]) -> None:
    """Loads a configuration; that leaves the options of models and algorithms to be looked at here."""
    load_config(config, settings)
    for setting in settings:
        section, dot, rest = setting.partition("=")[0].partition(".")
        assert not dot or rest.split(".")[0] in keys(section), setting


def keys(section: str) -> set[str]:
    """All keys of a section, the options of models, algorithms and kinds of tasks among them."""
    known = {name for part in parts(SECTIONS[section]) for name in part.model_fields}
    if registry := {"algorithm": algorithms, "model": models, "data": kinds}.get(section):
        known |= {field.name for name in registry.names() for field in dataclasses.fields(registry.get(name))}
    return known


def parts(annotation: object) -> list[type[Section]]:
    """The class of a section that may be optional; none for a plain value."""
    options = get_args(annotation) or (annotation,)
    return [part for part in options if isinstance(part, type) and issubclass(part, Section)]


@pages
def test_the_files_exist(page: Path) -> None:
    for code in inline(page):
        for name in re.findall(r"(?<![\w./])((?:distmeta|tests|jobs)/[\w/.]*|[\w]+\.yaml)(?![\w*=])", code):
            assert (ROOT / name).exists() or name in OF_A_RUN, name


@pages
def test_the_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (ROOT / page.parent / path).resolve() if path else ROOT / page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked.read_text(encoding="utf-8")), target


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of headings."""
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
