"""Each detector speaks up on made-up figures that are bad, and is silent on like ones that are good."""

from typing import Any

import pytest

from distmeta.report import detectors
from distmeta.report.detectors import Curve, Evidence, detect
from distmeta.types import Score

ACCURACY = Score("accuracy", is_share=True, higher_is_better=True)
MSE = Score("mse", is_share=False, higher_is_better=False)


def curve(means: list[float], half: float = 0.02, asked: int | None = None, **changes: Any) -> Curve:
    plain = Curve(means, [half] * len(means), half, half, len(means) - 1 if asked is None else asked, 5, False)
    return plain._replace(**changes)


def row(value: float, difference: float | None = 0.2, score: Score = ACCURACY) -> dict[str, Any]:
    base = {"name": "not meta-trained", "difference": difference, "difference_ci95": 0.02}
    return {"title": "5-way 1-shot", "score": score._asdict(), score.name: value, "ci95": 0.02, "baselines": [base]}


def test_nothing_is_adapted() -> None:
    found = detectors.nothing_is_adapted(curve([0.20, 0.21, 0.215]), ACCURACY)
    assert found
    assert found.name == "nothing is adapted"
    assert found.found == "20.0 % before the first inner step, 21.5 % after 2"
    assert "inner.lr" in found.remedy
    assert detectors.nothing_is_adapted(curve([0.20, 0.21, 0.23]), ACCURACY) is None
    assert detectors.nothing_is_adapted(curve([0.23, 0.21, 0.20]), ACCURACY) is None, "that is another finding"
    assert detectors.nothing_is_adapted(curve([0.2]), ACCURACY) is None, "no step was taken"
    assert detectors.nothing_is_adapted(curve([0.2, 0.6, 0.2]), ACCURACY) is None, "it adapts, then diverges"
    assert detectors.nothing_is_adapted(curve([0.2, 0.2], asked=9), ACCURACY) is None, "it diverges"
    from_prototypes = detectors.nothing_is_adapted(curve([0.70, 0.70], starts_from_support=True), ACCURACY)
    assert from_prototypes
    assert from_prototypes.name == "inner steps change nothing"


def test_the_inner_rate_diverges() -> None:
    found = detectors.inner_rate_diverges(curve([0.2, 0.6, 0.5]), ACCURACY)
    assert found
    assert found.found == "accuracy is best after 1 inner steps (60.0 %) and 50.0 % after 2 inner steps"
    assert "lower inner.lr" in found.remedy
    assert detectors.inner_rate_diverges(curve([0.2, 0.6, 0.59]), ACCURACY) is None
    assert detectors.inner_rate_diverges(curve([1.0, 0.5, 0.8]), MSE), "a loss that rises"
    assert detectors.inner_rate_diverges(curve([1.0, 0.8, 0.5]), MSE) is None
    ended = detectors.inner_rate_diverges(curve([0.2, 0.6], asked=10), ACCURACY)
    assert ended
    assert ended.found == "a task's figures are no longer finite after 1 inner steps"
    beyond = detectors.inner_rate_diverges(curve([0.2, 0.6, 0.5], inner_steps=1), ACCURACY)
    assert beyond
    assert (beyond.name, beyond.remedy) == ("longer adaptation hurts", "do not adapt for more than 1 steps")


def test_tasks_are_memorised() -> None:
    train = [(step, 0.2 if step < 90 else 0.9) for step in range(100)]
    found = detectors.tasks_are_memorised(train, [(100, 0.70, 0.02)], ACCURACY)
    assert found
    assert found.found == "accuracy is 90.0 % on tasks of meta-training, 70.0 % on new ones"
    assert detectors.tasks_are_memorised(train, [(100, 0.74, 0.02)], ACCURACY) is None, "ahead by 0.16, give or take"
    assert detectors.tasks_are_memorised([(1, 0.1)], [(1, 5.0, 0.1)], MSE) is None, "no share to compare"


def test_labels_that_mean_the_same() -> None:
    assert detectors.labels_are_fixed(False)
    assert detectors.labels_are_fixed(True) is None


