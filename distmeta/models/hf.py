"""Pretrained encoders of the transformers library, such as BERT: Devlin et al., NAACL 2019,
https://arxiv.org/abs/1810.04805. States are pooled to one vector per text as in Sentence-BERT: Reimers and
Gurevych, EMNLP 2019, https://arxiv.org/abs/1908.10084.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from tokenizers import Tokenizer
from torch import Tensor, nn

from distmeta.errors import ConfigError, ModelError
from distmeta.models.base import Architecture, ModelOptions, registry
from distmeta.models.body import Body
from distmeta.models.lora import attach, choose
from distmeta.models.pretrained import locate, quiet, reading
from distmeta.models.text import check_length, masked_mean
from distmeta.types import Params

LONG = 300  # tokens, more than the window of local attention
DROPOUTS = (  # names in BERT, DistilBERT and ModernBERT
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"),
    *("embedding_dropout", "mlp_dropout"),
)
LAYERS = {  # encoders of embeddings followed by layers only: they can be cut between layers
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert"), "encoder.layer"),
    "distilbert": "transformer.layer",
}


@registry.register("hf")
@dataclass(frozen=True, kw_only=True)
class HuggingFace(ModelOptions):
    """Options. `dropout` replaces the encoder's own dropout rates."""

    normalize: bool = True  # sentence encoders are trained for cosine similarity
    pooling: Literal["mean", "cls"] = "mean"
    layers: Annotated[int, Field(ge=1)] | None = None  # number of first layers used; None: all
    attention: Literal["eager", "sdpa"] = "eager"  # sdpa is faster, but some of its kernels have no second derivative
    lora_rank: Annotated[int, Field(ge=1)] | None = None  # r of adapters on linear layers; None: no adapters
    lora_targets: str | tuple[str, ...] | None = None  # patterns of linear layers; None: query and value (§4.2)
    lora_alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None  # α; None: r, so α / r = 1

    @property
    def twice_differentiable(self) -> bool:
        """False for fused attention kernels: they have only a first derivative."""
        return self.attention == "eager"

    def prepare(self, path: str | None, texts: Iterable[str]) -> tuple[Tokenizer, Architecture]:
        """Reads tokenizer and configuration. `texts` are not used.

        Raises:
            ConfigError: `model.path` is missing, `model.layers` is more than the encoder has, `model.lora_targets`
                matches no linear layer, or adapter options are given without `model.lora_rank`.
            ModelError: the folder does not hold a text encoder with its tokenizer.
        """
        from transformers import AutoTokenizer

        for option in ("lora_targets", "lora_alpha"):
            if self.lora_rank is None and getattr(self, option) is not None:
                raise ConfigError(f"model.{option}", "given without model.lora_rank", "set model.lora_rank, such as 4")
        folder, where = locate(path), f"model.path {path}"
        with reading(where):
            config = self._config(folder, where)
            # The meta device: the encoder's structure without its memory.
            with torch.device("meta"):
                encoder = self._encoder(config)
            if self.lora_rank is not None:
                choose(encoder, self.lora_targets)
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        if not tokenizer.is_fast or set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
            raise ModelError(where, "no tokenizer that the tokenizers library reads", "add its tokenizer.json")
        if tokenizer.pad_token_id is None:
            raise ModelError(where, "its tokenizer has no padding token", "choose an encoder like BERT")
        if len(tokenizer) > config.vocab_size:
            found = f"{len(tokenizer)} tokens in its tokenizer, {config.vocab_size} in config.json"
            raise ModelError(where, found, "give the tokenizer that belongs to the model")
        backend = tokenizer.backend_tokenizer
        backend.no_padding()
        backend.no_truncation()
        return backend, {
            "model_type": config.model_type,
            "config": json.loads(config.to_json_string(use_diff=False)),
            "vocab_size": config.vocab_size,
            "pad_id": tokenizer.pad_token_id,
            "max_length": min(tokenizer.model_max_length, _positions(encoder)),
        }

    def pretrained(self, path: str | None) -> Params:
        """Reads the weights, only from safetensors.

        Raises:
            ModelError: weights are missing, unreadable or do not cover the encoder, or features depend on padding.
        """
        from transformers import AutoModel

        _, architecture = self.prepare(path, ())
        where = f"model.path {path}"
        with reading(where):
            config = self._rebuild(architecture)
            encoder, report = AutoModel.from_pretrained(
                locate(path),
                config=config,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **self._keywords(config),
            )
            if missing := sorted(report["missing_keys"]):
                found = f"no weights for {missing[0]} ({len(missing)} parameters in all)"
                raise ModelError(where, found, "give a model whose safetensors hold the whole encoder")
            body = HuggingFaceBody(encoder, architecture, self.pooling)
            _check_padding(body, architecture, where)
        return {name: value.detach() for name, value in body.named_parameters()}

    def body(self, architecture: Architecture) -> Body:
        """D = the encoder's hidden size."""
        with quiet():
            body = HuggingFaceBody(self._encoder(self._rebuild(architecture)), architecture, self.pooling)
        if self.lora_rank is not None:
            targets, alpha = choose(body.encoder, self.lora_targets), self.lora_alpha or self.lora_rank
            body.lora = attach(body.encoder, targets, self.lora_rank, alpha)
        return body

    def _config(self, folder: Path, where: str) -> Any:
        from transformers import AutoConfig
        from transformers.models.auto.modeling_auto import MODEL_MAPPING

        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if type(config) not in MODEL_MAPPING or config.is_encoder_decoder:
            raise ModelError(where, f"{config.model_type} is not an encoder", "choose one like BERT")
        if self.layers is not None:
            if self.layers > config.num_hidden_layers:
                found = f"{self.layers} layers of a model of {config.num_hidden_layers}"
                raise ConfigError("model.layers", found, "give fewer, or leave it out for all")
            config.num_hidden_layers = self.layers
        return config

    def _rebuild(self, architecture: Architecture) -> Any:
        from transformers import AutoConfig

        config = AutoConfig.for_model(architecture["model_type"]).from_dict(architecture["config"])
        for name in DROPOUTS:
            if hasattr(config, name):
                setattr(config, name, self.dropout)
        return config

    def _encoder(self, config: Any) -> Any:
        from transformers import AutoModel

        return AutoModel.from_config(config, **self._keywords(config))

    def _keywords(self, config: Any) -> dict[str, Any]:
        from transformers.models.auto.modeling_auto import MODEL_MAPPING

        known = inspect.signature(MODEL_MAPPING[type(config)]).parameters
        pooler = {"add_pooling_layer": False} if "add_pooling_layer" in known else {}  # never used here
        return {"attn_implementation": self.attention, "dtype": torch.float32, **pooler}


