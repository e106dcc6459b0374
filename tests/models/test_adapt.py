"""What of a pretrained encoder is adapted: its head, its last layers, adapters or all of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import classification
from model_helpers import build, random_batch, save_encoder, stack
from torch import Tensor
from toy import toy_config

from distmeta.algorithms.base import registry
from distmeta.config.load import override
from distmeta.engine.server import ParameterServer
from distmeta.errors import ConfigError
from distmeta.models import functional
from distmeta.models.functional import FunctionalModel
from distmeta.models.hf import HuggingFace
from distmeta.models.names import match
from distmeta.runs.experiment import build_experiment
from distmeta.types import Batch, Episode, Params, Unit

TASK = classification("a", "b")
KINDS = ["bert", "distilbert", "roberta"]
ADAPT: list[str | tuple[str, ...]] = ["head", "top:1", "top:2", "lora", ("lora", "head"), "all"]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A tiny encoder of two layers of each kind; electra's cannot be cut between layers."""
    return {kind: save_encoder(tmp_path_factory.mktemp(kind), kind) for kind in [*KINDS, "electra"]}


def _model(path: str, **options: Any) -> FunctionalModel:
    """In float64, as on a worker; its B are not at zero, where A would have no gradient."""
    made = HuggingFace(**options)
    values = {f"body.{name}": value for name, value in made.pretrained(path).items()}
    model = build(made, json.loads(json.dumps(made.prepare(path, [])[1])), TASK, 2, values=values)
    model.network.double()
    generator = torch.Generator().manual_seed(4)
    for name, value in model.network.named_parameters():
        if name.endswith(".B"):
            value.data.copy_(0.5 * torch.randn(value.shape, generator=generator))
    return model


def _episode() -> Episode:
    """Two tasks of two classes; four support texts and two query texts each."""

    def batch(shape: tuple[int, int, int], seed: int) -> Batch:
        made = random_batch(shape, 24, seed)
        targets = torch.arange(2).repeat_interleave(shape[1] // 2).repeat(2, 1)
        return made._replace(targets=targets, weights=torch.ones(targets.shape, dtype=torch.float64), outputs=2)

    return Episode("classification", batch((2, 4, 6), 5), batch((2, 2, 4), 6), (("a", "b"),) * 2)


def _own(model: FunctionalModel, adapt: str) -> Params:
    """Another value of what is adapted for each of two tasks."""
    generator = torch.Generator().manual_seed(0)
    params = model.init()
    names = match(params, adapt)
    noise = {n: torch.randn(2, *params[n].shape, generator=generator, dtype=torch.float64) for n in names}
    return {name: params[name] + 0.1 * noise[name] for name in names}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("adapt", "below"), [("top:1", 1), ("top:2", 0), ("lora", 0), ("*layer.1.output.*", 1)])
