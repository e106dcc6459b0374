"""A task as ONNX: https://onnx.ai. Needs the extra `onnx`."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distmeta.data.tokens import prepared
from distmeta.errors import ConfigError, ModelError
from distmeta.use.export.function import Classifier
from distmeta.use.task import Task

FORMAT = 1
MODEL, DOCUMENT, TOKENIZER = "model.onnx", "labels.json", "tokenizer.json"
INPUTS, OUTPUTS = ("input_ids", "attention_mask"), ("logits", "probabilities")
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
LARGE = 2**30  # bytes of weights that stand in a file of their own: one of ONNX holds at most 2 GiB


def check(task: Task) -> None:
    """Refuses an environment without the packages."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise ConfigError("--format", f"onnx, and {missing[0]} is not installed", "pip install 'distmeta[onnx]'")


def write(task: Task, folder: Path, max_length: int) -> None:
    """Writes the model, the tokenizer, and what both need to be used.

    Raises:
        ModelError: the body has operations that cannot be exported.
    """
    classifier = Classifier(task).eval()
    classifier.network.body = classifier.network.body.for_onnx()
    ids = torch.zeros(2, min(3, max_length), dtype=torch.long)
    sizes = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("length", min=1, max=max_length)}
    try:
        with _quiet(), torch.no_grad():
            torch.onnx.export(
                classifier,
                (ids, torch.ones_like(ids)),
                folder / MODEL,
                input_names=INPUTS,
                output_names=OUTPUTS,
                dynamic_shapes=(sizes, sizes),
                dynamo=True,
                external_data=4 * sum(value.numel() for value in classifier.state_dict().values()) > LARGE,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        name = task.learner.about["model"]["architecture"].get("model_type", "its body")
        raise ModelError(str(task.family), f"torch cannot export {name} to ONNX", "use the task itself") from error
    learner: Any = task.learner
    tokenizer, pad_id = prepared(learner.tokenizer, max_length)
    tokenizer.enable_padding(pad_id=pad_id, pad_token=tokenizer.id_to_token(pad_id) or "")
    (folder / TOKENIZER).write_text(tokenizer.to_str(), encoding="utf-8")
    about = {
        "format": FORMAT,
        "labels": list(task.names),
        "abstention_threshold": task.threshold,
        "label_thresholds": task.limits,
        "max_length": max_length,
        "inputs": list(INPUTS),
        "outputs": list(OUTPUTS),
    }
    (folder / DOCUMENT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def probabilities(folder: Path, texts: list[str], labels: tuple[str, ...]) -> np.ndarray:
    """(n, N) probabilities that onnxruntime gives, for texts of several lengths at once.

    Raises:
        ModelError: the model takes only texts of one length.
    """
    import onnxruntime
    from tokenizers import Tokenizer

    session = onnxruntime.InferenceSession(folder / MODEL, providers=["CPUExecutionProvider"])
    if fixed := [size for given in session.get_inputs() for size in given.shape if not isinstance(size, str)]:
        found = f"the exported model takes only batches and texts of the size {fixed[0]}"
        raise ModelError(str(folder), found, "use the task itself")
    tokenizer, parts = Tokenizer.from_file(str(folder / TOKENIZER)), list[np.ndarray]()
    for start in range(0, len(texts), 8):
        tokens = tokenizer.encode_batch(texts[start : start + 8])
        ids, mask = [its.ids for its in tokens], [its.attention_mask for its in tokens]
        given = dict(zip(INPUTS, (np.array(ids, np.int64), np.array(mask, np.int64)), strict=True))
        parts.append(session.run(["probabilities"], given)[0])
    return np.concatenate(parts)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides the exporter's remarks on itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
