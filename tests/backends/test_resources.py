import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toy import toy_config

from distmeta.backends import resources
from distmeta.backends.ray import RayBackend
from distmeta.backends.resources import (
    cluster_address,
    gpus_per_worker,
    preflight,
    require,
    require_answer,
    require_host_and_port,
    require_token,
    usable_memory,
)
from distmeta.config import ClusterConfig
from distmeta.errors import ClusterError
from distmeta.runs.experiment import build_experiment


@pytest.mark.parametrize(
    ("workers", "asked", "available", "given"),
    [
        (2, None, 0, 0),  # none there: CPUs
        (2, None, 4, 1),  # one each, though there are more
        (4, None, 2, 0.5),
        (3, None, 1, 0.33),  # rounded down, or the three would not fit
        (2, 0, 4, 0),
        (2, 0.25, 1, 0.25),
    ],
)
def test_gpus_of_a_worker(workers: int, asked: float | None, available: float, given: float) -> None:
    assert gpus_per_worker(ClusterConfig(workers=workers, gpus_per_worker=asked), available) == given


def test_more_than_there_is_is_refused() -> None:
    with pytest.raises(ClusterError, match=r"gpus_per_worker: the workers ask for 3 GPUs together, the cluster has 2"):
        gpus_per_worker(ClusterConfig(workers=3, gpus_per_worker=1), 2)
    require("cluster.workers", "CPUs", 2, 2)


def test_the_configured_address_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert cluster_address(ClusterConfig()) is None
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert cluster_address(ClusterConfig()) == "10.0.0.1:6379"
    assert cluster_address(ClusterConfig(address="10.0.0.2:6379")) == "10.0.0.2:6379"
    monkeypatch.setenv("RAY_ADDRESS", "local")  # Ray's own word for a private one
    assert cluster_address(ClusterConfig()) is None


@pytest.mark.parametrize("answer", [0, 1])
def test_an_unhealthy_cluster_does_not_answer(answer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: Any) -> "subprocess.CompletedProcess[bytes]":
        assert command[-3:] == ["health-check", "--address", address]
        return subprocess.CompletedProcess(command, answer, b"", b"")

    monkeypatch.setattr("distmeta.backends.resources.subprocess.run", run)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        if answer == 0:
            require_answer(address)
        else:
            with pytest.raises(ClusterError, match="no Ray answers"):
                require_answer(address)


@pytest.mark.parametrize(
    ("address", "remedy"), [("ray://head:10001", "distmeta submit"), ("head", "write for example 10.0.0.5:6379")]
)
def test_other_kinds_of_address_are_refused(address: str, remedy: str) -> None:
    for key in ("cluster.address", "$RAY_ADDRESS"):
        with pytest.raises(ClusterError, match=rf"{re.escape(key)}: .*{remedy}.* for a private Ray"):
            require_host_and_port(address, key)


@pytest.mark.parametrize("address", ["http://head:8265", "head", "127.0.0.1:1"])
def test_a_wrong_address_in_the_environment_is_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ClusterError, match=r"\$RAY_ADDRESS: .*`unset RAY_ADDRESS` for a private Ray"):
        preflight(ClusterConfig(backend="ray"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("resources_per_worker", {"tpu": 2}, "cluster.resources_per_worker.tpu: the workers ask for 4 tpu together"),
        ("memory_per_worker", 1e6, "cluster.memory_per_worker: the workers ask for 2e"),
        ("cpus_per_worker", 1000, "cluster.workers: the workers ask for 2000 CPUs together"),
    ],
)
def test_what_the_cluster_never_has_is_refused_by_key(
    key: str, value: Any, message: str, tmp_path: Path, ray_session: None
) -> None:
    """For as many workers as there must be; more may wait for room."""
    config = toy_config(tmp_path, cluster__workers={"min": 2, "max": 9}, **{f"cluster__{key}": value})
    with RayBackend(config.cluster) as backend, pytest.raises(ClusterError, match=re.escape(message)):
        backend.start(build_experiment(config).setup, print)


