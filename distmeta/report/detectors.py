"""Finds in a run's figures what commonly goes wrong in meta-training. Pure functions; each threshold is stated.

A detector takes figures and returns a finding or None. `detect` runs all of them, and names those that lack figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from distmeta.report.statistics import SAME
from distmeta.types import Score

GAP = 0.15  # memorised: share by which meta-training is ahead of meta-validation, beyond the interval
ABOVE_CHANCE = 0.05  # a label leaks: share above chance before any adaptation, beyond the interval
PERFECT = 0.995  # a label leaks: share of right answers on new tasks
LAST = 0.1  # the share of a run's last steps over which meta-training is averaged; at least ten of them
ACCURACY = "accuracy"


class Finding(NamedTuple):
    """What a detector found, and what to do about it."""

    name: str
    found: str
    remedy: str


class Curve(NamedTuple):
    """Mean scores on new tasks after 0, 1, 2, … inner steps, and the half-widths of their 95 % intervals.

    Two differences are paired by task: their half-widths are `gain_half`, of last and first, and `fall_half`, of best
    and last.
    """

    means: Sequence[float]
    halves: Sequence[float]
    gain_half: float
    fall_half: float
    steps: int  # how many steps were asked for; a curve that ends earlier has diverged
    inner_steps: int  # of meta-training
    starts_from_support: bool  # whether the learner knows something of a task before its first step


@dataclass(frozen=True)
class Evidence:
    """A run's figures. What a run lacks is None or empty, and its detectors are named as not run."""

    score: Score
    curve: Curve | None = None
    chance: float | None = None  # the score of guessing at the curve's tasks
    train: Sequence[tuple[int, float]] = ()  # the score in meta-training by outer step
    validation: Sequence[tuple[int, float, float]] = ()  # outer step, the score in meta-validation, half-width
    same_shape: bool = True  # whether both are of episodes of one shape
    label_shuffle: bool = True  # whether labels have another meaning in each episode of meta-training
    test: Sequence[Mapping[str, Any]] = ()  # rows of evaluation.json
    meaningless_labels: bool = True  # whether labels have another meaning in each episode of evaluation
    pretrained: bool = False  # whether meta-training changes an encoder that knew something before
    curve_score: Score | None = None  # if it is another than `score`, which is of several families


def nothing_is_adapted(curve: Curve, score: Score) -> Finding | None:
    """The last step's score equals that before the first step: 0 is in the interval of their paired difference.

    A curve that rises and falls again is another finding.
    """
    first, last = curve.means[0], curve.means[-1]
    if len(curve.means) < 2 or abs(last - first) > curve.gain_half or inner_rate_diverges(curve, score):
        return None
    figures = f"{_show(score, first)} before the first inner step, {_show(score, last)} after {len(curve.means) - 1}"
    if curve.starts_from_support:
        remedy = "if the inner steps are to do more than the start from prototypes, raise inner.lr or inner.steps, "
        remedy += "or widen inner.adapt; else set inner.steps=1, which is faster"
        return Finding("inner steps change nothing", figures, remedy)
    return Finding("nothing is adapted", figures, "raise inner.lr or inner.steps, and check inner.adapt")


def inner_rate_diverges(curve: Curve, score: Score) -> Finding | None:
    """The score falls below its best, beyond their paired interval, or the curve ends early: tasks diverge."""
    values = [score.sign * mean for mean in curve.means]
    best = max(range(len(values)), key=values.__getitem__)
    fall = values[best] - values[-1]
    ends = f"after {len(values) - 1} inner steps"
    if len(values) <= curve.steps:
        found = f"a task's figures are no longer finite {ends}"
    elif fall > curve.fall_half:
        best_shown, last_shown = _show(score, curve.means[best]), _show(score, curve.means[-1])
        found = f"{score.name} is best after {best} inner steps ({best_shown}) and {last_shown} {ends}"
        if best >= curve.inner_steps:
            return Finding("longer adaptation hurts", found, f"do not adapt for more than {max(best, 1)} steps")
    else:
        return None
    return Finding("the inner rate diverges", found, "lower inner.lr or inner.steps, or set inner.clip_norm")


def tasks_are_memorised(
    train: Sequence[tuple[int, float]], validation: Sequence[tuple[int, float, float]], score: Score
) -> Finding | None:
    """Meta-training ends more than `GAP` (a share), beyond the interval, ahead of the last meta-validation."""
    last = train[-max(10, round(LAST * len(train))) :]
    reached = sum(value for _, value in last) / len(last)
    _, value, half = validation[-1]
    if not score.is_share or score.sign * (reached - value) - half <= GAP:
        return None
    found = f"{score.name} is {_show(score, reached)} on tasks of meta-training, {_show(score, value)} on new ones"
    remedy = "use more classes or episodes.label_mixing, a smaller model or model.dropout, or fewer outer.steps"
    return Finding("tasks are memorised", found, remedy)


