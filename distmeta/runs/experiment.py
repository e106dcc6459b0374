"""Builds all parts of a run from its configuration, and checks them before anything starts."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from distmeta.algorithms.base import registry as algorithms
from distmeta.config import RunConfig
from distmeta.data.look import Look
from distmeta.engine.interfaces import Work
from distmeta.engine.params import Layout, sha256
from distmeta.engine.setup import ModelSpec, RunSetup
from distmeta.errors import ConfigError
from distmeta.models.base import ModelFactory, build
from distmeta.models.base import registry as models
from distmeta.models.functional import FunctionalModel
from distmeta.protocols import MetaLearner, TaskFamily
from distmeta.runs.identity import identify
from distmeta.runs.settings import make_kinds, make_learner, make_model_options
from distmeta.runs.starting import meta_parameters
from distmeta.tasks.base import Examples, Split
from distmeta.tasks.rounds import check_stream
from distmeta.tasks.visits import arrange
from distmeta.types import Mix, Score, Stream
from distmeta.use.learner import FORMAT, Learner

Streams = dict[str, list[Stream]]  # of a family, by split


class Contender(NamedTuple):
    """A row of the evaluation table: a learner, under θ or (`initial`) under θ before any training."""

    name: str
    learner: MetaLearner
    initial: bool


@dataclass(frozen=True)
class Experiment:
    """A run that is ready to start. Data of a family of tasks are keyed by the family's name."""

    config: RunConfig
    splits: dict[str, dict[str, Split]]
    streams: dict[str, Streams]
    tokenizer: Tokenizer | None
    models: dict[str, FunctionalModel]
    learner: MetaLearner
    setup: RunSetup
    score: Score  # by which learners are compared
    has_meta_test: bool = True
    looks: dict[str, Look] = field(default_factory=dict)

    @property
    def model(self) -> FunctionalModel:
        """The model of the first family."""
        return next(iter(self.models.values()))

    def contenders(self, family: str) -> list[Contender]:
        """The meta-trained learner, then the learners it is compared with on the same episodes of a family."""
        name = self.config.algorithm.name
        contenders = [
            Contender(f"{name}, meta-trained", self.learner, initial=False),
            Contender(f"{name}, not meta-trained", self.learner, initial=True),
        ]
        for algorithm in map(algorithms.get, algorithms.names()):
            if algorithm.baseline is not None and _suits(baseline := algorithm(), self.models[family]):
                contenders.append(Contender(algorithm.baseline, baseline, initial=True))
        return contenders

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that decides the run's result: equal identities give equal meta-parameters."""
        return identify(self.config, self.setup)

    def trained(self, vector: np.ndarray, outer_steps: int) -> Learner:
        """The meta-trained learner, for use without the run.

        Args:
            vector: θ, (P,) float32.
            outer_steps: how many steps θ was trained for.
        """
        spec, config, families = self.setup.model, self.config, {}
        for name, family in self.setup.families.items():
            element, outputs = spec.outputs[name]
            families[name] = {
                "kind": family.kind,
                "options": dict(config.families[name].data.model_extra or {}),
                "codec": family.codec_settings(),
                "element": element,
                "outputs": outputs,
                "source": family.source,
                "meta_train": list(self.splits[name]["meta_train"].classes),
            }
        options: Any = spec.options
        learner: Any = self.learner
        about = {
            "format": FORMAT,
            "model": {
                "name": config.model.name,
                "options": asdict(options),
                "architecture": spec.architecture,
                "freeze": list(spec.freeze),
            },
            "algorithm": {"name": config.algorithm.name, "options": asdict(learner)},
            "families": families,
            "meta_params": list(self.setup.layout.names),
            "meta_params_sha256": sha256(vector),
            "outer_steps": outer_steps,
        }
        return Learner(about, spec, self.learner, self.setup.layout.unflatten(vector), self.tokenizer)

    def work(self, learner: MetaLearner, stream: Stream, episodes: int) -> Work:
        """Evaluation of a learner on `episodes` episodes. Features are cached if that runs the body less often."""
        family, model = self.setup.families[stream.family], self.models[stream.family]
        names = list(self.setup.layout.names)
        adapts_body = any(name.startswith("body.") for name in learner.adapts(names))
        rows = len(family.rows(stream.split))
        pays = model.one_element_each and rows > 0 and not adapts_body
        if pays:
            episode = family.batch([family.draw(stream, 0)], tokens=False)
            pays = rows < episodes * sum(batch.targets.shape[1] for batch in (episode.support, episode.query))
        return Work(stream, learner, training=False, cache_features=pays)

    def evaluated(self, family: str, split: str) -> list[Stream]:
        """The streams of a family's evaluation episodes.

        Raises:
            PermissionError: a trial of a study asked for meta-test.
        """
        if split == "meta_test" and not self.has_meta_test:
            raise PermissionError("a trial of a study must not see meta-test episodes")
        return self.streams[family][split]


