"""What every registered model of texts must do."""

import json
import pickle
from typing import Any, NamedTuple

import pytest
import torch
from fakes import CrossEntropy
from model_helpers import TEXTS, build, make_options, meta_loss, random_batch, save_encoder, stack
from torch import Tensor

from distmeta.models.base import Architecture, ModelFactory, registry
from distmeta.models.functional import FunctionalModel
from distmeta.types import Inputs

SMALL: dict[str, dict[str, Any]] = {
    "text_cnn": {"embedding_size": 6, "filters": 4, "widths": (2, 5)},
    "text_rnn": {"embedding_size": 6, "hidden_size": 4},
    "text_attention": {"embedding_size": 8, "hidden_size": 6, "heads": 2},
    "mlp": {"embedding_size": 6, "hidden_sizes": (7, 5)},
}
TASK: Any = CrossEntropy()
TEXT_MODELS = [name for name in registry.names() if registry.get(name).reads == "text"]


class Case(NamedTuple):
    """A registered model, small."""

    name: str
    options: ModelFactory
    architecture: Architecture

    def build(self, freeze: tuple[str, ...] = (), seed: int = 0) -> FunctionalModel:
        return build(self.options, self.architecture, TASK, 3, freeze, seed=seed)

    @property
    def vocab_size(self) -> int:
        return int(self.architecture["vocab_size"])


