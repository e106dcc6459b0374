"""Measures one unit of a run in a process of its own, and says what the run will take and what to change."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import fields
from typing import Any

from distmeta.backends.resources import cluster_address, usable_cpus, usable_memory
from distmeta.config import RunConfig
from distmeta.engine.encode import CHUNK
from distmeta.errors import ConfigError
from distmeta.report.progress import Reporter
from distmeta.runs import cost
from distmeta.runs.cost import Measured, Plan, Shape
from distmeta.runs.experiment import Experiment
from distmeta.runs.paths import absolute

BUSY = 1.3  # times as long on the clock as on the processor: other programs were running


def measure(config: RunConfig, experiment: Experiment, reporter: Reporter) -> dict[str, Any]:
    """Runs a unit of training and one of evaluation, and shows what the run will take.

    Returns:
        The figures that ``--json`` prints. Ranges are low, likely, high.

    Raises:
        ConfigError: the data can be read only once, or the process was killed or failed.
    """
    reporter.note("measuring: one unit is run a few times")
    shape, found = shape_of(experiment), run_unit(config, experiment)
    device = found.pop("device")
    measured, plan = Measured(**found), plan_of(experiment)
    here, limit = cluster_address(config.cluster) is None, usable_memory()
    costs = cost.estimate(measured, plan)
    changes = cost.advice(measured, plan, shape, limit) if here else []
    fits = not changes and (not here or costs.memory.likely <= limit)
    for line in sentences(measured, plan, costs, here, limit):
        reporter.note(line)
    for change in changes:
        reporter.note(f"  {change}")
    return {
        "measured": {**{field.name: getattr(measured, field.name) for field in fields(Measured)}, "device": device},
        "start_seconds": costs.start.rounded,
        "training_seconds": costs.training.rounded,
        "evaluation_seconds": costs.evaluation.rounded,
        "memory_bytes": [int(value) for value in costs.memory],
        "worker_bytes": measured.worker,
        "memory_limit_bytes": limit if here else None,
        "fits": fits,
        "changes": changes,
    }


def sentences(measured: Measured, plan: Plan, costs: cost.Cost, here: bool, limit: int) -> list[str]:
    """What was measured and what follows from it, a sentence each."""

    def times(what: cost.Range) -> str:
        return f"about {cost.duration(what.likely)} ({cost.duration(what.low)} to {cost.duration(what.high)})"

    low, likely, high = map(cost.size, costs.memory)
    units = sorted(measured.units)
    own, of_test = (cost.size(max(0, peak - measured.base)) for peak in (measured.peak, measured.evaluation_peak))
    lines = [
        f"one unit takes {cost.duration(units[len(units) // 2])} ({cost.duration(units[0])} to "
        f"{cost.duration(units[-1])}) and {own} beyond the {cost.size(measured.base)} of a process that is ready; "
        f"one of evaluation takes {cost.duration(measured.evaluation_unit)} and {of_test}",
        f"training takes {times(costs.training)}: {plan.steps} outer steps of {plan.units_per_step} units on "
        f"{min(plan.at_once, plan.workers)} workers at once",
        f"evaluation takes {times(costs.evaluation)}",
        *([f"before that, Ray and its workers take {times(costs.start)} to start"] if costs.start.likely else []),
    ]
    if measured.busy > BUSY:
        now = cost.duration(costs.training.likely * measured.busy)
        lines.append(
            f"other programs were running: units took {measured.busy:.1f} times as long on the clock; the likely times "
            f"are those of a quiet machine, and at this pace training takes {now}"
        )
    if not measured.exact:
        lines.append("the peak of memory is that of the whole process, since this system does not let it be reset")
    if measured.gpu:
        lines.append(f"a worker needs {cost.size(measured.gpu)} of its GPU")
    if not here:
        lines.append(f"a worker needs {cost.size(measured.worker)} of its machine; this was measured on this one")
        return lines
    verdict = "fits" if costs.memory.likely <= limit else "does not fit; what helps most comes first"
    needed = f"all processes need about {likely} of memory ({low} to {high})"
    return [*lines, f"{needed}, and this machine allows {cost.size(limit)}: that {verdict}"]


def run_unit(config: RunConfig, experiment: Experiment) -> dict[str, Any]:
    """What `distmeta.runs.unit` prints.

    Raises:
        ConfigError: see `measure`.
    """
    if any(family.data.path == "-" for family in config.families.values()):
        raise ConfigError("--measure", "standard input can be read only once", "give the data as a file in data.path")
    # The packages that this process finds, and not what lies in the working directory.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-P", "-m", "distmeta.runs.unit"]
    content = absolute(config).model_dump(mode="json", by_alias=True)
    result = subprocess.run(
        command, input=json.dumps(content), capture_output=True, text=True, check=False, env=environment
    )
    if result.returncode == -signal.SIGKILL:
        changes = [saver.change for saver in cost.savers(shape_of(experiment))] or ["use a machine with more memory"]
        raise ConfigError("--measure", "the unit was killed, most likely for lack of memory", "; or ".join(changes))
    if result.returncode:
        last = (result.stderr.strip() or "no message").splitlines()[-1]
        raise ConfigError("--measure", f"the unit failed ({last})", "fix that, or leave --measure out")
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def plan_of(experiment: Experiment) -> Plan:
    """How much a run does: outer steps, and the episodes and encoded chunks of all evaluations."""
    config, evaluation = experiment.config, experiment.config.evaluation
    workers = config.cluster.range.min if config.cluster.backend == "ray" else 1
    room = max(1, math.floor(usable_cpus() / config.cluster.cpus_per_worker))
    calibrated, episodes, chunks = evaluation.calibration_episodes or evaluation.curve_episodes, 0, 0
    validations = config.outer.steps // evaluation.validation_every if evaluation.validation_every else 0
    for name, family in experiment.setup.families.items():
        shapes = len(experiment.evaluated(name, "meta_test"))
        episodes += shapes * evaluation.episodes * len(experiment.contenders(name))
        episodes += 2 * shapes * calibrated if family.has_classes else 0
        episodes += validations * evaluation.validation_episodes
        stream = experiment.evaluated(name, "meta_test")[0]
        if experiment.work(experiment.learner, stream, evaluation.episodes).cache_features:
            per_split = {
                split: math.ceil(len(family.rows(split)) / CHUNK) for split in ("meta_test", "meta_validation")
            }
            chunks += 2 * per_split["meta_test"] + (2 + validations) * per_split["meta_validation"]
    if steps := getattr(experiment.learner, "inner_steps", 0):
        episodes += 2 * evaluation.curve_episodes * max(1, round(evaluation.curve_steps / steps))
    return Plan(
        config.outer.steps,
        math.ceil(config.outer.meta_batch_size / config.cluster.tasks_per_unit),
        workers,
        room if cluster_address(config.cluster) is None else workers,
        config.cluster.max_staleness == 0,
        config.cluster.backend == "ray",
        episodes,
        min(evaluation.episodes_per_unit, evaluation.episodes),
        chunks,
    )


def shape_of(experiment: Experiment) -> Shape:
    """What decides the memory of a unit."""
    config, learner = experiment.config, experiment.learner
    names = [name for model in experiment.models.values() for name in model.free]
    adapted = [name for name in learner.adapts(names) if name.startswith("body.")]
    of_body = [name for name in names if name.startswith("body.")]
    through = getattr(learner, "learns_through_steps", False)
    return Shape(
        tasks_per_unit=min(config.cluster.tasks_per_unit, config.outer.meta_batch_size),
        inner_steps=getattr(learner, "inner_steps", 0),
        second_order=through and not getattr(learner, "inner_first_order", False),
        can_be_first_order=through,
        adapts_body=bool(adapted),
        encoder=config.model.name == "hf",
        adapts_part=len(adapted) < len(of_body),
        max_length=config.data.max_length if experiment.tokenizer else 0,
        episodes_per_unit=min(config.evaluation.episodes_per_unit, config.evaluation.episodes),
    )
