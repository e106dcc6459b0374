"""A user's settings, YAML and ``key=value``, → `RunConfig` or the options of an algorithm or model.

Every error is one line with the key and a remedy.
"""

import codecs
import dataclasses
import datetime
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import pydantic

from distmeta.config import AlgorithmConfig, ModelConfig, RunConfig, Section
from distmeta.config.base import A_NUMBER, AT_MOST, refuses_bool, too_large
from distmeta.config.syntax import parse_setting, parse_yaml, quoted
from distmeta.config.typed import typed
from distmeta.errors import ConfigError, suggest

T = TypeVar("T")
# Where pydantic names a type of Python, by its kind of error.
_REMEDIES = {
    **dict.fromkeys(("list_type", "tuple_type"), "give a list, such as [{value}]"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "give true or false"),
    **dict.fromkeys(("model_type", "dict_type"), "this is a section: set the keys in it"),
    "too_short": "give at least one",
    "string_pattern_mismatch": "begin with a letter; letters, digits, - and _ may follow",
}


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a YAML file, applies ``key=value`` overrides and validates.

    Raises:
        ConfigError: naming the key or the line.
    """
    try:
        data = Path(path).read_bytes()
        text = data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"not UTF-8 at byte {error.start}", "save it as UTF-8") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        found = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise ConfigError(str(path) or "CONFIG", found, "give a YAML file") from error
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise ConfigError(str(path), "holds no sections", "start from a file in jobs/")
    names = chosen(content)
    config = validate(override(content, overrides))
    remember(config, names, [item.partition("=")[0] for item in overrides])
    return config.came_from(str(path))


def chosen(content: Mapping[str, Any]) -> dict[str, str]:
    """The names of the algorithm and the model, by section."""
    sections = {name: content.get(name) for name in ("algorithm", "model")}
    default = {"algorithm": AlgorithmConfig().name, "model": ModelConfig().name}
    return {n: str(s.get("name", default[n])) if isinstance(s, Mapping) else default[n] for n, s in sections.items()}


def remember(config: RunConfig, names: Mapping[str, str], settings: Sequence[str]) -> None:
    """Notes in a configuration which names the settings with these keys replaced; see `runs.settings.fitting`."""
    now = {"algorithm": config.algorithm.name, "model": config.model.name}
    if former := {section: name for section, name in names.items() if name != now[section]}:
        config.remember(former, tuple(settings))


def override(content: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Applies ``a.b=value`` settings to a nested mapping, in place."""
    for item in overrides:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ConfigError(repr(item), "not of the form key=value", "write for example outer.steps=50")
        if not all(key.split(".")):
            raise ConfigError(repr(item), "a part of the key is empty", "check its dots")
        set_value(content, key, parse_setting(key, value))
    return content


def set_value(content: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key of a nested mapping."""
    *parents, last = key.split(".")
    for parent in parents:
        inner = content.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(key, f"{parent} is a value, not a section", "check the dots of the key")
        content = inner
    content[last] = value


def validate(content: dict[str, Any]) -> RunConfig:
    """Validates a nested mapping; an error names the dotted key."""
    try:
        return RunConfig.model_validate(typed(content, RunConfig))
    except pydantic.ValidationError as error:
        raise config_error(error, RunConfig) from error


def config_error(
    error: pydantic.ValidationError, model: type, keys: Mapping[str, str] = MappingProxyType({})
) -> ConfigError:
    """Turns pydantic's most helpful error into one line with the key and a remedy; `keys` of fields replace names."""

    # A misspelt key is more helpful than the missing key that it causes.
    def rank(fault: Any) -> tuple[bool, bool]:
        wrong_branch = fault["type"] in ("string_type", "int_type") and isinstance(fault["input"], dict)
        return fault["type"] != "extra_forbidden", wrong_branch

    first = min(error.errors(), key=rank)
    path = [
        str(part)
        for part in first["loc"]
        if not re.search(r"[\[\(]|^(str|list|constrained-int|Fractions|Workers)$", str(part))
    ]
    key = ".".join([*(keys.get(name, name) for name in path[:1]), *path[1:]])
    if first["type"] == "extra_forbidden":
        parents = ".".join(path[:-1])
        valid = [f"{parents}.{name}" if parents else name for name in _keys(model, path[:-1])]
        return ConfigError(key, "unknown key", suggest(key, valid))
    if first["type"] == "missing":
        return ConfigError(key, "missing", "add it")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "string_type" and first["input"] is not None:
        message += f"; for text write {quoted(key, 'TEXT')}"
    if remedy := _REMEDIES.get(first["type"]):
        message = remedy.format(value=first["input"])
    return ConfigError(key, f"invalid value {first['input']!r}", message[0].lower() + message[1:])


def _keys(model: Any, path: list[str]) -> list[str]:
    """The valid keys of the section at `path` below `model`."""
    parts = iter(path)
    for name in parts:
        annotation = get_type_hints(model)[name]
        if get_origin(annotation) is dict:  # of sections: the next part is a section's name
            next(parts)
        options = get_args(annotation) or (annotation,)  # of a union
        model = next(option for option in options if isinstance(option, type) and issubclass(option, Section))
    return list(model.model_fields)


def build_options(cls: type[T], options: dict[str, Any], keys: dict[str, str], also: Iterable[str] = ()) -> T:
    """Makes a registered dataclass (an algorithm, a model's options) from configuration values.

    Args:
        cls: a frozen dataclass; annotate ranges with `pydantic.Field`.
        options: values by field name.
        keys: the dotted configuration key of each option, for messages.
        also: other valid names in the same section, to suggest instead of an unknown option.

    Raises:
        ConfigError: an unknown option, or a value of the wrong type or range.
    """
    fields = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for name in options:
        if name not in fields:
            section = keys[name].partition(".")[0].replace("inner", "algorithm")
            # As a user types them: inner_lr is inner.lr.
            inner = [f"inner.{field[6:]}" for field in fields if field.startswith("inner_")]
            valid = [f"{section}.{field}" for field in (*fields, *also) if not field.startswith("inner_")]
            raise ConfigError(keys[name], f"not an option of {cls.__name__}", suggest(keys[name], [*valid, *inner]))
    types = get_type_hints(cls, include_extras=True)
    for name, value in options.items():
        if isinstance(value, bool) and refuses_bool(types[name]):
            raise ConfigError(keys[name], f"invalid value {value}", A_NUMBER)
    try:
        made = pydantic.TypeAdapter(cls).validate_python(options)
    except pydantic.ValidationError as error:
        raise config_error(error, cls, keys) from error
    for name, value in options.items():
        if too_large(getattr(made, name)):
            raise ConfigError(keys[name], f"invalid value {value}", AT_MOST)
    return made


def default_run_dir(path: str | Path) -> Path:
    """``runs/<name>-<UTC time>-<random>`` in the working directory; runs that start at once have different ones."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{Path(path).stem}-{stamp}-{secrets.token_hex(3)}"
