"""Registries of classes. To find all entries, every file of a package is imported once and registers its classes."""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

from distmeta.errors import ConfigError, suggest

T = TypeVar("T", bound=type)


class Registry:
    """Classes by configuration name.

    Args:
        key: the configuration key that chooses an entry, for messages.
        package: the package whose files register entries.
    """

    def __init__(self, key: str, package: str) -> None:
        self.key, self.package = key, package
        self._entries: dict[str, type[Any]] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that registers a class under `name`."""

        def add(entry: T) -> T:
            if self._entries.setdefault(name, entry) is not entry:
                raise ValueError(f"{self.key} {name!r} is registered twice")
            return entry

        return add

    def names(self) -> list[str]:
        """All registered names, sorted."""
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        return sorted(self._entries)

    def get(self, name: str, key: str | None = None) -> type[Any]:
        """The class registered under a name.

        Args:
            name: the name it was registered under.
            key: the configuration key for the message, if it is not the registry's own.

        Raises:
            ConfigError: the name is unknown.
        """
        if name not in (names := self.names()):
            raise ConfigError(key or self.key, f"{name!r} is unknown", suggest(name, names))
        return self._entries[name]
