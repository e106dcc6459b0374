"""Jobs on a real Ray head of our own, on ports of its own."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from distmeta import submit as module
from distmeta.errors import ClusterError, ConfigError
from distmeta.submit import submit, train_command

TOKEN = "0123456789abcdef" * 4


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Ray head that wants a token; the address of its dashboard."""
    # Sockets' paths may not exceed 107 characters, which pytest's folders would use up.
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/dm-XXXXXX"], text=True).strip())
    dashboard = free_port()
    ports = [
        f"--port={free_port()}",
        f"--dashboard-port={dashboard}",
        f"--ray-client-server-port={free_port()}",
    ]
    ports += [f"--dashboard-agent-listen-port={free_port()}", f"--metrics-export-port={free_port()}"]
    ray = str(Path(sys.executable).parent / "ray")
    options = [
        "--node-ip-address=127.0.0.1",
        "--num-cpus=2",
        "--object-store-memory=100000000",
        f"--temp-dir={folder}",
    ]
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_ADDRESS": ""}
    process = subprocess.Popen(
        [ray, "start", "--head", "--block", *ports, *options],
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        process.terminate()
        process.wait(30)
