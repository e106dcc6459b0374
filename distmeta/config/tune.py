"""The section `tune`: a study, that is, a search for better settings."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import pydantic
from pydantic import BeforeValidator, ConfigDict, Field

from distmeta.config.base import Count, Section

if TYPE_CHECKING:
    import numpy as np

KINDS = ("uniform", "loguniform", "int", "logint", "choice", "grid")


class Dimension(Section):
    """The values that a key may take, as one of `KINDS`; `when` limits when the key is used."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    uniform: tuple[float, float] | None = None
    loguniform: tuple[float, float] | None = None
    integers: Annotated[tuple[int, int] | None, Field(alias="int")] = None  # both ends included
    logint: tuple[int, int] | None = None
    choice: Annotated[list[Any] | None, Field(min_length=1)] = None
    grid: Annotated[list[Any] | None, Field(min_length=1)] = None  # each value equally often, with any searcher
    # Other keys, each with the value or list of values at which this key is used; else this key is left out.
    when: dict[str, Any] = Field(default_factory=dict)

    @pydantic.model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in KINDS if getattr(self, _field(kind)) is not None]
        if len(given) != 1:
            raise ValueError(f"{' and '.join(given) or 'nothing'} given; give one of {', '.join(KINDS)}")
        if self.ends is not None:
            low, high = self.ends
            if low > high or (given[0].startswith("log") and low <= 0):
                bound = "above 0 and " if given[0].startswith("log") else ""
                raise ValueError(f"{given[0]} from {low:g} to {high:g}; give a low end {bound}not above the high one")
        for value in (self.values or []) if self.is_list else []:
            try:
                json.dumps(value)
            except TypeError as error:  # such as a date, from Python
                raise ValueError(f"{value!r} cannot be a setting; put it in quotes") from error
        return self

    @property
    def kind(self) -> str:
        """Which of `KINDS`."""
        return next(kind for kind in KINDS if getattr(self, _field(kind)) is not None)

    @property
    def ends(self) -> tuple[float, float] | None:
        """The smallest and the largest number; None for lists."""
        value = getattr(self, _field(self.kind))
        return value if isinstance(value, tuple) else None

    @property
    def is_list(self) -> bool:
        """Whether it is a list of any values, not numbers in order."""
        return self.choice is not None or self.grid is not None

    @property
    def values(self) -> Sequence[Any] | None:
        """All values; None if there are infinitely many."""
        if self.integers is not None:
            return range(self.integers[0], self.integers[1] + 1)
        return self.choice if self.choice is not None else self.grid

    def matching(self, value: Any) -> list[Any]:
        """A list with the value of this dimension that equals `value`, such as 0 for 0.0; empty if there is none."""
        if self.values is not None:
            return [self.values[self.values.index(value)]] if value in self.values else []
        assert self.ends is not None
        is_number = isinstance(value, int if self.kind == "logint" else int | float)
        return [value] if is_number and self.ends[0] <= value <= self.ends[1] else []

    def is_end(self, value: Any) -> bool:
        """Whether a value is an end of the range; always true for a list."""
        return self.ends is None or value in self.ends

    def draw(self, chance: "np.random.Generator") -> Any:
        """A value at random."""
        if self.values is not None:
            return self.values[int(chance.integers(len(self.values)))]
        assert self.ends is not None
        low, high = self.ends
        if self.kind == "uniform":
            return float(chance.uniform(low, high))
        number = math.exp(chance.uniform(math.log(low), math.log(high)))
        return round(number) if self.kind == "logint" else number


def _field(kind: str) -> str:
    return "integers" if kind == "int" else kind


def _flat(space: Any) -> Any:
    """Flattens nested keys to dotted ones, so that `tune.space.inner.lr={...}` works on the command line."""
    if not isinstance(space, Mapping):
        return space
    flat: dict[Any, Any] = {}
    for key, value in space.items():
        inner = _flat(value) if isinstance(value, Mapping) and not {*KINDS, "when"} & value.keys() else None
        if inner and all(isinstance(dimension, Mapping) for dimension in inner.values()):
            flat |= {f"{key}.{name}": dimension for name, dimension in inner.items()}
        else:
            flat[key] = value
    return flat


class TuneConfig(Section):
    """The space of a study, and how it is searched."""

    space: Annotated[dict[str, Dimension], BeforeValidator(_flat), Field(min_length=1)]  # by key, such as inner.lr
    trials: Count = 20  # with the searcher grid: at most
    searcher: Literal["tpe", "random", "grid"] = "tpe"
    scheduler: Literal["asha", "pbt", "none"] = "asha"
    # With seconds, shorter training is better too; the best trials are those that no other beats in both.
    objectives: Literal["score", "score and seconds"] = "score"
    concurrent: Count | None = None  # trials at once; none: as many as the cluster has room for
    grace_steps: Count | None = None  # asha: outer steps to the first rung; none: a quarter of a run
    reduction_factor: Annotated[int, Field(ge=2)] = 3  # asha: one trial in this many is promoted at each rung
    perturb_steps: Count | None = None  # pbt: outer steps of a round; none: a quarter of outer.steps
    retries: Annotated[int, Field(ge=0)] = 1  # how often a trial whose process was lost is run again
    winner_seeds: Annotated[int, Field(ge=0)] = 3  # further seeds that the winner is trained with
