"""What a report on a run is made from, and what its detectors look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from distmeta.config import RunConfig
from distmeta.report.detectors import ACCURACY, Curve, Evidence
from distmeta.types import Score


class Read(NamedTuple):
    """What was read, or a sentence that says why it is missing."""

    content: Any = None
    missing: str = ""

    def __bool__(self) -> bool:
        return not self.missing


@dataclass(frozen=True)
class RunFigures:
    """All that is known of a run.

    `evaluation`, `answers`, `curve` and `learner` hold the files evaluation.json, answers.json, adaptation_curve.json
    and learner/learner.json, `scores` those of `distmeta.report.scores.read`, `manifests` the manifests by title, and
    `metrics` steps and values from MLflow by name.
    """

    name: str
    config: RunConfig
    settings: Mapping[str, str]  # flat, without credentials
    run: Mapping[str, Any]
    evaluation: Read
    scores: Read
    manifests: Mapping[str, Any]
    answers: Read
    curve: Read
    learner: Read
    metrics: Read

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of meta-test without the mean over families; empty if there are none."""
        return [row for row in self.evaluation.content["meta_test"] if row["shape"]] if self.evaluation else []

    @property
    def score(self) -> Score:
        """That of meta-validation: of the last row of meta-test, which is the mean of several families.

        Without meta-test, that of the curve, or accuracy.
        """
        tested = self.evaluation.content["meta_test"][-1:] if self.evaluation else []
        for found in (*tested, *([self.curve.content] if self.curve else [])):
            return Score(**found["score"])
        return Score(ACCURACY, is_share=True, higher_is_better=True)

    @property
    def scores_by_name(self) -> dict[str, Score]:
        """The score of the run, and those of its families."""
        return {score.name: score for score in (*(Score(**row["score"]) for row in self.rows), self.score)}

    @property
    def trains_body(self) -> bool:
        """Whether a parameter of the body is among the meta-parameters, as far as is known."""
        return bool(self.learner) and any(name.startswith("body.") for name in self.learner.content["meta_params"])

    def history(self, name: str) -> list[tuple[int, float]]:
        """The values of a metric; empty if it was not recorded."""
        return list(self.metrics.content.get(name, [])) if self.metrics else []


def evidence(its: RunFigures) -> Evidence:
    """A run's figures as detectors take them."""
    config, score = its.config, its.score
    curve, chance, curve_score = None, None, None
    if its.curve and (means := _first(its.curve.content["learners"])):
        about = its.curve.content
        curve = Curve(**means, **{name: about[name] for name in ("steps", "inner_steps", "starts_from_support")})
        curve_score = Score(**about["score"])
        ways = about["shape"].get("ways")
        chance = 1 / ways if ways and about["score"]["name"] == ACCURACY else None
    halves = dict(its.history(f"meta_validation/{score.name}_ci95"))
    validated = its.history(f"meta_validation/{score.name}")
    families = config.families.values()
    return Evidence(
        score=score,
        curve=curve,
        curve_score=curve_score,
        chance=chance,
        train=its.history(f"meta_train/{score.name}"),
        validation=[(step, value, halves.get(step, 0.0)) for step, value in validated],
        same_shape=(config.episodes.ways, config.episodes.shots) == (config.evaluation_ways, config.validation_shots),
        label_shuffle=all(family.episodes.label_shuffle for family in families),
        test=its.rows,
        meaningless_labels=all(family.data.task is None for family in families),
        pretrained=config.model.path is not None and its.trains_body,
    )


def _first(learners: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The curve of the meta-trained learner, which comes first; None if it diverged at once."""
    name = next(iter(learners), "")
    return learners[name] if name and not name.endswith("not meta-trained") else None
