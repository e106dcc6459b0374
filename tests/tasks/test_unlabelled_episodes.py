"""Texts without labels in an episode: of its classes, in none of its other places, and the rest as without them."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from corpora import kind_in
from model_helpers import episodes
from toy import run, toy_config, training_stream

from distmeta.backends import open_backend
from distmeta.errors import ConfigError
from distmeta.runs.experiment import build_experiment
from distmeta.tasks.classification import Classification
from distmeta.types import UNLABELLED, Stream

SHAPE = {"ways": 3, "shots": 2, "queries": 2}
FEW: dict[str, Any] = {"algorithm__name": "protonet", "inner": {}, "evaluation__shots": [1]}


@pytest.fixture(scope="module")
def kind(tmp_path_factory: pytest.TempPathFactory) -> Classification:
    return kind_in(tmp_path_factory.mktemp("corpus"))


def test_the_rest_of_the_episode_is_the_same(kind: Classification) -> None:
    plain, more = (Stream.of("classification", "meta_train", 7, **SHAPE, **its) for its in ({}, {UNLABELLED: 3}))
    for index in range(20):
        one, other = kind.draw(plain, index), kind.draw(more, index)
        assert (one.names, one.support.tolist(), one.query.tolist()) == (
            other.names,
            other.support.tolist(),
            other.query.tolist(),
        )
        assert other.unlabelled is not None
        for name, rows in zip(other.names, other.unlabelled, strict=True):
            assert {kind.corpus.classes[label] for label in kind.corpus.labels[rows]} == {name}
        whole = [*other.support.ravel(), *other.query.ravel(), *other.unlabelled.ravel()]
        assert len(set(whole)) == len(whole)
        assert set(kind.to_json(other)) == {"classes", "support", "query", UNLABELLED}


def test_nothing_tells_their_class(kind: Classification) -> None:
    stream = Stream.of("classification", "meta_train", 7, **SHAPE, **{UNLABELLED: 3})
    support = episodes(kind, stream, 0, 2).support
    assert support.targets[:, 6:].eq(0).all()
    assert support.weights.tolist() == [[1.0] * 6 + [0.0] * 9] * 2
    assert support.inputs[UNLABELLED].tolist() == [[0.0] * 6 + [1.0] * 9] * 2
    assert support.inputs[UNLABELLED].dtype == torch.float32


@pytest.mark.parametrize("name", ["protonet", "maml"])
def test_they_are_learned_from_in_meta_training_and_tested_beside_the_plain_episodes(tmp_path: Path, name: str) -> None:
    settings = {**FEW, "algorithm__name": name, "evaluation__unlabelled": 3}
    results = [
        run(tmp_path, f"{more}", **settings, episodes={"ways": 3, "shots": 2, "queries": 2, "unlabelled": more})
        for more in (0, 3)
    ]
    assert results[0]["meta_params_sha256"] != results[1]["meta_params_sha256"]
    plain, more = results[1]["meta_test"]
    assert (plain["title"], more["title"]) == ("3-way 1-shot", "3-way 1-shot with 3 unlabelled")
    beside = next(base for base in more["baselines"] if base["name"] == "the same on 3-way 1-shot")
    assert beside["accuracy"] == plain["accuracy"]
    assert beside["difference"] == pytest.approx(more["accuracy"] - plain["accuracy"])
    assert not any(base["name"].startswith("the same on") for base in plain["baselines"])
    manifest = json.loads(next((tmp_path / "3").glob("manifest*unlabelled*.json")).read_text())
    assert [len(rows) for rows in manifest["episodes"][0][UNLABELLED]] == [3, 3, 3]


def test_a_unit_of_several_tasks_is_the_sum_of_its_tasks(tmp_path: Path) -> None:
    """Guesses of one task do not reach another: the mean gradient is that of single tasks."""
    unlabelled = {"episodes": {"ways": 3, "shots": 2, "queries": 2, "unlabelled": 3}}
    gradients = []
    for size in (1, 5):
        experiment = build_experiment(toy_config(tmp_path, **FEW, **unlabelled, cluster__tasks_per_unit=size))
        with open_backend(experiment.config.cluster) as backend:
            coordination = backend.start(experiment.setup, print)
            (report,) = coordination.advance(1)
        gradients.append(report.metrics["outer/grad_norm"])
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-4)


@pytest.mark.parametrize("name", ["reptile", "multitask"])
def test_an_algorithm_that_takes_all_labels_refuses_them(tmp_path: Path, name: str) -> None:
    config = toy_config(tmp_path, algorithm__name=name, episodes={"ways": 3, "shots": 2, "queries": 2, "unlabelled": 1})
    with pytest.raises(ConfigError, match=f"episodes.unlabelled: set, and {name} learns from support and query"):
        build_experiment(config)


def test_classes_need_enough_texts_for_them(tmp_path: Path) -> None:
    """The toy's classes have eight texts: two, two, and four more."""
    family = {"ways": 3, "shots": 2, "queries": 2}
    experiment = build_experiment(toy_config(tmp_path, **FEW, episodes={**family, "unlabelled": 4}))
    kind = cast(Classification, experiment.setup.families["classification"])
    draw = kind.draw(training_stream(experiment.setup), 0)
    assert draw.unlabelled is not None
    assert draw.unlabelled.shape == (3, 4)
    with pytest.raises(Exception, match="8"):
        build_experiment(toy_config(tmp_path, **FEW, episodes={**family, "unlabelled": 5}))
