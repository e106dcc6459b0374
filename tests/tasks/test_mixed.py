"""Several families in one run: one a unit, by weight; a head each; rows of evaluation for each, and their mean."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import tiny_families
from toy import toy_config, write_data

from distmeta.backends import open_backend
from distmeta.config import RunConfig
from distmeta.errors import ConfigError
from distmeta.report.progress import Reporter
from distmeta.report.statistics import mean_row
from distmeta.runs import train as driver
from distmeta.runs.experiment import build_experiment
from distmeta.types import Mix, Score, Stream, Unit

ray.cloudpickle.register_pickle_by_value(tiny_families)
SHAPE = {"shots": 2, "queries": 2}
FAMILIES = ("words", "places", "intents")


def config_of(folder: Path, **overrides: Any) -> RunConfig:
    """Tags, spans and intents on one body."""
    texts = {
        "path": str(write_data(folder / "data.csv")),
        "splits": {"train": 0.5, "validation": 0.25, "test": 0.25},
        "cache": str(folder / "cache"),
    }
    tasks: dict[str, Any] = {
        "words": {"kind": "tags", "weight": 2, "episodes": SHAPE},
        "places": {"kind": "spans", "episodes": SHAPE},
        "intents": {"kind": "classification", "data": texts, "episodes": {"ways": 3, **SHAPE}},
    }
    model = {"name": "text_rnn", "embedding_size": 8, "hidden_size": 8, "min_count": 1}
    settings: dict[str, Any] = {"data": {}, "episodes": {}, "tasks": tasks, "model": model, "outer__steps": 4}
    return toy_config(folder, **{**settings, "evaluation__validation_every": 2, **overrides})


def test_units_take_a_family_by_their_index_in_proportion_to_the_weights() -> None:
    streams = tuple(Stream.of(name, "meta_train", 0, shots=1) for name in "abc")
    mix = Mix(streams, (2.0, 1.0, 1.0))
    for size in (1, 2, 5):
        families = [mix.taken_by(Unit(0, index * size, size)).family for index in range(400)]
        for start in range(0, 400, 40):  # evenly spread: in every part
            counts = Counter(families[start : start + 40])
            assert (counts["a"], counts["b"], counts["c"]) == pytest.approx((20, 10, 10), abs=2)


@pytest.mark.nightly
def test_a_mixed_run_is_the_same_anywhere_and_stopped_and_resumed(tmp_path: Path, ray_session: None) -> None:
    here = driver.train(config_of(tmp_path), tmp_path / "here", Reporter())
    there = driver.train(config_of(tmp_path, cluster__backend="ray"), tmp_path / "there", Reporter())
    assert here["meta_params_sha256"] == there["meta_params_sha256"]
    assert here["meta_test"] == there["meta_test"]
    driver.train(config_of(tmp_path, outer__steps=2), tmp_path / "part", Reporter())
    resumed = driver.resume(tmp_path / "part", ["outer.steps=4"], Reporter())
    assert resumed["meta_params_sha256"] == here["meta_params_sha256"]


def test_evaluation_has_rows_for_each_family_and_their_mean(tmp_path: Path) -> None:
    result = driver.train(config_of(tmp_path), tmp_path / "run", Reporter())
    rows = result["meta_test"]
    assert [row["title"] for row in rows] == [
        *("words 1-shot", "words 2-shot", "places 1-shot", "places 2-shot"),
        *("intents 3-way 1-shot", "intents 3-way 2-shot", "mean of families"),
    ]
    scores = [[row[row["score"]["name"]] for row in rows if row["family"] == name] for name in FAMILIES]
    assert rows[-1]["score"]["name"] == "mean_score"
    assert rows[-1]["mean_score"] == pytest.approx(np.mean([np.mean(its) for its in scores]))


def test_the_mean_of_families_by_hand() -> None:
    """Family a: 0.8 ± 0.1; b: the mean of 0.4 ± 0.2 and 0.6 ± 0.2. So (0.8 + 0.5) / 2, width √(0.05² + 2 · 0.05²)."""
    score = Score("accuracy", is_share=True, higher_is_better=True)

    def row(family: str, value: float, half: float) -> dict[str, Any]:
        base = {"name": "plain", "accuracy": 0.5, "ci95": half, "difference": value - 0.5, "difference_ci95": half}
        about = {"family": family, "score": score._asdict(), "name": "x", "episodes": 9}
        return {**about, "accuracy": value, "ci95": half, "baselines": [base]}

    made = mean_row([row("a", 0.8, 0.1), row("b", 0.4, 0.2), row("b", 0.6, 0.2)], score)
    assert made["accuracy"] == pytest.approx(0.65)
    assert made["ci95"] == pytest.approx((0.05**2 + 2 * 0.05**2) ** 0.5)
    assert made["baselines"][0]["difference"] == pytest.approx(0.15)


def test_a_unit_moves_the_body_and_its_own_head_alone(tmp_path: Path) -> None:
    setup = build_experiment(config_of(tmp_path)).setup
    worker, seen = setup.make_worker("0", "cpu"), set()
    for index in range(0, 20, 2):
        unit = Unit(0, index, 2)
        family = setup.training.stream.taken_by(unit).family
        gradient = setup.layout.unflatten(worker.run(setup.training, unit, setup.meta_params).gradient)
        moved = {name.split(".")[1] for name, value in gradient.items() if name.startswith("head.") and value.any()}
        assert moved == {family}
        assert any(value.any() for name, value in gradient.items() if name.startswith("body."))
        seen.add(family)
    assert seen == set(FAMILIES)


def test_figures_of_a_step_are_told_apart(tmp_path: Path) -> None:
    config = config_of(tmp_path, outer__meta_batch_size=20)
    with open_backend(config.cluster) as backend:
        (report,) = backend.start(build_experiment(config).setup, print).advance(1)
    names = {name.removeprefix("meta_train/") for name in report.metrics if name.startswith("meta_train/")}
    assert names == {"loss", "words/accuracy", "places/exact", "intents/accuracy"}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"data__path": "x.csv"}, "tasks: given beside data; move data into tasks.NAME.data"),
        ({"tasks__words__kind": "tag"}, "tasks.words.kind: 'tag' is unknown; did you mean tags?"),
        ({"tasks__words__data": {"sub": "x"}}, "tasks.words.data.sub"),
        ({"algorithm__name": "protonet", "inner": {}}, "algorithm.name: prototypes stand for classes"),
    ],
)
def test_what_does_not_go_together_is_one_line(tmp_path: Path, change: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_experiment(config_of(tmp_path, **change))
    assert line in str(caught.value)


def test_the_short_form_is_the_long_one_of_a_single_family(tmp_path: Path) -> None:
    short = toy_config(tmp_path)
    tasks = {"classification": {"data": short.data.model_dump(), "episodes": short.episodes.model_dump()}}
    one, other = (
        build_experiment(its).setup for its in (short, toy_config(tmp_path, data={}, episodes={}, tasks=tasks))
    )
    assert one.layout == other.layout
    assert np.array_equal(one.meta_params, other.meta_params)
    assert one.training == other.training
