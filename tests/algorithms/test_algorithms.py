"""Every registered algorithm: its meta-gradient against an independent route, and its arithmetic by hand."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from fakes import Given, Quadratic, quadratic_episode
from learner_helpers import TASK, episode_of, make, query_loss, small_model
from model_helpers import random_batch, save_encoder

from distmeta.algorithms.base import concatenate, registry
from distmeta.algorithms.protonet import ProtoNet, prototypes
from distmeta.models.base import registry as models
from distmeta.protocols import MetaLearner
from distmeta.types import Batch, Episode

# Not the derivative of the query loss after adaptation: they have their own definitions, and their own tests.
NOT_A_DERIVATIVE = {"fomaml", "reptile", "multitask", "proximal", "relation", "metanet"}


SUPPORT, QUERY = [[1.0], [-2.0]], [[0.5], [1.5]]
B, H, LR, STEPS = 0.3, 0.4, 0.1, 3


def closed_form(name: str) -> tuple[float, float]:
    """The meta-gradient with respect to b and h, worked out on paper.

    With d = b + h − s, k steps that adapt both leave b + h − s = (1 − 2α)ᵏ d, since each of b and h moves by −α of it;
    adapting h alone leaves (1 − α)ᵏ d.
    """
    b_total, h_total = 0.0, 0.0
    for (s,), (q,) in zip(SUPPORT, QUERY, strict=True):
        shrink = (1 - LR) ** STEPS if name == "anil" else (1 - 2 * LR) ** STEPS
        residual = s + shrink * (B + H - s) - q
        if name in {"maml", "anil"}:  # d(b′ + h′)/db = d(b′ + h′)/dh = shrink
            b_total, h_total = b_total + shrink * residual, h_total + shrink * residual
        elif name == "fomaml":  # ∇L at the adapted parameters
            b_total, h_total = b_total + residual, h_total + residual
        elif name == "reptile":  # θ − θ′; support and query together pull towards their mean, half from each of b and h
            moved = (1 - shrink) * (B + H - (s + q) / 2) / 2
            b_total, h_total = b_total + moved, h_total + moved
    return b_total, h_total


@pytest.mark.parametrize("name", ["maml", "fomaml", "anil", "reptile"])
def test_the_meta_gradient_of_a_quadratic_is_the_closed_form(name: str) -> None:
    learner: MetaLearner = registry.get(name)(inner_lr=LR, inner_steps=STEPS)
    model: Any = Quadratic({"body.b": B, "head.h": H})
    theta = model.init()
    gradient, metrics = learner.meta_gradient(model, theta, quadratic_episode(SUPPORT, QUERY))
    assert (float(gradient["body.b"]), float(gradient["head.h"])) == pytest.approx(closed_form(name), abs=1e-12)
    assert metrics["loss"].shape == (2,)


def test_reptile_with_sgd_is_its_one_line_formula() -> None:
    """θ ← θ + ε (mean θ′ − θ), Nichol et al. 2018, algorithm 1 (batch version)."""
    learner = registry.get("reptile")(inner_lr=LR, inner_steps=STEPS)
    model: Any = Quadratic({"body.b": B, "head.h": H})
    theta = model.init()
    episode = quadratic_episode(SUPPORT, QUERY)
    with torch.no_grad():
        adapted = learner.adapt(model, theta, concatenate(episode.support, episode.query)).stacked
    epsilon = 0.25
    gradient, _ = learner.meta_gradient(model, theta, episode)
    for name, value in theta.items():
        by_formula = value + epsilon * (adapted[name].mean() - value)
        by_server = value - epsilon * gradient[name] / 2
        assert float(by_server) == pytest.approx(float(by_formula), abs=1e-12)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_encoder(tmp_path_factory.mktemp("encoder"))


EXACT = [name for name in registry.names() if name not in NOT_A_DERIVATIVE]
TEXT_MODELS = [name for name in models.names() if models.get(name).reads == "text"]


@pytest.mark.parametrize(("name", "model_name"), list(product(EXACT, TEXT_MODELS)))
def test_the_meta_gradient_is_the_derivative(name: str, model_name: str, encoder: str) -> None:
    """Central differences along a random direction, in float64, of the query loss after adaptation."""
    model, learner = small_model(model_name, encoder if model_name == "hf" else None), make(name)
    generator = torch.Generator().manual_seed(0)
    theta = learner.init(model, generator)
    direction = {n: torch.randn(v.shape, generator=generator, dtype=torch.float64) for n, v in theta.items()}
    gradient, _ = learner.meta_gradient(model, theta, episode_of())
    along = sum(float((gradient[n] * direction[n]).sum()) for n in theta)

    def at(step: float) -> float:
        moved = {n: theta[n] + step * direction[n] for n in theta}
        return query_loss(learner, model, moved, episode_of())

    h = 1e-6
    assert along == pytest.approx((at(h) - at(-h)) / (2 * h), rel=2e-5)
    assert abs(along) > 1e-6


@pytest.mark.parametrize("model_name", TEXT_MODELS)
def test_first_order_is_the_gradient_at_the_adapted_parameters(model_name: str, encoder: str) -> None:
    model, learner = small_model(model_name, encoder if model_name == "hf" else None), make("fomaml")
    theta, episode = model.init(), episode_of()
    gradient, _ = learner.meta_gradient(model, theta, episode)
    with torch.no_grad():
        adapted = learner.adapt(model, theta, episode.support).stacked
    leaves = {name: value.requires_grad_() for name, value in adapted.items()}
    at_adapted = torch.autograd.grad(
        TASK.loss(model.outputs({}, leaves, episode.query.inputs), episode.query).sum(), list(leaves.values())
    )
    for name, expected in zip(leaves, at_adapted, strict=True):
        torch.testing.assert_close(gradient[name], expected.sum(0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", registry.names())
def test_tasks_are_independent(name: str) -> None:
    """The gradient of two stacked tasks is the sum of each alone."""
    model, learner, episode = small_model("mlp", None), make(name), episode_of()
    theta = learner.init(model, torch.Generator())
    both, metrics = learner.meta_gradient(model, theta, episode)

    def alone(t: int) -> Episode:
        def cut(batch: Batch) -> Batch:
            inputs = {key: value[t : t + 1] for key, value in batch.inputs.items()}
            return Batch(inputs, batch.targets[t : t + 1], batch.weights[t : t + 1], batch.outputs)

        return Episode(episode.family, cut(episode.support), cut(episode.query), episode.names[t : t + 1])

    parts = [learner.meta_gradient(model, theta, alone(t)) for t in range(2)]
    for parameter in theta:
        torch.testing.assert_close(both[parameter], parts[0][0][parameter] + parts[1][0][parameter])
    torch.testing.assert_close(metrics["loss"], torch.cat([its["loss"] for _, its in parts]))


def test_prototypes_of_a_hand_worked_episode() -> None:
    """Class 0 at (0, 0) and (2, 0) → (1, 0); class 1 at (4, 2), and (9, 9) with weight 0 → (4, 2)."""
    features = torch.tensor([[[0.0, 0.0], [4.0, 2.0], [2.0, 0.0], [9.0, 9.0]]])
    support = Batch({}, torch.tensor([[0, 1, 0, 1]]), torch.tensor([[1.0, 1.0, 1.0, 0.0]]), 2)
    centres = prototypes(features, support)
    assert centres.tolist() == [[[1.0, 0.0], [4.0, 2.0]]]

    learner, model = ProtoNet(scale=0.5), Given(2)
    adapted = learner.adapt(model, {}, support._replace(inputs={"features": features}))  # type: ignore[arg-type]
    # From (1, 2): squared distances 0 + 4 to class 0 and 9 + 0 to class 1, times −0.5.
    scores = learner.predict(model, adapted, {"features": torch.tensor([[[1.0, 2.0]]])})  # type: ignore[arg-type]
    assert scores.tolist() == [[[-2.0, -4.5]]]


def test_protomaml_without_steps_is_the_prototypical_network() -> None:
    """Triantafillou et al. 2020, §3: the linear head's scores are the distances' up to a term that classes share."""
    model, episode = small_model("mlp", None), episode_of()
    proto, maml = registry.get("protonet")(scale=3.0), registry.get("protomaml")(scale=3.0, inner_steps=0)
    theta = proto.init(model, torch.Generator())
    assert theta.keys() == maml.init(model, torch.Generator()).keys()
    with torch.no_grad():
        scores = [
            learner.predict(model, learner.adapt(model, theta, episode.support), episode.query.inputs)
            for learner in (proto, maml)
        ]
    torch.testing.assert_close(scores[0].log_softmax(-1), scores[1].log_softmax(-1))
    stepped = replace(maml, inner_steps=3, inner_lr=0.5)
    assert query_loss(stepped, model, theta, episode) != query_loss(maml, model, theta, episode)


def test_anil_refuses_to_adapt_anything_but_the_head() -> None:
    from distmeta.config.load import build_options
    from distmeta.errors import ConfigError

    with pytest.raises(ConfigError, match=r"inner\.adapt"):
        build_options(registry.get("anil"), {"inner_adapt": "all"}, {"inner_adapt": "inner.adapt"})


def test_concatenate_pads_tokens_to_the_longer() -> None:
    first, second = random_batch((1, 2, 3), 9, seed=0), random_batch((1, 1, 5), 9, seed=1)
    joined = concatenate(first, second)
    assert joined.inputs["input_ids"].shape == (1, 3, 5)
    assert joined.inputs["attention_mask"][0, :2, 3:].sum() == 0
    assert torch.equal(joined.inputs["input_ids"][:, 2:], second.inputs["input_ids"])
