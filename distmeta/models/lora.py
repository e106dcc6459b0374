"""Low-rank adapters: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022,
https://arxiv.org/abs/2106.09685.

Why not `peft` (0.21): it can be stacked and differentiated twice, but it renames each layer that it wraps
(`query.weight` becomes `query.base_layer.weight`) and adds names beside it (`query.lora_A.default.weight`).
Pretrained values, checkpoints and frozen patterns would need a map of names. Its configuration holds sets, which JSON
does not have. Every worker would have to install `peft` and `accelerate`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distmeta.errors import ConfigError

PREFIX = "body.encoder."  # of the encoder's parameters in a model
QUERY_VALUE = (
    "*.query",
    "*.value",
    "*.q_lin",
    "*.v_lin",
    "*.q_proj",
    "*.v_proj",
)  # names in BERT, in DistilBERT and in other encoders


class Adapter(nn.Module):
    """Adds α / r · B A x to a linear layer's output for x. A is (r, in). B is (out, r) and starts at zero."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.scale = alpha / rank
        self.A = nn.Parameter(torch.randn(rank, linear.in_features) / linear.in_features**0.5)
        self.B = nn.Parameter(torch.zeros(linear.out_features, rank))

    def add(self, linear: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        """A forward hook: (..., in) and (..., out) → (..., out)."""
        return output + self.scale * F.linear(F.linear(inputs[0], self.A), self.B)


def choose(encoder: nn.Module, patterns: str | Sequence[str] | None) -> list[str]:
    """Names of the encoder's linear layers that match the patterns. Without patterns: query and value projections.

    Raises:
        ConfigError: a pattern matches no linear layer.
    """
    linear = [name for name, module in encoder.named_modules() if isinstance(module, nn.Linear)]

    def fits(pattern: str) -> list[str]:
        return [name for name in linear if fnmatch.fnmatchcase(PREFIX + name, pattern)]

    patterns = (patterns,) if isinstance(patterns, str) else patterns
    wanted = QUERY_VALUE if patterns is None else patterns
    chosen = {name for pattern in wanted for name in fits(pattern)}
    missing = [repr(pattern) for pattern in patterns or () if not fits(pattern)]
    if missing or not chosen:
        found = f"{missing[0] if missing else 'the default (query and value)'} fits no linear layer of this encoder"
        shown = ", ".join(PREFIX + name for name in linear[:6])
        raise ConfigError("model.lora_targets", found, f"name some of its {len(linear)} linear layers, such as {shown}")
    return [name for name in linear if name in chosen]


def attach(encoder: nn.Module, targets: Sequence[str], rank: int, alpha: float) -> nn.Module:
    """Hooks adapters to linear layers. Returns a module that holds the adapters under the layers' names.

    The encoder's parameters keep their names, and the adapters stay outside the encoder.
    """
    adapters = nn.Module()
    for name in targets:
        linear = encoder.get_submodule(name)
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"{name} is not a linear layer")
        adapter, parent = Adapter(linear, rank, alpha), adapters
        *above, last = name.split(".")
        for part in above:
            if part not in dict(parent.named_children()):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module(last, adapter)
        linear.register_forward_hook(adapter.add)
    return adapters
