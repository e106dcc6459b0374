"""What a study's trials may be, and what is refused before any of them starts."""

import datetime
import itertools
import json
import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import optuna
import pytest
from toy import toy_config

from distmeta.config import Dimension, RunConfig
from distmeta.errors import ConfigError
from distmeta.experiment import make_learner
from distmeta.tune.records import Point, Trial
from distmeta.tune.search import propose
from distmeta.tune.space import Space, Values
from distmeta.types import Score

ACCURACY = Score("accuracy", is_share=True, higher_is_better=True)
METHODS = {
    "algorithm.name": {"choice": ["maml", "protonet"]},
    "inner.lr": {"loguniform": [0.01, 1.0], "when": {"algorithm.name": "maml"}},
    "inner.steps": {"int": [1, 3], "when": {"algorithm.name": ["maml"]}},
    "outer.lr": {"uniform": [0.001, 0.1]},
}


def config_of(folder: Path, space: dict[str, Any], **tune: Any) -> RunConfig:
    return toy_config(folder, tune__space=space, **{f"tune__{key}": value for key, value in tune.items()})


def drawn_of(config: RunConfig, count: int, score: Callable[[Values], float] = lambda values: 0.5) -> list[Values]:
    """The settings of so many trials, each of which comes to its end before the next is proposed."""
    space, trials = Space(config), list[Trial]()
    for number in range(count):
        values = propose(config, space, ACCURACY, trials)
        trials.append(Trial(str(number), values, "finished", curve=[Point(5, score(values), 0.1, 1.0)]))
    return [trial.values for trial in trials]


def test_a_key_that_does_not_count_is_left_out_of_the_configuration(tmp_path: Path) -> None:
    """The file says inner.lr and inner.steps, which prototypical networks do not have."""
    space = Space(config_of(tmp_path, METHODS))
    config = space.config({"algorithm.name": "protonet", "outer.lr": 0.01})
    assert (config.inner.lr, config.inner.steps, config.outer.lr, config.tune) == (None, None, 0.01, None)
    make_learner(config)
    assert config.data.keep_features, "trials share them"
    config = space.config({"algorithm.name": "maml", "inner.lr": 0.5, "inner.steps": 3, "outer.lr": 0.01})
    assert (config.inner.lr, config.inner.steps) == (0.5, 3)


def test_a_key_that_counts_with_one_that_does_not_count_does_not_either(tmp_path: Path) -> None:
    """Though the file says of the other what it would take."""
    chain = {"inner.steps": {"choice": [2], "when": {"algorithm.name": "maml"}}, "algorithm.name": {"choice": ["maml"]}}
    space = Space(config_of(tmp_path, {**chain, "inner.lr": {"choice": [0.1], "when": {"inner.steps": 2}}}))
    assert space.is_active("inner.lr", {"algorithm.name": "maml", "inner.steps": 2})
    assert not space.is_active("inner.lr", {"algorithm.name": "protonet"})


@pytest.mark.parametrize("searcher", ["tpe", "random"])
def test_what_is_drawn_lies_in_the_space(tmp_path: Path, searcher: str) -> None:
    config = config_of(tmp_path, {**METHODS, "outer.steps": {"logint": [1, 1000]}}, searcher=searcher)
    space = Space(config)
    seen = drawn_of(config, 40, lambda values: float(values["outer.lr"]))
    for values in seen:
        assert 0.001 <= values["outer.lr"] <= 0.1
        assert 1 <= values["outer.steps"] <= 1000
        with_steps = values["algorithm.name"] == "maml"
        assert ("inner.lr" in values, "inner.steps" in values) == (with_steps, with_steps)
        if with_steps:
            assert 0.01 <= values["inner.lr"] <= 1
            assert values["inner.steps"] in (1, 2, 3)
        space.config(values)
    assert {values["algorithm.name"] for values in seen} == {"maml", "protonet"}
    assert sum(values["outer.steps"] < 32 for values in seen) > 8  # half of them, on a logarithmic scale


