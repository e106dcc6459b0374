"""The rooms of the package, and who may look into which: imports go down only."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "distmeta"
FILES = sorted(PACKAGE.rglob("*.py"))

# A room and what it may import of the others. Everything may import what FREE lists.
FREE = {"types", "protocols", "errors", "config", "settings", "params", "registry"}
MAY_IMPORT = {
    "types": {"protocols"},  # for the type checker alone
    "protocols": {"types", "config"},
    "errors": set(),
    "config": set(),
    "settings": set(),
    "registry": set(),
    "params": set(),
    "inner": set(),
    "features": set(),
    "reduction": set(),
    "checkpoint": set(),
    "figures": set(),
    "progress": set(),
    "shard": set(),
    "server": {"reduction", "shard"},
    "dispatch": set(),
    "coordinator": {"dispatch"},
    "tracking": set(),
    "models": set(),
    "stream": set(),
    "tasks": {"stream"},
    "algorithms": {"inner", "models"},  # of models only how parameter names are matched
    "worker": {"features", "reduction"},
    "backends": {"coordinator", "reduction", "shard"},
    "submit": set(),
    "runs": {"tracking"},
    "stop": set(),
    "setup": {"coordinator", "models", "server", "shard", "worker"},
    "teacher": {"checkpoint", "experiment", "runs", "setup", "tasks"},  # of experiment for the type checker alone
    "experiment": {"algorithms", "models", "setup", "stream", "tasks", "teacher"},
    "evaluate": {"backends", "experiment", "tasks"},
    "arrivals": {"backends", "evaluate", "experiment", "figures", "runs", "stream", "tasks", "tracking"},
    "open_run": {"backends", "experiment", "progress", "runs", "stop", "tracking"},
    "train": {"arrivals", "checkpoint", "evaluate", "figures", "open_run", "progress", "runs", "server"},
    "check": {"backends", "experiment", "progress", "tracking"},
    "compare": {"evaluate", "progress"},
    "tune": {
        *("backends", "checkpoint", "compare", "evaluate", "experiment", "open_run", "progress", "runs", "stop"),
        *("tracking", "train"),
    },
    "cli": {"check", "compare", "progress", "runs", "submit", "tracking", "train", "tune"},
}
HOMES = {
    "ray": {
        "backends/nodes.py",
        "backends/ray.py",
        "backends/server.py",
        "backends/shards.py",
        "backends/workers.py",
        "submit.py",
        "tune/execute.py",
        "tune/trial.py",
    },
    "mlflow": {"tracking/store.py", "tracking/tracker.py"},
    "datasets": {"tasks/sources.py"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return
    rooms = {name.split(".")[1] for name in imports(path) if name.startswith("distmeta.")}
    own = room(path)
    bare: dict[str, set[str]] = {name: set() for name in ("errors", "types", "protocols", "config")}
    free = {**bare, "settings": {"config", "errors"}}.get(own, FREE)
    assert rooms - free - {own} <= MAY_IMPORT[own]


@pytest.mark.parametrize("package", HOMES)
def test_a_heavy_package_has_one_home(package: str) -> None:
    users = {str(f.relative_to(PACKAGE)) for f in FILES if any(n.split(".")[0] == package for n in imports(f))}
    assert users == HOMES[package]


def test_configuration_and_distribution_never_see_an_algorithm() -> None:
    for name in ("coordinator.py", "dispatch.py", "server.py", "worker.py", "backends/ray.py", "backends/inprocess.py"):
        seen = {n for n in imports(PACKAGE / name) if n.startswith(("distmeta.algorithms", "distmeta.models"))}
        assert not seen, name


def test_files_can_be_read_in_a_sitting() -> None:
    long = {str(f.relative_to(PACKAGE)): n for f in FILES if (n := len(f.read_text().splitlines())) > 260}
    assert not long