def build_experiment(config: RunConfig) -> Experiment:
    """Loads data and model, and checks that they fit the configuration. It adds no teacher: see `with_teacher`.

    Raises:
        UserError: something does not fit; the error names it.
    """
    learner = make_learner(config)
    outer = learner.outer(config.outer)
    check_stream(config, learner)
    options = make_model_options(config)
    examples = {name: kind.read(name, config.single(name)) for name, kind in make_kinds(config).items()}
    tokenizer, architecture = _prepare(config, options, examples)
    loaded = {name: part.load(tokenizer, architecture) for name, part in examples.items()}
    families = {name: part.family for name, part in loaded.items()}
    streams = {name: part.streams for name, part in loaded.items()}
    freeze = (config.model.freeze,) if isinstance(config.model.freeze, str) else tuple(config.model.freeze)
    heads = {n: (task.head.element, task.outputs(streams[n]["meta_train"][0])) for n, task in families.items()}
    values = {f"body.{name}": value for name, value in (options.pretrained(config.model.path) or {}).items()}
    network = build(options, architecture, heads, values, config.seed)
    made = {n: FunctionalModel(network, task, freeze, options.twice_differentiable) for n, task in families.items()}
    theta = meta_parameters(config, learner, made, families, streams, freeze)
    if config.stream.steps_per_task:
        families, streams = _in_rounds(config, families, streams, made)
        made = {n: FunctionalModel(network, task, freeze, options.twice_differentiable) for n, task in families.items()}
    layout = Layout.of(theta)
    frozen = {name: value.numpy() for model in made.values() for name, value in model.frozen.items()}
    spec = ModelSpec(options, architecture, heads, freeze, frozen, config.seed)
    body_is_frozen = not any(name.startswith("body.") for name in theta)
    by_row = all(made[name].one_element_each and len(task.rows("meta_train")) for name, task in families.items())
    cached = body_is_frozen and not options.dropout and by_row
    training = Work(_mixed(config, streams), learner, training=True, cache_features=cached)
    features = {
        name: _features_folder(config, name, families[name].fingerprint, model)
        for name, model in made.items()
        if config.families[name].data.keep_features and body_is_frozen
    }
    setup = RunSetup(
        families,
        spec,
        layout,
        layout.flatten(theta),
        outer,
        training,
        config.cluster,
        features=features,
        anchor_every=config.stream.steps_per_task if learner.anchored else 0,
    )
    splits = {name: part.splits for name, part in loaded.items()}
    looks = {name: part.look for name, part in loaded.items() if part.look}
    score = _score(families.values())
    return Experiment(config, splits, streams, tokenizer, made, learner, setup, score, looks=looks)


def _prepare(
    config: RunConfig, options: ModelFactory, examples: Mapping[str, Examples]
) -> tuple[Tokenizer | None, dict[str, Any]]:
    """The one tokenizer of all families, if they hold texts, and the body's architecture."""
    for name, part in examples.items():
        if options.reads != part.reads:
            suitable = [model for model in models.names() if models.get(model).reads == part.reads]
            kind = config.families[name].kind
            found = f"{config.model.name} reads {options.reads}, and {kind} tasks are of {part.reads}"
            raise ConfigError("model.name", found, f"use {' or '.join(suitable)}")
    if options.reads == "text":
        texts = itertools.chain.from_iterable(part.texts() for part in examples.values())
        return options.prepare(config.model.path, texts)
    return None, next(iter(examples.values())).architecture


def _in_rounds(
    config: RunConfig,
    families: Mapping[str, TaskFamily],
    streams: Mapping[str, Streams],
    made: Mapping[str, FunctionalModel],
) -> tuple[dict[str, TaskFamily], dict[str, Streams]]:
    """The only family and its streams, with meta-training tasks that arrive in rounds."""
    if len(families) > 1:
        raise ConfigError("stream.steps_per_task", "set for several families", "give one family, or leave it out")
    ((name, family),) = families.items()
    family, stream = arrange(config.single(name), family, streams[name]["meta_train"][0], made[name])
    return {name: family}, {name: {**streams[name], "meta_train": [stream]}}


def _mixed(config: RunConfig, streams: Mapping[str, Streams]) -> Stream | Mix:
    """The meta-training episodes: those of the only family, or a weighted mix of all families."""
    training = tuple(splits["meta_train"][0] for splits in streams.values())
    return training[0] if len(training) == 1 else Mix(training, tuple(task.weight for task in config.families.values()))


def _score(families: Iterable[TaskFamily]) -> Score:
    """The score that all families share, or else the mean of their scores."""
    scores = {family.score for family in families}
    if len(scores) == 1:
        return scores.pop()
    if all(score.is_share and score.higher_is_better for score in scores):
        return Score("mean_score", is_share=True, higher_is_better=True)
    found = f"families with different scores: {' and '.join(sorted(score.name for score in scores))}"
    raise ConfigError("tasks", found, "mix families whose scores are shares, such as accuracy and F1")


def _suits(learner: MetaLearner, model: FunctionalModel) -> bool:
    try:
        learner.check(model, 1)
    except ConfigError:
        return False
    return True


def _features_folder(config: RunConfig, name: str, fingerprint: str, model: FunctionalModel) -> Path:
    """The cache folder of a frozen body's features, named by a hash of all that decides them."""
    frozen = {name: value for name, value in model.frozen.items() if name.startswith("body.")}
    weights = sha256(Layout.of(frozen).flatten(frozen))
    options = config.model.model_dump(mode="json", exclude={"path"})
    text = json.dumps([fingerprint, weights, options], sort_keys=True)
    return config.families[name].data.cache_folder / "features" / hashlib.sha256(text.encode()).hexdigest()
