"""What can go wrong, by name.

A `UserError` is a mistake the user can mend: the command line prints it as one line and exits with 2, before any
actor starts. Anything else propagates with its traceback.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in a configuration, in data, in a checkpoint or in an address.

    Args:
        where: the key, file or row at fault, such as ``inner.lr`` or ``intents.csv row 12``.
        found: what was found there.
        remedy: what would do instead.
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
    """A Ray cluster that does not answer or lacks what was asked of it."""


class TokenError(ClusterError):
    """A Ray cluster that this process has no token for, or the wrong one."""

    def __init__(self, where: str, found: str) -> None:
        remedy = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token"
        super().__init__(where, found, remedy)


class TrackingError(UserError):
    """An MLflow store that does not answer."""


class TrainingError(RuntimeError):
    """Training that cannot go on: too many tasks with a gradient that is not finite, workers that keep dying."""


class ServerLostError(RuntimeError):
    """An actor that holds a part of θ was lost: only a new server, from what was kept, can go on."""


class GradientsLostError(RuntimeError):
    """Some of the gradients that were to be added lay on a machine that was lost."""


class DivergedError(TrainingError):
    """An evaluation in which adaptation to a task left nothing that can be counted."""


def suggest(name: str, valid: Iterable[str]) -> str:
    """Words the remedy for an unknown name: the nearest valid one, or all of them."""
    valid = sorted(valid)
    # What all keys of a section begin with makes none of them near.
    section = name.rpartition(".")[0] + "."
    section = section if any(its.startswith(section) for its in valid) else ""
    ends = {its.removeprefix(section): its for its in valid}
    near = difflib.get_close_matches(name.removeprefix(section), ends, n=1, cutoff=0.5)
    return f"did you mean {ends[near[0]]}?" if near else f"valid: {', '.join(valid)}"