def test_a_grid_goes_through_every_combination_once(tmp_path: Path) -> None:
    keys = {**METHODS, "inner.lr": {"choice": [0.1, 0.2], "when": {"algorithm.name": "maml"}}}
    config = config_of(tmp_path, {**keys, "outer.lr": {"grid": [0.1, 0.2]}}, searcher="grid")
    space = Space(config)
    drawn = drawn_of(config, space.trials)
    maml = itertools.product([0.1, 0.2], [1, 2, 3], [0.1, 0.2])
    expected = [{"algorithm.name": "maml", "inner.lr": a, "inner.steps": b, "outer.lr": c} for a, b, c in maml]
    expected += [{"algorithm.name": "protonet", "outer.lr": c} for c in (0.1, 0.2)]
    assert sorted(drawn, key=json.dumps) == sorted(expected, key=json.dumps)
    assert drawn != expected, "neighbours are alike, and an early trial is compared with those before it"


def test_of_a_grid_with_more_combinations_than_trials_some_from_all_over_it_are_tried(tmp_path: Path) -> None:
    space = {"episodes.ways": {"int": [2, 5]}, "outer.lr": {"choice": [0.1, 0.2, 0.3, 0.4, 0.5]}}
    config = config_of(tmp_path, space, searcher="grid", trials=10)
    drawn = drawn_of(config, Space(config).trials)
    assert len({json.dumps(values) for values in drawn}) == 10
    assert {values["episodes.ways"] for values in drawn} == {2, 3, 4, 5}


def test_the_keys_of_a_space_may_be_nested(tmp_path: Path) -> None:
    """As those of a command line are, which has precedence."""
    rate, steps = {"uniform": [0.1, 0.2]}, {"int": [1, 3], "when": {"outer.lr": 0.1}}
    config = config_of(tmp_path, {"outer.lr": {"choice": [1]}, "outer": {"lr": rate}, "inner": {"steps": steps}})
    expected = {"outer.lr": rate, "inner.steps": steps}
    assert config.tune
    assert config.tune.space == {key: Dimension.model_validate(its) for key, its in expected.items()}


def test_a_range_may_have_any_number_of_integers(tmp_path: Path) -> None:
    config = config_of(tmp_path, {"seed": {"int": [0, 2**32 - 1]}})
    assert Space(config).start() == {"seed": 0}


START: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "inside": (METHODS, {"algorithm.name": "maml", "inner.lr": 0.1, "inner.steps": 2, "outer.lr": 0.01}),
    "key that does not count": (
        {**METHODS, "outer.momentum": {"uniform": [0, 0.9], "when": {"algorithm.name": "protonet"}}},
        {"algorithm.name": "maml", "inner.lr": 0.1, "inner.steps": 2, "outer.lr": 0.01},
    ),
    "grid": (
        {"episodes.ways": {"grid": [2, 3, 4]}, "outer.lr": {"uniform": [0.001, 0.1]}},
        {"episodes.ways": 3, "outer.lr": 0.01},
    ),
    "0 for 0.0": (
        {"outer.weight_decay": {"choice": [0.1, 0]}, "outer.lr": {"uniform": [0.001, 0.1]}},
        {"outer.weight_decay": 0.0, "outer.lr": 0.01},
    ),
    "key that does not count, and that the file says": (
        {"outer.lr": {"uniform": [0.001, 0.1]}, "inner.lr": {"uniform": [0.1, 1], "when": {"inner.steps": 1}}},
        None,
    ),
    "out of a grid": ({"episodes.ways": {"grid": [2, 4]}, "outer.lr": {"uniform": [0.001, 0.1]}}, None),
    "out of a range": ({**METHODS, "outer.lr": {"uniform": [0.02, 0.1]}}, None),
    "out of a list": ({**METHODS, "inner.steps": {"choice": [1, 3]}}, None),
    "not in the file": ({"inner.lr": {"uniform": [0, 1]}, "algorithm.first_order": {"choice": [False, True]}}, None),
}


