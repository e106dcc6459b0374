"""Plots of a study."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna

from distmeta.report.figures import new_figure, save
from distmeta.tune.records import Trial, best_so_far
from distmeta.tune.search import ask, direction
from distmeta.tune.space import Space
from distmeta.types import Score

ENOUGH = 4  # fewest trials for meaningful importances


def draw(folder: Path, space: Space, score: Score, trials: Sequence[Trial]) -> list[Path]:
    """Draws the trials that have a score; returns the paths of the PNGs, and of the importances as JSON."""
    measured = [trial for trial in trials if trial.curve]
    if not measured:
        return []
    paths = [folder / "convergence.png", folder / "parallel_coordinates.png"]
    _convergence(paths[0], score, measured)
    _parallel(paths[1], space, score, measured)
    if shares := importances(space, score, trials):
        paths += [folder / "importances.json", folder / "importances.png"]
        paths[2].write_text(json.dumps(shares, indent=1) + "\n", encoding="utf-8")
        figure, axes = new_figure("importance (PED-ANOVA, shares of 1)", height=1 + 0.4 * len(shares), integers=False)
        axes.barh(list(shares)[::-1], list(shares.values())[::-1])
        save(figure, paths[3])
    return paths


def importances(space: Space, score: Score, trials: Sequence[Trial]) -> dict[str, float]:
    """The share of the difference between good and other trials that each key explains: their sum is 1, largest first.

    PED-ANOVA of Watanabe et al. PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces.
    IJCAI 2023. https://arxiv.org/abs/2304.10255, over the scores after the last outer step that at least half of the
    trials reached. Empty if there are too few trials. Keys that only some trials have are left out.
    """
    measured = [trial for trial in trials if trial.curve and trial.status != "failed"]
    for step in sorted({point.step for trial in measured for point in trial.curve}, reverse=True):
        scores = [(trial, value) for trial in measured if (value := trial.score_at(step)) is not None]
        if len(scores) >= max(ENOUGH, len(measured) / 2):
            break
    else:
        return {}
    values = {key: [json.dumps(trial.values.get(key)) for trial, _ in scores] for key in space.dimensions}
    keys = [key for key in values if all(key in trial.values for trial, _ in scores) and len(set(values[key])) > 1]
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    study = _study(space, score, scores)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator, params=keys))


def _study(space: Space, score: Score, scores: Sequence[tuple[Trial, float]]) -> optuna.Study:
    """An Optuna study of trials with these scores."""
    study = optuna.create_study(direction=direction(score))
    for trial, value in scores:
        study.tell(ask(study, space, trial.values)[0], _scale(score) * value)
    return study


def _scale(score: Score) -> int:
    return 100 if score.is_share else 1


def _label(score: Score) -> str:
    return f"meta-validation {score.name}{score.unit and ' in %'}"


def _convergence(path: Path, score: Score, trials: Sequence[Trial]) -> None:
    """Each trial's last score, and the best so far of those that finished."""
    (figure, axes), scale = new_figure("trial", _label(score)), _scale(score)
    for status, marker in (("finished", "o"), ("stopped", "x"), ("failed", "v")):
        ended = {n: scale * trial.curve[-1].score for n, trial in enumerate(trials, 1) if trial.status == status}
        if ended:
            axes.plot(list(ended), list(ended.values()), marker, label=status, alpha=0.7)
    running = [np.nan if value is None else scale * value for value in best_so_far(trials, score)]
    axes.step(range(1, len(trials) + 1), running, where="post", label="best so far")
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, path)


def _parallel(path: Path, space: Space, score: Score, trials: Sequence[Trial]) -> None:
    """A line for each trial through its values, coloured by its last score."""
    from matplotlib import pyplot

    study = _study(space, score, [(trial, trial.curve[-1].score) for trial in trials])
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        optuna.visualization.matplotlib.plot_parallel_coordinate(study, target_name=_label(score))
    figure = pyplot.gcf()
    figure.set_size_inches(1.6 * (len(space.dimensions) + 2), 4)
    save(figure, path, dpi=150, bbox_inches="tight")
    pyplot.close(figure)
