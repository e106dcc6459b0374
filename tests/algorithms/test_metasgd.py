"""Meta-SGD: one step by hand, its meta-gradient with respect to θ and to the rates, and BOIL, its neighbour in θ."""

from typing import Any

import pytest
import torch
from fakes import Quadratic, quadratic_episode
from model_helpers import build, episodes, make_options

from distmeta.algorithms.base import registry
from distmeta.config.load import build_options
from distmeta.errors import ConfigError
from distmeta.models.functional import FunctionalModel
from distmeta.tasks.sinusoid import Sinusoid, SinusoidData
from distmeta.types import Batch, Episode, Params, Stream

SINUSOID = Sinusoid(SinusoidData())
W, ALPHA = [1.0, -1.0], [0.25, 0.5]
SUPPORT, QUERY = [[3.0, 1.0], [0.0, 0.0]], [[2.0, 0.0], [1.0, 1.0]]


def with_rates(theta: Params) -> Params:
    return {**theta, "meta.rate.body.w": torch.tensor(ALPHA, dtype=torch.float64)}


def test_rates_start_at_inner_lr_one_for_each_element() -> None:
    theta = registry.get("metasgd")(inner_lr=0.3).init(dense(), torch.Generator())
    for name, value in dense().init().items():
        assert torch.equal(theta[f"meta.rate.{name}"], torch.full_like(value, 0.3))
    assert len(theta) == 2 * len(dense().init())
    head_only = registry.get("metasgd")(inner_adapt="head").init(dense(), torch.Generator())
    rates = [name for name in head_only if name.startswith("meta.")]
    assert rates == ["meta.rate.head.sinusoid.weight", "meta.rate.head.sinusoid.bias"]


def test_one_step_by_hand() -> None:
    """w′ = w − α ∘ (w − s): (1, −1) − (¼, ½) ∘ ((1, −1) − (3, 1)) = (1.5, 0); and for s = 0, (0.75, −0.5)."""
    learner, model = registry.get("metasgd")(), Quadratic({"body.w": W}, mean=False)
    adapted = learner.adapt(model, with_rates(model.init()), quadratic_episode(SUPPORT, QUERY).support)
    assert adapted.stacked["body.w"].tolist() == [[1.5, 0.0], [0.75, -0.5]]


def test_the_meta_gradient_of_one_step_by_hand() -> None:
    """With r = w′ − q: ∂/∂w = (1 − α) ∘ r and ∂/∂α = −(w − s) ∘ r, added up over tasks.

    Task 1: r = (1.5, 0) − (2, 0) = (−0.5, 0); w − s = (−2, −2). Task 2: r = (0.75, −0.5) − (1, 1) = (−0.25, −1.5);
    w − s = (1, −1). So ∂/∂w = (0.75 · (−0.75), 0.5 · (−1.5)) and ∂/∂α = (2 · (−0.5) + 0.25, 0 − 1.5).
    """
    learner, model = registry.get("metasgd")(), Quadratic({"body.w": W}, mean=False)
    gradient, metrics = learner.meta_gradient(model, with_rates(model.init()), quadratic_episode(SUPPORT, QUERY))
    assert gradient["body.w"].tolist() == pytest.approx([-0.5625, -0.75])
    assert gradient["meta.rate.body.w"].tolist() == pytest.approx([-0.75, -1.5])
    assert metrics["loss"].tolist() == pytest.approx([0.125, 0.5 * (0.0625 + 2.25)])


def test_several_steps_share_the_rates() -> None:
    """k steps leave (1 − α)ᵏ of w − s: for task 1 with k = 3, (0.421875, 0.125) ∘ (−2, −2)."""
    learner, model = registry.get("metasgd")(inner_steps=3), Quadratic({"body.w": W}, mean=False)
    adapted = learner.adapt(model, with_rates(model.init()), quadratic_episode(SUPPORT, QUERY).support)
    assert adapted.stacked["body.w"][0].tolist() == pytest.approx([3 - 2 * 0.421875, 1 - 2 * 0.125])


def dense() -> FunctionalModel:
    model = build(make_options("dense", hidden_sizes=(5, 4)), {"inputs": 1}, SINUSOID, 1, seed=1)
    model.network.double()
    return model


def curves() -> Episode:
    episode = episodes(SINUSOID, Stream.of("sinusoid", "meta_train", 0, shots=6, queries=5), 0, 2)

    def double(batch: Batch) -> Batch:
        inputs = {"values": batch.inputs["values"].double()}
        return Batch(inputs, batch.targets.double(), batch.weights.double(), batch.outputs)

    return Episode(episode.family, double(episode.support), double(episode.query), episode.names)


