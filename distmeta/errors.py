"""The exceptions of distmeta.

A `UserError` is a mistake the user can fix: the command line prints it as one line and exits with 2, before any
actor starts. A `TrainingError` is one line too, with exit code 1. Other exceptions show their traceback.
"""

import contextlib
import difflib
import errno
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

# What a system refuses a user, with the remedy. The places that know the key check before.
_ALLOW, _FREE = "allow this user to read and write it, or name another place", "free some, or name another place"
REFUSALS = dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _ALLOW)
REFUSALS |= dict.fromkeys((errno.ENOSPC, errno.EDQUOT), _FREE)
LINE = 400  # characters of an error, at most
_TURNS = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # characters that turn the direction of text


def printable(text: str) -> str:
    """Text as a terminal can show it: what it would obey or cannot print is escaped, such as line breaks."""

    def shown(letter: str) -> str:
        if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or letter in _TURNS:
            return letter.encode("unicode_escape").decode()
        return letter

    return text if text.isascii() and text.isprintable() else "".join(map(shown, text))


def shortened(text: str, limit: int) -> str:
    """Text without its middle if it has more than `limit` characters."""
    return text if len(text) <= limit else f"{text[: (limit - 1) // 2]}…{text[len(text) - limit // 2 :]}"


class UserError(Exception):
    """A mistake in a configuration, in data, in a checkpoint or in an address.

    Args:
        where: the key, file or row at fault, such as ``inner.lr`` or ``intents.csv row 12``.
        found: what was found there.
        remedy: how to fix it.
    """

    def __init__(self, where: str, found: str, remedy: str) -> None:
        super().__init__(where, found, remedy)
        self.where, self.found, self.remedy = where, found, remedy

    def __str__(self) -> str:
        # Messages of libraries may have several lines.
        where, found, remedy = (
            printable(re.sub(r"\s*[\r\n]\s*", " ", part)) for part in (self.where, self.found, self.remedy)
        )
        found = shortened(found, max(80, LINE - len(f"{where}: ; {remedy}")))
        where = shortened(where, max(100, LINE - len(f": {found}; {remedy}")))
        return shortened(f"{where}: {found}; {remedy}", LINE)


class ConfigError(UserError):
    """A configuration key or value that cannot be used."""


class DataError(UserError):
    """A data file, row, label or split that cannot be used."""


class ModelError(UserError):
    """A model folder or name that cannot be loaded."""


class CheckpointError(UserError):
    """A run directory or checkpoint that cannot be read back."""


class ClusterError(UserError):
    """A Ray cluster that does not answer or lacks the requested resources."""


class TokenError(ClusterError):
    """A Ray cluster that needs a token, where this process has none or the wrong one."""

    def __init__(self, where: str, found: str) -> None:
        remedy = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token"
        super().__init__(where, found, remedy)


class TrackingError(UserError):
    """An MLflow store that does not answer."""


class TrainingError(RuntimeError):
    """Training that cannot go on: too many tasks with a gradient that is not finite, workers that keep dying."""


class ServerLostError(RuntimeError):
    """An actor with a part of θ was lost: only a new server can go on, from the kept state."""


class GradientsLostError(RuntimeError):
    """Some gradients were on a machine that was lost, before they were added."""


class DivergedError(TrainingError):
    """An evaluation in which adaptation to a task gave figures that are not finite."""


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turns what the system refuses, such as a file of another user, into a user's error.

    Raises:
        UserError: it names the file.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS or not error.filename:
            raise
        raise UserError(str(error.filename), str(error.strerror), REFUSALS[error.errno]) from error


def usage_error(error: Any) -> ConfigError:
    """What is wrong with the words of a command: Click's `UsageError`, as one of ours."""
    command = error.ctx.command_path if error.ctx else "distmeta"
    option = getattr(error, "option_name", None) or ""
    remedy = f"write a setting without dashes: {option.lstrip('-')}=VALUE" if "." in option else f"see {command} --help"
    return ConfigError(command.partition(" ")[2] or "command", error.format_message().rstrip("."), remedy)


def suggest(name: str, valid: Iterable[str]) -> str:
    """The remedy for an unknown name, as text: the nearest valid name, or all of them."""
    valid = sorted(valid)
    # All keys of a section share its prefix, so it is left out of the comparison.
    section = name.rpartition(".")[0] + "."
    section = section if any(key.startswith(section) for key in valid) else ""
    ends = {key.removeprefix(section).lower(): key for key in valid}
    near = difflib.get_close_matches(name.removeprefix(section).lower(), ends, n=1, cutoff=0.5)
    return f"did you mean {ends[near[0]]}?" if near else f"valid: {', '.join(valid)}"
