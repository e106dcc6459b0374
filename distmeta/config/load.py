"""A user's settings, YAML and ``key=value``, → `RunConfig` or the options of an algorithm or model.

Every error is one line with the key and a remedy.
"""

import dataclasses
import datetime
import re
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import pydantic
import yaml

from distmeta.config import RunConfig, Section
from distmeta.errors import ConfigError, suggest

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-3 as a number and refuses a key given twice."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    mapping = loader.construct_mapping(node, deep=True)
    if len(mapping) < len(node.value):
        keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
        twice = next(key for key in keys if keys.count(key) > 1)
        where = f"line {node.start_mark.line + 1}"
        raise ConfigError(f"{twice}", f"given twice in the mapping at {where}", "keep one")
    return mapping


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def parse_yaml(text: str, source: str) -> Any:
    """Parses safe YAML; a syntax error names its line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source} line {mark.line + 1}" if mark else source
        raise ConfigError(where, f"not valid YAML ({getattr(error, 'problem', error)})", "fix the YAML") from error


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a YAML file, applies ``key=value`` overrides and validates.

    Raises:
        ConfigError: naming the key or the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read ({error.strerror})", "give a YAML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"not UTF-8 at byte {error.start}", "save it as UTF-8") from error
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise ConfigError(str(path), "holds no sections", "start from a file in jobs/")
    return validate(override(content, overrides))


def override(content: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Applies ``a.b=value`` settings (values are YAML) to a nested mapping, in place."""
    for item in overrides:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ConfigError(repr(item), "not of the form key=value", "write for example outer.steps=50")
        set_value(content, key, parse_yaml(value, key))
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
        return RunConfig.model_validate(content)
    except pydantic.ValidationError as error:
        raise config_error(error, RunConfig) from error


def config_error(error: pydantic.ValidationError, model: type) -> ConfigError:
    """Turns pydantic's most helpful error into one line with the key and a remedy."""

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
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        parents = ".".join(path[:-1])
        valid = [f"{parents}.{name}" if parents else name for name in _keys(model, path[:-1])]
        return ConfigError(key, "unknown key", suggest(key, valid))
    if first["type"] == "missing":
        return ConfigError(key, "missing", "add it")
    message = first["msg"].removeprefix("Value error, ")
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
    try:
        return pydantic.TypeAdapter(cls).validate_python(options)
    except pydantic.ValidationError as error:
        wrong = config_error(error, cls)
        name, _, rest = wrong.where.partition(".")
        raise ConfigError(keys.get(name, name) + (f".{rest}" if rest else ""), wrong.found, wrong.remedy) from error


def default_run_dir(path: str | Path) -> Path:
    """``runs/<name>-<UTC time>-<random>`` in the working directory; runs that start at once have different ones."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{Path(path).stem}-{stamp}-{secrets.token_hex(3)}"
