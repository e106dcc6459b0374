"""Checks that a study can start."""

from __future__ import annotations

from distmeta import tracking
from distmeta.backends.resources import preflight
from distmeta.config import ClusterConfig, RunConfig
from distmeta.errors import ConfigError
from distmeta.report.progress import Reporter
from distmeta.runs.experiment import build_experiment
from distmeta.tune import population
from distmeta.tune.space import Space
from distmeta.types import Score


def check(config: RunConfig, reporter: Reporter) -> tuple[Space, Score]:
    """Checks a study; returns its space and the score that compares its trials. Starts nothing.

    Raises:
        UserError: the study or one of its trials could not start.
    """
    for name, family in config.families.items():
        if family.data.path == "-":
            key = f"tasks.{name}.data.path" if config.tasks else "data.path"
            raise ConfigError(key, "each trial reads the data, and a pipe can be read once", "give them as a file")
    space = Space(config)
    space.check()
    if not config.evaluation.validation_every:
        found = "0, but trials are compared by their meta-validation"
        raise ConfigError("evaluation.validation_every", found, "set it, for example to a quarter of outer.steps")
    is_population = space.tune.scheduler == "pbt"
    if is_population:
        population.rounds(config)
    tracking.check_store(tracking.resolve_uri(config.tracking.uri), config.tracking.experiment)
    preflight(on_ray(config.cluster))
    experiment = build_experiment(space.config(space.default()))
    reporter.note("trying the space with data and model")
    space.check(with_data=True)
    if is_population:
        population.require_one_layout(space, experiment)
    return space, experiment.score


def on_ray(cluster: ClusterConfig) -> ClusterConfig:
    """The cluster for the trials' own processes. A private Ray has a CPU for each, even if the machine has fewer."""
    return cluster.model_copy(update={"backend": "ray"} | ({"workers": 1} if cluster.backend == "inprocess" else {}))
