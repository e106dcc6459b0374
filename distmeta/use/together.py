"""Predictions of several tasks at once: they share one run of the body, if the learner does not adapt it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from distmeta.errors import DataError
from distmeta.protocols import Prediction
from distmeta.types import Batch, Inputs
from distmeta.use.adapting import adapts_body
from distmeta.use.examples import example_of
from distmeta.use.task import Task


class Question(NamedTuple):
    """Inputs of a task whose answers are wanted; without `abstain` all of them get one."""

    task: Task
    inputs: Sequence[Any]
    abstain: bool = True


def answer_together(questions: Sequence[Question]) -> list[list[Prediction] | DataError]:
    """The answers to each question, as `Task.answers` gives them, or the error of an input that cannot be used.

    All tasks must be of one learner.
    """
    found: list[list[Prediction] | DataError] = [[] for _ in questions]
    shared: dict[str, list[tuple[int, Batch]]] = {}  # the questions of each family whose inputs can be put together
    for number, (task, inputs, abstain) in enumerate(questions):
        try:
            if not inputs or not _shares_body(task):
                found[number] = list(task.answers(inputs, abstain))
            else:
                batch = task.codec.encode([example_of(task.codec, value) for value in inputs], task.names)
                shared.setdefault(task.family, []).append((number, batch))
        except DataError as error:
            found[number] = error
    for family, asked in shared.items():
        features = _features(questions[asked[0][0]].task, family, [batch.inputs for _, batch in asked])
        for (number, batch), part in zip(asked, features, strict=True):
            task, _, abstain = questions[number]
            found[number] = task.decode(task.outputs({"features": part}), batch, abstain)
    return found


def _shares_body(task: Task) -> bool:
    model = task.learner.models[task.family]
    return model.one_element_each and not adapts_body(task.learner, model.own(task.learner.theta))


def _features(task: Task, family: str, inputs: Sequence[Inputs]) -> Sequence[Tensor]:
    """(1, E, D) of each of the inputs."""
    learner, model = task.learner, task.learner.models[family]
    model.train(False)
    counts = [next(iter(each.values())).shape[1] for each in inputs]
    joined = {name: _join([each[name] for each in inputs]) for name in model.reads}
    with torch.no_grad():
        features = model.encode(model.own(learner.theta), (), joined)["features"]
    return torch.split(features, counts, dim=1)


def _join(values: Sequence[Tensor]) -> Tensor:
    """(1, B, …) of several tasks along B; tokens (1, B, L) are padded to the longest."""
    if values[0].dim() == 3:
        longest = max(value.shape[2] for value in values)
        values = [F.pad(value, (0, longest - value.shape[2])) for value in values]
    return torch.cat(list(values), dim=1)
