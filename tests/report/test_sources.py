"""What detectors get to see of a run."""

from typing import Any

import pytest

from distmeta.config import DataConfig, EpisodesConfig, EvaluationConfig, ModelConfig, RunConfig
from distmeta.report.sources import Read, RunFigures, evidence

GONE = Read(missing="It is gone.")
SCORE = {"name": "accuracy", "is_share": True, "higher_is_better": True}
LEARNER = {"means": [0.2, 0.5], "halves": [0.1, 0.1], "gain_half": 0.01, "fall_half": 0.0}
CURVE: dict[str, Any] = {
    **{"score": SCORE, "shape": {"ways": 4}, "steps": 1, "inner_steps": 5, "starts_from_support": False},
    "learners": {"maml, meta-trained": LEARNER, "maml, not meta-trained": {**LEARNER, "means": [0.9, 0.9]}},
}
METRICS = {
    "meta_train/accuracy": [(1, 0.3), (2, 0.4)],
    "meta_validation/accuracy": [(2, 0.35)],
    "meta_validation/accuracy_ci95": [(2, 0.05)],
}


def figures(config: RunConfig, **known: Any) -> RunFigures:
    parts = dict.fromkeys(("evaluation", "scores", "answers", "curve", "learner", "metrics"), GONE)
    return RunFigures("a", config, {}, {}, manifests={}, **{**parts, **known})


def test_figures_get_where_they_belong() -> None:
    seen = evidence(figures(RunConfig(), curve=Read(CURVE), metrics=Read(METRICS)))
    assert seen.curve
    assert (seen.curve.means, seen.curve.gain_half, seen.curve.inner_steps) == ([0.2, 0.5], 0.01, 5)
    assert seen.chance == 0.25
    assert seen.train == [(1, 0.3), (2, 0.4)]
    assert seen.validation == [(2, 0.35, 0.05)]
    assert (seen.same_shape, seen.label_shuffle, seen.meaningless_labels, seen.pretrained) == (True, True, True, False)


def test_nothing_is_made_up() -> None:
    seen = evidence(figures(RunConfig()))
    assert (seen.curve, seen.chance, list(seen.train), list(seen.validation), list(seen.test)) == (
        None,
        None,
        [],
        [],
        [],
    )
    diverged = {**CURVE, "learners": {"maml, not meta-trained": LEARNER}}
    assert evidence(figures(RunConfig(), curve=Read(diverged))).curve is None, "another learner's curve is not its own"


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (RunConfig(evaluation=EvaluationConfig(ways=7)), "same_shape"),
        (RunConfig(evaluation=EvaluationConfig(validation_shots=1)), "same_shape"),
        (RunConfig(episodes=EpisodesConfig(label_shuffle=False)), "label_shuffle"),
        (RunConfig(data=DataConfig(task="language")), "meaningless_labels"),
    ],
)
def test_settings_count(config: RunConfig, name: str) -> None:
    assert getattr(evidence(figures(config)), name) is False


def test_an_encoder_is_overwritten_only_if_it_is_trained() -> None:
    config = RunConfig(model=ModelConfig(name="hf", path="encoder"))
    trained, frozen = (Read({"meta_params": names}) for names in (["body.a", "head.b"], ["head.b"]))
    assert evidence(figures(config, learner=trained)).pretrained
    assert not evidence(figures(config, learner=frozen)).pretrained
    assert not evidence(figures(config)).pretrained
    assert not evidence(figures(RunConfig(), learner=trained)).pretrained
