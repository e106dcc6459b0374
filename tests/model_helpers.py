"""What the model tests share: a task family, batches, a meta-gradient, and tiny encoders saved as pretrained ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

from distmeta.config.load import build_options
from distmeta.models.base import Architecture, ModelFactory, registry
from distmeta.models.base import build as build_network
from distmeta.models.functional import FunctionalModel
from distmeta.types import Batch, Episode, Params, Stream

WORDS = [f"word{number}" for number in range(20)]
TEXTS = [" ".join(WORDS[start : start + 4]) for start in range(16)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def make_options(name: str, **options: Any) -> ModelFactory:
    """A registered options class from configuration values."""
    made: ModelFactory = build_options(registry.get(name), options, {key: f"model.{key}" for key in options})
    return made


def random_batch(shape: tuple[int, int, int], vocab_size: int, seed: int, classes: int = 3) -> Batch:
    """(T, B, L) texts of every length from 1 to L; beyond a text's end stand arbitrary tokens."""
    generator = torch.Generator().manual_seed(seed)
    tasks, texts, longest = shape
    lengths = 1 + torch.arange(tasks * texts).reshape(tasks, texts) * 7 % longest
    mask = (torch.arange(longest) < lengths.unsqueeze(-1)).long()
    ids = torch.randint(2, vocab_size, shape, generator=generator)
    targets = torch.randint(classes, (tasks, texts), generator=generator)
    inputs = {"input_ids": ids, "attention_mask": mask, "rows": torch.zeros(tasks, texts, dtype=torch.long)}
    inputs["labels"] = targets
    return Batch(inputs, targets, torch.ones(tasks, texts), classes)


def stack(params: Params, tasks: int) -> Params:
    """One view of the parameters for each task, (T, ...)."""
    return {name: value.expand(tasks, *value.shape) for name, value in params.items()}


def meta_loss(
    model: FunctionalModel, params: Params, support: Batch, query: Batch, inner_lr: float, second_order: bool
) -> Tensor:
    """The query loss after one SGD step of all parameters, summed over tasks."""
    stacked = stack(params, support.targets.shape[0])
    loss = model.task.loss(model.outputs({}, stacked, support.inputs), support).sum()
    gradients = torch.autograd.grad(loss, list(stacked.values()), create_graph=second_order)
    adapted = {
        name: value - inner_lr * gradient for (name, value), gradient in zip(stacked.items(), gradients, strict=True)
    }
    return model.task.loss(model.outputs({}, adapted, query.inputs), query).sum()


def save_encoder(folder: Path, model_type: str = "bert", **config: Any) -> str:
    """Saves a tiny random encoder of 2 layers and 8 features, with its tokenizer."""
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokens = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens).save_pretrained(folder)
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_dim" if model_type == "distilbert" else "intermediate_size": 16,
        "max_position_embeddings": 40,
        "initializer_range": 0.4,
    }
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    made = AutoConfig.for_model(model_type, **{"vocab_size": len(vocabulary), **sizes, **ids, **config})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModel.from_config(made).save_pretrained(folder)
    return str(folder)


def build(
    options: ModelFactory,
    architecture: Architecture,
    task: Any,
    outputs: int,
    freeze: Sequence[str] = (),
    values: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> FunctionalModel:
    """A model of a single family."""
    network = build_network(options, architecture, {task.name: (task.head.element, outputs)}, values, seed, device)
    return FunctionalModel(network, task, freeze, options.twice_differentiable)


def episodes(family: Any, stream: Stream, first: int, count: int) -> Episode:
    """Consecutive episodes of a stream, stacked."""
    made: Episode = family.batch([family.draw(stream, index) for index in range(first, first + count)])
    return made
