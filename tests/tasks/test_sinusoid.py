"""Sinusoid regression: episodes, loss, refusals, and a run from the command line."""

import json
import math
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_helpers import build, episodes, make_options
from stores import store
from toy import changed, toy_config, toy_settings, training_stream

from distmeta import cli
from distmeta.backends import open_backend
from distmeta.config import RunConfig
from distmeta.config.load import load_config, override, validate
from distmeta.errors import ConfigError
from distmeta.models.base import registry as models
from distmeta.protocols import TaskFamily
from distmeta.runs.evaluate import meta_test, meta_validation
from distmeta.runs.experiment import build_experiment
from distmeta.tasks.base import manifest, manifest_sha256
from distmeta.tasks.sinusoid import Sinusoid, SinusoidData
from distmeta.types import Batch, Stream

JOB = Path(__file__).parents[2] / "jobs" / "sinusoid.yaml"
STREAM = Stream.of("sinusoid", "meta_train", 7, shots=3, queries=4)
TASK = Sinusoid(SinusoidData())


def settings(folder: Path, **overrides: Any) -> dict[str, Any]:
    """A run of seconds; overrides have dotted keys, with `__` for the dots."""
    content: dict[str, Any] = {
        "data": {"kind": "sinusoid"},
        "episodes": {"shots": 3, "queries": 4},
        "model": {"name": "dense", "hidden_sizes": [8]},
        "algorithm": {"name": "maml"},
        "inner": {"lr": 0.01, "steps": 1},
        "outer": {"lr": 0.01, "steps": 4, "meta_batch_size": 4},
        "cluster": {"backend": "inprocess", "tasks_per_unit": 4},
        "evaluation": {"episodes": 6, "shots": [3, 5], "queries": 7, "curve_steps": 2, "curve_episodes": 4},
        "checkpoint": {"every": 2},
        "tracking": {"uri": store(folder)},
    }
    return override(content, [f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in overrides.items()])


def config_of(folder: Path, **overrides: Any) -> RunConfig:
    return validate(settings(folder, **overrides))


def test_keeps_the_protocol() -> None:
    task: TaskFamily = TASK
    assert (task.outputs(STREAM), task.classes, task.has_classes, task.reads) == (1, 0, False, "numbers")
    assert task.rows("meta_train").shape == (0,)
    assert (task.score.name, task.score.is_share, task.score.higher_is_better) == ("mse", False, False)


def test_points_lie_on_the_curve_that_was_drawn() -> None:
    """y = A sin(x + φ), worked out with the standard library from A, φ and x of each draw."""
    episode = episodes(TASK, STREAM, 5, 3)
    for t in range(3):
        draw = TASK.draw(STREAM, 5 + t)
        for batch, points in ((episode.support, draw.support), (episode.query, draw.query)):
            expected = [draw.amplitude * math.sin(x + draw.phase) for x in points]
            assert batch.targets[t].tolist() == pytest.approx(expected, abs=1e-6)
            assert batch.inputs["values"][t, :, 0].tolist() == pytest.approx(points.tolist(), abs=1e-6)
        assert episode.names[t] == (f"y = {draw.amplitude:.3f} sin(x + {draw.phase:.3f})",)
    for batch, size in ((episode.support, 3), (episode.query, 4)):
        assert batch.inputs.keys() == {"values"}
        assert batch.inputs["values"].shape == (3, size, 1)
        assert batch.targets.shape == batch.weights.shape == (3, size)
        assert batch.inputs["values"].dtype == batch.targets.dtype == torch.float32
        assert (batch.weights == 1).all()


@pytest.mark.parametrize("data", [SinusoidData(), SinusoidData(amplitude=(1.0, 2.0), phase=(-1.0, 0.0), x=(3.0, 4.0))])
def test_draws_fill_their_ranges_evenly(data: SinusoidData) -> None:
    """2,000 draws: the mean within 5 standard errors of a uniform's, and both ends of the range reached."""
    draws = [Sinusoid(data).draw(STREAM, index) for index in range(2000)]
    values = {name: np.array([getattr(draw, name) for draw in draws]) for name in ("amplitude", "phase")}
    values["x"] = np.concatenate([np.concatenate([draw.support, draw.query]) for draw in draws])
    for name, drawn in values.items():
        low, high = getattr(data, name)
        width = high - low
        assert low <= drawn.min() < low + width / 100
        assert high - width / 100 < drawn.max() <= high
        assert abs(drawn.mean() - (low + high) / 2) < 5 * width / math.sqrt(12 * len(drawn))


