"""A study's directory. What is written here is all that a killed study goes on from; Ray Tune's own files are not read.

STUDY/config.yaml        the settings that trials share, and `tune`
      study.json         MLflow's address and the parent run's id
      trials/0007/       a run's directory (see distmeta.runs), once the trial has begun
      trials/0007.json   its values, the curve of its meta-validations, and how it ended
      best.yaml          the winner's settings, ready to train
      result.json        the figures, as --json prints them
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from distmeta.errors import CheckpointError
from distmeta.types import Score

Status = Literal["waiting", "running", "finished", "stopped", "failed"]


class Point(NamedTuple):
    """A meta-validation of a trial."""

    step: int  # outer steps
    score: float
    ci95: float
    seconds: float  # of training and validation, until then


@dataclass
class Trial:
    """A trial as its file has it.

    `stopped` is one that the scheduler ended early; `failed` says its reason.
    """

    number: int
    values: dict[str, Any]
    status: Status = "waiting"
    reason: str = ""
    curve: list[Point] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to come."""
        return self.status in ("finished", "stopped", "failed")

    def best_of(self, score: Score) -> float | None:
        """Its last score, so that more is better; None without any."""
        return None if not self.curve else self.curve[-1].score * (1 if score.higher_is_better else -1)


class Records:
    """The trials of a study, each in a file that is replaced as a whole.

    Args:
        folder: the study's directory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "trials"

    def run_dir(self, number: int) -> Path:
        """The run of a trial."""
        return self.folder / f"{number:04}"

    def write(self, trial: Trial) -> None:
        """Keeps a trial."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(trial.number)
        aside = path.with_suffix(".tmp")
        aside.write_text(json.dumps(asdict(trial)) + "\n", encoding="utf-8")
        aside.replace(path)

    def read(self, number: int) -> Trial:
        """A trial that was kept.

        Raises:
            CheckpointError: its file is not what was written.
        """
        path = self._path(number)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return Trial(**{**content, "curve": [Point(*point) for point in content["curve"]]})
        except (OSError, ValueError, LookupError, TypeError) as error:
            found = f"cannot be read ({error})"
            raise CheckpointError(str(path), found, "restore it, or remove it and the trials after it") from error

    def all(self) -> list[Trial]:
        """All trials, by number."""
        return [self.read(int(path.stem)) for path in sorted(self.folder.glob("[0-9]*.json"))]

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:04}.json"
