"""Meta-test on a fixed list of episodes: every figure with its interval, comparisons paired on the same episodes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distmeta.backends import Coordination, Note
from distmeta.errors import DivergedError
from distmeta.runs.experiment import Experiment
from distmeta.tasks.classification import manifest_sha256
from distmeta.types import Evaluation, Score

Progress = Callable[[str, int, int], None]  # what is evaluated, units done, units in all


def mean_ci95(values: np.ndarray) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval: 1.96 standard errors, episodes being independent draws."""
    return float(values.mean()), float(1.96 * values.std(ddof=1) / np.sqrt(len(values)))


def meta_test(
    experiment: Experiment, coordination: Coordination, run_dir: Path, progress: Progress
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
    asked = {}
    for shots, stream in streams.items():
        for its in experiment.contenders:
            work = experiment.work(its.learner, stream, evaluation.episodes)
            wanted = Evaluation(work, 0, evaluation.episodes, evaluation.episodes_per_unit, its.initial)
            asked[its.name, shots] = wanted
    figures = coordination.evaluate(list(asked.values()), partial(progress, "units of meta-test"))
    found = dict(zip(asked, figures, strict=True))
    own = {shots: found[trained.name, shots].require()[score] for shots in streams}
    others = {key: its.error or its.metrics[score] for key, its in found.items()}
    for shots, stream in streams.items():
        manifest = experiment.model.task.manifest(stream, evaluation.episodes)
        digest = manifest_sha256(manifest)
        shape = {"ways": stream.ways, "shots": shots, "manifest_sha256": digest}
        each = {"score": experiment.model.task.score._asdict(), "scores": own[shots].tolist()}
        for name, content in (("manifest", manifest), ("scores", {**shape, **each})):
            path = run_dir / f"{name}-{stream.ways}way-{shots}shot.json"
            path.write_text(json.dumps(content, sort_keys=True, separators=(",", ":")), encoding="utf-8")
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
    return rows


def paired(score: str, own: np.ndarray, base: np.ndarray | DivergedError) -> dict[str, Any]:
    """A baseline's figures on the episodes of `own` scores, (episodes,): its own, and how much less they are."""
    if isinstance(base, DivergedError):
        return {**dict.fromkeys((score, "ci95", "difference", "difference_ci95")), "diverged": str(base)}
    mean, half = mean_ci95(base)
    gain, gain_half = mean_ci95(own - base)
    return {score: mean, "ci95": half, "difference": gain, "difference_ci95": gain_half}


def meta_validation(experiment: Experiment, coordination: Coordination) -> dict[str, float]:
    """Figures of the present θ on meta-validation episodes."""
    evaluation = experiment.config.evaluation
    stream = experiment.stream("meta_validation", experiment.config.validation_shots)
    episodes = evaluation.validation_episodes
    work = experiment.work(experiment.learner, stream, episodes)
    (evaluated,) = coordination.evaluate([Evaluation(work, 0, episodes, evaluation.episodes_per_unit)])
    metrics = evaluated.require()
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
    steps, episodes, contenders = evaluation.curve_steps, evaluation.curve_episodes, experiment.contenders[:2]
    asked = []
    for contender in contenders:
        learner = replace(contender.learner, inner_steps=steps)  # type: ignore[type-var]
        work = replace(experiment.work(learner, stream, episodes * (steps + 1)), curve=True)
        asked.append(Evaluation(work, 0, episodes, evaluation.episodes_per_unit, contender.initial))
    figures = coordination.evaluate(asked, partial(progress, "units of the adaptation curve"))
    curves = {}
    for contender, (metrics, error) in zip(contenders, figures, strict=True):
        scores = metrics[experiment.model.task.score.name]
        points = [mean_ci95(point) for point in np.ascontiguousarray(scores.T)]
        if error:
            note(f"the adaptation curve of {contender.name} ends before {len(points)} inner steps: {error}")
        if points:
            curves[contender.name] = ([mean for mean, _ in points], [half for _, half in points])
    return curves


def shape_name(ways: int, shots: int) -> str:
    """What people call episodes of a shape; tasks without classes have one way."""
    return f"{ways}-way {shots}-shot" if ways > 1 else f"{shots}-shot"


def table_title(score: Score, of: str, whose: str) -> str:
    """The two lines over an evaluation table: what the figures are, and whose the rows are taken from."""
    return (
        f"Meta-test {score.name}{score.unit and ' in %'}{of}, ± 95 % interval; "
        f"{'higher' if score.higher_is_better else 'lower'} is better.\n"
        f"Difference: {whose} {score.name} less the row's, paired by episode"
    )


def table_rows(meta_test: Sequence[dict[str, Any]], score: Score) -> list[tuple[str, str, str, str]]:
    """The evaluation table: episodes, learner, score, and the meta-trained learner's less it."""
    rows = []
    for row in meta_test:
        shape = shape_name(row["ways"], row["shots"])
        rows.append((shape, row["name"], score.format(row[score.name], row["ci95"]), ""))
        for base in row["baselines"]:
            if "diverged" in base:
                rows.append((shape, base["name"], "diverged", ""))
                continue
            difference = score.format(base["difference"], base["difference_ci95"], "+")
            rows.append((shape, base["name"], score.format(base[score.name], base["ci95"]), difference))
    return rows