@pytest.mark.parametrize("case", START)
@pytest.mark.parametrize("searcher", ["tpe", "random"])
def test_the_first_trial_has_the_settings_of_the_file(tmp_path: Path, case: str, searcher: str) -> None:
    """Where they lie in the space; those of a grid's values in turn come after it."""
    keys, expected = START[case]
    config = config_of(tmp_path, keys, searcher=searcher)
    space = Space(config)
    assert space.start() == expected
    first, second = drawn_of(config, 2)
    assert first != second
    if expected:
        assert first == expected
        assert space.config(first) == space.config(space.default())


def test_a_grid_over_numbers_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tune.space.inner.lr: loguniform has no end .* give it as a list"):
        Space(config_of(tmp_path, METHODS, searcher="grid"))


def test_values_of_a_grid_are_drawn_equally_often_by_other_searchers(tmp_path: Path) -> None:
    space = {"episodes.ways": {"grid": [2, 3, 4]}, "outer.lr": {"uniform": [0.001, 0.1]}}
    config = config_of(tmp_path, space)
    drawn = drawn_of(config, 9)
    assert [values["episodes.ways"] for values in drawn] == [3, 4, 2] * 3  # the file says 3
    assert len({values["outer.lr"] for values in drawn}) == 9


def test_tpe_learns_where_the_scores_are_high(tmp_path: Path) -> None:
    """It tries rates near the best one far more often than it would by chance."""
    near = {"tpe": 0, "random": 0}

    def distance(values: Values) -> float:
        return abs(math.log10(values["outer.lr"]) + 2.5)

    for searcher, seed in itertools.product(near, range(3)):
        config = config_of(tmp_path, {"outer.lr": {"loguniform": [1e-6, 1.0]}}, searcher=searcher)
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
    config = config_of(tmp_path, {"outer.lr": {"loguniform": [1e-3, 1e-1]}}, objectives=objectives)
    curve = [Point(3, 0.2, 0.1, 1.0), Point(5, 0.3, 0.1, 2.0)]
    states: dict[Any, Any] = {"finished": "COMPLETE", "stopped": "PRUNED", "waiting": "PRUNED", "failed": "FAIL"}
    trials = [Trial(status, {"outer.lr": 0.01}, status, curve=curve, until=5) for status in (*states, "running")]
    propose(config, Space(config), score, trials)
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
    config = config_of(tmp_path, {"outer.lr": {"loguniform": [1e-6, 1.0]}})
    space = Space(config)

    def near(status: Any, until: int | None) -> int:
        trials = list[Trial]()
        for number in range(40):
            values = propose(config, space, ACCURACY, trials)
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
    config = config_of(tmp_path, keys, objectives=objectives, searcher=searcher)
    trials = list[Trial]()
    for number in range(12):
        values = propose(config, Space(config), ACCURACY, trials)
        assert values == propose(config, Space(config), ACCURACY, deepcopy(trials))
        curve = [Point(3, number / 20, 0.1, 1.0), Point(5, number / 10, 0.1, 2.0)]
        trials.append(Trial(str(number), values, status, curve=curve, until=5))
    assert len({json.dumps(trial.values) for trial in trials}) > 6
    other = config.model_copy(update={"seed": 1})
    assert any(trials[n].values != propose(other, Space(other), ACCURACY, trials[:n]) for n in range(1, 12))


