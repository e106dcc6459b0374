"""How far a learner's probabilities can be trusted: fitted on meta-validation tasks, checked on meta-test tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from distmeta.backends.base import Coordination, Note
from distmeta.engine.interfaces import Evaluated, Evaluation
from distmeta.report import certainty
from distmeta.report.statistics import mean_ci95
from distmeta.runs.experiment import Experiment
from distmeta.types import OWN, Statistics, Stream

Calibrations = dict[str, list[dict[str, Any]]]  # of each family, one for each shape of meta-test
Progress = Callable[[str, int, int], None]
RESAMPLES = 200  # of the episodes, for the interval of the calibration error
CLAIM = 0.05  # the share of wrong answers whose threshold meta-test checks


def calibrate(experiment: Experiment, coordination: Coordination, progress: Progress, note: Note) -> Calibrations:
    """A temperature and thresholds for each shape of meta-test, from meta-validation tasks.

    A calibration holds the `shape` of the tasks, the `temperature`, the expected calibration error `before` and
    `after` it, and pairs of a share of wrong answers and its threshold. Texts of other classes are wrong if they are
    answered. A shape with a task that diverges gets none.
    """
    wanted = [
        replace(stream, split="meta_validation")
        for name, family in experiment.setup.families.items()
        if family.has_classes
        for stream in experiment.evaluated(name, "meta_test")
    ]
    calibrations: Calibrations = {stream.family: [] for stream in wanted}
    found = _evaluate(experiment, coordination, wanted, lambda *done: progress("units of calibration", *done))
    for stream, (statistics, error) in zip(wanted, found, strict=True):
        if error:
            note(f"no calibration of {experiment.setup.families[stream.family].describe(dict(stream.shape))}: {error}")
        else:
            calibrations[stream.family].append(_fit(stream, Answers.of(statistics)))
    return calibrations


def with_trust(
    experiment: Experiment,
    coordination: Coordination,
    rows: Sequence[Mapping[str, Any]],
    calibrations: Calibrations,
    progress: Progress,
) -> tuple[list[dict[str, Any]], list[Answered]]:
    """The rows of meta-test, with `trust` where there is a calibration: what it is worth on meta-test tasks.

    Also the answers that this is known from.

    Each figure is a mean and the half-width of its 95 % interval: the calibration error `before` and `after`; at the
    threshold for `CLAIM`, the share of queries that is `answered`, and the shares of all answers that are `wrong` and
    of texts of other classes that are `accepted`; and the `auroc` between both by their certainty. For texts of no
    class that the data give (`data.none`) these are `own_accepted` and `own_auroc`.
    """
    by_shape = {
        (name, *sorted(calibration["shape"].items())): calibration
        for name, its in calibrations.items()
        for calibration in its
    }
    found = [by_shape.get((row["family"], *sorted(row["shape"].items()))) for row in rows]
    wanted = [
        Stream.of(row["family"], "meta_test", experiment.config.evaluation.seed, **row["shape"])
        for row, calibration in zip(rows, found, strict=True)
        if calibration
    ]
    results = iter(_evaluate(experiment, coordination, wanted, lambda *done: progress("units of trust", *done)))
    complete, answered = [], []
    streams = iter(wanted)
    for row, calibration in zip(rows, found, strict=True):
        complete.append(dict(row))
        if not calibration:
            continue
        stream, result = next(streams), next(results)
        if not result.error:
            answered.append(Answered(stream, row["title"], Answers.of(result.statistics), calibration["temperature"]))
            complete[-1]["trust"] = _figures(answered[-1].answers, calibration)
    return complete, answered


class Answers(NamedTuple):
    """The outputs on E elements of T tasks: logits (T, E, N), targets (T, E), and which are of the classes, or not.

    Of those that are not, `own` are such that the data give; the others are of other classes.
    """

    logits: np.ndarray
    targets: np.ndarray
    inside: np.ndarray
    outside: np.ndarray
    own: np.ndarray

    @classmethod
    def of(cls, statistics: Statistics) -> Answers:
        """From the statistics of an evaluation with `answers`."""
        marks = statistics.get("outside", np.zeros_like(statistics["weights"]))
        inside = (statistics["weights"] > 0) & (marks == 0)
        return cls(statistics["outputs"], statistics["targets"].astype(int), inside, marks > 0, marks == OWN)

    def certainties(self, temperature: float) -> np.ndarray:
        """The certainty of each answer, (T, E)."""
        return certainty.certainty(self.logits, temperature)

    @property
    def right(self) -> np.ndarray:
        """(T, E): whether an answer is right; what belongs to no class has no right answer."""
        found: np.ndarray = (self.logits.argmax(-1) == self.targets) & self.inside
        return found


class Answered(NamedTuple):
    """The answers on the first episodes of a meta-test stream, with what belongs to no class if there is."""

    stream: Stream
    title: str
    answers: Answers
    temperature: float


def _evaluate(
    experiment: Experiment, coordination: Coordination, streams: Sequence[Stream], progress: Callable[[int, int], None]
) -> list[Evaluated]:
    """The meta-trained learner's outputs on the streams' first episodes, with what belongs to no class if there is."""
    evaluation, families, wanted = experiment.config.evaluation, experiment.setup.families, []
    episodes = evaluation.calibration_episodes or evaluation.curve_episodes
    for stream in streams:
        complete = families[stream.family].with_outside(stream) or stream
        work = replace(experiment.work(experiment.learner, complete, episodes), answers=True)
        wanted.append(Evaluation(work, 0, episodes, evaluation.episodes_per_unit))
    return coordination.evaluate(wanted, progress) if wanted else []


def _fit(stream: Stream, answers: Answers) -> dict[str, Any]:
    inside, right = answers.inside, answers.right
    temperature = certainty.fit_temperature(answers.logits[inside], answers.targets[inside])
    before, after = answers.certainties(1.0), answers.certainties(temperature)
    asked = inside | answers.outside
    return {
        "shape": dict(stream.shape),
        "temperature": temperature,
        "before": certainty.calibration_error(before[inside], right[inside]),
        "after": certainty.calibration_error(after[inside], right[inside]),
        "thresholds": [[share, certainty.threshold(after[asked], right[asked], share)] for share in certainty.WRONG],
        "episodes": len(inside),
    }


def _figures(answers: Answers, calibration: Mapping[str, Any]) -> dict[str, Any]:
    """See `with_trust`."""
    inside, outside, right = answers.inside, answers.outside, answers.right
    sure = answers.certainties(calibration["temperature"])
    given = sure >= dict(calibration["thresholds"])[CLAIM]

    def share(of: np.ndarray, among: np.ndarray) -> list[float]:
        """The share of elements in all episodes together, and its half-width over episodes, as of a ratio of means."""
        counts, totals = (of & among).sum(1), among.sum(1)
        if not totals.sum():
            return [0.0, 0.0]
        ratio = counts.sum() / totals.sum()
        return [float(ratio), mean_ci95((counts - ratio * totals) / totals.mean())[1]]

    figures = {
        "claim": CLAIM,
        "before": _error(answers.certainties(1.0), right, inside),
        "after": _error(sure, right, inside),
        "answered": share(given, inside),
        "wrong": share(~right, given & (inside | outside)),
    }
    for prefix, which in (("", outside & ~answers.own), ("own_", answers.own)):
        if which.any():
            each = [certainty.auroc(s[i], s[o]) for s, i, o in zip(sure, inside, which, strict=True)]
            figures |= {f"{prefix}accepted": share(given, which), f"{prefix}auroc": list(mean_ci95(np.array(each)))}
    return figures


def _error(sure: np.ndarray, right: np.ndarray, inside: np.ndarray) -> list[float]:
    """The expected calibration error, and half of the middle 95 % of it over resampled episodes."""
    generator = np.random.default_rng(0)
    picks = generator.integers(len(sure), size=(RESAMPLES, len(sure)))
    errors = [certainty.calibration_error(sure[pick][inside[pick]], right[pick][inside[pick]]) for pick in picks]
    low, high = np.quantile(errors, (0.025, 0.975))
    return [certainty.calibration_error(sure[inside], right[inside]), float(high - low) / 2]
