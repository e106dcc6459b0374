"""What server and workers are built from, wherever they run: plain data that is pickled."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from distmeta.config import ClusterConfig, OuterConfig
from distmeta.engine.coordinator import Coordinator
from distmeta.engine.encode import FeatureStore
from distmeta.engine.params import Layout
from distmeta.engine.server import ParameterServer
from distmeta.engine.shard import Shard
from distmeta.engine.worker import Teacher, Worker
from distmeta.models.base import Architecture, FunctionalModel, ModelFactory, build
from distmeta.protocols import MakeParameters, Pool, TaskKind
from distmeta.types import Work


@dataclass(frozen=True)
class ModelSpec:
    """Enough to build the same model anywhere, without files. `frozen` holds what is not in θ."""

    options: ModelFactory
    architecture: Architecture
    outputs: int
    freeze: tuple[str, ...]
    frozen: dict[str, np.ndarray]
    seed: int

    def build(self, task: TaskKind, device: str) -> FunctionalModel:
        """Builds the model; what is free has random values, since θ is always given."""
        values = {name: torch.tensor(value) for name, value in self.frozen.items()}
        return build(self.options, self.architecture, task, self.outputs, self.freeze, values, self.seed, device)


@dataclass(frozen=True)
class RunSetup:
    """What server and workers are built from, wherever they run (see `distmeta.backends.Setup`)."""

    task: TaskKind
    model: ModelSpec
    layout: Layout
    meta_params: np.ndarray
    outer: OuterConfig
    training: Work
    cluster: ClusterConfig
    teacher: RunSetup | None = None  # meets the same episodes in meta-training
    features: Path | None = None  # where features of a frozen body are kept for others too, in a folder for each device
    anchor_every: int = 0  # outer steps after which the proximal regulariser's anchor moves up to θ; 0: never

    def make_worker(self, name: str, device: str) -> Worker:
        """Builds a worker on a device."""
        if device != "cpu" and self.cluster.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS chooses its kernels freely
            torch.use_deterministic_algorithms(True)
        teacher = None
        if self.teacher is not None:
            worker = self.teacher.make_worker(f"teacher of {name}", device)
            teacher = Teacher(worker, self.teacher.training, self.teacher.meta_params)
        packed, features = self.cluster.compression == "bf16", None
        if self.features is not None:
            kind = torch.cuda.get_device_name(device) if device != "cpu" else torch.backends.cpu.get_cpu_capability()
            features = self.features / f"{torch.__version__}-{kind.replace(' ', '-')}"  # others' may differ in a bit
        model = self.model.build(self.task, device)
        return Worker(name, model, self.task, self.layout, device, teacher, packed, features)

    def make_coordinator(self, pool: Pool, make_parameters: MakeParameters = Shard) -> Coordinator:
        """Builds the parameter server and its coordinator.

        The regulariser is of the learner's parameters: not of rates that are meta-learned, which say how it learns.
        """
        of_learner = [not name.startswith("meta.rate.") for name in self.layout.names]
        regularized = None if all(of_learner) else np.repeat(of_learner, self.layout.sizes)
        alpha = self.cluster.staleness_alpha if self.cluster.max_staleness else None
        server = ParameterServer(self.outer, self.meta_params, self.anchor_every, regularized, alpha, make_parameters)
        body_is_frozen = not any(name.startswith("body.") for name in self.layout.names)
        store = FeatureStore(self.task, body_is_frozen)
        return Coordinator(pool, server, self.training, self.outer, self.cluster, store=store)
