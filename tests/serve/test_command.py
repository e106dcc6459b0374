"""`distmeta serve`: what it refuses before Ray starts, and the whole service with a replica that is killed."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from serve_helpers import EXAMPLES
from use_helpers import NEW, untrained

from distmeta import cli
from distmeta.client import Client, RefusedError
from distmeta.storage import write_sums
from distmeta.use.learner import load

TEXTS, LABELS = [e["text"] for e in EXAMPLES], [e["label"] for e in EXAMPLES]
TOKEN = "a-token-of-sixteen-or-more"


def test_what_cannot_be_served_is_told_of_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("grpc_reflection", reason="needs the serve extra")
    monkeypatch.chdir(tmp_path)

    def refused(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["distmeta", "serve", *words])
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capfd.readouterr()
        assert (caught.value.code, out, len(err.splitlines())) == (2, "", 1), err
        return err

    untrained(tmp_path, "protonet").save(tmp_path / "learner")
    assert "give a number such as 2, or a range such as 1..4" in refused("learner", "--replicas", "3..1")
    assert "no such run directory" in refused("none-such")
    assert "--token-file FILE" in refused("learner", "--host", "0.0.0.0")
    shutil.copytree(tmp_path / "learner", tmp_path / "pickled")
    (tmp_path / "pickled" / "theta.pkl").write_bytes(b"a pickle")
    assert "theta.pkl: was altered" in refused("pickled")
    shutil.copytree(tmp_path / "learner", tmp_path / "former")
    document = tmp_path / "former" / "learner.json"
    document.write_text(document.read_text().replace('"format": 1', '"format": 0'))
    write_sums(tmp_path / "former")
    assert "is of format 0" in refused("former")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert "holds something else than the tasks of a service" in refused("learner", "--tasks", "mine")
    assert not [path for name in ("pickled", "former") if (path := tmp_path / f"{name}-tasks").exists()]


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "grpc_reflection.py").write_text("raise ModuleNotFoundError('no', name='grpc_reflection')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "distmeta.cli", "serve", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    said = 'Ray Serve is not complete here (grpc_reflection is missing); `pip install "ray[serve]=='
    assert said in done.stderr


@contextmanager
def served(folder: Path, *words: str, **environment: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A service in another process, and its address. What is left of it is killed."""
    command = [sys.executable, "-m", "distmeta.cli", "serve", str(folder), "--port", "0", *words]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, start_new_session=True, env={**os.environ, **environment}, **pipes)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "serving at " in line:
                yield process, line.partition("serving at ")[2].partition(",")[0]
                return
        pytest.fail("it ended")
    finally:
        left = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        for each in [*left, process]:
            if each.is_running() if isinstance(each, psutil.Process) else each.poll() is None:
                each.kill()
        process.communicate()


@pytest.mark.slow
def test_a_killed_replica_loses_nothing(tmp_path: Path) -> None:
    pytest.importorskip("grpc_reflection", reason="needs the serve extra")
    untrained(tmp_path, "protonet").save(tmp_path / "learner")
    alone = load(tmp_path / "learner").adapt(TEXTS, LABELS)
    with served(tmp_path, "--replicas", "1", DISTMETA_SERVE_TOKEN=TOKEN) as (process, address):
        client = Client(address, TOKEN)
        with pytest.raises(RefusedError, match="the token is wrong"):
            list(Client(address, "wrong").tasks())
        task = client.adapt(TEXTS, LABELS)
        assert np.allclose(task.predict_proba(NEW), alone.predict_proba(NEW), atol=1e-4)
        family = psutil.Process(process.pid).children(recursive=True)
        assert not any(TOKEN in word for each in family for word in each.cmdline())
        (replica,) = (each for each in family if "ServeReplica" in " ".join(each.cmdline()))
        replica.kill()
        assert np.allclose(task.predict_proba(NEW), alone.predict_proba(NEW), atol=1e-4), "the same from a new replica"
        task.grow(["topic9 word1"], ["new"])
        doomed = client.adapt(TEXTS, LABELS)
        doomed.delete()
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(30) == 130
        assert "Traceback" not in said
        assert TOKEN not in said
        _, alive = psutil.wait_procs(family, timeout=20)
        assert not alive
    with served(tmp_path, "--replicas", "1") as (process, address):
        (about,) = Client(address).tasks()
        assert (about["id"], about["version"], about["classes"][-1]) == (task.id, 2, "new")
        again = alone.grow(["topic9 word1"], ["new"])
        assert np.allclose(Client(address).task(task.id).predict_proba(NEW), again.predict_proba(NEW), atol=1e-4)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
