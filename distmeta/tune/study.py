"""A study: the search, then meta-test of the winner and of the configuration that the study started from."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distmeta import tracking
from distmeta.backends import open_backend
from distmeta.config import CheckpointConfig, RunConfig
from distmeta.errors import TrackingError, TrainingError
from distmeta.report.compare import compare
from distmeta.report.progress import Reporter
from distmeta.runs import directory, paths, train
from distmeta.runs.session import tracked
from distmeta.runs.stop import stopper
from distmeta.tracking import Ended, Tracker
from distmeta.tune import halving, population, report
from distmeta.tune.check import check, on_ray
from distmeta.tune.execute import Plan, Queue, run_trials
from distmeta.tune.records import Records, Trial, best, front
from distmeta.tune.search import propose
from distmeta.tune.space import Space
from distmeta.types import Score

ENDS: dict[str, Ended] = {"finished": "FINISHED", "failed": "FAILED"}  # status of trials in MLflow; others: KILLED


def start(config: RunConfig, folder: Path, reporter: Reporter) -> dict[str, Any]:
    """Runs a study from the start.

    Returns:
        The figures that ``--json`` prints.

    Raises:
        UserError: before anything is written.
        TrainingError: no trial finished.
    """
    directory.require_new(folder, "tune")
    if config.tune and config.tune.scheduler == "pbt":
        # Checkpoints are written only between rounds; each is needed until the next round is over.
        config = config.model_copy(update={"checkpoint": CheckpointConfig(every=0, keep=2)})
    return _run(paths.absolute(config), folder, reporter, None)


def resume(folder: Path, reporter: Reporter) -> dict[str, Any]:
    """Resumes a study: trials that are over are not run again, others continue from their checkpoints."""
    config, about = directory.read(folder, [])
    with directory.locked(folder, reporter.note):
        return _run(config, folder, reporter, about)


def _run(config: RunConfig, folder: Path, reporter: Reporter, run: dict[str, Any] | None) -> dict[str, Any]:
    space, score = check(config, reporter)
    try:
        with stopper() as stop, open_backend(on_ray(config.cluster)):
            stop.listen()  # Ray has set handlers of its own
            plan = Plan.of(config)
            reporter.note(report.describe(config, plan, space.trials))
            with tracked(config, folder, reporter, run, {"distmeta.kind": "study"}) as tracker:
                study = Study(config, space, score, folder, plan, tracker, reporter)
                return study.conclude(study.search())
    except KeyboardInterrupt:
        # The trials' processes ended with Ray: MLflow must not show them as running.
        for name in ("trials", "final"):
            end_runs(config, Records(folder / name), reporter)
        raise


@dataclass(frozen=True)
class Study:
    """A study in progress."""

    config: RunConfig
    space: Space
    score: Score
    folder: Path
    plan: Plan
    tracker: Tracker
    reporter: Reporter

    def search(self) -> list[Trial]:
        """Runs all trials of the search."""
        records = Records(self.folder / "trials")
        queue = self._population if self.space.tune.scheduler == "pbt" else self._one_by_one
        self._run(records, lambda running: queue(records, running), self.space.trials)
        return records.all()

    def _run(self, records: Records, queue: Queue, count: int) -> None:
        """Runs trials to their end; those that were not promoted are stopped."""
        with report.live(self.reporter, self.score, count) as follow:
            for trial in records.all():
                follow(trial)
            run_trials(records, self.config, self.tracker.run_id, self.plan, queue, follow)
            for trial in records.all():
                if not trial.is_over:
                    trial.status = "stopped"
                    records.write(trial)
                    follow(trial)
        end_runs(self.config, records, self.reporter)

    def _one_by_one(self, records: Records, running: Set[str]) -> Iterator[str | None]:
        """Names of trials, each chosen from the results so far."""
        while (trial := self._next(records.all(), running)) or running:
            if trial:
                records.write(trial)
            yield trial.name if trial else None

    def _next(self, trials: list[Trial], running: Set[str]) -> Trial | None:
        """The next trial to run: with asha trials pause, and may be promoted."""
        if begun := [trial for trial in trials if not trial.is_idle and trial.name not in running]:
            return begun[0]  # it began before the study was resumed
        rungs = halving.rungs(self.config) if self.space.tune.scheduler == "asha" else []
        trial = halving.promoted(trials, rungs, self.space.tune.reduction_factor, self.score)
        if trial is None and len(trials) < self.space.trials:
            trial = self._new(trials)
        if trial is None and not running:
            trial = halving.foremost(trials, rungs, self.score)
        if trial is None or trial.name in running:  # it is paused, but its process has not quite ended
            return None
        trial.until = halving.following(rungs, trial.until or 0)
        return trial

    def _population(self, records: Records, running: Set[str]) -> Iterator[str | None]:
        """Names of all trials, round by round; between two rounds weak trials take over the states of strong ones."""
        while len(trials := records.all()) < self.space.trials:
            records.write(self._new(trials))
        for until in population.rounds(self.config):
            for trial in records.all():
                trial.until = max(until, trial.until or 0)
                records.write(trial)
                if not trial.is_idle:
                    yield trial.name
            while running:
                yield None
            if until < self.config.outer.steps:
                for trial in population.move(records.all(), until, self.score, self.space):
                    records.write(trial)

    def _new(self, trials: list[Trial]) -> Trial:
        return Trial(f"trial-{len(trials):04}", propose(self.space, self.score, trials))

    def conclude(self, trials: list[Trial]) -> dict[str, Any]:
        """Evaluates the winner and the file's settings on meta-test, and trains the winner with other seeds."""
        report.publish(self.folder, self.tracker, self.space, self.score, trials, self.reporter.note)
        winner = best(trials, self.score)
        if winner is None:
            reasons = "; ".join(f"{trial.name}: {trial.reason}" for trial in trials if trial.reason)
            raise TrainingError(f"no trial finished. {reasons}")
        path = self.folder / "best.yaml"
        best_config = paths.absolute(self.space.config(winner.values))
        directory.write_config(path, best_config, leave_out=("tune", "run_dir"))
        self.tracker.log_artifact(path)
        searched, final = Records(self.folder / "trials"), Records(self.folder / "final")
        home, name = self._default(trials)
        wanted = {"default": self.space.default()} if home.folder == final.folder else {}
        for seed in range(best_config.seed + 1, best_config.seed + 1 + self.space.tune.winner_seeds):
            wanted[f"winner-seed-{seed}"] = {**winner.values, "seed": seed}
        for missing in wanted.keys() - {trial.name for trial in final.all()}:
            final.write(Trial(missing, wanted[missing]))
        self._run(final, lambda running: iter(wanted), len(wanted))
        runs = [("winner", searched.run_dir(winner.name)), ("default", home.run_dir(name))]
        self._test(runs[0][1])
        default = home.read(name)
        try:
            if default.status == "finished":
                self._test(runs[1][1])
        except TrainingError as error:  # the settings of the file may be the reason for the search
            default.status, default.reason = "failed", str(error)
        compared = compare(runs if default.status == "finished" else runs[:1], self.reporter)
        seeds = [trial for trial in final.all() if trial.name != "default"]
        result = report.result(self.folder, self.tracker.run_id, trials, winner, default, seeds, compared)
        if self.space.tune.objectives == "score and seconds":
            result["front"] = front(trials, self.score)
        directory.write_json(self.folder / "result.json", result)
        report.publish_result(self.folder, self.tracker, self.score, trials, result)
        report.show(self.reporter, self.score, trials, result)
        self._send_rest()
        return result

    def _default(self, trials: list[Trial]) -> tuple[Records, str]:
        """Records and name of the trial with the settings of the file: one of the search if such a trial finished."""
        wanted = self.space.config(self.space.default())
        for trial in trials:
            if trial.status == "finished" and not trial.moves and self.space.config(trial.values) == wanted:
                return Records(self.folder / "trials"), trial.name
        return Records(self.folder / "final"), "default"

    def _test(self, run_dir: Path) -> None:
        """Runs meta-test, unless it was done before."""
        if not (run_dir / "evaluation.json").exists():  # written after all the scores
            train.evaluate(run_dir, [], self.reporter)

    def _send_rest(self) -> None:
        """Sends the entries that trials could not send while MLflow was away."""
        uri = tracking.resolve_uri(self.config.tracking.uri)
        for run_dir in directory.within(self.folder)[1:]:
            try:
                tracking.sync(uri, directory.read(run_dir, [])[1]["mlflow_run_id"], run_dir, self.reporter.note)
            except TrackingError as error:
                self.reporter.note(f"{error}; `distmeta sync {self.folder}` sends the rest")
                return


def end_runs(config: RunConfig, records: Records, reporter: Reporter) -> None:
    """Ends the MLflow runs of trials that no longer run, even if their processes were lost."""
    uri = tracking.resolve_uri(config.tracking.uri)
    for trial in records.all():
        run_dir = records.run_dir(trial.name)
        if (run_dir / directory.RUN).exists():
            run_id = directory.read(run_dir, [])[1]["mlflow_run_id"]
            status = ENDS.get(trial.status, "KILLED")
            if run_id and not tracking.end(uri, run_id, run_dir, status, trial.reason):
                reporter.note(f"MLflow is away; the end of {trial.name} waits on disk")
