"""Convolutions over words and a maximum over time: Kim, "Convolutional Neural Networks for Sentence
Classification", EMNLP 2014, https://aclanthology.org/D14-1181.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from distmeta.models.base import Architecture, registry
from distmeta.models.body import Body
from distmeta.models.text import TextOptions

Width = Annotated[int, Field(ge=1)]


@registry.register("text_cnn")
@dataclass(frozen=True, kw_only=True)
class TextCNN(TextOptions):
    """Options. The defaults are Kim's, except for embeddings."""

    widths: Annotated[tuple[Width, ...], Field(min_length=1)] = (3, 4, 5)  # words that a filter sees
    filters: Annotated[int, Field(ge=1)] = 100  # of each width

    def body(self, architecture: Architecture) -> Body:
        """D = filters x number of widths."""
        return TextCNNBody(architecture["vocab_size"], self)


class TextCNNBody(Body):
    """Embeddings → one filter bank per width → ReLU → maximum over windows that start at a word → dropout."""

    def __init__(self, vocab_size: int, options: TextCNN) -> None:
        super().__init__()
        self.widths = options.widths
        self.width = self.dim = options.filters * len(options.widths)
        self.embedding = nn.Embedding(vocab_size, options.embedding_size)
        self.banks = nn.ModuleList(
            nn.Linear(options.embedding_size * width, options.filters) for width in options.widths
        )
        self.dropout = nn.Dropout(options.dropout)

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L) → (B, L, D): outputs of the filters of every width on the window that starts at each word."""
        present = attention_mask.bool().unsqueeze(-1)
        embedded = self.embedding(input_ids) * present
        found = []
        for width, bank in zip(self.widths, self.banks, strict=True):
            # A linear map of unfolded windows. Stacked over tasks, it is twice as fast as a grouped convolution.
            windows = F.pad(embedded, (0, 0, 0, width - 1)).unfold(1, width, 1).flatten(2)
            found.append(bank(windows).relu() * present)
        return torch.cat(found, dim=-1)

    def pool(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L, D) → (B, D). Masked windows are 0 and never exceed the others, because ReLU outputs are ≥ 0."""
        features: Tensor = self.dropout(states.amax(1))
        return features
