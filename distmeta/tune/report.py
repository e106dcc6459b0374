"""What people see of a study: its trials while they run, tables, and plots in MLflow."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.live import Live as RichLive
from rich.table import Table

from distmeta.config import RunConfig
from distmeta.report.progress import Reporter
from distmeta.report.tables import shape_name
from distmeta.tracking import Tracker
from distmeta.tune import plots
from distmeta.tune.execute import Plan
from distmeta.tune.records import Trial, best, best_so_far
from distmeta.tune.space import Space, Values
from distmeta.types import Score

ROWS = 12  # of the live table


def describe(config: RunConfig, plan: Plan, trials: int) -> str:
    """A study in a line."""
    assert config.tune is not None
    needs: dict[str, float] = {}
    for bundle in plan.bundles:
        for name, amount in bundle.items():
            if not name.startswith("node:"):
                needs[name] = needs.get(name, 0) + amount
    its = " and ".join(f"{amount:g} {name}" for name, amount in needs.items())
    has = ", ".join(f"{amount:g} {name}" for name, amount in plan.total.items() if name in needs)
    actors = len(plan.bundles) - 1
    of = f" for {actors} worker{'s' * (actors > 1)} and a server" if actors else ""
    how = {
        "none": "",
        "asha": f", of which one in {config.tune.reduction_factor} goes on at each rung",
        "pbt": ", of which the weak go on from where the strong are",
    }[config.tune.scheduler]
    return (
        f"study: {trials} trials of up to {config.outer.steps} outer steps, "
        f"proposed by {config.tune.searcher}{how}; each takes {its}{of}, {plan.at_once} at once on {has}"
    )


def settings(values: Values) -> str:
    """A trial's settings in a line."""
    shown = {key: f"{value:.3g}" if isinstance(value, float) else json.dumps(value) for key, value in values.items()}
    return " ".join(f"{key}={value.strip(chr(34))}" for key, value in shown.items())


class Live:
    """The trials as they are: on a terminal a table that changes, elsewhere a line for each that pauses or is over."""

    def __init__(self, reporter: Reporter, score: Score, total: int) -> None:
        self.reporter, self.score, self.total = reporter, score, total
        self.trials: dict[str, Trial] = {}
        self._live = RichLive(console=reporter.console, transient=True) if reporter.live else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def follow(self, trial: Trial) -> None:
        """There is news of a trial."""
        known = self.trials.get(trial.name)
        self.trials[trial.name] = trial
        if self._live:
            self._live.update(self._table())
        elif trial.is_idle and not (known and known.is_idle and known.until == trial.until):
            leader = best(self.trials.values(), self.score)
            so_far = f"; best so far {leader.name}, {_last(leader, self.score)}" if leader else ""
            outcome = trial.reason or f"{_last(trial, self.score)} after {_steps(trial)} steps"
            self.reporter.note(
                f"{len(self.trials)}/{self.total} {trial.name} {trial.status}: {outcome} "
                f"({settings(trial.values)}){so_far}"
            )

    def _table(self) -> Table:
        leader, over = best(self.trials.values(), self.score), sum(trial.is_over for trial in self.trials.values())
        title = f"{len(self.trials)} of {self.total} trials have begun, {over} are over"
        table = Table(title=f"{title}; best: {leader.name}, {_last(leader, self.score)}" if leader else title)
        for column in ("trial", "status", "steps", f"validation {self.score.name}", "settings"):
            table.add_column(column, overflow="fold")
        for trial in list(self.trials.values())[-ROWS:]:
            table.add_row(trial.name, trial.status, _steps(trial), _last(trial, self.score), settings(trial.values))
        return table


def result(
    folder: Path,
    mlflow_run_id: str,
    trials: Sequence[Trial],
    winner: Trial,
    is_default: bool,
    default: Trial,
    seeds: Sequence[Trial],
    compared: dict[str, Any],
) -> dict[str, Any]:
    """The figures that ``--json`` prints."""
    return {
        "study_dir": str(folder),
        "mlflow_run_id": mlflow_run_id,
        "trials": {
            status: sum(trial.status == status for trial in trials) for status in ("finished", "stopped", "failed")
        },
        "outer_steps": sum(trial.curve[-1].step for trial in trials if trial.curve),
        "best": str(folder / "best.yaml"),
        "winner": {"name": winner.name, "values": winner.values, "is_default": is_default, **_outcome(winner)},
        "default": {"values": default.values, "reason": default.reason, **_outcome(default)},
        "winner_seeds": [{"name": trial.name, "status": trial.status, **_outcome(trial)} for trial in seeds],
        "meta_test": compared["meta_test"],
    }


