"""A cluster of three hosts, each a network namespace of this machine with a cable of its own, which is pulled."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError

import pytest
import yaml
from mlflow import MlflowClient
from toy import toy_config, toy_settings, write_data

from distmeta.backends.resources import require_answer
from distmeta.errors import TokenError
from distmeta.report.progress import Reporter
from distmeta.runs import train as driver

BIN = Path(sys.executable).parent
CLUSTER = Path(__file__).parents[2] / "cluster.yaml"
STEPS = 80
START_SECONDS, TRAINING_SECONDS, JOB_SECONDS = 60, 60, 150  # at most, on a slow machine
SLOW_SECONDS = 1.5  # in which a gradient of 180 kB sets out and does not arrive
CUT_SECONDS = 8.0  # longer than a lost host goes unnoticed


def ip(words: str) -> str:
    return subprocess.run(["ip", *words.split()], check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True)
class Host:
    """A network namespace, the port of the switch that its cable is in, its address and its disk."""

    name: str
    port: str
    address: str
    disk: Path

    def start(self, command: list[str], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
        """Runs a command there, with a /tmp/ray of its own: `ip netns exec` gives it its own mounts."""
        script = 'mount --bind "$0" /tmp/ray && exec "$@"'
        with (self.disk / "console.log").open("ab") as log:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.name, "sh", "-c", script, str(self.disk), *command],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill_all(self) -> None:
        """Kills whatever runs there, and nothing else."""
        deadline = time.monotonic() + 20
        while pids := ip(f"netns pids {self.name}").split():
            assert time.monotonic() < deadline, f"processes of {self.name} do not end: {pids}"
            for pid in map(int, pids):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue  # its parent's end was its own
            time.sleep(0.1)

    def cut(self) -> None:
        ip(f"link set {self.port} down")

    def heal(self) -> None:
        ip(f"link set {self.port} up")

    def shape(self, what: str) -> None:
        subprocess.run(["tc", "-n", self.name, "qdisc", *what.split()], check=True)

    def runs(self, actor: str) -> bool:
        """Whether there is a process there with the name that Ray gives an actor's."""
        pids = ",".join(ip(f"netns pids {self.name}").split())
        titles = subprocess.check_output(["ps", "-o", "args=", "-p", pids], text=True).splitlines()
        return any(title.startswith(f"ray::{actor}") for title in titles)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    """Three hosts and this machine on one switch."""
    if os.geteuid() != 0:
        pytest.skip("only root can make network namespaces")
    if shutil.which("ip") is None or shutil.which("tc") is None:
        pytest.skip("needs the commands ip and tc of iproute2")
    mark = secrets.token_hex(2)
    switch, net = f"dm{mark}", f"198.18.{secrets.randbelow(256)}"  # a block set aside for tests of networks
    Path("/tmp/ray").mkdir(exist_ok=True)
    with ExitStack() as undo:
        try:
            ip(f"netns add {switch}-0")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"cannot make network namespaces here: {error.stderr.strip()}")
        undo.callback(ip, f"netns del {switch}-0")
        ip(f"link add {switch} type bridge")
        undo.callback(ip, f"link del {switch}")
        ip(f"addr add {net}.254/24 dev {switch}")
        ip(f"link set {switch} up")
        made = []
        for number in range(3):
            host = Host(f"{switch}-{number}", f"{switch}p{number}", f"{net}.{number + 1}", tmp_path / f"host{number}")
            host.disk.mkdir()
            if number:
                ip(f"netns add {host.name}")
                undo.callback(ip, f"netns del {host.name}")
            undo.callback(host.kill_all)
            ip(f"link add {host.port} type veth peer name eth0 netns {host.name}")
            ip(f"link set {host.port} master {switch} up")
            ip(f"-n {host.name} addr add {host.address}/24 dev eth0")
            ip(f"-n {host.name} link set eth0 up")
            ip(f"-n {host.name} link set lo up")
            made.append(host)
        yield made


