"""Pretrained encoders: the features of the library itself, and faults that are named."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from model_helpers import WORDS, CrossEntropy, random_batch, save_encoder, stack
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from distmeta.errors import ConfigError, ModelError
from distmeta.models.base import FunctionalModel, build
from distmeta.models.hf import HuggingFace
from distmeta.types import Inputs

TASK: Any = CrossEntropy()
KINDS = ["bert", "distilbert", "roberta"]
SENTENCES = [
    "My card has not arrived yet.",
    "Why?",
    "I was charged twice for the same cash withdrawal abroad, and the exchange rate was wrong as well!",
]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A tiny encoder of each kind."""
    return {kind: save_encoder(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


@pytest.fixture
def copy(encoders: dict[str, str], tmp_path: Path) -> Path:
    """A copy of the tiny BERT to damage."""
    return Path(shutil.copytree(encoders["bert"], tmp_path / "copy"))


def _model(path: str, options: HuggingFace) -> tuple[FunctionalModel, Tokenizer]:
    """As the driver does it; the architecture goes through JSON, as to a worker."""
    tokenizer, architecture = options.prepare(path, [])
    values = {f"body.{name}": value for name, value in options.pretrained(path).items()}
    return build(options, json.loads(json.dumps(architecture)), TASK, 3, values=values), tokenizer


def _encode(tokenizer: Tokenizer, texts: list[str]) -> Inputs:
    """One task's (1, B, L) tokens, padded."""
    ids = [torch.tensor(tokenizer.encode(text).ids) for text in texts]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    return {"input_ids": padded[None], "attention_mask": mask[None], "rows": torch.zeros(1, len(ids))}


def _reference(path: str, texts: list[str], pooling: str = "mean", **config: Any) -> Tensor:
    """Each text by itself, without padding, through the library alone."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path, **config).eval()
    rows = []
    for text in texts:
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        rows.append(F.normalize(hidden[0] if pooling == "cls" else hidden.mean(0), dim=0))
    return torch.stack(rows)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_features_are_those_of_the_library(encoders: dict[str, str], kind: str, pooling: Any, attention: Any) -> None:
    texts = [" ".join(WORDS[:1]), " ".join(WORDS[3:12]), " ".join(WORDS[9:12])]
    model, tokenizer = _model(encoders[kind], HuggingFace(pooling=pooling, attention=attention))
    features = model.features(model.init(), {}, _encode(tokenizer, texts))[0]
    assert torch.allclose(features, _reference(encoders[kind], texts, pooling), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_stacked_features_equal_shared_ones(encoders: dict[str, str], kind: str) -> None:
    model, _ = _model(encoders[kind], HuggingFace())
    inputs = random_batch((2, 5, 8), 24, seed=1).inputs
    shared = model.features(model.init(), {}, inputs)
    assert torch.allclose(model.features({}, stack(model.init(), 2), inputs), shared, atol=1e-6)


def test_minilm_features_are_those_of_the_library(minilm: str) -> None:
    model, tokenizer = _model(minilm, HuggingFace(layers=2))
    features = model.features(model.init(), {}, _encode(tokenizer, SENTENCES))[0]
    expected = _reference(minilm, SENTENCES, num_hidden_layers=2)
    assert torch.allclose(features, expected, atol=1e-5)


def test_minilm_knows_what_is_alike(minilm: str) -> None:
    model, tokenizer = _model(minilm, HuggingFace())
    texts = ["My card was stolen", "Someone took my bank card", "How do I bake bread?"]
    stolen, took, bread = model.features(model.init(), {}, _encode(tokenizer, texts))[0]
    assert stolen @ took > 0.6 > 0.3 > stolen @ bread


def test_layers_keeps_the_first(encoders: dict[str, str]) -> None:
    model, tokenizer = _model(encoders["bert"], HuggingFace(layers=1))
    texts = [" ".join(WORDS[3:12])]
    features = model.features(model.init(), {}, _encode(tokenizer, texts))[0]
    expected = _reference(encoders["bert"], texts, num_hidden_layers=1)
    assert torch.allclose(features, expected, atol=1e-5)
    assert not torch.allclose(features, _reference(encoders["bert"], texts), atol=1e-2)
    with pytest.raises(ConfigError, match=r"^model\.layers: 3 layers of a model of 2;"):
        HuggingFace(layers=3).prepare(encoders["bert"], [])


@pytest.mark.parametrize("kind", KINDS)
def test_pretrained_values_cover_the_body(encoders: dict[str, str], kind: str) -> None:
    options = HuggingFace()
    body = options.body(options.prepare(encoders[kind], [])[1])
    values = options.pretrained(encoders[kind])
    assert values.keys() == dict(body.named_parameters()).keys()
    assert not any("pooler" in name for name in values)
    saved = load_file(Path(encoders[kind]) / "model.safetensors")
    assert all(torch.equal(value, saved[name.removeprefix("encoder.")]) for name, value in values.items())


def test_half_precision_weights_are_read_as_float32(copy: Path) -> None:
    weights = copy / "model.safetensors"
    save_file({k: v.half() for k, v in load_file(weights).items()}, weights, {"format": "pt"})
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))
    model, _ = _model(str(copy), HuggingFace())
    assert {value.dtype for value in model.init().values()} == {torch.float32}


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_replaces_the_encoders_own_rates(encoders: dict[str, str], kind: str) -> None:
    for rate in (0.0, 0.25):
        options = HuggingFace(dropout=rate)
        body = options.body(options.prepare(encoders[kind], [])[1])
        rates = {module.p for module in body.modules() if isinstance(module, torch.nn.Dropout)}
        assert rates == {rate}


def test_the_tokenizer_neither_pads_nor_cuts(minilm: str) -> None:
    tokenizer, architecture = HuggingFace().prepare(minilm, [])
    assert tokenizer.padding is None
    assert tokenizer.truncation is None
    assert tokenizer.encode("Hello").tokens == ["[CLS]", "hello", "[SEP]"]
    assert (architecture["vocab_size"], architecture["pad_id"], architecture["max_length"]) == (30522, 0, 512)


@pytest.mark.parametrize(("kind", "limit"), [("bert", 40), ("distilbert", 40), ("roberta", 39)])
def test_texts_longer_than_the_positions_are_refused(encoders: dict[str, str], kind: str, limit: int) -> None:
    # RoBERTa counts positions from its padding token's, here 0, so that one is lost.
    options = HuggingFace()
    body = options.body(options.prepare(encoders[kind], [])[1])
    ids = torch.full((1, limit), 5)
    assert body(ids, torch.ones_like(ids)).isfinite().all()
    longer = torch.full((1, limit + 1), 5)
    with pytest.raises(ConfigError, match=rf"^data\.max_length: .* at most {limit}$"):
        body(longer, torch.ones_like(longer))


def test_a_package_is_found_without_importing_it(
    encoders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package_with_weights"
    shutil.copytree(encoders["bert"], package / "inside")
    (package / "__init__.py").write_text("raise ImportError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    values = HuggingFace().pretrained("package:package_with_weights/inside")
    assert values.keys() == HuggingFace().pretrained(encoders["bert"]).keys()
    assert "package_with_weights" not in sys.modules


def test_nothing_is_printed_and_settings_come_back(encoders: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    logging.enable_progress_bar()
    verbosity = logging.get_verbosity()
    # One layer: the weights of the other are left over, which transformers would remark on.
    HuggingFace(layers=1).pretrained(encoders["bert"])
    assert capfd.readouterr() == ("", "")
    assert logging.is_progress_bar_enabled()
    assert logging.get_verbosity() == verbosity


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
        ("tokenizer.json", "no tokenizer|tokenizer"),
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
