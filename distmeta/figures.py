"""Figures of a run, drawn with matplotlib's object interface: no window, no global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def adaptation_curve(
    steps: Sequence[int], rows: Mapping[str, tuple[Sequence[float], Sequence[float]]], path: str | Path
) -> Figure:
    """Draws the mean accuracy on new tasks after 0, 1, 2, … inner steps, with 95 % bands, as a PNG.

    Args:
        steps: (K,) numbers of inner steps.
        rows: for each label of the legend, (K,) mean accuracies and (K,) half widths of their 95 % intervals,
            as fractions of 1.
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
    for label, (means, halves) in rows.items():
        triples = zip(steps, means, halves, strict=True)
        points = [(step, 100 * mean, 100 * (mean - half), 100 * (mean + half)) for step, mean, half in triples]
        x, middle, lower, upper = zip(*points, strict=True)
        (line,) = axes.plot(x, middle, marker="o", markersize=3, label=label)
        axes.fill_between(x, lower, upper, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set_xlabel("inner steps")
    axes.set_ylabel("accuracy on new tasks in % (band: 95 % interval)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    FigureCanvasAgg(figure).print_png(str(path))
    return figure
