"""From a configuration to everything a run is made of, checked before anything starts."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer

from distmeta.algorithms.base import registry as algorithms
from distmeta.algorithms.finetune import FineTune
from distmeta.algorithms.protonet import ProtoNet
from distmeta.config import OuterConfig, RunConfig, Section
from distmeta.coordinator import Coordinator
from distmeta.errors import ConfigError
from distmeta.models.base import Architecture, FunctionalModel, ModelFactory, build, match
from distmeta.models.base import registry as models
from distmeta.params import Layout, sha256
from distmeta.protocols import MetaLearner, Pool, TaskKind
from distmeta.server import ParameterServer
from distmeta.settings import build_options
from distmeta.tasks.base import Kind, Split
from distmeta.tasks.base import registry as kinds
from distmeta.types import Stream, Work
from distmeta.worker import Worker


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
    tasks_per_unit: int
    deterministic: bool

    def make_worker(self, name: str, device: str) -> Worker:
        """Builds a worker on a device."""
        if device != "cpu" and self.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS chooses its kernels freely
            torch.use_deterministic_algorithms(True)
        return Worker(name, self.model.build(self.task, device), self.task, self.layout, device)

    def make_coordinator(self, pool: Pool) -> Coordinator:
        """Builds the parameter server and its coordinator."""
        server = ParameterServer(self.outer, self.meta_params)
        return Coordinator(pool, server, self.training, self.outer.meta_batch_size, self.tasks_per_unit)


class Contender(NamedTuple):
    """A row of the evaluation table: a learner, under θ or (`initial`) what θ started from."""

    name: str
    learner: MetaLearner
    initial: bool


@dataclass(frozen=True)
class Experiment:
    """A run that could start."""

    config: RunConfig
    splits: dict[str, Split]
    tokenizer: Tokenizer | None
    model: FunctionalModel
    learner: MetaLearner
    setup: RunSetup

    @property
    def contenders(self) -> list[Contender]:
        """The meta-trained learner, then what it is compared with on the same episodes."""
        name = self.config.algorithm.name
        contenders = [
            Contender(f"{name}, meta-trained", self.learner, initial=False),
            Contender(f"{name}, not meta-trained", self.learner, initial=True),
            Contender("fine-tuned head, frozen encoder", FineTune(), initial=True),
        ]
        if self.setup.task.has_classes:
            contenders.append(Contender("prototypes, frozen encoder", ProtoNet(), initial=True))
        return contenders

    @cached_property
    def identity(self) -> dict[str, str]:
        """Hashes of what decides a run's result: equal identities give equal meta-parameters."""
        config = self.config.model_dump(mode="json")
        deciding = {name: config[name] for name in ("data", "episodes", "model", "algorithm", "inner", "outer", "seed")}
        deciding["tasks_per_unit"] = config["cluster"]["tasks_per_unit"]
        for name in ("path", "cache", "splits"):
            deciding["data"].pop(name)  # where the data lies does not matter: its content is hashed below
        deciding["model"].pop("path")
        if self.config.outer.schedule == "constant":
            deciding["outer"].pop("steps")  # so that a finished run can be prolonged
        text = json.dumps(deciding, sort_keys=True)
        frozen = Layout.of(self.model.frozen)
        return {
            "config": hashlib.sha256(text.encode()).hexdigest(),
            "data": self.setup.task.fingerprint,
            "initial_meta_params": sha256(self.setup.meta_params),
            "frozen_params": sha256(frozen.flatten(self.model.frozen)),
        }

    def work(self, learner: MetaLearner, stream: Stream, episodes: int) -> Work:
        """Evaluation of a learner on so many episodes; features are kept where that saves running the body."""
        names = list(self.setup.layout.names)
        adapts_body = any(name.startswith("body.") for name in learner.adapts(names))
        texts = episodes * stream.ways * (stream.shots + stream.queries)
        pays = 0 < len(self.setup.task.rows(stream.split)) < texts
        return Work(stream, learner, training=False, cache_features=pays and not adapts_body)

    def stream(self, split: str, shots: int) -> Stream:
        """Evaluation episodes of a split."""
        evaluation = self.config.evaluation
        ways = self.config.evaluation_ways if self.setup.task.has_classes else 1
        return Stream(split, ways, shots, evaluation.queries, evaluation.seed)


