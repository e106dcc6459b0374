"""Meta-test on a fixed list of episodes: every figure with its interval, comparisons paired on the same episodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from distmeta.backends import Coordination, Note
from distmeta.errors import DivergedError
from distmeta.report.scores import write as write_scores
from distmeta.report.statistics import mean_ci95, paired
from distmeta.runs.experiment import Contender, Experiment
from distmeta.tasks.classification import manifest_sha256
from distmeta.types import Stream, Work

Progress = Callable[[str, int, int], None]  # what is evaluated, episodes done, episodes in all
SLICES = 10  # parts of an evaluation, for the sake of its progress bar


def meta_test(
    experiment: Experiment, coordination: Coordination, run_dir: Path, progress: Progress, meta_params_sha256: str
) -> list[dict[str, Any]]:
    """Evaluates all contenders on the same meta-test episodes, one row of figures for each number of shots.

    Writes each manifest into `run_dir`, and the meta-trained learner's score on each episode. A row holds the task
    kind's score under its name, such as `accuracy` (a share of 1) or `mse`; `difference` is the meta-trained learner's
    score less the baseline's, paired by episode. A baseline that diverges on a task has no figures: they are None, and
    `diverged` says why.

    Raises:
        DivergedError: the meta-trained learner does.
    """
    evaluation, score = experiment.config.evaluation, experiment.model.task.score.name
    rows: list[dict[str, Any]] = []
    streams = {shots: experiment.stream("meta_test", shots) for shots in evaluation.shots}
    trained, *baselines = experiment.contenders

    def scores(contender: Contender, stream: Stream) -> np.ndarray:
        work = experiment.work(contender.learner, stream, evaluation.episodes)
        return run_episodes(experiment, coordination, contender, work, evaluation.episodes, progress)[score]

    def scores_if_any(contender: Contender, stream: Stream) -> np.ndarray | DivergedError:
        try:
            return scores(contender, stream)
        except DivergedError as error:
            return error

    # All of one θ before the next: features are kept for one θ at a time.
    own = {shots: scores(trained, stream) for shots, stream in streams.items()}
    others = {(its.name, shots): scores_if_any(its, stream) for its in baselines for shots, stream in streams.items()}
    written = []
    for shots, stream in streams.items():
        manifest = experiment.model.task.manifest(stream, evaluation.episodes)
        digest = manifest_sha256(manifest)
        shape = {"ways": stream.ways, "shots": shots, "manifest_sha256": digest}
        each = {"score": experiment.model.task.score._asdict(), "scores": own[shots].tolist()}
        written.append((manifest, {**shape, **each}))
        mean, half = mean_ci95(own[shots])
        compared = [{"name": its.name, **paired(score, own[shots], others[its.name, shots])} for its in baselines]
        rows.append(
            {
                "name": trained.name,
                "ways": stream.ways,
                "shots": shots,
                "queries": stream.queries,
                "episodes": evaluation.episodes,
                score: mean,
                "ci95": half,
                "manifest_sha256": digest,
                "baselines": compared,
            }
        )
    write_scores(run_dir, meta_params_sha256, written)
    return rows


def meta_validation(experiment: Experiment, coordination: Coordination) -> dict[str, float]:
    """Figures of the present θ on meta-validation episodes."""
    evaluation = experiment.config.evaluation
    stream = experiment.stream("meta_validation", experiment.config.validation_shots)
    episodes = evaluation.validation_episodes
    work = experiment.work(experiment.learner, stream, episodes)
    metrics = coordination.evaluate(work, 0, episodes, evaluation.episodes_per_unit)
    figures = {f"meta_validation/{name}": float(values.mean()) for name, values in metrics.items()}
    score = experiment.model.task.score.name
    figures[f"meta_validation/{score}_ci95"] = mean_ci95(metrics[score])[1]
    return figures


def adaptation_curve(
    experiment: Experiment, coordination: Coordination, progress: Progress, note: Note
) -> dict[str, tuple[list[float], list[float]]]:
    """Scores and their intervals after 0, 1, 2, … inner steps; empty for learners without inner steps.

    On meta-validation episodes: a curve invites a choice of steps, and choices are not made on meta-test. A learner's
    curve ends, with a note, before the first number of steps after which a task has diverged.
    """
    evaluation = experiment.config.evaluation
    if "inner_steps" not in {field.name for field in fields(experiment.learner)}:  # type: ignore[arg-type]
        return {}
    stream = experiment.stream("meta_validation", experiment.config.validation_shots)
    curves = {}
    for contender in experiment.contenders[:2]:
        points = []
        for steps in range(evaluation.curve_steps + 1):
            learner = replace(contender.learner, inner_steps=steps)  # type: ignore[type-var]
            # All points meet the same rows under the same θ.
            work = experiment.work(learner, stream, evaluation.curve_episodes * (evaluation.curve_steps + 1))
            named = contender._replace(name=f"{contender.name}, {steps} inner steps")
            try:
                metrics = run_episodes(experiment, coordination, named, work, evaluation.curve_episodes, progress)
            except DivergedError as error:
                note(f"the adaptation curve of {contender.name} ends before {steps} inner steps: {error}")
                break
            points.append(mean_ci95(metrics[experiment.model.task.score.name]))
        if points:
            curves[contender.name] = ([mean for mean, _ in points], [half for _, half in points])
    return curves


def run_episodes(
    experiment: Experiment,
    coordination: Coordination,
    contender: Contender,
    work: Work,
    episodes: int,
    progress: Progress,
) -> dict[str, np.ndarray]:
    """Metrics of the first episodes of the work's stream, (episodes,) each."""
    per_unit = experiment.config.evaluation.episodes_per_unit
    what = f"{contender.name}, {work.stream.shots}-shot"
    size = per_unit * -(-episodes // (per_unit * SLICES))  # whole units: their cuts must not depend on the slices
    parts = []
    for first in range(0, episodes, size):
        progress(what, first, episodes)
        count = min(size, episodes - first)
        parts.append(coordination.evaluate(work, first, count, per_unit, contender.initial))
    progress(what, episodes, episodes)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
