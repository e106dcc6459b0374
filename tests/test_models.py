"""What every registered model must do, and what each from-scratch body computes."""

import json
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from model_helpers import TEXTS, CrossEntropy, make_options, meta_loss, random_batch, save_encoder, stack
from torch import Tensor, nn

from distmeta.errors import ConfigError
from distmeta.models import base
from distmeta.models.base import Architecture, FunctionalModel, ModelFactory, build, match, registry
from distmeta.models.mlp import MLP
from distmeta.models.text import build_tokenizer
from distmeta.models.text_attention import TextAttention, TextAttentionBody
from distmeta.models.text_cnn import TextCNN
from distmeta.models.text_rnn import TextRNN, TextRNNBody
from distmeta.types import Inputs

SMALL: dict[str, dict[str, Any]] = {
    "text_cnn": {"embedding_size": 6, "filters": 4, "widths": (2, 5)},
    "text_rnn": {"embedding_size": 6, "hidden_size": 4},
    "text_attention": {"embedding_size": 8, "hidden_size": 6, "heads": 2},
    "mlp": {"embedding_size": 6, "hidden_sizes": (7, 5)},
}
TASK: Any = CrossEntropy()


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


@pytest.fixture(scope="module", params=registry.names())
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
        alone = model.network({name: value[t] for name, value in inputs.items()}, features_only=False)
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
    loss = model.loss(params, {}, batch).sum()
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
    assert not torch.equal(first["head.weight"], other["head.weight"])
    assert any(not torch.equal(first[name], other[name]) for name in first if name.startswith("body."))


def test_options_survive_pickling(case: Case) -> None:
    assert pickle.loads(pickle.dumps(case.options)) == case.options


# --- the functional view


@pytest.fixture
def mlp() -> FunctionalModel:
    options = MLP(embedding_size=6, hidden_sizes=(5,))
    return build(options, {"vocab_size": 30, "pad_id": 0}, TASK, 3)


def test_encode_keeps_order_and_equals_the_whole_at_once(mlp: FunctionalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "CPU_CHUNK", 7)
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
    head = {"head.weight": torch.randn(2, 3, 5), "head.bias": torch.randn(2, 3)}
    features = mlp.features(params, head, inputs)
    expected = torch.einsum("tbd,tnd->tbn", features, head["head.weight"]) + head["head.bias"][:, None]
    assert torch.allclose(mlp.outputs(params, head, inputs), expected, atol=1e-6)


def test_given_features_are_not_computed_again(mlp: FunctionalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = _record_shapes(mlp.network.body, monkeypatch)
    given = {"features": torch.randn(2, 3, 5), "rows": torch.zeros(2, 3)}
    params = mlp.init()
    assert torch.equal(mlp.features(params, {}, given), given["features"])
    expected = given["features"] @ params["head.weight"].T + params["head.bias"]
    assert torch.allclose(mlp.outputs(params, {}, given), expected, atol=1e-6)
    assert shapes == []


def test_the_loss_is_that_of_the_task_kind(mlp: FunctionalModel) -> None:
    batch = random_batch((2, 4, 5), 30, seed=11)
    params = {**mlp.init(), "head.weight": torch.zeros(3, 5), "head.bias": torch.zeros(3)}
    # Three outputs that are all 0: ln 3 for every task.
    assert mlp.loss(params, {}, batch).tolist() == pytest.approx([1.0986123, 1.0986123])


def test_frozen_parameters_are_kept_out_and_keep_their_values() -> None:
    options = MLP(embedding_size=6, hidden_sizes=(5,))
    model = build(options, {"vocab_size": 30, "pad_id": 0}, TASK, 3, freeze=["body.*"])
    assert list(model.init()) == model.free == ["head.weight", "head.bias"]
    inputs = random_batch((2, 3, 4), 30, seed=12).inputs
    expected = model.network.body(inputs["input_ids"][1], inputs["attention_mask"][1])
    assert torch.allclose(model.features(model.init(), {}, inputs)[1], expected, atol=1e-6)
    features = {"body.hidden.0.bias": torch.full((5,), 9.0)}
    assert not torch.allclose(model.features(features, {}, inputs)[1], expected)


def test_init_gives_copies(mlp: FunctionalModel) -> None:
    mlp.init()["head.bias"].fill_(7)
    assert not (mlp.init()["head.bias"] == 7).any()


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


# --- what each body computes


def test_text_cnn_by_hand() -> None:
    body = TextCNN(embedding_size=1, filters=2, widths=(2, 3)).body({"vocab_size": 10})
    weights = {
        "embedding.weight": torch.arange(10.0).view(10, 1),
        "banks.0.weight": torch.tensor([[1.0, 1.0], [1.0, -1.0]]),
        "banks.0.bias": torch.tensor([0.0, -0.5]),
        "banks.1.weight": torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]]),
        "banks.1.bias": torch.tensor([0.0, 0.0]),
    }
    body.load_state_dict(weights)
    ids = torch.tensor([[3, 1, 4, 9, 9], [2, 9, 9, 9, 9]])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    # 3 1 4: pairs 31 14 4_: sums 4 5 4, differences 2 -3 4 less 0.5; triples 314 14_ 4__: sums 8 5 4, negated < 0.
    # 2: pair 2_: 2, and 2 less 0.5; triple 2__: 2, negated < 0.
    assert body(ids, mask).tolist() == [[5, 3.5, 8, 0], [2, 1.5, 2, 0]]


