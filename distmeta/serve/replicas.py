"""Replicas on Ray Serve: each has the learner, answers in batches across tasks, and can be lost at any time.

They are called by handle. Serve's own HTTP proxy is not started: it takes in a body of any length before a replica can
refuse it, and it passes the error on when a replica dies in the middle of a request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError

from distmeta.backends.ray import RayBackend
from distmeta.config import ClusterConfig
from distmeta.config.cluster import Workers
from distmeta.serve.desk import Asked, Desk
from distmeta.serve.limits import Limits, Refusal
from distmeta.serve.service import UnavailableError

NAME = "distmeta"
BATCH = 64  # requests that are answered at once
ONGOING = 512  # requests that a replica takes in; it answers them in batches
TARGET = 32  # requests that wait at a replica before there is another one
TRIES = 5  # of a request whose replica is lost
# Serve's defaults wait half a minute before there is another replica, and ten before there is one fewer.
SCALING = {"metrics_interval_s": 1, "look_back_period_s": 5, "upscale_delay_s": 3, "downscale_delay_s": 120}
CHECK_SECONDS, CHECK_LIMIT_SECONDS = 1.0, 30.0
QUIET = {"log_level": "WARNING", "enable_access_log": False}


class Replica:
    """A process that computes. See `distmeta.serve.desk.Desk` for the arguments."""

    def __init__(self, learner: str, tasks: str, limits: Limits) -> None:
        import torch

        torch.set_num_threads(1)  # replicas, not threads, use the other cores
        self._desk = Desk(learner, tasks, limits)
        self._answering, self._learning = ThreadPoolExecutor(1), ThreadPoolExecutor(1)

    async def create(self, task: str, request: dict[str, Any]) -> Any:
        """See `Desk.create`."""
        return await asyncio.get_running_loop().run_in_executor(self._learning, self._desk.create, task, request)

    async def grow(self, task: str, request: dict[str, Any]) -> Any:
        """See `Desk.grow`."""
        return await asyncio.get_running_loop().run_in_executor(self._learning, self._desk.grow, task, request)

    async def predict(self, asked: Asked) -> Any:
        """See `Desk.predict`."""
        return await self._together(asked)

    # While one batch is computed the next one gathers, so there is nothing to wait for.
    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=0.0)  # type: ignore[untyped-decorator]
    async def _together(self, asked: list[Asked]) -> list[Any]:
        return await asyncio.get_running_loop().run_in_executor(self._answering, self._desk.predict, asked)


class RayReplicas:
    """Calls replicas. A request whose replica is lost goes to another one: each call may be repeated."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def create(self, task: str, request: dict[str, Any]) -> dict[str, Any] | Refusal:
        """See `Desk.create`."""
        found: dict[str, Any] | Refusal = await self._call("create", task, request)
        return found

    async def grow(self, task: str, request: dict[str, Any]) -> dict[str, Any] | Refusal:
        """See `Desk.grow`."""
        found: dict[str, Any] | Refusal = await self._call("grow", task, request)
        return found

    async def predict(self, asked: Asked) -> list[dict[str, Any]] | Refusal:
        """The predictions of a request."""
        found: list[dict[str, Any]] | Refusal = await self._call("predict", asked)
        return found

    def running(self) -> int:
        """How many replicas run."""
        applications = serve.status().applications
        if NAME not in applications:
            return 0
        deployments = applications[NAME].deployments.values()
        return sum(its.replica_states.get("RUNNING", 0) for its in deployments)

    async def _call(self, method: str, *arguments: Any) -> Any:
        for _ in range(TRIES):
            try:
                return await getattr(self._handle, method).remote(*arguments)
            except RayActorError:
                continue
            except DeploymentUnavailableError as error:
                raise UnavailableError from error
        raise UnavailableError


@contextmanager
def replicas(
    learner: str, tasks: str, limits: Limits, count: Workers, listen: Callable[[], object]
) -> Iterator[RayReplicas]:
    """Starts a private Ray and waits until the first replicas run; ends them afterwards.

    Args:
        learner: see `Desk`.
        tasks: see `Desk`.
        limits: see `Desk`.
        count: how many replicas there are; within a range, as many as the load needs.
        listen: called when Ray has started, which has set its own handlers of signals.

    Raises:
        ClusterError: Ray did not start on this machine.
    """
    with RayBackend(ClusterConfig(address="local", workers=count.max)):
        listen()
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        serve.start(proxy_location="Disabled", logging_config=QUIET)
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        scaling: dict[str, Any] = {"num_replicas": count.min}
        if count.max > count.min:
            scaling = {
                "autoscaling_config": {
                    "min_replicas": count.min,
                    "max_replicas": count.max,
                    "target_ongoing_requests": TARGET,
                    **SCALING,
                }
            }
        deployment = serve.deployment(
            Replica,
            name="Replica",
            max_ongoing_requests=ONGOING,
            ray_actor_options={"num_cpus": 1},
            health_check_period_s=CHECK_SECONDS,
            health_check_timeout_s=CHECK_LIMIT_SECONDS,
            graceful_shutdown_timeout_s=5,
            graceful_shutdown_wait_loop_s=0.1,
            logging_config=QUIET,
            **scaling,
        )
        handle = serve.run(deployment.bind(learner, tasks, limits), name=NAME, route_prefix=None, logging_config=QUIET)
        yield RayReplicas(handle)
