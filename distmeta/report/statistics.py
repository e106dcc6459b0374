"""Means with intervals. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distmeta.errors import DivergedError
from distmeta.types import Score

SAME = "the same on "  # names a baseline: the learner itself, on episodes with less in their support sets


def mean_ci95(values: np.ndarray) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval, of two or more independent draws.

    It is Student's interval: 1.96 standard errors for many draws, and more for few, such as 4.3 for three.
    """
    from scipy.special import stdtrit  # late: needed only at a run's end. `scipy.stats.t.ppf`, without scipy.stats

    errors = float(stdtrit(len(values) - 1, 0.975))
    return float(values.mean()), float(errors * values.std(ddof=1) / np.sqrt(len(values)))


def paired(score: str, own: np.ndarray, base: np.ndarray | DivergedError) -> dict[str, Any]:
    """A baseline's mean score, and the mean of `own` minus `base`, both (episodes,) on the same episodes."""
    if isinstance(base, DivergedError):
        return {**dict.fromkeys((score, "ci95", "difference", "difference_ci95")), "diverged": str(base)}
    mean, half = mean_ci95(base)
    gain, gain_half = mean_ci95(own - base)
    return {score: mean, "ci95": half, "difference": gain, "difference_ci95": gain_half}


def mean_row(rows: Sequence[Mapping[str, Any]], score: Score) -> dict[str, Any]:
    """The mean over families of the mean over each family's shapes. Intervals assume independent figures.

    It has only the baselines that every family has.
    """

    def mean(figures: Sequence[tuple[str, float, float]]) -> tuple[float, float]:
        """Mean and half-width of figures, from (family, value, half-width) each."""
        families: dict[str, list[tuple[float, float]]] = {}
        for family, value, half in figures:
            families.setdefault(family, []).append((value, half))
        weighted = [(v / len(pairs), h / len(pairs)) for pairs in families.values() for v, h in pairs]
        values, halves = np.array(weighted).T / len(families)
        return float(values.sum()), float(np.sqrt(np.square(halves).sum()))

    def baseline(row: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
        return next((base for base in row["baselines"] if base["name"] == name and "diverged" not in base), None)

    own, half = mean([(row["family"], row[row["score"]["name"]], row["ci95"]) for row in rows])
    baselines = []
    for name in [base["name"] for base in rows[0]["baselines"]]:
        found = [(row["family"], row["score"]["name"], baseline(row, name)) for row in rows]
        if complete := [(family, figure, base) for family, figure, base in found if base is not None]:
            if len(complete) < len(rows):
                continue
            value, width = mean([(family, base[figure], base["ci95"]) for family, figure, base in complete])
            gain, gain_width = mean(
                [(family, base["difference"], base["difference_ci95"]) for family, _, base in complete]
            )
            figures = {score.name: value, "ci95": width, "difference": gain, "difference_ci95": gain_width}
            baselines.append({"name": name, **figures})
    about = {"family": "mean", "shape": {}, "title": "mean of families", "score": score._asdict()}
    first = rows[0]
    return {
        **about,
        "name": first["name"],
        "episodes": first["episodes"],
        score.name: own,
        "ci95": half,
        "baselines": baselines,
    }
