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
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from distmeta.errors import CheckpointError, DataError
from distmeta.models.functional import FunctionalModel
from distmeta.protocols import Codec, Example, MetaLearner, Prediction
from distmeta.report.certainty import WRONG, nearest
from distmeta.storage import replacing
from distmeta.types import UNLABELLED, Adapted, Batch, Inputs, Params
from distmeta.use.examples import DESCRIBES, chunks, example_of, examples_of
from distmeta.use.expect import Expected, cross_validate

FORMAT = 1
DOCUMENT, EXAMPLES, ADAPTED, LEARNER = "task.json", "examples.jsonl", "adapted.safetensors", "learner"
USUAL = 0.05  # share of wrong answers, if none is asked for
NUMBERS = 50_000_000  # of the features of unlabelled examples, once a class


class Learns(Protocol):
    """A learner, as its tasks see it."""

    @property
    def about(self) -> dict[str, Any]:
        """The content of learner.json."""

    @property
    def algorithm(self) -> MetaLearner:
        """The algorithm that adapts."""

    @property
    def theta(self) -> Params:
        """θ of all families."""

    @property
    def codecs(self) -> dict[str, Codec]:
        """The codec of each family."""

    @property
    def models(self) -> dict[str, FunctionalModel]:
        """The model of each family."""

    def save(self, folder: Path) -> None:
        """Writes the learner."""


