"""Small studies, and what MLflow holds of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from toy import toy_config, toy_settings

from distmeta.config import RunConfig
from distmeta.tune.records import Point, Trial
from distmeta.tune.search import propose
from distmeta.tune.space import Space, Values
from distmeta.types import Score

ACCURACY = Score("accuracy", is_share=True, higher_is_better=True)
SPACE = {
    "algorithm.name": {"choice": ["maml", "protonet"]},
    "inner.lr": {"loguniform": [0.01, 1.0], "when": {"algorithm.name": "maml"}},
    "inner.steps": {"int": [1, 3], "when": {"algorithm.name": "maml"}},
    "outer.lr": {"loguniform": [1e-3, 1e-1]},
}
METHODS = {
    "algorithm.name": {"choice": ["maml", "protonet"]},
    "inner.lr": {"loguniform": [0.01, 1.0], "when": {"algorithm.name": "maml"}},
    "inner.steps": {"int": [1, 3], "when": {"algorithm.name": ["maml"]}},
    "outer.lr": {"uniform": [0.001, 0.1]},
}
SHORT = {
    **{"outer__steps": 6, "evaluation__validation_every": 2, "evaluation__validation_episodes": 6},
    **{"tune__trials": 5, "tune__winner_seeds": 1, "tune__space": SPACE},
}


def settings(folder: Path, **overrides: Any) -> dict[str, Any]:
    return toy_settings(folder, **{**SHORT, **overrides})


def config_of(folder: Path, **overrides: Any) -> RunConfig:
    return toy_config(folder, **{**SHORT, **overrides})


def children(folder: Path, parent: str) -> dict[str, Any]:
    """The runs that MLflow holds below a study's, by name; no two of one name."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.`mlflow.parentRunId` = '{parent}'")
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


def searched(folder: Path, space: dict[str, Any], **tune: Any) -> RunConfig:
    """The toy with a space, and with options of the section `tune`."""
    return toy_config(folder, tune__space=space, **{f"tune__{key}": value for key, value in tune.items()})


def drawn_of(config: RunConfig, count: int, score: Callable[[Values], float] = lambda values: 0.5) -> list[Values]:
    """The settings of so many trials, each of which comes to its end before the next is proposed."""
    space, trials = Space(config), list[Trial]()
    for number in range(count):
        values = propose(space, ACCURACY, trials)
        trials.append(Trial(str(number), values, "finished", curve=[Point(5, score(values), 0.1, 1.0)]))
    return [trial.values for trial in trials]
