"""Labels in meta-training: shuffled, so that what a class is called cannot be memorised, and mixed."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import kind_in
from model_helpers import episodes
from toy import changed, evaluate, evaluated, toy_config, training_stream

from distmeta.backends.inprocess import InProcessPool
from distmeta.engine.interfaces import Work
from distmeta.errors import ConfigError
from distmeta.runs.experiment import build_experiment
from distmeta.tasks.base import manifest, manifest_sha256
from distmeta.tasks.classification import Classification
from distmeta.types import Stream

# Four classes (b, c, d, e) of nine rows each.
STREAM = Stream.of("classification", "meta_train", 7, ways=2, shots=3, queries=4)
SORTED, MIXED = changed(STREAM, label_shuffle=False), changed(STREAM, label_mixing=1.0)


@pytest.fixture(scope="module")
def kind(tmp_path_factory: pytest.TempPathFactory) -> Classification:
    return kind_in(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize(
    ("split", "shape", "seed", "digest"),
    [
        ("meta_train", (3, 2, 4), 7, "bdcfd554ea601ab04dea774d109894e8850575f5a8a04a2b6474c5e69c578c05"),
        ("meta_test", (2, 1, 2), 3, "a905850aa8f2becd38653847970b9a5046c5304a1e1ddeb50ce1617f4ad0c38b"),
        ("meta_validation", (4, 5, 4), 0, "c50c50557aaac2abe5f7840464422b54374dd381efd7b315d9e2adad92501498"),
    ],
)
def test_without_label_options_episodes_are_what_they_always_were(
    kind: Classification, split: str, shape: tuple[int, int, int], seed: int, digest: str
) -> None:
    """Manifests that were published before there were label options."""
    ways, shots, queries = shape
    stream = Stream.of("classification", split, seed, ways=ways, shots=shots, queries=queries)
    assert manifest_sha256(manifest(kind, stream, 50)) == digest


def test_a_manifest_tells_label_options_that_are_in_use(kind: Classification) -> None:
    assert "label_shuffle" not in manifest(kind, STREAM, 2)["stream"]
    assert manifest(kind, SORTED, 2)["stream"]["label_shuffle"] is False
    assert manifest(kind, MIXED, 2)["stream"]["label_mixing"] == 1.0


@pytest.mark.parametrize("mixing", [0.0, 1.0])
def test_without_shuffling_a_class_has_one_label(kind: Classification, mixing: float) -> None:
    """Of (b, c | d, e) label 0 is b or c, label 1 is d or e; each is drawn."""
    stream = changed(SORTED, label_mixing=mixing)
    seen: Counter[tuple[int, str]] = Counter()
    for index in range(60):
        draw = kind.draw(stream, index)
        for label, name in enumerate(draw.names):
            seen.update((label, part) for part in name.split(" + "))
    assert set(seen) == {(0, "b"), (0, "c"), (1, "d"), (1, "e")}


def test_with_shuffling_a_class_has_any_label(kind: Classification) -> None:
    for stream in (STREAM, MIXED):
        draws = [kind.draw(stream, index).names for index in range(60)]
        seen = {(label, part) for names in draws for label, name in enumerate(names) for part in name.split(" + ")}
        assert seen == {(label, name) for label in range(2) for name in "bcde"}


def count(kind: Classification, rows: np.ndarray) -> Counter[str]:
    """How many rows are of each class."""
    return Counter(kind.corpus.classes[label] for label in kind.corpus.labels[rows])


@pytest.mark.parametrize("stream", [MIXED, changed(MIXED, label_shuffle=False)])
def test_a_mixed_class_is_half_of_each_of_two(kind: Classification, stream: Stream) -> None:
    """3 shots are 2 of the first and 1 of the second; 4 queries are 2 of each."""
    for index in range(30):
        draw = kind.draw(stream, index)
        pairs = [name.split(" + ") for name in draw.names]
        assert sorted(name for pair in pairs for name in pair) == list("bcde")  # 2 · ways classes, each once
        for (first, second), support, query in zip(pairs, draw.support, draw.query, strict=True):
            assert count(kind, support) == {first: 2, second: 1}
            assert count(kind, query) == {first: 2, second: 2}
            assert len({*support, *query}) == 7  # support and query share no row


def test_odd_halves_even_out(kind: Classification) -> None:
    draw = kind.draw(changed(MIXED, queries=3), 0)
    for rows in np.concatenate([draw.support, draw.query], axis=1):
        assert sorted(count(kind, rows).values()) == [3, 3]


def test_mixed_episodes_are_stacked_like_others(kind: Classification) -> None:
    episode = episodes(kind, MIXED, 0, 3)
    assert episode.support.targets.tolist() == [[0, 0, 0, 1, 1, 1]] * 3
    assert episode.support.inputs["rows"][1].tolist() == np.concatenate(list(kind.draw(MIXED, 1).support)).tolist()


def test_the_share_of_mixed_episodes(kind: Classification) -> None:
    """0.3 of 1,000, and less than 5 standard deviations of √(1000 · 0.3 · 0.7) = 14.5 from it."""
    stream = changed(STREAM, label_mixing=0.3)
    draws = [kind.draw(stream, index).names for index in range(1000)]
    mixed = [names for names in draws if " + " in names[0]]
    assert all((" + " in a) == (" + " in b) for a, b in draws)
    assert abs(len(mixed) - 300) < 5 * 14.5
    assert draws[:20] == [kind.draw(stream, index).names for index in range(20)]


def test_label_options_are_for_meta_training_alone(tmp_path: Path) -> None:
    options = {"episodes__label_shuffle": False, "episodes__label_mixing": 0.5}
    made, plain = (build_experiment(toy_config(tmp_path, **changes)) for changes in (options, {}))
    training = training_stream(made.setup)
    assert (training["label_shuffle"], training["label_mixing"]) == (False, 0.5)
    for split in ("meta_validation", "meta_test"):
        assert evaluated(made, split, 2) == evaluated(plain, split, 2)
    assert made.identity["settings"] != plain.identity["settings"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ways": 5}, "episodes.label_mixing: needs 10 classes, but meta_train has 8"),
        ({"shots": 1}, "episodes.label_mixing: invalid value 0.5; a mixed class has texts of two; give episodes.shots"),
        ({"queries": 1}, "episodes.label_mixing: invalid value 0.5; a mixed class has texts of two"),
    ],
)
def test_mixing_needs_classes_and_examples(tmp_path: Path, changes: dict[str, int], message: str) -> None:
    overrides: dict[str, Any] = {f"episodes__{key}": value for key, value in changes.items()}
    with pytest.raises(ConfigError) as caught:
        build_experiment(toy_config(tmp_path, **overrides, episodes__label_mixing=0.5, evaluation__ways=3))
    assert str(caught.value).startswith(message)


def accuracy_before_adaptation(folder: Path, label_shuffle: bool) -> float:
    """On meta-training tasks, after meta-training."""
    config = toy_config(
        folder,
        **{"episodes__label_shuffle": label_shuffle, "inner__steps": 1, "outer__lr": 0.03, "model__filters": 16},
    )
    experiment = build_experiment(config)
    setup = experiment.setup
    coordinator = setup.make_coordinator(InProcessPool(setup.make_worker("0", "cpu")))
    coordinator.advance(25)
    learner = replace(experiment.learner, inner_steps=0)  # type: ignore[type-var]
    work = Work(changed(training_stream(setup), seed=1), learner, training=False)
    return setup.families["classification"].figures(evaluate(coordinator, work, 60, 20))["accuracy"]


def test_labels_that_stay_are_memorised_and_shuffled_ones_are_not(tmp_path: Path) -> None:
    """Yin et al. 2020, §3: where one function solves all training tasks, there is no need to adapt. Chance is 1/3."""
    assert accuracy_before_adaptation(tmp_path, label_shuffle=False) > 0.9
    assert accuracy_before_adaptation(tmp_path, label_shuffle=True) < 0.45
