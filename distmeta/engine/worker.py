"""A worker: draws a unit's episodes, runs them stacked, returns one flat gradient and the metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from distmeta.engine import reduction
from distmeta.engine.encode import Features, encode
from distmeta.engine.features import FeatureCache
from distmeta.engine.finite import DIVERGED, LARGEST_NORM, are_finite, diverged, norm_of
from distmeta.engine.interfaces import Work
from distmeta.engine.params import LastParams, Layout
from distmeta.protocols import Model, StepwiseLearner, TaskFamily
from distmeta.types import Batch, Episode, Metrics, Params, Rejected, Statistics, Stream, Unit, UnitResult


class Worker:
    """Runs units on one device.

    Args:
        name: identifies the worker in results.
        families: make the episodes, by name.
        models: the learner's pure functions, by family.
        layout: the layout of the flat vectors that the worker takes and returns.
        device: a torch device.
        teacher: another learner, whose outputs are added to the examples in meta-training.
        packed: whether gradients are returned as bfloat16.
        features: by family, the folder of a frozen body's features, shared with other workers and runs.
    """

    def __init__(
        self,
        name: str,
        families: Mapping[str, TaskFamily],
        models: Mapping[str, Model],
        layout: Layout,
        device: str,
        teacher: Teacher | None = None,
        packed: bool = False,
        features: Mapping[str, Path] | None = None,
    ) -> None:
        self.name, self.families, self.models, self.layout, self.device = name, families, models, layout, device
        self.params = LastParams(layout, device)
        kept = features or {}
        self.caches = {n: FeatureCache(model, families[n], device, kept.get(n)) for n, model in models.items()}
        self.teacher, self.packed = teacher, packed
        self.body_is_frozen = not any(name.startswith("body.") for name in layout.names)

    def run(self, work: Work, unit: Unit, vector: np.ndarray, features: Features | None = None) -> UnitResult:
        """Runs a unit under the meta-parameters in `vector`, (P,) float32; `features` are those of its rows.

        Raises:
            ValueError: the unit looks features up, the body is not frozen, and no features were given.
        """
        started = time.perf_counter()
        if work.cache_features and features is None and not self.body_is_frozen:
            raise ValueError("a unit looks features up, its body is not frozen, and no features were given")
        job = _Job.of(self, work, unit, self.params.of(vector), features)
        gradient, encoded, rejected = None, None, tuple[Rejected, ...]()
        names: tuple[tuple[str, ...], ...] = ()
        statistics: Statistics = {}
        if work.encodes:
            encoded = self._encode(job)
        elif work.training:
            gradient, statistics, rejected, names = self._meta_gradient(job)
            gradient = reduction.pack(gradient) if self.packed else gradient
        elif work.curve:
            statistics, rejected = self._curve(job)
        else:
            statistics, rejected = self._evaluate(job)
        arrays = {name: value.detach().cpu().double().numpy() for name, value in statistics.items()}
        if work.training and len(self.models) > 1:  # the loss is common to all families, other figures are not
            family = job.stream.family
            arrays = {name if name == "loss" else f"{family}/{name}": value for name, value in arrays.items()}
        seconds = time.perf_counter() - started
        return UnitResult(unit, gradient, arrays, rejected, self.name, seconds, names, encoded)

    def _encode(self, job: _Job) -> np.ndarray:
        """(R, D) float32 features of the rows of a unit's chunks."""
        job.model.train(False)
        cache, split, parts = self.caches[job.stream.family], job.stream.split, []
        for number in range(job.unit.first_index, job.unit.first_index + job.unit.count):
            if self.body_is_frozen:
                part = cache.chunk(job.meta_params, split, number)
            else:
                part = encode(job.model, cache.family, self.device, job.meta_params, cache.chunks.rows(split, number))
            parts.append(part.cpu().numpy())
        return np.concatenate(parts)

    def _meta_gradient(
        self, job: _Job
    ) -> tuple[np.ndarray, Metrics, tuple[Rejected, ...], tuple[tuple[str, ...], ...]]:
        job.model.train(True)
        episode, unit = self._episode(job), job.unit
        gradients, metrics = job.work.learner.meta_gradient(job.model, job.meta_params, episode)
        flat = self.layout.flatten({**job.others, **gradients})
        norm = norm_of(torch.from_numpy(flat))
        if norm <= LARGEST_NORM and are_finite(metrics):  # both are false for NaN
            return flat, metrics, (), episode.names
        if unit.count == 1:
            reason = f"its meta-gradient has a norm of {norm:.2g}, more than float32 can square"
            if not np.isfinite(norm) or not are_finite(metrics):
                reason = self._reason(job, metrics)
            rejected = Rejected(unit.first_index, episode.names[0], reason)
            return np.zeros_like(flat), metrics, (rejected,), episode.names
        # Runs the unit's tasks one by one to find the one at fault.
        singles = [replace(unit, first_index=unit.first_index + i, count=1) for i in range(unit.count)]
        parts = [self._meta_gradient(replace(job, unit=single)) for single in singles]
        total: np.ndarray = np.stack([part for part, *_ in parts]).sum(0)
        joined = {name: torch.cat([values[name] for _, values, *_ in parts]) for name in metrics}
        return total, joined, tuple(task for _, _, tasks, _ in parts for task in tasks), episode.names

    def _reason(self, job: _Job, metrics: Metrics) -> str:
        """Why the meta-gradient of a unit of one task is not finite; adapts once more to find out."""
        _, after_adaptation = self._outcome(job)
        if not are_finite(after_adaptation):
            return DIVERGED
        return f"its {'meta-gradient' if are_finite(metrics) else 'loss'} is not finite, though adaptation went well"

    def _evaluate(self, job: _Job) -> tuple[Statistics, tuple[Rejected, ...]]:
        job.model.train(False)
        episode, statistics = self._outcome(job)
        return statistics, diverged(job.unit, episode, statistics)

    def _curve(self, job: _Job) -> tuple[Statistics, tuple[Rejected, ...]]:
        """Statistics after 0, 1, … inner steps, (T, points, …) each, up to where a task diverges."""
        job.model.train(False)
        points: list[Statistics] = []
        learner, model = cast(StepwiseLearner, job.work.learner), job.model
        with torch.no_grad():
            episode = self._episode(job)
            inputs = model.encode(job.meta_params, learner.adapts(list(job.meta_params)), episode.query.inputs)
            for adapted in learner.trajectory(model, job.meta_params, episode.support):
                statistics = model.task.statistics(learner.predict(model, adapted, inputs), episode.query)
                if rejected := diverged(job.unit, episode, statistics):
                    break
                points.append(statistics)
        empty = {name: value.new_empty(len(value), 0, *value.shape[1:]) for name, value in statistics.items()}
        return {n: torch.stack([point[n] for point in points], 1) for n in empty} if points else empty, rejected

    def _outcome(self, job: _Job) -> tuple[Episode, Statistics]:
        """A unit's episodes, and their statistics after adaptation."""
        with torch.no_grad():
            episode, model, learner = self._episode(job), job.model, job.work.learner
            adapted = learner.adapt(model, job.meta_params, episode.support)
            outputs = learner.predict(model, adapted, episode.query.inputs)
            if job.work.answers:
                return episode, _answers(outputs, episode.query)
            return episode, model.task.statistics(outputs, episode.query)

    def _episode(self, job: _Job) -> Episode:
        work, unit, stream = job.work, job.unit, job.stream
        family, cache = self.families[stream.family], self.caches[stream.family]
        # Before the seeding, so that random draws of the teacher do not change the student's dropout.
        taught = self.teacher.teach(stream, unit) if self.teacher and work.training else None
        # Dropout uses torch's global generator: seeded by the episode, it is the same on any worker.
        torch.manual_seed(np.random.SeedSequence([stream.seed, unit.first_index]).generate_state(1)[0].item())
        draws = [family.draw(stream, index) for index in range(unit.first_index, unit.first_index + unit.count)]
        episode = family.batch(draws, tokens=not work.cache_features)

        def prepare(batch: Batch) -> Batch:
            inputs = dict(batch.inputs)
            if work.cache_features and job.features is not None:
                inputs["features"] = job.features.lookup(inputs["rows"])
            elif work.cache_features:
                inputs["features"] = cache.lookup(job.meta_params, stream.split, inputs["rows"])
            inputs = {name: value.to(self.device) for name, value in inputs.items()}
            targets, weights = batch.targets.to(self.device), batch.weights.to(self.device)
            return batch._replace(inputs=inputs, targets=targets, weights=weights)

        episode = episode._replace(support=prepare(episode.support), query=prepare(episode.query))
        return _with_teacher(episode, taught) if taught else episode


