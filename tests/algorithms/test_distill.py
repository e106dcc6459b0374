"""Distillation: the loss by hand, and its meta-gradient."""

from dataclasses import replace
from math import log
from typing import Any

import pytest
import torch
from learner_helpers import TASK, episode_of, small_model

from distmeta.algorithms.distill import Distill, imitation
from distmeta.algorithms.protomaml import ProtoMAML
from distmeta.types import Batch, Episode, Params


def test_the_loss_of_a_hand_worked_batch() -> None:
    """Two examples with weights 1 and 3, at τ = 2.

    1. Student (0, 0), softened (1/2, 1/2); teacher (2 ln 3, 0), softened (3/4, 1/4); label 0.
       4 KL = 4 (3/4 ln 3/2 + 1/4 ln 1/2) = 0.523248; cross-entropy ln 2 = 0.693147.
    2. Student (2 ln 2, 0), softened (2/3, 1/3), unsoftened (4/5, 1/5); teacher (0, 0), softened (1/2, 1/2); label 0.
       4 KL = 4 · 1/2 (ln 3/4 + ln 3/2) = 0.235566; cross-entropy ln 5/4 = 0.223144.

    Means: (0.523248 + 3 · 0.235566) / 4 = 0.307487 and (0.693147 + 3 · 0.223144) / 4 = 0.340644.
    """
    outputs = torch.tensor([[[0.0, 0.0], [2 * log(2), 0.0]]], dtype=torch.float64)
    teacher = torch.tensor([[[2 * log(3), 0.0], [0.0, 0.0]]], dtype=torch.float64)
    batch = Batch({"teacher": teacher}, torch.tensor([[0, 0]]), torch.tensor([[1.0, 3.0]], dtype=torch.float64), 2)
    assert float(imitation(outputs, teacher, batch.weights, 2.0)) == pytest.approx(0.307487, abs=1e-6)
    model: Any = type("Model", (), {"task": TASK})
    # 3/4 · 0.340644 + 1/4 · 0.307487
    assert float(Distill(weight=0.25, temperature=2.0).objective(model, outputs, batch)) == pytest.approx(
        0.332355, abs=1e-6
    )
    without = batch._replace(inputs={})
    assert float(Distill(weight=0.25).objective(model, outputs, without)) == pytest.approx(0.340644, abs=1e-6)


def taught(episode: Episode, seed: int = 0) -> Episode:
    """An episode with arbitrary outputs of a teacher."""
    generator = torch.Generator().manual_seed(seed)

    def add(batch: Batch) -> Batch:
        outputs = 2 * torch.randn(*batch.targets.shape, 2, generator=generator, dtype=torch.float64)
        return batch._replace(inputs={**batch.inputs, "teacher": outputs})

    return episode._replace(support=add(episode.support), query=add(episode.query))


OPTIONS: dict[str, Any] = {"inner_lr": 0.5, "inner_steps": 2, "scale": 2.0}


def test_weight_0_is_protomaml_to_the_bit() -> None:
    model, episode = small_model("text_cnn", None), taught(episode_of())
    theta = ProtoMAML().init(model, torch.Generator())
    plain, _ = ProtoMAML(**OPTIONS).meta_gradient(model, theta, episode)
    for weight, same in ((0.0, True), (0.1, False)):
        gradient, _ = Distill(weight=weight, **OPTIONS).meta_gradient(model, theta, episode)
        assert all(torch.equal(gradient[name], plain[name]) for name in theta) == same


def test_weight_1_ignores_the_labels() -> None:
    """But for the support's in the prototypes that the head starts from."""
    model, episode = small_model("text_cnn", None), taught(episode_of())
    swapped = episode._replace(query=episode.query._replace(targets=1 - episode.query.targets))
    theta = ProtoMAML().init(model, torch.Generator())
    for weight, same in ((1.0, True), (0.9, False)):
        learner = Distill(weight=weight, **OPTIONS)
        gradients = [learner.meta_gradient(model, theta, its)[0] for its in (episode, swapped)]
        assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in theta) == same
        outputs = torch.tensor([1.0, 2.0], dtype=torch.float64).expand(2, 4, 2)
        others = episode.support._replace(targets=torch.zeros(2, 4, dtype=torch.long))
        losses = [learner.objective(model, outputs, batch) for batch in (episode.support, others)]
        assert torch.equal(losses[0], losses[1]) == same


def test_the_inner_step_follows_the_teacher() -> None:
    """With weight 1 the head goes from the prototypes' by −½ · ∂imitation, worked out apart from the inner loop."""
    model, support = small_model("mlp", None), taught(episode_of()).support
    learner = Distill(weight=1.0, temperature=2.0, inner_lr=0.5, inner_steps=1, inner_adapt="head")
    theta = learner.init(model, torch.Generator())
    with torch.no_grad():
        features = model.features(theta, {}, support.inputs)
        start = replace(learner, inner_steps=0).adapt(model, theta, support).stacked
        after = learner.adapt(model, theta, support).stacked
    head = {name: value.clone().requires_grad_() for name, value in start.items()}
    outputs = features @ head["head.classification.weight"].mT + head["head.classification.bias"].unsqueeze(1)
    loss = imitation(outputs, support.inputs["teacher"], support.weights, 2.0).sum()
    for name, slope in zip(head, torch.autograd.grad(loss, list(head.values())), strict=True):
        torch.testing.assert_close(after[name], start[name] - 0.5 * slope)


@pytest.mark.parametrize("adapt", ["head", "all"])
@pytest.mark.parametrize("model_name", ["text_cnn", "text_attention"])
def test_the_meta_gradient_is_the_derivative(model_name: str, adapt: str) -> None:
    """Central differences along a random direction, in float64: the teacher speaks on support and query."""
    model, episode = small_model(model_name, None), taught(episode_of())
    learner = Distill(weight=0.7, temperature=3.0, inner_adapt=adapt, **OPTIONS)
    generator = torch.Generator().manual_seed(0)
    theta = learner.init(model, generator)
    direction = {n: torch.randn(v.shape, generator=generator, dtype=torch.float64) for n, v in theta.items()}
    gradient, _ = learner.meta_gradient(model, theta, episode)
    along = sum(float((gradient[n] * direction[n]).sum()) for n in theta)

    def at(step: float) -> float:
        moved: Params = {n: theta[n] + step * direction[n] for n in theta}
        with torch.no_grad():
            adapted = learner.adapt(model, moved, episode.support)
            outputs = learner.predict(model, adapted, episode.query.inputs)
            return float(learner.objective(model, outputs, episode.query).sum())

    h = 1e-6
    assert along == pytest.approx((at(h) - at(-h)) / (2 * h), rel=2e-5)
    assert abs(along) > 1e-6