@pytest.fixture(scope="module", params=TEXT_MODELS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name = request.param
    path = save_encoder(tmp_path_factory.mktemp("encoder")) if name == "hf" else None
    options = make_options(name, **SMALL.get(name, {}))
    _, architecture = options.prepare(path, TEXTS)
    # Through JSON, as a worker would get it.
    return Case(name, options, json.loads(json.dumps(architecture)))


def test_a_text_has_the_same_features_whatever_stands_beside_it(case: Case) -> None:
    model = case.build()
    inputs = random_batch((1, 9, 9), case.vocab_size, seed=1).inputs
    ids, mask = inputs["input_ids"][0], inputs["attention_mask"][0]
    assert set(mask.sum(1).tolist()) == set(range(1, 10))  # also texts shorter than the widest filter
    together = model.network.body(ids, mask)
    for i, length in enumerate(mask.sum(1).tolist()):
        alone = model.network.body(ids[i : i + 1, :length], mask[i : i + 1, :length])[0]
        assert torch.allclose(together[i], alone, rtol=0, atol=1e-6)


def test_features_tell_texts_apart(case: Case) -> None:
    model = case.build()
    ids = torch.tensor([[2, 3, 4], [2, 3, 5]])
    first, second = model.network.body(ids, torch.ones_like(ids))
    assert (first - second).abs().max() > 1e-3


def test_a_text_without_tokens_has_finite_features(case: Case) -> None:
    ids = torch.zeros(2, 3, dtype=torch.long)
    features = case.build().features({}, stack(case.build().init(), 1), _inputs(ids, ids))
    assert features.isfinite().all()


def test_stacked_tasks_equal_a_loop_over_tasks(case: Case) -> None:
    models = [case.build(seed=seed) for seed in (0, 1)]
    inputs = random_batch((2, 4, 6), case.vocab_size, seed=2).inputs
    own = [model.init() for model in models]
    stacked = {name: torch.stack([params[name] for params in own]) for name in own[0]}
    together = models[0].outputs({}, stacked, inputs)
    for t, model in enumerate(models):
        alone = model.network({name: value[t] for name, value in inputs.items()}, "toy", elements_only=False)
        assert torch.allclose(together[t], alone, atol=1e-5)


def test_second_order_meta_gradient_against_central_differences(case: Case) -> None:
    model = case.build()
    model.network.double()
    params = {name: value.requires_grad_() for name, value in model.init().items()}
    support, query = (random_batch((2, 4, 6), case.vocab_size, seed=seed) for seed in (3, 4))
    generator = torch.Generator().manual_seed(5)
    direction = {n: torch.randn(v.shape, generator=generator, dtype=v.dtype) for n, v in params.items()}

    def slope(second_order: bool) -> float:
        loss = meta_loss(model, params, support, query, 0.1, second_order)
        gradients = torch.autograd.grad(loss, list(params.values()))
        return sum(float((g * d).sum()) for g, d in zip(gradients, direction.values(), strict=True))

    def moved(step: float) -> float:
        there = {n: (v.detach() + step * direction[n]).requires_grad_() for n, v in params.items()}
        return meta_loss(model, there, support, query, 0.1, False).item()

    # Of fourth order: LayerNorm of small embeddings bends too much for two points.
    near, far = moved(1e-5) - moved(-1e-5), moved(2e-5) - moved(-2e-5)
    expected = (8 * near - far) / 12e-5
    assert slope(second_order=True) == pytest.approx(expected, rel=1e-6)
    # The check could not tell the orders apart otherwise.
    assert abs(slope(second_order=False) / expected - 1) > 1e-3


def test_every_parameter_is_used(case: Case) -> None:
    model = case.build()
    params = {name: value.requires_grad_() for name, value in model.init().items()}
    batch = random_batch((1, 4, 6), case.vocab_size, seed=6)
    loss = model.task.loss(model.outputs(params, {}, batch.inputs), batch).sum()
    torch.autograd.grad(loss, list(params.values()))  # raises where one has no part in the loss


def test_dropout_acts_in_training_alone(case: Case) -> None:
    dropping = make_options(case.name, **{**SMALL.get(case.name, {}), "dropout": 0.5})
    model = build(dropping, case.architecture, TASK, 3)
    inputs = random_batch((2, 4, 6), case.vocab_size, seed=7).inputs
    params = model.init()
    for stacked, shared in ((stack(params, 2), {}), ({}, params)):
        expected = case.build().features(shared, stacked, inputs)
        model.train(True)
        first, second = (model.features(shared, stacked, inputs) for _ in range(2))
        assert not torch.allclose(first, second)
        model.train(False)
        assert torch.allclose(model.features(shared, stacked, inputs), expected, atol=1e-6)


def test_dropout_differs_between_stacked_tasks(case: Case) -> None:
    dropping = make_options(case.name, **{**SMALL.get(case.name, {}), "dropout": 0.5})
    model = build(dropping, case.architecture, TASK, 3)
    model.train(True)
    inputs = {name: value.expand(2, 4, -1) for name, value in _random_text(case).items()}
    features = model.features({}, stack(model.init(), 2), {**inputs, "rows": torch.zeros(2, 4)})
    assert not torch.allclose(features[0], features[1])


def test_values_come_from_the_seed_and_leave_the_global_generator_alone(case: Case) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, again, other = (case.build(seed=seed).init() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.toy.weight"], other["head.toy.weight"])
    assert any(not torch.equal(first[name], other[name]) for name in first if name.startswith("body."))


def test_options_survive_pickling(case: Case) -> None:
    assert pickle.loads(pickle.dumps(case.options)) == case.options


def _inputs(ids: Tensor, mask: Tensor) -> Inputs:
    return {"input_ids": ids[None], "attention_mask": mask[None], "rows": torch.zeros(1, len(ids))}


def _random_text(case: Case) -> Inputs:
    inputs = random_batch((1, 1, 6), case.vocab_size, seed=16).inputs
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def test_a_parameter_of_two_names_has_one_value() -> None:
    options = make_options("mlp", embedding_size=6, hidden_sizes=(6, 6))
    _, architecture = options.prepare(None, TEXTS)
    model = build(options, architecture, TASK, 3)
    hidden: Any = model.network.body.hidden
    hidden[1].weight = hidden[0].weight
    model = FunctionalModel(model.network, TASK)
    values = {name: 2 * value for name, value in model.init().items()}
    assert len([name for name in values if "hidden" in name]) == 3
    inputs = random_batch((1, 4, 5), architecture["vocab_size"], seed=1).inputs
    found = model.features(values, {}, inputs)
    model.network.load_state_dict(values, strict=False)
    assert torch.equal(found, model.features(model.init(), {}, inputs))