def test_a_label_leaks() -> None:
    found = detectors.a_label_leaks(curve([0.30, 0.6]), 0.2, ACCURACY)
    assert found
    assert found.found == "accuracy is 30.0 % before any adaptation, where guessing gives 20.0 %"
    assert detectors.a_label_leaks(curve([0.26, 0.6]), 0.2, ACCURACY) is None
    assert detectors.a_label_leaks(curve([0.7, 0.8], starts_from_support=True), 0.2, ACCURACY) is None


def test_results_too_good_to_be_true() -> None:
    assert detectors.too_good([row(0.9), row(0.996)])
    assert detectors.too_good([row(0.99)]) is None
    assert detectors.too_good([row(2.0, score=MSE)]) is None


def test_meta_validation_falls() -> None:
    found = detectors.validation_falls([(10, 0.6, 0.03), (20, 0.7, 0.03), (30, 0.65, 0.03)], ACCURACY)
    assert found
    assert found.found == "meta-validation is best at outer step 20 (70.0 %) and 65.0 % at step 30"
    assert detectors.validation_falls([(20, 0.7, 0.03), (30, 0.66, 0.03)], ACCURACY) is None, "0.04 < √2 · 0.03"
    assert detectors.validation_falls([(20, 1.0, 0.03), (30, 2.0, 0.03)], MSE)
    assert detectors.validation_falls([(20, 2.0, 0.03), (30, 1.0, 0.03)], MSE) is None


def test_worse_than_before() -> None:
    found = detectors.worse_than_before([row(0.9), row(0.5, -0.03)], pretrained=True)
    assert found
    assert (found.name, found.found) == (
        "the encoder is overwritten",
        "5-way 1-shot: -3.0 ± 2.0 % against not meta-trained",
    )
    scratch = detectors.worse_than_before([row(0.5, -0.03)], pretrained=False)
    assert scratch
    assert scratch.name == "meta-training does not pay"
    assert detectors.worse_than_before([row(0.5, -0.02), row(0.5, None)], True) is None
    other = row(0.5, 0.1)
    other["baselines"].append({"name": "prototypes", "difference": -0.1, "difference_ci95": 0.02})
    simpler = detectors.worse_than_before([other], pretrained=True)
    assert simpler
    assert simpler.name == "meta-training does not pay", "another learner is ahead, which says nothing of the encoder"
    assert detectors.worse_than_before([row(2.0, 0.5, MSE)], True), "a larger error"
    itself = row(0.5, 0.1)
    itself["baselines"].append({"name": "the same on 5-way 1-shot", "difference": -0.1, "difference_ci95": 0.02})
    assert detectors.worse_than_before([itself], pretrained=True) is None, "the same learner is meta-trained too"


def test_all_run_or_say_why_not() -> None:
    findings, unchecked = detect(Evidence(ACCURACY))
    assert findings == []
    assert len(unchecked) == 7
    assert "an inner rate that diverges (there is no adaptation curve)" in unchecked
    train = [(step, 0.95) for step in range(1, 40)]
    bad = Evidence(
        ACCURACY,
        curve([0.5, 0.51]),
        0.2,
        train,
        [(20, 0.7, 0.02), (39, 0.6, 0.02)],
        label_shuffle=False,
        test=[row(1.0, -0.1)],
        pretrained=True,
    )
    findings, unchecked = detect(bad)
    assert unchecked == []
    assert [finding.name for finding in findings] == [
        "a label leaks",
        "a label may leak",
        "nothing is adapted",
        "tasks are memorised",
        "tasks can be memorised",
        "what was learned is overwritten",
        "the encoder is overwritten",
    ]


@pytest.mark.parametrize("change", [{"chance": None}, {"meaningless_labels": False}])
def test_where_labels_keep_their_meaning_none_leaks(change: dict[str, Any]) -> None:
    given = {"chance": 0.2, "curve": curve([0.5, 0.9]), **change}
    assert detect(Evidence(ACCURACY, **given))[0] == []