@dataclass(frozen=True)
class _Job:
    """A unit to run: its stream, the model and θ of the stream's family, and zeros for other families' θ."""

    work: Work
    unit: Unit
    stream: Stream
    model: Model
    meta_params: Params
    others: Params
    features: Features | None

    @classmethod
    def of(cls, worker: Worker, work: Work, unit: Unit, theta: Params, features: Features | None = None) -> _Job:
        stream = work.stream.taken_by(unit)
        model = worker.models[stream.family]
        own = model.own(theta)
        others = {name: torch.zeros_like(value) for name, value in theta.items() if name not in own}
        return cls(work, unit, stream, model, own, others, features)


class Teacher:
    """A meta-trained learner that gives its outputs for the episodes of another learner.

    Args:
        worker: runs the teacher.
        work: has the teacher's learner, for evaluation.
        vector: the teacher's θ, (P,) float32.
    """

    def __init__(self, worker: Worker, work: Work, vector: np.ndarray) -> None:
        self.worker, self.work = worker, work
        self.meta_params = worker.layout.unflatten(vector, worker.device)

    def teach(self, stream: Stream, unit: Unit) -> Episode:
        """A unit's episodes with inputs `rows`, and `teacher`: outputs (T, E, N) after adaptation to the support."""
        job = _Job.of(self.worker, replace(self.work, stream=stream), unit, self.meta_params)
        model, learner = job.model, job.work.learner
        model.train(False)
        with torch.no_grad():
            episode = self.worker._episode(job)
            adapted = learner.adapt(model, job.meta_params, episode.support)

            def answer(batch: Batch) -> Batch:
                outputs = learner.predict(model, adapted, batch.inputs)
                return batch._replace(inputs={"rows": batch.inputs["rows"], "teacher": outputs})

            return episode._replace(support=answer(episode.support), query=answer(episode.query))


def _with_teacher(episode: Episode, taught: Episode) -> Episode:
    """Adds the teacher's outputs to the student's inputs."""

    def join(batch: Batch, answer: Batch) -> Batch:
        if not torch.equal(batch.inputs["rows"], answer.inputs["rows"]):
            raise ValueError("teacher and student were given different rows")
        return batch._replace(inputs={**batch.inputs, "teacher": answer.inputs["teacher"]})

    return episode._replace(support=join(episode.support, taught.support), query=join(episode.query, taught.query))


def _answers(outputs: Tensor, query: Batch) -> Statistics:
    """The outputs on a query set, and what they are compared with."""
    found = {"outputs": outputs, "targets": query.targets, "weights": query.weights}
    return found | {name: value for name, value in query.inputs.items() if name == "outside"}
