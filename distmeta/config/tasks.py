"""The sections `data`, `episodes`, `tasks` and `stream`: what is learned."""

import os
from pathlib import Path
from typing import Annotated, Any, Self

import pydantic
from pydantic import ConfigDict, Field

from distmeta.config.base import Count, Location, Positive, Probability, Sample, Section, Share, Ways, expand
from distmeta.config.places import barrier, stand_in
from distmeta.errors import ConfigError

CACHE = "~/.cache/distmeta"
NAMES = "names"  # as data.descriptions: the labels themselves


class Fractions(Section):
    """Shares of the classes (or of the groups of classes) that go into each split."""

    train: Annotated[float, Field(gt=0, lt=1)] = 0.6
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    test: Annotated[float, Field(gt=0, lt=1)] = 0.2

    @pydantic.model_validator(mode="after")
    def _at_most_one(self) -> Self:
        if (total := self.train + self.validation + self.test) > 1 + 1e-9:
            raise ValueError(f"the fractions add up to {total:g}; give at most 1")
        return self


class DataConfig(Section):
    """The tasks: for classification, labelled texts and the splits of their classes.

    Further keys are the options of the kind of task.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    kind: str = "classification"
    path: Location | None = None  # a file, a folder, - (standard input), hub:owner/name, or attack
    subset: str | None = None  # a hub data set's configuration
    text: str = "text"
    label: str = "label"
    group: str | None = None  # classes of one group stay in one split
    descriptions: Location | None = None  # of the classes: a file like the data's, or `names`; for support sets
    none: str | None = None  # a label of texts that belong to no class, such as oos
    task: str | None = None  # the column that names a text's task: an episode is all the labels of one task
    splits: Location | Fractions = Fractions()  # a JSON file of class names, or shares
    split: str = "1"  # which split of the file; with shares, which of the random ones
    copies: bool = False  # true: rows with the text and label of an earlier row count, and episodes may repeat a text
    min_examples: Annotated[int, Field(ge=0)] = 0  # smaller classes are left out
    max_length: Annotated[int, Field(ge=4)] = 64  # tokens; longer texts are cut
    cache: str = CACHE  # folder of tokenised texts
    keep_features: bool = False  # also cache a frozen encoder's features; a study's trials share them

    @property
    def cache_folder(self) -> Path:
        """`cache`, expanded only here: a run's own settings keep `~`, which each machine has its own of.

        The default one is in the temporary folder if the home cannot be written to.

        Raises:
            ConfigError: it cannot be expanded, or this user may not look into it.
        """
        try:
            folder = Path(expand(self.cache))
        except ValueError as error:
            raise ConfigError("data.cache", f"invalid value {self.cache!r}", str(error)) from error
        if (closed := barrier(folder)) and self.cache == CACHE:
            return stand_in() / "cache"
        if closed and not os.access(closed, os.R_OK | os.X_OK):
            raise ConfigError("data.cache", f"this user may not look into {closed}", "name another folder")
        return folder

    @property
    def cache_remark(self) -> str:
        """Why `cache_folder` is elsewhere than `cache` says; empty if it is not."""
        folder, home = self.cache_folder, Path(expand(self.cache))
        return "" if folder == home else f"note: {home} cannot be written to; texts are cached in {folder}"

    @pydantic.field_validator("split", mode="before")
    @classmethod
    def _name(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value


class EpisodesConfig(Section):
    """The shape of a training episode."""

    ways: Ways = 5
    shots: Count = 5
    queries: Count = 5
    unlabelled: Annotated[int, Field(ge=0)] = 0  # further texts of each class in the support set, without their labels
    # Yin et al., ICLR 2020, https://arxiv.org/abs/1912.03820: the meaning of labels must not be known before the task.
    label_shuffle: bool = True  # false: a class has the same label in all episodes, which invites memorising
    label_mixing: Probability = 0.0  # share of the episodes in which each class is a mix of two
    # Patterns of the classes (with data.task: of the tasks) that meta-training draws from, such as "card *".
    only: Annotated[tuple[str, ...], Field(min_length=1)] = ("*",)

    @pydantic.field_validator("label_mixing")
    @classmethod
    def _halves(cls, value: float, info: pydantic.ValidationInfo) -> float:
        if value and min(info.data.get(name, 2) for name in ("shots", "queries")) < 2:
            raise ValueError("a mixed class has texts of two; give episodes.shots and episodes.queries of 2 or more")
        return value


class FamilyConfig(Section):
    """One family of tasks among several."""

    kind: str = "classification"
    weight: Positive = 1.0  # relative share of the units of meta-training
    data: DataConfig = DataConfig()
    episodes: EpisodesConfig = EpisodesConfig()


class StreamConfig(Section):
    """Tasks of meta-training that arrive one after another, a round each, instead of all at once.

    Recurrence: a task may come back, after a gap, with new examples. Drift: during a round, a growing share of the
    episodes is drawn from the next round's task.
    """

    steps_per_task: Annotated[int, Field(ge=0)] = 0  # outer steps of a round; 0: no stream
    tasks: Annotated[int, Field(ge=2)] = 10  # rounds; outer.steps must be steps_per_task times this
    recurrence: Probability = 0.0  # probability that a round brings an earlier task back; else it brings a new one
    gap: Annotated[int, Field(ge=1)] = 2  # fewest rounds for which a task stays away
    drift: Probability = 0.0  # share of the episodes from the next task at the end of a round; grows from 0
    buffer: Count = 8  # number of latest rounds that are remembered
    examples: Count = 20  # kept examples of each class of a remembered round
    replay: Share = 0.0  # share of each meta-batch that is drawn from the kept examples
    neighbours: Annotated[int, Field(ge=0)] = 0  # number of most similar remembered rounds that `online` starts from
    min_similarity: Annotated[float, Field(ge=-1, le=1)] = 0.0  # lowest cosine of a neighbour
    temperature: Positive = 0.1  # of similarities: a remembered round's weight is ∝ exp(cosine / temperature)
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.5  # share of a round's examples that only evaluation sees
    episodes: Sample = 40  # evaluation episodes of each round, for each of evaluation.shots
