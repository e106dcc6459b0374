"""Successive halving: who goes on from a rung, and what a small real study of pausing trials leaves."""

from pathlib import Path
from typing import Any

import pytest
from toy import toy_config
from tune_helpers import children, config_of

from distmeta.report.progress import Reporter
from distmeta.tune import study
from distmeta.tune.halving import following, foremost, promoted, rungs
from distmeta.tune.records import Point, Records, Trial
from distmeta.types import Score

ACCURACY = Score("accuracy", is_share=True, higher_is_better=True)
MSE = Score("mse", is_share=False, higher_is_better=False)
SPACE = {"outer.lr": {"choice": [0.001]}}


def paused(name: str, *scores: float, status: Any = "waiting") -> Trial:
    """Trial that has come to as many of the rungs 2, 6 and 18 as it has scores, and waits at the last."""
    curve = [Point(step, score, 0.1, 1.0) for step, score in zip((2, 6, 18), scores, strict=False)]
    return Trial(name, {}, status, curve=curve, until=curve[-1].step)


def test_rungs_are_a_factor_apart(tmp_path: Path) -> None:
    def of(steps: int, **tune: Any) -> list[int]:
        overrides = {f"tune__{key}": value for key, value in tune.items()}
        return rungs(toy_config(tmp_path, outer__steps=steps, evaluation__validation_every=2, **overrides))

    assert of(100, space=SPACE, grace_steps=5) == [5, 15, 45]
    assert of(100, space=SPACE, grace_steps=5, reduction_factor=4) == [5, 20, 80]
    assert of(100, space=SPACE) == [24, 72]  # from a quarter on, where trials are validated
    assert of(100, space=SPACE, grace_steps=100) == []  # nothing is saved
    assert [following([5, 15], step) for step in (0, 5, 15)] == [5, 15, None]


@pytest.mark.parametrize("score", [ACCURACY, MSE])
def test_the_best_third_goes_on_and_the_furthest_first(score: Score) -> None:
    sign = score.sign
    trials = [paused("a", 0.5 * sign), paused("b", 0.7 * sign)]
    assert promoted(trials, [2, 6, 18], 3, score) is None  # a third of two
    trials.append(paused("c", 0.6 * sign))
    assert promoted(trials, [2, 6, 18], 3, score) is trials[1]
    trials[1] = paused("b", 0.7 * sign, 0.9 * sign)  # it has gone on, and is of the first rung's best third no less
    assert promoted(trials, [2, 6, 18], 3, score) is None
    trials += [paused(name, 0.1 * sign) for name in "def"]
    assert promoted(trials, [2, 6, 18], 3, score) is trials[2]
    trials += [paused("g", 0.8 * sign, 0.2 * sign), paused("h", 0.9 * sign, 0.3 * sign)]
    assert promoted(trials, [2, 6, 18], 3, score) is trials[1]  # from the second rung, though one waits at the first


def test_what_runs_or_is_over_does_not_go_on() -> None:
    running = paused("a", 0.9)
    running.until = 6
    others = [paused("c", 0.1), paused("d", 0.1)]
    assert promoted([running, *others], [2, 6], 3, ACCURACY) is None
    for status in ("failed", "stopped", "finished"):
        assert promoted([paused("a", 0.9, status=status), *others], [2, 6], 3, ACCURACY) is None


def test_where_trials_are_few_the_best_of_the_furthest_goes_on_to_its_end() -> None:
    trials = [paused("a", 0.5), paused("b", 0.7), paused("c", 0.1, 0.3), paused("d", 0.9, status="failed")]
    assert foremost(trials, [2, 6], ACCURACY) is trials[2]
    trials[2].status = "failed"
    assert foremost(trials, [2, 6], ACCURACY) is trials[1]
    assert foremost(trials, [2, 6], MSE) is trials[0]
    assert foremost([*trials, paused("e", 0.1, status="finished")], [2, 6], ACCURACY) is None


class Watched(Reporter):
    """Keeps its notes."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.mark.nightly
def test_trials_pause_and_go_on_as_if_they_had_not(tmp_path: Path, ray_session: None) -> None:
    """Of nine with rungs after 2 and 6 of 12 steps, a third each; whoever goes on is trained to the same end."""
    lrs = [0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2]
    shape: dict[str, Any] = {"tune__space": {"outer.lr": {"choice": lrs}}, "tune__searcher": "grid", "tune__trials": 9}
    shape |= {"outer__steps": 12, "evaluation__validation_every": 2, "tune__grace_steps": 2, "tune__winner_seeds": 0}
    whole = study.start(config_of(tmp_path, **shape, tune__scheduler="none"), tmp_path / "whole", Reporter())
    reporter = Watched()
    result = study.start(config_of(tmp_path, **shape, tune__scheduler="asha"), tmp_path / "halved", reporter)
    assert whole["outer_steps"] == 9 * 12
    curves = {trial.values["outer.lr"]: trial.curve for trial in Records(tmp_path / "whole" / "trials").all()}
    trials = Records(tmp_path / "halved" / "trials").all()
    for trial in trials:
        full = curves[trial.values["outer.lr"]][: len(trial.curve)]
        assert [(point.step, point.score) for point in trial.curve] == [(point.step, point.score) for point in full]
        assert trial.curve[-1].step == {"stopped": trial.until, "finished": 12}[trial.status]
    beyond = sum(trial.curve[-1].step > 2 for trial in trials)
    assert 3 <= beyond < 9  # three at least, and more where early ones were let on
    assert 1 <= result["trials"]["finished"] <= beyond
    assert any("waiting" in line for line in reporter.notes)
    runs = children(tmp_path, result["mlflow_run_id"])
    for trial in trials:
        assert runs[trial.name].info.status == ("FINISHED" if trial.status == "finished" else "KILLED")
