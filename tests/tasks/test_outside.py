"""Texts of other classes on top of an episode: none of its classes, and the rest of the episode as without them."""

import csv
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from corpora import kind_in
from toy import evaluated, toy_config, write_data

from distmeta.runs.experiment import build_experiment
from distmeta.tasks.classification import Classification
from distmeta.types import Stream

STREAM = Stream.of("classification", "meta_train", 7, ways=3, shots=2, queries=4)


@pytest.fixture(scope="module")
def kind(tmp_path_factory: pytest.TempPathFactory) -> Classification:
    return kind_in(tmp_path_factory.mktemp("corpus"))


def test_the_rest_of_the_episode_is_the_same(kind: Classification) -> None:
    stream = kind.with_outside(STREAM)
    assert stream is not None
    draws = [(kind.draw(STREAM, index), kind.draw(stream, index)) for index in range(20)]
    for plain, more in draws:
        assert (plain.names, plain.support.tolist(), plain.query.tolist()) == (
            more.names,
            more.support.tolist(),
            more.query.tolist(),
        )
        assert more.outside is not None
        rows = kind.corpus.source_rows[more.outside].tolist()
        assert kind.to_json(more) == {**kind.to_json(plain), "outside": rows}
        labels = {kind.corpus.classes[label] for label in kind.corpus.labels[more.outside]}
        assert not labels & set(more.names)
        assert labels <= set(kind.corpus.splits["meta_train"])
    assert len({tuple(more.outside.tolist()) for _, more in draws if more.outside is not None}) == 20


def test_they_have_no_weight_and_a_mark(kind: Classification) -> None:
    stream = kind.with_outside(STREAM)
    assert stream is not None
    plain, more = (kind.batch([kind.draw(its, index) for index in (3, 4)]) for its in (STREAM, stream))
    query = more.query
    assert query.weights.tolist() == [[1.0] * 12 + [0.0] * 4] * 2
    assert query.inputs["outside"].tolist() == [[0] * 12 + [1] * 4] * 2
    assert query.targets[:, :12].equal(plain.query.targets)
    assert more.support.inputs["rows"].equal(plain.support.inputs["rows"])
    outputs = torch.randn(2, 16, 3)
    found, expected = kind.statistics(outputs, query), kind.statistics(outputs[:, :12], plain.query)
    assert all(torch.allclose(found[name], expected[name]) for name in expected), "figures do not change"


def test_an_episode_of_all_classes_has_none_and_neither_has_one_of_a_task(kind: Classification, tmp_path: Path) -> None:
    ways = len(kind.corpus.splits["meta_train"])
    assert kind.with_outside(Stream.of("classification", "meta_train", 7, ways=ways, shots=1, queries=1)) is None
    with (tmp_path / "tasks.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "task"])
        writer.writerows((f"text {t} {n}", "ab"[n % 2], f"task {t}") for t in range(9) for n in range(12))
    data = {"path": str(tmp_path / "tasks.csv"), "task": "task", "cache": str(tmp_path / "cache")}
    experiment = build_experiment(toy_config(tmp_path, data=data, episodes={"ways": 2, "shots": 2, "queries": 2}))
    family = experiment.setup.families["classification"]
    assert family.with_outside(evaluated(experiment, "meta_test", 2)) is None


def test_a_text_that_also_belongs_to_the_classes_is_not_drawn(tmp_path: Path) -> None:
    """Each class shares half of its texts with the next."""
    write_data(tmp_path / "data.csv")
    rows = list(csv.reader((tmp_path / "data.csv").read_text(encoding="utf-8").splitlines()))[1:]
    names = sorted({label for _, label in rows})
    shared = [(text, names[(names.index(label) + 1) % 16]) for n, (text, label) in enumerate(rows) if n % 2]
    with (tmp_path / "data.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows, *shared])
    experiment = build_experiment(toy_config(tmp_path, evaluation__ways=2, algorithm__name="protonet", inner={}))
    family = cast(Classification, experiment.setup.families["classification"])
    stream: Any = family.with_outside(evaluated(experiment, "meta_test", 2))
    assert family.corpus.repeated.size
    met = 0
    for index in range(60):
        draw = family.draw(stream, index)
        assert draw.outside is not None
        inside = np.concatenate([family.corpus.texts_of(family.corpus.rows_of(name)) for name in draw.names])
        its = family.corpus.texts_of(draw.outside)
        met += int((its >= 0).sum())
        assert not np.isin(its[its >= 0], inside).any()
    assert met, "texts that several classes have were drawn"
