"""The space of a study: which settings a trial may have, drawn with Optuna, and whether they do.

A key that is left out because of its `when` is taken out of the configuration too, so that the algorithm's or model's
own default holds.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from distmeta.config import Dimension, RunConfig
from distmeta.config.load import set_value, validate
from distmeta.errors import ConfigError, UserError, suggest

if TYPE_CHECKING:
    import optuna

Values = dict[str, Any]  # by dotted key
DRAWS = 300  # of the space, that are tried before a study starts
MISSING = object()
# What trials are measured by, and where: it cannot differ between them. Of the data only where texts are cut.
FIXED = {"evaluation", "tracking", "checkpoint", "tune", "run_dir", "cluster", "data"}
FREE = {"data.max_length"}
OUTER = {"outer", "seed"}  # of which it does not depend whether settings fit data and model


class Space:
    """The settings of a study's trials.

    Args:
        config: what trials share, and `tune.space`.

    Raises:
        ConfigError: keys that contradict each other.
    """

    def __init__(self, config: RunConfig) -> None:
        if config.tune is None:
            raise ConfigError(
                "tune", "missing", "say in tune.space what is to be searched, as in jobs/tune_attack.yaml"
            )
        self.base = config.model_dump(mode="json") | {"tune": None}
        # Measured on the same episodes, whatever shape a trial is trained on.
        self.base["evaluation"] |= {"ways": config.evaluation_ways, "validation_shots": config.validation_shots}
        self.base["data"]["keep_features"] = True
        self.dimensions = _in_order(config.tune.space, self.base)
        for key, dimension in self.dimensions.items():
            if config.tune.searcher == "grid" and dimension.values is None:
                found = f"{dimension.kind} has no end of values, and tune.searcher is grid"
                raise ConfigError(f"tune.space.{key}", found, "give it as a list, as choice or grid")
        self.trials = config.tune.trials  # of the study
        if config.tune.searcher == "grid":
            self.trials = sum(1 for _ in itertools.islice(self.combinations(), self.trials))

    def default(self) -> Values:
        """The values that the configuration has itself."""
        values = {key: _get(self.base, key) for key in self.dimensions}
        return {key: value for key, value in values.items() if value is not MISSING}

    def start(self) -> Values | None:
        """The configuration's own values as a trial of the space; None where it is outside.

        It is too where it says a key that does not count, which a trial would leave out.
        """
        given, values = self.default(), dict[str, Any]()
        for key, dimension in self.dimensions.items():
            if self.is_active(key, values):
                if key not in given or not dimension.holds(given[key]):
                    return None
                # As a list has it, which may say 0 for 0.0.
                choices = dimension.values or [given[key]]
                values[key] = choices[choices.index(given[key])]
        return values if self.config(values) == self.config(given) else None

    def draw(self, trial: optuna.trial.BaseTrial) -> Values:
        """A trial's values."""
        values: Values = {}
        for key, dimension in self.dimensions.items():
            if self.is_active(key, values):
                values[key] = _suggest(trial, key, dimension)
        return values

    def combinations(self, keys: Sequence[str] | None = None) -> Iterator[Values]:
        """Every combination of all values, or of those of some keys; a key that is left out does not multiply them."""

        def extend(values: Values, left: list[str]) -> Iterator[Values]:
            if not left:
                yield values
                return
            key, *others = left
            if not self.is_active(key, values):
                yield from extend(values, others)
                return
            for value in self.dimensions[key].values or []:
                yield from extend({**values, key: value}, others)

        yield from extend({}, list(self.dimensions if keys is None else keys))

    def is_active(self, key: str, values: Mapping[str, Any]) -> bool:
        """Whether a key counts, given the values of those before it."""
        for other, wanted in self.dimensions[key].when.items():
            if other in self.dimensions and other not in values:
                return False  # it is left out itself
            value = values[other] if other in values else _get(self.base, other)
            if value not in _listed(wanted):
                return False
        return True

    def config(self, values: Mapping[str, Any]) -> RunConfig:
        """A trial's configuration; values may be of other keys too.

        Raises:
            ConfigError: the values do not do together.
        """
        content = copy.deepcopy(self.base)
        for key in self.dimensions:
            if key not in values:
                _drop(content, key)
        for key, value in values.items():
            set_value(content, key, value)
        return validate(content)

    def check(self) -> None:
        """Tries the ends of every key's range, and many combinations.

        Raises:
            ConfigError: naming the key of the space, or the settings that do not do together.
        """
        from distmeta.runs.settings import make_kinds, make_learner, make_model_options

        for values in self.samples():
            with self._blamed(values):
                config = self.config(values)
                for make in (make_learner, make_model_options, make_kinds):
                    make(config)

    def check_fit(self) -> None:
        """Tries with data and model every value of a list and both ends of a range, in as few combinations as do.

        Raises:
            ConfigError: as `check` does.
        """
        from distmeta.runs.experiment import build_experiment

        tried = set[tuple[str, str]]()
        for values in self.samples():
            ends = {
                (key, json.dumps(value))
                for key, value in values.items()
                if self.dimensions[key].is_end(value) and key.split(".")[0] not in OUTER
            }
            if not ends <= tried:
                with self._blamed(values):
                    build_experiment(self.config(values))
                tried |= ends

    @contextmanager
    def _blamed(self, values: Values) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            shown = ", ".join(f"{key}={json.dumps(value)}" for key, value in values.items())
            if error.where in self.dimensions:
                raise ConfigError(f"tune.space.{error.where}", error.found, error.remedy) from error
            remedy = f"{error.remedy}, or say in tune.space with `when` which belong together ({shown})"
            raise ConfigError(error.where, error.found, remedy) from error

    def samples(self) -> Iterator[Values]:
        """Values from all over the space."""
        chance = np.random.default_rng(0)
        for _ in range(DRAWS):
            values: Values = {}
            for key, dimension in self.dimensions.items():
                if self.is_active(key, values):
                    # The ends of a range as often as a number between.
                    ends = dimension.ends if chance.random() < 2 / 3 else None
                    values[key] = ends[int(chance.integers(2))] if ends else dimension.draw(chance)
            yield values


