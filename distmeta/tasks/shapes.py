"""The shapes of classification episodes: of meta-training, and those that evaluation tests."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from distmeta.config import RunConfig
from distmeta.data.further import split_of
from distmeta.errors import ConfigError
from distmeta.types import UNLABELLED, Stream

DESCRIBED = "described"  # in a shape: whether each class has a description in the support set


def streams_of(name: str, config: RunConfig) -> dict[str, list[Stream]]:
    """The streams of each split. A shape holds drawing options only if they are used."""
    episodes, evaluation = config.episodes, config.evaluation
    options: dict[str, Any] = {} if episodes.label_shuffle else {"label_shuffle": False}
    options |= {"label_mixing": episodes.label_mixing} if episodes.label_mixing else {}
    described = config.data.descriptions is not None
    options |= _more(episodes.unlabelled, described)
    training = {"ways": episodes.ways, "shots": episodes.shots, "queries": episodes.queries, **options}

    def evaluated(split: str, shots: int, unlabelled: int, described: bool) -> Stream:
        shape = {"ways": config.evaluation_ways, "shots": shots, "queries": evaluation.queries}
        return Stream.of(name, split, evaluation.seed, **shape, **_more(unlabelled, described))

    tested = product(evaluation.shots, sorted({False, described}), sorted({0, evaluation.unlabelled}))
    return {
        "meta_train": [Stream.of(name, "meta_train", config.seed, **training)],
        "meta_validation": [evaluated("meta_validation", config.validation_shots, episodes.unlabelled, described)],
        "meta_test": [evaluated("meta_test", shots, more, with_them) for shots, with_them, more in tested],
    }


def _more(unlabelled: int, described: bool) -> dict[str, Any]:
    """What a support set has besides labelled texts. A shape holds only what is used."""
    return ({DESCRIBED: 1} if described else {}) | ({UNLABELLED: unlabelled} if unlabelled else {})


def check_mixing(config: RunConfig) -> None:
    """Refuses to mix classes where it makes no sense."""
    if not config.episodes.label_mixing:
        return
    if config.data.task is not None:
        found = "classes of different tasks (data.task) do not mix"
        raise ConfigError("episodes.label_mixing", found, "leave it out")
    if config.data.descriptions is not None:
        found = "a class that is mixed of two has no description (data.descriptions)"
        raise ConfigError("episodes.label_mixing", found, "leave out one of them")


def check_none(config: RunConfig, texts: Sequence[str]) -> None:
    """Checks that there are enough texts of no class for evaluation, if there are any."""
    if texts and config.data.task is not None:
        raise ConfigError("data.none", "set, and what one task has no class for, another may", "leave it out")
    for split in ("meta_validation", "meta_test"):
        count = sum(split_of(text) == split for text in texts)
        if texts and count < config.evaluation.queries:
            found = f"{count} texts for {split}, and episodes take evaluation.queries={config.evaluation.queries}"
            raise ConfigError("data.none", found, "lower evaluation.queries, or leave it out")


def check_drawn(config: RunConfig, drawn: Sequence[str]) -> None:
    """Checks that there are enough classes. Mixed episodes need twice as many."""
    ways, found = config.episodes.ways, len(drawn)
    if found < ways:
        remedy = "widen it, or lower episodes.ways"
        raise ConfigError("episodes.only", f"fits {found} classes, but episodes have {ways} ways", remedy)
    if config.episodes.label_mixing and found < 2 * ways:
        remedy = "leave it out, lower episodes.ways, or use more classes"
        raise ConfigError("episodes.label_mixing", f"needs {2 * ways} classes, but meta_train has {found}", remedy)
