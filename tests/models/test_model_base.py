"""The functional view of a network."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fakes import CrossEntropy
from model_helpers import build, random_batch, stack
from torch import Tensor, nn

from distmeta.errors import ConfigError, ModelError
from distmeta.models import functional
from distmeta.models.functional import FunctionalModel
from distmeta.models.memory import allocating
from distmeta.models.mlp import MLP
from distmeta.models.names import match

TASK: Any = CrossEntropy()


@pytest.fixture
def mlp() -> FunctionalModel:
    options = MLP(embedding_size=6, hidden_sizes=(5,))
    return build(options, {"vocab_size": 30, "pad_id": 0}, TASK, 3)


def test_encode_keeps_order_and_equals_the_whole_at_once(mlp: FunctionalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functional, "CPU_CHUNK", 7)
    inputs = random_batch((3, 20, 9), 30, seed=8).inputs
    shapes = _record_shapes(mlp.network.body, monkeypatch)
    encoded = mlp.encode(mlp.init(), {}, {**inputs, "rows": torch.arange(60).view(3, 20)})
    assert sum(rows for rows, _ in shapes) == 60
    assert max(rows for rows, _ in shapes) == 7
    # 60 texts of lengths 1 to 9, sorted, in sevens: the shortest seven all have one token, the last four nine.
    assert (shapes[0], shapes[-1]) == ((7, 1), (4, 9))
    whole = mlp.network.body(inputs["input_ids"].flatten(0, 1), inputs["attention_mask"].flatten(0, 1))
    assert torch.allclose(encoded["features"].flatten(0, 1), whole, atol=1e-6)
    assert torch.equal(encoded["rows"], torch.arange(60).view(3, 20))


def test_encode_leaves_texts_whose_body_is_adapted(mlp: FunctionalModel) -> None:
    inputs = random_batch((2, 3, 4), 30, seed=9).inputs
    params = mlp.init()
    name = "body.hidden.0.bias"
    assert mlp.encode(params, stack({name: params[name]}, 2), inputs) is inputs


def test_an_adapted_head_meets_shared_features(mlp: FunctionalModel) -> None:
    inputs = random_batch((2, 3, 4), 30, seed=10).inputs
    params = mlp.init()
    head = {"head.toy.weight": torch.randn(2, 3, 5), "head.toy.bias": torch.randn(2, 3)}
    features = mlp.features(params, head, inputs)
    expected = torch.einsum("tbd,tnd->tbn", features, head["head.toy.weight"]) + head["head.toy.bias"][:, None]
    assert torch.allclose(mlp.outputs(params, head, inputs), expected, atol=1e-6)


def test_given_features_are_not_computed_again(mlp: FunctionalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = _record_shapes(mlp.network.body, monkeypatch)
    given = {"features": torch.randn(2, 3, 5), "rows": torch.zeros(2, 3)}
    params = mlp.init()
    assert torch.equal(mlp.features(params, {}, given), given["features"])
    expected = given["features"] @ params["head.toy.weight"].T + params["head.toy.bias"]
    assert torch.allclose(mlp.outputs(params, {}, given), expected, atol=1e-6)
    assert shapes == []


def test_frozen_parameters_are_kept_out_and_keep_their_values() -> None:
    options = MLP(embedding_size=6, hidden_sizes=(5,))
    model = build(options, {"vocab_size": 30, "pad_id": 0}, TASK, 3, freeze=["body.*"])
    assert list(model.init()) == model.free == ["head.toy.weight", "head.toy.bias"]
    inputs = random_batch((2, 3, 4), 30, seed=12).inputs
    expected = model.network.body(inputs["input_ids"][1], inputs["attention_mask"][1])
    assert torch.allclose(model.features(model.init(), {}, inputs)[1], expected, atol=1e-6)
    features = {"body.hidden.0.bias": torch.full((5,), 9.0)}
    assert not torch.allclose(model.features(features, {}, inputs)[1], expected)


def test_init_gives_copies(mlp: FunctionalModel) -> None:
    mlp.init()["head.toy.bias"].fill_(7)
    assert not (mlp.init()["head.toy.bias"] == 7).any()


def test_normalize_gives_features_unit_length() -> None:
    model = build(MLP(embedding_size=6, normalize=True), {"vocab_size": 30, "pad_id": 0}, TASK, 3)
    inputs = random_batch((2, 3, 4), 30, seed=13).inputs
    lengths = model.features(model.init(), {}, inputs).norm(dim=-1)
    assert torch.allclose(lengths, torch.ones(2, 3))


def test_given_values_replace_random_ones_and_unknown_ones_are_refused() -> None:
    options, architecture = MLP(embedding_size=2, hidden_sizes=()), {"vocab_size": 3, "pad_id": 0}
    table = torch.arange(6.0).view(3, 2)
    model = build(options, architecture, TASK, 3, values={"body.embedding.weight": table})
    assert torch.equal(model.init()["body.embedding.weight"], table)
    with pytest.raises(ValueError, match=r"embedding\.weights"):
        build(options, architecture, TASK, 3, values={"embedding.weights": table})


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("all", ["body.a.weight", "body.b.bias", "head.weight"]),
        ("head", ["head.weight"]),
        ("body", ["body.a.weight", "body.b.bias"]),
        (["*.bias", "head"], ["body.b.bias", "head.weight"]),
        ("body.[a]*", ["body.a.weight"]),
        ([], []),
        ("Head*", []),
    ],
)
def test_match(patterns: str | list[str], expected: list[str]) -> None:
    assert match(["body.a.weight", "body.b.bias", "head.weight"], patterns) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("top:1", ["body.e.layer.10.w", "body.lora.layer.10.A", "head.b"]),
        ("top:2", ["body.e.layer.9.w", "body.e.layer.10.w", "body.lora.layer.10.A", "head.b"]),
        ("lora", ["body.lora.layer.10.A"]),
    ],
)
def test_match_knows_layers_by_their_number_and_adapters(pattern: str, expected: list[str]) -> None:
    names = [
        "body.e.words",
        "body.e.layer.2.w",
        "body.e.layer.9.w",
        "body.e.layer.10.w",
        "body.lora.layer.10.A",
        "head.b",
    ]
    assert match(names, pattern) == expected
    with pytest.raises(ConfigError, match=r"^model\.freeze: top:4 of 3 layers; give at most top:3, or all$"):
        match(names, "top:4", "model.freeze")
    assert match(["body.bank.2.w", "body.layered.1.w", "head.b"], "top:1") == []


def _record_shapes(body: nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []
    forward: Callable[[Tensor, Tensor], Tensor] = body.forward

    def recording(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        shapes.append(tuple(input_ids.shape))
        return forward(input_ids, attention_mask)

    monkeypatch.setattr(body, "forward", recording)
    return shapes


def test_what_does_not_fit_into_memory_is_a_users_error() -> None:
    found = r"^model: 135,107,988,821,114,880 bytes at once are more than this machine"
    with pytest.raises(ModelError, match=found):
        build(MLP(embedding_size=2**50, hidden_sizes=(5,)), {"vocab_size": 30, "pad_id": 0}, TASK, 3)
    with pytest.raises(RuntimeError, match="another"), allocating("model"):
        raise RuntimeError("another")
