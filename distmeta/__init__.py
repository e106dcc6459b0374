"""Ray-distributed meta-training for language: learn a new text task from a handful of examples.

From Python: `train`, `evaluate`, `load` and `load_task`. `distmeta.registries()` gives the registries `algorithms`,
`models`, `heads` and `families`. Nothing heavy is imported before one of them is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distmeta.config import RunConfig
    from distmeta.registry import Registry
    from distmeta.use.learner import Learner
    from distmeta.use.task import Task

__all__ = ["evaluate", "load", "load_task", "registries", "train"]
__version__ = "0.1.0"


def train(config: str | Path | Mapping[str, Any] | RunConfig, **overrides: Any) -> dict[str, Any]:
    """Meta-trains, then evaluates on meta-test, like ``distmeta train``.

    Args:
        config: a YAML file, its content as nested mappings, or a `RunConfig`.
        overrides: settings by dotted key, such as ``**{"outer.steps": 50}``, or with ``__`` for the dot:
            ``outer__steps=50``.

    Returns:
        The figures that ``distmeta train --json`` prints, such as `meta_test` and `run_dir`.

    Raises:
        UserError: a mistake in the settings, the data or the environment, before anything is written.
    """
    from distmeta.config import RunConfig
    from distmeta.config.load import chosen, default_run_dir, load_config, remember, set_value, validate
    from distmeta.report.progress import Reporter
    from distmeta.runs import train as driver
    from distmeta.runs.settings import fitting

    name: str | Path = "notebook"
    if isinstance(config, str | Path):
        name, config = config, load_config(config)
    content = config.model_dump(mode="json") if isinstance(config, RunConfig) else _copy(config)
    names, changes = chosen(content), {key.replace("__", "."): value for key, value in overrides.items()}
    for key, value in changes.items():
        set_value(content, key, value)
    settings = validate(content)
    remember(settings, names, list(changes))
    settings.came_from(config.source if isinstance(config, RunConfig) else None)
    run_dir = Path(settings.run_dir) if settings.run_dir else default_run_dir(name)
    with Reporter() as reporter:
        return driver.train(fitting(settings, reporter.note), run_dir, reporter)


def evaluate(run: str | Path, step: int | None = None, **overrides: Any) -> dict[str, Any]:
    """Evaluates a run's checkpoint on meta-test, the newest or that of `step`, like ``distmeta evaluate``.

    Args:
        run: the run's directory or MLflow run id.
        step: the checkpoint's outer step.
        overrides: settings as for `train`; they must not change the training.

    Returns:
        The figures that ``distmeta evaluate --json`` prints.
    """
    import json

    from distmeta.report.progress import Reporter
    from distmeta.runs import train as driver
    from distmeta.runs.directory import resolve

    settings = [f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in overrides.items()]
    with Reporter() as reporter:
        return driver.evaluate(resolve(str(run), settings), settings, reporter, step)


def load(path: str | Path) -> Learner:
    """Reads a meta-trained learner. It needs neither the training data nor the weights that training started from.

    Args:
        path: a run's directory, a copy of its folder `learner`, or ``models:/NAME@ALIAS`` of one that was registered.

    Raises:
        CheckpointError: there is none, it has another format, or a file was altered.
        TrackingError: it is not in MLflow's store.
    """
    from distmeta.use.learner import load as read

    return read(_place(path))


def load_task(path: str | Path) -> Task:
    """Reads a task that was saved with `Task.save` or by ``distmeta adapt``. It needs nothing but its folder.

    Args:
        path: the task's folder, or ``models:/NAME@ALIAS`` of one that was registered.

    Raises:
        CheckpointError: there is none, it has another format, or a file was altered.
        TrackingError: it is not in MLflow's store.
    """
    from distmeta.use.saved import load_task as read

    return read(_place(path))


def registries() -> dict[str, Registry]:
    """The registries of algorithms, models, heads and task families: ``registries()["models"].names()``."""
    from distmeta.algorithms.base import registry as algorithms
    from distmeta.models.base import registry as models
    from distmeta.models.heads.base import registry as heads
    from distmeta.tasks.base import registry as families

    return {"algorithms": algorithms, "models": models, "heads": heads, "families": families}


def _place(path: str | Path) -> str | Path:
    """The folder of what is registered in MLflow; another path as it is."""
    if not str(path).startswith("models:/"):
        return path
    from distmeta.runs.directory import place

    return place(str(path))


def _copy(content: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested mappings, so that overrides do not change the caller's object."""
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in content.items()}
