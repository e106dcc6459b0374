"""A worker: draws a unit's episodes, runs them stacked, returns one flat gradient and the metrics."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch

from distmeta.engine import reduction
from distmeta.engine.encode import Features, encode
from distmeta.engine.features import FeatureCache
from distmeta.engine.params import Layout
from distmeta.protocols import Model, StepwiseLearner, TaskKind
from distmeta.types import Batch, Episode, Metrics, Params, Rejected, Stream, Unit, UnitResult, Work

DIVERGED = "its inner loop diverged: the loss after adaptation is not finite"


class Worker:
    """Runs units on one device.

    Args:
        name: who it is, in results.
        model: the learner's pure functions.
        task: where episodes come from.
        layout: of the flat vectors it is given and returns.
        device: a torch device.
        teacher: another learner, whose outputs go with the examples in meta-training.
        packed: whether gradients leave as bfloat16.
        features: where features of a frozen body are kept for others too.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        task: TaskKind,
        layout: Layout,
        device: str,
        teacher: Teacher | None = None,
        packed: bool = False,
        features: Path | None = None,
    ) -> None:
        self.name, self.model, self.task, self.layout, self.device = name, model, task, layout, device
        self.cache, self.teacher, self.packed = FeatureCache(model, task, device, features), teacher, packed
        self.body_is_frozen = not any(name.startswith("body.") for name in layout.names)

    def run(self, work: Work, unit: Unit, vector: np.ndarray, features: Features | None = None) -> UnitResult:
        """Works on a unit under the meta-parameters in `vector`, (P,) float32; `features` are those of its rows.

        Raises:
            ValueError: features of a body that changes are to be looked up, and none were given.
        """
        started = time.perf_counter()
        if work.cache_features and features is None and not self.body_is_frozen:
            raise ValueError("features of a body that changes are to be looked up, and none were given")
        meta_params = self.layout.unflatten(vector, self.device)
        gradient, encoded, rejected = None, None, tuple[Rejected, ...]()
        metrics: Metrics = {}
        if work.encodes:
            encoded = self._encode(work.stream.split, unit, meta_params)
        elif work.training:
            gradient, metrics, rejected = self._meta_gradient(work, unit, meta_params)
            gradient = reduction.pack(gradient) if self.packed else gradient
        elif work.curve:
            metrics, rejected = self._curve(work, unit, meta_params, features)
        else:
            metrics, rejected = self._evaluate(work, unit, meta_params, features)
        arrays = {name: value.detach().cpu().double().numpy() for name, value in metrics.items()}
        return UnitResult(unit, gradient, arrays, rejected, self.name, time.perf_counter() - started, encoded)

    def _encode(self, split: str, unit: Unit, meta_params: Params) -> np.ndarray:
        """(R, D) float32 features of the rows of a unit's chunks."""
        self.model.train(False)
        parts = []
        for number in range(unit.first_index, unit.first_index + unit.count):
            if self.body_is_frozen:
                part = self.cache.chunk(meta_params, split, number)
            else:
                rows = self.cache.chunks.rows(split, number)
                part = encode(self.model, self.task, self.device, meta_params, rows)
            parts.append(part.cpu().numpy())
        return np.concatenate(parts)

    def _meta_gradient(
        self, work: Work, unit: Unit, meta_params: Params
    ) -> tuple[np.ndarray, Metrics, tuple[Rejected, ...]]:
        self.model.train(True)
        episode = self._episode(work, unit, meta_params)
        gradients, metrics = work.learner.meta_gradient(self.model, meta_params, episode)
        flat = self.layout.flatten(gradients)
        if np.isfinite(flat).all() and _are_finite(metrics):
            return flat, metrics, ()
        if unit.count == 1:
            reason = self._reason(work, unit, meta_params, metrics)
            return np.zeros_like(flat), metrics, (Rejected(unit.first_index, episode.names[0], reason),)
        # Only one by one can the task at fault be told from the others of the unit.
        singles = [replace(unit, first_index=unit.first_index + i, count=1) for i in range(unit.count)]
        parts = [self._meta_gradient(work, single, meta_params) for single in singles]
        total: np.ndarray = np.stack([part for part, _, _ in parts]).sum(0)
        joined = {name: torch.cat([its[name] for _, its, _ in parts]) for name in metrics}
        return total, joined, tuple(rejected for _, _, its in parts for rejected in its)

    def _reason(self, work: Work, unit: Unit, meta_params: Params, metrics: Metrics) -> str:
        """Why the meta-gradient of a unit of one task is not finite: its adaptation is done once more to find out."""
        _, after_adaptation = self._outcome(work, unit, meta_params, None)
        if not _are_finite(after_adaptation):
            return DIVERGED
        return f"its {'meta-gradient' if _are_finite(metrics) else 'loss'} is not finite, though adaptation went well"

    def _evaluate(
        self, work: Work, unit: Unit, meta_params: Params, features: Features | None
    ) -> tuple[Metrics, tuple[Rejected, ...]]:
        self.model.train(False)
        episode, metrics = self._outcome(work, unit, meta_params, features)
        return metrics, _diverged(unit, episode, metrics)

    def _curve(
        self, work: Work, unit: Unit, meta_params: Params, features: Features | None
    ) -> tuple[Metrics, tuple[Rejected, ...]]:
        """Figures after 0, 1, … inner steps, (T, points) each, up to the first point at which a task has diverged."""
        self.model.train(False)
        points: list[Metrics] = []
        learner = cast(StepwiseLearner, work.learner)
        with torch.no_grad():
            episode = self._episode(work, unit, meta_params, features)
            inputs = self.model.encode(meta_params, learner.adapts(list(meta_params)), episode.query.inputs)
            for adapted in learner.trajectory(self.model, meta_params, episode.support):
                metrics = self.model.task.metrics(learner.predict(self.model, adapted, inputs), episode.query)
                if rejected := _diverged(unit, episode, metrics):
                    break
                points.append(metrics)
        none = {name: value.new_empty(unit.count, 0) for name, value in metrics.items()}
        return {n: torch.stack([its[n] for its in points], 1) for n in none} if points else none, rejected

    def _outcome(
        self, work: Work, unit: Unit, meta_params: Params, features: Features | None
    ) -> tuple[Episode, Metrics]:
        """A unit's episodes, and their figures after adaptation."""
        with torch.no_grad():
            episode = self._episode(work, unit, meta_params, features)
            adapted = work.learner.adapt(self.model, meta_params, episode.support)
            outputs = work.learner.predict(self.model, adapted, episode.query.inputs)
            return episode, self.model.task.metrics(outputs, episode.query)

    def _episode(self, work: Work, unit: Unit, meta_params: Params, features: Features | None = None) -> Episode:
        # Before the seeding, so that what the teacher draws, if anything, changes nothing of the student's dropout.
        taught = self.teacher.teach(work.stream, unit) if self.teacher and work.training else None
        # Dropout draws from torch's own generator: seeded by the episode, it is the same on any worker.
        torch.manual_seed(np.random.SeedSequence([work.stream.seed, unit.first_index]).generate_state(1)[0].item())
        episode = self.task.episodes(work.stream, unit.first_index, unit.count, tokens=not work.cache_features)

        def prepare(batch: Batch) -> Batch:
            inputs = dict(batch.inputs)
            if work.cache_features and features is not None:
                inputs["features"] = features.lookup(inputs["rows"])
            elif work.cache_features:
                inputs["features"] = self.cache.lookup(meta_params, work.stream.split, inputs["rows"])
            inputs = {name: value.to(self.device) for name, value in inputs.items()}
            return Batch(inputs, batch.targets.to(self.device), batch.weights.to(self.device))

        episode = Episode(prepare(episode.support), prepare(episode.query), episode.names)
        return _with_teacher(episode, taught) if taught else episode


