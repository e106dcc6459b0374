"""A task that was learned from a user's examples: it predicts, says how sure it is, grows, and is saved.

TASK/task.json            format, family, calibration, expected accuracy
     examples.jsonl       the examples it was learned from
     adapted.safetensors  the parameters that were adapted or built for it
     learner/             the learner
     SHA256SUMS           hashes of the other files
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from distmeta.errors import CheckpointError, DataError
from distmeta.protocols import Codec, Example, Prediction
from distmeta.storage import replacing
from distmeta.types import Adapted, Batch, Inputs
from distmeta.use import several
from distmeta.use.adapting import Learns, adapt
from distmeta.use.examples import DESCRIBES, chunks, example_of, examples_of
from distmeta.use.expect import Expected

FORMAT = 1
DOCUMENT, EXAMPLES, ADAPTED, LEARNER = "task.json", "examples.jsonl", "adapted.safetensors", "learner"


@dataclass(frozen=True, eq=False)
class Task:
    """A learned task.

    `names` holds the meanings of the targets: for classification the classes, in the order of `predict_proba`.
    `calibration` is the learner's for tasks of the nearest shape; without one, probabilities are as the learner gives
    them. Answers whose certainty is below `threshold` are not given. With `thresholds`, one for each class, an answer
    is the list of classes whose probability reaches it: see `distmeta.use.several`.
    """

    learner: Learns
    family: str
    examples: tuple[Example, ...]
    names: tuple[str, ...]
    adapted: Adapted
    calibration: Mapping[str, Any] | None
    threshold: float
    expected: Expected | None
    thresholds: tuple[float, ...] | None = None
    expected_f1: several.ExpectedF1 | None = None
    wrong: float | None = None  # the share of wrong answers that was asked for

    @property
    def codec(self) -> Codec:
        """The family's codec."""
        return self.learner.codecs[self.family]

    @property
    def counts(self) -> dict[str, int]:
        """How many `examples`, `descriptions` and `unlabelled` texts it was learned from."""
        labelled = [example for example in self.examples if self.codec.answer in example]
        described = sum(DESCRIBES in example for example in labelled)
        rest = len(self.examples) - len(labelled)
        return {"examples": len(labelled) - described, "descriptions": described, "unlabelled": rest}

    def predict(self, inputs: Sequence[Any], abstain: bool = True) -> list[Any]:
        """The answer to each input; None where it is not sure enough, unless `abstain` is false.

        If inputs have several labels, an answer is a list of them; it may be empty, unless `abstain` is false.

        Raises:
            DataError: an input cannot be used; the error gives its number, from 1.
        """
        return [found[self.codec.answer] for found in self.answers(inputs, abstain)]

    def predict_proba(self, inputs: Sequence[Any]) -> np.ndarray:
        """(n, N) probabilities of the classes `names`."""
        rows = [[found["probabilities"][name] for name in self.names] for found in self.answers(inputs)]
        return np.array(rows).reshape(len(rows), len(self.names))

    def score(self, inputs: Sequence[Any], answers: Sequence[Any]) -> float:
        """The family's score on examples, such as accuracy; it never abstains. With several labels, micro F1."""
        return self.figures(inputs, answers)["micro_f1" if self.thresholds else self.codec.score.name]

    @property
    def limits(self) -> dict[str, float] | None:
        """The threshold of each class by name, if inputs have several labels."""
        return dict(zip(self.names, self.thresholds, strict=True)) if self.thresholds else None

    def figures(self, inputs: Sequence[Any], answers: Sequence[Any]) -> dict[str, float]:
        """The family's figures on examples; with several labels, `micro_f1`, `macro_f1` and `exact`."""
        examples = examples_of(self.codec, inputs, answers)
        if self.thresholds:
            wanted = several.truth_of(several.with_sets(examples, self.codec), self.codec, self.names)
            found = [{self.codec.answer: labels} for labels in self.predict(inputs)]
            return several.figures(several.truth_of(found, self.codec, self.names), wanted)
        parts = [(self.codec.encode(part, self.names), part) for part in chunks(examples)]
        statistics = [self.codec.statistics(self.outputs(batch.inputs), batch) for batch, _ in parts]
        joined = {name: torch.cat([found[name] for found in statistics]) for name in statistics[0]}
        return self.codec.figures(joined)

    def answers(self, inputs: Iterable[Any], abstain: bool = True) -> Iterator[Prediction]:
        """A prediction for each input, as they come: for classification `label`, `certainty` and `probabilities`."""
        first = 1
        for part in chunks(inputs):
            batch = self.codec.encode([example_of(self.codec, value) for value in part], self.names, first)
            yield from self.decode(self.outputs(batch.inputs), batch, abstain)
            first += len(part)

    def decode(self, outputs: Tensor, batch: Batch, abstain: bool) -> list[Prediction]:
        """The predictions of `answers`, from what `outputs` gives on a batch."""
        if self.thresholds:
            return several.decide(outputs[0], self.names, self.thresholds, self.codec.answer, abstain)
        return self.codec.decode(outputs, batch, self.names, self.threshold if abstain else 0.0)

    def grow(
        self,
        inputs: Sequence[Any] = (),
        answers: Sequence[Any] = (),
        *,
        unlabelled: Sequence[Any] = (),
        descriptions: Mapping[str, Any] = MappingProxyType({}),
        wrong: float | None = None,
    ) -> Task:
        """The task learned from its examples and further ones, of the same classes or of new ones.

        See `distmeta.use.learner.Learner.adapt`.
        """
        more = examples_of(self.codec, inputs, answers, unlabelled, descriptions)
        if self.thresholds is None and several.are_several(answers):
            remedy = "adapt a new task with several labels to all examples"
            raise DataError("examples", "lists of labels, and the task's texts have one label each", remedy)
        examples, wrong = [*self.examples, *more], self.wrong if wrong is None else wrong
        return learn(self.learner, self.family, examples, wrong, self.thresholds is not None)

    def save(self, folder: str | Path) -> None:
        """Writes the task and its learner, completely or not at all. A task that is there is replaced.

        Raises:
            CheckpointError: it cannot be written, or the folder holds something else.
        """
        folder = Path(folder)
        if folder.exists() and not (folder / DOCUMENT).is_file():
            raise CheckpointError(str(folder), "exists and holds no task", "name another folder")
        try:
            with replacing(folder) as aside:
                self.write(aside)
                self.learner.save(aside / LEARNER)
        except OSError as error:
            raise CheckpointError(
                str(folder), f"the task cannot be written ({error})", "make room, or name another folder"
            ) from error

    def write(self, folder: Path) -> None:
        """Writes the task without its learner, and without hashes, into a folder that exists."""
        about = {
            "format": FORMAT,
            "family": self.family,
            "names": list(self.names),
            "meta_params_sha256": self.learner.about["meta_params_sha256"],
            "calibration": self.calibration,
            "threshold": self.threshold,
            "thresholds": self.limits,
            "wrong": self.wrong,
            "expected": self.expected and self.expected._asdict(),
            "expected_f1": self.expected_f1 and self.expected_f1._asdict(),
        }
        lines = chain.from_iterable((json.dumps(example, ensure_ascii=False), "\n") for example in self.examples)
        (folder / DOCUMENT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        (folder / EXAMPLES).write_text("".join(lines), encoding="utf-8")
        save_file({name: value.contiguous() for name, value in self.adapted.stacked.items()}, folder / ADAPTED)

    def look(self, inputs: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """The features (n, D) of inputs, one element each, and how far each answer is from another one, (n,).

        This is 0 to 1: how much likelier the likeliest class is than the next one; with several labels, how far the
        least certain decision is from the class's threshold.
        """
        batch = self.codec.encode([example_of(self.codec, value) for value in inputs], self.names)
        body = {name: value for name, value in self.adapted.stacked.items() if name.startswith("body.")}
        with torch.no_grad():
            outputs = self.outputs(batch.inputs)
            features = self.learner.models[self.family].features(self.adapted.shared, body, batch.inputs)[0]
        if self.thresholds:
            return features.numpy(), np.array([2 * its["certainty"] - 1 for its in self.decode(outputs, batch, True)])
        two = outputs[0].softmax(-1).topk(2).values
        return features.numpy(), (two[:, 0] - two[:, 1]).numpy()

    def outputs(self, inputs: Inputs) -> Tensor:
        """(1, E, N) outputs, calibrated, from what the codec encodes or from `features` (1, E, D)."""
        model = self.learner.models[self.family]
        model.train(False)
        with torch.no_grad():
            outputs = self.learner.algorithm.predict(model, self.adapted, inputs)
        return outputs / self.calibration["temperature"] if self.calibration else outputs


def learn(
    learner: Learns,
    family: str,
    examples: Sequence[Example],
    wrong: float | None = None,
    sets: bool = False,
    expect: bool = True,
) -> Task:
    """Learns a task; see `distmeta.use.adapting.adapt`."""
    return Task(learner, family, **adapt(learner, family, examples, wrong, sets, expect)._asdict(), wrong=wrong)
