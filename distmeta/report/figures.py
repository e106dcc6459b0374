"""Figures of a run, drawn with matplotlib's object interface: no window, no global state."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distmeta.errors import printable, shortened
from distmeta.types import Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(
    x_label: str, y_label: str = "", width: float = 6, height: float = 4, integers: bool = True
) -> tuple[Figure, Axes]:
    """A figure and its axes.

    Args:
        x_label: label of the x axis.
        y_label: label of the y axis.
        width: inches.
        height: inches.
        integers: whether x has only integers.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if integers:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, axes


def save(figure: Figure, path: str | Path, **options: Any) -> None:
    """Writes a figure as a PNG. Its texts are drawn as they are, without mathematics."""
    import matplotlib
    from matplotlib.text import Text

    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # an empty box is drawn instead
        for text in figure.findobj(Text):
            text.set_parse_math(False)
        figure.savefig(path, format="png", **options)


def attempt(note: Callable[[str], None], draw: Callable[[], Iterable[Path]]) -> list[Path]:
    """The paths of what `draw` draws. A figure that fails does not cost a run its results: `note` is told why."""
    drawn: list[Path] = []
    try:
        drawn.extend(draw())
    except Exception as error:
        note(f"a figure was not drawn ({type(error).__name__}: {error})")
    return drawn


def adaptation_curve(
    steps: Sequence[int],
    rows: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    score: Score,
    path: str | Path,
) -> Figure:
    """Draws the mean score on new tasks after 0, 1, 2, … inner steps, with 95 % bands, as a PNG.

    Args:
        steps: (K,) numbers of inner steps.
        rows: by legend label, K or fewer mean scores, and the half-widths of their 95 % intervals.
        score: the kind of score. Shares of 1 are drawn in %.
        path: the PNG file.

    Returns:
        The figure that was written.

    Raises:
        ValueError: a row is longer than `steps`, or its numbers of means and half-widths differ.
    """
    figure, axes = new_figure("inner steps", f"{score.name}{score.unit and ' in %'} on new tasks (band: 95 % interval)")
    scale = 100 if score.is_share else 1
    for label, (means, halves) in rows.items():
        triples = zip(steps[: len(means)], means, halves, strict=True)
        points = [(step, scale * mean, scale * (mean - half), scale * (mean + half)) for step, mean, half in triples]
        x, middle, lower, upper = zip(*points, strict=True)
        (line,) = axes.plot(x, middle, marker="o", markersize=3, label=label)
        axes.fill_between(x, lower, upper, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, path)
    return figure


def staleness(counts: Mapping[int, int], path: str | Path) -> Figure:
    """Draws the number of units by the age of their gradients, in versions, as a PNG.

    Args:
        counts: units by age.
        path: the PNG file.

    Returns:
        The figure that was written.
    """
    figure, axes = new_figure("staleness (versions)", "units")
    total = sum(counts.values())
    bars = axes.bar(list(counts), list(counts.values()))
    axes.bar_label(bars, [f"{100 * count / total:.0f} %" for count in counts.values()])
    save(figure, path)
    return figure


def task_graph(titles: Sequence[str], edges: Sequence[tuple[int, int, float]], path: str | Path) -> Figure:
    """Draws rounds from left to right, one row a task, with lines to the earlier rounds that each round uses, as a PNG.

    Args:
        titles: the task of each round.
        edges: round, earlier round, weight up to 1. The weight sets the line's width.
        path: the PNG file.

    Returns:
        The figure that was written.
    """
    lines = list(dict.fromkeys(titles))
    heights = [lines.index(title) for title in titles]
    figure, axes = new_figure(
        "round (line: similarity to an earlier one, by weight)", width=7, height=1.5 + 0.3 * len(lines)
    )
    for later, earlier, weight in edges:
        ends = [later, earlier], [heights[later], heights[earlier]]
        axes.plot(*ends, color="tab:blue", linewidth=0.3 + 3 * weight, alpha=0.5, zorder=1)
    axes.scatter(range(len(titles)), heights, color="black", s=25, zorder=2)
    axes.set_yticks(range(len(lines)), [shortened(printable(line), 40) for line in lines])
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
    save(figure, path)
    return figure