def test_an_episode_depends_on_its_index_alone() -> None:
    together = episodes(TASK, STREAM, 0, 5)
    for index in (4, 0, 2):
        alone = episodes(TASK, STREAM, index, 1)
        for many, one in ((together.support, alone.support), (together.query, alone.query)):
            assert torch.equal(many.targets[index], one.targets[0])
            assert torch.equal(many.inputs["values"][index], one.inputs["values"][0])
        assert together.names[index] == alone.names[0]
    assert len(set(together.names)) == 5


def test_streams_differ_by_split_seed_and_shape() -> None:
    others: list[dict[str, Any]] = [
        {"split": "meta_validation"}, {"split": "meta_test"}, {"seed": 8}, {"shots": 5}, {"queries": 5}
    ]  # fmt: skip
    drawn = [TASK.draw(changed(STREAM, **change), 0).amplitude for change in ({}, *others)]
    assert len(set(drawn)) == len(drawn)


def test_support_and_query_are_different_points() -> None:
    draw = TASK.draw(STREAM, 0)
    assert len({*draw.support, *draw.query}) == 7


def test_loss_of_a_hand_worked_batch() -> None:
    """Task 0: errors 1, −2, 3 with weights 1, 1, 0 → (1 + 4) / 2. Task 1: errors 0, 0.5, 1 → (0.25 + 1) / 3."""
    outputs = torch.tensor([[[2.0], [0.0], [3.0]], [[1.0], [1.5], [2.0]]], requires_grad=True)
    targets = torch.tensor([[1.0, 2.0, 0.0], [1.0, 1.0, 1.0]])
    batch = Batch({}, targets, torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]), 1)
    assert TASK.loss(outputs, batch).tolist() == pytest.approx([2.5, 1.25 / 3])
    metrics = TASK.metrics(outputs, batch)
    assert {name: value.tolist() for name, value in metrics.items()} == {
        "loss": pytest.approx([2.5, 1.25 / 3]),
        "mse": pytest.approx([2.5, 1.25 / 3]),
    }
    assert not any(value.requires_grad for value in metrics.values())


def test_a_manifest_is_json_that_gives_the_episodes_back() -> None:
    content = manifest(TASK, STREAM, 3)
    assert manifest_sha256(json.loads(json.dumps(content))) == manifest_sha256(manifest(TASK, STREAM, 3))
    drawn = episodes(TASK, STREAM, 0, 3)
    for t, entry in enumerate(content["episodes"]):
        for part, batch in (("support", drawn.support), ("query", drawn.query)):
            expected = [entry["amplitude"] * math.sin(x + entry["phase"]) for x in entry[part]]
            assert batch.targets[t].tolist() == pytest.approx(expected, abs=1e-6)
    others = manifest(TASK, changed(STREAM, seed=8), 3), manifest(Sinusoid(SinusoidData(x=(0.0, 1.0))), STREAM, 3)
    assert manifest_sha256(content) not in {manifest_sha256(other) for other in others}


