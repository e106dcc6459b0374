import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from toy import toy_config

from distmeta.algorithms.maml import MAML
from distmeta.backends import open_backend
from distmeta.engine.interfaces import Evaluated, Evaluation
from distmeta.errors import DivergedError, TrainingError
from distmeta.report.statistics import paired
from distmeta.report.tables import table_rows
from distmeta.runs.evaluate import adaptation_curve, meta_test
from distmeta.runs.experiment import build_experiment
from distmeta.types import Score

ACCURACY = Score("accuracy", is_share=True, higher_is_better=True)
ABOUT: dict[str, Any] = {"title": "5-way 1-shot", "score": ACCURACY._asdict(), "name": "a"}


def test_the_table_is_in_percent() -> None:
    base = {"name": "b", "accuracy": 0.5, "ci95": 0.01, "difference": 0.25, "difference_ci95": 0.021}
    row = {**ABOUT, "accuracy": 0.75, "ci95": 0.0123, "baselines": [base]}
    assert table_rows([row]) == [
        ("5-way 1-shot", "a", "75.0 ± 1.2", ""),
        ("5-way 1-shot", "b", "50.0 ± 1.0", "+25.0 ± 2.1"),
    ]


def test_a_baseline_that_diverged_has_no_figures() -> None:
    """Scores 0.5 and 1 against 0.25 and 0.25: ½ ahead on average, by ¼ and ¾, whose standard deviation is √⅛."""
    own = np.array([0.5, 1.0])
    half = 12.706 * (1 / 16) ** 0.5  # t of two draws
    known = {"accuracy": 0.25, "ci95": 0.0, "difference": 0.5, "difference_ci95": pytest.approx(half, rel=1e-4)}
    assert paired("accuracy", own, np.array([0.25, 0.25])) == known
    unknown = paired("accuracy", own, DivergedError("task 7 diverged"))
    assert unknown == {**dict.fromkeys(known), "diverged": "task 7 diverged"}
    row = {**ABOUT, "accuracy": 0.75, "ci95": 0.0, "baselines": [{"name": "b", **unknown}]}
    assert table_rows([row])[1] == (
        "5-way 1-shot", "b", "diverged", ""
    )  # fmt: skip


def test_a_diverging_baseline_spares_the_run_that_it_is_compared_with(tmp_path: Path) -> None:
    """Under the first θ two inner steps are too many for maml: the other baselines are as they would be without it."""
    experiment = build_experiment(toy_config(tmp_path))
    with open_backend(experiment.config.cluster) as backend:
        real = backend.start(experiment.setup, print)
        whole = meta_test(experiment, real, tmp_path, lambda *arguments: None, "θ")

        class OneDiverges:
            def evaluate(self, evaluations: Sequence[Evaluation], progress: Any) -> list[Evaluated]:
                figures = real.evaluate(evaluations, progress)
                for number, its in enumerate(evaluations):
                    stream: Any = its.work.stream
                    if isinstance(its.work.learner, MAML) and its.initial in fails and stream["shots"] == 1:
                        figures[number] = Evaluated({}, DivergedError("meta_test task 7 diverged"))
                return figures

        fails, coordination = [True], cast(Any, OneDiverges())
        rows = meta_test(experiment, coordination, tmp_path, lambda *arguments: None, "θ")
        assert rows[0]["baselines"][0]["diverged"] == "meta_test task 7 diverged"
        assert rows[0]["baselines"][0]["accuracy"] is None
        rows[0]["baselines"][0] = whole[0]["baselines"][0]
        assert rows == whole
        assert json.loads((tmp_path / "manifest-3way-1shot.json").read_text())["episodes"]
        fails = [False]
        with pytest.raises(DivergedError):
            meta_test(experiment, coordination, tmp_path, lambda *arguments: None, "θ")


class Coordination:
    """Each point says how many inner steps it is after; under the first θ, `limit` of them and more diverge."""

    def __init__(self, limit: int, error: Exception) -> None:
        self.limit, self.error = limit, error

    def evaluate(self, evaluations: Sequence[Evaluation], progress: Any) -> list[Evaluated]:
        figures = []
        for its in evaluations:
            assert its.work.curve
            learner: Any = its.work.learner
            right = np.tile(np.arange(learner.inner_steps + 1) / 10, (its.count, 1))
            points = {"loss": np.zeros_like(right), "right": right, "weight": np.ones_like(right)}
            if not its.initial or learner.inner_steps < self.limit:
                figures.append(Evaluated(points))
            elif isinstance(self.error, DivergedError):
                figures.append(Evaluated({n: value[:, : self.limit] for n, value in points.items()}, self.error))
            else:
                raise self.error
        return figures


def curve(folder: Path, limit: int, error: Exception) -> tuple[dict[str, Any], list[str]]:
    notes: list[str] = []
    experiment = build_experiment(toy_config(folder, evaluation__curve_steps=3))
    coordination: Any = Coordination(limit, error)
    curves = adaptation_curve(experiment, coordination, lambda *arguments: None, notes.append)
    return {name: scores.mean(1).tolist() for name, scores in curves.items()}, notes


def test_a_curve_ends_where_its_learner_diverges(tmp_path: Path) -> None:
    whole = pytest.approx([0.0, 0.1, 0.2, 0.3])
    curves, notes = curve(tmp_path, 2, DivergedError("task 7 diverged"))
    assert curves == {"maml, meta-trained": whole, "maml, not meta-trained": pytest.approx([0.0, 0.1])}
    ends = "the adaptation curve of maml, not meta-trained ends before 2 inner steps: task 7 diverged"
    assert notes == [ends]
    assert curve(tmp_path, 0, DivergedError("at once"))[0] == {"maml, meta-trained": whole}
    assert curve(tmp_path, 9, DivergedError("never"))[1] == []


def test_a_curve_hides_no_other_failure(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="a worker was lost"):
        curve(tmp_path, 2, TrainingError("a worker was lost"))


def test_a_curve_goes_beyond_what_was_learned(tmp_path: Path) -> None:
    """After fewer steps than the loss over several steps needs, and after more than there are learned rates."""
    options = {"learn_lr": True, "multi_step_loss": 0.3, "clip_norm": 1.0, "dropout": 0.2}
    config = toy_config(tmp_path, evaluation__curve_steps=4, **{f"inner__{key}": v for key, v in options.items()})
    experiment = build_experiment(config)
    assert config.inner.steps == 2
    with open_backend(config.cluster) as backend:
        coordination = backend.start(experiment.setup, print)
        coordination.advance(1)
        curves = adaptation_curve(experiment, coordination, lambda *arguments: None, print)
    assert [scores.shape for scores in curves.values()] == [(5, 6), (5, 6)]
