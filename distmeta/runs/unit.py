"""Runs units of a configuration in a process of their own, and says what they needed: `python -m distmeta.runs.unit`.

Reads a configuration as JSON from stdin and prints one JSON object: the fields of `distmeta.runs.cost.Measured`.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distmeta.config import RunConfig
from distmeta.config.load import validate
from distmeta.engine.encode import CHUNK, Features
from distmeta.engine.server import ParameterServer
from distmeta.engine.worker import Worker
from distmeta.report.output import clean_stdout
from distmeta.runs.experiment import Experiment, build_experiment
from distmeta.runs.teacher import with_teacher
from distmeta.types import Unit, UnitResult

REPEATS, ENOUGH_SECONDS = 5, 20.0  # units after the first, at most, and how long they may take before fewer will do
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def memory(field: str) -> int:
    """Bytes of this process: `VmHWM` at most, `VmRSS` now, `RssFile` of files. On other systems than Linux its peak."""
    if STATUS.exists():
        lines = (line.partition(":") for line in STATUS.read_text(encoding="utf-8").splitlines())
        return next((int(rest.split()[0]) * 1024 for name, _, rest in lines if name == field), 0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 0 if field == "RssFile" else peak * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> bool:
    """Makes `VmHWM` count from now; returns whether this process may do so."""
    try:
        CLEAR.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def measure(config: RunConfig) -> dict[str, Any]:
    """Builds a worker as a run would, and measures units of training and evaluation and an update."""
    experiment = with_teacher(build_experiment(config))
    torch.set_num_threads(1)  # as in a worker
    setup = experiment.setup
    device = "cpu" if config.cluster.gpus_per_worker == 0 or not torch.cuda.is_available() else "cuda"
    worker, theta = setup.make_worker("0", device), setup.meta_params
    clock = time.process_time if device == "cpu" else time.perf_counter
    base = memory("VmRSS")
    exact = forget_peak()
    units, busy, update = [0.0], 1.0, 0.0
    if config.outer.steps and experiment.learner.trains:
        tasks = min(config.cluster.tasks_per_unit, config.outer.meta_batch_size)

        def unit(number: int) -> UnitResult:
            return worker.run(setup.training, Unit(0, number * tasks, tasks), theta)

        result = unit(0)  # warms caches up
        started, units = time.perf_counter(), []
        while len(units) < REPEATS and (len(units) < 1 or time.perf_counter() - started < ENOUGH_SECONDS):
            units.append(_seconds(lambda: unit(len(units) + 1), clock))
        busy = (time.perf_counter() - started) / max(1e-9, sum(units))
        server = ParameterServer(setup.outer, theta)
        server.outer = server.outer.model_copy(update={"max_bad_tasks": 2**31})
        update = _seconds(lambda: server.apply([result]), clock)
    peak, shared = memory("VmHWM"), memory("RssFile")
    forget_peak()
    evaluation, chunk = _evaluation(experiment, worker, clock)
    return {
        "units": units,
        "busy": busy,
        "update": update,
        "evaluation_unit": evaluation,
        "chunk": chunk,
        "base": base,
        "peak": peak,
        "evaluation_peak": memory("VmHWM"),
        "exact": exact,
        "shared": shared,
        "gpu": torch.cuda.max_memory_allocated() if device == "cuda" else 0,
        "parameters": int(theta.size),
        "device": device,
    }


def _evaluation(experiment: Experiment, worker: Worker, clock: Callable[[], float]) -> tuple[float, float]:
    """Seconds of a unit of meta-test after the first, in its largest shape, and of encoding a chunk of rows."""
    config, (name, family) = experiment.config, next(iter(experiment.setup.families.items()))
    stream = experiment.evaluated(name, "meta_test")[-1]
    work = experiment.work(experiment.learner, stream, config.evaluation.episodes)
    count, theta = min(config.evaluation.episodes_per_unit, config.evaluation.episodes), experiment.setup.meta_params
    features, chunk = None, 0.0
    if work.cache_features:
        # Any values do: how long it takes to learn a head does not depend on them.
        rows = np.sort(family.rows(stream.split))
        values = np.random.default_rng(0).normal(size=(len(rows), experiment.models[name].dim))
        features = Features(rows, values.astype(np.float32))
        middle = len(rows) // CHUNK // 2  # chunks go from the shortest texts to the longest
        encoding = replace(work, cache_features=False, encodes=True)
        chunk = min(_seconds(lambda: worker.run(encoding, Unit(0, middle, 1), theta), clock) for _ in range(2))

    def unit(number: int) -> None:
        worker.run(work, Unit(0, number * count, count), theta, features)

    unit(0)
    return _seconds(lambda: unit(1), clock), chunk


def _seconds(do: Callable[[], object], clock: Callable[[], float]) -> float:
    started = clock()
    do()
    return clock() - started


def main() -> None:
    """Measures the configuration on stdin."""
    with clean_stdout():
        found = measure(validate(json.load(sys.stdin)))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
