"""How fast `distmeta serve` answers on this machine, and what it keeps under load.

    python jobs/benchmark_serve.py RUN

RUN is a run of text classification, such as the quickstart's. The script starts the service, makes tasks of five
classes, and measures one client, then many at once, then many while a replica is killed, then more than the service
takes. It checks on the way that the service gives the numbers that `Task.predict_proba` gives here, that no request is
lost, that tasks survive, and that overload is answered with 429. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psutil

SUBJECTS = ["my card", "the parcel", "a transfer", "your app", "the invoice", "my password", "a refund", "the fee"]
WISHES = ["is late", "was declined", "does not work", "is missing", "was charged twice", "must be changed", "is wrong"]
CLASSES, SHOTS = 5, 2
TOLERANCE = 1e-4


class Caller:
    """One client, with a connection of its own that stays open."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=180)

    def __call__(self, path: str, body: Any) -> tuple[int, Any]:
        """The status and the content of an answer."""
        self._connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())

    def close(self) -> None:
        """Closes the connection; the next call opens another one."""
        self._connection.close()


def examples(chance: random.Random) -> list[dict[str, str]]:
    """The examples of a task."""
    subjects = chance.sample(SUBJECTS, CLASSES)
    return [{"text": f"{s} {w}", "label": s} for s in subjects for w in chance.sample(WISHES, SHOTS)]


def text(chance: random.Random) -> str:
    """A text to predict."""
    return f"hello, {chance.choice(SUBJECTS)} {chance.choice(WISHES)} since {chance.randint(1, 30)} days"


