"""A sentence encoder with a linear head, as an encoder with the head of `BertForSequenceClassification`.

That class computes W tanh(P h + p) + b from the last state h of the first token. Here a text's features are often the
mean m of its tokens' states, of unit length. The class's own operations express that, up to rounding:

- The mean: in one more layer all queries and keys are 0, so that it attends to all tokens of the text alike.
- Unit length: LayerNorm divides by a vector's length, but takes its mean away first. So each state is kept twice,
  [h; h], which has the same mean and variance in all layers. The further layer makes [m; −m]. Its mean is 0, and
  LayerNorm gives √D [m; −m] / ‖m‖.
- Features that keep their length: a large constant K beside m makes LayerNorm divide by K.
- The residual connection: what is added is made so small, or m so large, that it does not matter.
- tanh is linear near 0: P is small and W is large.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distmeta.models.base import Network
from distmeta.models.lora import Adapter
from distmeta.types import Params
from distmeta.use.export.function import Linear

GAIN = 2.0**24  # of the mean, over what the residual connection adds and over LayerNorm's eps
CONSTANT = 2.0**12  # K, in typical entries of a state
SMALL = 2.0**-12  # the largest argument of tanh
RANGE = 8.0  # the largest entry of a state, in typical ones
DISTILBERT = {  # names in DistilBERT, and in BERT
    "transformer.layer": "encoder.layer",
    "attention.q_lin": "attention.self.query",
    "attention.k_lin": "attention.self.key",
    "attention.v_lin": "attention.self.value",
    "attention.out_lin": "attention.output.dense",
    "sa_layer_norm": "attention.output.LayerNorm",
    "ffn.lin1": "intermediate.dense",
    "ffn.lin2": "output.dense",
    "output_layer_norm": "output.LayerNorm",
}
ROBERTA = ("roberta", "xlm-roberta", "camembert")  # they differ in their tokenizers
KNOWN = ("bert", "distilbert", *ROBERTA)


def as_classifier(network: Network, function: Linear, max_length: int) -> tuple[dict[str, Any], Params]:
    """The configuration and the parameters of a classifier of the transformers library.

    Args:
        network: of a body of one of the `KNOWN` types, with the task's parameters.
        function: from features to logits.
        max_length: the most tokens of a text. The classifier has no more positions, so that a longer text, which
            has other features here, is an error there.
    """
    body: Any = network.body
    given = body.encoder.config
    bert = given.model_type not in ROBERTA
    values = {name: value.double() for name, value in _merged(body).items()}
    unused = 0 if bert else int(given.pad_token_id) + 1  # RoBERTa counts from there
    positions = "embeddings.position_embeddings.weight"
    values[positions] = values[positions][: max_length + unused]
    values.setdefault("embeddings.token_type_embeddings.weight", torch.zeros(1, body.dim, dtype=torch.float64))
    size, layers = body.dim, int(given.num_hidden_layers)
    largest = 1.0 if network.normalize else RANGE * _typical(values, layers)
    if body.pooling == "cls" and not network.normalize:
        features = torch.eye(size, dtype=torch.float64)
    else:
        values = {name: _twice(name, value, size) for name, value in values.items()}
        features = _add_layer(values, layers, size, body.pooling, network.normalize, _eps(body.encoder))
    wide = features.shape[1]
    slope = SMALL / largest
    dense, out = ("pooler.dense", "classifier") if bert else ("classifier.dense", "classifier.out_proj")
    prefix = "bert." if bert else "roberta."
    head = {
        f"{prefix if bert else ''}{dense}.weight": _padded(slope * features, wide, wide),
        f"{prefix if bert else ''}{dense}.bias": torch.zeros(wide),
        f"{out}.weight": _padded(function.weight / slope, len(function.weight), wide),
        f"{out}.bias": function.bias,
    }
    params = {**{prefix + name: value for name, value in values.items()}, **head}
    config = {
        "model_type": "bert" if bert else "roberta",
        "vocab_size": len(values["embeddings.word_embeddings.weight"]),
        "hidden_size": wide,
        "num_hidden_layers": layers + int(wide > size),
        "num_attention_heads": given.num_attention_heads * wide // size,
        "intermediate_size": len(values["encoder.layer.0.intermediate.dense.bias"]),
        "hidden_act": given.activation if given.model_type == "distilbert" else given.hidden_act,
        "max_position_embeddings": len(values[positions]),
        "type_vocab_size": len(values["embeddings.token_type_embeddings.weight"]),
        "layer_norm_eps": _eps(body.encoder),
        "pad_token_id": given.pad_token_id,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    return config, {name: value.float().contiguous() for name, value in params.items()}


def _eps(encoder: nn.Module) -> float:
    return next(float(module.eps) for module in encoder.modules() if isinstance(module, nn.LayerNorm))


def _merged(body: Any) -> Params:
    """The encoder's parameters under BERT's names. Adapters are added to the weights that they act on."""
    values = dict(body.encoder.state_dict())
    for name, adapter in getattr(body, "lora", nn.Module()).named_modules():
        if isinstance(adapter, Adapter):
            values[f"{name}.weight"] = values[f"{name}.weight"] + adapter.scale * adapter.B @ adapter.A
    if body.encoder.config.model_type == "distilbert":
        for theirs, bert in DISTILBERT.items():
            values = {name.replace(theirs, bert): value for name, value in values.items()}
    return values


def _twice(name: str, value: Tensor, size: int) -> Tensor:
    """A parameter of the encoder whose states are kept twice."""
    if name.endswith("embeddings.weight"):
        return torch.cat([value, value], 1)
    if "LayerNorm" in name:
        return torch.cat([value, value])
    if ".attention.self." in name:  # twice as many heads; those of the second half see and give nothing
        return _padded(value, 2 * size, 2 * size) if value.dim() == 2 else torch.cat([value, torch.zeros_like(value)])
    if "output.dense" in name:
        both = torch.cat([value, value])
        return _padded(both, 2 * size, 2 * size) if ".attention." in name and value.dim() == 2 else both
    return _padded(value, len(value), 2 * size) if value.dim() == 2 else value  # intermediate.dense


def _add_layer(values: Params, layers: int, size: int, pooling: str, normalize: bool, eps: float) -> Tensor:
    """Adds the layer that pools. Returns the features as a linear function (D, 2D) of its output."""
    last, new = f"encoder.layer.{layers - 1}.", f"encoder.layer.{layers}."
    constant, one = CONSTANT * _typical(values, layers), torch.eye(size, dtype=torch.float64)
    for name, value in list(values.items()):
        if name.startswith(last):
            values[name.replace(last, new)] = torch.zeros_like(value)
    ones = torch.ones(2 * size, dtype=torch.float64)
    values[f"{new}attention.output.LayerNorm.weight"] = ones
    # Its input has variance 1, of which LayerNorm makes 1 / √(1 + eps).
    values[f"{new}output.LayerNorm.weight"] = ones * math.sqrt(1 + eps)
    residual, mixed = ones, _padded(torch.cat([one, -one]), 2 * size, 2 * size)
    features = torch.cat([one, -one], 1) / (2 * math.sqrt(size))
    if pooling == "cls":
        residual = torch.cat([ones[:size], -ones[:size]]) * GAIN  # it gives the features
        mixed = torch.zeros_like(mixed)
    elif not normalize:
        residual, pairs = ones / GAIN, (size - 2) // 2
        mixed = _padded(torch.cat([one, -ones[None, :size]]), 2 * size, 2 * size)
        added = torch.zeros_like(ones)
        added[size + 2 : size + 2 + 2 * pairs] = constant * torch.tensor([1.0, -1.0]).repeat(pairs)
        values[f"{new}attention.output.dense.bias"] = added
        features = _padded(one, size, 2 * size)
        features[:, size + 1] = -1  # an entry that is 0, but for the rounding of LayerNorm's mean
        features *= float(added.square().mean().sqrt())
    for kind in ("weight", "bias"):
        values[f"{last}output.LayerNorm.{kind}"] = values[f"{last}output.LayerNorm.{kind}"] * residual
    values[f"{new}attention.self.value.weight"] = _padded(GAIN * one, 2 * size, 2 * size)
    values[f"{new}attention.output.dense.weight"] = mixed
    return features


def _typical(values: Params, layers: int) -> float:
    """The typical size of an entry of the encoder's states, from its last LayerNorm."""
    name = f"encoder.layer.{layers - 1}.output.LayerNorm."
    return float((values[f"{name}weight"].square() + values[f"{name}bias"].square()).mean().sqrt())


def _padded(value: Tensor, rows: int, columns: int) -> Tensor:
    """A matrix with zeros below and beside it."""
    return F.pad(value, (0, columns - value.shape[1], 0, rows - value.shape[0]))
