"""What plain values mean, by what their key in `RunConfig` takes."""

from typing import Any, get_args, get_origin

from distmeta.config.base import Section, alternatives
from distmeta.config.syntax import Plain, scalar

NUMBERS = {bool, int, float}


def typed(value: Any, annotation: Any, key: str = "") -> Any:
    """The value with every `Plain` replaced, as a copy.

    Where the annotation takes a string and no number, a plain value is text as typed; nothing, `null` and `~` are
    None if None is allowed. Elsewhere, and for keys that have no annotation, it is what `scalar` makes of it.

    Args:
        value: nested dictionaries and lists.
        annotation: of the value; Any if it is not known.
        key: the dotted key, for messages.
    """
    if isinstance(value, dict):
        return {
            name: typed(part, _part(annotation, name), f"{key}.{name}" if key else name) for name, part in value.items()
        }
    if isinstance(value, list):
        return [typed(item, _item(annotation, n), f"{key}.{n}" if key else str(n)) for n, item in enumerate(value)]
    return _plain(value, annotation, key) if isinstance(value, Plain) else value


def _plain(value: Plain, annotation: Any, key: str) -> Any:
    takes = alternatives(annotation)
    if str not in takes or NUMBERS.intersection(takes):
        return scalar(value, key, may_be_text=Any in takes)
    is_none = not value or (type(None) in takes and value in ("~", "null", "Null", "NULL"))
    return None if is_none else str(value)


def _part(annotation: Any, name: str) -> Any:
    """The annotation of a mapping's entry."""
    for one in alternatives(annotation):
        if get_origin(one) is dict:
            return get_args(one)[1]
        if isinstance(one, type) and issubclass(one, Section):
            for field, info in one.model_fields.items():
                if name in (field, info.alias):
                    return info.annotation
    return Any


def _item(annotation: Any, number: int) -> Any:
    """The annotation of a list's item."""
    for one in alternatives(annotation):
        arguments = get_args(one)
        if get_origin(one) is list or (get_origin(one) is tuple and arguments[-1] is Ellipsis):
            return arguments[0]
        if get_origin(one) is tuple and number < len(arguments):
            return arguments[number]
    return Any