def build_experiment(config: RunConfig) -> Experiment:
    """Loads data and model, and checks that they fit the configuration.

    Raises:
        UserError: naming what does not.
    """
    learner = make_learner(config)
    options = make_model_options(config)
    kind = make_kind(config)
    task, architecture, tokenizer, splits = kind.load(config, options)
    if options.reads != task.reads:
        suitable = [name for name in models.names() if models.get(name).reads == task.reads]
        found = f"{config.model.name} reads {options.reads}, and {config.data.kind} tasks are of {task.reads}"
        raise ConfigError("model.name", found, f"use {' or '.join(suitable)}")
    freeze = (config.model.freeze,) if isinstance(config.model.freeze, str) else tuple(config.model.freeze)
    ways = config.episodes.ways if task.has_classes else 1
    outputs = task.outputs(ways)
    pretrained = options.pretrained(config.model.path)
    values = {f"body.{name}": value for name, value in (pretrained or {}).items()}
    model = build(options, architecture, task, outputs, freeze, values, config.seed)
    _check_patterns(config, model, freeze)
    learner.check(model)
    if config.outer.steps and not learner.trains:
        found = f"{config.outer.steps}, but {config.algorithm.name} trains nothing beforehand"
        raise ConfigError("outer.steps", found, "set it to 0, or use multitask")
    theta = learner.init(model, torch.Generator().manual_seed(config.seed))
    if not theta:
        raise ConfigError("model.freeze", "nothing is left to meta-learn", "freeze less")
    if config.evaluation_ways != config.episodes.ways and any(name.startswith("head.") for name in theta):
        raise ConfigError(
            "evaluation.ways",
            f"{config.algorithm.name} meta-learns a head for {config.episodes.ways} ways",
            "give the same number, or use protomaml or protonet",
        )
    layout = Layout.of(theta)
    frozen = {name: value.numpy() for name, value in model.frozen.items()}
    spec = ModelSpec(options, architecture, outputs, freeze, frozen, config.seed)
    shape = config.episodes
    stream = Stream("meta_train", ways, shape.shots, shape.queries, config.seed)
    body_is_constant = not any(name.startswith("body.") for name in theta) and not options.dropout
    cached = body_is_constant and len(task.rows("meta_train")) > 0
    training = Work(stream, learner, training=True, cache_features=cached)
    setup = RunSetup(
        task,
        spec,
        layout,
        layout.flatten(theta),
        config.outer,
        training,
        config.cluster.tasks_per_unit,
        config.cluster.deterministic,
    )
    return Experiment(config, splits, tokenizer, model, learner, setup)


def make_learner(config: RunConfig) -> MetaLearner:
    """The configured algorithm; `inner.*` keys set its fields of the same names."""
    name = config.algorithm.name
    cls = algorithms.get(name)
    options: dict[str, Any] = dict(config.algorithm.model_extra or {})
    keys = {option: f"algorithm.{option}" for option in options}
    adapts = "inner_steps" in {field.name for field in fields(cls)}
    for key in sorted(config.inner.model_fields_set):
        if not adapts:
            found = f"{name} does not learn a task by gradient steps"
            raise ConfigError(f"inner.{key}", found, "leave it out, or use protomaml")
        options[f"inner_{key}"] = getattr(config.inner, key)
        keys[f"inner_{key}"] = f"inner.{key}"
    learner: MetaLearner = build_options(cls, {k: v for k, v in options.items() if v is not None}, keys)
    return learner


def make_model_options(config: RunConfig) -> ModelFactory:
    """The configured model's options."""
    options: ModelFactory = _build_extra(models.get(config.model.name), config.model, "model")
    return options


def make_kind(config: RunConfig) -> Kind:
    """The configured kind of tasks."""
    kind: Kind = _build_extra(kinds.get(config.data.kind), config.data, "data")
    return kind


def _build_extra(cls: type[Any], section: Section, name: str) -> Any:
    """A registered class from what its configuration section holds besides its own keys."""
    extra = dict(section.model_extra or {})
    return build_options(cls, extra, {key: f"{name}.{key}" for key in extra}, also=type(section).model_fields)


def _check_patterns(config: RunConfig, model: FunctionalModel, freeze: tuple[str, ...]) -> None:
    """Refuses patterns of parameter names that fit nothing."""
    names = [*model.frozen, *model.free]
    adapt = config.inner.adapt or []
    for key, patterns, among in (
        ("model.freeze", freeze, names),
        ("inner.adapt", [adapt] if isinstance(adapt, str) else adapt, model.free),
    ):
        for pattern in patterns:
            if not match(among, pattern):
                frozen = " that is not frozen" if match(names, pattern) else ""
                shown = ", ".join(names[:3])
                raise ConfigError(
                    key, f"{pattern!r} fits no parameter{frozen}", f"there are {len(names)}, such as {shown}"
                )
