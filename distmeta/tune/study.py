"""A study: the search, then its winner on meta-test, beside the configuration that it started from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from distmeta import runs, tracking, train
from distmeta.backends import open_backend
from distmeta.backends.resources import preflight
from distmeta.compare import compare
from distmeta.config import CheckpointConfig, RunConfig
from distmeta.errors import ConfigError, TrainingError
from distmeta.experiment import build_experiment
from distmeta.open_run import tracked
from distmeta.progress import Reporter
from distmeta.stop import stopper
from distmeta.tracking import Tracker
from distmeta.tune import halving, population, report
from distmeta.tune.execute import Execution, Plan
from distmeta.tune.records import Records, Trial, best
from distmeta.tune.search import propose
from distmeta.tune.space import Space
from distmeta.types import Score

ENDS: dict[str, Literal["FINISHED", "FAILED", "KILLED"]] = {
    "finished": "FINISHED",
    "stopped": "KILLED",
    "failed": "FAILED",
}


def start(config: RunConfig, folder: Path, reporter: Reporter) -> dict[str, Any]:
    """Runs a study from the start.

    Returns:
        The figures that ``--json`` prints.

    Raises:
        UserError: before anything is written.
        TrainingError: no trial came to an end.
    """
    runs.require_new(folder, "tune")
    if config.tune and config.tune.scheduler == "pbt":
        # Checkpoints are those between rounds; one is needed until the next round is over.
        config = config.model_copy(update={"checkpoint": CheckpointConfig(every=0, keep=2)})
    return _run(runs.absolute(config), folder, reporter, None)


def resume(folder: Path, reporter: Reporter) -> dict[str, Any]:
    """Goes on with a study that was ended: trials that are over are not run again, others from their checkpoints."""
    config, about = runs.read(folder, [])
    return _run(config, folder, reporter, about["mlflow_run_id"])


def _run(config: RunConfig, folder: Path, reporter: Reporter, run_id: str | None) -> dict[str, Any]:
    space = Space(config)
    space.check()
    if not config.evaluation.validation_every:
        found = "0, but trials are compared by their meta-validation"
        raise ConfigError("evaluation.validation_every", found, "set it, for example to a quarter of outer.steps")
    if config.tune and config.tune.scheduler == "pbt":
        population.rounds(config)
    tracking.check_store(tracking.resolve_uri(config.tracking.uri))
    on_ray = config.cluster.model_copy(update={"backend": "ray"})  # trials are, wherever their workers may be
    if config.cluster.backend == "inprocess":
        on_ray = on_ray.model_copy(update={"workers": 1})  # a private Ray has a CPU for each, if need be made up
    preflight(on_ray)
    experiment = build_experiment(space.config(space.default()))
    score = experiment.model.task.score
    if config.tune and config.tune.scheduler == "pbt":
        population.require_one_layout(space, experiment)
    with stopper() as asked, open_backend(on_ray):
        asked.listen()  # Ray has set handlers of its own
        plan = Plan.of(config)
        reporter.note(report.describe(config, plan, space.trials))
        with tracked(config, folder, reporter, run_id, {"distmeta.kind": "study"}) as tracker:
            study = Study(config, space, score, folder, plan, tracker, reporter)
            return study.conclude(study.search())


class Study:
    """A study in progress."""

    def __init__(
        self,
        config: RunConfig,
        space: Space,
        score: Score,
        folder: Path,
        plan: Plan,
        tracker: Tracker,
        reporter: Reporter,
    ) -> None:
        assert config.tune is not None
        self.config, self.space, self.score, self.folder = config, space, score, folder
        self.tune, self.plan, self.tracker, self.reporter = config.tune, plan, tracker, reporter
        self.uri = tracking.resolve_uri(config.tracking.uri)

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
        winner = best(trials, self.score)
        if winner is None:
            reasons = "; ".join(f"{trial.name}: {trial.reason}" for trial in trials if trial.reason)
            raise TrainingError(f"no trial came to its end. {reasons}")
        config = self.space.config(winner.values)
        path = self.folder / "best.yaml"
        runs.write_config(path, runs.absolute(config), leave_out=("tune", "run_dir"))
        self.tracker.log_artifact(path)
        records = Records(self.folder / "final")
        wanted = {"default": self.space.default()}
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
        default = records.read("default")
        if default.status == "finished":
            try:
                self._test(records.run_dir("default"))
                its["default"] = records.run_dir("default")
            except TrainingError as error:  # the settings of the file may be why others are looked for
                default.status, default.reason = "failed", str(error)
                records.write(default)
        compared = compare(list(its.items()), self.reporter)
        seeds = [trial for trial in records.all() if trial.name != "default"]
        is_default = config == self.space.config(self.space.default()) and not winner.moves
        result = report.result(self.folder, self.tracker.run_id, trials, winner, is_default, default, seeds, compared)
        if self.tune.objectives == "score and seconds":
            result["front"] = front(trials, self.score)
        runs.write_json(self.folder / "result.json", result)
        report.publish(self.folder, self.tracker, self.space, self.score, trials, result)
        report.show(self.reporter, self.score, trials, result)
        return result

    def _test(self, run_dir: Path) -> None:
        """Meta-test, unless it has been done."""
        if not (run_dir / "evaluation.json").exists():  # which comes after all the scores
            train.evaluate(run_dir, [], self.reporter)

    def _end(self, records: Records, trial: Trial) -> None:
        """Ends a trial's MLflow run, if it is over and its process could not."""
        path = records.run_dir(trial.name) / runs.RUN
        if trial.is_over and path.exists():
            run_id = json.loads(path.read_text(encoding="utf-8"))["mlflow_run_id"]
            tracking.end(self.uri, run_id, ENDS[trial.status], trial.reason)


def front(trials: list[Trial], score: Score) -> list[str]:
    """The names of the trials that no other beats in score and in seconds, the quickest first."""
    lasts = {trial.name: trial.curve[-1] for trial in trials if trial.status == "finished"}
    worth = {name: score.sign * last.score for name, last in lasts.items()}
    ahead: list[str] = []
    for name in sorted(lasts, key=lambda name: (lasts[name].seconds, -worth[name])):
        if not ahead or worth[name] > worth[ahead[-1]]:
            ahead.append(name)
    return ahead
