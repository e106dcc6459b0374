"""A gated recurrent unit over words: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder",
EMNLP 2014, https://aclanthology.org/D14-1179. The cell is written here because nn.GRU cannot be stacked over tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from distmeta.models.base import Architecture, registry
from distmeta.models.body import Body
from distmeta.models.text import TextOptions


@registry.register("text_rnn")
@dataclass(frozen=True, kw_only=True)
class TextRNN(TextOptions):
    """Options."""

    hidden_size: Annotated[int, Field(ge=1)] = 128
    bidirectional: bool = True

    def body(self, architecture: Architecture) -> Body:
        """D = hidden_size, or twice that if bidirectional."""
        return TextRNNBody(architecture["vocab_size"], self)


class GRU(nn.Module):
    """One direction. Gates are in the order reset, update, candidate."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.inputs = nn.Linear(input_size, 3 * hidden_size)
        self.state = nn.Linear(hidden_size, 3 * hidden_size)

    def forward(self, embedded: Tensor, present: Tensor, backwards: bool) -> list[Tensor]:
        """(B, L, E) embeddings, (B, L, 1) presence → L states (B, H), each after a word, in the order of reading.

        Padding leaves the state as it is.
        """
        steps = list(zip(self.inputs(embedded).unbind(1), present.unbind(1), strict=True))
        state, states = embedded.new_zeros(embedded.shape[0], self.hidden_size), list[Tensor]()
        for seen, there in reversed(steps) if backwards else steps:
            x_reset, x_update, x_new = seen.chunk(3, dim=-1)
            h_reset, h_update, h_new = self.state(state).chunk(3, dim=-1)
            candidate = torch.tanh(x_new + torch.sigmoid(x_reset + h_reset) * h_new)
            update = torch.sigmoid(x_update + h_update)
            state = torch.where(there, (1 - update) * candidate + update * state, state)
            states.append(state)
        return states


class TextRNNBody(Body):
    """Embeddings → dropout → a GRU in each direction → their last states, side by side → dropout."""

    def __init__(self, vocab_size: int, options: TextRNN) -> None:
        super().__init__()
        self.width = self.dim = options.hidden_size * (2 if options.bidirectional else 1)
        self.embedding = nn.Embedding(vocab_size, options.embedding_size)
        self.forwards = GRU(options.embedding_size, options.hidden_size)
        self.backwards = GRU(options.embedding_size, options.hidden_size) if options.bidirectional else None
        self.dropout = nn.Dropout(options.dropout)

    def _read(self, input_ids: Tensor, attention_mask: Tensor) -> list[list[Tensor]]:
        """The states of each direction, in the order of reading."""
        embedded = self.dropout(self.embedding(input_ids))
        present = attention_mask.bool().unsqueeze(-1)
        states = [self.forwards(embedded, present, backwards=False)]
        if self.backwards is not None:
            states.append(self.backwards(embedded, present, backwards=True))
        return states

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L) → (B, L, D)."""
        forwards, *backwards = self._read(input_ids, attention_mask)
        directions = (forwards, *(states[::-1] for states in backwards))
        return torch.cat([torch.stack(states, 1) for states in directions], dim=-1)

    def pool(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L, D) → (B, D): the last state of each direction."""
        size = self.forwards.hidden_size
        forwards, backwards = states[..., :size], states[..., size:]
        features: Tensor = self.dropout(torch.cat([forwards[:, -1], backwards[:, 0]], dim=-1))
        return features

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L) → (B, D): `pool` of `states`, without a tensor of all states."""
        last_states = [states[-1] for states in self._read(input_ids, attention_mask)]
        features: Tensor = self.dropout(torch.cat(last_states, dim=-1))
        return features

    def for_onnx(self) -> Body:
        """With the operator GRU of ONNX: here a loop runs over a number of words that is known."""
        return OnnxTextRNN(self)


class OnnxTextRNN(Body):
    """A `TextRNNBody` as it is exported; it computes nothing by itself. Padding must be behind a text's words.

    https://onnx.ai/onnx/operators/onnx__GRU.html: gates are in the order update, reset, candidate.
    """

    of_inputs: Tensor
    of_state: Tensor
    biases: Tensor

    def __init__(self, body: TextRNNBody) -> None:
        super().__init__()
        self.width, self.dim, self.embedding = body.width, body.dim, body.embedding
        self.hidden_size = body.forwards.hidden_size
        cells = [cell for cell in (body.forwards, body.backwards) if cell is not None]
        self.register_buffer("of_inputs", torch.stack([_gates(cell.inputs.weight) for cell in cells]))
        self.register_buffer("of_state", torch.stack([_gates(cell.state.weight) for cell in cells]))
        biases = [torch.cat([_gates(cell.inputs.bias), _gates(cell.state.bias)]) for cell in cells]
        self.register_buffer("biases", torch.stack(biases))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L) → (B, D)."""
        from torch.onnx.ops import symbolic_multi_out

        embedded = self.embedding(input_ids).transpose(0, 1)
        lengths = attention_mask.sum(1).int()
        directions, texts = len(self.of_inputs), input_ids.shape[0]
        _, last = symbolic_multi_out(
            "::GRU",
            (embedded, self.of_inputs, self.of_state, self.biases, lengths),
            {
                "hidden_size": self.hidden_size,
                "direction": "bidirectional" if directions == 2 else "forward",
                "linear_before_reset": 1,
            },
            dtypes=(embedded.dtype, embedded.dtype),
            shapes=(
                (embedded.shape[0], directions, texts, self.hidden_size),
                (directions, texts, self.hidden_size),
            ),
            version=18,
        )
        return last.transpose(0, 1).flatten(1)


def _gates(values: Tensor) -> Tensor:
    """A cell's (3H, …) in the order of ONNX."""
    reset, update, candidate = values.detach().chunk(3)
    return torch.cat([update, reset, candidate])
