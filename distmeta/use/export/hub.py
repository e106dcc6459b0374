"""A task as a folder that the transformers library reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distmeta.data.tokens import prepared
from distmeta.errors import ConfigError
from distmeta.models.pretrained import quiet
from distmeta.use.export.encoder import KNOWN, as_classifier
from distmeta.use.export.function import linear, network_of
from distmeta.use.task import Task

TOKENIZER = "tokenizer_config.json"
REMEDY = "use --format onnx"


def check(task: Task) -> None:
    """Refuses bodies that `BertForSequenceClassification` and its like do not express."""
    model = task.learner.about["model"]
    kind = model["architecture"].get("model_type", model["name"])
    if kind not in KNOWN:
        raise ConfigError("--format", f"hf, which is for {', '.join(KNOWN)}, and the body is {kind}", REMEDY)


def write(task: Task, folder: Path, max_length: int) -> None:
    """Writes weights, configuration and tokenizer.

    Raises:
        ConfigError: the task's outputs are not a linear function of features.
    """
    if (function := linear(task)) is None:
        name = task.learner.about["algorithm"]["name"]
        found = f"hf, and {name} scores classes by more than a linear function of a text's features"
        raise ConfigError("--format", found, REMEDY)
    settings, params = as_classifier(network_of(task), function, max_length)
    from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

    labels = dict(enumerate(task.names))
    config = AutoConfig.for_model(
        **settings,
        id2label=labels,
        label2id={label: number for number, label in labels.items()},
        problem_type="single_label_classification",
        abstention_threshold=task.threshold,
        label_thresholds=task.limits,
    )
    with quiet(), torch.random.fork_rng(devices=[]):
        model = AutoModelForSequenceClassification.from_config(config)
        model.load_state_dict(params)
        model.save_pretrained(folder)
        tokenizer, pad_id = prepared(_tokenizer(task), max_length)
        tokenizer.no_truncation()
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token=tokenizer.id_to_token(pad_id),
            model_max_length=max_length,
            model_input_names=["input_ids", "attention_mask"],
        ).save_pretrained(folder)
    # Under the name that transformers 4 knows too.
    settings = json.loads((folder / TOKENIZER).read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / TOKENIZER).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def probabilities(folder: Path, texts: list[str], labels: tuple[str, ...]) -> np.ndarray:
    """(n, N) probabilities that `pipeline` gives."""
    from transformers import pipeline

    with quiet():
        classify = pipeline("text-classification", model=str(folder), top_k=None, truncation=True, device="cpu")
        found = classify(texts, batch_size=8)
    rows = [{its["label"]: its["score"] for its in scores} for scores in found]
    return np.array([[row[label] for label in labels] for row in rows])


def _tokenizer(task: Task) -> Any:
    learner: Any = task.learner
    return learner.tokenizer
