"""The rooms of the package, and who may look into which: imports go down only."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "distmeta"
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {
    ".".join(("distmeta", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in FILES
}

# From the ground up. A room may look into those before it; what stands beside the rooms is the nouns of all.
GROUND = {"errors", "config", "registry", "storage", "types", "protocols"}
MAY_IMPORT = {
    "tracking": set(),
    "data": set(),
    "report": set(),
    "models": set(),
    "algorithms": {"models"},  # only how parameter names are matched
    "tasks": {"data"},
    "engine": {"models"},
    "backends": {"engine", "tracking"},  # only what hides passwords
    "use": {"algorithms", "data", "engine", "models", "report", "tasks"},
    "serve": {"backends", "report", "use"},
    "runs": {"algorithms", "backends", "data", "engine", "models", "report", "tasks", "tracking", "use"},
    "tune": {"backends", "engine", "report", "runs", "tracking"},
    "cli": {"backends", "data", "report", "runs", "serve", "tracking", "tune", "use"},
}
HOMES = {
    "ray": {"backends", "serve", "tune"},
    "mlflow": {"tracking"},
    "datasets": {"data"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in inside if name in MODULES} or {node.module}
    return found


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_imports_go_down_only() -> None:
    for path in FILES:
        if path == PACKAGE / "__init__.py":
            continue
        rooms = {name.split(".")[1] for name in imports(path) if name.startswith("distmeta.")}
        allowed = GROUND | MAY_IMPORT.get(room(path), set()) | {room(path)}
        assert rooms <= allowed, f"{path.relative_to(PACKAGE)} looks into {rooms - allowed}"


def test_no_two_files_import_each_other_in_a_circle() -> None:
    """Not even for the type checker."""
    above = {name: (imports(path) & MODULES.keys()) - {name} for name, path in MODULES.items()}
    while free := [name for name, others in above.items() if not others]:
        above = {name: others.difference(free) for name, others in above.items() if name not in free}
    assert not above


def test_a_heavy_package_has_one_home() -> None:
    for package, homes in HOMES.items():
        users = {room(path) for path in FILES if any(name.split(".")[0] == package for name in imports(path))}
        assert users == homes, package


def test_private_parts_of_libraries_have_one_file_a_room() -> None:
    for path in FILES:
        private = {name for name in imports(path) if "._" in name}
        assert not private or path.name == "private.py", f"{path.relative_to(PACKAGE)} imports {private}"


def test_the_engine_and_the_backends_never_see_an_algorithm_or_a_family() -> None:
    for path in [*(PACKAGE / "engine").glob("*.py"), *(PACKAGE / "backends").glob("*.py")]:
        seen = {name for name in imports(path) if name.startswith(("distmeta.algorithms", "distmeta.tasks"))}
        assert not seen, path


def test_files_can_be_read_in_a_sitting() -> None:
    long = {str(f.relative_to(PACKAGE)): n for f in FILES if (n := len(f.read_text().splitlines())) > 260}
    assert not long