@dataclass(frozen=True, eq=False)
class Task:
    """A learned task.

    `names` holds the meanings of the targets: for classification the classes, in the order of `predict_proba`.
    `calibration` is the learner's for tasks of the nearest shape; without one, probabilities are as the learner gives
    them. Answers whose certainty is below `threshold` are not given.
    """

    learner: Learns
    family: str
    examples: tuple[Example, ...]
    names: tuple[str, ...]
    adapted: Adapted
    calibration: Mapping[str, Any] | None
    threshold: float
    expected: Expected | None
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

        Raises:
            DataError: an input cannot be used; the error gives its number, from 1.
        """
        return [found[self.codec.answer] for found in self.answers(inputs, abstain)]

    def predict_proba(self, inputs: Sequence[Any]) -> np.ndarray:
        """(n, N) probabilities of the classes `names`."""
        rows = [[found["probabilities"][name] for name in self.names] for found in self.answers(inputs)]
        return np.array(rows).reshape(len(rows), len(self.names))

    def score(self, inputs: Sequence[Any], answers: Sequence[Any]) -> float:
        """The family's score on examples, such as accuracy; it never abstains."""
        examples = examples_of(self.codec, inputs, answers)
        parts = [(self.codec.encode(part, self.names), part) for part in chunks(examples)]
        statistics = [self.codec.statistics(self.outputs(batch.inputs), batch) for batch, _ in parts]
        joined = {name: torch.cat([found[name] for found in statistics]) for name in statistics[0]}
        return self.codec.figures(joined)[self.codec.score.name]

    def answers(self, inputs: Iterable[Any], abstain: bool = True) -> Iterator[Prediction]:
        """A prediction for each input, as they come: for classification `label`, `certainty` and `probabilities`."""
        threshold, first = self.threshold if abstain else 0.0, 1
        for part in chunks(inputs):
            batch = self.codec.encode([example_of(self.codec, value) for value in part], self.names, first)
            yield from self.codec.decode(self.outputs(batch.inputs), batch, self.names, threshold)
            first += len(part)

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
        return learn(self.learner, self.family, [*self.examples, *more], self.wrong if wrong is None else wrong)

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
            "wrong": self.wrong,
            "expected": self.expected and self.expected._asdict(),
        }
        lines = chain.from_iterable((json.dumps(example, ensure_ascii=False), "\n") for example in self.examples)
        (folder / DOCUMENT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        (folder / EXAMPLES).write_text("".join(lines), encoding="utf-8")
        save_file({name: value.contiguous() for name, value in self.adapted.stacked.items()}, folder / ADAPTED)

    def look(self, inputs: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """The features (n, D) and the probabilities (n, N) of inputs, one element each."""
        batch = self.codec.encode([example_of(self.codec, value) for value in inputs], self.names)
        body = {name: value for name, value in self.adapted.stacked.items() if name.startswith("body.")}
        with torch.no_grad():
            shares = self.outputs(batch.inputs)[0].softmax(-1)
            features = self.learner.models[self.family].features(self.adapted.shared, body, batch.inputs)[0]
        return features.numpy(), shares.numpy()

    def outputs(self, inputs: Inputs) -> Tensor:
        """(1, E, N) outputs, calibrated, from what the codec encodes or from `features` (1, E, D)."""
        model = self.learner.models[self.family]
        model.train(False)
        with torch.no_grad():
            outputs = self.learner.algorithm.predict(model, self.adapted, inputs)
        return outputs / self.calibration["temperature"] if self.calibration else outputs


def learn(
    learner: Learns, family: str, examples: Sequence[Example], wrong: float | None = None, expect: bool = True
) -> Task:
    """Adapts a learner to a task of a family.

    Args:
        learner: the meta-trained learner.
        family: the family's name.
        examples: of the task. Those without an answer are unlabelled; those with `DESCRIBES` describe a class.
        wrong, expect: see `distmeta.use.learner.Learner.adapt`.
    """
    codec, model = learner.codecs[family], learner.models[family]
    ordered = sorted(examples, key=lambda example: (codec.answer not in example, DESCRIBES in example))
    labelled = [example for example in ordered if codec.answer in example]
    if not labelled:
        raise DataError("examples", "there are none", "give one of each class, or more")
    names = codec.names(labelled)
    if codec.has_classes and len(names) < 2:
        raise DataError("examples", f"one class, {names[0]!r}", "give examples of another class too")
    support = codec.encode(ordered, names)
    calibration = nearest(codec.shape(support), learner.about["families"][family].get("calibration", []))
    threshold = _threshold(calibration, wrong)
    if more := len(ordered) - len(labelled):
        support = _marked(model, support, more, calibration["temperature"] if calibration else 1.0)
    tested = sum(DESCRIBES not in example for example in labelled)
    model.train(False)
    with torch.no_grad():
        theta = learner.algorithm.sized(model, model.own(learner.theta), support.outputs)
        if not adapts_body(learner, theta):
            support = support._replace(inputs=model.encode(theta, (), support.inputs))
        adapted = learner.algorithm.adapt(model, theta, support)
        expected = cross_validate(learner.algorithm, model, theta, support, tested) if expect else None
    return Task(learner, family, tuple(ordered), names, adapted, calibration, threshold, expected, wrong)


def adapts_body(learner: Learns, theta: Params) -> bool:
    """Whether each task gets its own copy of a parameter of the body. `theta` is that of its family."""
    return any(name.startswith("body.") for name in learner.algorithm.adapts(list(theta)))


def _marked(model: FunctionalModel, support: Batch, count: int, temperature: float) -> Batch:
    """The support set whose last `count` examples have no label."""
    if not model.task.has_classes or not model.one_element_each:
        raise DataError("unlabelled", "these tasks do not learn from examples without labels", "leave them out")
    if count > (most := NUMBERS // (support.outputs * model.dim)):
        found = f"{count:,} examples, and {support.outputs} classes"
        raise DataError("unlabelled", found, f"give at most {most:,}, chosen at random")
    mark = torch.zeros_like(support.weights)
    mark[:, -count:] = temperature
    return support._replace(inputs={**support.inputs, UNLABELLED: mark})


def _threshold(calibration: Mapping[str, Any] | None, wrong: float | None) -> float:
    """The least certainty of an answer that is given."""
    if calibration is None:
        if wrong is None:
            return 0.0
        remedy = "evaluate its run again, or leave it out"
        raise DataError("wrong", f"{wrong:g}, and the learner was not calibrated", remedy)
    by_share = dict(calibration["thresholds"])
    if (wanted := USUAL if wrong is None else wrong) not in by_share:
        raise DataError("wrong", f"{wanted:g}", f"give one of {', '.join(map(str, WRONG))}")
    found: float = by_share[wanted]
    return found
