"""What a cluster offers and what the workers ask for. Needs no connection to Ray."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from distmeta.backends.private import HEALTH_CHECK
from distmeta.config import ClusterConfig
from distmeta.errors import ClusterError, TokenError

CONNECT_SECONDS, ANSWER_SECONDS = 3, 8  # for a cluster's port to open, and for it to say that it is healthy


def cluster_address(cluster: ClusterConfig) -> str | None:
    """The cluster to join: as configured, or the one that this process was submitted to. None for a private Ray."""
    return cluster.address or os.environ.get("RAY_ADDRESS") or None


def preflight(cluster: ClusterConfig) -> None:
    """Refuses an address for which there is no token or where no Ray answers and, on this machine, too many GPUs.

    Starts nothing. In the environment, token authentication is on afterwards unless that says otherwise.

    Raises:
        ClusterError: naming the key.
    """
    address = cluster_address(cluster)
    if cluster.backend == "ray" and address:
        require_token(address)
        require_answer(address)
    else:
        gpus_per_worker(cluster, torch.cuda.device_count())


def gpus_per_worker(cluster: ClusterConfig, available: float) -> float:
    """GPUs each worker gets: as configured, else an equal share of those there are, one at most.

    Raises:
        ClusterError: more are asked for than there are.
    """
    if cluster.gpus_per_worker is None:
        share = available / cluster.range.min
        return 1.0 if share >= 1 else math.floor(share * 100) / 100
    require("cluster.gpus_per_worker", "GPUs", cluster.range.min * cluster.gpus_per_worker, available)
    return cluster.gpus_per_worker


def usable_cpus(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """CPUs that this process may use: those it is bound to, and no more than its container or job has time of.

    Ray itself looks at the container alone, and Python at neither.
    """
    bound = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, math.floor(min([bound, *_quotas(cgroups, own)])))


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """CPUs that each control group around this process has time of, in both versions of Linux's cgroups."""
    lines = own.read_text(encoding="utf-8").splitlines() if own.exists() else []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = cgroups / controllers
        # A container may be told its path as its host sees it, and find its own group at the top.
        for folder in (top / path.strip("/"), *(top / path.strip("/")).parents):
            if not folder.is_relative_to(top):
                break
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
            if all((folder / name).exists() for name in names):
                quota, period = " ".join((folder / name).read_text(encoding="utf-8") for name in names).split()
                if quota not in ("max", "-1"):
                    yield int(quota) / int(period)


def require(key: str, kind: str, wanted: float, available: float) -> None:
    """Raises a `ClusterError` where the cluster never has enough of a resource."""
    if wanted > available:
        raise ClusterError(
            key,
            f"the workers ask for {wanted:g} {kind} together, the cluster has {available:g}",
            "ask for fewer",
        )


def require_token(address: str) -> None:
    """Turns token authentication on, unless the environment says otherwise: whoever reaches a cluster runs code there.

    Raises:
        TokenError: there is no token where Ray looks for it, https://docs.ray.io/en/latest/ray-security/token-auth.html
    """
    if os.environ.setdefault("RAY_AUTH_MODE", "token") != "token":
        return
    given = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if not given and not (Path.home() / ".ray" / "auth_token").exists():
        raise TokenError(
            "cluster.address", f"no token for the Ray at {address} (RAY_AUTH_MODE=disabled: it needs none)"
        )


def require_answer(address: str) -> None:
    """Raises a `ClusterError` where no Ray answers at an address, or only to another token."""
    if "://" in address:
        raise ClusterError(
            "cluster.address",
            f"{address} is not host:port",
            "run on the cluster with `distmeta submit CONFIG --address http://head:8265`",
        )
    remedy = "start one with `ray start --head`, or leave the key out for a private Ray"
    silent = ClusterError("cluster.address", f"no Ray answers at {address}", remedy)
    command = [*HEALTH_CHECK]
    if address != "auto":
        command += ["--address", address]
        host, _, port = address.rpartition(":")
        if not port.isdigit():
            raise ClusterError("cluster.address", f"{address} is not host:port", "write for example 10.0.0.5:6379")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            raise silent from error
    try:
        # In a process of its own: ray's own attempts to connect cannot be interrupted.
        result = subprocess.run(command, timeout=ANSWER_SECONDS, capture_output=True, check=False)
    except subprocess.TimeoutExpired as error:
        raise silent from error
    if b"AuthenticationError" in result.stdout + result.stderr:
        raise TokenError("cluster.address", f"the Ray at {address} wants another token")
    if result.returncode:
        raise silent
