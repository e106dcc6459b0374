"""Relation networks: the module by hand, its start as a comparison, and its objective's derivative."""

import math
from math import exp, log
from typing import Any

import pytest
import torch
from fakes import Given
from metric_helpers import (
    TASK,
    given,
    outputs_of,
    random_given,
    scattered,
    slope,
    small_model,
    take,
    text_episode,
    with_padding,
    without_classes,
)
from torch import Tensor

from distmeta.algorithms.relation import MIDDLE, SLOPE, Relation
from distmeta.config.load import build_options
from distmeta.errors import ConfigError
from distmeta.types import Params


def by_hand() -> Params:
    """W = (1 −1; 2 1), b = (0, −1), v = (1, ½), d = −2, on one feature."""
    values = {
        "hidden.weight": [[1.0, -1.0], [2.0, 1.0]],
        "hidden.bias": [0.0, -1.0],
        "score.weight": [[1.0, 0.5]],
        "score.bias": [-2.0],
    }
    return {f"meta.relation.{name}": torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


# Class 0 at 1 and 3 → 2 (9 has weight 0), class 1 at 0. Query 1:
# class 0: relu(2 − 1, 4 + 1 − 1) = (1, 4) → 1 + 2 − 2 = 1;   class 1: relu(0 − 1, 0 + 1 − 1) = (0, 0) → −2.
SUPPORT = given([[1.0], [3.0], [9.0], [0.0]], [0, 0, 0, 1], [1, 1, 0, 1])
# Query −3 (class 1): class 0: relu(5, 4 − 3 − 1) = (5, 0) → 3;   class 1: relu(3, −4) = (3, 0) → 1. Query 9: weight 0.
QUERY = given([[1.0], [-3.0], [9.0]], [0, 1, 1], [1, 1, 0])
SCORES = [[1.0, -2.0], [3.0, 1.0]]


def sigmoid(z: float) -> float:
    return 1 / (1 + exp(-z))


def test_scores_of_a_hand_worked_episode() -> None:
    outputs = outputs_of(Relation(hidden_size=2), Given(1), by_hand(), SUPPORT, QUERY)
    expected = [log(sigmoid(z)) for row in SCORES for z in row]
    assert outputs[0, :2].flatten().tolist() == pytest.approx(expected, abs=1e-12)


def test_both_objectives_of_a_hand_worked_episode() -> None:
    """A query's error: mean over classes of (r − 1[right])², or −log of the right class's share of Σ r."""
    r = [[sigmoid(z) for z in row] for row in SCORES]
    squares = [((1 - r[0][0]) ** 2 + r[0][1] ** 2) / 2, (r[1][0] ** 2 + (1 - r[1][1]) ** 2) / 2]
    shares = [-log(r[0][0] / sum(r[0])), -log(r[1][1] / sum(r[1]))]
    model: Any = Given(1)
    for loss, each in (("mse", squares), ("cross_entropy", shares)):
        learner = build_options(Relation, {"hidden_size": 2, "loss": loss}, {})
        outputs = outputs_of(learner, model, by_hand(), SUPPORT, QUERY)
        assert float(learner.objective(model, outputs, QUERY)) == pytest.approx(sum(each) / 2, abs=1e-12)
        assert TASK.metrics(outputs, QUERY)["accuracy"].tolist() == [0.5]  # 1 > −2 is right, 3 > 1 is not


def test_it_starts_as_a_comparison_by_distance() -> None:
    """With a whole basis of D directions, log r / (1 − r) is SLOPE (MIDDLE − distance) but for a small relative error.

    Its size is that of Σ|x_j| of a randomly rotated vector, given its length: √((π/2 − 3/2) / D), by the moments of
    normal variables. Without orthogonality it would be √((π/2 − 1) / D), 2.8 times as much.
    """
    dim, model = 96, Given(96, 5)
    support, query = random_given(4, 5, 1, dim, seed=0), random_given(4, 5, 8, dim, seed=1)
    lengths = torch.linspace(0.02, 0.2, 40, dtype=torch.float64).unsqueeze(1)
    query.inputs["features"] = query.inputs["features"] * lengths
    support.inputs["features"] = support.inputs["features"] * 0.02
    theta = Relation(hidden_size=2 * dim).init(model, torch.Generator().manual_seed(2))  # type: ignore[arg-type]
    assert {value.dtype for value in theta.values()} == {torch.float64}
    scores = outputs_of(Relation(), model, theta, support, query).exp().logit()
    difference = query.inputs["features"].unsqueeze(2) - support.inputs["features"].unsqueeze(1)
    distances = difference.norm(dim=-1)
    assert float(distances.max()) > 5 * float(distances.min())
    errors = (MIDDLE - scores / SLOPE) / distances - 1
    assert float(errors.mean()) == pytest.approx(0, abs=0.01)
    assert float(errors.square().mean().sqrt()) == pytest.approx(((math.pi / 2 - 1.5) / dim) ** 0.5, rel=0.2)


@pytest.mark.parametrize("hidden_size", [48, 96, 384])
def test_it_starts_as_a_comparison_with_fewer_and_more_directions_than_features(hidden_size: int) -> None:
    """Of 96 features; the error of a mean over 24 or more directions is a fifth or less, and 0 on average."""
    model: Any = Given(96, 2)
    support, query = random_given(3, 2, 1, 96, seed=0), random_given(3, 2, 30, 96, seed=1)
    for batch in (support, query):
        batch.inputs["features"] = batch.inputs["features"] * 0.05
    theta = Relation(hidden_size=hidden_size).init(model, torch.Generator().manual_seed(2))
    scores = outputs_of(Relation(), model, theta, support, query).exp().logit()
    distances = (query.inputs["features"].unsqueeze(2) - support.inputs["features"].unsqueeze(1)).norm(dim=-1)
    errors = (MIDDLE - scores / SLOPE) / distances - 1
    assert float(errors.mean()) == pytest.approx(0, abs=0.05)


def test_order_and_padding_of_the_support_set_do_not_matter() -> None:
    model: Any = Given(4, 3)
    support, query = random_given(2, 3, 2, 4, seed=0), random_given(2, 3, 1, 4, seed=1)
    learner = Relation(hidden_size=8)
    theta = scattered(learner.init(model, torch.Generator().manual_seed(0)), 0.3)
    outputs = outputs_of(learner, model, theta, support, query)
    for changed in (take(support, [3, 0, 5, 1, 4, 2]), with_padding(support, 3)):
        torch.testing.assert_close(outputs_of(learner, model, theta, changed, query), outputs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("name", ["mlp", "text_cnn"])
def test_the_gradient_is_the_derivative_of_the_objective(name: str, loss: Any) -> None:
    model, episode, learner = small_model(name), text_episode(), Relation(hidden_size=6, loss=loss)
    theta = scattered(learner.init(model, torch.Generator().manual_seed(0)), 0.3)
    assert {name.split(".")[0] for name in theta} == {"body", "meta"}
    gradient, _ = learner.meta_gradient(model, theta, episode)

    def objective(moved: Params) -> Tensor:
        """Worked out anew, so that the objective is under test with its gradient."""
        adapted = learner.adapt(model, moved, episode.support)
        scores = learner.predict(model, adapted, episode.query.inputs).exp()
        if loss == "cross_entropy":
            scores = scores / scores.sum(-1, keepdim=True)
            each = -scores.gather(-1, episode.query.targets.unsqueeze(-1)).squeeze(-1).log()
        else:
            each = (scores - torch.eye(2, dtype=torch.float64)[episode.query.targets]).square().mean(-1)
        return each[:, :3].mean(1).sum()  # the fourth query text has weight 0

    ours, theirs = slope(objective, theta, gradient)
    assert ours == pytest.approx(theirs, rel=2e-5)
    assert abs(ours) > 1e-3


def test_what_does_not_do_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"algorithm\.name.*classes"):
        Relation().check(without_classes(2), 1)
    with pytest.raises(ConfigError, match=r"algorithm\.hidden_size: invalid value 7"):
        build_options(Relation, {"hidden_size": 7}, {"hidden_size": "algorithm.hidden_size"})
