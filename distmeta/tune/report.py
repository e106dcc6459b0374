"""The output of a study: its trials while they run, tables, and plots in MLflow."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rich.live import Live
from rich.table import Column, Table

from distmeta.config import RunConfig
from distmeta.report.figures import attempt
from distmeta.report.progress import Reporter, as_typed
from distmeta.report.tables import cell, markdown, markdown_table
from distmeta.tracking import Tracker
from distmeta.tune import plots
from distmeta.tune.execute import Plan
from distmeta.tune.records import Trial, best, best_so_far
from distmeta.tune.space import Space, Values
from distmeta.types import Score

ROWS = 12  # of the live table


def describe(config: RunConfig, plan: Plan, trials: int) -> str:
    """A line that describes a study."""
    assert config.tune is not None
    actors = len(plan.bundles) - 1
    needs = {name: amount * (actors or 1) for name, amount in plan.bundles[-1].items() if not name.startswith("node:")}
    share = " and ".join(f"{amount:g} {name}" for name, amount in needs.items())
    total = ", ".join(f"{amount:g} {name}" for name, amount in plan.total.items() if name in needs)
    purpose = f" for {actors} worker{'s' * (actors > 1)} and a server" if actors else ""
    scheduler = {
        "none": "",
        "asha": f", of which one in {config.tune.reduction_factor} is promoted at each rung",
        "pbt": ", of which the weak continue from the states of the strong",
    }[config.tune.scheduler]
    return (
        f"study: {trials} trials of up to {config.outer.steps} outer steps, "
        f"proposed by {config.tune.searcher}{scheduler}; each takes {share}{purpose}, {plan.at_once} at once on {total}"
    )


def settings(values: Values) -> str:
    """A trial's settings in a line."""
    shown = {key: f"{value:.3g}" if isinstance(value, float) else json.dumps(value) for key, value in values.items()}
    return " ".join(f"{key}={value.strip(chr(34))}" for key, value in shown.items())


@contextmanager
def live(reporter: Reporter, score: Score, total: int) -> Iterator[Callable[[Trial], None]]:
    """Shows trials: on a terminal in a live table, elsewhere in a line for each trial that pauses or is over.

    Yields:
        A function to call with each trial that has changed.
    """
    trials: dict[str, Trial] = {}
    with Live(console=reporter.console, transient=True) if reporter.live else nullcontext() as screen:

        def follow(trial: Trial) -> None:
            known = trials.get(trial.name)
            trials[trial.name] = trial
            leader = best(trials.values(), score)
            so_far = f"; best so far {leader.name}, {_last(leader, score)}" if leader else ""
            if screen:
                over = sum(trial.is_over for trial in trials.values())
                title = as_typed(f"{len(trials)} of {total} trials have begun, {over} are over{so_far}")
                table = Table(*(Column(name, overflow="fold") for name in _columns(score)), title=title)
                for row in _rows(list(trials.values())[-ROWS:], score):
                    table.add_row(*map(as_typed, row))
                screen.update(table)
            elif trial.is_idle and not (known and known.is_idle and known.until == trial.until):
                outcome = trial.reason or f"{_last(trial, score)} after {_steps(trial)} steps"
                state = f"{len(trials)}/{total} {trial.name} {trial.status}: {outcome}"
                reporter.note(f"{state} ({settings(trial.values)}){so_far}")

        yield follow


def result(
    folder: Path,
    mlflow_run_id: str,
    trials: Sequence[Trial],
    winner: Trial,
    default: Trial,
    seeds: Sequence[Trial],
    compared: dict[str, Any],
) -> dict[str, Any]:
    """The figures that ``--json`` prints."""

    def outcome(trial: Trial) -> dict[str, Any]:
        last = trial.last
        return {"score": last and last.score, "ci95": last and last.ci95, "seconds": last and round(last.seconds, 1)}

    statuses = [trial.status for trial in trials]
    is_default = winner.name == default.name
    return {
        "study_dir": str(folder),
        "mlflow_run_id": mlflow_run_id,
        "trials": {status: statuses.count(status) for status in ("finished", "stopped", "failed")},
        "outer_steps": sum(trial.last.step for trial in trials if trial.last),
        "best": str(folder / "best.yaml"),
        "winner": {"name": winner.name, "values": winner.values, "is_default": is_default, **outcome(winner)},
        "default": {"values": default.values, "reason": default.reason, **outcome(default)},
        "winner_seeds": [{"name": trial.name, "status": trial.status, **outcome(trial)} for trial in seeds],
        "meta_test": compared["meta_test"],
    }


