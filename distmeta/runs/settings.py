"""Builds the algorithm, the model and the kinds of tasks that a configuration chooses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from distmeta.algorithms.base import registry as algorithms
from distmeta.config import RunConfig, Section
from distmeta.config.load import build_options, validate
from distmeta.errors import ConfigError
from distmeta.models.base import ModelFactory
from distmeta.models.base import registry as models
from distmeta.protocols import MetaLearner
from distmeta.tasks.base import Kind
from distmeta.tasks.base import registry as kinds


def fitting(config: RunConfig, note: Callable[[str], None]) -> RunConfig:
    """The configuration without what only the file's own algorithm or model has, if settings chose another one.

    Options that were given as settings stay, and so do those that the chosen one has too. `note` gets one remark.
    """
    if not config.former:
        return config
    content = config.model_dump(mode="json", by_alias=True)
    space = content["tune"]["space"] if content["tune"] else {}
    left_out = []
    for section in config.former:
        known = _keys_of(section, content[section]["name"])
        sections = ("algorithm", "inner") if section == "algorithm" else ("model",)
        places = {f"{name}.": content[name] for name in sections}
        for prefix, options in places.items():
            for name in [name for name, value in options.items() if value not in (None, [])]:
                if prefix + name not in known and not config.is_set(prefix + name):
                    left_out.append(prefix + name)
                    del options[name]
        for key in [key for key in space if f"{section}.name" not in space and key.startswith(tuple(places))]:
            if key not in known and not config.is_set(f"tune.space.{key}"):
                left_out.append(f"tune.space.{key}")
                del space[key]
    if left_out:
        names = " and ".join(f"{content[section]['name']} instead of {was}" for section, was in config.former.items())
        note(f"note: {', '.join(left_out)} left out of the file's settings: {names} was chosen")
    return validate(content).came_from(config.source)


def _keys_of(section: str, name: str) -> set[str]:
    """The keys that an algorithm or a model has. Weights and names of frozen parameters are those of one model."""
    if section == "model":
        return {"model.name", *(f"model.{field.name}" for field in fields(models.get(name)))}
    options = {field.name for field in fields(algorithms.get(name))}
    inner = {f"inner.{option.removeprefix('inner_')}" for option in options if option.startswith("inner_")}
    return {"algorithm.name", *inner, *(f"algorithm.{option}" for option in options)}


def make_learner(config: RunConfig) -> MetaLearner:
    """The configured algorithm; `inner.*` keys set its fields of the same names."""
    name = config.algorithm.name
    cls = algorithms.get(name)
    options: dict[str, Any] = dict(config.algorithm.model_extra or {})
    keys = {option: f"algorithm.{option}" for option in options}
    adapts = "inner_steps" in {field.name for field in fields(cls)}
    # Not `model_fields_set`: a run's own config.yaml gives every key.
    for key, value in config.inner.model_dump(exclude_none=True).items():
        if not adapts:
            found = f"{name} does not learn a task by gradient steps"
            raise ConfigError(f"inner.{key}", found, "leave it out, or use protomaml")
        options[f"inner_{key}"] = value
        keys[f"inner_{key}"] = f"inner.{key}"
    learner: MetaLearner = build_options(cls, {k: v for k, v in options.items() if v is not None}, keys, also=["name"])
    return learner


def make_model_options(config: RunConfig) -> ModelFactory:
    """The configured model's options."""
    options: ModelFactory = _build_extra(models.get(config.model.name), config.model, "model")
    return options


def make_kinds(config: RunConfig) -> dict[str, Kind]:
    """The configured kinds of tasks, by family name."""
    made = {}
    for name, family in config.families.items():
        where = f"tasks.{name}" if config.tasks else ""
        cls = kinds.get(family.kind, f"{where}.kind" if where else None)
        made[name] = _build_extra(cls, family.data, f"{where}.data" if where else "data")
    return made


def _build_extra(cls: type[Any], section: Section, name: str) -> Any:
    """Builds a registered class from the keys that its configuration section does not define itself."""
    extra = dict(section.model_extra or {})
    return build_options(cls, extra, {key: f"{name}.{key}" for key in extra}, also=type(section).model_fields)
