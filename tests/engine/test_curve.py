"""An adaptation curve scores every point of one trajectory: the figures are those of as many adaptations."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_helpers import episodes, save_encoder
from streams import stream_config, visit
from toy import evaluated, toy_config

from distmeta.algorithms.maml import MAML
from distmeta.backends import open_backend
from distmeta.config import RunConfig
from distmeta.engine.interfaces import Evaluated, Evaluation, Work
from distmeta.errors import DivergedError
from distmeta.protocols import Model
from distmeta.runs.experiment import Experiment, build_experiment
from distmeta.types import Inputs, Stream

STEPS = 4
LEARNED = {"inner__learn_lr": True, "inner__clip_norm": 0.3, "inner__dropout": 0.2}
CASES: dict[str, dict[str, Any]] = {
    "maml": {},
    "learned rates": {**LEARNED, "inner__multi_step_loss": 0.3},
    "protomaml": {"algorithm__name": "protomaml"},
    "features": {"algorithm__name": "protomaml", "inner__adapt": "head"},
    "learned rates on features": {"algorithm__name": "protomaml", "inner__adapt": "head", **LEARNED},
    "metasgd": {"algorithm__name": "metasgd"},
    "multitask": {"algorithm__name": "multitask", "inner": {"lr": 0.5, "steps": 2}},
    "finetune": {"algorithm__name": "finetune", "inner": {"lr": 0.5, "steps": 2}, "outer__steps": 0},
    "reptile": {"algorithm__name": "reptile"},
    "top layer": {"inner__adapt": "top:1", "data__max_length": 16},
}


def both_routes(config: RunConfig, stream: Stream | None = None) -> tuple[list[Evaluated], Evaluated]:
    """The figures of adaptations of 0, 1, … steps, and those of a curve, after an outer step."""
    experiment = build_experiment(config)
    with open_backend(config.cluster) as backend:
        coordination = backend.start(experiment.setup, print)
        if config.outer.steps:
            coordination.advance(1)
        if stream is None:
            stream = evaluated(experiment, "meta_validation", 2)
        *singles, curve = coordination.evaluate(
            [
                *(Evaluation(work_of(experiment, stream, steps), 0, 7, 3) for steps in range(STEPS + 1)),
                Evaluation(replace(work_of(experiment, stream, STEPS), curve=True), 0, 7, 3),
            ]
        )
    return singles, curve


def work_of(experiment: Experiment, stream: Stream, steps: int) -> Work:
    learner: Any = experiment.learner
    return experiment.work(replace(learner, inner_steps=steps), stream, 100)


def assert_equal(singles: list[Evaluated], curve: Evaluated) -> None:
    """To the bit."""
    points = [its.require() for its in singles]
    expected = {name: np.stack([point[name] for point in points], 1) for name in points[0]}
    assert {name: value.tolist() for name, value in curve.require().items()} == {
        name: value.tolist() for name, value in expected.items()
    }
    losses = expected["loss"]
    assert losses.shape == (7, STEPS + 1)
    assert (losses[:, 1:] != losses[:, :-1]).all(), "every step was to change something"


@pytest.mark.parametrize("name", CASES)
def test_a_curves_points_are_those_of_as_many_adaptations(tmp_path: Path, name: str) -> None:
    settings = dict(CASES[name])
    if name == "top layer":
        settings["model"] = {"name": "hf", "path": save_encoder(tmp_path, "bert")}
    assert_equal(*both_routes(toy_config(tmp_path, **settings)))


@pytest.mark.parametrize("adapt", ["all", "head"])
def test_a_curve_begins_where_the_warm_start_ends(tmp_path: Path, adapt: str) -> None:
    config = stream_config(tmp_path, inner__adapt=adapt, **({"model__freeze": ["body.*"]} if adapt == "head" else {}))
    stream = visit((2, 2, 2), round=3, neighbours=2)
    family = build_experiment(config).setup.families["classification"]
    assert episodes(family, stream, 0, 1).support.inputs["memory"].sum() > 0
    assert_equal(*both_routes(config, stream))


def test_a_curve_ends_where_the_adaptation_of_as_many_steps_diverges(tmp_path: Path) -> None:
    """The same points before, and the same words."""
    singles, curve = both_routes(toy_config(tmp_path, inner__lr=1e15, inner__steps=1, outer__steps=0))
    reached = next(steps for steps, its in enumerate(singles) if its.error)
    assert 0 < reached < STEPS
    for step in range(reached):
        assert curve.statistics["loss"][:, step].tolist() == singles[step].statistics["loss"].tolist()
    assert curve.statistics["loss"].shape == (7, reached)
    assert str(curve.error) == str(singles[reached].error)
    with pytest.raises(DivergedError):
        curve.require()


@dataclass(frozen=True, kw_only=True)
class Counting(MAML):
    """Counts the steps that tasks have taken."""

    def objective(self, model: Model, outputs: torch.Tensor, batch: Any) -> torch.Tensor:
        STEPS_TAKEN.append(len(batch.targets))
        return super().objective(model, outputs, batch)


STEPS_TAKEN: list[int] = []


def test_a_curve_takes_each_step_once_and_encodes_a_query_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = build_experiment(toy_config(tmp_path, inner__adapt="head"))
    encoded: list[tuple[int, ...]] = []
    encode = type(experiment.model).encode

    def encoding(self: Any, shared: Any, adapted: Any, inputs: Inputs) -> Inputs:
        if "features" not in inputs:
            encoded.append(tuple(inputs["input_ids"].shape[:2]))
        return encode(self, shared, adapted, inputs)

    monkeypatch.setattr(type(experiment.model), "encode", encoding)
    work = Work(
        evaluated(experiment, "meta_test", 2), Counting(inner_steps=STEPS, inner_adapt="head"), False, curve=True
    )
    STEPS_TAKEN.clear()
    with open_backend(experiment.config.cluster) as backend:
        backend.start(experiment.setup, print).evaluate([Evaluation(work, 0, 5, 5)])
    assert STEPS_TAKEN == [5] * STEPS
    assert encoded == [(5, 6), (5, 6)]  # the query and the support of 3 ways, 2 examples each
