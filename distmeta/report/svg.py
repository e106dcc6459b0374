"""Charts as inline SVG: no script, no font, no colour of their own, so that a page's style sets all of them.

A series has the class `s0`, `s1`, …; a page gives each a colour for light, dark and print. Texts are escaped.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from distmeta.errors import printable, shortened

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 340, 68, 18, 14, 56
SERIES = 6  # styles that a page has; a further series begins again
POINTS = 200  # drawn of a series; longer ones are averaged
TICKS = 5
LETTERS = 60  # of a label


class Line(NamedTuple):
    """A series of points, with the half-widths of their intervals if there are any."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    halves: Sequence[float] | None = None


def thinned(line: Line, most: int = POINTS) -> Line:
    """A series of at most `most` points: means over equal parts, each at its middle."""
    if len(line.xs) <= most:
        return line
    edges = [round(number * len(line.xs) / most) for number in range(most + 1)]

    def means(values: Sequence[float]) -> list[float]:
        parts = (values[start:end] for start, end in itertools.pairwise(edges))
        return [sum(part) / len(part) for part in parts]

    return Line(line.label, means(line.xs), means(line.ys), line.halves and means(line.halves))


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """About five round numbers from `low` to `high`, or fewer `whole` ones."""
    if high <= low:
        return [low]
    raw = max((high - low) / TICKS, 1 if whole else 0)
    power: float = 10.0 ** math.floor(math.log10(raw))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def lines(
    given: Sequence[Line],
    title: str,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    diagonal: bool = False,
) -> str:
    """A line chart with bands for intervals, and markers where there are few points.

    Numbers that are not finite are left out. Without a range, it is that of the numbers.
    """
    drawn = [_finite(thinned(line)) for line in given]
    xs = [x for line in drawn for x in line.xs] or [0.0]
    ys = [y for line in drawn for y in line.ys] + [
        y + sign * half
        for line in drawn
        for y, half in zip(line.ys, line.halves or (), strict=False)
        for sign in (-1, 1)
    ]
    left, right = x_range or (min(xs), max(xs))
    low, high = y_range or _padded(min(ys or [0.0]), max(ys or [0.0]))
    frame = _Frame(left, right, low, high)
    parts = [frame.axes(x_label, y_label, whole=all(x == round(x) for x in xs))]
    if diagonal:
        ends = [frame.at(max(left, low), max(left, low)), frame.at(min(right, high), min(right, high))]
        parts.append(f'<path class="ideal" d="{_path(ends)}"/>')
    for number, line in enumerate(drawn):
        parts.append(_series(line, number % SERIES, frame))
    return _figure(title, "".join(parts), [line.label for line in given])


def bars(labels: Sequence[str], values: Sequence[float], title: str, x_label: str, y_label: str) -> str:
    """A bar chart of whole numbers."""
    frame = _Frame(0, max(1, len(values)), 0, max([*values, 1]) * 1.05)
    width = (WIDTH - LEFT - RIGHT) / max(1, len(values))
    parts = [frame.axes(x_label, y_label, x_ticks=False)]
    every = max(1, math.ceil(len(labels) / 11))
    for number, (label, value) in enumerate(zip(labels, values, strict=True)):
        x, y = frame.at(number, value)
        height = HEIGHT - BOTTOM - y
        parts.append(
            f'<rect class="s0" x="{x + 1:.1f}" y="{y:.1f}" width="{max(1, width - 2):.1f}" height="{height:.1f}"/>'
        )
        if number % every == 0:
            parts.append(_text(x + width / 2, HEIGHT - BOTTOM + 20, label, "middle"))
    return _figure(title, "".join(parts), [])


class _Frame(NamedTuple):
    """The ranges of both axes."""

    left: float
    right: float
    low: float
    high: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point is drawn."""
        across = (x - self.left) / ((self.right - self.left) or 1)
        up = (y - self.low) / ((self.high - self.low) or 1)
        up = min(1.0, max(0.0, up))
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def axes(self, x_label: str, y_label: str, x_ticks: bool = True, whole: bool = False) -> str:
        """Grid lines with their numbers, `whole` ones on the x axis if it has only such, and both labels."""
        parts = []
        for value in ticks(self.low, self.high):
            _, y = self.at(self.left, value)
            parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
            parts.append(_text(LEFT - 6, y + 4, number(value), "end"))
        for value in ticks(self.left, self.right, whole) if x_ticks else ():
            x, _ = self.at(value, self.low)
            parts.append(f'<path class="grid" d="M{x:.1f} {HEIGHT - BOTTOM}v5"/>')
            parts.append(_text(x, HEIGHT - BOTTOM + 20, number(value), "middle"))
        parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
        parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, "middle"))
        middle = (TOP + HEIGHT - BOTTOM) / 2
        turned = f'transform="rotate(-90 16 {middle:.0f})"'
        return "".join(parts) + _text(16, middle, y_label, "middle", turned)


def number(value: float) -> str:
    """A number as short text, such as 1200, 0.25 or 3e-05."""
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e6 else f"{value:.3g}"


def _series(line: Line, style: int, frame: _Frame) -> str:
    points = [frame.at(x, y) for x, y in zip(line.xs, line.ys, strict=True)]
    parts = []
    if line.halves and len(points) > 1:
        upper = [frame.at(x, y + half) for x, y, half in zip(line.xs, line.ys, line.halves, strict=True)]
        lower = [frame.at(x, y - half) for x, y, half in zip(line.xs, line.ys, line.halves, strict=True)]
        parts.append(f'<path class="band s{style}" d="{_path([*upper, *reversed(lower)])}Z"/>')
    elif line.halves and points:
        ((x, _),) = points
        high, low = (frame.at(0, line.ys[0] + sign * line.halves[0])[1] for sign in (1, -1))
        parts.append(f'<path class="line s{style}" d="M{x:.1f} {high:.1f}V{low:.1f}"/>')
    if points:
        parts.append(f'<path class="line s{style}" d="{_path(points)}"/>')
    if len(points) <= 24:
        parts += [f'<circle class="s{style}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points]
    return "".join(parts)


def _finite(line: Line) -> Line:
    halves = line.halves or [0.0] * len(line.xs)
    kept = [values for values in zip(line.xs, line.ys, halves, strict=True) if all(map(math.isfinite, values))]
    xs, ys, kept_halves = zip(*kept, strict=True) if kept else ((), (), ())
    return Line(line.label, xs, ys, kept_halves if line.halves is not None else None)


def _padded(low: float, high: float) -> tuple[float, float]:
    room = 0.05 * (high - low) or 0.5 * abs(high) or 1.0
    return low - room, high + room


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    shown = escape(shortened(printable(text), LETTERS))
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{shown}</text>'


def _figure(title: str, content: str, labels: Sequence[str]) -> str:
    """The drawing, with a name for those who do not see it, and the key of its series below."""
    name = escape(printable(title))
    keys = "".join(
        f'<li><svg class="key" viewBox="0 0 26 8" aria-hidden="true"><path class="line s{n % SERIES}" d="M1 4H25"/>'
        f"</svg>{escape(shortened(printable(label), LETTERS))}</li>"
        for n, label in enumerate(labels)
    )
    key = f'<ul class="keys">{keys}</ul>' if len(labels) > 1 else ""
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{content}</svg>{key}'
