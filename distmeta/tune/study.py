"""A study: the search, then its winner on meta-test, beside the configuration that it started from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distmeta import tracking
from distmeta.backends import open_backend
from distmeta.config import CheckpointConfig, RunConfig, TuneConfig
from distmeta.errors import TrackingError, TrainingError
from distmeta.report.compare import compare
from distmeta.report.progress import Reporter
from distmeta.runs import directory, train
from distmeta.runs.session import tracked
from distmeta.runs.stop import stopper
from distmeta.tracking import Ended, Tracker
from distmeta.tune import halving, population, report
from distmeta.tune.check import check, on_ray
from distmeta.tune.execute import Execution, Plan
from distmeta.tune.records import Records, Trial, best, front
from distmeta.tune.search import propose
from distmeta.tune.space import Space
from distmeta.types import Score

ENDS: dict[str, Ended] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


def start(config: RunConfig, folder: Path, reporter: Reporter) -> dict[str, Any]:
    """Runs a study from the start.

    Returns:
        The figures that ``--json`` prints.

    Raises:
        UserError: before anything is written.
        TrainingError: no trial came to an end.
    """
    directory.require_new(folder, "tune")
    if config.tune and config.tune.scheduler == "pbt":
        # Checkpoints are those between rounds; one is needed until the next round is over.
        config = config.model_copy(update={"checkpoint": CheckpointConfig(every=0, keep=2)})
    return _run(directory.absolute(config), folder, reporter, None)


def resume(folder: Path, reporter: Reporter) -> dict[str, Any]:
    """Goes on with a study that was ended: trials that are over are not run again, others from their checkpoints."""
    config, about = directory.read(folder, [])
    with directory.locked(folder, reporter.note):
        return _run(config, folder, reporter, about)


def _run(config: RunConfig, folder: Path, reporter: Reporter, run: dict[str, Any] | None) -> dict[str, Any]:
    space, score = check(config, reporter)
    try:
        with stopper() as asked, open_backend(on_ray(config.cluster)):
            asked.listen()  # Ray has set handlers of its own
            plan = Plan.of(config)
            reporter.note(report.describe(config, plan, space.trials))
            with tracked(config, folder, reporter, run, {"distmeta.kind": "study"}) as tracker:
                study = Study(config, space, score, folder, plan, tracker, reporter)
                return study.conclude(study.search())
    except KeyboardInterrupt:
        # The processes of the trials are gone with Ray: MLflow must not say that they run.
        for records in (Records(folder / "trials"), Records(folder / "final")):
            for trial in records.all():
                _end(config, records, trial, ENDS.get(trial.status, "KILLED"), reporter)
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

    @property
    def tune(self) -> TuneConfig:
        """What is asked for."""
        assert self.config.tune is not None
        return self.config.tune

    def search(self) -> list[Trial]:
        """Runs the trials, in the end all of them."""
        records = Records(self.folder / "trials")
        with report.Live(self.reporter, self.score, self.space.trials) as live:
            for trial in records.all():
                live.follow(trial)
            execution = self._execution(records, live)
            if self.tune.scheduler == "pbt":
                self._train_population(execution)
            else:
                self._train_each(execution)
            for trial in records.all():
                if not trial.is_over:
                    trial.status = "stopped"
                    records.write(trial)
                    self._end(records, trial)
                    live.follow(trial)
        return records.all()

    def _train_each(self, execution: Execution) -> None:
        """Runs one trial after another, as many at once as there is room for; some may pause, and go on no more."""
        records, busy = execution.records, set[str]()
        rungs = halving.rungs(self.config) if self.tune.scheduler == "asha" else []

        def following() -> Trial | None:
            trials = records.all()
            if begun := [trial for trial in trials if not trial.is_idle and trial.name not in busy]:
                return begun[0]  # of a study that was ended
            ready = halving.promoted(trials, rungs, self.tune.reduction_factor, self.score)
            if ready is None and len(trials) < self.space.trials:
                return self._new(trials, halving.following(rungs, 0))
            if ready is None and not busy:
                ready = halving.foremost(trials, rungs, self.score)
            if ready is None or ready.name in busy:  # its process may not be quite at its end
                return None
            ready.until = halving.following(rungs, ready.until or 0)
            return ready

        def names() -> Iterator[str | None]:
            while (trial := following()) or busy:
                if trial is None:
                    yield None
                else:
                    records.write(trial)
                    busy.add(trial.name)
                    yield trial.name

        def ended(trial: Trial) -> None:
            busy.discard(trial.name)
            self._end(records, trial)

        execution.run(names(), ended)

    def _train_population(self, execution: Execution) -> None:
        """Runs all trials round by round; between two rounds some go on from where others are."""
        records = execution.records
        while len(trials := records.all()) < self.space.trials:
            records.write(self._new(trials, None))
        for until in population.rounds(self.config):
            for trial in records.all():
                trial.until = max(until, trial.until or 0)
                records.write(trial)
            names = [trial.name for trial in records.all() if not trial.is_idle]
            execution.run(names, lambda trial: self._end(records, trial))
            if until < self.config.outer.steps:
                for trial in population.move(records.all(), until, self.score, self.space, self.config.seed):
                    records.write(trial)

    def _new(self, trials: list[Trial], until: int | None) -> Trial:
        values = propose(self.config, self.space, self.score, trials)
        return Trial(f"trial-{len(trials):04}", values, until=until)

    def _execution(self, records: Records, live: report.Live) -> Execution:
        return Execution(records, self.config, self.tracker.run_id, self.plan, live.follow)

    def conclude(self, trials: list[Trial]) -> dict[str, Any]:
        """The winner on meta-test, beside the configuration as it was, and with other seeds on meta-validation."""
        report.publish(self.folder, self.tracker, self.space, self.score, trials)
        winner = best(trials, self.score)
        if winner is None:
            reasons = "; ".join(f"{trial.name}: {trial.reason}" for trial in trials if trial.reason)
            raise TrainingError(f"no trial came to its end. {reasons}")
        config = self.space.config(winner.values)
        path = self.folder / "best.yaml"
        directory.write_config(path, directory.absolute(config), leave_out=("tune", "run_dir"))
        self.tracker.log_artifact(path)
        records = Records(self.folder / "final")
        known = self._default(trials)
        wanted = {} if known else {"default": self.space.default()}
        for seed in range(config.seed + 1, config.seed + 1 + self.tune.winner_seeds):
            wanted[f"winner-seed-{seed}"] = {**winner.values, "seed": seed}
        for name, values in wanted.items():
            if name not in {trial.name for trial in records.all()}:
                records.write(Trial(name, values))
        with report.Live(self.reporter, self.score, len(wanted)) as live:
            execution = self._execution(records, live)
            execution.run(wanted, lambda trial: self._end(records, trial))
        its = {"winner": Records(self.folder / "trials").run_dir(winner.name)}
        self._test(its["winner"])
        default, run_dir = known or (records.read("default"), records.run_dir("default"))
        if default.status == "finished":
            try:
                self._test(run_dir)
                its["default"] = run_dir
            except TrainingError as error:  # the settings of the file may be why others are looked for
                default.status, default.reason = "failed", str(error)
        compared = compare(list(its.items()), self.reporter)
        seeds = [trial for trial in records.all() if trial.name != "default"]
        is_default = run_dir == its["winner"]
        result = report.result(self.folder, self.tracker.run_id, trials, winner, is_default, default, seeds, compared)
        if self.tune.objectives == "score and seconds":
            result["front"] = front(trials, self.score)
        directory.write_json(self.folder / "result.json", result)
        report.publish_result(self.folder, self.tracker, self.score, trials, result)
        report.show(self.reporter, self.score, trials, result)
        self._send_rest()
        return result

    def _default(self, trials: list[Trial]) -> tuple[Trial, Path] | None:
        """The trial that has the settings of the file, and its run, if one came to its end: once is enough."""
        wanted = self.space.config(self.space.default())
        for trial in trials:
            if trial.status == "finished" and not trial.moves and self.space.config(trial.values) == wanted:
                return replace(trial), Records(self.folder / "trials").run_dir(trial.name)
        return None

    def _test(self, run_dir: Path) -> None:
        """Meta-test, unless it has been done."""
        if not (run_dir / "evaluation.json").exists():  # which comes after all the scores
            train.evaluate(run_dir, [], self.reporter)

    def _end(self, records: Records, trial: Trial) -> None:
        """Ends a trial's MLflow run, if it is over and its process could not."""
        if trial.is_over:
            _end(self.config, records, trial, ENDS[trial.status], self.reporter)

    def _send_rest(self) -> None:
        """Sends what trials could not while MLflow was away."""
        uri = tracking.resolve_uri(self.config.tracking.uri)
        for run_dir in directory.within(self.folder)[1:]:
            try:
                tracking.sync(uri, directory.read(run_dir, [])[1]["mlflow_run_id"], run_dir, self.reporter.note)
            except TrackingError as error:
                self.reporter.note(f"{error}; `distmeta sync {self.folder}` sends what it lacks")
                return


def _end(config: RunConfig, records: Records, trial: Trial, status: Ended, reporter: Reporter) -> None:
    """Ends a trial's MLflow run, if it has one."""
    run_dir = records.run_dir(trial.name)
    if (run_dir / directory.RUN).exists():
        uri, run_id = tracking.resolve_uri(config.tracking.uri), directory.read(run_dir, [])[1]["mlflow_run_id"]
        if run_id and not tracking.end(uri, run_id, run_dir, status, trial.reason):
            reporter.note(f"MLflow is away; the end of {trial.name} waits on disk")
