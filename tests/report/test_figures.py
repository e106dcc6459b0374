from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distmeta.report.figures import adaptation_curve
from distmeta.types import Score

ACCURACY = Score("accuracy", is_share=True, higher_is_better=True)


def drawn(path: Path) -> Any:
    rows = {"5-shot": ([0.2, 0.5, 0.75], [0.02, 0.05, 0.1]), "1-shot": ([0.2, 0.3, 0.4], [0.0, 0.0, 0.0])}
    return adaptation_curve([0, 1, 2], rows, ACCURACY, path).axes[0]


def test_curve_is_in_percent_with_its_95_percent_band(tmp_path: Path) -> None:
    axes = drawn(tmp_path / "curve.png")
    line, other = axes.lines
    assert line.get_xydata().tolist() == [[0, 20], [1, 50], [2, 75]]
    np.testing.assert_allclose(other.get_ydata(), [20, 30, 40])
    outline = axes.collections[0].get_paths()[0].vertices
    at_two = outline[outline[:, 0] == 2][:, 1]
    np.testing.assert_allclose([at_two.min(), at_two.max()], [65, 85])  # 75 ± 10


def test_curve_names_its_axes_and_rows(tmp_path: Path) -> None:
    axes = drawn(tmp_path / "curve.png")
    assert axes.get_xlabel() == "inner steps"
    assert "%" in axes.get_ylabel()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["5-shot", "1-shot"]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_row_of_another_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zip"):
        adaptation_curve([0, 1], {"a": ([0.1, 0.2, 0.3], [0.0, 0.0, 0.0])}, ACCURACY, tmp_path / "curve.png")


def test_a_row_may_end_early(tmp_path: Path) -> None:
    rows = {"whole": ([0.1, 0.2, 0.3], [0.0, 0.0, 0.0]), "short": ([0.1, 0.2], [0.0, 0.0])}
    axes: Any = adaptation_curve(range(3), rows, ACCURACY, tmp_path / "curve.png").axes[0]
    assert [line.get_xdata().tolist() for line in axes.lines] == [[0, 1, 2], [0, 1]]
