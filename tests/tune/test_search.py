"""The next trial's settings, from those before it."""

import itertools
import json
import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import optuna
import pytest
from tune_helpers import ACCURACY, METHODS, drawn_of, searched

from distmeta.tune.records import Point, Trial
from distmeta.tune.search import propose
from distmeta.tune.space import Space, Values
from distmeta.types import Score


def test_tpe_learns_where_the_scores_are_high(tmp_path: Path) -> None:
    """It tries rates near the best one far more often than it would by chance."""
    near = {"tpe": 0, "random": 0}

    def distance(values: Values) -> float:
        return abs(math.log10(values["outer.lr"]) + 2.5)

    for searcher, seed in itertools.product(near, range(3)):
        config = searched(tmp_path, {"outer.lr": {"loguniform": [1e-6, 1.0]}}, searcher=searcher)
        drawn = drawn_of(config.model_copy(update={"seed": seed}), 40, lambda values: -distance(values))
        near[searcher] += sum(distance(values) < 0.5 for values in drawn[20:])
    assert near["tpe"] > 1.5 * near["random"] > 0, near


@pytest.mark.parametrize("better", ["higher", "lower"])
@pytest.mark.parametrize("objectives", ["score", "score and seconds"])
def test_what_optuna_is_told(tmp_path: Path, better: str, objectives: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that pauses or was stopped counts with its scores, unless with its seconds; one that failed does not."""
    studies, create = list[optuna.Study](), optuna.create_study

    def watched(**options: Any) -> optuna.Study:
        studies.append(create(**options))
        return studies[-1]

    monkeypatch.setattr("optuna.create_study", watched)
    score = Score("x", is_share=True, higher_is_better=better == "higher")
    config = searched(tmp_path, {"outer.lr": {"loguniform": [1e-3, 1e-1]}}, objectives=objectives)
    curve = [Point(3, 0.2, 0.1, 1.0), Point(5, 0.3, 0.1, 2.0)]
    states: dict[Any, Any] = {"finished": "COMPLETE", "stopped": "PRUNED", "waiting": "PRUNED", "failed": "FAIL"}
    trials = [Trial(status, {"outer.lr": 0.01}, status, curve=curve, until=5) for status in (*states, "running")]
    propose(Space(config), score, trials)
    with_seconds = objectives == "score and seconds"
    if with_seconds:
        states |= {"stopped": "FAIL", "waiting": "FAIL"}
    told = studies[0].trials
    assert [trial.state.name for trial in told] == [*states.values(), "RUNNING", "RUNNING"]
    assert told[0].values == ([0.3, 2.0] if with_seconds else [0.3])
    assert [trial.intermediate_values for trial in told[1:3]] == [{} if with_seconds else {3: 0.2, 5: 0.3}] * 2
    towards = ["MAXIMIZE" if better == "higher" else "MINIMIZE", *(["MINIMIZE"] if with_seconds else [])]
    assert [direction.name for direction in studies[0].directions] == towards


@pytest.mark.parametrize("pausing", [False, True])
def test_tpe_learns_from_trials_that_pause_or_were_stopped(tmp_path: Path, pausing: bool) -> None:
    """As well as from such as came to their end; but not from the curve of one that runs."""
    config = searched(tmp_path, {"outer.lr": {"loguniform": [1e-6, 1.0]}})
    space = Space(config)

    def near(status: Any, until: int | None) -> int:
        trials = list[Trial]()
        for number in range(40):
            values = propose(space, ACCURACY, trials)
            point = Point(5, -abs(math.log10(values["outer.lr"]) + 2.5), 0.1, 1.0)
            trials.append(Trial(str(number), values, status, curve=[point], until=until))
        return sum(trial.curve[0].score > -0.5 for trial in trials[20:])

    told = near("waiting", 5) if pausing else near("stopped", None)
    assert told > 1.5 * near("running", 10)


@pytest.mark.parametrize("searcher", ["tpe", "random", "grid"])
@pytest.mark.parametrize("status", ["finished", "stopped", "failed", "running", "waiting"])
@pytest.mark.parametrize("objectives", ["score", "score and seconds"])
def test_the_same_trials_lead_to_the_same_proposal(tmp_path: Path, status: Any, objectives: str, searcher: str) -> None:
    """So a study that was ended goes on as it would have, from the records of its trials alone."""
    keys = {**METHODS, "inner.lr": {"choice": [0.1, 0.2], "when": {"algorithm.name": "maml"}}}
    keys["outer.lr"] = {"choice": [0.001, 0.01, 0.1]}
    config = searched(tmp_path, keys, objectives=objectives, searcher=searcher)
    trials = list[Trial]()
    for number in range(12):
        values = propose(Space(config), ACCURACY, trials)
        assert values == propose(Space(config), ACCURACY, deepcopy(trials))
        curve = [Point(3, number / 20, 0.1, 1.0), Point(5, number / 10, 0.1, 2.0)]
        trials.append(Trial(str(number), values, status, curve=curve, until=5))
    assert len({json.dumps(trial.values) for trial in trials}) > 6
    other = config.model_copy(update={"seed": 1})
    assert any(trials[n].values != propose(Space(other), ACCURACY, trials[:n]) for n in range(1, 12))


def test_tpe_keeps_away_from_where_another_trial_is_running(tmp_path: Path) -> None:
    """What is being tried is taken for bad until its score is there; what has failed is left out of account."""
    config = searched(tmp_path, {"outer.lr": {"loguniform": [1e-6, 1.0]}})
    near = {"running": 0, "failed": 0}
    done = [
        Trial(str(n), {"outer.lr": 10 ** (-n / 2)}, "finished", curve=[Point(5, -abs(n / 2 - 2.5), 0.1, 1.0)])
        for n in range(12)
    ]
    for status, seed in itertools.product(near, range(20)):
        others = [Trial(f"other-{n}", {"outer.lr": 10**-2.5}, status) for n in range(5)]  # type: ignore[arg-type]
        values = propose(Space(config.model_copy(update={"seed": seed})), ACCURACY, [*done, *others])
        near[status] += abs(math.log10(values["outer.lr"]) + 2.5) < 0.5
    assert near["running"] < near["failed"] / 2, near
