"""Selects parameters by name: `body.*` (adapters are `body.lora.*`) and `head.*`."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence

from distmeta.errors import ConfigError

LAYER = re.compile(r"body\.(?:.+\.)?layers?\.(\d+)\.")  # parameter names in transformers' encoders
SHORT = {"head": "head.*", "body": "body.*", "lora": "body.lora.*", "all": "*"}


def layer_of(name: str) -> int | None:
    """The body layer that a parameter belongs to, counted from 0, or None."""
    found = LAYER.match(name)
    return int(found[1]) if found else None


def match(names: Iterable[str], patterns: str | Sequence[str], key: str = "inner.adapt") -> list[str]:
    """The names that match a pattern.

    `head`, `body`, `lora` and `all` are short for ``head.*``, ``body.*``, ``body.lora.*`` and ``*``. `top:2` is the
    head and the last two layers that occur in the names.

    Raises:
        ConfigError: `top:N` with fewer than N layers; the error names `key`.
    """
    names, patterns = list(names), [patterns] if isinstance(patterns, str) else patterns
    chosen = {name for pattern in patterns for name in _fits(names, pattern, key)}
    return [name for name in names if name in chosen]


def _fits(names: list[str], pattern: str, key: str) -> list[str]:
    if not (top := re.fullmatch(r"top:([1-9]\d*)", pattern)):
        glob = SHORT.get(pattern, pattern)
        return [name for name in names if fnmatch.fnmatchcase(name, glob)]
    layers, wanted = sorted({layer for name in names if (layer := layer_of(name)) is not None}), int(top[1])
    if layers and wanted > len(layers):
        raise ConfigError(key, f"{pattern} of {len(layers)} layers", f"give at most top:{len(layers)}, or all")
    kept = layers[-wanted:]
    return [name for name in names if layers and (layer_of(name) in kept or name.startswith("head."))]
