"""Descriptions of classes in an episode: one more support example of each class, and the rest as without them."""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from model_helpers import episodes
from toy import run, toy_config

from distmeta.errors import ConfigError, DataError
from distmeta.runs.experiment import build_experiment
from distmeta.tasks.classification import Classification
from distmeta.types import Stream

SHAPE = {"ways": 3, "shots": 2, "queries": 2}
FEW: dict[str, Any] = {"algorithm__name": "protonet", "inner": {}, "evaluation__shots": [1]}


def family(folder: Path, **settings: Any) -> Classification:
    experiment = build_experiment(toy_config(folder, **{**FEW, **settings}))
    return cast(Classification, experiment.setup.families["classification"])


def test_the_rest_of_the_episode_is_the_same(tmp_path: Path) -> None:
    plain, described = family(tmp_path), family(tmp_path, data__descriptions="names")
    assert (plain.source, plain.classes) == (described.source, described.classes)
    assert plain.fingerprint != described.fingerprint
    for index in range(20):
        one = plain.draw(Stream.of("classification", "meta_train", 7, **SHAPE), index)
        for more in ({}, {"described": 1}):
            other = described.draw(Stream.of("classification", "meta_train", 7, **SHAPE, **more), index)
            assert (one.names, one.support.tolist(), one.query.tolist()) == (
                other.names,
                other.support.tolist(),
                other.query.tolist(),
            )
            same = {key: value for key, value in described.to_json(other).items() if key != "descriptions"}
            assert same == plain.to_json(one)
        assert described.to_json(other)["descriptions"] == list(other.names)


def test_a_description_is_one_more_example_of_its_class(tmp_path: Path) -> None:
    kind = family(tmp_path, data__descriptions="names")
    stream = Stream.of("classification", "meta_train", 7, **SHAPE, described=1, unlabelled=1)
    episode = episodes(kind, stream, 0, 2)
    support = episode.support
    assert support.targets[:, 6:9].tolist() == [[0, 1, 2]] * 2
    assert support.weights.tolist() == [[1.0] * 9 + [0.0] * 3] * 2
    names = [kind.corpus.classes[label + kind.classes] for label in support.inputs["labels"][0, 6:9]]
    assert names == list(episode.names[0])
    known = kind.corpus.tokens(np.array([kind.corpus.rows_of("\0" + episode.names[0][0])[0]]))["input_ids"][0]
    assert support.inputs["input_ids"][0, 6, : len(known)].tolist() == known.tolist()
    assert int(support.inputs["labels"].max()) < kind.classes


def test_rows_of_a_split_include_them_so_that_features_are_found(tmp_path: Path) -> None:
    plain, kind = family(tmp_path), family(tmp_path, data__descriptions="names")
    for split, names in kind.corpus.splits.items():
        rows = kind.rows(split)
        assert len(rows) == len(plain.rows(split)) + len(names)
        assert (np.diff(kind.corpus.lengths[rows]) >= 0).all()


@pytest.mark.parametrize("name", ["protonet", "maml"])
def test_they_are_meta_trained_with_and_tested_beside_the_plain_episodes(tmp_path: Path, name: str) -> None:
    results = [
        run(tmp_path, f"{about}", **{**FEW, "algorithm__name": name}, data__descriptions=about)
        for about in (None, "names")
    ]
    assert results[0]["meta_params_sha256"] != results[1]["meta_params_sha256"]
    plain, more = results[1]["meta_test"]
    assert (plain["title"], more["title"]) == ("3-way 1-shot", "3-way 1-shot with descriptions")
    assert plain["manifest_sha256"] == results[0]["meta_test"][0]["manifest_sha256"], "the same episodes"
    beside = next(base for base in more["baselines"] if base["name"] == "the same on 3-way 1-shot")
    assert beside["accuracy"] == plain["accuracy"]
    manifest = json.loads(next((tmp_path / "names").glob("manifest*descriptions*.json")).read_text())
    assert manifest["episodes"][0]["descriptions"] == manifest["episodes"][0]["classes"]


def test_descriptions_of_a_file(tmp_path: Path) -> None:
    names = sorted(family(tmp_path).corpus.classes)
    path = tmp_path / "about.csv"
    path.write_text("text,label\n" + "".join(f"word{n} about,{name}\n" for n, name in enumerate([*names, "another"])))
    assert family(tmp_path, data__descriptions=str(path)).descriptions == {
        name: f"word{n} about" for n, name in enumerate(names)
    }
    path.write_text("text,label\n" + "".join(f"word1,{name}\n" for name in names[1:]))
    with pytest.raises(DataError, match=rf"data.descriptions .*about.csv: none of the class '{names[0]}'"):
        family(tmp_path, data__descriptions=str(path))
    path.write_text("text,label\n" + "".join(f"word{n},{names[0]}\n" for n in range(2)))
    with pytest.raises(DataError, match=r"about\.csv line 3: a second description of"):
        family(tmp_path, data__descriptions=str(path))


def test_what_does_not_go_with_descriptions(tmp_path: Path) -> None:
    mixed = {"ways": 3, "shots": 2, "queries": 2, "label_mixing": 0.5}
    with pytest.raises(ConfigError, match="a class that is mixed of two has no description"):
        family(tmp_path, data__descriptions="names", episodes=mixed)
