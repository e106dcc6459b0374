"""The parts of Ray that its documentation does not promise, all that distmeta uses. Tested with Ray 2.60.0.

`pyproject.toml` admits no later minor version; `tests/backends/test_private.py` names a part that a new one lacks.
Nothing here imports Ray, which takes a second, before it is used.

private_processes   no option keeps a Ray that is started here to this process: its addresses and its signals
resource_limits     no public function tells what a cluster that scales itself could have
error_text          the reason of a failed trial of Ray Tune is in a file; its public reader looks where that is later
HEALTH_CHECK        the command `ray` need not be on the PATH of an interpreter that can import Ray
LOGGERS             of the job client, which has no option to be quiet
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

HEALTH_CHECK = (sys.executable, "-m", "ray.scripts.scripts", "health-check")
LOGGERS = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env")


@contextlib.contextmanager
def private_processes() -> Iterator[None]:
    """Keeps the Ray that is started within to this process.

    It listens on loopback only, as it does by itself on macOS and Windows, and its processes are in groups of their
    own: a signal to this process's group, as `timeout` sends it, would end them before the step that is going on.
    """
    from ray._private import ray_constants, services

    usual = ray_constants.ENABLE_RAY_CLUSTER, services.ConsolePopen
    ray_constants.ENABLE_RAY_CLUSTER = False
    services.ConsolePopen = partial(services.ConsolePopen, process_group=0)
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER, services.ConsolePopen = usual


def resource_limits() -> dict[str, float]:
    """The most that the connected cluster could have of each resource; empty if it does not scale itself."""
    from ray._private.state import state

    return state.get_max_resources_from_cluster_config() or {}


def error_text(trial: Any) -> str:
    """The text of a trial's error, of a `ray.tune` trial that failed just now; empty if it has none."""
    path = trial.error_file and Path(trial.error_file)
    return path.read_text(encoding="utf-8").strip() if path and path.exists() else ""
