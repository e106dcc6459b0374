"""From a configuration to everything a run is made of, checked before anything starts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer

from distmeta.algorithms.base import registry as algorithms
from distmeta.algorithms.finetune import FineTune
from distmeta.algorithms.metanet import MetaNet
from distmeta.algorithms.protonet import ProtoNet
from distmeta.algorithms.proximal import Proximal
from distmeta.config import RunConfig, Section
from distmeta.config.load import build_options
from distmeta.engine.params import Layout, sha256
from distmeta.engine.setup import ModelSpec, RunSetup
from distmeta.errors import ConfigError
from distmeta.models.base import FunctionalModel, ModelFactory, build
from distmeta.models.base import registry as models
from distmeta.models.names import match
from distmeta.protocols import MetaLearner
from distmeta.runs.teacher import load_teacher, teacher_sha256
from distmeta.tasks.base import Kind, Split
from distmeta.tasks.base import registry as kinds
from distmeta.tasks.classification import Classification
from distmeta.tasks.rounds import check_stream
from distmeta.tasks.visits import arrange
from distmeta.types import Stream, Visit, Work


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
    has_meta_test: bool = True

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
        if self.config.stream.steps_per_task:
            deciding["stream"] = config["stream"]
        deciding["tasks_per_unit"] = config["cluster"]["tasks_per_unit"]
        if self.config.cluster.max_staleness:
            deciding |= {name: config["cluster"][name] for name in ("max_staleness", "staleness_alpha")}
        if self.config.cluster.compression != "none":
            deciding["compression"] = config["cluster"]["compression"]
        for name in ("path", "cache", "keep_features", "splits"):
            deciding["data"].pop(name)  # where the data lies does not matter: its content is hashed below
        deciding["model"].pop("path")
        if deciding["episodes"]["only"] == ["*"]:
            deciding["episodes"].pop("only")
        deciding["algorithm"].pop("teacher", None)
        if self.config.outer.schedule == "constant":
            deciding["outer"].pop("steps")  # so that a finished run can be prolonged
        text = json.dumps(deciding, sort_keys=True)
        frozen = Layout.of(self.model.frozen)
        return {
            "config": hashlib.sha256(text.encode()).hexdigest(),
            "data": self.setup.task.fingerprint,
            "initial_meta_params": sha256(self.setup.meta_params),
            "frozen_params": sha256(frozen.flatten(self.model.frozen)),
            **({"teacher": teacher_sha256(teacher)} if (teacher := self.setup.teacher) else {}),
        }

    def work(self, learner: MetaLearner, stream: Stream, episodes: int) -> Work:
        """Evaluation of a learner on so many episodes; features are kept where that saves running the body."""
        names = list(self.setup.layout.names)
        adapts_body = any(name.startswith("body.") for name in learner.adapts(names))
        texts = episodes * stream.ways * (stream.shots + stream.queries)
        pays = 0 < len(self.setup.task.rows(stream.split)) < texts
        return Work(stream, learner, training=False, cache_features=pays and not adapts_body)

    def stream(self, split: str, shots: int) -> Stream:
        """Evaluation episodes of a split.

        Raises:
            PermissionError: of meta-test, in the trial of a study.
        """
        if split == "meta_test" and not self.has_meta_test:
            raise PermissionError("a trial of a study must not see meta-test episodes")
        evaluation = self.config.evaluation
        ways = self.config.evaluation_ways if self.setup.task.has_classes else 1
        return Stream(split, ways, shots, evaluation.queries, evaluation.seed)


def build_experiment(config: RunConfig, with_teacher: bool = True) -> Experiment:
    """Loads data and model, and the teacher if the algorithm has one, and checks that they fit the configuration.

    Raises:
        UserError: naming what does not.
    """
    learner = make_learner(config)
    check_stream(config)
    options = make_model_options(config)
    kind = make_kind(config)
    task, architecture, tokenizer, splits = kind.load(config, options)
    if options.reads != task.reads:
        suitable = [name for name in models.names() if models.get(name).reads == task.reads]
        found = f"{config.model.name} reads {options.reads}, and {config.data.kind} tasks are of {task.reads}"
        raise ConfigError("model.name", found, f"use {' or '.join(suitable)}")
    if not task.has_classes:
        _refuse_class_options(config)
    freeze = (config.model.freeze,) if isinstance(config.model.freeze, str) else tuple(config.model.freeze)
    ways = config.episodes.ways if task.has_classes else 1
    outputs = task.outputs(ways)
    pretrained = options.pretrained(config.model.path)
    values = {f"body.{name}": value for name, value in (pretrained or {}).items()}
    model = build(options, architecture, task, outputs, freeze, values, config.seed)
    _check_patterns(config, model, freeze)
    learner.check(model)
    if isinstance(learner, MetaNet):
        learner.check_head(max(ways, config.evaluation_ways), model.dim)
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
    stream = Stream("meta_train", seed=config.seed, **config.episodes.model_dump(exclude={"only"}) | {"ways": ways})
    if config.stream.steps_per_task:
        assert isinstance(task, Classification), "a stream of other tasks was not refused"
        task = arrange(config, task, model)
        stream = Visit(**vars(stream), neighbours=config.stream.neighbours)
    body_is_frozen = not any(name.startswith("body.") for name in theta)
    cached = body_is_frozen and not options.dropout and len(task.rows("meta_train")) > 0
    training = Work(stream, learner, training=True, cache_features=cached)
    setup = RunSetup(task, spec, layout, layout.flatten(theta), config.outer, training, config.cluster)
    if config.data.keep_features and body_is_frozen:
        setup = replace(setup, features=_features_folder(config, task.fingerprint, model))
    if isinstance(learner, Proximal):
        setup = replace(setup, outer=learner.penalise(config.outer), anchor_every=config.stream.steps_per_task)
    experiment = Experiment(config, splits, tokenizer, model, learner, setup)
    if with_teacher and hasattr(learner, "teacher"):
        teacher = load_teacher(learner.teacher, experiment, kind, partial(build_experiment, with_teacher=False))
        experiment = replace(experiment, setup=replace(setup, teacher=teacher))
    return experiment


def _features_folder(config: RunConfig, fingerprint: str, model: FunctionalModel) -> Path:
    """Named by all that decides what a frozen body makes of the texts."""
    frozen = {name: value for name, value in model.frozen.items() if name.startswith("body.")}
    weights = sha256(Layout.of(frozen).flatten(frozen))
    options = config.model.model_dump(mode="json", exclude={"path"})
    text = json.dumps([fingerprint, weights, options], sort_keys=True)
    return Path(config.data.cache).expanduser() / "features" / hashlib.sha256(text.encode()).hexdigest()


def make_learner(config: RunConfig) -> MetaLearner:
    """The configured algorithm; `inner.*` keys set its fields of the same names."""
    name = config.algorithm.name
    cls = algorithms.get(name)
    options: dict[str, Any] = dict(config.algorithm.model_extra or {})
    keys = {option: f"algorithm.{option}" for option in options}
    adapts = "inner_steps" in {field.name for field in fields(cls)}
    # Not `model_fields_set`: a run's own config.yaml gives every key.
    for key, value in config.inner.model_dump(exclude_none=True).items():
        if not adapts:
            found = f"{name} does not learn a task by gradient steps"
            raise ConfigError(f"inner.{key}", found, "leave it out, or use protomaml")
        options[f"inner_{key}"] = value
        keys[f"inner_{key}"] = f"inner.{key}"
    learner: MetaLearner = build_options(cls, {k: v for k, v in options.items() if v is not None}, keys, also=["name"])
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


def _refuse_class_options(config: RunConfig) -> None:
    """Refuses what is about classes where there are none; the defaults, which a run's own config.yaml gives, do."""
    for key in ("episodes.ways", "episodes.label_shuffle", "episodes.label_mixing", "episodes.only", "evaluation.ways"):
        name, _, field = key.partition(".")
        section = getattr(config, name)
        if (value := getattr(section, field)) != type(section).model_fields[field].default:
            raise ConfigError(key, f"{value}, but {config.data.kind} tasks have no classes", "leave it out")


def _check_patterns(config: RunConfig, model: FunctionalModel, freeze: tuple[str, ...]) -> None:
    """Refuses patterns of parameter names that fit nothing, and more layers than there are."""
    names = [*model.frozen, *model.free]
    adapt = config.inner.adapt or []
    for key, patterns, among in (
        ("model.freeze", freeze, names),
        ("inner.adapt", [adapt] if isinstance(adapt, str) else adapt, model.free),
    ):
        for pattern in patterns:
            fits = match(names, pattern, key)
            if not match(among, pattern, key):
                frozen = " that is not frozen" if fits else ""
                remedy = f"there are {len(names)}, such as {', '.join(names[:3])}"
                if pattern == "lora" and not fits:
                    remedy = "set model.lora_rank, such as 4, with model.name=hf"
                raise ConfigError(key, f"{pattern!r} fits no parameter{frozen}", remedy)
