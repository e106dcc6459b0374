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
    """The values that a key may take: one of `KINDS`, and for some keys when it has a value at all."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    uniform: tuple[float, float] | None = None
    loguniform: tuple[float, float] | None = None
    integers: Annotated[tuple[int, int] | None, Field(alias="int")] = None  # both ends included
    logint: tuple[int, int] | None = None
    choice: Annotated[list[Any] | None, Field(min_length=1)] = None
    grid: Annotated[list[Any] | None, Field(min_length=1)] = None  # each of them equally often, whatever the searcher
    # Other keys, and for each the value or the list of values with which this one counts; else it is left out.
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
            except TypeError as error:  # such as a date, which YAML makes of 2024-01-01
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
        """All values, where they are finitely many."""
        if self.integers is not None:
            return range(self.integers[0], self.integers[1] + 1)
        return self.choice if self.choice is not None else self.grid

    def matching(self, value: Any) -> list[Any]:
        """The equal value of this dimension, in a list (it may have 0 for 0.0); empty if there is none."""
        if self.values is not None:
            return [self.values[self.values.index(value)]] if value in self.values else []
        assert self.ends is not None
        is_number = isinstance(value, int if self.kind == "logint" else int | float)
        return [value] if is_number and self.ends[0] <= value <= self.ends[1] else []

    def is_end(self, value: Any) -> bool:
        """Whether it is an end of the range; each value of a list is one."""
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
    """By dotted key, also what is nested: so a command line's `tune.space.inner.lr={...}` reads."""
    if not isinstance(space, Mapping):
        return space
    flat: dict[Any, Any] = {}
    for key, value in space.items():
        inner = _flat(value) if isinstance(value, Mapping) and not {*KINDS, "when"} & value.keys() else None
        if inner and all(isinstance(its, Mapping) for its in inner.values()):
            flat |= {f"{key}.{name}": its for name, its in inner.items()}
        else:
            flat[key] = value
    return flat


class TuneConfig(Section):
    """What is searched, and how."""

    space: Annotated[dict[str, Dimension], BeforeValidator(_flat), Field(min_length=1)]  # by key, such as inner.lr
    trials: Count = 20  # with the searcher grid: no more than this many
    searcher: Literal["tpe", "random", "grid"] = "tpe"
    scheduler: Literal["asha", "pbt", "none"] = "asha"
    # With seconds: of training, less is better; the best trials are those that no other beats in both.
    objectives: Literal["score", "score and seconds"] = "score"
    concurrent: Count | None = None  # trials at once; none: as many as the cluster has room for
    grace_steps: Count | None = None  # asha: outer steps to the first rung; none: a quarter of a run
    reduction_factor: Annotated[int, Field(ge=2)] = 3  # asha: one of so many goes on at each rung
    perturb_steps: Count | None = None  # pbt: outer steps of a round; none: a quarter of outer.steps
    retries: Annotated[int, Field(ge=0)] = 1  # of a trial whose process was lost
    winner_seeds: Annotated[int, Field(ge=0)] = 3  # further seeds that the winner is trained with
