"""Means with their intervals. Free of torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from distmeta.errors import DivergedError


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
