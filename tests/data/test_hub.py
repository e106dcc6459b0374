"""Data sets of the hub. A folder ./owner/name in the hub's layout is loaded by the same code, without a network."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_helpers import labels, texts

from distmeta.config import DataConfig
from distmeta.data.labelled import Source
from distmeta.data.sources import read_source
from distmeta.errors import DataError


def read(path: str, **keys: Any) -> Source:
    return read_source(DataConfig(path=path, **keys))


def fault(path: str, **keys: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **keys)
    return str(caught.value)


def write(path: Path, texts: list[str], labels: list[Any]) -> None:
    pq.write_table(pa.table({"text": texts, "label": labels}), path)


@pytest.fixture
def hub_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "clinc" / "clinc_oos"
    (folder / "data").mkdir(parents=True)
    return folder


def test_hub_concatenates_all_splits(hub_folder: Path) -> None:
    write(hub_folder / "data" / "test-00000-of-00001.parquet", ["c"], ["y"])
    write(hub_folder / "data" / "train-00000-of-00001.parquet", ["a", "b"], ["x", "y"])
    source = read("hub:clinc/clinc_oos")
    assert (texts(source), labels(source)) == (["a", "b", "c"], ["x", "y", "y"])
    assert list(source.names)[1:] == ["hub:clinc/clinc_oos train row 2", "hub:clinc/clinc_oos test row 1"]
    assert "hub:clinc/clinc_oos train: no column 'intent'" in fault("hub:clinc/clinc_oos", label="intent")


README = """---
configs:
- config_name: small
  data_files: [{split: train, path: data/small-*}]
- config_name: plus
  data_files: [{split: train, path: data/plus-*}]
dataset_info:
- config_name: small
  features: &features
  - {name: text, dtype: string}
  - {name: label, dtype: {class_label: {names: {'0': hello, '1': bye}}}}
- config_name: plus
  features: *features
---
"""


def test_hub_subset_and_class_names(hub_folder: Path) -> None:
    (hub_folder / "README.md").write_text(README)
    write(hub_folder / "data" / "small-0.parquet", ["a", "b"], [1, 0])
    write(hub_folder / "data" / "plus-0.parquet", ["c", "d"], [0, -1])
    assert labels(read("hub:clinc/clinc_oos", subset="small")) == ["bye", "hello"]
    plus = read("hub:clinc/clinc_oos", subset="plus")
    assert (texts(plus), labels(plus), plus.unlabelled) == (["c"], ["hello"], 1)
    assert "1 rows with the label -1 are left out" in plus.remarks[0]
    assert re.search("'large' not found.*small.*data.subset", fault("hub:clinc/clinc_oos", subset="large"))


def test_hub_offline_fails_at_once(hub_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    assert "hub:nobody/nothing: cannot be loaded" in fault("hub:nobody/nothing")
    assert "not of the form hub:owner/name" in fault("hub:nothing")

    # Without offline mode the first question, and no second one, meets the missing network.
    def unreachable(self: Any, name: str, timeout: float) -> None:
        raise OSError("Name or service not known")

    def retrying(*args: Any) -> None:
        raise AssertionError("would try again for half a minute")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    monkeypatch.setattr("datasets.load_dataset", retrying)
    assert re.search("hub:nobody/nothing: .*Name or service.*network", fault("hub:nobody/nothing"))
