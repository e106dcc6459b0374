"""Features of a frozen encoder that runs share through the cache folder."""

from pathlib import Path
from typing import Any

import pytest
from model_helpers import save_encoder
from toy import evaluate as evaluate_work
from toy import evaluated, toy_config

from distmeta.backends import open_backend
from distmeta.models.base import FunctionalModel
from distmeta.runs.experiment import Experiment, build_experiment


def experiment_of(folder: Path, encoder: str, keep: bool, **overrides: Any) -> Experiment:
    model = {"name": "hf", "path": encoder, "freeze": "body.*"}
    settings = {"model": model, "inner__adapt": "head", "data__keep_features": keep, "data__max_length": 16}
    return build_experiment(toy_config(folder, **{**settings, **overrides}))


def evaluate(experiment: Experiment) -> list[float]:
    work = experiment.work(experiment.learner, evaluated(experiment, "meta_validation", 2), 50)
    with open_backend(experiment.config.cluster) as backend:
        figures = evaluate_work(backend.start(experiment.setup, print), work, 50, 10)
    return [float(value) for value in figures["loss"]]


def test_a_run_takes_the_features_that_another_has_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = save_encoder(tmp_path, "bert")
    alone = evaluate(experiment_of(tmp_path, encoder, keep=False))
    kept = tmp_path / "cache" / "features"
    assert not kept.exists()
    assert evaluate(experiment_of(tmp_path, encoder, keep=True)) == alone

    def never(*_: Any) -> None:
        raise AssertionError("the body was run again")

    with monkeypatch.context() as patch:
        patch.setattr(FunctionalModel, "features", never)
        assert evaluate(experiment_of(tmp_path, encoder, keep=True)) == alone
        with pytest.raises(AssertionError, match="run again"):
            evaluate(experiment_of(tmp_path, encoder, keep=True, model__normalize=True))
    assert {path.suffix for path in kept.rglob("*") if path.is_file()} == {".npy"}  # nothing half-written
    assert len(list(kept.iterdir())) == 1


def test_features_of_a_body_that_is_trained_are_not_kept(tmp_path: Path) -> None:
    encoder = save_encoder(tmp_path, "bert")
    experiment = experiment_of(tmp_path, encoder, keep=True, model={"name": "hf", "path": encoder, "freeze": []})
    evaluate(experiment)
    assert not (tmp_path / "cache" / "features").exists()
