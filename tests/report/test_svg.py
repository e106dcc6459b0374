"""Charts: escaped, finite, and readable without their colours."""

import xml.etree.ElementTree as ET

import pytest

from distmeta.report.svg import Line, bars, lines, thinned, ticks

HOSTILE = "<script>alert(1)</script> \"'&{{7*7}}\n\x1b[0m"


def parsed(drawing: str) -> ET.Element:
    return ET.fromstring(f"<all>{drawing}</all>")


def test_texts_are_data() -> None:
    for drawing in (
        lines([Line(HOSTILE, [1, 2], [1, 2]), Line("b", [1], [2], [0.5])], HOSTILE, HOSTILE, HOSTILE),
        bars([HOSTILE], [3], HOSTILE, HOSTILE, HOSTILE),
    ):
        found = parsed(drawing)
        assert "<script" not in drawing
        assert {element.tag for element in found.iter()} <= {
            *("all", "svg", "path", "text", "ul", "li", "rect", "circle")
        }
        label = found.find("svg").get("aria-label")  # type: ignore[union-attr]
        assert label
        assert label.startswith("<script>")


@pytest.mark.parametrize("numbers", [[], [1.0], [float("nan")], [1.0, float("inf"), 1.0], [1e-30, 1e30]])
def test_any_numbers_can_be_drawn(numbers: list[float]) -> None:
    drawing = lines([Line("a", range(len(numbers)), numbers, [0.1] * len(numbers))], "t", "x", "y")
    parsed(drawing)
    assert "nan" not in drawing
    assert "inf" not in drawing


def test_a_point_is_where_it_belongs() -> None:
    """From 68 to 622 across, from 284 at the bottom to 14 at the top."""
    drawing = lines([Line("a", [0, 50, 100], [0, 50, 100])], "t", "x", "y", (0, 100), (0, 100))
    (path,) = (found for found in parsed(drawing).iter("path") if found.get("class") == "line s0")
    assert path.get("d") == "M68.0 284.0L345.0 149.0L622.0 14.0"


def test_long_series_are_means_of_parts() -> None:
    found = thinned(Line("a", range(10), range(10)), 5)
    assert found.xs == found.ys == [0.5, 2.5, 4.5, 6.5, 8.5]


def test_ticks_are_round() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(3, 47) == [10, 20, 30, 40]
    assert ticks(2, 2) == [2]
    assert ticks(1, 5, whole=True) == [1, 2, 3, 4, 5]
    assert ticks(0, 2, whole=True) == [0, 1, 2], "there is no half a step"
