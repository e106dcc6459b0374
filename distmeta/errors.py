"""The exceptions of distmeta.

A `UserError` is a mistake the user can fix: the command line prints it as one line and exits with 2, before any
actor starts. A `TrainingError` is one line too, with exit code 1. Other exceptions show their traceback.
"""

import difflib
from collections.abc import Iterable


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
        return " ".join(f"{self.where}: {self.found}; {self.remedy}".split())


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


def suggest(name: str, valid: Iterable[str]) -> str:
    """The remedy for an unknown name, as text: the nearest valid name, or all of them."""
    valid = sorted(valid)
    # All keys of a section share its prefix, so it is left out of the comparison.
    section = name.rpartition(".")[0] + "."
    section = section if any(key.startswith(section) for key in valid) else ""
    ends = {key.removeprefix(section): key for key in valid}
    near = difflib.get_close_matches(name.removeprefix(section), ends, n=1, cutoff=0.5)
    return f"did you mean {ends[near[0]]}?" if near else f"valid: {', '.join(valid)}"