@pytest.mark.parametrize("part", ["body.", "head.", "meta.rate.body.", "meta.rate.head."])
@pytest.mark.parametrize(("name", "steps"), [("metasgd", 1), ("metasgd", 2), ("boil", 2), ("maml", 2)])
def test_the_meta_gradient_is_the_derivative(name: str, steps: int, part: str) -> None:
    """Central differences in float64 of the query loss after adaptation, along a random direction in a part of θ."""
    model, learner, episode = dense(), registry.get(name)(inner_lr=0.05, inner_steps=steps), curves()
    theta = learner.init(model, torch.Generator())
    if not (own := [n for n in theta if n.startswith(part)]):
        assert name != "metasgd"
        return
    generator = torch.Generator().manual_seed(2)
    direction = {n: torch.randn(theta[n].shape, generator=generator, dtype=torch.float64) for n in own}
    gradient, _ = learner.meta_gradient(model, theta, episode)
    along = sum(float((gradient[n] * direction[n]).sum()) for n in own)

    def at(step: float) -> float:
        moved = {**theta, **{n: theta[n] + step * direction[n] for n in own}}
        with torch.no_grad():
            adapted = learner.adapt(model, moved, episode.support)
            return float(SINUSOID.loss(learner.predict(model, adapted, episode.query.inputs), episode.query).sum())

    assert along == pytest.approx((at(1e-6) - at(-1e-6)) / 2e-6, rel=1e-6)
    assert abs(along) > 1e-3


def test_untrained_it_is_maml() -> None:
    model, episode = dense(), curves()
    rates = registry.get("metasgd")(inner_lr=0.05)
    one_rate = registry.get("maml")(inner_lr=0.05, inner_steps=1)
    theta = rates.init(model, torch.Generator())
    by_rates, _ = rates.meta_gradient(model, theta, episode)
    by_one_rate, _ = one_rate.meta_gradient(model, model.init(), episode)
    for name, value in by_one_rate.items():
        torch.testing.assert_close(by_rates[name], value)


def test_boil_moves_the_body_alone_and_still_learns_a_head() -> None:
    model, learner, episode = dense(), registry.get("boil")(inner_lr=0.05, inner_steps=2), curves()
    theta = learner.init(model, torch.Generator())
    assert theta.keys() == model.init().keys()
    with torch.no_grad():
        adapted = learner.adapt(model, theta, episode.support)
    assert adapted.shared.keys() == {"head.sinusoid.weight", "head.sinusoid.bias"}
    assert all(torch.equal(adapted.shared[name], theta[name]) for name in adapted.shared)
    assert adapted.stacked.keys() == {name for name in theta if name.startswith("body.")}
    assert all((value - theta[name]).abs().flatten(1).amax(1).gt(0).all() for name, value in adapted.stacked.items())
    gradient, _ = learner.meta_gradient(model, theta, episode)
    assert all(gradient[name].abs().max() > 0 for name in theta)


@pytest.mark.parametrize(("name", "option", "value"), [("boil", "adapt", "all"), ("metasgd", "learn_lr", False)])
def test_what_contradicts_the_algorithm_is_refused(name: str, option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^inner\.{option}: "):
        build_options(registry.get(name), {f"inner_{option}": value}, {f"inner_{option}": f"inner.{option}"})


def test_anil_refuses_a_frozen_head() -> None:
    """All of it: no task would get anything of its own."""
    frozen = build(make_options("dense"), {"inputs": 1}, SINUSOID, 1, ("head.*",))
    with pytest.raises(ConfigError, match=r"^model\.freeze: anil adapts the head"):
        registry.get("anil")().check(frozen, 1)
    registry.get("anil")().check(build(make_options("dense"), {"inputs": 1}, SINUSOID, 1, ("head.sinusoid.bias",)), 1)


def test_multitask_refuses_a_scale_of_logits_where_there_are_none() -> None:
    model = build(make_options("dense"), {"inputs": 1}, SINUSOID, 1)
    with pytest.raises(ConfigError, match=r"^algorithm\.scale: 10, and these tasks have no classes; leave it out"):
        registry.get("multitask")(scale=10.0).check(model, 1)
    registry.get("multitask")().check(model, 1)


def test_boil_refuses_a_frozen_body() -> None:
    frozen = build(make_options("dense"), {"inputs": 1}, SINUSOID, 1, ("body.*",))
    with pytest.raises(ConfigError, match=r"^model\.freeze: boil adapts the body"):
        registry.get("boil")().check(frozen, 1)
    registry.get("boil")().check(build(make_options("dense"), {"inputs": 1}, SINUSOID, 1, ("body.hidden.0.*",)), 1)