class HuggingFaceBody(Body):
    """An encoder and the pooling of its last layer. `lora` may hold adapters, which act inside the encoder."""

    lora: nn.Module

    def __init__(self, encoder: Any, architecture: Architecture, pooling: str) -> None:
        super().__init__()
        self.encoder, self.pooling = encoder, pooling
        self.width = self.dim = encoder.config.hidden_size
        self.max_length = architecture["max_length"]
        self.layers = LAYERS.get(architecture["model_type"])
        self.splits = self.layers is not None

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L) → (B, L, D).

        Raises:
            ConfigError: L is more than the number of positions.
        """
        if self.splits:
            return self.upper(self.lower(input_ids, attention_mask, 0), attention_mask, 0)
        check_length(input_ids, self.max_length)
        added = _added(attention_mask, self.encoder.get_input_embeddings().weight.dtype)
        hidden: Tensor = self.encoder(input_ids=input_ids, attention_mask=added).last_hidden_state
        return hidden

    def lower(self, input_ids: Tensor, attention_mask: Tensor, layers: int) -> Tensor:
        """(B, L) → (B, L, D) after the first `layers` layers."""
        check_length(input_ids, self.max_length)
        return self._run(self.encoder.embeddings(input_ids), attention_mask, slice(0, layers))

    def upper(self, states: Tensor, attention_mask: Tensor, layers: int) -> Tensor:
        """(B, L, D) after `layers` layers → (B, L, D) after the last layer."""
        return self._run(states, attention_mask, slice(layers, None))

    def _run(self, hidden: Tensor, attention_mask: Tensor, which: slice) -> Tensor:
        added = _added(attention_mask, hidden.dtype)
        for layer in list(self.encoder.get_submodule(self.layers))[which]:
            hidden = layer(hidden, attention_mask=added)
        return hidden

    def pool(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L, D) and (B, L) → (B, D)."""
        return states[:, 0] if self.pooling == "cls" else masked_mean(states, attention_mask)


def _added(attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, L) → (B, 1, 1, L), added to the scores. For (B, L), transformers calls .item(), which vmap forbids."""
    return ((1 - attention_mask.to(dtype)) * torch.finfo(dtype).min)[:, None, None, :]


def _positions(encoder: Any) -> int:
    """The most tokens that an encoder takes.

    RoBERTa and its relatives do not use the positions up to the padding token's. ModernBERT's attention is local: in
    longer texts, the mask of `HuggingFaceBody.states` would let tokens attend outside the window.
    """
    if (window := getattr(encoder.config, "local_attention", None)) is not None:
        return int(window) // 2 + 1
    embeddings = getattr(encoder, "embeddings", None)
    padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    limit: int = encoder.config.max_position_embeddings
    return limit if padding is None else limit - padding - 1


def _check_padding(body: HuggingFaceBody, architecture: Architecture, where: str) -> None:
    """Compares a text's features with and without padding: some encoders treat a mask in another way.

    The text is long, so that it also checks encoders with local attention.
    """
    length = min(architecture["max_length"] - 3, LONG)
    words = [i for i in range(architecture["vocab_size"]) if i != architecture["pad_id"]][:length]
    ids = torch.tensor([(words * length)[:length]])
    mask = torch.ones_like(ids)
    body.eval()
    with torch.no_grad():
        expected = body.pool(body.encoder(input_ids=ids, attention_mask=mask).last_hidden_state, mask)
        found = body(F.pad(ids, (0, 3), value=architecture["pad_id"]), F.pad(mask, (0, 3)))
    if not torch.allclose(found, expected, atol=1e-4):
        kind = architecture["model_type"]
        raise ModelError(where, f"{kind} features depend on padding", "choose an encoder like BERT")
