"""What a study's trials may be, and what is refused before any of them starts."""

import datetime
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from toy import toy_config
from tune_helpers import METHODS, drawn_of, searched

from distmeta.config import Dimension
from distmeta.errors import ConfigError
from distmeta.runs.settings import make_learner
from distmeta.tune.space import Space


def test_a_key_that_does_not_count_is_left_out_of_the_configuration(tmp_path: Path) -> None:
    """The file says inner.lr and inner.steps, which prototypical networks do not have."""
    space = Space(searched(tmp_path, METHODS))
    config = space.config({"algorithm.name": "protonet", "outer.lr": 0.01})
    assert (config.inner.lr, config.inner.steps, config.outer.lr, config.tune) == (None, None, 0.01, None)
    make_learner(config)
    assert config.data.keep_features, "trials share them"
    config = space.config({"algorithm.name": "maml", "inner.lr": 0.5, "inner.steps": 3, "outer.lr": 0.01})
    assert (config.inner.lr, config.inner.steps) == (0.5, 3)


def test_a_key_that_counts_with_one_that_does_not_count_does_not_either(tmp_path: Path) -> None:
    """Though the file says of the other what it would take."""
    chain = {"inner.steps": {"choice": [2], "when": {"algorithm.name": "maml"}}, "algorithm.name": {"choice": ["maml"]}}
    space = Space(searched(tmp_path, {**chain, "inner.lr": {"choice": [0.1], "when": {"inner.steps": 2}}}))
    assert space.is_active("inner.lr", {"algorithm.name": "maml", "inner.steps": 2})
    assert not space.is_active("inner.lr", {"algorithm.name": "protonet"})


@pytest.mark.parametrize("searcher", ["tpe", "random"])
def test_what_is_drawn_lies_in_the_space(tmp_path: Path, searcher: str) -> None:
    config = searched(tmp_path, {**METHODS, "outer.steps": {"logint": [1, 1000]}}, searcher=searcher)
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
    config = searched(tmp_path, {**keys, "outer.lr": {"grid": [0.1, 0.2]}}, searcher="grid")
    space = Space(config)
    drawn = drawn_of(config, space.trials)
    maml = itertools.product([0.1, 0.2], [1, 2, 3], [0.1, 0.2])
    expected = [{"algorithm.name": "maml", "inner.lr": a, "inner.steps": b, "outer.lr": c} for a, b, c in maml]
    expected += [{"algorithm.name": "protonet", "outer.lr": c} for c in (0.1, 0.2)]
    assert sorted(drawn, key=json.dumps) == sorted(expected, key=json.dumps)
    assert drawn != expected, "neighbours are alike, and an early trial is compared with those before it"


def test_of_a_grid_with_more_combinations_than_trials_some_from_all_over_it_are_tried(tmp_path: Path) -> None:
    space = {"episodes.ways": {"int": [2, 5]}, "outer.lr": {"choice": [0.1, 0.2, 0.3, 0.4, 0.5]}}
    config = searched(tmp_path, space, searcher="grid", trials=10)
    drawn = drawn_of(config, Space(config).trials)
    assert len({json.dumps(values) for values in drawn}) == 10
    assert {values["episodes.ways"] for values in drawn} == {2, 3, 4, 5}


def test_the_keys_of_a_space_may_be_nested(tmp_path: Path) -> None:
    """As those of a command line are, which has precedence."""
    rate, steps = {"uniform": [0.1, 0.2]}, {"int": [1, 3], "when": {"outer.lr": 0.1}}
    config = searched(tmp_path, {"outer.lr": {"choice": [1]}, "outer": {"lr": rate}, "inner": {"steps": steps}})
    expected = {"outer.lr": rate, "inner.steps": steps}
    assert config.tune
    assert config.tune.space == {key: Dimension.model_validate(kind) for key, kind in expected.items()}


def test_a_range_may_have_any_number_of_integers(tmp_path: Path) -> None:
    config = searched(tmp_path, {"seed": {"int": [0, 2**32 - 1]}})
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
    config = searched(tmp_path, keys, searcher=searcher)
    space = Space(config)
    assert space.start() == expected
    first, second = drawn_of(config, 2)
    assert first != second
    if expected:
        assert first == expected
        assert space.config(first) == space.config(space.default())


def test_a_grid_over_numbers_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tune.space.inner.lr: loguniform has infinitely many .* give it as a list"):
        Space(searched(tmp_path, METHODS, searcher="grid"))


def test_values_of_a_grid_are_drawn_equally_often_by_other_searchers(tmp_path: Path) -> None:
    space = {"episodes.ways": {"grid": [2, 3, 4]}, "outer.lr": {"uniform": [0.001, 0.1]}}
    config = searched(tmp_path, space)
    drawn = drawn_of(config, 9)
    assert [values["episodes.ways"] for values in drawn] == [3, 4, 2] * 3  # the file says 3
    assert len({values["outer.lr"] for values in drawn}) == 9


REFUSED: dict[str, tuple[Any, str]] = {
    "no space": ({}, "tune.space: invalid value {}"),
    "no such kind": ({"outer.lr": {"uniformly": [0, 1]}}, "tune.space.outer.lr.uniformly: unknown key"),
    "two kinds": ({"outer.lr": {"uniform": [0, 1], "choice": [1]}}, "uniform and choice given; give one of"),
    "no kind": ({"outer.lr": {}}, "nothing given; give one of uniform"),
    "backwards": ({"outer.lr": {"uniform": [1, 0.5]}}, "uniform from 1 to 0.5; give a low end not above"),
    "log of 0": ({"outer.lr": {"loguniform": [0, 1]}}, "give a low end above 0 and not above"),
    "misspelt": ({"outer.rl": {"uniform": [0.1, 1]}}, "tune.space.outer.rl: unknown key; did you mean outer.lr"),
    "misspelt option": ({"algorithm.scal": {"choice": [1]}}, "tune.space.algorithm.scal: not an option of MAML"),
    "range": ({"outer.lr": {"uniform": [-1, 1]}}, "tune.space.outer.lr: invalid value -1.0"),
    "upper end": ({"outer.momentum": {"uniform": [0, 1]}}, "tune.space.outer.momentum: invalid value 1.0"),
    "one of a list": (
        {"outer.optimizer": {"choice": ["adam", "adan"]}},
        "tune.space.outer.optimizer: invalid value 'adan'",
    ),
    "algorithm": ({"algorithm.name": {"choice": ["maml", "mamel"]}}, "'mamel' is unknown"),
    "together": ({"algorithm.name": {"choice": ["maml", "protonet"]}}, "or limit a key with `when` in tune.space"),
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
        Space(searched(tmp_path, space)).check()
    assert message in str(caught.value)


def test_without_a_space_there_is_nothing_to_search(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tune: missing"):
        Space(toy_config(tmp_path))


def test_all_trials_are_validated_on_episodes_of_one_shape(tmp_path: Path) -> None:
    space = Space(searched(tmp_path, {"episodes.ways": {"choice": [2, 4]}, "episodes.shots": {"choice": [1, 3]}}))
    config = space.config({"episodes.ways": 4, "episodes.shots": 3})
    assert (config.evaluation_ways, config.validation_shots) == (3, 2)  # of the toy
