"""Looks at a configuration."""

from typing import Any

from distmeta.config import RunConfig


def value_of(config: RunConfig, key: str) -> Any:
    """A setting by its dotted key."""
    content: Any = config.model_dump()
    for part in key.split("."):
        content = content[part]
    return content
