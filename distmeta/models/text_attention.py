"""A small transformer encoder: Vaswani et al., "Attention Is All You Need", NeurIPS 2017,
https://arxiv.org/abs/1706.03762, with LayerNorm first (Xiong et al., ICML 2020, https://arxiv.org/abs/2002.04745).
Attention is written out: the fused kernels have no second derivative.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from tokenizers import Tokenizer
from torch import Tensor, nn

from distmeta.errors import ConfigError
from distmeta.models.base import Architecture, registry
from distmeta.models.body import Body
from distmeta.models.text import TextOptions, check_length, masked_mean


@registry.register("text_attention")
@dataclass(frozen=True, kw_only=True)
class TextAttention(TextOptions):
    """Options.

    Raises:
        ConfigError: the number of heads does not divide the embedding size.
    """

    layers: Annotated[int, Field(ge=1)] = 2
    heads: Annotated[int, Field(ge=1)] = 4
    hidden_size: Annotated[int, Field(ge=1)] = 256  # of the layers between attentions
    max_length: Annotated[int, Field(ge=1)] = 512  # number of learned positions, as in BERT

    def __post_init__(self) -> None:
        if self.embedding_size % self.heads:
            found = f"{self.heads} heads do not divide {self.embedding_size} features"
            raise ConfigError("model.heads", found, "give a divisor of model.embedding_size")

    def prepare(self, path: str | None, texts: Iterable[str]) -> tuple[Tokenizer, Architecture]:
        """See `TextOptions.prepare`; adds the number of positions, `max_length`."""
        tokenizer, architecture = super().prepare(path, texts)
        return tokenizer, {**architecture, "max_length": self.max_length}

    def body(self, architecture: Architecture) -> Body:
        """D = embedding_size."""
        return TextAttentionBody(architecture["vocab_size"], architecture["max_length"], self)


class Block(nn.Module):
    """LayerNorm → attention, then LayerNorm → hidden layer, each with a residual connection."""

    def __init__(self, options: TextAttention) -> None:
        super().__init__()
        size = options.embedding_size
        self.heads = options.heads
        self.attention_norm, self.hidden_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.queries_keys_values, self.mix = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.up, self.down = nn.Linear(size, options.hidden_size), nn.Linear(options.hidden_size, size)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """(B, L, D) tokens, (B, L) presence → (B, L, D)."""
        tokens = tokens + self.dropout(self.attend(self.attention_norm(tokens), present))
        hidden = self.dropout(F.gelu(self.up(self.hidden_norm(tokens))))
        tokens = tokens + self.dropout(self.down(hidden))
        return tokens

    def attend(self, tokens: Tensor, present: Tensor) -> Tensor:
        """Attention of each head, with queries, keys and values (B, H, L, D/H). The softmax leaves out padding."""
        heads = self.queries_keys_values(tokens).unflatten(-1, (3 * self.heads, -1)).transpose(1, 2)
        queries, keys, values = heads.chunk(3, dim=1)
        scores = queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5
        # Not -inf: a text without tokens would get NaN.
        scores = scores.masked_fill(~present[:, None, None, :], torch.finfo(scores.dtype).min)
        attended = self.dropout(scores.softmax(-1)) @ values
        mixed: Tensor = self.mix(attended.transpose(1, 2).flatten(2))
        return mixed


class TextAttentionBody(Body):
    """Embeddings and positions → dropout → blocks → LayerNorm → mean."""

    def __init__(self, vocab_size: int, max_length: int, options: TextAttention) -> None:
        super().__init__()
        self.width = self.dim = options.embedding_size
        self.max_length = max_length
        self.embedding = nn.Embedding(vocab_size, self.dim)
        self.positions = nn.Embedding(max_length, self.dim)
        for table in (self.embedding, self.positions):
            nn.init.normal_(table.weight, std=0.02)  # as in BERT
        self.blocks = nn.ModuleList(Block(options) for _ in range(options.layers))
        self.norm = nn.LayerNorm(self.dim)
        self.dropout = nn.Dropout(options.dropout)

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L) → (B, L, D).

        Raises:
            ConfigError: L is more than the number of positions.
        """
        check_length(input_ids, self.max_length)
        present = attention_mask.bool()
        tokens: Tensor = self.dropout(self.embedding(input_ids) + self.positions.weight[: input_ids.shape[-1]])
        for block in self.blocks:
            tokens = block(tokens, present)
        normed: Tensor = self.norm(tokens)
        return normed

    def pool(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L, D) → (B, D)."""
        return masked_mean(states, attention_mask.bool())