REFUSED: dict[str, tuple[Any, str]] = {
    "no space": ({}, "tune.space: {} does not do"),
    "no such kind": ({"outer.lr": {"uniformly": [0, 1]}}, "tune.space.outer.lr.uniformly: unknown key"),
    "two kinds": ({"outer.lr": {"uniform": [0, 1], "choice": [1]}}, "uniform and choice given; give one of"),
    "no kind": ({"outer.lr": {}}, "nothing given; give one of uniform"),
    "backwards": ({"outer.lr": {"uniform": [1, 0.5]}}, "uniform from 1 to 0.5; give a low end not above"),
    "log of 0": ({"outer.lr": {"loguniform": [0, 1]}}, "give a low end above 0 and not above"),
    "misspelt": ({"outer.rl": {"uniform": [0.1, 1]}}, "tune.space.outer.rl: unknown key; did you mean outer.lr"),
    "misspelt option": ({"algorithm.scal": {"choice": [1]}}, "tune.space.algorithm.scal: not an option of MAML"),
    "range": ({"outer.lr": {"uniform": [-1, 1]}}, "tune.space.outer.lr: -1.0 does not do"),
    "upper end": ({"outer.momentum": {"uniform": [0, 1]}}, "tune.space.outer.momentum: 1.0 does not do"),
    "one of a list": ({"outer.optimizer": {"choice": ["adam", "adan"]}}, "tune.space.outer.optimizer: 'adan' does"),
    "algorithm": ({"algorithm.name": {"choice": ["maml", "mamel"]}}, "'mamel' is unknown"),
    "together": ({"algorithm.name": {"choice": ["maml", "protonet"]}}, "or say in tune.space with `when` which belong"),
    "yardstick": ({"evaluation.validation_episodes": {"choice": [2]}}, "all trials must have this in common"),
    "data": ({"data.min_examples": {"int": [1, 2]}}, "all trials must have this in common"),
    "all of data": ({"data": {"choice": [{"path": "other.csv"}]}}, "all trials must have this in common"),
    "shares of classes": ({"data.splits.train": {"choice": [0.4]}}, "all trials must have this in common"),
    "option of a kind": (
        {"data.amplitude": {"choice": [[0.1, 1.0]]}},
        "tune.space.data.amplitude: all trials must have this in common",
    ),
    "date": ({"outer.lr": {"choice": [datetime.date(2024, 1, 1)]}}, "2024, 1, 1) cannot be a setting"),
    "part": ({"algorithm": {"choice": [{"name": "maml"}]}, "algorithm.name": {"choice": ["maml"]}}, "is a part of it"),
    "condition": ({"outer.lr": {"uniform": [0.1, 1], "when": {"outer.sped": 1}}}, "when.outer.sped: neither in the"),
    "never": (
        {"inner.lr": {"choice": [0.1], "when": {"inner.steps": [4, 5]}}, "inner.steps": {"int": [1, 3]}},
        "tune.space.inner.lr.when.inner.steps: [4, 5] is no value of it in the space",
    ),
    "part of a condition": (
        {
            "algorithm": {"choice": [{"name": "maml"}]},
            "inner.lr": {"choice": [0.1], "when": {"algorithm.name": "maml"}},
        },
        "when.algorithm.name: a part of algorithm, which has values as a whole",
    ),
    "circle": (
        {
            "outer.lr": {"uniform": [0.1, 1], "when": {"outer.momentum": 0}},
            "outer.momentum": {"choice": [0], "when": {"outer.lr": 1}},
        },
        "when: depends on itself",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_searched_is_refused_in_a_line(case: str, tmp_path: Path) -> None:
    space, message = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        Space(config_of(tmp_path, space)).check()
    assert message in str(caught.value)


def test_without_a_space_there_is_nothing_to_search(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tune: missing"):
        Space(toy_config(tmp_path))


def test_all_trials_are_validated_on_episodes_of_one_shape(tmp_path: Path) -> None:
    space = Space(config_of(tmp_path, {"episodes.ways": {"choice": [2, 4]}, "episodes.shots": {"choice": [1, 3]}}))
    config = space.config({"episodes.ways": 4, "episodes.shots": 3})
    assert (config.evaluation_ways, config.validation_shots) == (3, 2)  # of the toy
