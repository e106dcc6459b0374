"""Figures of a run, drawn with matplotlib's object interface: no window, no global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distmeta.types import Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def adaptation_curve(
    steps: Sequence[int],
    rows: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    score: Score,
    path: str | Path,
) -> Figure:
    """Draws the mean score on new tasks after 0, 1, 2, … inner steps, with 95 % bands, as a PNG.

    Args:
        steps: (K,) numbers of inner steps.
        rows: for each label of the legend, (K,) mean scores and (K,) half widths of their 95 % intervals.
        score: what they are; shares of 1 are drawn in %.
        path: the PNG file.

    Returns:
        The figure that was written.

    Raises:
        ValueError: a row that is not as long as `steps`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    scale = 100 if score.is_share else 1
    for label, (means, halves) in rows.items():
        triples = zip(steps, means, halves, strict=True)
        points = [(step, scale * mean, scale * (mean - half), scale * (mean + half)) for step, mean, half in triples]
        x, middle, lower, upper = zip(*points, strict=True)
        (line,) = axes.plot(x, middle, marker="o", markersize=3, label=label)
        axes.fill_between(x, lower, upper, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set_xlabel("inner steps")
    axes.set_ylabel(f"{score.name}{score.unit and ' in %'} on new tasks (band: 95 % interval)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    FigureCanvasAgg(figure).print_png(str(path))
    return figure
