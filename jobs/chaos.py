"""Checks that the result of a run stays the same when its processes fail.

    python jobs/chaos.py jobs/chaos.yaml runs/chaos --seeds 20

Runs the job once without faults in one process. Then runs it once per seed on Ray, with faults whose times and order
depend on the seed: a worker is killed, stopped for good, or slowed for a while; the server is killed; the driver is
killed or asked to stop, and its run is resumed. Each time the meta-parameters must equal those of the run without
faults to the bit, and MLflow must have every outer step once. Needs psutil (`pip install distmeta[test]`).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from mlflow import MlflowClient

MARK = "DISTMETA_CHAOS"  # in the environment of all processes of a run
FAULTS = {
    "worker killed": 0.3,
    "worker stopped": 0.2,
    "worker slowed": 0.2,
    "server killed": 0.15,
    "driver killed": 0.1,
    "driver asked to stop": 0.05,
}


class BrokenError(Exception):
    """A run with faults did not end like the run without faults."""


def main() -> None:
    """Runs the job without faults and with each seed's faults, and prints how often the result was the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a YAML file such as jobs/chaos.yaml")
    parser.add_argument("out", type=Path, help="the folder of the runs")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings for all runs")
    parser.add_argument("--seeds", type=int, default=20, help="how many schedules of faults")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--gap", type=float, default=5.0, help="mean seconds between two faults")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    words = [arguments.config, *arguments.settings, f"tracking.uri=sqlite:///{out}/mlflow.db"]
    expected = undisturbed(words, out)
    held = 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        faults, started = Counter[str](), time.monotonic()
        try:
            result = disturbed(words, out / f"seed-{seed}", seed, arguments.gap, faults)
            if result["meta_params_sha256"] != expected:
                raise BrokenError("different meta-parameters")
            if logged_steps(out, result["mlflow_run_id"]) != list(range(1, result["outer_steps"] + 1)):
                raise BrokenError("MLflow does not have every outer step once")
            outcome, held = "held", held + 1
        except BrokenError as error:
            outcome = f"BROKEN ({error})"
        struck = ", ".join(f"{count} × {name}" for name, count in sorted(faults.items()))
        print(f"seed {seed}: {outcome} in {time.monotonic() - started:.0f} s; {struck}", flush=True)
    print(f"held {held} of {arguments.seeds}")
    sys.exit(held != arguments.seeds)


def undisturbed(words: list[str], out: Path) -> str:
    """Hash of the meta-parameters of the run in one process; an earlier run's result is read."""
    written = out / "undisturbed" / "evaluation.json"
    if not written.exists():
        subprocess.run(
            [*train(), *words, "cluster.backend=inprocess", f"run_dir={written.parent}"],
            stderr=(out / "undisturbed.log").open("w"),
            check=True,
        )
    return str(json.loads(written.read_text(encoding="utf-8"))["meta_params_sha256"])


def disturbed(words: list[str], run_dir: Path, seed: int, gap: float, faults: Counter[str]) -> dict[str, Any]:
    """The result of a run with faults, which is resumed until it ends; counts the faults."""
    chance = np.random.default_rng(seed)
    while True:
        what = ["--resume", str(run_dir)] if run_dir.exists() else [*words, f"run_dir={run_dir}"]
        mark = uuid.uuid4().hex
        log = run_dir.with_suffix(".log").open("a", encoding="utf-8")
        driver = subprocess.Popen(
            [*train(), *what, "--json"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            env={**os.environ, MARK: mark},
        )
        over = threading.Event()
        args = (driver, mark, chance, gap, faults, over)
        monkey = threading.Thread(target=disturb, args=args)
        monkey.start()
        output = driver.communicate()[0]
        over.set()
        monkey.join()
        for process in find(mark, "ray::"):  # left over from a killed driver
            signal_to(process, signal.SIGKILL)
        if driver.returncode == 0:
            if output.count("\n") != 1:
                raise BrokenError(f"not one line on stdout: {output!r}")
            result: dict[str, Any] = json.loads(output)
            return result
        # A driver that is asked to stop twice may end at once.
        if driver.returncode not in (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM):
            raise BrokenError(f"exit code {driver.returncode}, see {log.name}")


def disturb(
    driver: subprocess.Popen[str],
    mark: str,
    chance: np.random.Generator,
    gap: float,
    faults: Counter[str],
    over: threading.Event,
) -> None:
    """Injects faults until the run is over."""
    names, shares = zip(*FAULTS.items(), strict=True)
    while not find(mark, "ray::WorkerActor") and not over.wait(0.2):
        pass  # Ray itself is not tested here: it starts without faults
    while not over.wait(chance.exponential(gap)):
        name = str(chance.choice(names, p=shares))
        actor = "ray::WorkerActor" if name.startswith("worker") else "ray::ServerActor"
        victims = find(mark, actor)
        if name.startswith("driver"):
            victims = [driver.pid]
        if not victims:
            continue
        victim = int(chance.choice(victims))
        faults[name] += 1
        if name.endswith("killed"):
            signal_to(victim, signal.SIGKILL)
        elif name == "driver asked to stop":
            signal_to(victim, signal.SIGTERM)
        elif name == "worker stopped":
            signal_to(victim, signal.SIGSTOP)
        else:
            for _ in range(30):  # a tenth of its speed for three seconds
                signal_to(victim, signal.SIGSTOP)
                time.sleep(0.09)
                signal_to(victim, signal.SIGCONT)
                time.sleep(0.01)


def train() -> list[str]:
    """The command `distmeta train` of this script's Python environment."""
    return [sys.executable, "-m", "distmeta.cli", "train"]


def logged_steps(out: Path, run_id: str) -> list[int]:
    """The outer steps that MLflow has of a run, sorted, with repetitions."""
    history = MlflowClient(f"sqlite:///{out}/mlflow.db").get_metric_history(run_id, "meta_train/loss")
    return sorted(metric.step for metric in history)


def find(mark: str, name: str) -> list[int]:
    """The ids of a run's processes whose command line starts with a name, sorted."""
    processes = psutil.process_iter(["cmdline", "environ"])  # both are None for another user's processes
    return sorted(
        process.pid
        for process in processes
        if "".join(process.info["cmdline"] or []).startswith(name) and (process.info["environ"] or {}).get(MARK) == mark
    )


def signal_to(process: int, number: signal.Signals) -> None:
    """Sends a signal, unless the process has ended."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    main()
