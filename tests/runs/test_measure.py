"""A unit is really run, in a process of its own; how long it takes is not looked at."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from toy import toy_config

from distmeta.errors import ConfigError
from distmeta.report.progress import Reporter
from distmeta.runs import measure, unit
from distmeta.runs.check import check
from distmeta.runs.experiment import build_experiment
from distmeta.runs.measure import plan_of, run_unit, shape_of


def test_check_measures_a_unit(tmp_path: Path) -> None:
    shown = io.StringIO()
    found = check(toy_config(tmp_path), Reporter(Console(file=shown, width=400)), True)["measure"]
    assert json.loads(json.dumps(found)) == found
    measured = found["measured"]
    assert 1 <= len(measured["units"]) <= unit.REPEATS
    assert all(seconds > 0 for seconds in (*measured["units"], measured["update"], measured["evaluation_unit"]))
    assert measured["peak"] >= measured["base"] > 2**20
    assert measured["device"] == "cpu"
    assert found["fits"] is True
    assert found["changes"] == []
    for kind in ("training_seconds", "evaluation_seconds", "memory_bytes"):
        low, likely, high = found[kind]
        assert 0 <= low <= likely <= high
    text = shown.getvalue()
    for said in ("one unit takes", "training takes about", "evaluation takes about", "this machine allows"):
        assert text.count(said) == 1
    assert not (tmp_path / "runs").exists()


def test_what_does_not_fit_says_what_to_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toy_config(tmp_path)
    experiment = build_experiment(config)
    large: dict[str, Any] = {"units": [1.0], "busy": 2.0, "update": 0.1, "evaluation_unit": 0.1, "chunk": 0.0}
    large |= {"base": 2**30, "peak": 2**33, "evaluation_peak": 2**31, "exact": False, "shared": 0, "gpu": 2**30}
    monkeypatch.setattr(measure, "run_unit", lambda *_: {**large, "parameters": 10, "device": "cuda"})
    monkeypatch.setattr(measure, "usable_memory", lambda: 2**32)
    shown = io.StringIO()
    found = measure.measure(config, experiment, Reporter(Console(file=shown, width=400)))
    assert found["fits"] is False
    assert found["changes"][0].startswith("set ")
    text = shown.getvalue()
    assert "does not fit; what helps most comes first" in text
    assert found["changes"][0] in text
    assert "other programs were running" in text
    assert "a worker needs 1.0 GiB of its GPU" in text
    assert "since this system does not let it be reset" in text


def test_the_plan_is_that_of_the_configuration(tmp_path: Path) -> None:
    """maml adapts the body, so that nothing is encoded ahead. 12 episodes of 2 shapes for each of 4 learners …"""
    experiment = build_experiment(
        toy_config(tmp_path, evaluation__validation_every=2, evaluation__validation_episodes=7)
    )
    learners = len(experiment.contenders("classification"))
    plan = plan_of(experiment)
    assert plan.episodes == 12 * 2 * learners + 2 * 2 * 6 + 2 * 7 + 2 * 6 * 1
    assert (plan.steps, plan.units_per_step, plan.workers, plan.ray, plan.synchronous) == (5, 3, 1, False, True)
    assert plan.chunks == 0
    shape = shape_of(experiment)
    assert (shape.tasks_per_unit, shape.inner_steps, shape.second_order, shape.adapts_body) == (2, 2, True, True)
    assert (shape.encoder, shape.max_length, shape.episodes_per_unit) == (False, 64, 5)
    first_order = shape_of(build_experiment(toy_config(tmp_path, inner__first_order=True)))
    assert not first_order.second_order
    head = build_experiment(toy_config(tmp_path, algorithm__name="protonet", inner={}))
    assert shape_of(head).inner_steps == 0
    assert not shape_of(head).adapts_body
    assert plan_of(head).chunks > 0


def test_data_from_a_pipe_cannot_be_measured(tmp_path: Path) -> None:
    experiment = build_experiment(toy_config(tmp_path))
    piped = experiment.config.model_copy(update={"data": experiment.config.data.model_copy(update={"path": "-"})})
    with pytest.raises(ConfigError, match="standard input can be read only once; give the data as a file"):
        run_unit(piped, experiment)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (-9, "was killed, most likely for lack of memory; set cluster.tasks_per_unit=1"),
        (1, r"the unit failed \(boom\)"),
    ],
)
def test_a_unit_that_fails_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, message: str
) -> None:
    class Ended:
        returncode, stdout, stderr = code, "", "Traceback\nboom\n"

    monkeypatch.setattr("subprocess.run", lambda *_, **__: Ended())
    config = toy_config(tmp_path, inner={"lr": 0.1, "steps": 1})
    with pytest.raises(ConfigError, match=message):
        run_unit(config, build_experiment(config))


def test_the_unit_prints_one_object(tmp_path: Path) -> None:
    """With learners that look features up, whose body is not frozen."""
    found = unit.measure(toy_config(tmp_path, algorithm__name="protonet", inner={}))
    assert found["chunk"] > 0
    assert len(found["units"]) >= 1
    nothing = unit.measure(toy_config(tmp_path, outer__steps=0))
    assert nothing["units"] == [0.0]
