"""Exports a task, and compares what was written with the task before it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from distmeta.errors import CheckpointError, ConfigError, ModelError
from distmeta.storage import replacing
from distmeta.use.export import hub, onnx
from distmeta.use.export.card import card
from distmeta.use.task import Task

FORMS: dict[str, Any] = {"hf": hub, "onnx": onnx}
CARD = "README.md"
COMPARED = 64  # examples whose probabilities are compared
TOLERANCE = 1e-4


def export(task: Task, folder: Path, form: str) -> float:
    """Writes a task in the form of another library, completely or not at all.

    Args:
        task: a task of classifying texts.
        folder: a new one.
        form: hf, a folder that `transformers.pipeline("text-classification", model=folder)` loads; or onnx, a model
            that onnxruntime runs, with its tokenizer and its labels.

    Returns:
        The largest difference of a probability from the task's, on its own examples.

    Raises:
        CheckpointError: the folder exists, or cannot be written.
        ConfigError: the task cannot be expressed in this form, or a package is missing.
        ModelError: what was written gives other probabilities.
    """
    if folder.exists():
        raise CheckpointError(str(folder), "exists", "name another folder")
    model, codec = task.learner.models[task.family], task.codec
    if codec.head.element != "text" or not model.task.has_classes or codec.reads != "text":
        raise ConfigError("--format", f"{form}, and the task does not classify texts", "export another task")
    FORMS[form].check(task)
    max_length = int(task.learner.about["families"][task.family]["codec"]["max_length"])
    try:
        with replacing(folder) as aside:
            FORMS[form].write(task, aside, max_length)
            (aside / CARD).write_text(card(task, form, folder.name, max_length), encoding="utf-8")
            difference = _difference(task, aside, form)
            if not difference <= TOLERANCE:
                found = (
                    f"its probabilities differ by {difference:.2g} from the task's, which is more than {TOLERANCE:g}"
                )
                raise ModelError(str(folder), found, hub.REMEDY if form == "hf" else "use the task itself")
    except OSError as error:
        remedy = "make room, or name another folder"
        raise CheckpointError(str(folder), f"cannot be written ({error})", remedy) from error
    return difference


def _difference(task: Task, folder: Path, form: str) -> float:
    """The largest difference of a probability, on examples and on a text of all of them, which is cut."""
    texts = [str(example["text"]) for example in task.examples[:COMPARED]]
    texts.append(" ".join(texts))
    found = FORMS[form].probabilities(folder, texts, task.names)
    return float(np.abs(found - task.predict_proba(texts)).max())
