"""A worker: draws a unit's episodes, runs them stacked, returns one flat gradient and the metrics."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from distmeta.engine import reduction
from distmeta.engine.features import FeatureCache
from distmeta.engine.params import Layout
from distmeta.protocols import Model, TaskKind
from distmeta.types import Batch, Episode, Inputs, Metrics, Params, Rejected, Stream, Unit, UnitResult, Work

DIVERGED = "its inner loop diverged: the loss after adaptation is not finite"
# Of a unit's gradient, the square root of float32's largest number: Adam squares each element, and from here on even
# the sum of as many units as can be stays finite.
LARGEST_NORM = float(np.finfo(np.float32).max) ** 0.5


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

    def run(self, work: Work, unit: Unit, vector: np.ndarray) -> UnitResult:
        """Works on a unit under the meta-parameters in `vector`, (P,) float32."""
        started = time.perf_counter()
        meta_params = self.layout.unflatten(vector, self.device)
        if work.training:
            gradient, metrics, rejected, names = self._meta_gradient(work, unit, meta_params, vector)
            gradient = reduction.pack(gradient) if self.packed else gradient
        else:
            gradient, names = None, ()
            metrics, rejected = self._evaluate(work, unit, meta_params, vector)
        arrays = {name: value.detach().cpu().double().numpy() for name, value in metrics.items()}
        return UnitResult(unit, gradient, arrays, rejected, self.name, time.perf_counter() - started, names)

    def _meta_gradient(
        self, work: Work, unit: Unit, meta_params: Params, vector: np.ndarray
    ) -> tuple[np.ndarray, Metrics, tuple[Rejected, ...], tuple[tuple[str, ...], ...]]:
        self.model.train(True)
        episode = self._episode(work, unit, meta_params, vector)
        gradients, metrics = work.learner.meta_gradient(self.model, meta_params, episode)
        flat = self.layout.flatten(gradients)
        norm = torch.linalg.vector_norm(torch.from_numpy(flat), dtype=torch.float64).item()
        if norm <= LARGEST_NORM and _are_finite(metrics):  # neither where it is not a number
            return flat, metrics, (), episode.names
        if unit.count == 1:
            reason = f"its meta-gradient has a norm of {norm:.2g}, more than float32 can square"
            if not np.isfinite(norm) or not _are_finite(metrics):
                reason = self._reason(work, unit, meta_params, vector, metrics)
            rejected = Rejected(unit.first_index, episode.names[0], reason)
            return np.zeros_like(flat), metrics, (rejected,), episode.names
        # Only one by one can the task at fault be told from the others of the unit.
        singles = [replace(unit, first_index=unit.first_index + i, count=1) for i in range(unit.count)]
        parts = [self._meta_gradient(work, single, meta_params, vector) for single in singles]
        total: np.ndarray = np.stack([part for part, *_ in parts]).sum(0)
        joined = {name: torch.cat([part[1][name] for part in parts]) for name in metrics}
        return total, joined, tuple(rejected for part in parts for rejected in part[2]), episode.names

    def _reason(self, work: Work, unit: Unit, meta_params: Params, vector: np.ndarray, metrics: Metrics) -> str:
        """Why the meta-gradient of a unit of one task is not finite: its adaptation is done once more to find out."""
        _, after_adaptation = self._outcome(work, unit, meta_params, vector)
        if not _are_finite(after_adaptation):
            return DIVERGED
        return f"its {'meta-gradient' if _are_finite(metrics) else 'loss'} is not finite, though adaptation went well"

    def _evaluate(
        self, work: Work, unit: Unit, meta_params: Params, vector: np.ndarray
    ) -> tuple[Metrics, tuple[Rejected, ...]]:
        self.model.train(False)
        episode, metrics = self._outcome(work, unit, meta_params, vector)
        # Accuracy alone would hide it: the largest of outputs that are not numbers is the first.
        finite = torch.stack([value.isfinite() for value in metrics.values()]).all(0).tolist()
        bad = (t for t in range(unit.count) if not finite[t])
        return metrics, tuple(Rejected(unit.first_index + t, episode.names[t], DIVERGED) for t in bad)

    def _outcome(self, work: Work, unit: Unit, meta_params: Params, vector: np.ndarray) -> tuple[Episode, Metrics]:
        """A unit's episodes, and their figures after adaptation."""
        with torch.no_grad():
            episode = self._episode(work, unit, meta_params, vector)
            adapted = work.learner.adapt(self.model, meta_params, episode.support)
            outputs = work.learner.predict(self.model, adapted, episode.query.inputs)
            return episode, self.model.task.metrics(outputs, episode.query)

    def _episode(self, work: Work, unit: Unit, meta_params: Params, vector: np.ndarray) -> Episode:
        # Before the seeding, so that what the teacher draws, if anything, changes nothing of the student's dropout.
        taught = self.teacher.teach(work.stream, unit) if self.teacher and work.training else None
        # Dropout draws from torch's own generator: seeded by the episode, it is the same on any worker.
        torch.manual_seed(np.random.SeedSequence([work.stream.seed, unit.first_index]).generate_state(1)[0].item())
        episode = self.task.episodes(work.stream, unit.first_index, unit.count)
        key = vector[:0] if self.body_is_frozen else vector

        def prepare(batch: Batch) -> Batch:
            if work.cache_features:
                rows = batch.inputs["rows"]
                features = self.cache.lookup(key, meta_params, work.stream.split, rows)
                also = {"rows", "labels", "memory"}.intersection(batch.inputs)
                kept: Inputs = {name: batch.inputs[name] for name in sorted(also)}
                batch = batch._replace(inputs={"features": features, **kept})
            inputs = {name: value.to(self.device) for name, value in batch.inputs.items()}
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
            # Features are kept under an empty key: θ stays as it is.
            episode = self.worker._episode(work, unit, self.meta_params, np.empty(0, np.float32))
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


def _are_finite(metrics: Metrics) -> bool:
    return all(bool(value.isfinite().all()) for value in metrics.values())
