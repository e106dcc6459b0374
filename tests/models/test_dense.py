"""The dense network: arithmetic by hand, stacking, and its second derivative."""

import json
from typing import Any

import pytest
import torch
from model_helpers import build, episodes, make_options, meta_loss, stack
from torch import Tensor

from distmeta.errors import ConfigError
from distmeta.models.functional import FunctionalModel
from distmeta.tasks.sinusoid import Sinusoid, SinusoidData
from distmeta.types import Batch, Episode, Params, Stream

TASK = Sinusoid(SinusoidData())


def dense(seed: int = 0, **options: Any) -> FunctionalModel:
    return build(make_options("dense", **options), json.loads(json.dumps({"inputs": 1})), TASK, 1, seed=seed)


def curves(queries: int) -> Episode:
    """Two curves, of six support points each."""
    return episodes(TASK, Stream.of("sinusoid", "meta_train", 0, shots=6, queries=queries), 0, 2)


def test_the_defaults_are_the_papers_network() -> None:
    shapes = {name: tuple(value.shape) for name, value in dense().init().items()}
    assert shapes == {
        "body.hidden.0.weight": (40, 1),
        "body.hidden.0.bias": (40,),
        "body.hidden.1.weight": (40, 40),
        "body.hidden.1.bias": (40,),
        "head.sinusoid.weight": (1, 40),
        "head.sinusoid.bias": (1,),
    }
    assert dense(hidden_sizes=(7, 3)).dim == 3
    assert dense(hidden_sizes=()).dim == 1


def test_a_forward_pass_worked_out_by_hand() -> None:
    """x = 2: hidden 0 is relu(1·2 − 1, −1·2 + 1) = (1, 0); hidden 1 is relu(2·1 + 5·0 + 1) = 3; y = −1·3 + 0.5."""
    model = dense(hidden_sizes=(2, 1))
    params = {
        "body.hidden.0.weight": torch.tensor([[1.0], [-1.0]]),
        "body.hidden.0.bias": torch.tensor([-1.0, 1.0]),
        "body.hidden.1.weight": torch.tensor([[2.0, 5.0]]),
        "body.hidden.1.bias": torch.tensor([1.0]),
        "head.sinusoid.weight": torch.tensor([[-1.0]]),
        "head.sinusoid.bias": torch.tensor([0.5]),
    }
    inputs = {"values": torch.tensor([[[2.0]]])}
    assert model.features(params, {}, inputs).tolist() == [[[3.0]]]
    assert model.outputs(params, {}, inputs).tolist() == [[[-2.5]]]
    assert model.outputs({}, stack(params, 1), inputs).tolist() == [[[-2.5]]]


def test_stacked_tasks_equal_a_loop_over_tasks() -> None:
    learners = [dense(seed) for seed in (0, 1)]
    own = [model.init() for model in learners]
    assert not torch.equal(own[0]["body.hidden.0.weight"], own[1]["body.hidden.0.weight"])
    inputs = curves(2).support.inputs
    stacked = {name: torch.stack([params[name] for params in own]) for name in own[0]}
    together = learners[0].outputs({}, stacked, inputs)
    assert together.shape == (2, 6, 1)
    for t, model in enumerate(learners):
        alone = model.network({"values": inputs["values"][t]}, "sinusoid", elements_only=False)
        torch.testing.assert_close(together[t], alone)


def test_a_shared_body_runs_once_and_gives_the_same_outputs() -> None:
    model, inputs = dense(), curves(2).support.inputs
    params = model.init()
    encoded = model.encode(params, ["head.sinusoid.weight"], inputs)
    assert encoded.keys() == {"features"}
    assert encoded["features"].shape == (2, 6, 40)
    torch.testing.assert_close(model.outputs(params, {}, encoded), model.outputs({}, stack(params, 2), inputs))


def test_second_order_meta_gradient_against_central_differences() -> None:
    model = dense(hidden_sizes=(5, 4))
    model.network.double()
    episode = curves(5)
    support, query = (_double(batch) for batch in (episode.support, episode.query))
    params = {name: value.requires_grad_() for name, value in model.init().items()}
    generator = torch.Generator().manual_seed(5)
    direction = {n: torch.randn(v.shape, generator=generator, dtype=v.dtype) for n, v in params.items()}

    def slope(second_order: bool) -> float:
        loss = meta_loss(model, params, support, query, 0.05, second_order)
        return _dot(torch.autograd.grad(loss, list(params.values())), direction)

    def moved(step: float) -> float:
        there = {n: (v.detach() + step * direction[n]).requires_grad_() for n, v in params.items()}
        return meta_loss(model, there, support, query, 0.05, False).item()

    assert slope(second_order=True) == pytest.approx((moved(1e-6) - moved(-1e-6)) / 2e-6, rel=1e-6)
    assert abs(slope(second_order=False) / slope(second_order=True) - 1) > 1e-3


def test_dropout_acts_in_training_alone() -> None:
    model, inputs = dense(dropout=0.5), curves(2).support.inputs
    params = model.init()
    model.train(True)
    assert not torch.equal(model.features(params, {}, inputs), model.features(params, {}, inputs))
    model.train(False)
    assert torch.equal(model.features(params, {}, inputs), dense().features(params, {}, inputs))


def test_texts_and_pretrained_weights_are_refused() -> None:
    options = make_options("dense")
    with pytest.raises(ConfigError, match=r"^model\.name: dense reads numbers"):
        options.prepare(None, ["a text"])
    with pytest.raises(ConfigError, match=r"^model\.path: 'weights' given"):
        options.pretrained("weights")
    assert options.pretrained(None) is None


def _double(batch: Batch) -> Batch:
    inputs = {"values": batch.inputs["values"].double()}
    return Batch(inputs, batch.targets.double(), batch.weights.double(), batch.outputs)


def _dot(gradients: tuple[Tensor, ...], direction: Params) -> float:
    return sum(float((g * d).sum()) for g, d in zip(gradients, direction.values(), strict=True))
