"""θ before any training, after a check that learner, model and families fit together."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from distmeta.config import RunConfig
from distmeta.errors import ConfigError
from distmeta.models.functional import FunctionalModel
from distmeta.models.names import match
from distmeta.protocols import MetaLearner, TaskFamily
from distmeta.types import Params, Stream


def meta_parameters(
    config: RunConfig,
    learner: MetaLearner,
    made: Mapping[str, FunctionalModel],
    families: Mapping[str, TaskFamily],
    streams: Mapping[str, Mapping[str, list[Stream]]],
    freeze: tuple[str, ...],
) -> Params:
    """θ of all families.

    Raises:
        ConfigError: something does not fit; the error names it.
    """
    _check_patterns(config, made, freeze)
    if learner.joins_sets and any(family.episodes.unlabelled for family in config.families.values()):
        found = f"set, and {config.algorithm.name} learns from support and query set as one"
        raise ConfigError("episodes.unlabelled", found, "leave it out, or use protomaml or protonet")
    theta: Params = {}
    for name, model in made.items():
        sizes = {families[name].outputs(stream) for split in streams[name].values() for stream in split}
        learner.check(model, max(sizes))
        own = starting_values(learner, model, config.seed)
        if len(sizes) > 1 and any(key.startswith("head.") for key in own):
            ways = families[name].outputs(streams[name]["meta_train"][0])
            raise ConfigError(
                "evaluation.ways",
                f"{config.algorithm.name} meta-learns a head for {ways} ways",
                "give the same number, or use protomaml or protonet",
            )
        for key, value in own.items():
            if theta.setdefault(key, value).shape != value.shape:
                found = f"{config.algorithm.name} needs another shape of {key} for {name} than for earlier families"
                raise ConfigError(
                    f"tasks.{name}", found, "give all families the same shape, or use protonet or protomaml"
                )
    if config.outer.steps and not learner.trains:
        found = f"{config.outer.steps}, but {config.algorithm.name} does no meta-training"
        raise ConfigError("outer.steps", found, "set it to 0, or use multitask")
    if not theta:
        raise ConfigError("model.freeze", "nothing is left to meta-learn", "freeze less")
    return theta


def starting_values(learner: MetaLearner, model: FunctionalModel, seed: int) -> Params:
    """θ of a learner on one family's model, before any training."""
    return learner.init(model, torch.Generator().manual_seed(seed))


def _check_patterns(config: RunConfig, made: Mapping[str, FunctionalModel], freeze: tuple[str, ...]) -> None:
    """Refuses patterns that match no parameter name, and numbers of layers beyond the model's."""
    names = list(dict.fromkeys(name for model in made.values() for name in (*model.frozen, *model.free)))
    free = list(dict.fromkeys(name for model in made.values() for name in model.free))
    adapt = config.inner.adapt or []
    for key, patterns, among in (
        ("model.freeze", freeze, names),
        ("inner.adapt", [adapt] if isinstance(adapt, str) else adapt, free),
    ):
        for pattern in patterns:
            fits = match(names, pattern, key)
            if not match(among, pattern, key):
                frozen = " that is not frozen" if fits else ""
                remedy = f"there are {len(names)}, such as {', '.join(names[:3])}"
                if pattern == "lora" and not fits:
                    remedy = "set model.lora_rank, such as 4, with model.name=hf"
                raise ConfigError(key, f"{pattern!r} fits no parameter{frozen}", remedy)
