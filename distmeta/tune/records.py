"""A study's directory. A killed study resumes from these files alone; Ray Tune's own files are not read.

STUDY/config.yaml               the settings that trials share, and `tune`
      run.json                  MLflow's address and the study's run id
      trials/trial-0007/        a run's directory (see distmeta.runs.directory), once the trial has begun
      trials/trial-0007.log     the trial's progress
      trials/trial-0007.json    the trial's values, its meta-validations, and how it ended
      final/                    the same for the configuration as it was, and for the winner with other seeds
      best.yaml                 the winner's settings, ready to train
      result.json               the figures, as --json prints them
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pydantic

from distmeta.errors import CheckpointError
from distmeta.storage import parse_object, require_format
from distmeta.types import Score

Status = Literal["waiting", "running", "finished", "stopped", "failed"]


class Point(NamedTuple):
    """A meta-validation of a trial."""

    step: int  # outer steps
    score: float
    ci95: float
    seconds: float  # of training and validation, until then


class Move(NamedTuple):
    """A trial of a population continues from another trial's state, with other values."""

    step: int  # outer steps
    origin: str  # the other trial
    before: dict[str, Any]  # the trial's values before the move


@dataclass
class Trial:
    """A trial, as its file describes it.

    `waiting` trials have not begun or are paused; `stopped` ones were not promoted; `failed` ones have a reason. In
    population-based training `values` are the current ones.
    """

    name: str
    values: dict[str, Any]
    status: Status = "waiting"
    reason: str = ""
    curve: list[Point] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    until: int | None = None  # the outer step at which it pauses; none: the end of the run

    @property
    def last(self) -> Point | None:
        """The last meta-validation."""
        return self.curve[-1] if self.curve else None

    @property
    def is_moving(self) -> bool:
        """Whether it continues from another trial's state: it has no meta-validation since its last move."""
        return bool(self.moves and self.last) and self.moves[-1].step == self.curve[-1].step

    @property
    def is_over(self) -> bool:
        """Whether it never runs again."""
        return self.status in ("finished", "stopped", "failed")

    @property
    def is_idle(self) -> bool:
        """Whether it is over or paused."""
        return self.is_over or (self.status == "waiting" and self.last is not None and self.last.step == self.until)

    def pauses_at(self, step: int) -> bool:
        """Whether it is paused at `step`."""
        return self.until == step and self.is_idle and not self.is_over

    def score_at(self, step: int) -> float | None:
        """The score after `step`, if it was measured."""
        return next((point.score for point in reversed(self.curve) if point.step == step), None)


FORMAT = 1  # of a trial's file
_TRIAL = pydantic.TypeAdapter(Trial)


class Records:
    """Trials, each in a file of `folder` that is always replaced as a whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run_dir(self, name: str) -> Path:
        """The run directory of a trial."""
        return self.folder / name

    def write(self, trial: Trial) -> None:
        """Writes a trial's file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = self.folder / f"{trial.name}.tmp"
        aside.write_text(json.dumps({"format": FORMAT, **asdict(trial)}) + "\n", encoding="utf-8")
        aside.replace(self.folder / f"{trial.name}.json")

    def read(self, name: str) -> Trial:
        """A trial from its file.

        Raises:
            CheckpointError: the file is damaged.
        """
        path = self.folder / f"{name}.json"
        try:
            content = parse_object(path.read_text(encoding="utf-8"))
            require_format(content, path, FORMAT, remedy="start a new study")
            return _TRIAL.validate_python({name: value for name, value in content.items() if name != "format"})
        except (OSError, ValueError) as error:
            found = f"cannot be read ({error})"
            raise CheckpointError(str(path), found, "restore it, or remove it and the trials after it") from error

    def all(self) -> list[Trial]:
        """All trials, by name."""
        return [self.read(path.stem) for path in sorted(self.folder.glob("*.json"))]


def best(trials: Iterable[Trial], score: Score) -> Trial | None:
    """The finished trial with the best last score; None if none has finished."""
    finished = [trial for trial in trials if trial.status == "finished"]
    return max(finished, key=lambda trial: score.sign * trial.curve[-1].score, default=None)


def best_so_far(trials: Sequence[Trial], score: Score) -> list[float | None]:
    """For each trial, the best last score of the trials up to it that finished; None before the first of these."""
    leaders = [best(trials[: number + 1], score) for number in range(len(trials))]
    return [leader.curve[-1].score if leader else None for leader in leaders]


def front(trials: Sequence[Trial], score: Score) -> list[str]:
    """The names of the finished trials that no other beats in both score and seconds, the fastest first."""
    lasts = {trial.name: trial.curve[-1] for trial in trials if trial.status == "finished"}
    scores = {name: score.sign * last.score for name, last in lasts.items()}
    best_names: list[str] = []
    for name in sorted(lasts, key=lambda name: (lasts[name].seconds, -scores[name])):
        if not best_names or scores[name] > scores[best_names[-1]]:
            best_names.append(name)
    return best_names
