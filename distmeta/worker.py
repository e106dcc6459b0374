"""A worker: draws a unit's episodes, runs them stacked, returns one flat gradient and the metrics."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from distmeta.features import FeatureCache
from distmeta.params import Layout
from distmeta.protocols import Model, TaskKind
from distmeta.types import Batch, Episode, Metrics, Params, Rejected, Unit, UnitResult, Work


class Worker:
    """Runs units on one device.

    Args:
        name: who it is, in results.
        model: the learner's pure functions.
        task: where episodes come from.
        layout: of the flat vectors it is given and returns.
        device: a torch device.
    """

    def __init__(self, name: str, model: Model, task: TaskKind, layout: Layout, device: str) -> None:
        self.name, self.model, self.task, self.layout, self.device = name, model, task, layout, device
        self.cache = FeatureCache(model, task, device)
        self.body_is_frozen = not any(name.startswith("body.") for name in layout.names)

    def run(self, work: Work, unit: Unit, vector: np.ndarray) -> UnitResult:
        """Works on a unit under the meta-parameters in `vector`, (P,) float32."""
        started = time.perf_counter()
        meta_params = self.layout.unflatten(vector, self.device)
        if work.training:
            gradient, metrics, rejected = self._meta_gradient(work, unit, meta_params, vector)
        else:
            gradient, rejected = None, ()
            metrics = self._evaluate(work, unit, meta_params, vector)
        arrays = {name: value.detach().cpu().double().numpy() for name, value in metrics.items()}
        return UnitResult(unit, gradient, arrays, rejected, self.name, time.perf_counter() - started)

    def _meta_gradient(
        self, work: Work, unit: Unit, meta_params: Params, vector: np.ndarray
    ) -> tuple[np.ndarray, Metrics, tuple[Rejected, ...]]:
        self.model.train(True)
        episode = self._episode(work, unit, meta_params, vector)
        gradients, metrics = work.learner.meta_gradient(self.model, meta_params, episode)
        flat = self.layout.flatten(gradients)
        finite = bool(np.isfinite(flat).all()) and all(bool(value.isfinite().all()) for value in metrics.values())
        if finite:
            return flat, metrics, ()
        if unit.count == 1:
            reason = "its loss or its meta-gradient is not finite"
            return np.zeros_like(flat), metrics, (Rejected(unit.first_index, episode.names[0], reason),)
        # Only one by one can the task at fault be told from the others of the unit.
        singles = [replace(unit, first_index=unit.first_index + i, count=1) for i in range(unit.count)]
        parts = [self._meta_gradient(work, single, meta_params, vector) for single in singles]
        total: np.ndarray = np.stack([part for part, _, _ in parts]).sum(0)
        joined = {name: torch.cat([its[name] for _, its, _ in parts]) for name in metrics}
        return total, joined, tuple(rejected for _, _, its in parts for rejected in its)

    def _evaluate(self, work: Work, unit: Unit, meta_params: Params, vector: np.ndarray) -> Metrics:
        self.model.train(False)
        with torch.no_grad():
            episode = self._episode(work, unit, meta_params, vector)
            adapted = work.learner.adapt(self.model, meta_params, episode.support)
            outputs = work.learner.predict(self.model, adapted, episode.query.inputs)
            return self.model.task.metrics(outputs, episode.query)

    def _episode(self, work: Work, unit: Unit, meta_params: Params, vector: np.ndarray) -> Episode:
        # Dropout draws from torch's own generator: seeded by the episode, it is the same on any worker.
        torch.manual_seed(np.random.SeedSequence([work.stream.seed, unit.first_index]).generate_state(1)[0].item())
        episode = self.task.episodes(work.stream, unit.first_index, unit.count)
        key = vector[:0] if self.body_is_frozen else vector

        def prepare(batch: Batch) -> Batch:
            if work.cache_features:
                rows = batch.inputs["rows"]
                features = self.cache.lookup(key, meta_params, work.stream.split, rows)
                batch = batch._replace(inputs={"features": features, "rows": rows})
            inputs = {name: value.to(self.device) for name, value in batch.inputs.items()}
            return Batch(inputs, batch.targets.to(self.device), batch.weights.to(self.device))

        return Episode(prepare(episode.support), prepare(episode.query), episode.names)
