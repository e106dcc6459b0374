"""Validates a configuration and shows its plan, without starting a run."""

from __future__ import annotations

import math
from typing import Any

from distmeta import tracking
from distmeta.backends.resources import preflight
from distmeta.config import RunConfig
from distmeta.report.progress import Reporter
from distmeta.runs.experiment import Experiment, build_experiment
from distmeta.runs.measure import measure
from distmeta.runs.teacher import with_teacher
from distmeta.tasks.base import Split


def check(config: RunConfig, reporter: Reporter, measured: bool = False) -> dict[str, Any]:
    """Validates, loads data and model, and shows the plan.

    Args:
        config: the run's configuration.
        reporter: where the plan is shown.
        measured: whether to run one unit, and to show what the run will take.

    Returns:
        The figures that ``--json`` prints.

    Raises:
        UserError: the run cannot start; the error names the cause.
    """
    tracking.check_system(config.tracking.system_metrics)
    tracking.check_store(tracking.resolve_uri(config.tracking.uri), config.tracking.experiment)
    preflight(config.cluster)
    experiment = with_teacher(build_experiment(config))
    summary = summarise(experiment)
    reporter.table("Data", ("split", "classes", "examples", "such as"), _split_rows(experiment))
    reporter.table("Parameters", ("what", "parameters", "tensors"), _parameter_rows(summary))
    plan = summary["plan"]
    for name, split in _splits(experiment):
        reporter.note(f"  {name}: {split.sample}")
    for remark in remarks(experiment):
        reporter.note(remark)
    reporter.note(f"adapted to each task: {', '.join(summary['adapted']) or 'nothing'}")
    joining = config.cluster.range.min < plan["workers"]
    reporter.note(
        f"plan: {plan['backend']}, {'up to ' if joining else ''}{plan['workers']} workers "
        f"({plan['cpus_per_worker']:g} CPU, "
        f"{'GPU if there is one' if plan['gpus_per_worker'] is None else str(plan['gpus_per_worker']) + ' GPU'} each) "
        f"and a server; {plan['outer_steps']} outer steps of {plan['meta_batch_size']} episodes in "
        f"{plan['units_per_step']} units"
    )
    if plan["units_per_step"] < plan["workers"]:
        reporter.note(
            f"note: {plan['units_per_step']} units cannot keep {plan['workers']} workers busy; "
            "reduce cluster.tasks_per_unit or raise outer.meta_batch_size"
        )
    if measured:
        summary["measure"] = measure(config, experiment, reporter)
    return summary


def remarks(experiment: Experiment) -> list[str]:
    """What stands out in the data, a paragraph for each family; before it, where texts are cached instead."""
    elsewhere = dict.fromkeys(family.data.cache_remark for family in experiment.config.families.values())
    return [remark for remark in elsewhere if remark] + [
        f"{'data' if len(experiment.splits) == 1 else f'data of {name}'}: {'; '.join(seen.remarks())}"
        for name, seen in experiment.looks.items()
    ]


def summarise(experiment: Experiment) -> dict[str, Any]:
    """The plan as plain JSON."""
    config, setup = experiment.config, experiment.setup
    sizes = dict(zip(setup.layout.names, setup.layout.sizes, strict=True))
    names = dict.fromkeys(name for model in experiment.models.values() for name in model.free)
    adapted = experiment.learner.adapts([*names])
    splits = _splits(experiment)
    looks = {name: seen.as_json() for name, seen in experiment.looks.items()}
    return {
        "examples": sum(split.examples for _, split in splits),
        "splits": {
            name: {"classes": list(split.drawn or split.classes), "examples": split.examples} for name, split in splits
        },
        "data": next(iter(looks.values()), {}) if len(experiment.splits) == 1 else looks,
        "meta_parameters": setup.layout.size,
        "frozen_parameters": sum(value.size for value in setup.model.frozen.values()),
        "frozen": list(setup.model.frozen),
        "adapted_parameters": sum(sizes.get(name, 0) for name in adapted),
        "adapted": adapted,
        "plan": {
            "backend": config.cluster.backend,
            "workers": config.cluster.range.max if config.cluster.backend == "ray" else 1,
            "cpus_per_worker": config.cluster.cpus_per_worker,
            "gpus_per_worker": config.cluster.gpus_per_worker,
            "outer_steps": config.outer.steps,
            "meta_batch_size": config.outer.meta_batch_size,
            "units_per_step": math.ceil(config.outer.meta_batch_size / config.cluster.tasks_per_unit),
        },
    }


def _splits(experiment: Experiment) -> list[tuple[str, Split]]:
    """All splits by name. With several families, the family's name comes first."""
    return [
        (name if len(experiment.splits) == 1 else f"{family} {name}", split)
        for family, splits in experiment.splits.items()
        for name, split in splits.items()
    ]


def _split_rows(experiment: Experiment) -> list[tuple[str, str, str, str]]:
    return [
        (
            name,
            f"{len(split.drawn)} of {len(split.classes)}" if split.drawn else str(len(split.classes) or "–"),
            f"{split.examples:,}" if split.examples else "–",
            ", ".join((split.drawn or split.classes)[:2]),
        )
        for name, split in _splits(experiment)
    ]


def _parameter_rows(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        ("meta-learned", f"{summary['meta_parameters']:,}", ""),
        ("of these, adapted", f"{summary['adapted_parameters']:,}", str(len(summary["adapted"]))),
        ("frozen", f"{summary['frozen_parameters']:,}", str(len(summary["frozen"]))),
    ]
