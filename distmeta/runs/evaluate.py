"""Meta-test on a fixed list of episodes. Every figure has an interval; comparisons are paired by episode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distmeta.backends.base import Coordination, Note
from distmeta.engine.interfaces import Evaluation
from distmeta.errors import DivergedError
from distmeta.protocols import TaskFamily
from distmeta.report import scores as files
from distmeta.report.statistics import SAME, mean_ci95, mean_row, paired
from distmeta.runs.experiment import Contender, Experiment
from distmeta.tasks.base import each, manifest, manifest_sha256
from distmeta.types import Statistics, Stream

Progress = Callable[[str, int, int], None]  # what is evaluated, units done, units in total


def scores_of(family: TaskFamily, statistics: Statistics) -> np.ndarray:
    """The family's score on each episode, (episodes,)."""
    return np.array([figures[family.score.name] for figures in each(family, statistics)])


def meta_test(
    experiment: Experiment, coordination: Coordination, run_dir: Path, progress: Progress, meta_params_sha256: str
) -> list[dict[str, Any]]:
    """Evaluates all contenders on the same meta-test episodes, one row of figures for each family and shape.

    Writes each manifest into `run_dir`, and the meta-trained learner's score on each episode. A row holds the family's
    score under its name, such as `accuracy` (a share of 1) or `mse`; `difference` is the meta-trained learner's score
    less the baseline's, paired by episode. If a shape is another one with more, such as texts without labels, then so
    are its episodes, and the score on the others is one of its baselines. A baseline that diverges on a task has no
    figures: they are None, and `diverged` says why.

    Raises:
        DivergedError: the meta-trained learner diverges.
    """
    evaluation = experiment.config.evaluation
    shapes = list(_shapes(experiment, "meta_test"))

    contenders = [experiment.contenders(family.name) for family, _ in shapes]
    wanted = [
        _evaluation(experiment, contender, stream, evaluation.episodes)
        for (_, stream), rivals in zip(shapes, contenders, strict=True)
        for contender in rivals
    ]
    found = iter(coordination.evaluate(wanted, partial(progress, "units of meta-test")))
    own, others = [], []
    for (family, _), (_, *baselines) in zip(shapes, contenders, strict=True):
        own.append(scores_of(family, next(found).require()))
        results = ((baseline.name, next(found)) for baseline in baselines)
        others.append({name: error or scores_of(family, statistics) for name, (statistics, error) in results})
    for (_, stream), figures in zip(shapes, others, strict=True):
        for (_, part), scores in zip(shapes, own, strict=True):
            if part.family == stream.family and set(part.shape) < set(stream.shape):
                figures[SAME + name_of(experiment, part)] = scores
    made = [
        _row(experiment, family, stream, scores, baselines)
        for (family, stream), scores, baselines in zip(shapes, own, others, strict=True)
    ]
    about = ("family", "shape", "title", "score", "manifest_sha256")
    written = [
        (content, {**{name: row[name] for name in about}, "scores": scores.tolist()})
        for (content, row), scores in zip(made, own, strict=True)
    ]
    files.write(run_dir, meta_params_sha256, written)
    rows = [row for _, row in made]
    return rows if len(experiment.models) == 1 else [*rows, mean_row(rows, experiment.score)]


