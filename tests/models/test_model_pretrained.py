"""Where encoders are found, and faults that are named."""

import json
import logging.handlers
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from model_helpers import save_encoder
from safetensors.torch import load_file, save_file

from distmeta.errors import ConfigError, ModelError
from distmeta.models.hf import HuggingFace


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny BERT."""
    return save_encoder(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def copy(bert: str, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return Path(shutil.copytree(bert, tmp_path / "copy"))


def test_a_package_is_found_without_importing_it(bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package_with_weights"
    shutil.copytree(bert, package / "inside")
    (package / "__init__.py").write_text("raise ImportError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    values = HuggingFace().pretrained("package:package_with_weights/inside")
    assert values.keys() == HuggingFace().pretrained(bert).keys()
    assert "package_with_weights" not in sys.modules


def test_nothing_is_printed_and_settings_come_back(bert: str, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging as transformers_logging

    handler = logging.handlers.BufferingHandler(capacity=100)
    monitored = logging.getLogger("transformers")
    transformers_logging.enable_progress_bar()
    verbosity = transformers_logging.get_verbosity()
    monitored.addHandler(handler)
    # One layer: the weights of the other are left over, on which transformers would remark.
    HuggingFace(layers=1).pretrained(bert)
    monitored.removeHandler(handler)
    assert capfd.readouterr() == ("", "")
    assert handler.buffer == []
    assert transformers_logging.is_progress_bar_enabled()
    assert transformers_logging.get_verbosity() == verbosity


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no/such/folder", r"no folder no/such/folder; give a folder, hub:"),
        ("hub:someone/something", r"[Cc]annot find .*; check the name and the connection"),
        ("hub:a/b/c", r"Repo id must be .*; check the name"),
        ("package:no_such_package/model", r"package 'no_such_package' is not installed; pip"),
        ("package:../model", r"package '\.\.' is not installed"),
        ("package:tokenizers/model", r"no folder .*tokenizers/model"),
    ],
)
def test_places_where_nothing_lies(path: str, message: str) -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    with pytest.raises(ModelError, match=rf"^model\.path {path}: {message}") as raised:
        HuggingFace().prepare(path, [])
    assert "\n" not in str(raised.value)


def test_a_missing_path_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^model\.path: missing; give a folder"):
        HuggingFace().prepare(None, [])


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("config.json", "no config.json in"),
        ("tokenizer.json", "instantiate the backend tokenizer from one of; give a text encoder"),
        ("model.safetensors", "no file named model.safetensors"),
    ],
)
def test_missing_files_are_named(copy: Path, removed: str, message: str) -> None:
    (copy / removed).unlink()
    with pytest.raises(ModelError, match=message) as raised:
        HuggingFace().pretrained(str(copy))
    assert str(raised.value).startswith(f"model.path {copy}: ")


@pytest.mark.parametrize("damaged", ["config.json", "tokenizer.json", "model.safetensors"])
def test_damaged_files_are_refused_in_one_line(copy: Path, damaged: str) -> None:
    (copy / damaged).write_text("{")
    with pytest.raises(ModelError) as raised:
        HuggingFace().pretrained(str(copy))
    assert str(raised.value).startswith(f"model.path {copy}: ")
    assert raised.value.__cause__ is not None


def test_pickled_weights_are_never_read(copy: Path) -> None:
    weights = copy / "model.safetensors"
    torch.save(load_file(weights), copy / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        HuggingFace().pretrained(str(copy))


def test_weights_that_do_not_cover_the_encoder_are_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    values = load_file(weights)
    del values["encoder.layer.1.output.dense.bias"]
    save_file(values, weights, {"format": "pt"})
    with pytest.raises(ModelError, match=r"no weights for encoder\.layer\.1\.output\.dense\.bias"):
        HuggingFace().pretrained(str(copy))


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "intermediate_size": 12}))
    with pytest.raises(ModelError, match=rf"^model\.path {copy}: "):
        HuggingFace().pretrained(str(copy))


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = save_encoder(tmp_path, vocab_size=10)
    with pytest.raises(ModelError, match=r"24 tokens in its tokenizer, 10 in config\.json"):
        HuggingFace().prepare(path, [])


def test_an_encoder_without_a_tokenizer_of_its_own_is_refused(copy: Path) -> None:
    for file in copy.glob("*token*"):
        file.unlink()
    # transformers makes one up: special tokens and not a word.
    with pytest.raises(ModelError, match="no tokenizer that the tokenizers library reads"):
        HuggingFace().prepare(str(copy), [])


@pytest.mark.parametrize("kind", ["gpt2", "deberta"])
def test_models_that_read_a_mask_in_another_way_are_refused(tmp_path: Path, kind: str) -> None:
    path = save_encoder(tmp_path, kind)
    with pytest.raises(ModelError, match=f"{kind} features depend on padding"):
        HuggingFace().pretrained(path)


def test_encoder_decoders_are_refused(copy: Path) -> None:
    (copy / "config.json").write_text(json.dumps({"model_type": "bart", "vocab_size": 24}))
    with pytest.raises(ModelError, match="bart is not an encoder"):
        HuggingFace().prepare(str(copy), [])
