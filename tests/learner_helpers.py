"""What the tests of algorithms share: a quadratic learner, small models of text, an episode, the query loss."""

import json
from types import SimpleNamespace
from typing import Any

import torch
from model_helpers import TEXTS, build, make_options, random_batch
from torch import Tensor

from distmeta.algorithms.base import registry
from distmeta.models.base import FunctionalModel
from distmeta.tasks.classification import Classification
from distmeta.tasks.drawing import Classes
from distmeta.types import Batch, Episode, Inputs, Metrics, Params

CORPUS: Any = SimpleNamespace(classes=("a", "b", "c"))  # all that the loss, the metrics and the algorithms need


TASK = Classification(CORPUS, Classes(CORPUS))


SMALL: dict[str, dict[str, Any]] = {
    "text_cnn": {"embedding_size": 4, "filters": 3, "widths": (2,)},
    "text_rnn": {"embedding_size": 4, "hidden_size": 3},
    "text_attention": {"embedding_size": 4, "hidden_size": 4, "heads": 2},
    "mlp": {"embedding_size": 4, "hidden_sizes": (5,)},
}


class Quadratic:
    """L = ½ mean((b + h − t)²) with scalars b (`body.b`) and h (`head.h`) and targets t (T, B)."""

    task: Any
    twice_differentiable = True

    def __init__(self) -> None:
        self.task = self

    def init(self) -> Params:
        return {"body.b": torch.tensor(B, dtype=torch.float64), "head.h": torch.tensor(H, dtype=torch.float64)}

    def encode(self, shared: Params, adapted: list[str], inputs: Inputs) -> Inputs:
        return inputs

    def outputs(self, shared: Params, stacked: Params, inputs: Inputs, dropout: float = 0.0) -> Tensor:
        values = {**shared, **stacked}
        total = values["body.b"] + values["head.h"]
        return total.reshape(-1, 1).expand(inputs["rows"].shape)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return 0.5 * (outputs - batch.targets).square().mean(1)

    def metrics(self, outputs: Tensor, batch: Batch) -> Metrics:
        return {"loss": self.loss(outputs, batch).detach()}


B, H, LR, STEPS = 0.3, 0.4, 0.1, 3


def small_model(name: str, path: str | None) -> FunctionalModel:
    options = make_options(name, **SMALL.get(name, {}))
    _, architecture = options.prepare(path, TEXTS)
    model = build(options, json.loads(json.dumps(architecture)), TASK, 2, seed=3)
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
