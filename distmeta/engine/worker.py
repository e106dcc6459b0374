"""A worker: draws a unit's episodes, runs them stacked, returns one flat gradient and the metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distmeta.engine import reduction
from distmeta.engine.features import FeatureCache
from distmeta.engine.params import Layout
from distmeta.protocols import Model, Work
from distmeta.types import Batch, Episode, Inputs, Metrics, Params, Rejected, Statistics, Stream, Unit, UnitResult

DIVERGED = "its inner loop diverged: the loss after adaptation is not finite"
# Of a unit's gradient, the square root of float32's largest number: Adam squares each element, and from here on even
# the sum of as many units as can be stays finite.
LARGEST_NORM = float(np.finfo(np.float32).max) ** 0.5


class Worker:
    """Runs units on one device.

    Args:
        name: who it is, in results.
        models: the learner's pure functions, by family; each has the family that episodes come from.
        layout: of the flat vectors it is given and returns.
        device: a torch device.
        teacher: another learner, whose outputs go with the examples in meta-training.
        packed: whether gradients leave as bfloat16.
        features: by family, where features of a frozen body are kept for others too.
    """

    def __init__(
        self,
        name: str,
        models: Mapping[str, Model],
        layout: Layout,
        device: str,
        teacher: Teacher | None = None,
        packed: bool = False,
        features: Mapping[str, Path] | None = None,
    ) -> None:
        self.name, self.models, self.layout, self.device = name, models, layout, device
        kept = features or {}
        self.caches = {family: FeatureCache(model, device, kept.get(family)) for family, model in models.items()}
        self.teacher, self.packed = teacher, packed
        self.body_is_frozen = not any(name.startswith("body.") for name in layout.names)

    def run(self, work: Work, unit: Unit, vector: np.ndarray) -> UnitResult:
        """Works on a unit under the meta-parameters in `vector`, (P,) float32."""
        started = time.perf_counter()
        stream = work.stream.taken_by(unit)
        work = replace(work, stream=stream)
        meta_params = self.layout.unflatten(vector, self.device)
        figures: Statistics
        if work.training:
            gradient, figures, rejected, names = self._meta_gradient(work, unit, meta_params, vector)
            gradient = reduction.pack(gradient) if self.packed else gradient
        else:
            gradient, names = None, ()
            figures, rejected = self._evaluate(work, unit, meta_params, vector)
        arrays = {name: value.detach().cpu().double().numpy() for name, value in figures.items()}
        if work.training and len(self.models) > 1:  # the loss is common to all families, other figures are not
            arrays = {name if name == "loss" else f"{stream.family}/{name}": its for name, its in arrays.items()}
        return UnitResult(unit, gradient, arrays, rejected, self.name, time.perf_counter() - started, names)

    def _meta_gradient(
        self, work: Work, unit: Unit, meta_params: Params, vector: np.ndarray
    ) -> tuple[np.ndarray, Metrics, tuple[Rejected, ...], tuple[tuple[str, ...], ...]]:
        model = self._model(work)
        model.train(True)
        episode = self._episode(work, unit, meta_params, vector)
        gradients, metrics = work.learner.meta_gradient(model, self._own(meta_params, episode.family), episode)
        others = {name: torch.zeros_like(value) for name, value in meta_params.items() if name not in gradients}
        flat = self.layout.flatten({**gradients, **others})
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
    ) -> tuple[Statistics, tuple[Rejected, ...]]:
        self._model(work).train(False)
        episode, statistics = self._outcome(work, unit, meta_params, vector)
        # Right answers alone would hide it: the largest of outputs that are not numbers is the first.
        finite = torch.stack([value.isfinite().flatten(1).all(1) for value in _rows(statistics)]).all(0).tolist()
        bad = (t for t in range(unit.count) if not finite[t])
        return statistics, tuple(Rejected(unit.first_index + t, episode.names[t], DIVERGED) for t in bad)

    def _outcome(self, work: Work, unit: Unit, meta_params: Params, vector: np.ndarray) -> tuple[Episode, Statistics]:
        """A unit's episodes, and their statistics after adaptation."""
        with torch.no_grad():
            episode, model = self._episode(work, unit, meta_params, vector), self._model(work)
            own = self._own(meta_params, episode.family)
            adapted = work.learner.adapt(model, own, episode.support)
            outputs = work.learner.predict(model, adapted, episode.query.inputs)
            return episode, model.task.statistics(outputs, episode.query)

    def _model(self, work: Work) -> Model:
        """Of the family that the unit's stream is of."""
        assert isinstance(work.stream, Stream), "a unit whose stream was not chosen"
        return self.models[work.stream.family]

    def _own(self, meta_params: Params, family: str) -> Params:
        """θ without the heads of other families."""
        heads = tuple(f"head.{name}." for name in self.models if name != family)
        return {name: value for name, value in meta_params.items() if not name.startswith(heads)}

    def _episode(self, work: Work, unit: Unit, meta_params: Params, vector: np.ndarray) -> Episode:
        assert isinstance(work.stream, Stream), "a unit whose stream was not chosen"
        family, model = work.stream.family, self._model(work)
        # Before the seeding, so that what the teacher draws, if anything, changes nothing of the student's dropout.
        taught = self.teacher.teach(work.stream, unit) if self.teacher and work.training else None
        # Dropout draws from torch's own generator: seeded by the episode, it is the same on any worker.
        torch.manual_seed(np.random.SeedSequence([work.stream.seed, unit.first_index]).generate_state(1)[0].item())
        indices = range(unit.first_index, unit.first_index + unit.count)
        episode = model.task.batch([model.task.draw(work.stream, index) for index in indices])
        key = vector[:0] if self.body_is_frozen else vector

        def prepare(batch: Batch) -> Batch:
            if work.cache_features:
                rows = batch.inputs["rows"]
                features = self.caches[family].lookup(key, own, split, rows)
                others: Inputs = {name: value for name, value in batch.inputs.items() if name not in model.reads}
                batch = batch._replace(inputs={"features": features, **others})
            inputs = {name: value.to(self.device) for name, value in batch.inputs.items()}
            targets, weights = batch.targets.to(self.device), batch.weights.to(self.device)
            return batch._replace(inputs=inputs, targets=targets, weights=weights)

        own, split = self._own(meta_params, family), work.stream.split
        episode = episode._replace(support=prepare(episode.support), query=prepare(episode.query))
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
        learner, work = self.work.learner, replace(self.work, stream=stream)
        model = self.worker.models[stream.family]
        model.train(False)
        with torch.no_grad():
            # Features are kept under an empty key: θ stays as it is.
            episode = self.worker._episode(work, unit, self.meta_params, np.empty(0, np.float32))
            adapted = learner.adapt(model, self.worker._own(self.meta_params, stream.family), episode.support)

            def answer(batch: Batch) -> Batch:
                outputs = learner.predict(model, adapted, batch.inputs)
                return batch._replace(inputs={"rows": batch.inputs["rows"], "teacher": outputs})

            return episode._replace(support=answer(episode.support), query=answer(episode.query))


def _with_teacher(episode: Episode, taught: Episode) -> Episode:
    """Puts the teacher's outputs beside the student's inputs."""

    def join(batch: Batch, its: Batch) -> Batch:
        if not torch.equal(batch.inputs["rows"], its.inputs["rows"]):
            raise ValueError("teacher and student were given different rows")
        return batch._replace(inputs={**batch.inputs, "teacher": its.inputs["teacher"]})

    return episode._replace(support=join(episode.support, taught.support), query=join(episode.query, taught.query))


def _rows(statistics: Statistics) -> Iterator[Tensor]:
    """Statistics as (T, …) tensors of at least two axes."""
    return (value.unsqueeze(-1) for value in statistics.values())


def _are_finite(metrics: Statistics) -> bool:
    return all(bool(value.isfinite().all()) for value in metrics.values())
