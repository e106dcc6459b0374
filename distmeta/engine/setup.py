"""The plain data that server and workers are built from. It is pickled and sent to where they run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from distmeta.config import ClusterConfig, OuterConfig
from distmeta.engine.coordinator import Coordinator
from distmeta.engine.encode import FeatureStore
from distmeta.engine.interfaces import MakeParameters, Pool, Work
from distmeta.engine.params import Layout
from distmeta.engine.server import ParameterServer
from distmeta.engine.shard import Shard
from distmeta.engine.worker import Teacher, Worker
from distmeta.models.base import Architecture, ModelFactory, build
from distmeta.models.functional import FunctionalModel
from distmeta.protocols import Scoring, TaskFamily


@dataclass(frozen=True)
class ModelSpec:
    """Enough to build the same model anywhere, without files. `frozen` holds the parameters that are not in θ.

    `outputs` holds, for each family, the kind of its elements and the number of outputs of an element.
    """

    options: ModelFactory
    architecture: Architecture
    outputs: dict[str, tuple[str, int]]
    freeze: tuple[str, ...]
    frozen: dict[str, np.ndarray]
    seed: int

    def build(self, families: Mapping[str, Scoring], device: str) -> dict[str, FunctionalModel]:
        """Builds one network, and a model of each family on it.

        Parameters that are not frozen have random values, since callers always pass θ.
        """
        values = {name: torch.tensor(value) for name, value in self.frozen.items()}
        network = build(self.options, self.architecture, self.outputs, values, self.seed, device)
        differentiable = self.options.twice_differentiable
        return {name: FunctionalModel(network, task, self.freeze, differentiable) for name, task in families.items()}


@dataclass(frozen=True)
class RunSetup:
    """What server and workers are built from, wherever they run (see `distmeta.backends.base.Setup`)."""

    families: dict[str, TaskFamily]
    model: ModelSpec
    layout: Layout
    meta_params: np.ndarray
    outer: OuterConfig
    training: Work
    cluster: ClusterConfig
    teacher: RunSetup | None = None  # gets the same episodes in meta-training
    # By family, the folder of a frozen body's features, shared by workers and runs; a subfolder for each device.
    features: Mapping[str, Path] = field(default_factory=dict)
    anchor_every: int = 0  # outer steps after which the proximal regulariser's anchor moves to θ; 0: never

    def make_worker(self, name: str, device: str) -> Worker:
        """Builds a worker on a device."""
        if device != "cpu" and self.cluster.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS chooses its kernels freely
            torch.use_deterministic_algorithms(True)
        teacher = None
        if self.teacher is not None:
            worker = self.teacher.make_worker(f"teacher of {name}", device)
            teacher = Teacher(worker, self.teacher.training, self.teacher.meta_params)
        packed = self.cluster.compression == "bf16"
        kind = torch.cuda.get_device_name(device) if device != "cpu" else torch.backends.cpu.get_cpu_capability()
        place = f"{torch.__version__}-{kind.replace(' ', '-')}"  # features from another device may differ in a bit
        features = {name: folder / place for name, folder in self.features.items()}
        models = self.model.build(self.families, device)
        return Worker(name, self.families, models, self.layout, device, teacher, packed, features)

    def make_coordinator(self, pool: Pool, make_parameters: MakeParameters = Shard) -> Coordinator:
        """Builds the parameter server and its coordinator.

        The regulariser applies to the learner's parameters, but not to meta-learned rates, which set how it learns.
        """
        of_learner = [not name.startswith("meta.rate.") for name in self.layout.names]
        regularized = None if all(of_learner) else np.repeat(of_learner, self.layout.sizes)
        alpha = self.cluster.staleness_alpha if self.cluster.max_staleness else None
        server = ParameterServer(self.outer, self.meta_params, self.anchor_every, regularized, alpha, make_parameters)
        body_is_frozen = not any(name.startswith("body.") for name in self.layout.names)
        store = FeatureStore(self.families, body_is_frozen)
        return Coordinator(pool, server, self.training, self.outer, self.cluster, store=store)
