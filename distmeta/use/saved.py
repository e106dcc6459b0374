"""Reads a task from where `Task.save` wrote it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from distmeta.errors import CheckpointError
from distmeta.storage import check_sums, require_format
from distmeta.types import Adapted
from distmeta.use import task
from distmeta.use.expect import Expected
from distmeta.use.learner import Learner, load, read_tensors
from distmeta.use.several import ExpectedF1, without_labels

REMEDY = "copy it again, or make it again with `distmeta adapt`"


def load_task(path: str | os.PathLike[str], learner: Learner | None = None) -> task.Task:
    """Reads a task. It needs nothing but its folder.

    Args:
        path: the folder that `Task.save` or `Task.write` wrote.
        learner: the task's learner. None: it is in the folder.

    Raises:
        CheckpointError: there is none, it has another format, or a file was altered.
    """
    folder = Path(path).expanduser()
    if not (folder / task.DOCUMENT).is_file():
        raise CheckpointError(str(path), "holds no task", "make one with `distmeta adapt RUN EXAMPLES --out TASK`")
    check_sums(folder, REMEDY)
    about = json.loads((folder / task.DOCUMENT).read_text(encoding="utf-8"))
    require_format(about, folder, task.FORMAT, remedy="make it again with `distmeta adapt`")
    if learner is None:
        learner = load(folder / task.LEARNER)
    if learner.about["meta_params_sha256"] != about["meta_params_sha256"]:
        raise CheckpointError(str(folder), "was learned by another learner than the one that reads it", REMEDY)
    lines = (folder / task.EXAMPLES).read_text(encoding="utf-8").split("\n")
    examples = tuple(json.loads(line) for line in lines if line)
    family, names = about["family"], tuple(about["names"])
    model, stacked = learner.models[family], read_tensors(folder / task.ADAPTED, REMEDY)
    outputs = learner.codecs[family].encode(without_labels(examples[:1], learner.codecs[family]), names).outputs
    with torch.no_grad():
        theta = learner.algorithm.sized(model, model.own(learner.theta), outputs)
    shared = {name: value for name, value in theta.items() if name not in stacked}
    thresholds = about.get("thresholds") and tuple(about["thresholds"].values())
    expected = about["expected"] and Expected(**about["expected"])
    expected_f1 = about.get("expected_f1") and ExpectedF1(**about["expected_f1"])
    adapted, calibration = Adapted(shared, stacked), about["calibration"]
    answers = (about["threshold"], expected, thresholds, expected_f1, about.get("wrong"))
    return task.Task(learner, family, examples, names, adapted, calibration, *answers)