def test_mlp_by_hand() -> None:
    body = MLP(embedding_size=1, hidden_sizes=(2,)).body({"vocab_size": 10})
    weights = {
        "embedding.weight": torch.arange(10.0).view(10, 1),
        "hidden.0.weight": torch.tensor([[2.0], [-1.0]]),
        "hidden.0.bias": torch.tensor([1.0, 2.5]),
    }
    body.load_state_dict(weights)
    # Means 2 and 3: 2·2+1, 2.5−2; 2·3+1, and 2.5−3 is cut to 0.
    ids, mask = torch.tensor([[1, 3], [3, 9]]), torch.tensor([[1, 1], [1, 0]])
    assert body(ids, mask).tolist() == [[5, 0.5], [7, 0]]


@pytest.mark.parametrize("bidirectional", [False, True])
def test_text_rnn_equals_torch_gru_on_packed_texts(bidirectional: bool) -> None:
    body = TextRNN(embedding_size=5, hidden_size=4, bidirectional=bidirectional).body({"vocab_size": 20})
    assert isinstance(body, TextRNNBody)
    gru = nn.GRU(5, 4, batch_first=True, bidirectional=bidirectional)
    for suffix, ours in [("", body.forwards), ("_reverse", body.backwards)][: 1 + bidirectional]:
        assert ours is not None
        for theirs, layer in (("ih", ours.inputs), ("hh", ours.state)):
            getattr(gru, f"weight_{theirs}_l0{suffix}").data.copy_(layer.weight)
            getattr(gru, f"bias_{theirs}_l0{suffix}").data.copy_(layer.bias)
    inputs = random_batch((1, 6, 6), 20, seed=14).inputs
    ids, mask = inputs["input_ids"][0], inputs["attention_mask"][0]
    packed = nn.utils.rnn.pack_padded_sequence(body.embedding(ids), mask.sum(1), batch_first=True, enforce_sorted=False)
    expected = torch.cat(list(gru(packed)[1]), dim=-1)
    assert torch.allclose(body(ids, mask), expected, atol=1e-6)


def test_text_attention_equals_torch_transformer() -> None:
    options = TextAttention(embedding_size=8, heads=2, hidden_size=6, layers=2)
    body = options.body({"vocab_size": 20, "max_length": 10})
    assert isinstance(body, TextAttentionBody)
    for value in body.parameters():
        nn.init.normal_(value, std=0.5)
    theirs = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 6, 0.0, "gelu", batch_first=True, norm_first=True),
        num_layers=2,
        norm=nn.LayerNorm(8),
        enable_nested_tensor=False,
    )
    names = {
        "attention_norm": "norm1",
        "hidden_norm": "norm2",
        "queries_keys_values": "self_attn.in_proj",
        "mix": "self_attn.out_proj",
        "up": "linear1",
        "down": "linear2",
    }
    state = {}
    for name, value in body.state_dict().items():
        for ours, their in names.items():
            name = name.replace(f".{ours}.", f".{their}.")  # noqa: PLW2901
        state[name.replace("blocks.", "layers.").replace("in_proj.", "in_proj_")] = value
    tables = {key: state.pop(f"{key}.weight") for key in ("embedding", "positions")}
    theirs.load_state_dict(state)
    inputs = random_batch((1, 6, 7), 20, seed=15).inputs
    ids, mask = inputs["input_ids"][0], inputs["attention_mask"][0]
    hidden = theirs(tables["embedding"][ids] + tables["positions"][:7], src_key_padding_mask=mask == 0)
    expected = torch.stack([hidden[i, : mask[i].sum()].mean(0) for i in range(6)])
    assert torch.allclose(body(ids, mask), expected, atol=1e-5)


