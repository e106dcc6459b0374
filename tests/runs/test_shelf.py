"""Every registered algorithm with every learner: real outer steps and an evaluation."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_helpers import save_encoder
from toy import evaluate, toy_config

from distmeta.algorithms.base import registry as algorithms
from distmeta.backends import open_backend
from distmeta.models.base import registry as models
from distmeta.report.progress import Reporter
from distmeta.runs import train as driver
from distmeta.runs.experiment import build_experiment
from distmeta.runs.teacher import with_teacher

SIZES: dict[str, dict[str, Any]] = {
    "text_cnn": {"embedding_size": 8, "filters": 4, "widths": [2]},
    "text_rnn": {"embedding_size": 8, "hidden_size": 6},
    "text_attention": {"embedding_size": 8, "hidden_size": 8, "heads": 2},
    "mlp": {"embedding_size": 8, "hidden_sizes": [6]},
    "hf": {},
}
TEXT_MODELS = [name for name in models.names() if models.get(name).reads == "text"]
STREAM = {"steps_per_task": 1, "tasks": 2, "examples": 2}
SMALL_ROUNDS: dict[str, Any] = {  # the toy classes have eight texts, and two rounds share them
    "outer__steps": 2,
    "episodes": {"ways": 3, "shots": 1, "queries": 1},
    "evaluation__shots": [1],
    "evaluation__queries": 1,
}
NEEDS: dict[str, dict[str, Any]] = {  # what an algorithm cannot do without
    "finetune": {"outer__steps": 0},
    "proximal": {**SMALL_ROUNDS, "stream": STREAM},
    "online": {**SMALL_ROUNDS, "stream": {**STREAM, "replay": 0.4, "neighbours": 1}},
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def teacher(folder: Path) -> str:
    settings: dict[str, Any] = {"outer__steps": 1, "algorithm": {"name": "protomaml"}, "data__max_length": 32}
    config = toy_config(folder, **settings, evaluation__episodes=2, evaluation__curve_steps=0)
    with Reporter() as reporter:
        driver.train(config, folder / "teacher", reporter)
    return str(folder / "teacher")


@pytest.mark.parametrize(("name", "model"), list(product(algorithms.names(), TEXT_MODELS)))
def test_outer_steps(name: str, model: str, folder: Path, encoder: str, request: pytest.FixtureRequest) -> None:
    cls = algorithms.get(name)
    adapts = "inner_steps" in cls.__dataclass_fields__
    settings: dict[str, Any] = {
        "algorithm": {"name": name},
        "model": {"name": model, **({"path": encoder} if model == "hf" else {"min_count": 1}), **SIZES[model]},
        "inner": {"lr": 0.1, "steps": 2} if adapts else {},
        "data__max_length": 32,
        "outer__steps": 1,
        **NEEDS.get(name, {}),
    }
    if name == "distill":
        settings["algorithm"]["teacher"] = request.getfixturevalue("teacher")
    config = toy_config(folder, **settings)
    experiment = with_teacher(build_experiment(config))
    with open_backend(config.cluster) as backend:
        coordination = backend.start(experiment.setup, print)
        reports = coordination.advance(config.outer.steps)
        (stream,) = experiment.evaluated("classification", "meta_validation")
        work = experiment.work(experiment.learner, stream, 4)
        metrics = evaluate(coordination, work, 4, 2)
        theta = coordination.state().arrays["meta_params"]
    assert np.isfinite(theta).all()
    assert all(np.isfinite(values).all() for values in metrics.values())
    total = 3 * stream["queries"]  # ways × queries
    assert set(metrics["weight"]) == {total}
    assert set(metrics["right"]) <= set(range(total + 1))
    if cls.trains:
        assert reports[0].metrics["outer/grad_norm"] > 0
        assert not np.array_equal(theta, experiment.setup.meta_params)
