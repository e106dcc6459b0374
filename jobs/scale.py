"""Measures how busy many workers are kept, and calculates what the network would add.

    python jobs/scale.py jobs/scale.yaml
    python jobs/scale.py jobs/scale.yaml workers=[8] parameters=100000 'unit={seconds: 0.5}'

Efficiency is the workers' time for results that were used / (workers · elapsed time). It is measured on one machine
with the real coordinator, parameter server and Ray workers, whose units sleep instead of computing. The cost of the
network is calculated, and printed with the assumptions.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from distmeta.backends.ray import RayBackend
from distmeta.config import ClusterConfig, OuterConfig
from distmeta.config.load import override
from distmeta.config.typed import typed
from distmeta.engine.coordinator import Coordinator
from distmeta.engine.interfaces import MakeParameters, Pool, Work
from distmeta.engine.server import ParameterServer
from distmeta.engine.shard import Shard
from distmeta.types import Stream, Unit, UnitResult

WARM_UP = 2  # outer steps
GIGABIT = 1e9 / 8


@dataclass(frozen=True)
class Durations:
    """How long a unit takes."""

    seconds: float
    sigma: float = 0.0
    slow_share: float = 0.0
    slow_factor: float = 1.0

    def of(self, unit: Unit, copy: int) -> float:
        """Seconds of a unit. A backup copy draws again: the machine is slow, not the unit."""
        chance = np.random.default_rng([unit.first_index, copy])
        slow = self.slow_factor if chance.random() < self.slow_share else 1.0
        return float(self.seconds * np.exp(self.sigma * chance.standard_normal()) * slow)


class Sleeper:
    """A worker that sleeps, and returns a gradient of zeros."""

    def __init__(self, name: str, parameters: int, durations: Durations) -> None:
        self.name, self.durations = name, durations
        self.gradient = np.zeros(parameters, np.float32)

    def run(self, work: Work, unit: Unit, vector: np.ndarray, features: Any = None) -> UnitResult:
        """Sleeps for the duration of a unit."""
        seconds = self.durations.of(unit, int(self.name))
        time.sleep(seconds)
        return UnitResult(unit, self.gradient, {"loss": np.zeros(unit.count)}, (), self.name, seconds)


@dataclass(frozen=True)
class Setup:
    """The inputs to build server and workers (see `distmeta.backends.base.Setup`)."""

    parameters: int
    durations: Durations
    outer: OuterConfig
    cluster: ClusterConfig

    def make_worker(self, name: str, device: str) -> Sleeper:
        """Makes a sleeper."""
        return Sleeper(name, self.parameters, self.durations)

    def make_coordinator(self, pool: Pool, make_parameters: MakeParameters = Shard) -> Coordinator:
        """Makes the real coordinator with the real parameter server."""
        alpha = self.cluster.staleness_alpha if self.cluster.max_staleness else None
        start = np.zeros(self.parameters, np.float32)
        server = ParameterServer(self.outer, start, staleness_alpha=alpha, make_parameters=make_parameters)
        learner: Any = None
        work = Work(Stream.of("classification", "meta_train", 0, ways=5, shots=1, queries=1), learner, training=True)
        return Coordinator(pool, server, work, self.outer, self.cluster)


def main() -> None:
    """Measures every mode with every number of workers, and prints two tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a YAML file such as jobs/scale.yaml")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings such as workers=[8]")
    arguments = parser.parse_args()
    plan = typed(override(yaml.safe_load(arguments.file.read_text(encoding="utf-8")), arguments.settings), Any)
    print("| workers | mode | efficiency | seconds a step | backups |\n|---:|---|---:|---:|---:|")
    for workers in plan["workers"]:
        for mode, options in plan["modes"].items():
            print(f"| {workers} | {mode} | {' | '.join(measure(plan, workers, options))} |", flush=True)
    print(f"\n{network(plan['parameters'])}")


def measure(plan: dict[str, Any], workers: int, options: dict[str, Any]) -> tuple[str, str, str]:
    """Efficiency, seconds a step and backups of one mode."""
    steps, batch = plan["steps"], plan["units_per_worker"] * workers
    cluster = ClusterConfig(workers=workers, cpus_per_worker=0.01, tasks_per_unit=1, **options)
    # With staleness, part of the measured steps' work is done during the warm-up. The extra steps at the end balance
    # this: as much of their work is done during the measured steps.
    outer = OuterConfig(meta_batch_size=batch, steps=WARM_UP + steps + cluster.max_staleness, optimizer="adam")
    setup = Setup(plan["parameters"], Durations(**plan["unit"]), outer, cluster)
    with RayBackend(cluster) as backend:
        coordination = backend.start(setup, print)
        (*_, before) = coordination.advance(WARM_UP)
        started = time.perf_counter()
        reports = coordination.advance(steps)
        passed = time.perf_counter() - started
    useful = sum(report.metrics["time/worker_seconds"] for report in reports)
    backups = reports[-1].metrics["cluster/backups"] - before.metrics["cluster/backups"]
    return f"{useful / (workers * passed):.2f}", f"{passed / steps:.2f}", f"{backups:.0f}"


def network(parameters: int, gigabits: float = 25.0, per_node: int = 8) -> str:
    """The time of a synchronous step's traffic through the server's network card, as a Markdown table.

    θ is sent once to each node. A gradient is received from each unit, or with `cluster.reduce=node` one sum from each
    node (where a node has the units of a whole branch of the tree of sums). All of this passes the card of the server's
    node, one after another, at full speed. Latency, the additions and the nodes' own cards are ignored. With
    `cluster.server_shards=K` on K nodes, each time is divided by K.
    """
    speed, size = gigabits * GIGABIT, 4 * parameters
    lines = [
        f"{parameters / 1e6:g} million parameters, {gigabits:g} Gbit/s at the server, {per_node} workers a node, "
        "a unit each:",
        "",
        "| workers | θ out, s | gradients in, s | added on their nodes, s |",
        "|---:|---:|---:|---:|",
    ]
    for workers in (100, 1000):
        nodes = -(-workers // per_node)
        unit_seconds, node_seconds = workers * size / speed, nodes * size / speed
        lines.append(f"| {workers} | {node_seconds:.1f} | {unit_seconds:.1f} | {node_seconds:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
