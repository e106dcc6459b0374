"""The mean of a text's embeddings, then hidden layers: Iyyer et al., "Deep Unordered Composition Rivals
Syntactic Methods for Text Classification", ACL 2015, https://aclanthology.org/P15-1162.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from distmeta.models.base import Architecture, registry
from distmeta.models.body import Body
from distmeta.models.text import TextOptions, masked_mean

Size = Annotated[int, Field(ge=1)]


@registry.register("mlp")
@dataclass(frozen=True, kw_only=True)
class MLP(TextOptions):
    """Options."""

    hidden_sizes: tuple[Size, ...] = (256,)  # empty: features are the mean embedding

    def body(self, architecture: Architecture) -> Body:
        """D = the last hidden size."""
        return MLPBody(architecture["vocab_size"], self)


class MLPBody(Body):
    """Mean embedding → dropout → linear, ReLU and dropout for each hidden layer."""

    def __init__(self, vocab_size: int, options: MLP) -> None:
        super().__init__()
        sizes = (options.embedding_size, *options.hidden_sizes)
        self.width, self.dim = sizes[0], sizes[-1]
        self.embedding = nn.Embedding(vocab_size, options.embedding_size)
        self.hidden = nn.ModuleList(nn.Linear(size, wider) for size, wider in itertools.pairwise(sizes))
        self.dropout = nn.Dropout(options.dropout)

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L) → (B, L, E): the embeddings."""
        embedded: Tensor = self.embedding(input_ids)
        return embedded

    def pool(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L, E) → (B, D)."""
        features: Tensor = self.dropout(masked_mean(states, attention_mask))
        for layer in self.hidden:
            features = self.dropout(layer(features).relu())
        return features