def labels_are_fixed(label_shuffle: bool) -> Finding | None:
    """A class has the same label in all episodes of meta-training: a task can be solved without its support set."""
    if label_shuffle:
        return None
    found = "episodes.label_shuffle is false: a label means the same in all episodes, so the support set can be ignored"
    return Finding("tasks can be memorised", found, "set episodes.label_shuffle=true and train again")


def a_label_leaks(curve: Curve, chance: float, score: Score) -> Finding | None:
    """Before any adaptation the score is above chance by more than `ABOVE_CHANCE`, beyond the interval."""
    first, half = curve.means[0], curve.halves[0]
    if curve.starts_from_support or first - half <= chance + ABOVE_CHANCE:
        return None
    found = f"{score.name} is {_show(score, first)} before any adaptation, where guessing gives {_show(score, chance)}"
    remedy = "look for the label in the texts, such as a name or a code, and take it out"
    return Finding("a label leaks", found, remedy)


def too_good(rows: Sequence[Mapping[str, Any]]) -> Finding | None:
    """Meta-test has a share of right answers of `PERFECT` or more."""
    for row in rows:
        score = Score(**row["score"])
        if score.is_share and score.higher_is_better and row[score.name] >= PERFECT:
            found = f"{row['title']}: {score.name} is {_show(score, row[score.name])} on new tasks"
            remedy = "look for the label in the texts and for copies of texts; if there are none, the tasks are easy"
            return Finding("a label may leak", found, remedy)
    return None


def validation_falls(validation: Sequence[tuple[int, float, float]], score: Score) -> Finding | None:
    """The last meta-validation is below an earlier one by more than both intervals together (root of squares)."""
    best = max(validation, key=lambda point: score.sign * point[1])
    last = validation[-1]
    if score.sign * (best[1] - last[1]) <= math.hypot(best[2], last[2]):
        return None
    found = f"meta-validation is best at outer step {best[0]} ({_show(score, best[1])}) "
    found += f"and {_show(score, last[1])} at step {last[0]}"
    remedy = "lower outer.lr or outer.steps, set outer.clip_norm, or freeze lower layers with model.freeze"
    return Finding("what was learned is overwritten", found, remedy)


def worse_than_before(rows: Sequence[Mapping[str, Any]], pretrained: bool) -> Finding | None:
    """On meta-test a learner without meta-training is ahead: the paired difference is below 0, beyond its interval.

    If it is the same learner, whose row comes first, and meta-training started from an encoder, that was overwritten.
    """
    for row in rows:
        score = Score(**row["score"])
        for number, base in enumerate(row["baselines"]):
            if base.get("difference") is None or base["name"].startswith(SAME):
                continue
            if score.sign * base["difference"] + base["difference_ci95"] < 0:
                shown = score.format(base["difference"], base["difference_ci95"], "+") + score.unit
                found = f"{row['title']}: {shown} against {base['name']}"
                if pretrained and not number:
                    remedy = "lower outer.lr, or freeze more of the encoder with model.freeze"
                    return Finding("the encoder is overwritten", found, remedy)
                remedy = "lower outer.lr, train for more outer.steps, or meta-train on tasks more like these"
                return Finding("meta-training does not pay", found, remedy)
    return None


def detect(evidence: Evidence) -> tuple[list[Finding], list[str]]:
    """The findings, and what could not be looked for, with the reason."""
    its, score, of_curve = evidence, evidence.score, evidence.curve_score or evidence.score
    curve, both = its.curve, bool(its.train) and bool(its.validation)
    leak = curve is not None and its.chance is not None and its.meaningless_labels
    no_curve = "" if curve else "there is no adaptation curve"
    no_leak = "" if leak else no_curve or "labels mean the same in all tasks, or guessing has no known score"
    no_memory = "" if both and its.same_shape else "meta-training and meta-validation were not recorded on like tasks"
    looked: list[tuple[str, str, Callable[[], Finding | None]]] = [
        ("a label that leaks", no_leak, lambda: curve and a_label_leaks(curve, its.chance or 0.0, of_curve)),
        ("results that are too good", "" if its.test else "meta-test was not run", lambda: too_good(its.test)),
        ("adaptation that does nothing", no_curve, lambda: curve and nothing_is_adapted(curve, of_curve)),
        ("an inner rate that diverges", no_curve, lambda: curve and inner_rate_diverges(curve, of_curve)),
        ("memorised tasks", no_memory, lambda: tasks_are_memorised(its.train, its.validation, score)),
        ("labels that do not change", "", lambda: labels_are_fixed(its.label_shuffle)),
        (
            "learning that is overwritten",
            "" if len(its.validation) > 1 else "there are fewer than two meta-validations",
            lambda: validation_falls(its.validation, score),
        ),
        (
            "an encoder that was better before",
            "" if its.test else "meta-test was not run",
            lambda: worse_than_before(its.test, its.pretrained),
        ),
    ]
    findings = [finding for _, reason, look in looked if not reason and (finding := look())]
    return findings, [f"{what} ({reason})" for what, reason, _ in looked if reason]


def _show(score: Score, value: float) -> str:
    return score.show(value) + score.unit
