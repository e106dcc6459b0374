"""Clusters that grow and shrink, and nodes on which workers keep failing, on several real raylets."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toy import toy_config

from distmeta.backends import open_backend
from distmeta.engine.params import sha256
from distmeta.runs.experiment import build_experiment

STEPS = 40
# In a process of its own, since the one of the tests is connected to another Ray.
PRELUDE = """
import json, os, signal, sys, time
sys.path.insert(0, sys.argv[2])
import ray
from pathlib import Path
from ray.cluster_utils import Cluster
from toy import toy_config
from distmeta.backends.ray import RayBackend
from distmeta.backends.workers import RayPool, WorkerFactory
from distmeta.runs.experiment import build_experiment
from distmeta.engine.params import sha256

config = toy_config(Path(sys.argv[1]), **json.loads(sys.argv[3]))
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
setup = build_experiment(config).setup
seen = []

def advance_until(wanted):
    # As many steps as it takes: actors start and are missed in their own time.
    for _ in range(300):
        report = coordination.advance(1)[0]
        seen.append(int(report.metrics["cluster/workers"]))
        if wanted(report.metrics):
            return
        time.sleep(0.2)
    raise SystemExit(f"it never came to that: {seen}")

def finish(**more):
    state = coordination.state()
    hashed = sha256(state.arrays["meta_params"])
    print(json.dumps({"workers": seen, "steps": state.counters["version"], "hash": hashed, **more}))
"""
GROW_AND_SHRINK = """
with RayBackend(config.cluster) as backend:
    coordination = backend.start(setup, print)
    advance_until(lambda metrics: metrics["cluster/workers"] == 1)
    node = cluster.add_node(num_cpus=2)
    advance_until(lambda metrics: metrics["cluster/workers"] == 3)
    cluster.remove_node(node, allow_graceful=False)
    advance_until(lambda metrics: metrics["cluster/workers"] == 1)
    finish()
"""
BAD_NODE = """
bad = cluster.add_node(num_cpus=8)
cluster.add_node(num_cpus=4)
make = WorkerFactory({"num_cpus": 1}, "cpu")
shared = [ray.put(setup)]
actors = []
for number in range(8):
    actors.append(make(str(number), avoid=bad.node_id))
    ray.get(actors[-1].place.remote(shared))
print(json.dumps({"bad": [ray.get(actor.place.remote(shared))[0] == bad.node_id for actor in actors]}))
"""
SHUTDOWN = """
ray.shutdown()
cluster.shutdown()
"""


def play(folder: Path, scene: str, **overrides: Any) -> dict[str, Any]:
    words = [str(folder), str(Path(__file__).parents[1]), json.dumps(overrides)]
    command = [sys.executable, "-c", PRELUDE + scene + SHUTDOWN, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    # Ray speaks on stdout too.
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    result: dict[str, Any] = json.loads(line)
    return result


def undisturbed(folder: Path, steps: int, **overrides: Any) -> str:
    config = toy_config(folder, **overrides)
    with open_backend(config.cluster.model_copy(update={"backend": "inprocess"})) as backend:
        coordination = backend.start(build_experiment(config).setup, print)
        coordination.advance(steps)
        return sha256(coordination.state().arrays["meta_params"])


@pytest.mark.parametrize(
    "reduce", [pytest.param("none", marks=pytest.mark.nightly), pytest.param("node", marks=pytest.mark.slow)]
)
def test_workers_join_and_leave_with_their_nodes_and_the_result_stays(tmp_path: Path, reduce: str) -> None:
    """The node is lost with work on it, and where gradients are added on their nodes, with gradients."""
    options: dict[str, Any] = {"cluster__workers": {"min": 1, "max": 4}, "outer__steps": 100_000}
    result = play(tmp_path, GROW_AND_SHRINK, cluster__backend="ray", cluster__reduce=reduce, **options)
    assert {1, 3} <= set(result["workers"])  # the head has room for one, the node for two; the fourth never starts
    assert result["workers"][-1] == 1
    assert result["hash"] == undisturbed(tmp_path, result["steps"], **options)


@pytest.mark.nightly
def test_a_worker_goes_to_another_node_while_there_is_room(tmp_path: Path) -> None:
    """One on the head, four on the good node, though the bad one has the most room; then there."""
    result = play(tmp_path, BAD_NODE, cluster__backend="ray")
    assert result["bad"] == [False] * 5 + [True] * 3
