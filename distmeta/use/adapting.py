"""From examples to a task: what is adapted, the calibration and thresholds, and how good it may be expected to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from distmeta.errors import DataError
from distmeta.models.functional import FunctionalModel
from distmeta.protocols import Codec, Example, MetaLearner
from distmeta.report.certainty import WRONG, nearest
from distmeta.types import UNLABELLED, Adapted, Batch, Params
from distmeta.use import several
from distmeta.use.examples import DESCRIBES, in_order, require_size
from distmeta.use.expect import Expected, cross_validate, held_out_texts

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


class Learned(NamedTuple):
    """What a learner makes of examples; see `distmeta.use.task.Task`."""

    examples: tuple[Example, ...]
    names: tuple[str, ...]
    adapted: Adapted
    calibration: Mapping[str, Any] | None
    threshold: float
    expected: Expected | None
    thresholds: tuple[float, ...] | None
    expected_f1: several.ExpectedF1 | None


def adapt(
    learner: Learns,
    family: str,
    examples: Sequence[Example],
    wrong: float | None = None,
    sets: bool = False,
    expect: bool = True,
) -> Learned:
    """Adapts a learner to a task of a family.

    Args:
        learner: the meta-trained learner.
        family: the family's name.
        examples: of the task. Those without an answer are unlabelled; those with `DESCRIBES` describe a class.
        wrong: see `distmeta.use.learner.Learner.adapt`.
        sets: whether an input may have several labels, or none.
        expect: whether to find out how good the task may be expected to be.
    """
    codec, model = learner.codecs[family], learner.models[family]
    ordered = in_order(codec, examples)
    if sets:
        _check_sets(codec, model, ordered, wrong)
        ordered = several.with_sets(ordered, codec)
    rows, numbers = several.rows_of(ordered, codec) if sets else (ordered, np.arange(len(ordered)))
    labelled = [row for row in rows if codec.answer in row]
    if not labelled:
        raise DataError("examples", "there are none", "give one of each class, or more")
    names = codec.names(labelled)
    if codec.has_classes and len(names) < 2:
        raise DataError("examples", f"one class, {names[0]!r}", "give examples of another class too")
    require_size(len(rows), len(names))
    support = codec.encode(rows, names)
    calibration = nearest(_shape(codec, support, rows), learner.about["families"][family].get("calibration", []))
    threshold = 0.0 if sets else _threshold(calibration, wrong)
    thresholds, expected, expected_f1 = None, None, None
    temperature = calibration["temperature"] if calibration else 1.0
    if more := len(rows) - len(labelled):
        support = _marked(model, support, more, temperature)
    tested = sum(codec.answer in example and DESCRIBES not in example for example in ordered)
    model.train(False)
    with torch.no_grad():
        theta = learner.algorithm.sized(model, model.own(learner.theta), support.outputs)
        if not adapts_body(learner, theta):
            support = support._replace(inputs=model.encode(theta, (), support.inputs))
        adapted = learner.algorithm.adapt(model, theta, support)
        if expect and not sets:
            expected = cross_validate(learner.algorithm, model, theta, support, tested)
        if sets:
            outputs, left_out = held_out_texts(learner.algorithm, model, theta, support, numbers, tested)
            known = [ordered[number] for number in left_out]
            if none := [example for example in ordered if not example[codec.answer]]:
                inputs = codec.encode(several.without_labels(none, codec), names).inputs
                outputs = torch.cat([outputs, learner.algorithm.predict(model, adapted, inputs)[0]])
            shares, truth = several.shares_of(outputs / temperature), several.truth_of([*known, *none], codec, names)
            thresholds, expected_f1 = tuple(several.choose(shares, truth).tolist()), several.expected(shares, truth)
    return Learned(tuple(ordered), names, adapted, calibration, threshold, expected, thresholds, expected_f1)


def _shape(codec: Codec, support: Batch, rows: Sequence[Example]) -> dict[str, float]:
    """The shape of a task: its descriptions are no shots."""
    kept = [number for number, row in enumerate(rows) if DESCRIBES not in row]
    if len(kept) == len(rows) or not kept:
        return codec.shape(support)
    targets, weights = support.targets[:, kept], support.weights[:, kept]
    return {**codec.shape(support._replace(targets=targets, weights=weights)), "described": 1}


def _check_sets(codec: Codec, model: FunctionalModel, examples: Sequence[Example], wrong: float | None) -> None:
    """Refuses what does not go with several labels."""
    if not codec.has_classes or not model.one_element_each:
        raise DataError("multi_label", "these tasks have no labels of whole inputs", "leave it out")
    if wrong is not None:
        raise DataError("wrong", f"{wrong:g}, and texts may have several labels", "leave it out: it may give none")
    if any(codec.answer not in example for example in examples):
        found = "texts without labels, and texts may have several"
        raise DataError("unlabelled", found, "leave them out; a text of no class has an empty list of labels")


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
