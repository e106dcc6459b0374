"""Value types and base class of the configuration's sections."""

import os
import pwd
import re
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Ways = Annotated[int, Field(ge=2)]
Sample = Annotated[int, Field(ge=2)]  # one episode has no confidence interval
Seed = Annotated[int, Field(ge=0, lt=2**32)]
MOST = 2**32 - 1
A_NUMBER, AT_MOST = "give a number", f"give at most {MOST:,}"
Patterns = str | list[str]

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([^}]*)\})")


def is_address(text: str) -> bool:
    """Whether it begins with a protocol, such as s3://."""
    return _ADDRESS.match(text) is not None


def is_path(text: str) -> bool:
    """Whether a `Location` names a file or folder here, and not data of a package, on the hub or at an address."""
    return text not in ("attack", "-") and not text.startswith(("hub:", "package:")) and not is_address(text)


def expand(path: str) -> str:
    """A path with its variables ($NAME, ${NAME}) and a leading ~ or ~user replaced.

    Names on the hub and in packages are no paths. A path with a $ that exists stays as typed.

    Raises:
        ValueError: a variable that is not set, a user who is not known, or a NUL character.
    """
    if "\0" in path:
        raise ValueError("leave out the NUL character")
    # Path.exists raises where os.path.exists says no, such as in a folder that may not be read.
    if path.startswith(("hub:", "package:")) or ("$" in path and os.path.exists(path)):  # noqa: PTH110
        return path
    path = _VARIABLE.sub(lambda match: _variable(match[1] or match[2]), path)
    user, slash, rest = path.partition("/")
    return _home(user[1:]) + slash + rest if user.startswith("~") else path


def _variable(name: str) -> str:
    if value := os.environ.get(name):
        return value
    raise ValueError(f"the environment variable {name} is not set; set it, or write the path in full")


def _home(user: str) -> str:
    if not user and (home := os.environ.get("HOME")):
        return home
    try:
        return pwd.getpwnam(user).pw_dir if user else pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        found = f"there is no user {user!r}" if user else "this user has no home folder; set HOME"
        raise ValueError(f"{found}, or write the path in full") from None


Location = Annotated[str, AfterValidator(expand)]


def alternatives(annotation: Any) -> list[Any]:
    """The types that an annotation allows, without their constraints; for a Literal the types of its values."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return alternatives(arguments[0])
    if origin in (Union, UnionType):
        return [one for argument in arguments for one in alternatives(argument)]
    return [type(value) for value in arguments] if origin is Literal else [annotation]


def refuses_bool(annotation: Any) -> bool:
    """Whether an annotation takes numbers and no truth value: pydantic takes `True` as 1."""
    takes = alternatives(annotation)
    return bool({int, float}.intersection(takes)) and not {bool, Any}.intersection(takes)


def too_large(value: Any) -> bool:
    """Whether it is, or holds, a whole number to which no computer counts; arrays hold none that is much larger."""
    return any(map(too_large, value)) if isinstance(value, list | tuple) else isinstance(value, int) and value > MOST


class Section(BaseModel):
    """A section that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields.get(info.field_name or "")
        if isinstance(value, bool) and field and refuses_bool(field.annotation):
            raise ValueError(A_NUMBER)
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _countable(cls, value: Any) -> Any:
        if too_large(value):
            raise ValueError(AT_MOST)
        return value