def test_text_attention_names_the_key_of_what_does_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"^model\.heads: 3 heads"):
        make_options("text_attention", embedding_size=8, heads=3)
    options = TextAttention(embedding_size=8, max_length=4)
    body = options.body(options.prepare(None, TEXTS)[1])
    ids = torch.ones(1, 5, dtype=torch.long)
    with pytest.raises(ConfigError, match=r"^data\.max_length: a text of 5 tokens; .* at most 4"):
        body(ids, ids)


# --- the tokenizer of the from-scratch models


def test_words_are_numbered_by_frequency() -> None:
    texts = ["Pay my bill", "pay THE bill", "pay, now"]
    tokenizer = build_tokenizer(texts, "words", vocab_size=100, min_count=2)
    assert tokenizer.get_vocab() == {"[PAD]": 0, "[UNK]": 1, "pay": 2, "bill": 3}
    assert tokenizer.encode("PAY the Bill").ids == [2, 1, 3]
    assert len(build_tokenizer(texts, "words", vocab_size=3, min_count=1).get_vocab()) == 3


def test_special_tokens_in_a_text_are_text() -> None:
    tokenizer = build_tokenizer(["pad [PAD] pad"] * 2, "words", vocab_size=100, min_count=1)
    assert 0 not in tokenizer.encode("[PAD]").ids


@pytest.mark.parametrize("vocabulary", ["words", "wordpieces"])
def test_a_tokenizer_is_the_same_every_time(vocabulary: str) -> None:
    texts = [f"{a}{b} {b}{a}{b}" for a in "déjàvucontest" for b in "wörterbuch"]
    first, *others = [build_tokenizer(texts, vocabulary, 60, 1).to_str() for _ in range(6)]
    assert all(other == first for other in others)


def test_word_pieces_spell_unseen_words() -> None:
    tokenizer = build_tokenizer(["low lower lowest new newer"] * 5, "wordpieces", vocab_size=80, min_count=2)
    assert tokenizer.token_to_id("[PAD]") == 0
    encoding = tokenizer.encode("Newest")
    assert "[UNK]" not in encoding.tokens
    assert "".join(token.removeprefix("##") for token in encoding.tokens) == "newest"
    assert tokenizer.get_vocab_size() <= 80


@pytest.mark.parametrize("name", sorted(SMALL))
def test_models_from_scratch_refuse_a_path(name: str) -> None:
    options = make_options(name)
    assert options.pretrained(None) is None
    with pytest.raises(ConfigError, match=r"^model\.path: 'some/folder' given"):
        options.prepare("some/folder", TEXTS)


def test_prepare_reads_texts_once() -> None:
    tokenizer, architecture = TextCNN(vocabulary="wordpieces", vocab_size=60).prepare(None, iter(TEXTS))
    assert architecture == {"vocab_size": tokenizer.get_vocab_size(), "pad_id": 0}
    assert tokenizer.get_vocab_size() > 20


def _inputs(ids: Tensor, mask: Tensor) -> Inputs:
    return {"input_ids": ids[None], "attention_mask": mask[None], "rows": torch.zeros(1, len(ids))}


def _random_text(case: Case) -> Inputs:
    inputs = random_batch((1, 1, 6), case.vocab_size, seed=16).inputs
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def _record_shapes(body: nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []
    forward: Callable[[Tensor, Tensor], Tensor] = body.forward

    def recording(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        shapes.append(tuple(input_ids.shape))
        return forward(input_ids, attention_mask)

    monkeypatch.setattr(body, "forward", recording)
    return shapes
