"""Means with their intervals. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distmeta.errors import DivergedError
from distmeta.types import Score


def mean_ci95(values: np.ndarray) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval, of two or more independent draws.

    The interval is Student's: its standard errors are 1.96 of many draws and more of few, such as 4.3 of three.
    """
    from scipy.special import stdtrit  # late: a run needs it at its end; `scipy.stats.t.ppf` without the rest of stats

    errors = float(stdtrit(len(values) - 1, 0.975))
    return float(values.mean()), float(errors * values.std(ddof=1) / np.sqrt(len(values)))


def paired(score: str, own: np.ndarray, base: np.ndarray | DivergedError) -> dict[str, Any]:
    """A baseline's figures on the episodes of `own` scores, (episodes,): its own, and how much less they are."""
    if isinstance(base, DivergedError):
        return {**dict.fromkeys((score, "ci95", "difference", "difference_ci95")), "diverged": str(base)}
    mean, half = mean_ci95(base)
    gain, gain_half = mean_ci95(own - base)
    return {score: mean, "ci95": half, "difference": gain, "difference_ci95": gain_half}


def mean_row(rows: Sequence[Mapping[str, Any]], score: Score) -> dict[str, Any]:
    """The mean over families, of the mean over the shapes of each; intervals as of independent figures.

    Baselines are those that every family has.
    """

    def mean(figures: Sequence[tuple[str, float, float]]) -> tuple[float, float]:
        """Of a figure and its half-width by family."""
        families: dict[str, list[tuple[float, float]]] = {}
        for family, value, half in figures:
            families.setdefault(family, []).append((value, half))
        weighted = [(v / len(its), h / len(its)) for its in families.values() for v, h in its]
        values, halves = np.array(weighted).T / len(families)
        return float(values.sum()), float(np.sqrt(np.square(halves).sum()))

    def baseline(row: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
        return next((its for its in row["baselines"] if its["name"] == name and "diverged" not in its), None)

    own, half = mean([(row["family"], row[row["score"]["name"]], row["ci95"]) for row in rows])
    baselines = []
    for name in [its["name"] for its in rows[0]["baselines"]]:
        found = [(row["family"], row["score"]["name"], baseline(row, name)) for row in rows]
        if complete := [(family, figure, its) for family, figure, its in found if its is not None]:
            if len(complete) < len(rows):
                continue
            value, width = mean([(family, its[figure], its["ci95"]) for family, figure, its in complete])
            gain, gain_width = mean(
                [(family, its["difference"], its["difference_ci95"]) for family, _, its in complete]
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
