"""One trial, in the process that Ray Tune has started for it."""

from __future__ import annotations

import os
import time
from pathlib import Path

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


class TrialReporter(Reporter):
    """Adds each meta-validation to the trial's record, then tells Ray Tune."""

    def __init__(self, records: Records, trial: Trial, console: Console) -> None:
        super().__init__(console)
        self.records, self.trial = records, trial
        self._started = time.monotonic() - (trial.last.seconds if trial.last else 0.0)

    def validation(self, step: int, figures: dict[str, float], score: Score) -> None:
        """Records a meta-validation."""
        super().validation(step, figures, score)
        value, half = (figures[f"meta_validation/{score.name}{suffix}"] for suffix in ("", "_ci95"))
        point = Point(step, value, half, time.monotonic() - self._started)
        self.trial.curve = [*(earlier for earlier in self.trial.curve if earlier.step < step), point]
        self.records.write(self.trial)
        tune.report({"outer_step": step})

    def has_validation(self, step: int) -> bool:
        """Whether the record has it: the process may have been killed between MLflow and the record."""
        return self.trial.score_at(step) is not None


def run_trial(
    settings: dict[str, str], folder: Path, config: RunConfig, parent: str, environment: dict[str, str]
) -> None:
    """Runs a trial, or the rest of it, until it pauses or is over.

    If the configuration fails, the trial ends with the reason in its record. Other errors propagate, and Ray Tune tries
    again.

    Args:
        settings: the trial's `name`, as Ray Tune passes it.
        folder: the folder of the records.
        config: the study's configuration.
        parent: the id of the study's MLflow run.
        environment: environment variables to set.
    """
    os.environ.update(environment)
    records = Records(folder)
    trial = records.read(settings["name"])
    if trial.is_idle:
        return
    trial.status = "running"
    records.write(trial)
    trial_config, start, figures = Space(config).config(trial.values), None, {}
    until = min(trial.until or trial_config.outer.steps, trial_config.outer.steps)
    if trial.is_moving:
        start, _ = checkpoint.load(records.run_dir(trial.moves[-1].origin), trial.moves[-1].step)
    if config.tune and config.tune.scheduler == "pbt":
        figures = {f"tune/{key}": value for key, value in trial.values.items() if isinstance(value, int | float)}
    with (folder / f"{trial.name}.log").open("a", encoding="utf-8") as log:
        reporter = TrialReporter(records, trial, Console(file=log, width=120))
        try:
            # MLflow answered when the study began.
            tracking.wait(tracking.resolve_uri(trial_config.tracking.uri), reporter.note)
            train.train_trial(trial_config, records.run_dir(trial.name), reporter, parent, until, start, figures)
        except TrackingError:  # not the fault of the settings
            raise
        except (UserError, TrainingError) as error:
            trial.status, trial.reason = "failed", str(error)
        else:
            trial.status = "finished" if until == trial_config.outer.steps else "waiting"
    records.write(trial)
