"""The paths in a run's configuration: absolute ones, and where they are after a move."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from distmeta import tracking
from distmeta.config import DataConfig, RunConfig
from distmeta.config.base import expand, is_path
from distmeta.config.places import moved
from distmeta.config.tasks import NAMES
from distmeta.errors import ConfigError

FOLDERS = ("teacher",)  # options of algorithms that name a folder


def absolute(config: RunConfig) -> RunConfig:
    """The configuration with absolute paths, so that its run can go on from any directory."""
    return _with_paths(config, lambda path: Path(expand(path)).absolute())


def beside(config: RunConfig, run_dir: Path, note: Callable[[str], None]) -> RunConfig:
    """The configuration of a run that may have been moved with the folders around it.

    A file that is no longer where it was is looked for at the same place below a folder around the run, the nearest
    first. `note` gets one remark on what was found. Another file than before is refused later: data, weights and the
    MLflow run are known by their content.
    """
    elsewhere: dict[str, None] = {}

    def found(text: str) -> Path:
        path, now = Path(text), moved(Path(text), run_dir.absolute().parents)
        if now != path:
            elsewhere[str(now)] = None
        return now

    config = _with_paths(config, found)
    if elsewhere:
        note(f"note: the run was moved; found beside it: {', '.join(elsewhere)}")
    return config


def _with_paths(config: RunConfig, change: Callable[[str], Path]) -> RunConfig:
    """The configuration with a change to each path in it."""

    def full(path: Any, key: str = "") -> Any:
        if not isinstance(path, str) or not is_path(path):
            return path
        try:
            return str(change(path))
        except ValueError as error:
            raise ConfigError(key, f"invalid value {path!r}", str(error)) from error

    def here(data: DataConfig) -> DataConfig:
        # What names a home or a variable is another folder on each machine.
        cache = data.cache if data.cache.startswith(("~", "$")) else full(data.cache, "data.cache")
        about = data.descriptions if data.descriptions == NAMES else full(data.descriptions)
        changes = {"path": full(data.path), "splits": full(data.splits), "descriptions": about, "cache": cache}
        return data.model_copy(update=changes)

    families = {name: task.model_copy(update={"data": here(task.data)}) for name, task in config.tasks.items()}
    options = config.algorithm.model_extra or {}
    folders = {key: full(value, f"algorithm.{key}") for key, value in options.items() if key in FOLDERS}
    tune = config.tune
    if tune:
        space = dict(tune.space)
        for key in {"model.path", *(f"algorithm.{name}" for name in FOLDERS)} & space.keys():
            if space[key].is_list:
                values = [full(value, f"tune.space.{key}") for value in space[key].values or []]
                space[key] = space[key].model_copy(update={space[key].kind: values})
        tune = tune.model_copy(update={"space": space})
    store = tracking.resolve_uri(config.tracking.uri)
    if store.startswith("sqlite:///"):
        store = tracking.address(change(str(tracking.database(store))), store)
    return config.model_copy(
        update={
            "data": here(config.data),
            "tasks": families,
            "model": config.model.model_copy(update={"path": full(config.model.path)}),
            "algorithm": config.algorithm.model_copy(update=folders),
            "tune": tune,
            # A server's address may hold a password: it is read from the environment again.
            "tracking": config.tracking.model_copy(update={"uri": store} if store.startswith("sqlite:") else {}),
        }
    )
