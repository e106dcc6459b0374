"""Everything that crosses a process survives it."""

import pickle
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arrays import f32
from toy import toy_config

from distmeta.algorithms.base import registry
from distmeta.engine.interfaces import Work
from distmeta.runs.experiment import build_experiment
from distmeta.types import Rejected, ServerState, StepReport, Stream, Unit, UnitResult

UNIT = Unit(3, 12, 4)
REJECTED = Rejected(13, ("a", "b"), "not finite")
STREAM = Stream.of("classification", "meta_train", 0, ways=5, shots=1, queries=2)
THINGS: list[Any] = [
    UNIT,
    REJECTED,
    STREAM,
    StepReport(4, {"meta_train/loss": 0.5}, (REJECTED,)),
    *(Work(STREAM, registry.get(name)(), training=True) for name in registry.names()),
]


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: type(getattr(thing, "learner", thing)).__name__)
def test_round_trip(thing: Any) -> None:
    assert pickle.loads(pickle.dumps(thing)) == thing


def test_results_and_states() -> None:
    result = UnitResult(UNIT, f32(1, 2), {"loss": np.zeros(4)}, (REJECTED,), "0", 0.5)
    back = pickle.loads(pickle.dumps(result))
    assert (back.unit, back.rejected, back.gradient.tolist()) == (UNIT, (REJECTED,), [1, 2])
    state = ServerState({"meta_params": f32(1)}, {"version": 2}, [{"index": 1}])
    assert pickle.loads(pickle.dumps(state)) == state


def test_a_setup_builds_the_same_worker_elsewhere(tmp_path: Path) -> None:
    setup = build_experiment(toy_config(tmp_path)).setup
    back = pickle.loads(pickle.dumps(setup))
    assert {field.name for field in fields(back)} == {field.name for field in fields(setup)}
    here, there = (
        its.make_worker("0", "cpu").run(its.training, Unit(0, 0, 2), its.meta_params) for its in (setup, back)
    )
    assert np.array_equal(here.gradient, there.gradient)
