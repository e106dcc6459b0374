"""Calibration, abstention and the recognition of what belongs to no class, against what is known or counted by hand."""

import numpy as np
import pytest

from distmeta.report.certainty import (
    ALWAYS,
    auroc,
    calibration_error,
    certainty,
    fit_temperature,
    nearest,
    threshold,
)


def _softmax(logits: np.ndarray) -> np.ndarray:
    shares: np.ndarray = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return shares


def test_the_temperature_is_the_one_that_answers_were_drawn_with() -> None:
    chance = np.random.default_rng(0)
    logits = chance.normal(size=(20_000, 4)) * 2
    targets = (_softmax(logits).cumsum(1) > chance.random((20_000, 1))).argmax(1)
    for factor in (0.2, 1.0, 5.0):
        assert fit_temperature(logits * factor, targets) == pytest.approx(factor, rel=0.03)


def test_no_temperature_near_it_is_better() -> None:
    chance = np.random.default_rng(1)
    logits, targets = chance.normal(size=(50, 3)), chance.integers(3, size=50)
    best = fit_temperature(logits, targets)

    def loss(temperature: float) -> float:
        return -float(np.log(_softmax(logits / temperature)[np.arange(50), targets]).mean())

    assert loss(best) <= min(loss(best * 0.98), loss(best * 1.02))


def test_certainty_is_the_largest_probability() -> None:
    logits = np.array([[0.0, np.log(3.0)], [800.0, 0.0]])
    assert certainty(logits, 1.0) == pytest.approx([0.75, 1.0])
    assert certainty(logits, 2.0)[0] == pytest.approx(3**0.5 / (1 + 3**0.5))


def test_the_calibration_error_is_counted_by_hand() -> None:
    """Bins of 1/15: 0.50 and 0.52 share one, where one of two is right; 0.9 is alone and right."""
    found = calibration_error(np.array([0.50, 0.52, 0.9]), np.array([True, False, True]))
    assert found == pytest.approx((abs(1.02 - 1) + 0.1) / 3)
    assert calibration_error(np.array([1.0]), np.array([True])) == 0


def test_auroc_counts_pairs() -> None:
    inside, outside = np.array([0.9, 0.5, 0.5]), np.array([0.5, 0.1])
    pairs = [float(i > o) + 0.5 * float(i == o) for i in inside for o in outside]
    assert auroc(inside, outside) == pytest.approx(np.mean(pairs))


def test_the_threshold_is_the_lowest_that_keeps_the_share() -> None:
    sure = np.array([0.9, 0.8, 0.7, 0.7, 0.6, 0.5])
    right = np.array([True, True, True, False, True, False])
    assert threshold(sure, right, 0.2) == 0.6  # one of five
    assert threshold(sure, right, 0.5) == 0.5  # all
    assert threshold(sure, right, 0.1) == 0.8  # answers of 0.7 are given together, and one of four is too many
    assert threshold(sure, ~right, 0.1) == ALWAYS  # the surest is wrong
    assert threshold(np.ones(3), np.array([True, False, True]), 0.1) == ALWAYS


def test_the_nearest_shape_goes_by_ratios() -> None:
    known = [{"shape": {"ways": 5, "shots": shots, "queries": 9}} for shots in (1, 5, 20)]
    for shots, expected in ((1.4, 1), (2.4, 1), (2.6, 5), (9, 5), (11, 20)):
        found = nearest({"ways": 8, "shots": shots}, known)
        assert found is not None
        assert found["shape"]["shots"] == expected
    known.append({"shape": {"ways": 5, "shots": 5, "queries": 9, "unlabelled": 10}})
    for more, closest in ((2, None), (3, 10)):
        found = nearest({"ways": 5, "shots": 5, "unlabelled": more}, known)
        assert found is not None
        assert found["shape"].get("unlabelled") == closest
    assert nearest({"ways": 8, "shots": 1.0}, []) is None