def _suggest(trial: optuna.trial.BaseTrial, key: str, dimension: Dimension) -> Any:
    if dimension.is_list:
        assert dimension.values is not None
        # As JSON: Optuna's categories are scalars, and a value may be a list or a section.
        return json.loads(trial.suggest_categorical(key, [json.dumps(value) for value in dimension.values]))
    assert dimension.ends is not None
    low, high = dimension.ends
    log = dimension.kind.startswith("log")
    if dimension.kind.endswith("int"):
        return trial.suggest_int(key, int(low), int(high), log=log)
    return trial.suggest_float(key, low, high, log=log)


def _in_order(space: Mapping[str, Dimension], base: Mapping[str, Any]) -> dict[str, Dimension]:
    """Each key after those that its `when` names."""
    for key, dimension in space.items():
        if key.split(".")[0] in FIXED and key not in FREE:
            raise ConfigError(f"tune.space.{key}", "all trials must have this in common", "leave it out of the space")
        if within := [other for other in space if other.startswith(f"{key}.")]:
            found = f"{within[0]} is a part of it"
            raise ConfigError(f"tune.space.{key}", found, "search the whole section or its keys")
        for other, wanted in dimension.when.items():
            where = f"tune.space.{key}.when.{other}"
            if whole := [its for its in space if other.startswith(f"{its}.")]:
                raise ConfigError(
                    where, f"a part of {whole[0]}, which has values as a whole", "search its keys instead"
                )
            if other not in space and _get(base, other) is MISSING:
                remedy = suggest(other, [*space, *_keys(base)])
                raise ConfigError(where, "neither in the space nor in the settings", remedy)
            if other in space and not any(space[other].holds(value) for value in _listed(wanted)):
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


def _get(content: Mapping[str, Any], key: str) -> Any:
    value: Any = content
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return MISSING
        value = value[part]
    return value


def _keys(content: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in content.items():
        yield prefix + key
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")


def _drop(content: dict[str, Any], key: str) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        content = content.get(parent) or {}
    content.pop(last, None)