PRIVATE = """
import os
from distmeta.backends import resources
from distmeta.backends.ray import RayBackend
from distmeta.config import ClusterConfig
import psutil  # which comes inside ray

with RayBackend(ClusterConfig(workers=1)):
    started = psutil.Process().children(recursive=True)
    ports = [port for one in (psutil.Process(), *started) for port in one.net_connections("tcp")]
    print(*sorted({at.laddr.ip.removeprefix("::ffff:") for at in ports if at.status == psutil.CONN_LISTEN}))
    print(len(started) > 1, os.getpgrp() in {os.getpgid(one.pid) for one in started})
"""


@pytest.mark.slow
def test_a_private_ray_listens_on_loopback_only_and_gets_no_signal_to_the_group() -> None:
    said = subprocess.run([sys.executable, "-c", PRIVATE], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.split() == ["127.0.0.1", "True", "False"]


def test_a_cluster_is_joined_with_a_token_unless_it_is_said_that_it_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ClusterError, match=r"cluster.address: no token for the Ray at head:6379 .*; set RAY_AUTH_MODE"):
        require_token("head:6379")
    assert os.environ["RAY_AUTH_MODE"] == "token"
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").touch()
    require_token("head:6379")
    monkeypatch.setenv("HOME", "elsewhere")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    require_token("head:6379")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    require_token("head:6379")


V2, V1 = "0::/user/job\n", "5:memory:/user/job\n4:cpu,cpuacct:/user/job\n"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        (V2, {"user/job/cpu.max": "max 100000"}, 64),
        (V2, {"user/job/cpu.max": "300000 100000"}, 3),
        (V2, {"user/job/cpu.max": "350000 100000"}, 3),
        (V2, {"user/job/cpu.max": "50000 100000"}, 1),  # half a CPU is still one
        (V2, {"user/job/cpu.max": "max 100000", "user/cpu.max": "200000 100000"}, 2),
        (V2, {"cpu.max": "400000 100000"}, 4),  # as in a container, which finds its group at the top
        (V1, {"cpu,cpuacct/user/job/cpu.cfs_quota_us": "-1", "cpu,cpuacct/user/job/cpu.cfs_period_us": "100000"}, 64),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "200000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 2),
        ("", {}, 64),
    ],
)
def test_no_more_cpus_are_used_than_a_container_has(
    own: str, files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    (tmp_path / "own").write_text(own)
    for name, content in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(content + "\n")
    assert resources.usable_cpus(tmp_path / "groups", tmp_path / "own") == expected


def test_no_more_cpus_are_used_than_a_process_is_bound_to() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from distmeta.backends.resources import usable_cpus; print(usable_cpus())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize(("usable", "workers", "started"), [(3, 2, 3), (1, 2, 2)])
def test_a_private_ray_has_the_cpus_that_may_be_used(
    usable: int, workers: int, started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And as many as the workers ask for where that is more: on one CPU two of them take turns."""
    from distmeta.backends import ray as module

    asked: dict[str, Any] = {}
    monkeypatch.setattr(module, "usable_cpus", lambda: usable)
    monkeypatch.setattr("ray.init", lambda **options: asked.update(options))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    module.RayBackend(ClusterConfig(workers=workers))._connect()
    assert asked["num_cpus"] == started


def test_memory_is_that_of_the_container(tmp_path: Path) -> None:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    own = tmp_path / "own"
    own.write_text("0::/job/step\n")
    assert usable_memory(tmp_path, own) == machine
    (tmp_path / "job" / "step").mkdir(parents=True)
    (tmp_path / "job" / "step" / "memory.max").write_text("max\n")
    (tmp_path / "job" / "memory.max").write_text("1000000\n")
    assert usable_memory(tmp_path, own) == 1_000_000
    own.write_text("4:memory:/old\n")
    (tmp_path / "memory" / "old").mkdir(parents=True)
    (tmp_path / "memory" / "old" / "memory.limit_in_bytes").write_text("2000\n")
    assert usable_memory(tmp_path, own) == 2000
