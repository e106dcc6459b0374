"""Calibration from meta-validation tasks, and its worth on meta-test tasks, computed again without the engine."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy import evaluated, run, toy_config

import distmeta
from distmeta.errors import DataError
from distmeta.report import certainty
from distmeta.report.progress import Reporter
from distmeta.report.tables import trust_rows
from distmeta.runs import directory
from distmeta.runs import train as driver
from distmeta.runs.experiment import build_experiment
from distmeta.types import Stream

SETTINGS: dict[str, Any] = {"algorithm__name": "protonet", "inner": {}, "evaluation__calibration_episodes": 8}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrated")
    driver.train(toy_config(folder, **SETTINGS), folder / "run", Reporter())
    return folder / "run"


def _answers(run_dir: Path, split: str, shots: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (T, B, N), targets (T, B) and which queries are of other classes (T, B), an episode at a time."""
    learner = distmeta.load(run_dir)
    experiment = build_experiment(directory.read(run_dir, [])[0])
    family: Any = experiment.setup.families["classification"]
    stream: Stream = family.with_outside(evaluated(experiment, "meta_test", shots))
    stream = Stream.of("classification", split, stream.seed, **dict(stream.shape))
    found = []
    for index in range(8):
        episode = family.batch([family.draw(stream, index)])
        outputs = learner.outputs(episode.support, episode.query.inputs)
        found.append((outputs[0], episode.query.targets[0], episode.query.inputs["outside"][0] > 0))
    logits, targets, outside = (torch.stack(part).numpy() for part in zip(*found, strict=True))
    return logits.astype(float), targets, outside


@pytest.mark.parametrize("shots", [1, 2])
def test_it_is_fitted_on_meta_validation_tasks(trained: Path, shots: int) -> None:
    about = distmeta.load(trained).about["families"]["classification"]["calibration"]
    (its,) = (each for each in about if each["shape"]["shots"] == shots)
    logits, targets, outside = _answers(trained, "meta_validation", shots)
    temperature = certainty.fit_temperature(logits[~outside], targets[~outside])
    assert its["temperature"] == pytest.approx(temperature, rel=1e-3)
    right = (logits.argmax(-1) == targets) & ~outside
    sure = certainty.certainty(logits, its["temperature"])
    assert its["after"] == pytest.approx(certainty.calibration_error(sure[~outside], right[~outside]), abs=1e-3)
    assert [share for share, _ in its["thresholds"]] == list(certainty.WRONG)
    for share, threshold in its["thresholds"]:
        assert threshold == pytest.approx(certainty.threshold(sure.ravel(), right.ravel(), share), abs=1e-4)


def test_its_worth_is_measured_on_meta_test_tasks(trained: Path) -> None:
    row = json.loads((trained / "evaluation.json").read_text())["meta_test"][1]
    trust, (logits, targets, outside) = row["trust"], _answers(trained, "meta_test", 2)
    about = distmeta.load(trained).about["families"]["classification"]["calibration"]
    (its,) = (each for each in about if each["shape"]["shots"] == 2)
    sure, right = certainty.certainty(logits, its["temperature"]), (logits.argmax(-1) == targets) & ~outside
    given = sure >= dict(map(tuple, its["thresholds"]))[trust["claim"]]
    assert trust["answered"][0] == pytest.approx(given[~outside].mean(), abs=1e-3)
    assert trust["accepted"][0] == pytest.approx(given[outside].mean(), abs=1e-3)
    assert trust["wrong"][0] == pytest.approx((~right & given).sum() / max(1, given.sum()), abs=1e-3)
    pairs = [[(a > b) + 0.5 * (a == b) for a in s[~o] for b in s[o]] for s, o in zip(sure, outside, strict=True)]
    assert trust["auroc"][0] == pytest.approx(np.mean(pairs), abs=1e-3)
    assert trust["after"][0] == pytest.approx(certainty.calibration_error(sure[~outside], right[~outside]), abs=1e-3)
    assert all(pair[1] >= 0 for name, pair in trust.items() if name != "claim")
    assert len(trust_rows([row])[0]) == 6


def test_a_task_takes_the_calibration_of_the_nearest_shape(trained: Path, tmp_path: Path) -> None:
    learner = distmeta.load(trained)
    by_shots = {its["shape"]["shots"]: its for its in learner.about["families"]["classification"]["calibration"]}
    task = learner.adapt(["topic1 a", "topic2 b"], ["x", "y"])
    assert task.calibration == by_shots[1]
    assert task.threshold == dict(map(tuple, by_shots[1]["thresholds"]))[0.05]
    logits = learner.outputs(
        task.codec.encode(task.examples, task.names), task.codec.encode([{"text": "topic1"}], task.names).inputs
    )[0].numpy()
    expected = np.exp(logits / by_shots[1]["temperature"])
    assert task.predict_proba(["topic1"]) == pytest.approx(expected / expected.sum(), abs=1e-6)
    many = learner.adapt(["topic1 a", "topic2 b"] * 2, ["x", "y"] * 2, wrong=0.2)
    assert many.calibration == by_shots[2]
    assert many.threshold == dict(map(tuple, by_shots[2]["thresholds"]))[0.2]
    many.save(tmp_path / "task")
    grown = distmeta.load_task(tmp_path / "task").grow(["topic3"], ["z"])
    assert grown.wrong == 0.2, "what was asked for stays when a task grows"
    assert grown.calibration is not None
    assert grown.threshold == dict(map(tuple, grown.calibration["thresholds"]))[0.2]
    with pytest.raises(DataError, match=r"wrong: 0.3; give one of 0.01, 0.02, 0.05, 0.1, 0.2"):
        learner.adapt(["topic1", "topic2"], ["x", "y"], wrong=0.3)


def test_it_abstains_below_its_threshold(trained: Path) -> None:
    task = distmeta.load(trained).adapt(["topic1 a", "topic2 b"], ["x", "y"])
    texts = [f"topic{n} word{k}" for n in range(6) for k in range(3)]
    sure = task.predict_proba(texts).max(1)
    assert task.predict(texts) == [
        name if certain >= task.threshold else None
        for name, certain in zip(task.predict(texts, abstain=False), sure, strict=True)
    ]
    assert None not in task.predict(texts, abstain=False)


def test_a_learner_from_before_has_none(tmp_path: Path) -> None:
    run(tmp_path, "run", **{**SETTINGS, "outer__steps": 1})
    learner = distmeta.load(tmp_path / "run").calibrated({})
    task = learner.adapt(["topic1 a", "topic2 b"], ["x", "y"])
    assert (task.calibration, task.threshold) == (None, 0.0)
    with pytest.raises(DataError, match=r"wrong: 0.05, and the learner was not calibrated"):
        learner.adapt(["topic1", "topic2"], ["x", "y"], wrong=0.05)
