"""Parameters by their names: `body.*`, of which `body.lora.*` are adapters, and `head.*`."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence

from distmeta.errors import ConfigError

LAYER = re.compile(r"body\.(?:.+\.)?layers?\.(\d+)\.")  # how transformers' encoders name what their layers hold
SHORT = {"head": "head.*", "body": "body.*", "lora": "body.lora.*", "all": "*"}


def layer_of(name: str) -> int | None:
    """Which layer of the body a parameter belongs to, counted from 0, if to any."""
    found = LAYER.match(name)
    return int(found[1]) if found else None


def match(names: Iterable[str], patterns: str | Sequence[str], key: str = "inner.adapt") -> list[str]:
    """The names that a pattern fits.

    `head`, `body`, `lora` and `all` are short for ``head.*``, ``body.*``, ``body.lora.*`` and ``*``; `top:2` for the
    last two of the layers that the names speak of, and the head.

    Raises:
        ConfigError: naming `key`: there are fewer layers.
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