class Teacher:
    """A learner that has been meta-trained: what it says of the episodes that another learns from.

    Args:
        worker: runs it.
        work: its learner, for evaluation.
        vector: its θ, (P,) float32.
    """

    def __init__(self, worker: Worker, work: Work, vector: np.ndarray) -> None:
        self.worker, self.work = worker, work
        self.meta_params = worker.layout.unflatten(vector, worker.device)

    def teach(self, stream: Stream, unit: Unit) -> Episode:
        """A unit's episodes with `rows`, and as `teacher` its outputs (T, B, N) once it has learned the support."""
        model, learner, work = self.worker.model, self.work.learner, replace(self.work, stream=stream)
        model.train(False)
        with torch.no_grad():
            episode = self.worker._episode(work, unit, self.meta_params)
            adapted = learner.adapt(model, self.meta_params, episode.support)

            def answer(batch: Batch) -> Batch:
                outputs = learner.predict(model, adapted, batch.inputs)
                return batch._replace(inputs={"rows": batch.inputs["rows"], "teacher": outputs})

            return Episode(answer(episode.support), answer(episode.query), episode.names)


def _with_teacher(episode: Episode, taught: Episode) -> Episode:
    """Puts the teacher's outputs beside the student's inputs."""

    def join(batch: Batch, its: Batch) -> Batch:
        if not torch.equal(batch.inputs["rows"], its.inputs["rows"]):
            raise ValueError("teacher and student were given different rows")
        return batch._replace(inputs={**batch.inputs, "teacher": its.inputs["teacher"]})

    return episode._replace(support=join(episode.support, taught.support), query=join(episode.query, taught.query))


def _diverged(unit: Unit, episode: Episode, metrics: Metrics) -> tuple[Rejected, ...]:
    """The tasks of a unit whose figures are not all finite."""
    # Accuracy alone would hide it: the largest of outputs that are not numbers is the first.
    finite = torch.stack([value.isfinite() for value in metrics.values()]).all(0).tolist()
    bad = (t for t in range(unit.count) if not finite[t])
    return tuple(Rejected(unit.first_index + t, episode.names[t], DIVERGED) for t in bad)


def _are_finite(metrics: Metrics) -> bool:
    return all(bool(value.isfinite().all()) for value in metrics.values())
