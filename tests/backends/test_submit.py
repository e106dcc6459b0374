"""Jobs on a real Ray head of our own, and a stand-in for clusters that refuse."""

import asyncio
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy import toy_settings, write_data

from distmeta import cli
from distmeta.backends import submit as module
from distmeta.backends.submit import submit, train_command
from distmeta.errors import ClusterError, ConfigError

BIN = Path(sys.executable).parent


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


def free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def processes_below(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for line in subprocess.check_output(["ps", "-eo", "pid=,ppid="], text=True).splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    below = [pid]
    for one in below:
        below += children.get(one, [])
    return below


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """The dashboard's address of a Ray head on ports of its own."""
    gcs, dashboard, client, agent, metrics = free_ports(5)
    with tempfile.TemporaryDirectory(prefix="dm-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        words = f"start --head --block --node-ip-address=127.0.0.1 --num-cpus=2 --port={gcs}"
        words += f" --dashboard-port={dashboard} --ray-client-server-port={client} --temp-dir={folder}"
        words += f" --dashboard-agent-listen-port={agent} --metrics-export-port={metrics}"
        words += " --object-store-memory=100000000 --disable-usage-stats"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        process = subprocess.Popen(
            [str(BIN / "ray"), *words.split()],
            # As on a node of a cluster: the project on the PATH, and a home of its own.
            env={**environment, "RAY_AUTH_MODE": "disabled", "PATH": f"{BIN}:{os.environ['PATH']}", "HOME": folder},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        address = f"http://127.0.0.1:{dashboard}"
        try:
            wait_for(f"{address}/api/version", process)
            yield address
        finally:
            tree = processes_below(process.pid)
            for pid in tree:
                # Ray's own end may come first.
                subprocess.run(["kill", "-KILL", str(pid)], check=False, stderr=subprocess.DEVNULL)
            process.wait()


def wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            assert process.poll() is None, "ray start ended"
            assert time.monotonic() < deadline, "ray start takes too long"
            time.sleep(0.1)


@pytest.fixture
def working_dir(tmp_path: Path) -> Path:
    secrets = (".env", "deploy/prod.env", "keys/host.pem", ".netrc", ".aws/credentials", "home/.ssh/id_rsa")
    for name in ("job.yaml", "runs/old/big.bin", ".git/HEAD", "mlflow.db", "data/texts.csv", *secrets):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("data: {path: data/texts.csv}\n")
    return tmp_path


@pytest.mark.nightly
def test_jobs_are_followed_to_their_end(
    head: str, working_dir: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # the address that was given wins
    code = (
        "import pathlib; print('hello  there'); print(sorted(str(p) for p in pathlib.Path().rglob('*') if p.is_file()))"
    )
    with ThreadPoolExecutor(1) as thread:  # two at once, as each takes seconds to start
        failing = thread.submit(submit, head, "echo begun; exit 3", working_dir)
        time.sleep(0.5)
        assert submit(head, ["python", "-c", code], working_dir) == 0
        assert failing.result() == 1
    out, err = capfd.readouterr()
    assert "begun\n" in out
    assert "failed: Job entrypoint command failed with exit code 3\n" in err
    assert "hello  there\n" in out
    assert "['data/texts.csv', 'job.yaml']" in out  # and not the run, the database, the repository, the secrets
    assert "ray job stop raysubmit_" in err
    assert os.environ["RAY_ADDRESS"] == "127.0.0.1:1"


class FakeClient:
    """A job client whose log breaks off."""

    def __init__(self, interruption: Any) -> None:
        self.interruption = interruption

    def submit_job(self, entrypoint: str, runtime_env: dict[str, Any]) -> str:
        self.entrypoint = entrypoint
        return "job-7"

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        yield "step 1\n"
        self.interruption()
        await asyncio.sleep(30)
        yield "step 2\n"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeClient]:
    # Python leaves Ctrl-C alone where it was started with the signal ignored, as shells do in the background.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    client = FakeClient(lambda: os.kill(os.getpid(), signal.SIGINT))
    monkeypatch.setattr(module, "_check_address", lambda address: None)
    monkeypatch.setattr(module, "_client", lambda address: client)
    yield client
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_stops_following_and_leaves_the_job(
    fake: FakeClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit("http://h:8265", ["echo", "a b"], tmp_path) == 130
    out, err = capsys.readouterr()
    assert out == "step 1\n"
    assert err.splitlines()[-1].endswith("Stop it with: ray job stop job-7 --address http://h:8265")
    assert fake.entrypoint == "echo 'a b'"


def test_a_job_lost_from_sight_is_named(fake: FakeClient, tmp_path: Path) -> None:
    def broken() -> None:
        raise RuntimeError("WebSocket connection closed unexpectedly")

    fake.interruption = broken
    with pytest.raises(ClusterError, match=r"job job-7: lost the connection to it .*ray job status job-7"):
        submit("http://h:8265", "true", tmp_path)


def test_it_waits_for_a_cluster_that_has_just_started(
    fake: FakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refusals = [RuntimeError("No available agent to submit job, please try again later.")] * 2
    start = fake.submit_job

    def submit_job(**options: Any) -> str:
        if refusals:
            raise refusals.pop()
        return start(**options)

    monkeypatch.setattr(fake, "submit_job", submit_job)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.0)
    assert submit("http://h:8265", "true", tmp_path, follow=False) == 0
    assert capsys.readouterr().err.startswith("waiting: the cluster takes no jobs yet\nsubmitted job-7")
    refusals[:] = [RuntimeError("No available agent")]
    monkeypatch.setattr(module, "START_SECONDS", -1.0)
    with pytest.raises(ClusterError, match="No available agent"):
        submit("http://h:8265", "true", tmp_path, follow=False)


@pytest.mark.parametrize("address", ["http://me:hid/den@h:8265", "http://hidden@h", "https://h/x?token=hidden"])
def test_a_secret_in_the_address_is_refused_unseen(address: str, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"--address: .*\*\*\*.*; give it without") as caught:
        submit(address, "true", tmp_path)
    assert not {"hid", "den"} & set(re.split(r"\W", str(caught.value)))


def test_without_following_it_returns_once_submitted(fake: FakeClient, tmp_path: Path) -> None:
    assert submit("http://h:8265", "true", tmp_path, follow=False) == 0


class StandIn(BaseHTTPRequestHandler):
    """Answers with the status set for the method, as JSON that looks like a Ray dashboard's."""

    status: dict[str, int]

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        code = self.status[self.command if "version" not in self.path else "version"]
        if code == 0:
            time.sleep(1)
            return
        body = b'{"ray_version": "2.60.0", "version": "4"}' if code == 200 else b"refused"
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = answer

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def stand_in() -> Iterator[tuple[str, dict[str, int]]]:
    status = {"version": 200, "GET": 404, "PUT": 200, "POST": 500}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (StandIn,), {"status": status}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", status
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ({"version": 401}, "wants a token, and yours is missing or wrong; set RAY_AUTH_MODE=token"),
        ({"version": 403}, "wants a token, and yours is missing or wrong; set RAY_AUTH_MODE=token"),
        ({"version": 404}, "is not a Ray dashboard; give the address of the dashboard"),
        ({"PUT": 413}, "working directory: larger than Ray accepts .* name large files in .rayignore"),
        ({"POST": 500}, "Request failed with status code 500: refused"),
    ],
)
def test_refusals_are_one_line_with_a_remedy(
    stand_in: tuple[str, dict[str, int]], status: dict[str, int], message: str, working_dir: Path
) -> None:
    address, statuses = stand_in
    statuses.update(status)
    with pytest.raises(ClusterError, match=message):
        submit(address, "true", working_dir)


def test_cluster_that_does_not_answer_is_refused_in_time(
    stand_in: tuple[str, dict[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert module.CONNECT_TIMEOUT_SECONDS < 15
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_SECONDS", 0.2)
    address, statuses = stand_in
    statuses["version"] = 0  # accepts, and says nothing
    begun = time.monotonic()
    with pytest.raises(ClusterError, match="does not answer"):
        submit(address, "true", tmp_path)
    assert time.monotonic() - begun < 0.9
    (closed,) = free_ports(1)
    with pytest.raises(ClusterError, match=r"does not answer .*refused"):
        submit(f"http://127.0.0.1:{closed}", "true", tmp_path)
    with pytest.raises(ClusterError, match="not an http address"):
        submit("10.0.0.1:6379", "true", tmp_path)


def run_shell(command: str, home: Path) -> list[str]:
    """What `distmeta` would be given by a shell, with `train` replaced by something that prints."""
    (home / "bin").mkdir()
    program = home / "bin" / "distmeta"
    program.write_text('#!/bin/sh\nfor word in "$@" "$MLFLOW_TRACKING_URI"; do echo "$word"; done\n')
    program.chmod(0o755)
    environment = {"HOME": str(home), "PATH": f"{home}/bin:/usr/bin:/bin"}
    return subprocess.check_output(["sh", "-c", command], text=True, env=environment).splitlines()


def test_train_command_quotes_overrides_and_keeps_results(working_dir: Path, tmp_path: Path) -> None:
    home = tmp_path / "a home"
    home.mkdir()
    overrides = ["tracking.experiment=two words; rm -rf $HOME", "outer.steps=5"]
    words = run_shell(train_command(working_dir / "job.yaml", overrides, working_dir), home)
    assert words[:3] == ["train", "job.yaml", "cluster.address=auto"]
    assert words[3:5] == overrides
    assert words[5].startswith(f"run_dir={home}/distmeta/runs/job-")
    assert words[6] == f"sqlite:///{home}/distmeta/mlflow.db"
    assert (home / "distmeta").is_dir()


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        (
            "tracking.uri",
            "https://me:hidden@host:5000",
            "give the address without it, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD where the "
            "cluster is started",
        ),
        ("data.path", "s3://me:hidden@host/data", "give the address without it"),
        ("model.freeze", ["a", "http://hidden@host"], "give the address without it"),
    ],
)
def test_a_password_does_not_become_part_of_the_job(
    working_dir: Path, key: str, value: Any, remedy: str, in_file: bool
) -> None:
    section, name = key.split(".")
    if in_file:
        (working_dir / "job.yaml").write_text(yaml.safe_dump({section: {name: value}}))
    overrides = (
        [] if in_file else [f"{key}={yaml.safe_dump(value, default_flow_style=True, width=999).splitlines()[0]}"]
    )
    with pytest.raises(ConfigError) as caught:
        train_command(working_dir / "job.yaml", overrides, working_dir)
    found = "holds a user or a password in an address, which all who use the cluster could read"
    assert str(caught.value) == f"{key}: {found}; {remedy}"


def test_a_password_that_is_set_and_replaced_is_found(working_dir: Path) -> None:
    overrides = ["tracking.uri=http://me:hidden@host", "tracking.uri=http://host"]
    with pytest.raises(ConfigError, match=r"^tracking\.uri: holds a user or a password"):
        train_command(working_dir / "job.yaml", overrides, working_dir)


def test_train_command_leaves_a_configured_run_dir(working_dir: Path) -> None:
    command = train_command(working_dir / "job.yaml", ["run_dir=/shared/r"], working_dir)
    assert [word for word in shlex.split(command) if word.startswith("run_dir=")] == ["run_dir=/shared/r"]


@pytest.mark.slow
def test_a_run_is_trained_on_the_cluster(
    head: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path / "data.csv")
    content = toy_settings(tmp_path, data__path="data.csv", cluster__backend="ray", outer__steps=3)
    del content["tracking"]
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["distmeta", "submit", "job.yaml", "cluster.workers=1", "--address", head])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out, err = capfd.readouterr()
    assert caught.value.code == 0, out + err
    assert "outer steps 3/3" in out
    assert "maml, meta-trained" in out
