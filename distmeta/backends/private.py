"""All undocumented parts of Ray that distmeta uses. Tested with Ray 2.60.0.

`pyproject.toml` admits no later minor version; `tests/backends/test_private.py` names a part that a new one lacks.
Functions here import Ray only when they are called, since the import takes a second.

private_processes   no option makes a Ray that is started here private: its addresses and its signals
job_config          no option keeps the working directory off the search path of other processes
resource_limits     no public function gives the most that an autoscaling cluster could have
error_text          Ray Tune writes a failed trial's error to a file; the public reader looks where it is only later
HEALTH_CHECK        the command `ray` may not be on the PATH of an interpreter that can import Ray
ignore_rule         no public function tells which files a job's upload leaves out
LOGGERS             loggers of the job client, which has no option to be quiet
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

HEALTH_CHECK = (sys.executable, "-m", "ray.scripts.scripts", "health-check")
LOGGERS = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env")


@contextlib.contextmanager
def private_processes() -> Iterator[None]:
    """Makes a Ray that is started in this context private to this process.

    It listens on loopback only, which is the default on macOS and Windows. Its processes have their own process
    groups: otherwise a signal to this process's group, as `timeout` sends it, would end them in the middle of a step.
    Under `uv run` they use this process's environment: Ray would copy the working directory and build another one.
    """
    from ray._private import ray_constants, services

    originals = (
        ray_constants.ENABLE_RAY_CLUSTER,
        ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV,
        services.ConsolePopen,
    )
    ray_constants.ENABLE_RAY_CLUSTER = ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False
    services.ConsolePopen = partial(services.ConsolePopen, process_group=0)
    try:
        yield
    finally:
        (
            ray_constants.ENABLE_RAY_CLUSTER,
            ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV,
            services.ConsolePopen,
        ) = originals


def job_config() -> Any:
    """The job of this process. Its other processes look for modules only where this one does.

    Ray would add the working directory, where a file such as random.py hides the module of this name.
    """
    from ray.job_config import JobConfig

    config = JobConfig()
    config._py_driver_sys_path = _SearchPath()
    return config


class _SearchPath(list[str]):
    """The folders that Ray adds, without those where this process does not look."""

    def extend(self, folders: Iterable[str]) -> None:
        known = {str(Path(folder).absolute()) for folder in sys.path}
        super().extend(folder for folder in folders if folder in known)


def ignore_rule(lines: Iterable[str]) -> Callable[[str], bool]:
    """Whether lines of a .gitignore or .rayignore match a path, as Ray reads them."""
    from ray._private.thirdparty.pathspec import PathSpec

    matches: Callable[[str], bool] = PathSpec.from_lines("gitwildmatch", lines).match_file
    return matches


def resource_limits() -> dict[str, float]:
    """The most that the connected cluster could have of each resource; empty if it does not autoscale."""
    from ray._private.state import state

    return state.get_max_resources_from_cluster_config() or {}


def error_text(trial: Any) -> str:
    """The error text of a `ray.tune` trial that has just failed; empty if it has none."""
    path = trial.error_file and Path(trial.error_file)
    return path.read_text(encoding="utf-8").strip() if path and path.exists() else ""