def _row(
    experiment: Experiment,
    family: TaskFamily,
    stream: Stream,
    own: np.ndarray,
    baselines: Mapping[str, np.ndarray | DivergedError],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The manifest and the row of figures of one shape of a family's episodes."""
    score, count = family.score.name, experiment.config.evaluation.episodes
    content = manifest(family, stream, count)
    mean, half = mean_ci95(own)
    row = {
        "family": family.name,
        "shape": dict(stream.shape),
        "title": name_of(experiment, stream),
        "score": family.score._asdict(),
        "manifest_sha256": manifest_sha256(content),
        "name": experiment.contenders(family.name)[0].name,
        "episodes": count,
        score: mean,
        "ci95": half,
        "baselines": [{"name": name, **paired(score, own, scores)} for name, scores in baselines.items()],
    }
    return content, row


def meta_validation(experiment: Experiment, coordination: Coordination) -> dict[str, float]:
    """Figures of the current θ on meta-validation episodes; with several families, also the mean score."""
    evaluation, several = experiment.config.evaluation, len(experiment.models) > 1
    episodes, figures, scores = evaluation.validation_episodes, dict[str, float](), list[tuple[float, float]]()
    for family, stream in _shapes(experiment, "meta_validation"):
        contender = experiment.contenders(family.name)[0]
        (found,) = coordination.evaluate([_evaluation(experiment, contender, stream, episodes)])
        statistics = found.require()
        prefix = f"meta_validation/{family.name}/" if several else "meta_validation/"
        figures |= {prefix + name: value for name, value in family.figures(statistics).items()}
        mean, half = mean_ci95(scores_of(family, statistics))
        figures[f"{prefix}{family.score.name}_ci95"] = half
        scores.append((mean, half))
    if several:
        means, halves = np.array(scores).T
        name = f"meta_validation/{experiment.score.name}"
        figures[name], figures[f"{name}_ci95"] = float(means.mean()), float(np.sqrt((halves**2).sum()) / len(halves))
    return figures


def adaptation_curve(
    experiment: Experiment, coordination: Coordination, progress: Progress, note: Note
) -> dict[str, np.ndarray]:
    """Scores of the first family on each episode after 0, 1, 2, … inner steps, (points, episodes), by learner.

    Empty for learners without inner steps. It uses meta-validation episodes: people choose `inner.steps` from a curve,
    and meta-test must not guide choices.
    A learner's curve ends, with a note, before the first step at which a task has diverged.
    """
    evaluation = experiment.config.evaluation
    if not hasattr(experiment.learner, "inner_steps"):
        return {}
    family, stream = next(_shapes(experiment, "meta_validation"))
    steps, episodes = evaluation.curve_steps, evaluation.curve_episodes
    contenders, wanted = experiment.contenders(family.name)[:2], []
    for contender in contenders:
        learner = replace(contender.learner, inner_steps=steps)  # type: ignore[type-var]
        plain = _evaluation(
            experiment, contender._replace(learner=learner), stream, episodes, at_most=episodes * (steps + 1)
        )
        wanted.append(replace(plain, work=replace(plain.work, curve=True)))
    curves = {}
    found = coordination.evaluate(wanted, partial(progress, "units of the adaptation curve"))
    for contender, (statistics, error) in zip(contenders, found, strict=True):
        count = next(iter(statistics.values())).shape[1]
        slices = ({name: value[:, point] for name, value in statistics.items()} for point in range(count))
        points = [scores_of(family, at_point) for at_point in slices]
        if error:
            note(f"the adaptation curve of {contender.name} ends before {count} inner steps: {error}")
        if points:
            curves[contender.name] = np.stack(points)
    return curves


def _evaluation(
    experiment: Experiment, contender: Contender, stream: Stream, episodes: int, at_most: int | None = None
) -> Evaluation:
    """Evaluation of a stream's first episodes. Whether features are cached depends on `at_most` or `episodes`."""
    work = experiment.work(contender.learner, stream, at_most or episodes)
    return Evaluation(work, 0, episodes, experiment.config.evaluation.episodes_per_unit, contender.initial)


def name_of(experiment: Experiment, stream: Stream) -> str:
    """The title of a stream's episodes, such as 5-way 1-shot."""
    name = experiment.setup.families[stream.family].describe(dict(stream.shape))
    return name if len(experiment.models) == 1 else f"{stream.family} {name}"


def _shapes(experiment: Experiment, split: str) -> Iterator[tuple[TaskFamily, Stream]]:
    for name, family in experiment.setup.families.items():
        for stream in experiment.evaluated(name, split):
            yield family, stream