def test_the_split_body_equals_the_whole(
    encoders: dict[str, str], kind: str, adapt: str, below: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functional, "CPU_CHUNK", 3)  # of 10 texts of 1 to 8 tokens: four chunks, most of them padded
    if kind == "distilbert" and adapt.startswith("*"):
        adapt = "*layer.1.ffn.*"
    model = _model(encoders[kind], lora_rank=2)
    params, own, inputs = model.init(), _own(model, adapt), random_batch((2, 5, 8), 24, seed=1).inputs
    encoded = model.encode(params, own, inputs)
    assert set(encoded) == {f"hidden.{below}", "attention_mask", "rows", "labels"}
    assert encoded[f"hidden.{below}"].shape == (2, 5, 8, 8)
    split, of_encoded = model.outputs(params, own, inputs), model.outputs(params, own, encoded)
    shared = model.features(params, {}, encoded)
    # Task by task through the library's own forward: no stacking, no cut.
    model.network.body.splits = False
    for t in range(2):
        values = {**params, **{name: value[t] for name, value in own.items()}}
        its = {name: value[t : t + 1] for name, value in inputs.items()}
        expected = model.outputs(values, {}, its)[0]
        torch.testing.assert_close(split[t], expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(of_encoded[t], expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(shared, model.features(params, {}, inputs), rtol=1e-9, atol=1e-12)


def test_a_body_is_cut_only_where_that_is_right(encoders: dict[str, str]) -> None:
    inputs = random_batch((2, 3, 4), 24, seed=1).inputs
    model = _model(encoders["bert"])
    params = model.init()
    for adapt in ("all", "*embeddings.LayerNorm*", "*LayerNorm*"):
        assert model.encode(params, match(params, adapt), inputs) is inputs
    encoded = model.encode(params, match(params, "top:1"), inputs)
    assert model.encode(params, match(params, "top:1"), encoded) is encoded
    assert "features" in model.encode(params, [], encoded)
    with pytest.raises(ValueError, match=r"states after 1 layers, and body\.encoder\.encoder\.layer\.0\."):
        model.outputs(params, stack({n: params[n] for n in match(params, "top:2")}, 2), encoded)
    whole = _model(encoders["electra"])
    params = whole.init()
    top = match(params, "top:1")
    assert {name.split(".layer.")[1][0] for name in top if not name.startswith("head.")} == {"1"}
    assert whole.encode(params, top, inputs) is inputs


def test_layers_below_run_once_whatever_the_steps(encoders: dict[str, str]) -> None:
    model = _model(encoders["bert"], dropout=0.5)
    texts: dict[int, list[int]] = {0: [], 1: []}
    for layer, seen in texts.items():
        module = model.network.body.get_submodule(f"encoder.encoder.layer.{layer}")
        module.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(len(inputs[0])))
    model.train(True)
    learner = registry.get("maml")(inner_adapt="top:1", inner_steps=3)
    learner.meta_gradient(model, model.init(), _episode())
    # 2 tasks of 4 support and 2 query texts; under vmap, a task's own.
    assert texts == {0: [4, 8], 1: [4, 4, 4, 2]}


def test_dropout_below_is_drawn_in_meta_training_only(encoders: dict[str, str]) -> None:
    model = _model(encoders["bert"], dropout=0.5)
    params, inputs = model.init(), random_batch((2, 3, 4), 24, seed=1).inputs

    def hidden() -> Tensor:
        return model.encode(params, match(params, "top:1"), inputs)["hidden.1"]

    model.train(False)
    assert torch.equal(hidden(), hidden())
    model.train(True)
    assert not torch.equal(hidden(), hidden())


@pytest.mark.parametrize("adapt", ADAPT)
@pytest.mark.parametrize("name", ["maml", "protomaml"])
def test_the_meta_gradient_is_the_derivative(encoders: dict[str, str], name: str, adapt: Any) -> None:
    """Central differences along a random direction, in float64, of what the uncut body makes."""
    model = _model(encoders["bert"], lora_rank=2)
    learner, generator = registry.get(name)(inner_adapt=adapt, inner_lr=0.5, inner_steps=2), torch.Generator()
    theta, episode = learner.init(model, generator), _episode()
    direction = {n: torch.randn(v.shape, generator=generator, dtype=torch.float64) for n, v in theta.items()}
    gradient, _ = learner.meta_gradient(model, theta, episode)
    along = sum(float((gradient[n] * direction[n]).sum()) for n in theta)
    model.network.body.splits = False

    def at(step: float) -> float:
        moved = {n: theta[n] + step * direction[n] for n in theta}
        with torch.no_grad():
            adapted = learner.adapt(model, moved, episode.support)
            return float(TASK.loss(learner.predict(model, adapted, episode.query.inputs), episode.query).sum())

    h = 1e-6
    assert along == pytest.approx((at(h) - at(-h)) / (2 * h), rel=2e-5)
    assert abs(along) > 1e-6


@pytest.mark.parametrize("adapt", ADAPT)
@pytest.mark.parametrize("name", ["maml", "fomaml", "protomaml", "reptile"])
def test_one_real_step(encoders: dict[str, str], tmp_path: Path, name: str, adapt: Any) -> None:
    """As a worker and the server take it; what is adapted moves, and repeated it is the same to the bit."""
    config = toy_config(
        tmp_path,
        data__max_length=32,
        model={"name": "hf", "path": encoders["bert"], "dropout": 0.1, "lora_rank": 2},
        algorithm={"name": name},
        inner={"adapt": adapt if isinstance(adapt, str) else list(adapt), "lr": 0.1, "steps": 2},
    )

    def step() -> tuple[Params, Params]:
        setup = build_experiment(config).setup
        result = setup.make_worker("w", "cpu").run(setup.training, Unit(0, 0, 2), setup.meta_params)
        assert not result.rejected
        server = ParameterServer(setup.outer, setup.meta_params)
        server.apply([result])
        return setup.layout.unflatten(setup.meta_params), setup.layout.unflatten(server.meta_params)

    (before, after), (_, again) = step(), step()
    assert all(np.array_equal(after[n], again[n]) for n in after)
    moved = [n for n in before if not torch.equal(before[n], after[n])]
    assert moved
    # Softmax does not see the bias of keys.
    expected = [n for n in match(before, adapt) if not n.endswith(".key.bias")]
    assert set(expected) <= set(moved)


def test_more_layers_than_there_are_and_layers_where_there_are_none(encoders: dict[str, str], tmp_path: Path) -> None:
    def refused(message: str, model: dict[str, Any], **more: Any) -> None:
        with pytest.raises(ConfigError, match=message):
            build_experiment(toy_config(tmp_path, data__max_length=32, model=model, **more))

    hf = {"name": "hf", "path": encoders["bert"]}
    refused(r"^inner\.adapt: top:3 of 2 layers; give at most top:2, or all$", hf, inner__adapt="top:3")
    refused(r"^model\.freeze: top:9 of 2 layers;", {**hf, "freeze": "top:9"})
    frozen = {**hf, "freeze": ["body.*", "head.*"]}
    refused(r"^inner\.adapt: 'top:1' fits no parameter that is not frozen;", frozen, inner__adapt="top:1")
    for wrong in ("top:0", "top:x", "top"):
        refused(rf"^inner\.adapt: '{wrong}' fits no parameter;", hf, inner__adapt=wrong)
    refused(r"^inner\.adapt: 'top:1' fits no parameter;", {"name": "text_cnn", "min_count": 1}, inner__adapt="top:1")


def test_top_is_plain_yaml() -> None:
    assert override({}, ["inner.adapt=top:2"]) == {"inner": {"adapt": "top:2"}}
    assert override({}, ["inner.adapt=[top:2, lora]"]) == {"inner": {"adapt": ["top:2", "lora"]}}


def test_minilm_split_equals_whole(minilm: str) -> None:
    options = HuggingFace()
    values = {f"body.{name}": value for name, value in options.pretrained(minilm).items()}
    model = build(options, options.prepare(minilm, [])[1], TASK, 2, values=values)
    params, inputs = model.init(), random_batch((2, 4, 12), 30000, seed=3).inputs
    generator = torch.Generator().manual_seed(0)
    top = {n: params[n] for n in match(params, "top:2")}
    own = {n: v + 0.01 * torch.randn(2, *v.shape, generator=generator) for n, v in top.items()}

    def features() -> Tensor:
        with torch.no_grad():
            return model.features(params, own, inputs)

    split = features()
    model.network.body.splits = False
    assert torch.allclose(split, features(), atol=1e-6)
