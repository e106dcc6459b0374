"""Plots of a study, drawn with matplotlib's object interface: no window, no global state."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distmeta.tune.records import Trial, best_so_far
from distmeta.tune.space import Space
from distmeta.types import Score

ENOUGH = 4  # trials for importances to mean anything


def draw(folder: Path, space: Space, score: Score, trials: Sequence[Trial]) -> list[Path]:
    """Draws all that there is something to draw of, as PNGs; their paths."""
    told = [trial for trial in trials if trial.curve]
    drawn = [_convergence(folder / "convergence.png", score, told)]
    drawn.append(_parallel(folder / "parallel_coordinates.png", space, score, told))
    shares = importances(space, score, trials)
    if shares:
        (folder / "importances.json").write_text(json.dumps(shares, indent=1) + "\n", encoding="utf-8")
        drawn += [folder / "importances.json", _importances(folder / "importances.png", shares)]
    return drawn


def importances(space: Space, score: Score, trials: Sequence[Trial]) -> dict[str, float]:
    """How much of the difference between good and other trials each key explains; shares of 1, largest first.

    PED-ANOVA of Watanabe et al. PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces.
    IJCAI 2023. https://arxiv.org/abs/2304.10255, over the scores after the last outer step that at least half of the
    trials came to. Empty where they are too few, and without keys that only some of them have.
    """
    import optuna

    told = [trial for trial in trials if trial.curve and trial.status != "failed"]
    enough = max(ENOUGH, -(-len(told) // 2))
    steps = {point.step for trial in told for point in trial.curve}
    at = {step: [trial for trial in told if trial.score_at(step) is not None] for step in steps}
    step = max((step for step, there in at.items() if len(there) >= enough), default=None)
    if step is None:
        return {}
    there = at[step]
    keys = [key for key in space.dimensions if all(key in trial.values for trial in there)]
    study = optuna.create_study(direction="maximize" if score.higher_is_better else "minimize")
    for trial in there:
        fixed = {
            key: json.dumps(value) if space.dimensions[key].is_list else value for key, value in trial.values.items()
        }
        study.enqueue_trial(fixed)
        asked = study.ask()
        space.draw(asked)
        study.tell(asked, trial.score_at(step))
    keys = [key for key in keys if len({json.dumps(trial.values[key]) for trial in there}) > 1]
    if not keys:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator, params=keys))


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    return figure, figure.add_subplot()


def _write(figure: Any, path: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).print_png(str(path))
    return path


def _label(score: Score) -> str:
    return f"meta-validation {score.name}{score.unit and ' in %'}"


def _convergence(path: Path, score: Score, trials: Sequence[Trial]) -> Path:
    """Each trial's last score, and the best so far of those that came to their end."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(6, 4)
    scale = 100 if score.is_share else 1
    for status, marker in (("finished", "o"), ("stopped", "x"), ("failed", "v")):
        its = [(number, trial) for number, trial in enumerate(trials, 1) if trial.status == status]
        if its:
            heights = [scale * trial.curve[-1].score for _, trial in its]
            axes.plot([number for number, _ in its], heights, marker, label=status, alpha=0.7)
    running = [np.nan if value is None else scale * value for value in best_so_far(trials, score)]
    axes.step(range(1, len(trials) + 1), running, where="post", label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel(_label(score))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return _write(figure, path)


def _importances(path: Path, shares: dict[str, float]) -> Path:
    figure, axes = _figure(6, 1 + 0.4 * len(shares))
    keys = list(shares)[::-1]
    axes.barh(keys, [shares[key] for key in keys])
    axes.set_xlabel("importance (PED-ANOVA, shares of 1)")
    return _write(figure, path)


def _parallel(path: Path, space: Space, score: Score, trials: Sequence[Trial]) -> Path:
    """A line a trial through its values, coloured by its score; a key that it does not have is a gap."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure, axes = _figure(1.6 * (len(space.dimensions) + 1), 4)
    scale = 100 if score.is_share else 1
    scores = [scale * trial.curve[-1].score for trial in trials]
    norm, colours = Normalize(min(scores, default=0), max(scores, default=1)), colormaps["viridis"]
    for trial, value in sorted(zip(trials, scores, strict=True), key=lambda pair: score.sign * pair[1]):
        heights = [
            _height(space, key, trial.values[key]) if key in trial.values else np.nan for key in space.dimensions
        ]
        axes.plot(heights, color=colours(norm(value)), marker="o", markersize=3, alpha=0.8)
    for place, (key, dimension) in enumerate(space.dimensions.items()):
        axes.axvline(place, color="0.7", linewidth=0.8, zorder=0)
        ends = dimension.values if dimension.is_list else dimension.ends
        assert ends is not None
        for value in ends:
            shown = f"{value:g}" if isinstance(value, int | float) else str(value)
            axes.text(place + 0.03, _height(space, key, value), shown, fontsize=7, va="center")
    axes.set_xticks(range(len(space.dimensions)), list(space.dimensions), rotation=20, ha="right")
    axes.set_yticks([])
    axes.set_ylim(-0.08, 1.08)
    figure.colorbar(ScalarMappable(norm, colours), ax=axes, label=_label(score))
    return _write(figure, path)


def _height(space: Space, key: str, value: Any) -> float:
    """Where a value lies on its axis, from 0 to 1."""
    dimension = space.dimensions[key]
    if dimension.is_list:
        assert dimension.values is not None
        return dimension.values.index(value) / max(1, len(dimension.values) - 1)
    assert dimension.ends is not None
    low, high, number = (np.log(x) if dimension.kind.startswith("log") else x for x in (*dimension.ends, value))
    return float((number - low) / (high - low)) if high > low else 0.5
