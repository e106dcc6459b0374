"""Compares what a cluster offers with what the workers ask for. Needs no connection to Ray."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from distmeta.backends.machine import ray_folder, require_limits
from distmeta.backends.private import HEALTH_CHECK
from distmeta.config import ClusterConfig
from distmeta.errors import ClusterError, TokenError

CONNECT_SECONDS, ANSWER_SECONDS = 3, 8  # limits: to connect to a cluster's port, and for its health check


def cluster_address(cluster: ClusterConfig) -> str | None:
    """The cluster to join: as configured, or the one that this process was submitted to. None for a private Ray."""
    address = cluster.address or os.environ.get("RAY_ADDRESS") or "local"
    return None if address == "local" else address


def preflight(cluster: ClusterConfig) -> None:
    """Checks that an address has a token and a Ray that answers or, on this machine, that there are enough GPUs.

    Starts nothing. For an address it sets RAY_AUTH_MODE=token in the environment, unless RAY_AUTH_MODE is set.

    Raises:
        ClusterError: a check failed; it names the key.
    """
    address = cluster_address(cluster)
    if cluster.backend == "ray" and address:
        key = "cluster.address" if cluster.address else "$RAY_ADDRESS"
        require_host_and_port(address, key)
        require_token(address, key)
        require_answer(address, key)
    else:
        if cluster.backend == "ray":
            ray_folder()
            require_limits(cluster.range.min)
        gpus_per_worker(cluster, torch.cuda.device_count())


def gpus_per_worker(cluster: ClusterConfig, available: float) -> float:
    """GPUs for each worker: as configured, else an equal share of the available ones, at most one.

    Raises:
        ClusterError: the configuration asks for more than are available.
    """
    if cluster.gpus_per_worker is None:
        share = available / cluster.range.min
        return 1.0 if share >= 1 else math.floor(share * 100) / 100
    require("cluster.gpus_per_worker", "GPUs", cluster.range.min * cluster.gpus_per_worker, available)
    return cluster.gpus_per_worker


def usable_cpus(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """CPUs that this process may use: those it is bound to, but at most the quota of its container or job.

    Ray itself looks only at the container, and Python at neither.
    """
    bound = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, math.floor(min([bound, *_quotas(cgroups, own)])))


def usable_memory(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes of memory that this process and its children may use: the machine's, at most its container's or job's."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder, is_old in _groups(cgroups, own, "memory"):
        path = folder / ("memory.limit_in_bytes" if is_old else "memory.max")
        if path.exists() and (limit := path.read_text(encoding="utf-8").strip()) != "max":
            found.append(int(limit))
    return min(found)


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """The quota, in CPUs, of each control group around this process."""
    for folder, is_old in _groups(cgroups, own, "cpu"):
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if is_old else ("cpu.max",)
        if all((folder / name).exists() for name in names):
            quota, period = " ".join((folder / name).read_text(encoding="utf-8") for name in names).split()
            if quota not in ("max", "-1"):
                yield int(quota) / int(period)


def _groups(cgroups: Path, own: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """The folders of the control groups around this process, and whether they are of the first version of cgroups."""
    lines = own.read_text(encoding="utf-8").splitlines() if own.exists() else []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers and controller not in controllers.split(","):
            continue
        top = cgroups / controllers
        # A container may see its path on the host here, while its own group is at the top.
        for folder in (top / path.strip("/"), *(top / path.strip("/")).parents):
            if not folder.is_relative_to(top):
                break
            yield folder, bool(controllers)


def require(key: str, kind: str, wanted: float, available: float) -> None:
    """Raises a `ClusterError` if the cluster can never have enough of a resource."""
    if wanted > available:
        raise ClusterError(
            key,
            f"the workers ask for {wanted:g} {kind} together, the cluster has {available:g}",
            "ask for fewer",
        )


def require_token(address: str, key: str = "cluster.address") -> None:
    """Turns token authentication on, unless RAY_AUTH_MODE is set: all who can reach a cluster can run code on it.

    Raises:
        TokenError: there is no token where Ray looks for it, https://docs.ray.io/en/latest/ray-security/token-auth.html
    """
    if os.environ.setdefault("RAY_AUTH_MODE", "token") != "token":
        return
    given = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if not given and not Path("~/.ray/auth_token").expanduser().exists():
        found = f"no token for the Ray at {address} (if it needs none, set RAY_AUTH_MODE=disabled; {_private(key)})"
        raise TokenError(key, found)


def require_host_and_port(address: str, key: str = "cluster.address") -> None:
    """Raises a `ClusterError` if an address is neither ``host:port`` nor ``auto``."""
    remedy = "write for example 10.0.0.5:6379"
    if "://" in address:
        remedy = "run on the cluster with `distmeta submit CONFIG --address http://head:8265`"
    elif address == "auto" or address.rpartition(":")[2].isdigit():
        return
    raise ClusterError(key, f"{address} is not host:port", f"{remedy}, or {_private(key)}")


def _private(key: str) -> str:
    """How to get a private Ray instead."""
    return "`unset RAY_ADDRESS` for a private Ray" if key == "$RAY_ADDRESS" else "leave the key out for a private Ray"


def require_answer(address: str, key: str = "cluster.address") -> None:
    """Raises a `ClusterError` if no Ray answers at ``host:port``, or if it wants another token."""
    remedy = f"start one with `ray start --head`, or {_private(key)}"
    no_answer = ClusterError(key, f"no Ray answers at {address}", remedy)
    command = [*HEALTH_CHECK]
    if address != "auto":
        command += ["--address", address]
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            raise no_answer from error
    try:
        # In its own process: Ray's attempts to connect cannot be interrupted.
        result = subprocess.run(command, timeout=ANSWER_SECONDS, capture_output=True, check=False)
    except subprocess.TimeoutExpired as error:
        raise no_answer from error
    if b"AuthenticationError" in result.stdout + result.stderr:
        raise TokenError(key, f"the Ray at {address} wants another token")
    if result.returncode:
        raise no_answer
