"""Pretrained encoders: the features of the library itself."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fakes import CrossEntropy
from model_helpers import WORDS, build, random_batch, save_encoder, stack
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from distmeta.errors import ConfigError
from distmeta.models.functional import FunctionalModel
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
    assert stolen @ took > 0.6
    assert stolen @ bread < 0.3


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


def test_half_precision_weights_are_read_as_float32(tmp_path: Path) -> None:
    copy = Path(save_encoder(tmp_path))
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


def test_an_encoder_of_local_attention_takes_texts_within_its_reach(tmp_path: Path) -> None:
    """A window of 16 reaches 8 to either side: of 9 tokens each sees all, of 10 the first and last do not."""
    sizes = {"max_position_embeddings": 64, "local_attention": 16, "global_attn_every_n_layers": 2}
    sizes |= {"cls_token_id": 2, "sep_token_id": 3}
    path = save_encoder(tmp_path, "modernbert", **sizes)
    _, architecture = HuggingFace().prepare(path, ())
    assert architecture["max_length"] == 9
    assert HuggingFace().pretrained(path)  # padding changes nothing