def test_the_fingerprint_is_of_the_ranges() -> None:
    assert Sinusoid(SinusoidData()).fingerprint == TASK.fingerprint
    assert Sinusoid(SinusoidData(phase=(0.0, 3.0))).fingerprint != TASK.fingerprint
    assert pickle.loads(pickle.dumps(TASK)) == TASK


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data__amplitude": [2, 1]}, "data.amplitude: invalid value [2, 1]; give a lower bound and a higher one"),
        ({"data__phase": [0]}, "data.phase"),
        ({"data__amplitud": [1, 2]}, "data.amplitud: not an option of SinusoidData; did you mean data.amplitude?"),
        ({"data__path": "a.csv"}, "data.path: sinusoid tasks are made up, not read; leave it out"),
        ({"data__splits": {"train": 0.5}}, "data.splits: sinusoid tasks are made up, not read"),
        ({"episodes__ways": 3}, "episodes.ways: 3, but sinusoid tasks have no classes; leave it out"),
        ({"evaluation__ways": 5}, "evaluation.ways: 5, but sinusoid tasks have no classes; leave it out"),
        (
            {"model": {"name": "text_cnn"}},
            "model.name: text_cnn reads text, and sinusoid tasks are of numbers; use",
        ),
        ({"model__path": "x"}, "model.path: 'x' given, but dense has no pretrained weights; leave it out"),
        ({"algorithm__name": "protonet", "inner": {}}, "algorithm.name: prototypes stand for classes"),
        ({"algorithm__name": "protomaml"}, "algorithm.name: prototypes stand for classes"),
        (
            {"algorithm__name": "proximal", "stream": {"steps_per_task": 2, "tasks": 2, "neighbours": 0, "replay": 0}},
            "data.kind: sinusoid with a stream; use classification",
        ),
        ({"algorithm__name": "finetune"}, "outer.steps: 4, but finetune does no meta-training"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_starts(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        build_experiment(config_of(tmp_path, **change))
    assert message in str(caught.value)


def test_dense_is_refused_on_texts_with_the_names_that_suit(tmp_path: Path) -> None:
    content = {**toy_settings(tmp_path), "model": {"name": "dense"}}
    with pytest.raises(ConfigError, match=r"^model\.name: dense reads numbers, .*; use .*text_cnn") as caught:
        build_experiment(validate(content))
    assert " dense" not in caught.value.remedy
    assert all(name in caught.value.remedy for name in models.names() if models.get(name).reads == "text")


def run_json(arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "argv", ["distmeta", *arguments, "--json"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["maml", "fomaml", "anil", "boil", "reptile", "metasgd", "multitask", "finetune"])
def test_every_algorithm_trains_and_is_tested(name: str, tmp_path: Path) -> None:
    steps = 0 if name == "finetune" else 2
    experiment = build_experiment(config_of(tmp_path, algorithm__name=name, outer__steps=steps))
    with open_backend(experiment.config.cluster) as backend:
        coordination = backend.start(experiment.setup, print)
        coordination.advance(steps)
        rows = meta_test(experiment, coordination, tmp_path, lambda *progress: None, "θ")
    assert [row["shape"]["shots"] for row in rows] == [3, 5]
    for row in rows:
        scores = [row, *row["baselines"]]
        names = [f"{name}, meta-trained", f"{name}, not meta-trained", "fine-tuned head, frozen encoder"]
        assert [its["name"] for its in scores] == names
        assert all(math.isfinite(its["mse"]) and math.isfinite(its["ci95"]) for its in scores)
        assert (row["mse"] == row["baselines"][0]["mse"]) == (name == "finetune")


def test_a_run_from_the_command_line_is_stopped_and_resumed_to_the_same_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(settings(tmp_path)))
    plan = run_json(["check", str(path)], capsys, monkeypatch)
    assert plan["meta_parameters"] == 8 + 8 + 8 + 1
    whole = run_json(["train", str(path), f"run_dir={tmp_path / 'whole'}"], capsys, monkeypatch)
    assert [row["shape"] for row in whole["meta_test"]] == [{"shots": shots, "queries": 7} for shots in (3, 5)]
    assert all(row["mse"] > 0 for row in whole["meta_test"])
    assert (tmp_path / "whole" / "adaptation_curve.png").exists()
    run_json(["train", str(path), f"run_dir={tmp_path / 'part'}", "outer.steps=2"], capsys, monkeypatch)
    resumed = run_json(["train", "--resume", str(tmp_path / "part"), "outer.steps=4"], capsys, monkeypatch)
    assert resumed["meta_params_sha256"] == whole["meta_params_sha256"]
    assert resumed["meta_test"] == whole["meta_test"]


def test_the_job_is_the_papers_network_and_tasks() -> None:
    config = load_config(JOB)
    experiment = build_experiment(config)
    sizes = dict(zip(experiment.setup.layout.names, experiment.setup.layout.sizes, strict=True))
    assert sum(sizes.values()) == (40 + 40) + (40 * 40 + 40) + (40 + 1)
    assert experiment.setup.families == {"sinusoid": TASK}
    assert (config.inner.lr, config.inner.steps, config.episodes.shots) == (0.01, 1, 10)


def test_meta_training_learns_to_learn() -> None:
    """After 200 outer steps, one inner step leaves far less error on new curves than the untrained learner's."""
    config = load_config(JOB, ["outer.steps=200", "outer.lr=3e-3", "evaluation.validation_episodes=100"])
    experiment = build_experiment(config)
    with open_backend(config.cluster) as backend:
        coordination = backend.start(experiment.setup, print)
        before = meta_validation(experiment, coordination)["meta_validation/mse"]
        coordination.advance(200)
        after = meta_validation(experiment, coordination)["meta_validation/mse"]
    assert after < 0.75 * before


def test_toy_texts_still_take_ways(tmp_path: Path) -> None:
    assert training_stream(build_experiment(toy_config(tmp_path, episodes__ways=2)).setup)["ways"] == 2


def test_without_hidden_layers_the_model_is_a_straight_line() -> None:
    """Of w x + b; on y = x the loss of w = b = 0 is mean(x²)."""
    model = build(make_options("dense", hidden_sizes=()), {"inputs": 1}, TASK, 1)
    values = torch.tensor([[[-1.0], [2.0]]])
    batch = Batch({"values": values}, values.squeeze(-1), torch.ones(1, 2), 1)
    zeros = {name: torch.zeros_like(value) for name, value in model.init().items()}
    assert TASK.loss(model.outputs(zeros, {}, batch.inputs), batch).tolist() == [2.5]
