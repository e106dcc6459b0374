"""What the tests of algorithms share: small models of text, an episode, the query loss."""

import json
from typing import Any

import torch
from fakes import classification
from model_helpers import TEXTS, build, make_options, random_batch

from distmeta.algorithms.base import registry
from distmeta.models.functional import FunctionalModel
from distmeta.types import Batch, Episode, Params

TASK = classification("a", "b", "c")
SMALL: dict[str, dict[str, Any]] = {
    "text_cnn": {"embedding_size": 4, "filters": 3, "widths": (2,)},
    "text_rnn": {"embedding_size": 4, "hidden_size": 3},
    "text_attention": {"embedding_size": 4, "hidden_size": 4, "heads": 2},
    "mlp": {"embedding_size": 4, "hidden_sizes": (5,)},
}


def small_model(name: str, path: str | None, freeze: tuple[str, ...] = ()) -> FunctionalModel:
    options = make_options(name, **SMALL.get(name, {}))
    _, architecture = options.prepare(path, TEXTS)
    model = build(options, json.loads(json.dumps(architecture)), TASK, 2, freeze, seed=3)
    model.network.double()
    return model


def episode_of(tasks: int = 2) -> Episode:
    """Two classes, two support and one query text each, of different lengths."""
    support = random_batch((tasks, 4, 6), 12, seed=5)
    query = random_batch((tasks, 2, 4), 12, seed=6)

    def labelled(batch: Batch) -> Batch:
        targets = torch.arange(2).repeat_interleave(batch.targets.shape[1] // 2).repeat(tasks, 1)
        return batch._replace(targets=targets, weights=torch.ones(targets.shape, dtype=torch.float64), outputs=2)

    return Episode("classification", labelled(support), labelled(query), (("a", "b"),) * tasks)


def make(name: str) -> Any:
    """An algorithm with inner steps that matter, where it has any."""
    cls = registry.get(name)
    fields = cls.__dataclass_fields__
    return cls(**{k: v for k, v in {"inner_lr": 0.5, "inner_steps": 2}.items() if k in fields})


def query_loss(learner: Any, model: FunctionalModel, theta: Params, episode: Episode) -> float:
    with torch.no_grad():
        adapted = learner.adapt(model, theta, episode.support)
        return float(TASK.loss(learner.predict(model, adapted, episode.query.inputs), episode.query).sum())