@contextlib.contextmanager
def service(run: str, *words: str) -> Iterator[tuple[psutil.Process, int]]:
    """The service's process and its port."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "distmeta.cli", "serve", run, "--port", "0", "--tasks", f"{folder}/tasks"]
        process = subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        reader = threading.Thread(target=process.stderr.read)  # so that the service never waits for a reader
        try:
            lines: list[str] = []
            while not (found := re.search(r"serving at http://127\.0\.0\.1:(\d+)", lines[-1] if lines else "")):
                line = process.stderr.readline()
                assert line, f"the service ended: {''.join(lines)}"
                lines.append(line)
            reader.start()
            yield psutil.Process(process.pid), int(found[1])
        finally:
            process.terminate()
            process.wait(60)
            if reader.ident:
                reader.join()
            process.stderr.close()


def load(port: int, tasks: list[str], clients: int, seconds: float, middle: Callable[[], None] | None = None) -> Any:
    """Many clients ask random tasks, one text a request. `middle` is called half-way."""
    until, counts, took = time.monotonic() + seconds, Counter[str](), list[float]()

    def client(number: int) -> None:
        chance, call = random.Random(number), Caller(port)
        while time.monotonic() < until:
            started = time.perf_counter()
            try:
                status, _ = call(f"/tasks/{chance.choice(tasks)}/predict", {"inputs": [text(chance)]})
                outcome = str(status)
            except OSError as error:
                outcome = type(error).__name__
                call.close()
            took.append(time.perf_counter() - started)
            counts[outcome] += 1
        call.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    if middle:
        time.sleep(seconds / 2)
        middle()
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - begun
    lost = sum(count for outcome, count in counts.items() if outcome not in ("200", "429"))
    return {
        **{"clients": clients, "seconds": round(elapsed, 1), "answers": dict(counts), "lost": lost},
        **{"per_second": round(counts["200"] / elapsed, 1), **quantiles(took)},
    }


def quantiles(seconds: list[float]) -> dict[str, float]:
    """The median and the 95th percentile, in milliseconds."""
    ordered = sorted(seconds)
    return {
        "p50_ms": round(1000 * statistics.median(ordered), 1),
        "p95_ms": round(1000 * ordered[int(0.95 * (len(ordered) - 1))], 1),
    }


def family(process: psutil.Process) -> list[psutil.Process]:
    """The processes of the service."""
    return [process, *process.children(recursive=True)]


def used(processes: list[psutil.Process]) -> tuple[int, float]:
    """MiB of memory (memory that processes share is counted once), and seconds of CPU time."""
    memory, seconds = 0.0, 0.0
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            memory += each.memory_full_info().pss / 2**20
            seconds += sum(each.cpu_times()[:2])
    return round(memory), seconds


def kill_replica(process: psutil.Process) -> None:
    """Kills one replica, as the kernel does when memory runs out."""
    next(each for each in family(process) if "ServeReplica" in " ".join(each.cmdline())).kill()


def measure(run: str, tasks: int, clients: int, seconds: float, alone: int, replicas: str) -> dict[str, Any]:
    """All figures. Raises an `AssertionError` if the service does not keep what it promises.

    Args:
        run: the learner.
        tasks: how many are made.
        clients: how many there are at once.
        seconds: of the load.
        alone: requests of the only client.
        replicas: of the service.
    """
    import numpy as np

    import distmeta

    chance, result = random.Random(0), dict[str, Any](cpus=len(os.sched_getaffinity(0)), load_before=os.getloadavg()[0])
    with (
        contextlib.ExitStack() as stack,
        service(run, "--replicas", replicas, "--rate", "1e6", "--pending", str(max(4, clients))) as (process, port),
    ):
        call = Caller(port)
        stack.callback(call.close)
        made, seen = [], []
        result["memory_mib_without_tasks"] = used(family(process))[0]
        for _ in range(tasks):
            given, started = examples(chance), time.perf_counter()
            status, about = call("/tasks", {"examples": given})
            assert status == 201, about
            seen.append(time.perf_counter() - started)
            made.append((about["id"], given))
        result["adapt"] = {"tasks": tasks, "examples": CLASSES * SHOTS, **quantiles(seen)}

        texts = [text(chance) for _ in range(20)]
        task = distmeta.load(run).adapt([e["text"] for e in made[0][1]], [e["label"] for e in made[0][1]])
        expected = task.predict_proba(texts)

        def difference() -> float:
            _, found = call(f"/tasks/{made[0][0]}/predict", {"inputs": texts})
            shares = [[each["probabilities"][name] for name in task.names] for each in found["predictions"]]
            return float(np.abs(np.array(shares) - expected).max())

        result["difference"] = difference()
        assert result["difference"] < TOLERANCE, "the service and Python differ"

        seen, (_, before) = [], used(family(process))
        for number in range(alone):
            started = time.perf_counter()
            status, _ = call(f"/tasks/{made[number % tasks][0]}/predict", {"inputs": [text(chance)]})
            seen.append(time.perf_counter() - started)
            assert status == 200
        result["one_client"] = {"requests": alone, **quantiles(seen)}
        result["one_client"]["cpu_ms"] = round(1000 * (used(family(process))[1] - before) / alone, 1)
        for identity, _ in made:
            assert call(f"/tasks/{identity}/predict", {"inputs": [text(chance)]})[0] == 200
        result["memory_mib"] = used(family(process))[0]

        ids = [identity for identity, _ in made]
        result["load"] = load(port, ids, clients, seconds)
        result["load"]["memory_mib"] = used(family(process))[0]
        assert not result["load"]["lost"], result["load"]
        result["killed"] = load(port, ids, clients, seconds / 4, lambda: kill_replica(process))
        assert not result["killed"]["lost"], result["killed"]
        call.close()  # the service closes a connection that is not used for a while
        assert all(call(f"/tasks/{identity}/predict", {"inputs": ["hello"]})[0] == 200 for identity in ids)
        assert difference() < TOLERANCE, "a new replica differs"
        result["overload"] = load(port, ids, 2 * max(4, clients), min(seconds, 5))
        assert not result["overload"]["lost"], result["overload"]
        assert result["overload"]["answers"].get("429"), "overload is not answered with 429"
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="a run's directory or a learner's folder")
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--alone", type=int, default=500, help="requests of the only client")
    parser.add_argument("--replicas", default="1")
    given = parser.parse_args()
    print(
        json.dumps(measure(given.run, given.tasks, given.clients, given.seconds, given.alone, given.replicas), indent=1)
    )
