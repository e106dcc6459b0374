"""What single answers say, counted by hand."""

from typing import Any

import pytest

from distmeta.report.answers import Outside, Pair, alike, by_class, outside, reliability

FIRST: dict[str, Any] = {
    "classes": ["a", "b"],
    "targets": [0, 0, 1, 1, -1],
    "answers": [0, 1, 1, 1, 0],
    "certainties": [0.95, 0.65, 0.95, 0.85, 0.55],
    "raw": [1.0, 1.0, 1.0, 1.0, 1.0],
}
SECOND = {**FIRST, "classes": ["b", "c"], "answers": [0, 0, 0, 0, 0], "targets": [0, 0, 1, 1, 0]}


def test_classes_are_listed_hardest_first() -> None:
    found = by_class([FIRST, SECOND])
    assert [tuple(row) for row in found] == [("c", 2, 0.0, "b", 2), ("a", 2, 0.5, "b", 1), ("b", 5, 1.0, None, 0)]


def test_similarity_is_the_share_that_was_confused() -> None:
    """a and b meet once, with 4 queries, of which one is taken for the other class; b and c with 5, of which two."""
    assert alike([FIRST, SECOND]) == [Pair("b", "c", 1, 5, 0.4), Pair("a", "b", 1, 4, 0.25)]
    assert alike([]) == []


def test_reliability_by_bins() -> None:
    assert reliability([FIRST], "raw") == [(1.0, 0.75, 4)]
    found = reliability([FIRST], "certainties")
    assert found == [(0.65, 0.0, 1), (0.85, 1.0, 1), (pytest.approx(0.95), 1.0, 2)]
    assert reliability([], "raw") == []


def test_the_curve_of_texts_of_no_class() -> None:
    found = outside([FIRST])
    assert isinstance(found, Outside)
    assert found.auroc == 1.0
    assert (found.answered[-1], found.accepted[-1]) == (1.0, 1.0), "at the lowest threshold all is answered"
    assert found.thresholds == sorted(found.thresholds, reverse=True)
    assert outside([SECOND]) is None
    assert outside([]) is None