def publish(
    folder: Path,
    tracker: Tracker,
    space: Space,
    score: Score,
    trials: Sequence[Trial],
    note: Callable[[str], None],
) -> None:
    """Writes the table and the plots of a search to the study's directory and its MLflow run."""
    with (folder / "trials.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "status", "steps", "seconds", score.name, "ci95", *space.dimensions, "reason"])
        for trial in trials:
            last = trial.last
            outcome = [last.step, round(last.seconds, 1), last.score, last.ci95] if last else [0, 0, "", ""]
            values = [trial.values.get(key, "") for key in space.dimensions]
            writer.writerow([trial.name, trial.status, *outcome, *map(cell, values), cell(trial.reason)])
    for path in (folder / "trials.csv", *attempt(note, lambda: plots.draw(folder, space, score, trials))):
        tracker.log_artifact(path)
    for number, value in enumerate(best_so_far(trials, score), 1):
        if value is not None:
            tracker.log(number, {f"best/{score.name}": value})
    tracker.describe(_markdown(score, trials))


def publish_result(
    folder: Path, tracker: Tracker, score: Score, trials: Sequence[Trial], figures: dict[str, Any]
) -> None:
    """Logs the result of a study to its MLflow run."""
    tracker.log_artifact(folder / "result.json")
    lines = [f"Best: {figures['winner']['name']}, ready to train: best.yaml.", ""]
    lines += [f"- {markdown(line)}" for line in _worth(score, figures)]
    tracker.describe("\n".join([*lines, "", _markdown(score, trials)]))


def show(reporter: Reporter, score: Score, trials: Sequence[Trial], figures: dict[str, Any]) -> None:
    """Shows the trials, the best first, and how good the best one is."""
    title = f"Trials by meta-validation {score.name}"
    reporter.table(title, _columns(score), _rows(ranked(trials, score), score))
    for line in _worth(score, figures):
        reporter.note(line)
    reporter.note(f"kept in {figures['study_dir']}; train the best with `distmeta train {figures['best']}`")


def _worth(score: Score, figures: dict[str, Any]) -> list[str]:
    """How good the best trial is: on meta-test, compared with the settings of the file, and with other seeds."""
    winner, default = figures["winner"], figures["default"]
    lines = ["no trial was better than the settings of the file"] if winner["is_default"] else []
    if default["reason"]:
        lines.append(f"the run with the settings of the file failed: {default['reason']}")
    lines += [_ahead(score, row, winner["is_default"]) for row in figures["meta_test"]]
    seeds = [score.show(seed["score"]) for seed in figures["winner_seeds"] if seed["score"] is not None]
    if seeds:
        own = score.show(winner["score"]) + score.unit
        line = f"meta-validation {score.name} of the best: {own}, with other seeds {', '.join(seeds)}{score.unit}"
        if not default["reason"]:
            line += f"; of the settings of the file: {score.show(default['score'])}{score.unit}"
        lines.append(line)
    return lines


def _ahead(score: Score, row: dict[str, Any], is_default: bool) -> str:
    winner, *defaults = row["runs"]
    own = score.format(winner[score.name], winner["ci95"]) + score.unit
    line = f"meta-test {row['title']} {score.name} of the best: {own}"
    for default in [] if is_default else defaults:  # none if the settings of the file failed
        difference, half = default["difference"], default["difference_ci95"]
        verdict = "better" if score.sign * difference > 0 else "worse"
        if abs(difference) <= half:
            verdict = "no clear difference"
        ahead = score.format(difference, half, "+") + score.unit
        line += f", difference from the settings of the file: {ahead} ({verdict})"
    return line


def ranked(trials: Sequence[Trial], score: Score) -> list[Trial]:
    """The trials, the best first; those without a score at the end."""
    return sorted(trials, key=lambda trial: -score.sign * trial.last.score if trial.last else math.inf)


def _columns(score: Score) -> tuple[str, ...]:
    return "trial", "status", "steps", score.name, "settings"


def _rows(trials: Sequence[Trial], score: Score) -> list[tuple[str, ...]]:
    return [
        (
            *(trial.name, trial.status, _steps(trial), _last(trial, score)),
            settings(trial.values) + (f" ({trial.reason})" if trial.reason else ""),
        )
        for trial in trials
    ]


def _markdown(score: Score, trials: Sequence[Trial]) -> str:
    return f"By meta-validation:\n\n{markdown_table(_columns(score), _rows(ranked(trials, score), score))}"


def _last(trial: Trial, score: Score) -> str:
    return score.format(trial.last.score, trial.last.ci95) + score.unit if trial.last else "–"


def _steps(trial: Trial) -> str:
    return str(trial.last.step if trial.last else 0)
