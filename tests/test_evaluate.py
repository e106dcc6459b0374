import numpy as np
import pytest

from distmeta.evaluate import mean_ci95, table_rows
from distmeta.types import Score


def test_the_interval_is_196_standard_errors() -> None:
    """0, 1, 1, 0: mean ½, sample variance ⅓, standard error √(⅓ / 4)."""
    mean, half = mean_ci95(np.array([0.0, 1.0, 1.0, 0.0]))
    assert mean == 0.5
    assert half == pytest.approx(1.96 * (1 / 12) ** 0.5)


def test_pairing_is_by_episode() -> None:
    """Two learners that differ by ¼ in every episode differ by ¼ ± 0, however much the episodes differ."""
    first = np.array([0.9, 0.2, 0.6])
    assert list(mean_ci95(first - (first - 0.25))) == pytest.approx([0.25, 0], abs=1e-12)


def test_the_table_is_in_percent() -> None:
    base = {"name": "b", "accuracy": 0.5, "ci95": 0.01, "difference": 0.25, "difference_ci95": 0.021}
    row = {"ways": 5, "shots": 1, "name": "a", "accuracy": 0.75, "ci95": 0.0123, "baselines": [base]}
    assert table_rows([row], Score("accuracy", is_share=True, higher_is_better=True)) == [
        ("5-way 1-shot", "a", "75.0 ± 1.2", ""),
        ("5-way 1-shot", "b", "50.0 ± 1.0", "+25.0 ± 2.1"),
    ]
