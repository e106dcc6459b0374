"""`data.none`: texts that the data themselves give to no class, in calibration and its check, and nowhere else."""

import csv
import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from model_helpers import episodes
from toy import evaluated, run, toy_config, write_data

from distmeta.data.further import split_of
from distmeta.errors import ConfigError, DataError
from distmeta.report.tables import trust_columns, trust_rows
from distmeta.runs.experiment import build_experiment
from distmeta.tasks.classification import Classification
from distmeta.types import OTHER, OWN

FEW: dict[str, Any] = {"algorithm__name": "protonet", "inner": {}, "evaluation__calibration_episodes": 6}
STRANGE = [f"something else number{n}" for n in range(24)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The toy's data, with texts of no class among them."""
    write_data(tmp_path / "data.csv")
    rows = list(csv.reader((tmp_path / "data.csv").read_text(encoding="utf-8").splitlines()))
    with (tmp_path / "data.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([*rows[:20], *((text, "oos") for text in STRANGE), *rows[20:]])
    return tmp_path


def family(folder: Path, **settings: Any) -> Classification:
    experiment = build_experiment(toy_config(folder, **{**FEW, "data__none": "oos", **settings}))
    return cast(Classification, experiment.setup.families["classification"])


def test_they_are_in_no_class_and_each_in_one_split(folder: Path) -> None:
    experiment = build_experiment(toy_config(folder, **FEW, data__none="oos"))
    kind = cast(Classification, experiment.setup.families["classification"])
    assert kind.classes == 16
    assert all("oos" not in split.classes for split in experiment.splits["classification"].values())
    texts = {split: [text for text in STRANGE if split_of(text) == split] for split in ("meta_validation", "meta_test")}
    for split, its in texts.items():
        assert len(kind.corpus.rows_of(f"\1{split}")) == len(its) > 4
    look = experiment.looks["classification"]
    assert "24 texts with the label 'oos' belong to no class" in look.remarks()


def test_they_stand_behind_those_of_other_classes(folder: Path) -> None:
    experiment = build_experiment(toy_config(folder, **FEW, data__none="oos"))
    kind = cast(Classification, experiment.setup.families["classification"])
    plain = evaluated(experiment, "meta_test", 1)
    stream = kind.with_outside(plain)
    assert stream is not None
    assert stream.shape == (*plain.shape, ("outside", 2), ("none", 2))
    query = episodes(kind, stream, 0, 3).query
    assert query.inputs["outside"].tolist() == [[0] * 6 + [OTHER] * 2 + [OWN] * 2] * 3
    assert query.weights[:, 6:].eq(0).all()
    assert query.inputs["rows"][:, :6].equal(episodes(kind, plain, 0, 3).query.inputs["rows"])
    known = set(kind.corpus.rows_of("\1meta_test").tolist())
    assert set(query.inputs["rows"][:, 8:].flatten().tolist()) <= known
    outputs = torch.randn(3, 10, 3)
    every = kind.statistics(outputs, query), kind.statistics(outputs[:, :6], episodes(kind, plain, 0, 3).query)
    assert all(torch.allclose(every[0][name], value) for name, value in every[1].items()), "figures do not change"


def test_an_episode_of_all_classes_has_them_too(folder: Path) -> None:
    experiment = build_experiment(toy_config(folder, **FEW, data__none="oos", evaluation__ways=4))
    kind = cast(Classification, experiment.setup.families["classification"])
    stream = kind.with_outside(evaluated(experiment, "meta_test", 1))
    assert stream is not None
    assert dict(stream.shape)["none"] == 2
    assert "outside" not in dict(stream.shape)


def test_evaluation_tells_them_apart(folder: Path) -> None:
    result = run(folder, "run", **FEW, data__none="oos")
    for row in result["meta_test"]:
        assert {"accepted", "auroc", "own_accepted", "own_auroc"} <= row["trust"].keys()
    assert [len(row) for row in trust_rows(result["meta_test"])] == [len(trust_columns(result["meta_test"]))] * 2
    assert trust_columns(result["meta_test"])[-2:] == ("own accepted", "own AUROC")
    shapes = json.loads((folder / "run" / "answers.json").read_text())["shapes"]
    assert shapes


def test_what_cannot_be_used(folder: Path) -> None:
    with pytest.raises(DataError, match=r"data\.none: 'oss' is the label of no row; did you mean oos\?"):
        family(folder, data__none="oss")
    with pytest.raises(ConfigError, match=r"data\.none: \d+ texts for meta_validation, and episodes take"):
        family(folder, evaluation__queries=30, data__copies=True)
