"""What a replica does: learns tasks, grows them and answers. Plain calls, without Ray."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from distmeta.errors import LINE, CheckpointError, DataError, UserError, shortened
from distmeta.protocols import Codec
from distmeta.serve.limits import Limits, Refusal, unknown
from distmeta.serve.memory import Memory
from distmeta.serve.store import Store, TakenError, UnknownTaskError, served_of
from distmeta.use.learner import load
from distmeta.use.saved import load_task
from distmeta.use.task import Task
from distmeta.use.together import Question, answer_together


class Asked(NamedTuple):
    """A request for predictions."""

    task: str
    inputs: list[Any]
    abstain: bool


class Desk:
    """One thread may call `predict` while another one calls `create` or `grow`.

    Args:
        learner: the folder of the learner.
        tasks: the folder of the tasks, which was made.
        limits: of the service.
    """

    def __init__(self, learner: str, tasks: str, limits: Limits) -> None:
        self._store, self._limits, self._memory = Store(Path(tasks)), limits, Memory(limits.memory_bytes)
        # A model puts a task's parameters into its network while it computes, so each thread has its own.
        self._answering = load(learner)
        self._learning = replace(self._answering)

    @property
    def codecs(self) -> dict[str, Codec]:
        """The codec of each family."""
        return self._answering.codecs

    def create(self, task: str, request: dict[str, Any]) -> dict[str, Any] | Refusal:
        """Learns a task and keeps it under an id. If that was done already, as a killed replica leaves it, it stays."""
        try:
            return self._store.describe(task)
        except UnknownTaskError:
            pass
        family = request["family"] or next(iter(self._learning.codecs))
        if family not in self._learning.codecs:
            known = f"give one of {', '.join(self._learning.codecs)}"
            return Refusal(422, "family", f"this learner has no family {family!r}", known)
        try:
            inputs, answers = self._split(family, request["examples"], ())
            learned = _finite(self._learning.adapt(inputs, answers, wrong=request["wrong"], family=family))
        except UserError as error:
            return _refusal(error, "examples")
        try:
            return self._keep(task, 1, learned, request["name"], request["wrong"], None)
        except TakenError:
            return self._store.describe(task)

    def grow(self, task: str, request: dict[str, Any]) -> dict[str, Any] | Refusal:
        """Learns a task again with further examples. `request["key"]` tells a request that is sent again."""
        while True:
            try:
                version = self._store.newest(task)
                kept, served = self._task(task), served_of(version)
            except UnknownTaskError:
                return unknown(task)
            if served["key"] == request["key"]:
                return self._store.describe(task)
            try:
                inputs, answers = self._split(kept.family, request["examples"], kept.examples)
                grown = _finite(replace(kept, learner=self._learning).grow(inputs, answers, wrong=served["wrong"]))
            except UserError as error:
                return _refusal(error, "examples", len(kept.examples))
            try:
                name, wrong = served["name"], served["wrong"]
                return self._keep(task, int(version.name) + 1, grown, name, wrong, request["key"])
            except TakenError:
                continue  # another request has grown it in the meantime
            except UnknownTaskError:
                return unknown(task)

    def predict(self, asked: Sequence[Asked]) -> list[list[dict[str, Any]] | Refusal]:
        """The predictions of each request, as `Task.answers` gives them."""
        found: list[list[dict[str, Any]] | Refusal] = [unknown(request.task) for request in asked]
        questions: dict[int, Question] = {}
        for number, request in enumerate(asked):
            try:
                questions[number] = Question(self._task(request.task), request.inputs, request.abstain)
            except UnknownTaskError:
                continue
            except CheckpointError as error:
                found[number] = _broken(error)
        for number, answers in zip(questions, answer_together(list(questions.values())), strict=True):
            found[number] = _refusal(answers, "inputs") if isinstance(answers, DataError) else answers
        return found

    def _task(self, task: str) -> Task:
        """The newest version of a task, from memory or from disk."""
        while True:
            version = self._store.newest(task)
            if (kept := self._memory.get(task, version.name)) is not None:
                return kept
            try:
                kept = load_task(version, self._answering)
            except (CheckpointError, OSError):
                if self._store.newest(task) == version:
                    raise
                continue  # it has been replaced in the meantime
            self._memory.put(task, version.name, kept)
            return kept

    def _split(
        self, family: str, examples: Sequence[dict[str, Any]], known: Sequence[Any]
    ) -> tuple[list[Any], list[Any]]:
        """Inputs and answers.

        Raises:
            DataError: a task may not have so many examples or classes.
        """
        codec, limits = self._learning.codecs[family], self._limits
        if (count := len(known) + len(examples)) > limits.examples:
            raise DataError("examples", f"{count} with those before", f"give a task at most {limits.examples}")
        if codec.has_classes:
            answers = [example.get(codec.answer) for example in (*known, *examples)]
            classes = {label for answer in answers for label in (answer if isinstance(answer, list) else [answer])}
            if len(classes) > limits.classes:
                raise DataError("examples", f"{len(classes)} classes", f"give a task at most {limits.classes}")
        missing = [(n, key) for n, e in enumerate(examples, 1) for key in (*codec.given, codec.answer) if key not in e]
        if missing:
            number, key = missing[0]
            raise DataError(f"example {number + len(known)}", f"has no {key}", "give it one")
        inputs = [{key: example[key] for key in codec.given} for example in examples]
        return inputs, [example[codec.answer] for example in examples]

    def _keep(
        self, task: str, number: int, learned: Task, name: str | None, wrong: float | None, key: str | None
    ) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        served: dict[str, Any] = {
            "name": name,
            "examples": len(learned.examples),
            "cut": learned.codec.cut(learned.examples),
        }
        served |= {"wrong": wrong, "changed": now, "key": key}
        version = self._store.add(task, number, served, learned.write)
        self._memory.put(task, version.name, replace(learned, learner=self._answering))
        return self._store.describe(task)


def _finite(task: Task) -> Task:
    """The task.

    Raises:
        DataError: adaptation diverged.
    """
    if not all(bool(value.isfinite().all()) for value in task.adapted.stacked.values()):
        raise DataError("examples", "the learner diverged on them", "give others, or serve another learner")
    return task


def _refusal(error: UserError, field: str, before: int = 0) -> Refusal:
    """A user's error; an example's number, counted from 1, becomes the place in the request."""
    where = error.where
    if found := re.fullmatch(r"example (\d+)", where):
        where = f"{field}[{int(found[1]) - 1 - before}]"
    return Refusal(422, where, shortened(error.found, LINE), error.remedy)


def _broken(error: CheckpointError) -> Refusal:
    return Refusal(500, "task", f"its files {error.found}", "delete it and make it again")
