"""Learners that are made in a moment, and examples of a task for them."""

from pathlib import Path
from typing import Any

from toy import toy_config

from distmeta.runs.experiment import build_experiment
from distmeta.use.learner import Learner

ALGORITHMS: dict[str, dict[str, Any]] = {
    **{name: {} for name in ("protonet", "matching", "relation", "metanet")},
    **{name: {"inner": {"lr": 0.5, "steps": 3}} for name in ("maml", "reptile", "protomaml", "metasgd", "multitask")},
    "anil": {"inner": {"lr": 0.5, "steps": 3, "learn_lr": True}},
}
TEXTS = [f"topic{n} thing{n % 5} word{k}" for n in range(4) for k in range(3)]
LABELS = [f"class {n}" for n in range(4) for k in range(3)]
NEW = [f"word7 topic{n} thing{n % 5}" for n in range(4)]


def untrained(folder: Path, name: str, **overrides: Any) -> Learner:
    """A learner under the meta-parameters that training starts from."""
    config = toy_config(folder, **{"algorithm__name": name, "inner": {}, **ALGORITHMS.get(name, {}), **overrides})
    experiment = build_experiment(config)
    return experiment.trained(experiment.setup.meta_params, 0)
