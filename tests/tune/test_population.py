"""Population-based training: who goes on from whom, with which settings; and a small real population."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from toy import toy_config

from distmeta.errors import ConfigError
from distmeta.report.progress import Reporter
from distmeta.runs import checkpoint
from distmeta.runs.experiment import build_experiment
from distmeta.tracking import Tracker
from distmeta.tune import study
from distmeta.tune.population import move, perturbed, require_one_layout, rounds
from distmeta.tune.records import Move, Point, Records, Trial
from distmeta.tune.space import Space
from distmeta.tune.trial import run_trial
from distmeta.types import Score

ACCURACY = Score("accuracy", is_share=True, higher_is_better=True)
MSE = Score("mse", is_share=False, higher_is_better=False)
SPACE = {"inner.lr": {"loguniform": [0.01, 1.0]}, "inner.steps": {"int": [1, 3]}, "outer.lr": {"uniform": [0.001, 0.1]}}
POPULATION = {
    **{"outer__steps": 9, "evaluation__validation_every": 1, "evaluation__validation_episodes": 6},
    **{"tune__space": SPACE, "tune__scheduler": "pbt", "tune__searcher": "random", "tune__perturb_steps": 3},
}


def population(scores: list[float]) -> list[Trial]:
    values = {"inner.lr": 0.1, "inner.steps": 2}
    return [
        Trial(f"trial-{n:04}", {**values, "outer.lr": 0.01 + n / 1000}, "waiting", curve=[Point(3, score, 0.1, 1.0)])
        for n, score in enumerate(scores)
    ]


@pytest.mark.parametrize("score", [ACCURACY, MSE])
def test_the_lowest_quarter_goes_on_from_the_highest(tmp_path: Path, score: Score) -> None:
    space = Space(toy_config(tmp_path, **POPULATION))
    quality = [0.5, 0.1, 0.9, 0.4, 0.3, 0.8, 0.2, 0.6]
    trials = population([value if score is ACCURACY else -value for value in quality])
    moved = move(trials, 3, score, space)
    assert {trial.name for trial in moved} == {"trial-0001", "trial-0006"}
    for trial in moved:
        (made,) = trial.moves
        assert made.step == 3
        assert made.origin in ("trial-0002", "trial-0005")
        assert made.before["outer.lr"] == 0.01 + int(trial.name[-1]) / 1000
        assert trial.is_moving
        space.config(trial.values)

    def seeded(seed: int) -> Space:
        return Space(toy_config(tmp_path, **POPULATION, seed=seed))

    other = move(population([0.1 * n for n in range(8)]), 3, ACCURACY, seeded(1))
    again = move(population([0.1 * n for n in range(8)]), 3, ACCURACY, seeded(2))
    assert [trial.values for trial in other] != [trial.values for trial in again]


def test_settings_are_those_of_the_trial_that_is_gone_on_from(tmp_path: Path) -> None:
    """Near them, or drawn anew: never near those that the trial had."""
    config = toy_config(tmp_path, **{**POPULATION, "tune__space": {"outer.lr": {"uniform": [0.001, 0.1]}}})
    near = 0
    for seed in range(40):
        trials = [
            Trial(f"trial-{n:04}", {"outer.lr": rate}, "waiting", curve=[Point(3, rate, 0.1, 1.0)])
            for n, rate in enumerate((0.01, 0.02, 0.03, 0.05))
        ]
        (moved,) = move(trials, 3, ACCURACY, Space(config.model_copy(update={"seed": seed})))
        near += moved.values["outer.lr"] in (0.05 * 0.8, 0.05 * 1.2)
    assert near > 20


def test_each_round_is_decided_by_chance_of_its_own(tmp_path: Path) -> None:
    space = Space(toy_config(tmp_path, **POPULATION))
    trials = population([n / 10 for n in range(8)])
    for trial in trials:
        trial.curve.append(Point(6, trial.curve[0].score, 0.1, 2.0))
    first = [trial.values for trial in move(deepcopy(trials), 3, ACCURACY, space)]
    assert first != [trial.values for trial in move(deepcopy(trials), 6, ACCURACY, space)]


def test_who_moves_is_decided_once(tmp_path: Path) -> None:
    """A study that is killed between two records decides the same again."""
    space = Space(toy_config(tmp_path, **POPULATION))
    scores = [n / 10 for n in range(8)]
    once, interrupted = population(scores), population(scores)
    move(once, 3, ACCURACY, space)
    first = move(interrupted, 3, ACCURACY, space)[0]
    again = [first if trial.name == first.name else trial for trial in population(scores)]
    (second,) = move(again, 3, ACCURACY, space)
    assert second.name != first.name
    assert again == once
    assert move(again, 3, ACCURACY, space) == []


def test_a_trial_that_failed_neither_moves_nor_is_moved_to(tmp_path: Path) -> None:
    space = Space(toy_config(tmp_path, **POPULATION))
    trials = population([0.0, 0.9, 0.5, 0.1, 0.4, 0.6, 0.7])
    for trial in trials[:2]:
        trial.status, trial.curve = "failed", []
    assert move(trials[:5], 3, ACCURACY, space) == []  # a quarter of three is none
    (moved,) = move(trials, 3, ACCURACY, space)
    assert moved.values["outer.lr"] != trials[1].values["outer.lr"]
    assert (moved.name, moved.moves[0].origin) == ("trial-0003", "trial-0006")


def test_a_trial_that_fails_later_does_not_change_who_moved_before(tmp_path: Path) -> None:
    """A study that goes on goes through its rounds again."""
    space = Space(toy_config(tmp_path, **POPULATION))
    trials = population([n / 10 for n in range(9)])
    assert {trial.name for trial in move(trials, 3, ACCURACY, space)} == {"trial-0000", "trial-0001"}
    trials[0].status = trials[8].status = "failed"
    assert move(trials, 3, ACCURACY, space) == []
    assert trials[2].moves == []
    trials = population([n / 10 for n in range(9)])
    trials[0].status = "failed"  # after its last meta-validation of the round
    assert [trial.name for trial in move(trials, 3, ACCURACY, space)] == ["trial-0001"]


def test_a_population_is_large_enough_for_one_to_move(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tune.trials: 3, of which pbt moves a quarter; give 4 or more"):
        rounds(toy_config(tmp_path, **POPULATION, tune__trials=3))


def test_what_theta_depends_on_by_other_settings_cannot_change_either(tmp_path: Path) -> None:
    """MAML++ has a learned rate for each inner step."""
    config = toy_config(tmp_path, **POPULATION)
    require_one_layout(Space(config), build_experiment(config))
    config = toy_config(tmp_path, **POPULATION, inner__learn_lr=True)
    with pytest.raises(ConfigError, match=r"tune.space: pbt moves .* differ with inner.lr=.*, inner.steps="):
        require_one_layout(Space(config), build_experiment(config))


def test_perturbed_values_are_near_and_in_the_space(tmp_path: Path) -> None:
    space = Space(toy_config(tmp_path, **POPULATION))
    chance = np.random.default_rng(0)
    values = {"inner.lr": 0.9, "inner.steps": 3, "outer.lr": 0.01}
    drawn = [perturbed(values, space, chance) for _ in range(400)]
    for near in drawn:
        space.config(near)
        assert 0.01 <= near["inner.lr"] <= 1
        assert near["inner.steps"] in (1, 2, 3)
    for rate in (1.0, 0.9 * 0.8):  # half of three quarters of them each; 0.9 · 1.2 is above the range
        assert 110 < sum(near["inner.lr"] == rate for near in drawn) < 190
    assert {near["inner.steps"] for near in drawn} == {1, 2, 3}


def test_integers_move_by_the_factors_or_else_by_one(tmp_path: Path) -> None:
    space = Space(toy_config(tmp_path, **{**POPULATION, "tune__space": {"inner.steps": {"int": [1, 10**9]}}}))
    chance = np.random.default_rng(0)

    def near(value: int) -> set[int]:
        drawn = {perturbed({"inner.steps": value}, space, chance)["inner.steps"] for _ in range(50)}
        return {number for number in drawn if number < 1000}  # others are drawn anew

    assert near(10) == {8, 12}
    assert near(2) == {1, 3}


def test_perturbed_values_are_of_the_keys_that_count(tmp_path: Path) -> None:
    """Also where another value of the key that they count with was drawn."""
    keys = {
        "outer.momentum": {"choice": [0.0, 0.5]},
        "outer.lr": {"uniform": [0.001, 0.1], "when": {"outer.momentum": 0.5}},
    }
    space = Space(toy_config(tmp_path, **{**POPULATION, "tune__space": keys}))
    chance = np.random.default_rng(0)
    drawn = [perturbed({"outer.momentum": 0.0}, space, chance) for _ in range(50)]
    assert {(near["outer.momentum"], "outer.lr" in near) for near in drawn} == {(0.0, False), (0.5, True)}


def test_rounds_end_where_trials_are_validated(tmp_path: Path) -> None:
    assert rounds(toy_config(tmp_path, **POPULATION)) == [3, 6, 9]
    assert rounds(toy_config(tmp_path, **{**POPULATION, "outer__steps": 8, "tune__perturb_steps": None})) == [
        2,
        4,
        6,
        8,
    ]
    with pytest.raises(ConfigError, match=r"tune.perturb_steps: 3, but trials are validated every 2"):
        rounds(toy_config(tmp_path, **{**POPULATION, "evaluation__validation_every": 2}))


@pytest.mark.parametrize("key", ["algorithm.name", "outer.steps", "outer.optimizer", "model.filters", "inner.adapt"])
def test_what_theta_is_made_of_cannot_change(key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"tune.space.{key}: cannot change in the middle of a run"):
        rounds(toy_config(tmp_path, **{**POPULATION, "tune__space": {key: {"choice": [1]}}}))


def test_a_trial_that_is_killed_after_a_move_goes_on_as_if_it_had_not_been(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the very settings of the other trial it comes to the same scores as that one."""
    config = toy_config(tmp_path, **POPULATION, tracking__uri=uri, checkpoint__every=0, checkpoint__keep=2)
    parent = Tracker.start(uri, "Default", "study", {}, tmp_path)
    slow, quick = ({"inner.lr": 0.1, "inner.steps": 1, "outer.lr": rate} for rate in (0.001, 0.1))
    deaths = list[int]()

    def report(figures: dict[str, int]) -> None:
        if figures["outer_step"] in deaths:
            deaths.remove(figures["outer_step"])
            raise RuntimeError("killed")

    def run(records: Records, name: str) -> list[Any]:
        run_trial({"name": name}, records.folder, config, parent.run_id, {})
        return [point[:3] for point in records.read(name).curve]

    monkeypatch.setattr("ray.tune.report", report)
    for case in ([], [4, 5]):
        records = Records(tmp_path / f"killed-at-{case}")
        for name, values in (("origin", quick), ("moved", slow)):
            records.write(Trial(name, values, until=3))
            run(records, name)
        moved, origin = records.read("moved"), records.read("origin")
        moved.moves.append(Move(3, "origin", moved.values))
        moved.values, moved.until, origin.until = quick, 6, 6
        assert moved.is_moving
        records.write(moved)
        records.write(origin)
        deaths += case
        for _ in case:
            with pytest.raises(RuntimeError, match="killed"):
                run(records, "moved")
            assert not records.read("moved").is_moving
        curve, other = run(records, "moved"), run(records, "origin")
        assert [step for step, *_ in curve] == [1, 2, 3, 4, 5, 6]
        assert curve[:3] != other[:3]
        assert curve[3:] == other[3:]
    parent.finish()


