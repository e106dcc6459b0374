"""Expected intervals are worked out by hand; the quantiles are those of a printed table of Student's t."""

import subprocess
import sys

import numpy as np
import pytest

from distmeta.report.statistics import mean_ci95

TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 9: 2.262, 29: 2.045, 120: 1.980}  # by degrees of freedom


def test_the_interval_is_students() -> None:
    """0, 1, 1, 0: mean ½, sample variance ⅓, standard error √(⅓ / 4), 3 degrees of freedom."""
    mean, half = mean_ci95(np.array([0.0, 1.0, 1.0, 0.0]))
    assert mean == 0.5
    assert half == pytest.approx(3.182 * (1 / 12) ** 0.5, rel=1e-3)


@pytest.mark.parametrize(("degrees", "quantile"), TABLE.items())
def test_the_fewer_episodes_the_wider(degrees: int, quantile: float) -> None:
    values = np.arange(degrees + 1.0)
    assert mean_ci95(values)[1] == pytest.approx(quantile * values.std(ddof=1) / (degrees + 1) ** 0.5, rel=3e-4)


def test_the_interval_holds_the_mean_19_times_of_20() -> None:
    """Of three draws each; 1.96 standard errors hold it 16 times of 20."""
    draws = np.random.default_rng(0).standard_normal((4000, 3))
    held = np.mean([abs(mean) <= half for mean, half in map(mean_ci95, draws)])
    assert held == pytest.approx(0.95, abs=0.01)


def test_pairing_is_by_episode() -> None:
    """Two learners that differ by ¼ in every episode differ by ¼ ± 0, however much the episodes differ."""
    first = np.array([0.9, 0.2, 0.6])
    assert list(mean_ci95(first - (first - 0.25))) == pytest.approx([0.25, 0], abs=1e-12)


def test_scipy_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, distmeta.cli, distmeta.report.statistics; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
