"""The space of a study: the settings that a trial may have, and their validation.

A key that is left out because of its `when` is also removed from the configuration, so that the default of the
algorithm or model applies.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from distmeta.config import Dimension, RunConfig
from distmeta.config.load import set_value, validate
from distmeta.errors import ConfigError, UserError, suggest

Values = dict[str, Any]  # by dotted key
DRAWS = 300  # samples of the space that are tried before a study starts
# Sections that decide how and where trials are measured, so that trials cannot differ in them, except in FREE.
FIXED = {"evaluation", "tracking", "checkpoint", "tune", "run_dir", "cluster", "data"}
FREE = {"data.max_length"}
OUTER = {"outer", "seed"}  # sections that do not decide whether settings fit data and model


class Space:
    """The settings of a study's trials.

    Args:
        config: the settings that trials share, and `tune.space`.

    Raises:
        ConfigError: keys that contradict each other.
    """

    def __init__(self, config: RunConfig) -> None:
        if config.tune is None:
            raise ConfigError("tune", "missing", "list the keys to search in tune.space, as in jobs/tune_attack.yaml")
        self.tune, self.seed = config.tune, config.seed
        self.base = config.model_dump(mode="json") | {"tune": None}
        # All trials are measured on the same episodes, whatever the shape of their training episodes.
        self.base["evaluation"] |= {"ways": config.evaluation_ways, "validation_shots": config.validation_shots}
        self.base["data"]["keep_features"] = True
        self.given = _flat(self.base)
        self.dimensions = _in_order(config.tune.space, self.given)
        self.trials = config.tune.trials  # number of trials
        if config.tune.searcher == "grid":
            for key, dimension in self.dimensions.items():
                if dimension.values is None:
                    found = f"{dimension.kind} has infinitely many values, and tune.searcher is grid"
                    raise ConfigError(f"tune.space.{key}", found, "give it as a list, as choice or grid")
            self.trials = sum(1 for _ in itertools.islice(self.combinations(), self.trials))

    def default(self) -> Values:
        """The configuration's own values."""
        return {key: self.given[key] for key in self.dimensions if key in self.given}

    def start(self) -> Values | None:
        """The configuration's own values as a trial of the space; None if the space has no such trial.

        It has none if the configuration sets a key that is not active, since a trial would leave the key out.
        """
        given = self.default()
        trials = self.assign(lambda key, dimension: dimension.matching(given[key]) if key in given else [])
        values = next(trials, None)
        return values if values is not None and self.config(values) == self.config(given) else None

    def assign(self, offer: Callable[[str, Dimension], Iterable[Any] | None]) -> Iterator[Values]:
        """Every combination of the offered values, key by key.

        Args:
            offer: returns the values of a key, or None to leave the key out. It is called only for active keys.
        """

        def extend(values: Values, keys: list[str]) -> Iterator[Values]:
            if not keys:
                yield values
                return
            key, *later_keys = keys
            offered = offer(key, self.dimensions[key]) if self.is_active(key, values) else None
            if offered is None:
                yield from extend(values, later_keys)
            for value in offered or ():
                yield from extend({**values, key: value}, later_keys)

        return extend({}, list(self.dimensions))

    def combinations(self) -> Iterator[Values]:
        """Every combination: of all values with the searcher grid, else only of the keys of kind `grid`."""
        is_grid = self.tune.searcher == "grid"
        return self.assign(lambda key, dimension: dimension.values if is_grid else dimension.grid)

    def samples(self) -> Iterator[Values]:
        """Random values from the whole space: each end of a range as often as a number between."""
        chance = np.random.default_rng(0)

        def pick(key: str, dimension: Dimension) -> list[Any]:
            ends = dimension.ends if chance.random() < 2 / 3 else None
            return [ends[int(chance.integers(2))] if ends else dimension.draw(chance)]

        return (next(self.assign(pick)) for _ in range(DRAWS))

    def is_active(self, key: str, values: Mapping[str, Any]) -> bool:
        """Whether a key is used, given the values of earlier keys; not if a key that it depends on is not used."""
        for other, wanted in self.dimensions[key].when.items():
            known = values if other in self.dimensions else self.given
            if other not in known or known[other] not in _listed(wanted):
                return False
        return True

    def config(self, values: Mapping[str, Any]) -> RunConfig:
        """A trial's configuration; `values` may have keys outside the space too.

        Raises:
            ConfigError: the values contradict each other.
        """
        content = copy.deepcopy(self.base)
        for key in self.dimensions:
            if key not in values:
                _drop(content, key)
        for key, value in values.items():
            set_value(content, key, value)
        return validate(content)

    def check(self, with_data: bool = False) -> None:
        """Checks many combinations of values.

        Args:
            with_data: also load data and model, for every value of a list and both ends of a range, in few
                combinations.

        Raises:
            ConfigError: names the key of the space, or the settings that contradict each other.
        """
        from distmeta.runs.experiment import build_experiment
        from distmeta.runs.settings import make_kinds, make_learner, make_model_options

        makers = (build_experiment,) if with_data else (make_learner, make_model_options, make_kinds)
        tried = set[tuple[str, str]]()
        for values in self.samples():
            inner = {key: value for key, value in values.items() if key.split(".")[0] not in OUTER}
            ends = {(key, json.dumps(value)) for key, value in inner.items() if self.dimensions[key].is_end(value)}
            if with_data and ends <= tried:
                continue
            tried |= ends
            try:
                config = self.config(values)
                for make in makers:
                    make(config)
            except UserError as error:
                if error.where in self.dimensions:
                    raise ConfigError(f"tune.space.{error.where}", error.found, error.remedy) from error
                remedy = f"{error.remedy}, or limit a key with `when` in tune.space ({shown(values)})"
                raise ConfigError(error.where, error.found, remedy) from error


