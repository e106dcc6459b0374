"""Predictions as rows of CSV or lines of JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TextIO

from distmeta.data.label_sets import SEPARATOR
from distmeta.data.texts import Texts
from distmeta.errors import DataError
from distmeta.protocols import Prediction
from distmeta.report.tables import cell
from distmeta.use.examples import chunks
from distmeta.use.task import Task

DIGITS = 6  # of a probability


def predictions(
    task: Task, blocks: Iterable[Texts], note: Callable[[str], None], abstain: bool = True
) -> Iterator[tuple[str, Prediction]]:
    """Each text with its prediction, in order. A text that cannot be used has no answer, and `note` names its row."""
    for block in blocks:
        usable = [text for text in block.texts if text is not None]
        found = _answers(task, usable, abstain)
        for text, name in zip(block.texts, block.names, strict=True):
            prediction = {task.codec.answer: None, "reason": "no text"} if text is None else next(found)
            if reason := prediction.pop("reason", None):
                note(f"{name}: {reason}, and no answer")
            yield text or "", prediction


def _answers(task: Task, texts: Sequence[str], abstain: bool) -> Iterator[Prediction]:
    """Predictions; for a text that cannot be used, no answer and the `reason`."""
    for part in chunks(texts):
        try:
            yield from list(task.answers(part, abstain))
        except DataError:
            yield from (_one(task, text, abstain) for text in part)


def _one(task: Task, text: str, abstain: bool) -> Prediction:
    try:
        (prediction,) = task.answers([text], abstain)
    except DataError as error:
        return {task.codec.answer: None, "reason": error.found}
    return prediction


def write_csv(file: TextIO, task: Task, rows: Iterable[tuple[str, Prediction]]) -> None:
    """A row for each text: text, answer, certainty, and the probability of each class. No answer: an empty cell."""
    columns = ["text", task.codec.answer, "certainty", *(f"p({name})" for name in task.names)]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([cell(column) for column in columns])
    for text, prediction in rows:
        shares = prediction.get("probabilities", {})
        values = [prediction.get("certainty"), *(shares.get(name) for name in task.names)]
        shown = ["" if value is None else f"{value:.{DIGITS}g}" for value in values]
        writer.writerow([cell(text), cell(_joined(prediction[task.codec.answer])), *shown])


def write_json_lines(file: TextIO, task: Task, rows: Iterable[tuple[str, Prediction]]) -> None:
    """A line for each text, with the keys of `write_csv`. No answer: null."""
    for text, prediction in rows:
        file.write(json.dumps({"text": text, **_rounded(prediction)}, ensure_ascii=False) + "\n")


def write_suggestions(file: TextIO, task: Task, texts: Sequence[str]) -> None:
    """A row for each text: the text, an empty cell for its label, and the likeliest label with its certainty."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["text", task.codec.answer, "guess", "certainty"])
    for text, prediction in zip(texts, task.answers(texts, abstain=False), strict=True):
        guess = cell(_joined(prediction[task.codec.answer]))
        writer.writerow([cell(text), "", guess, f"{prediction['certainty']:.{DIGITS}g}"])


def _joined(answer: Any) -> str:
    """An answer as a cell: several labels between bars, and nothing for none."""
    return SEPARATOR.join(answer) if isinstance(answer, list) else answer or ""


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return round(value, DIGITS) if isinstance(value, float) else value
