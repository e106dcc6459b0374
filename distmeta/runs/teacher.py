"""The teacher of a distilled run: another run's learner, checked to fit, ready to work beside the student's.

It is a `RunSetup` of its own: its tokens, model and θ. Only the episodes that it is given are the student's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from distmeta.config import RunConfig
from distmeta.engine.params import sha256
from distmeta.engine.setup import RunSetup
from distmeta.errors import CheckpointError, ConfigError, UserError
from distmeta.runs import checkpoint, directory
from distmeta.tasks.base import Kind
from distmeta.types import Work

if TYPE_CHECKING:
    from distmeta.runs.experiment import Experiment

KEY = "algorithm.teacher"


@dataclass(frozen=True)
class Trained:
    """Stands for the teacher's model where texts are tokenised: its tokenizer is made already."""

    tokenizer: Any  # a `Tokenizer`; none where numbers are read
    architecture: dict[str, Any]

    def prepare(self, path: str | None, texts: Iterable[str]) -> tuple[Tokenizer, dict[str, Any]]:
        """What the teacher was meta-trained with, whatever the texts."""
        return self.tokenizer, self.architecture


def load_teacher(
    folder: str | None, student: Experiment, kind: Kind, build: Callable[[RunConfig], Experiment]
) -> RunSetup:
    """The newest checkpoint of a run, set up to meet the student's meta-training episodes.

    Args:
        folder: the teacher's run directory.
        student: the run to be taught.
        kind: loads the student's data.
        build: makes an experiment of the teacher's own configuration.

    Raises:
        UserError: naming `algorithm.teacher`, and what of the run does not fit.
    """
    if folder is None:
        raise ConfigError(KEY, "missing", "give the run directory of a meta-trained teacher")
    where, path = f"{KEY} {folder}", Path(folder).expanduser()
    try:
        config, _ = directory.read(path, [])
        state, identity = checkpoint.load(path)
        own = build(config)
    except UserError as error:
        raise CheckpointError(where, f"{error.where} {error.found}", error.remedy) from error
    theta = state.arrays["meta_params"]
    changed = [name for name in ("data", "frozen_params") if own.identity[name] != identity[name]]
    if theta.shape != own.setup.meta_params.shape:
        changed.append("meta_params")
    if changed:
        found = f"was made with other {changed[0].replace('_', ' ')}"
        raise CheckpointError(where, found, "restore what it was made with, or meta-train it again")
    _check_fit(where, own, student)
    data = student.config.data.model_copy(update={"max_length": own.config.data.max_length})
    reading = student.config.model_copy(update={"data": data, "model": own.config.model})
    task = kind.load(reading, Trained(own.tokenizer, own.setup.model.architecture)).task
    adapts_body = any(name.startswith("body.") for name in own.learner.adapts(list(own.setup.layout.names)))
    # θ never changes: where all tasks share the body, it runs once a row.
    cached = not adapts_body and len(task.rows("meta_train")) > 0
    teaching = Work(student.setup.training.stream, own.learner, training=False, cache_features=cached)
    return replace(own.setup, task=task, meta_params=theta, training=teaching)


def teacher_sha256(teacher: RunSetup) -> str:
    """Hash of all that decides what the teacher says: its θ, what is frozen, its model, learner and tokens."""
    frozen = {name: hashlib.sha256(value.tobytes()).hexdigest() for name, value in teacher.model.frozen.items()}
    decides = (teacher.layout, frozen, teacher.model.options, teacher.training.learner, teacher.task.fingerprint)
    return hashlib.sha256(repr((sha256(teacher.meta_params), decides)).encode()).hexdigest()


def _check_fit(where: str, own: Experiment, student: Experiment) -> None:
    """Refuses a teacher of other data, one that knows what the student is tested on, and a head of other ways."""
    stream = student.setup.training.stream
    if own.setup.task.manifest(stream, 0) != student.setup.task.manifest(stream, 0):
        raise ConfigError(where, "was meta-trained on other data", "give a teacher of this run's data")
    here = {name: split for split, its in student.splits.items() for name in its.classes}
    for name in own.splits["meta_train"].classes:
        if (split := here.get(name, "no split")) != "meta_train":
            found = f"was meta-trained on {name!r}, which is of {split} here"
            raise ConfigError(where, found, "give a teacher with the same data.splits and data.split")
    outputs = student.setup.model.outputs
    if own.setup.model.outputs != outputs and any(name.startswith("head.") for name in own.setup.layout.names):
        found = f"meta-learned a head of {own.setup.model.outputs} outputs, and the episodes need {outputs}"
        raise ConfigError(where, found, "set episodes.ways to the teacher's, or give one of protomaml or protonet")
