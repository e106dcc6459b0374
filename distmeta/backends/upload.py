"""What of the working directory a job takes to the cluster, and what stays behind."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distmeta.backends.private import ignore_rule
from distmeta.config.base import is_path
from distmeta.errors import ConfigError

EXCLUDES = [
    *(".git", ".venv", "venv", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", "*.egg-info"),
    *("/runs", "/mlruns", "/mlartifacts", "/mlflow.db*"),
    # Secrets: all who use the cluster can read uploaded files.
    *(".env", ".env.*", "*.env", ".envrc", ".netrc", "_netrc", ".git-credentials", ".pgpass", ".pypirc", ".npmrc"),
    *(".aws", ".azure", ".gcloud", ".kube", ".ssh", ".gnupg", ".docker", ".databrickscfg"),
    *("*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "id_rsa*", "id_ecdsa*", "id_ed25519*"),
]
EVERYWHERE = "or give an absolute path that all nodes have"
_FILES = re.compile(r"(?:tasks\..*\.)?data\.(?:path|splits)|model\.path|algorithm\.teacher")


def strings(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All strings of a configuration, each with its dotted key."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from strings(value, f"{key}.{name}" if key else str(name))
    elif isinstance(content, list):
        for value in content:
            yield from strings(value, key)
    elif isinstance(content, str):
        yield key, content


def check_uploaded(config: str | Path, content: Mapping[str, Any], top: Path) -> list[str]:
    """Checks that what a configuration names by a relative path will be on the cluster.

    Args:
        config: the configuration's own file.
        content: the configuration.
        top: the directory to upload, absolute.

    Returns:
        Remarks on files of a named folder that stay behind while others of it are uploaded.

    Raises:
        ConfigError: something that is named does not exist, or is not uploaded.
    """
    if not Path(config).resolve().is_relative_to(top):
        raise ConfigError(str(config), f"not inside {top}, which is uploaded", "run this in a folder that contains it")
    remarks: list[str] = []
    named = [(key, text) for key, text in strings(content) if _FILES.fullmatch(key)]
    for key, name in [("CONFIG", str(Path(config).resolve().relative_to(top))), *named]:
        if name == "-":
            raise ConfigError(key, "a job has no standard input", f"name a file in {top}, {EVERYWHERE}")
        if not is_path(name) or name.startswith(("/", "~")):
            continue
        path = Path(os.path.normpath(top / name))
        if not path.is_relative_to(top) or not path.resolve().is_relative_to(top):
            raise ConfigError(key, f"{name!r} is not inside {top}, which is uploaded", f"move it there, {EVERYWHERE}")
        if not path.exists():
            raise ConfigError(key, f"{name!r} does not exist in {top}, which is uploaded", f"correct it, {EVERYWHERE}")
        files = _files(path)
        if behind := _left_behind(files, top):
            file, rule = behind[0]
            where = file.relative_to(top).as_posix()
            if len(behind) == len(files):
                found = f"{where} is not uploaded, because of {rule}"
                raise ConfigError(key, found, f"change that or move the file, {EVERYWHERE}")
            remarks.append(
                f"{key}: {len(behind)} of {len(files)} files are not uploaded, such as {where}, because of {rule}"
            )
    return remarks


def _files(path: Path) -> list[Path]:
    """A file, or the files of a folder without hidden ones."""
    if path.is_file():
        return [path]
    below = (file for file in sorted(path.rglob("*")) if file.is_file())
    return [file for file in below if not any(part.startswith(".") for part in file.relative_to(path).parts)]


def _left_behind(files: Sequence[Path], top: Path) -> list[tuple[Path, str]]:
    """The files that Ray does not upload, each with what says so."""
    rules: dict[Path, list[tuple[str, Callable[[str], bool]]]] = {}

    def reason(file: Path) -> str | None:
        # As Ray does it: each folder on the way to the file is matched by the rules of the folders that hold it.
        way = [file, *file.parents]
        way = way[: way.index(top) + 1][::-1]
        for depth, here in enumerate(way):
            if here not in rules:
                rules[here] = _rules(here, here == top)
            for base in way[: depth + 1]:
                for where, matches in rules[base]:
                    if matches(str(here.relative_to(base))):
                        return where
        return None

    return [(file, why) for file in files if (why := reason(file))]


def _rules(folder: Path, is_top: bool) -> list[tuple[str, Callable[[str], bool]]]:
    """What excludes files below a folder: a name for it, and a function of the path from that folder."""
    rules = [("what distmeta never uploads (secrets, caches, runs)", ignore_rule(EXCLUDES))] if is_top else []
    read = [".rayignore"] if os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE") == "1" else [".gitignore", ".rayignore"]
    found = [folder / name for name in read if (folder / name).is_file()]
    return rules + [
        (str(path), ignore_rule(path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()))
        for path in found
    ]
