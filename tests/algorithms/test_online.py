"""Online meta-learning: where a task starts, by hand and against finite differences."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from fakes import Quadratic
from learner_helpers import episode_of, query_loss, small_model

from distmeta.algorithms.maml import MAML
from distmeta.algorithms.online import Online
from distmeta.types import Batch, Episode

START = {"body.b": 0.3, "head.h": 0.4}


def test_a_task_starts_near_its_neighbours_by_their_weights() -> None:
    """b + h starts at 0.7. Task 0 remembers targets 1 and 3 with shares ¾ and ¼, mean 1.5; task 1 remembers nothing.

    A step of 0.1 that moves both b and h takes 0.2 of the way: 0.7 → 0.86 towards 1.5. Then two steps towards the own
    target, −1 and 2: −1 + 0.64 · 1.86 = 0.1904, and 2 − 0.64 · 1.3 = 1.168.
    """
    targets = torch.tensor([[1.0, 3.0, -1.0], [9.0, 9.0, 2.0]], dtype=torch.float64)
    memory = torch.tensor([[0.75, 0.25, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    weights = torch.tensor([[0.0, 0.0, 1.0]] * 2, dtype=torch.float64)
    support = Batch({"rows": torch.zeros(2, 3), "memory": memory}, targets, weights, 1)
    model: Any = Quadratic(START)
    learner = Online(inner_lr=0.1, inner_steps=2, warm_steps=1)
    after = learner.adapt(model, model.init(), support).stacked
    assert (after["body.b"] + after["head.h"]).tolist() == pytest.approx([0.1904, 1.168])
    alone = learner.adapt(model, model.init(), support._replace(inputs={"rows": torch.zeros(2, 3)})).stacked
    assert (alone["body.b"] + alone["head.h"]).tolist() == pytest.approx([-1 + 0.64 * 1.7, 1.168])


class Watched(Quadratic):
    """Keeps the shares of dropout that it was asked for."""

    def __init__(self) -> None:
        super().__init__(START)
        self.shares: list[float] = []

    def outputs(self, shared: Any, stacked: Any, inputs: Any, dropout: float = 0.0) -> torch.Tensor:
        self.shares.append(dropout)
        return super().outputs(shared, stacked, inputs, dropout)


def test_the_warm_start_keeps_to_the_options_of_the_inner_loop() -> None:
    """From b + h = 0.7 towards 1.5 the slopes of b and h are −0.8 each, a gradient of length 0.8 √2.

    A step of 0.1 goes to 0.86. Cut to half of its length it goes to 0.78; with rates of 0.1 for b and 0.3 for h to
    0.7 + 0.4 · 0.8 = 1.02.
    """
    memory = torch.tensor([[0.75, 0.25]], dtype=torch.float64)
    targets = torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    support = Batch({"rows": torch.zeros(1, 2), "memory": memory}, targets, torch.zeros_like(memory), 1)
    model: Any = Watched()
    theta = model.init()
    rates = {"meta.rate.body.b": torch.tensor([0.1]).double(), "meta.rate.head.h": torch.tensor([0.3]).double()}
    plain = Online(inner_lr=0.1, inner_steps=0, warm_steps=1)
    for learner, start, expected in (
        (plain, theta, 0.86),
        (replace(plain, inner_clip_norm=0.4 * 2**0.5), theta, 0.78),
        (replace(plain, inner_learn_lr=True), {**theta, **rates}, 1.02),
    ):
        after = learner.adapt(model, start, support).stacked
        assert (after["body.b"] + after["head.h"]).tolist() == pytest.approx([expected])
    model.shares.clear()
    replace(plain, inner_dropout=0.3).adapt(model, theta, support)
    assert model.shares == [0.3]


def remembering() -> Episode:
    """Two tasks: the first remembers four texts with unequal shares, the second nothing."""
    episode, other = episode_of(), episode_of().query
    memory = torch.tensor([[0.7, 0.3, 0.0, 0.0, 0.0, 0.0], [0.0] * 6], dtype=torch.float64)
    length = episode.support.inputs["input_ids"].shape[2]
    inputs = {
        name: torch.cat([torch.nn.functional.pad(other.inputs[name], (0, length - 4)), episode.support.inputs[name]], 1)
        for name in ("input_ids", "attention_mask")
    }
    inputs["rows"] = torch.zeros(2, 6, dtype=torch.long)
    targets = torch.cat([other.targets, episode.support.targets], 1)
    weights = torch.cat([torch.zeros_like(other.weights), episode.support.weights], 1)
    return episode._replace(support=Batch({**inputs, "memory": memory}, targets, weights, episode.support.outputs))


@pytest.mark.parametrize("adapt", ["all", "head"])
@pytest.mark.parametrize("learn_lr", [False, True])
def test_the_meta_gradient_goes_through_the_warm_start(adapt: str, learn_lr: bool) -> None:
    """Central differences along a random direction, in float64."""
    model = small_model("text_attention", None)
    learner = Online(inner_lr=0.5, inner_steps=2, warm_steps=3, inner_adapt=adapt, inner_learn_lr=learn_lr)
    generator = torch.Generator().manual_seed(0)
    theta = {name: value.double() for name, value in learner.init(model, generator).items()}
    direction = {n: torch.randn(v.shape, generator=generator, dtype=torch.float64) for n, v in theta.items()}
    gradient, _ = learner.meta_gradient(model, theta, remembering())
    along = sum(float((gradient[n] * direction[n]).sum()) for n in theta)

    def at(step: float) -> float:
        return query_loss(learner, model, {n: theta[n] + step * direction[n] for n in theta}, remembering())

    h = 1e-6
    assert along == pytest.approx((at(h) - at(-h)) / (2 * h), rel=2e-5)
    cold = replace(learner, warm_steps=0)
    assert query_loss(cold, model, theta, remembering()) != pytest.approx(
        query_loss(learner, model, theta, remembering())
    )


def test_without_a_memory_it_is_maml() -> None:
    """On tasks outside a stream, and where what comes along counts for nothing."""
    model, bare = small_model("mlp", None), episode_of()
    online, maml = Online(inner_lr=0.5, inner_steps=2), MAML(inner_lr=0.5, inner_steps=2)
    theta = online.init(model, torch.Generator())
    expected, _ = maml.meta_gradient(model, theta, bare)
    forgotten = remembering().support
    forgotten = forgotten._replace(inputs={**forgotten.inputs, "memory": torch.zeros(2, 6)})
    for episode in (bare, bare._replace(support=forgotten)):
        gradient, _ = online.meta_gradient(model, theta, episode)
        for name in theta:
            torch.testing.assert_close(gradient[name], expected[name], rtol=1e-9, atol=1e-12)