def publish(folder: Path, tracker: Tracker, space: Space, score: Score, trials: Sequence[Trial]) -> None:
    """The table and the plots of a search, in the study's directory and with its MLflow run."""
    keys = list(space.dimensions)
    with (folder / "trials.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "status", "steps", "seconds", score.name, "ci95", *keys, "reason"])
        for trial in trials:
            last = trial.curve[-1] if trial.curve else None
            outcome = [last.step, round(last.seconds, 1), last.score, last.ci95] if last else [0, 0, "", ""]
            values = [trial.values.get(key, "") for key in keys]
            writer.writerow([trial.name, trial.status, *outcome, *values, trial.reason])
    for path in (folder / "trials.csv", *plots.draw(folder, space, score, trials)):
        tracker.log_artifact(path)
    for number, value in enumerate(best_so_far(trials, score), 1):
        if value is not None:
            tracker.log(number, {f"best/{score.name}": value})
    tracker.describe(_markdown(score, trials))


def publish_result(
    folder: Path, tracker: Tracker, score: Score, trials: Sequence[Trial], figures: dict[str, Any]
) -> None:
    """What a search has led to, with the study's MLflow run."""
    tracker.log_artifact(folder / "result.json")
    its = [f"Best: {figures['winner']['name']}, ready to train: best.yaml.", ""]
    its += [f"- {line}" for line in _worth(score, figures)]
    tracker.describe("\n".join([*its, "", _markdown(score, trials)]))


def _markdown(score: Score, trials: Sequence[Trial]) -> str:
    rows = [("trial", "status", "steps", score.name, "settings"), ("---",) * 5, *_ranked(trials, score)]
    return "\n".join(["By meta-validation:", "", *(f"| {' | '.join(row)} |" for row in rows)])


def show(reporter: Reporter, score: Score, trials: Sequence[Trial], figures: dict[str, Any]) -> None:
    """The trials from the best one down, and what the seed makes of the winner."""
    rows = _ranked(trials, score)
    reporter.table(
        f"Trials by meta-validation {score.name}", ("trial", "status", "steps", score.name, "settings"), rows
    )
    for line in _worth(score, figures):
        reporter.note(line)
    reporter.note(f"kept in {figures['study_dir']}; train the best with `distmeta train {figures['best']}`")


def _worth(score: Score, figures: dict[str, Any]) -> list[str]:
    """What the best trial is worth: on meta-test, beside the settings of the file, and with other seeds."""
    winner, default = figures["winner"], figures["default"]
    lines = ["no trial was better than the settings of the file"] if winner["is_default"] else []
    if default["reason"]:
        lines.append(f"the settings of the file did not come to their end: {default['reason']}")
    lines += [_ahead(score, row, winner["is_default"]) for row in figures["meta_test"]]
    seeds = [score.show(its["score"]) for its in figures["winner_seeds"] if its["score"] is not None]
    if seeds:
        own = score.show(winner["score"]) + score.unit
        line = f"meta-validation {score.name} of the best: {own}, with other seeds {', '.join(seeds)}{score.unit}"
        if not default["reason"]:
            line += f"; of the settings of the file: {score.show(default['score'])}{score.unit}"
        lines.append(line)
    return lines


def _ahead(score: Score, row: dict[str, Any], is_default: bool) -> str:
    winner, *others = row["runs"]
    line = (
        f"meta-test {shape_name(row['ways'], row['shots'])} {score.name} of the best: "
        f"{score.format(winner[score.name], winner['ci95'])}{score.unit}"
    )
    for default in [] if is_default else others:  # none where the settings of the file failed
        difference, half = default["difference"], default["difference_ci95"]
        verdict = "better" if score.sign * difference > 0 else "worse"
        if abs(difference) <= half:
            verdict = "no clear difference"
        line += (
            f", less that of the settings of the file: {score.format(difference, half, '+')}{score.unit} ({verdict})"
        )
    return line


def _ranked(trials: Sequence[Trial], score: Score) -> list[tuple[str, ...]]:
    """A row a trial, from the best one down; those without any score at the end, with the reason."""
    ranked = sorted(trials, key=lambda trial: -score.sign * trial.curve[-1].score if trial.curve else math.inf)
    return [
        (trial.name, trial.status, _steps(trial), _last(trial, score), settings(trial.values) + _because(trial))
        for trial in ranked
    ]


def _because(trial: Trial) -> str:
    return f" ({trial.reason})" if trial.reason else ""


def _outcome(trial: Trial) -> dict[str, Any]:
    last = trial.curve[-1] if trial.curve else None
    return {"score": last and last.score, "ci95": last and last.ci95, "seconds": last and round(last.seconds, 1)}


def _last(trial: Trial, score: Score) -> str:
    return score.format(trial.curve[-1].score, trial.curve[-1].ci95) + score.unit if trial.curve else "–"


def _steps(trial: Trial) -> str:
    return str(trial.curve[-1].step) if trial.curve else "0"