@pytest.mark.nightly
def test_a_population_changes_its_settings_on_the_way(
    tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four trials one goes on from the best of them, twice; MLflow shows the settings over the steps."""
    from mlflow import MlflowClient

    config = toy_config(tmp_path, **POPULATION, tune__trials=4, tune__winner_seeds=0)
    result = study.start(config, tmp_path / "study", Reporter())
    assert result["trials"] == {"finished": 4, "stopped": 0, "failed": 0}
    records = Records(tmp_path / "study" / "trials")
    trials = records.all()
    assert sorted(made.step for trial in trials for made in trial.moves) == [3, 6]
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    for trial in trials:
        assert [point.step for point in trial.curve] == list(range(1, 10))
        assert not trial.is_moving
        run_dir = records.run_dir(trial.name)
        content = yaml.safe_load((run_dir / "config.yaml").read_text())
        assert content["outer"]["lr"] == trial.values["outer.lr"]
        state, _ = checkpoint.load(run_dir)
        assert state.counters["version"] == 9
        run_id = json.loads((run_dir / "run.json").read_text())["mlflow_run_id"]
        logged: Any = client.get_metric_history(run_id, "tune/outer.lr")
        used = [made.before["outer.lr"] for made in trial.moves] + [trial.values["outer.lr"]]
        assert list(dict.fromkeys(metric.value for metric in logged)) == used
