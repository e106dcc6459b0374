"""A learner of its own: written whole or not at all, and the same in a process that has nothing of its run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_helpers import episodes, save_encoder
from toy import evaluated, toy_config

import distmeta
from distmeta import storage
from distmeta.errors import CheckpointError, DataError
from distmeta.report.progress import Reporter
from distmeta.runs import checkpoint, directory
from distmeta.runs import train as driver
from distmeta.runs.experiment import build_experiment
from distmeta.storage import write_sums
from distmeta.types import Batch
from distmeta.use import learner

# In a process of its own, on a batch that is given: nothing but what is in the folder.
ELSEWHERE = """
import builtins, sys
real = builtins.__import__
def guarded(name, *rest, **options):
    assert name.split(".")[0] not in {"ray", "mlflow", "datasets"}, name
    return real(name, *rest, **options)
builtins.__import__ = guarded
import numpy as np, torch
import distmeta
from distmeta import storage
from distmeta.types import Batch
torch.set_num_threads(1)
for folder in sys.argv[1:]:
    learner, given = distmeta.load(folder + "/learner"), np.load(folder + "/given.npz")
    support = Batch(
        {name[8:]: torch.from_numpy(given[name]) for name in given if name.startswith("support/")},
        torch.from_numpy(given["targets"]), torch.from_numpy(given["weights"]), 3,
    )
    query = {name[6:]: torch.from_numpy(given[name]) for name in given if name.startswith("query/")}
    np.save(folder + "/found.npy", learner.outputs(support, query).numpy())
"""
LEARNERS: dict[str, dict[str, Any]] = {
    "maml": {"algorithm__name": "maml", "model__dropout": 0.3},
    "head": {"algorithm__name": "protomaml", "inner__adapt": "head", "model__freeze": ["body.embedding*"]},
    "metasgd": {"algorithm__name": "metasgd", "inner": {"lr": 0.1}},
    "matching": {"algorithm__name": "matching", "inner": {}},
    "hf": {"algorithm__name": "protomaml", "inner__adapt": "head", "data__max_length": 16},
}


def run(folder: Path, **overrides: Any) -> Path:
    few = {"evaluation__episodes": 2, "evaluation__curve_steps": 0, "outer__steps": 2}
    driver.train(toy_config(folder, **{**few, **overrides}), folder / "run", Reporter())
    return folder / "run"


def test_elsewhere_it_gives_the_same_outputs_to_the_bit(tmp_path: Path) -> None:
    """Away from the run, its data, its cache and the encoder it started from, which are all gone by then."""
    (away := tmp_path / "away").mkdir()
    expected = {name: _moved_away(tmp_path / name, away / name, settings) for name, settings in LEARNERS.items()}
    command = [sys.executable, "-c", ELSEWHERE, *(str(away / name) for name in LEARNERS)]
    subprocess.run(command, check=True, cwd=away, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    for name, outputs in expected.items():
        assert np.array_equal(np.load(away / name / "found.npy"), outputs), name


def _moved_away(folder: Path, away: Path, settings: dict[str, Any]) -> np.ndarray:
    """Trains in a folder, leaves a copy of the learner and an episode in another; what it says of that episode."""
    folder.mkdir()
    if folder.name == "hf":
        path = save_encoder(folder / "encoder", "bert")
        settings = {**settings, "model": {"name": "hf", "path": path, "lora_rank": 2, "freeze": ["*embeddings*"]}}
    run_dir = run(folder, **settings)
    experiment = build_experiment(directory.read(run_dir, [])[0])
    theta = experiment.setup.layout.unflatten(checkpoint.load(run_dir)[0].arrays["meta_params"])
    model, family = experiment.model, experiment.setup.families["classification"]
    episode = episodes(family, evaluated(experiment, "meta_test", 2), 0, 2)
    model.train(False)
    with torch.no_grad():
        adapted = experiment.learner.adapt(model, theta, episode.support)
        outputs = experiment.learner.predict(model, adapted, episode.query.inputs)
    shutil.copytree(run_dir / "learner", away / "learner")
    given: dict[str, Any] = _arrays(episode.support, episode.query)
    np.savez(away / "given.npz", **given)
    shutil.rmtree(folder)
    return outputs.numpy()


def _arrays(support: Batch, query: Batch) -> dict[str, np.ndarray]:
    inputs = {
        f"{of}/{name}": value
        for of, its in (("support", support), ("query", query))
        for name, value in its.inputs.items()
    }
    given = {**inputs, "targets": support.targets, "weights": support.weights}
    return {name: value.numpy() for name, value in given.items()}


def test_it_learns_a_task_from_texts_and_labels(tmp_path: Path) -> None:
    loaded = distmeta.load(run(tmp_path, algorithm__name="protonet", inner={}, outer__steps=5, outer__lr=0.05))
    examples = [{"text": f"topic{n} thing{n % 5} word{k}", "label": f"class {n}"} for n in (1, 2) for k in range(3)]
    found = loaded.predict(examples, [{"text": "topic1 thing1"}, {"text": "topic2 thing2 word9"}])
    assert [its["label"] for its in found] == ["class 1", "class 2"]
    assert all(sum(its["probabilities"].values()) == pytest.approx(1) for its in found)
    for wrong, message in (
        ({"text": "topic1", "label": 3}, "example 2: label is 3; give a label that is a string"),
        ({"label": "x"}, "example 2: has no text"),
    ):
        with pytest.raises(DataError, match=message):
            loaded.predict([examples[0], wrong], [{"text": "topic1"}])


def test_a_stopped_run_gets_one_by_evaluation(tmp_path: Path) -> None:
    run_dir = run(tmp_path)
    shutil.rmtree(run_dir / "learner")
    with pytest.raises(CheckpointError, match="holds no learner; train it, or run `distmeta evaluate"):
        distmeta.load(run_dir)
    result = distmeta.evaluate(run_dir)
    assert distmeta.load(run_dir).about["meta_params_sha256"] == result["meta_params_sha256"]


def test_an_earlier_step_leaves_the_learner_as_it_is(tmp_path: Path) -> None:
    run_dir = run(tmp_path, outer__steps=4, checkpoint__every=1, checkpoint__keep=4)
    before = (run_dir / "learner" / "SHA256SUMS").read_text()
    distmeta.evaluate(run_dir, step=2)
    assert (run_dir / "learner" / "SHA256SUMS").read_text() == before


def test_writing_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = run(tmp_path)
    loaded = distmeta.load(run_dir)
    before = {path.name: path.read_bytes() for path in (run_dir / "learner").iterdir()}

    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "write_sums", full)
    other = learner.Learner({**loaded.about, "outer_steps": 99}, loaded.spec, loaded.algorithm, loaded.theta, None)
    with pytest.raises(CheckpointError, match="the learner cannot be written"):
        other.save(run_dir / "learner")
    assert {path.name: path.read_bytes() for path in (run_dir / "learner").iterdir()} == before
    assert not list(run_dir.glob(".learner*"))


@pytest.mark.parametrize("name", ["theta.safetensors", "frozen.safetensors", "tokenizer.json", "learner.json"])
def test_a_byte_that_was_altered_is_noticed(tmp_path: Path, name: str) -> None:
    path = run(tmp_path) / "learner" / name
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name}: was altered or cut short"):
        distmeta.load(path.parent)


def test_another_format_is_refused_by_name(tmp_path: Path) -> None:
    path = run(tmp_path) / "learner" / "learner.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 0}))
    write_sums(path.parent)
    with pytest.raises(CheckpointError, match="is of format 0, and this version of distmeta reads format 1"):
        distmeta.load(path.parent)
