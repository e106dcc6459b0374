"""Features of a frozen encoder that runs share through the cache folder."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_helpers import save_encoder
from toy import evaluate as evaluate_work
from toy import evaluated, toy_config

from distmeta.backends import open_backend
from distmeta.engine.features import keep, kept
from distmeta.models.functional import FunctionalModel
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
    folder = tmp_path / "cache" / "features"
    assert not folder.exists()
    assert evaluate(experiment_of(tmp_path, encoder, keep=True)) == alone

    def never(*_: Any) -> None:
        raise AssertionError("the body was run again")

    with monkeypatch.context() as patch:
        patch.setattr(FunctionalModel, "features", never)
        assert evaluate(experiment_of(tmp_path, encoder, keep=True)) == alone
        with pytest.raises(AssertionError, match="run again"):
            evaluate(experiment_of(tmp_path, encoder, keep=True, model__normalize=True))
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".npy"}  # nothing half-written
    assert len(list(folder.iterdir())) == 1


def test_what_was_kept_is_read_back(tmp_path: Path) -> None:
    path, array = tmp_path / "a" / "b" / "meta_test-0.npy", np.arange(12, dtype=np.float32).reshape(4, 3)
    assert kept(path) is None
    keep(path, array)
    found = kept(path)
    assert found is not None
    assert (found.dtype, found.tolist()) == (array.dtype, array.tolist())
    assert [its.name for its in path.parent.iterdir()] == [path.name]


def test_a_file_that_is_damaged_or_foreign_counts_as_none(tmp_path: Path) -> None:
    path, other = tmp_path / "a" / "b" / "meta_test-0.npy", tmp_path / "a" / "c" / "meta_test-0.npy"
    for its in (path, other):
        keep(its, np.ones((2, 3), np.float32))
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        assert kept(path) is None
    for written in (b"", content[:-1], content[:20], content + b"x", other.read_bytes()):
        path.write_bytes(written)
        assert kept(path) is None
    np.save(path, np.ones((2, 3), np.float32))  # without a hash
    assert kept(path) is None


def test_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    encoder = save_encoder(tmp_path, "bert")
    first = evaluate(experiment_of(tmp_path, encoder, keep=True))
    paths = sorted((tmp_path / "cache" / "features").rglob("*.npy"))
    contents = [path.read_bytes() for path in paths]
    for path in paths:
        path.write_bytes(path.read_bytes().replace(b"\x00", b"\x01"))
    assert evaluate(experiment_of(tmp_path, encoder, keep=True)) == first
    assert [path.read_bytes() for path in paths] == contents


def test_two_machines_may_write_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same process number: one has written half when the other begins."""
    path, write, begun = tmp_path / "meta_test-0.npy", Path.write_bytes, []

    def write_bytes(aside: Path, content: bytes) -> int:
        begun.append(aside)
        if len(begun) == 1:
            keep(path, np.ones(3, np.float32))
        return write(aside, content)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    keep(path, np.ones(3, np.float32))
    assert len(set(begun)) == 2
    assert kept(path) is not None


def test_features_of_a_body_that_is_trained_are_not_kept(tmp_path: Path) -> None:
    encoder = save_encoder(tmp_path, "bert")
    experiment = experiment_of(tmp_path, encoder, keep=True, model={"name": "hf", "path": encoder, "freeze": []})
    evaluate(experiment)
    assert not (tmp_path / "cache" / "features").exists()
