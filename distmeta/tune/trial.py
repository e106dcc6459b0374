"""One trial, in the process that Ray Tune has started for it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ray import tune
from rich.console import Console

from distmeta import tracking
from distmeta.config import RunConfig
from distmeta.errors import TrackingError, TrainingError, UserError
from distmeta.report.progress import Reporter
from distmeta.runs import checkpoint, train
from distmeta.tune.records import Point, Records, Trial
from distmeta.tune.space import Space
from distmeta.types import Score

STEP = "outer_step"  # what is reported to Ray Tune


class TrialReporter(Reporter):
    """Keeps each meta-validation in the trial's record, then tells Ray Tune that there is one."""

    def __init__(self, records: Records, trial: Trial, console: Console) -> None:
        super().__init__(console)
        self.records, self.trial = records, trial
        self._started = time.monotonic() - (trial.curve[-1].seconds if trial.curve else 0.0)

    def validation(self, step: int, figures: dict[str, float], score: Score) -> None:
        """Meta-validation has been done."""
        super().validation(step, figures, score)
        value, half = (figures[f"meta_validation/{score.name}{suffix}"] for suffix in ("", "_ci95"))
        point = Point(step, value, half, time.monotonic() - self._started)
        self.trial.curve = [*(its for its in self.trial.curve if its.step < step), point]
        self.records.write(self.trial)
        tune.report({STEP: step})

    def has_validation(self, step: int) -> bool:
        """Whether it is in the record: a process may be killed before it is."""
        return any(point.step == step for point in self.trial.curve)


def run_trial(asked: dict[str, Any], folder: Path, config: RunConfig, parent: str, environment: dict[str, str]) -> None:
    """Runs a trial, or what is left of it, as far as it goes for now.

    A configuration that fails ends its trial, with the reason in its record. Anything else propagates, and Ray Tune
    tries again.

    Args:
        asked: `name` of the trial.
        folder: where it is kept.
        config: the study's.
        parent: its MLflow run.
        environment: variables to set.
    """
    os.environ.update(environment)
    records = Records(folder)
    trial = records.read(asked["name"])
    if trial.is_idle:
        return
    trial.status = "running"
    records.write(trial)
    its, start, figures = Space(config).config(trial.values), None, {}
    until = min(trial.until or its.outer.steps, its.outer.steps)
    if trial.is_moving:
        start, _ = checkpoint.load(records.run_dir(trial.moves[-1].origin), trial.moves[-1].step)
    if config.tune and config.tune.scheduler == "pbt":
        figures = {f"tune/{key}": value for key, value in trial.values.items() if isinstance(value, int | float)}
    with records.log(trial.name).open("a", encoding="utf-8") as log:
        reporter = TrialReporter(records, trial, Console(file=log, width=120))
        try:
            tracking.wait(tracking.resolve_uri(its.tracking.uri), reporter.note)  # it was there when the study began
            train.train_trial(its, records.run_dir(trial.name), reporter, parent, until, start, figures)
        except TrackingError:  # not for its settings
            raise
        except (UserError, TrainingError) as error:
            trial.status, trial.reason = "failed", str(error)
        else:
            trial.status = "finished" if until == its.outer.steps else "waiting"
            trial.is_moving = False
    records.write(trial)
