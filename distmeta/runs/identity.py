"""The identity of a run: all that decides its result. Equal identities give equal meta-parameters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from distmeta.config import RunConfig
from distmeta.engine.params import sha256
from distmeta.engine.setup import RunSetup

DECIDING = ("tasks", "data", "episodes", "stream", "model", "algorithm", "inner", "outer", "seed")
CLUSTER = ("tasks_per_unit", "max_staleness", "staleness_alpha", "compression")
# The place of data and weights does not matter, nor what was done with them: their content is hashed.
ELSEWHERE = ("path", "cache", "descriptions", "keep_features", "splits", "copies", "teacher")


def identify(config: RunConfig, setup: RunSetup) -> dict[str, Any]:
    """The deciding settings that differ from their defaults, by key, and hashes of data and weights.

    A key that is added later does not change the identity of earlier runs while it has its default.
    """
    content = config.model_dump(mode="json")
    default = RunConfig().model_dump(mode="json")
    settings: dict[str, Any] = {}
    for name in DECIDING:
        settings |= _changed(content[name], default[name], name)
    for name in CLUSTER:
        settings |= _changed(content["cluster"][name], default["cluster"][name], f"cluster.{name}")
    if not config.cluster.max_staleness:
        settings.pop("cluster.staleness_alpha", None)
    if not config.stream.steps_per_task:
        settings = {key: value for key, value in settings.items() if not key.startswith("stream.")}
    if config.outer.schedule == "constant":
        settings.pop("outer.steps", None)  # so that a finished run can be extended
    identity = {
        "settings": settings,
        "data": {name: family.fingerprint for name, family in setup.families.items()},
        "initial_meta_params": sha256(setup.meta_params),
        "frozen_params": _frozen_sha256(setup),
    }
    return identity if setup.teacher is None else {**identity, "teacher": learner_sha256(setup.teacher)}


def difference(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """The first difference of two identities, as text; for a setting with its key. None if they are equal."""
    old, new = expected["settings"], found["settings"]
    for key in sorted({*old, *new}):
        if old.get(key) != new.get(key):
            was, now = (json.dumps(values[key]) if key in values else "its default" for values in (old, new))
            return f"other settings: {key} was {was}, and is {now}"
    for name in sorted({*expected, *found} - {"settings"}):
        if expected.get(name) != found.get(name):
            return f"other {name.replace('_', ' ')}"
    return None


def learner_sha256(setup: RunSetup) -> str:
    """Hash of all that decides a learner's predictions: θ, frozen parameters, model, algorithm and tokens."""
    fingerprints = [family.fingerprint for family in setup.families.values()]
    decides = (setup.layout, _frozen_sha256(setup), setup.model.options, setup.training.learner, fingerprints)
    return hashlib.sha256(repr((sha256(setup.meta_params), decides)).encode()).hexdigest()


def _frozen_sha256(setup: RunSetup) -> str:
    digest = hashlib.sha256()
    for name, value in setup.model.frozen.items():
        digest.update(f"{name} {value.shape} {sha256(value)}".encode())
    return digest.hexdigest()


def _changed(value: Any, default: Any, key: str) -> dict[str, Any]:
    """The values that differ from their defaults, by dotted key."""
    if key.rpartition(".")[2] in ELSEWHERE:
        return {}
    if not isinstance(value, Mapping):
        return {} if value == default else {key: value}
    known = default if isinstance(default, Mapping) else {}
    changed: dict[str, Any] = {}
    for name, entry in value.items():
        changed |= _changed(entry, known.get(name), f"{key}.{name}")
    return changed