def health_checks() -> dict[str, str]:
    """As cluster.yaml sets them on the head."""
    words = CLUSTER.read_text(encoding="utf-8").replace(";", " ").split()
    found = dict(word.split("=") for word in words if word.startswith("RAY_health_check_"))
    assert len(found) == 4
    return found


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """That of all hosts and of the one who submits: a token, and a home of their own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {
        **kept,
        **{"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"},
        **{"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path), "COLUMNS": "200"},
    }


def wait_for(what: str, holds: Callable[[], bool], seconds: float, *processes: "subprocess.Popen[bytes]") -> None:
    """Waits, while the processes run."""
    deadline = time.monotonic() + seconds
    while not holds():
        ended = [
            f"{process.args!r} ended with {process.returncode}" for process in processes if process.poll() is not None
        ]
        assert not ended, f"no {what}: {ended}"
        assert time.monotonic() < deadline, f"no {what} within {seconds} s"
        time.sleep(0.2)


@pytest.fixture
def head(hosts: list[Host], environment: dict[str, str]) -> Iterator[Host]:
    """The head of a Ray cluster over the hosts; it does no work itself."""
    head, *workers = hosts
    processes: list[subprocess.Popen[bytes]] = []

    def start(host: Host, words: str, environment: dict[str, str]) -> None:
        words += f" --node-ip-address={host.address} --block --disable-usage-stats --object-store-memory=100000000"
        processes.append(host.start(["ray", "start", *words.split()], environment))

    def started(host: Host) -> bool:
        return "Ray runtime started" in (host.disk / "console.log").read_text(encoding="utf-8")

    try:
        words = f"--head --port=6379 --num-cpus=0 --dashboard-host={head.address}"
        start(head, words, {**environment, **health_checks()})
        wait_for("head", lambda: started(head), START_SECONDS, *processes)
        for host in workers:
            start(host, f"--address={head.address}:6379 --num-cpus=1", environment)
        wait_for("nodes", lambda: all(map(started, workers)), START_SECONDS, *processes)
        yield head
    finally:
        for host in hosts:
            host.kill_all()
        for process in processes:
            process.wait()


@pytest.mark.nightly
def test_the_result_does_not_depend_on_a_cable(
    hosts: list[Host], head: Host, environment: dict[str, str], tmp_path: Path
) -> None:
    """A host is cut off while its worker sends a gradient, for longer than goes unnoticed; the other goes on."""
    with pytest.raises(HTTPError, match="401"):
        urllib.request.urlopen(f"http://{head.address}:8265/api/jobs/", timeout=10)  # without the token
    with pytest.raises(TokenError, match="wants another token"):
        require_answer(f"{head.address}:6379")
    job, run_dir = tmp_path / "job", tmp_path / "run"
    job.mkdir()
    write_data(job / "data.csv")
    settings = {
        # Gradients that are too large to travel inside a message, so that they lie on the worker's host.
        **{"model__embedding_size": 64, "model__filters": 128, "model__widths": [2, 3], "model__dropout": 0.3},
        **{"outer__steps": STEPS, "outer__meta_batch_size": 8, "checkpoint__every": 10},
        **{"evaluation__episodes": 4, "evaluation__curve_steps": 0},
    }
    content = toy_settings(tmp_path, **settings, data__path="data.csv", cluster__backend="ray")
    (job / "job.yaml").write_text(yaml.safe_dump(content))
    words = f"distmeta submit job.yaml run_dir={run_dir} --address http://{head.address}:8265"
    with (tmp_path / "submit.log").open("wb") as log:
        process = subprocess.Popen(words.split(), cwd=job, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        begun = run_dir / "checkpoints"
        wait_for("training", lambda: len(list(begun.glob("step-*"))) > 1, TRAINING_SECONDS, process)
        assert [host.runs("ServerActor") for host in hosts] == [True, False, False]
        assert [host.runs("WorkerActor") for host in hosts] == [False, True, True]
        hosts[1].shape("add dev eth0 root tbf rate 400kbit burst 20kb latency 5s")
        time.sleep(SLOW_SECONDS)
        hosts[1].cut()
        hosts[1].shape("del dev eth0 root")
        time.sleep(CUT_SECONDS)
        hosts[1].heal()
        assert process.wait(JOB_SECONDS) == 0, (tmp_path / "submit.log").read_text()
    finally:
        process.kill()
        process.wait()
    result = json.loads((run_dir / "evaluation.json").read_text())
    expected = driver.train(toy_config(tmp_path, **settings), tmp_path / "expected", Reporter())
    assert result["meta_params_sha256"] == expected["meta_params_sha256"]
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    history = {
        name: client.get_metric_history(result["mlflow_run_id"], name)
        for name in ("meta_train/loss", "cluster/lost_workers")
    }
    assert [metric.step for metric in history["meta_train/loss"]] == list(range(1, STEPS + 1))
    assert history["cluster/lost_workers"][-1].value >= 1, "the cut was not noticed"