def shown(values: Values) -> str:
    """Settings in a line, in full."""
    return ", ".join(f"{key}={json.dumps(value)}" for key, value in values.items())


def _in_order(space: Mapping[str, Dimension], given: Mapping[str, Any]) -> dict[str, Dimension]:
    """The dimensions, each after the keys in its `when`."""
    for key, dimension in space.items():
        where = f"tune.space.{key}"
        if key.split(".")[0] in FIXED and key not in FREE:
            raise ConfigError(where, "all trials must have this in common", "leave it out of the space")
        if parts := [other for other in space if other.startswith(f"{key}.")]:
            raise ConfigError(where, f"{parts[0]} is a part of it", "search the whole section or its keys")
        for other, wanted in dimension.when.items():
            where = f"tune.space.{key}.when.{other}"
            if whole := [section for section in space if other.startswith(f"{section}.")]:
                found = f"a part of {whole[0]}, which has values as a whole"
                raise ConfigError(where, found, "search its keys instead")
            if other not in space and other not in given:
                remedy = suggest(other, [*space, *given])
                raise ConfigError(where, "neither in the space nor in the settings", remedy)
            if other in space and not any(space[other].matching(value) for value in _listed(wanted)):
                raise ConfigError(where, f"{wanted!r} is no value of it in the space", "give one that it may have")
    ordered: dict[str, Dimension] = {}
    while left := [key for key in space if key not in ordered]:
        ready = [key for key in left if not any(other in left for other in space[key].when)]
        if not ready:
            raise ConfigError(f"tune.space.{left[0]}.when", "depends on itself", "take a condition out")
        ordered[ready[0]] = space[ready[0]]
    return ordered


def _listed(wanted: Any) -> list[Any]:
    return wanted if isinstance(wanted, list) else [wanted]


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Sections and values by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat[prefix + key] = value
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
    return flat


def _drop(content: dict[str, Any], key: str) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        content = content.get(parent) or {}
    content.pop(last, None)
