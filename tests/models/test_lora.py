"""Low-rank adapters beside the linear layers of an encoder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import CrossEntropy
from model_helpers import build, random_batch, save_encoder, stack
from torch import Tensor, nn
from toy import toy_config

from distmeta.errors import ConfigError
from distmeta.models.functional import FunctionalModel
from distmeta.models.hf import HuggingFace
from distmeta.models.lora import Adapter, attach, choose
from distmeta.models.names import match
from distmeta.runs.experiment import build_experiment
from distmeta.types import Params

TASK: Any = CrossEntropy()
QUERY = "encoder.layer.1.attention.self.query"
INPUTS = random_batch((2, 5, 8), 24, seed=1).inputs


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_encoder(tmp_path_factory.mktemp("encoder"))


def _model(path: str, seed: int = 0, freeze: tuple[str, ...] = (), **options: Any) -> FunctionalModel:
    """As the driver does it; the architecture goes through JSON, as to a worker."""
    made = HuggingFace(**options)
    architecture = json.loads(json.dumps(made.prepare(path, [])[1]))
    values = {f"body.{name}": value for name, value in made.pretrained(path).items()}
    return build(made, architecture, TASK, 3, freeze, values, seed)


def _random(params: Params, seed: int) -> Params:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(2, *value.shape, generator=generator) for name, value in params.items()}


def test_an_adapter_worked_by_hand() -> None:
    linear = nn.Linear(2, 2)
    adapters = attach(nn.Sequential(linear), ["0"], rank=1, alpha=2.0)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        linear.bias.copy_(torch.tensor([0.5, 0.0]))
        adapters.get_parameter("0.A").copy_(torch.tensor([[1.0, 2.0]]))
        adapters.get_parameter("0.B").copy_(torch.tensor([[3.0], [-1.0]]))
    # x = (1, 1): W x + b = (1.5, 1); A x = 3, B A x = (9, −3), times α / r = 2: (18, −6).
    assert linear(torch.ones(2)).tolist() == [19.5, -5.0]


def test_a_starts_random_and_b_at_zero() -> None:
    torch.manual_seed(0)
    adapter = Adapter(nn.Linear(400, 30), rank=50, alpha=1.0)
    assert adapter.A.shape == (50, 400)
    assert float(adapter.A.detach().std()) == pytest.approx(400**-0.5, rel=0.05)
    assert torch.equal(adapter.B, torch.zeros(30, 50))


def test_adapters_change_nothing_at_the_start_and_leave_names_alone(encoder: str) -> None:
    plain, adapted = _model(encoder), _model(encoder, lora_rank=2)
    params = adapted.init()
    assert torch.equal(adapted.features(params, {}, INPUTS), plain.features(plain.init(), {}, INPUTS))
    own = [name for name in params if name not in plain.init()]
    assert own == match(params, "lora")
    layers = [f"encoder.layer.{layer}.attention.self.{which}" for layer in (0, 1) for which in ("query", "value")]
    assert own == [f"body.lora.{layer}.{letter}" for layer in layers for letter in "AB"]
    assert {tuple(params[f"body.lora.{QUERY}.{letter}"].shape) for letter in "AB"} == {(2, 8), (8, 2)}


@pytest.mark.parametrize(("alpha", "scale"), [(None, 1.0), (8.0, 4.0)])
def test_stacked_adapters_equal_merged_weights(encoder: str, alpha: float | None, scale: float) -> None:
    """Task by task, the plain encoder with W + α / r · B A in place of W."""
    plain, adapted = _model(encoder), _model(encoder, lora_rank=2, lora_alpha=alpha)
    params = adapted.init()
    own = _random({name: params[name] for name in match(params, "lora")}, seed=2)
    features = adapted.features(params, own, INPUTS)
    merged = stack({name: params[name] for name in plain.init()}, 2)
    for name in own:
        if name.endswith(".A"):
            product = own[name.removesuffix("A") + "B"] @ own[name]
            weight = name.replace("lora", "encoder").removesuffix("A") + "weight"
            merged[weight] = merged[weight] + scale * product
    assert torch.allclose(features, plain.features({}, merged, INPUTS), atol=1e-5)
    assert not torch.allclose(features, plain.features(plain.init(), {}, INPUTS), atol=1e-2)


def test_a_comes_from_the_seed(encoder: str) -> None:
    def start(seed: int) -> Tensor:
        return _model(encoder, seed, lora_rank=2).init()[f"body.lora.{QUERY}.A"]

    assert torch.equal(start(0), start(0))
    assert not torch.equal(start(0), start(1))


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("roberta", "encoder.layer.0.attention.self.query"),
        ("distilbert", "transformer.layer.0.attention.q_lin"),
    ],
)
def test_default_targets_are_query_and_value(tmp_path: Path, kind: str, first: str) -> None:
    names = match(_model(save_encoder(tmp_path, kind), lora_rank=1).init(), "lora")
    assert len(names) == 2 * 2 * 2  # layers, projections, A and B
    assert names[0] == f"body.lora.{first}.A"


def test_targets_are_patterns_of_linear_layers(encoder: str) -> None:
    targets = ("*.1.*.query", "body.encoder.encoder.layer.0.output.dense")
    names = match(_model(encoder, lora_rank=1, lora_targets=targets).init(), "lora")
    assert names == [f"body.lora.{layer}.{ab}" for layer in ("encoder.layer.0.output.dense", QUERY) for ab in "AB"]


def test_targets_that_fit_nothing_are_refused(encoder: str) -> None:
    with pytest.raises(ConfigError, match=r"^model\.lora_targets: '\*\.querry' fits no .* such as body\.encoder\.enc"):
        HuggingFace(lora_rank=1, lora_targets=("*.query", "*.querry")).prepare(encoder, [])
    with pytest.raises(ConfigError, match=r"^model\.lora_targets: the default .* its 1 linear .* body\.encoder\.0$"):
        choose(nn.Sequential(nn.Linear(2, 2)), None)


@pytest.mark.parametrize("option", [{"lora_alpha": 2.0}, {"lora_targets": "*.query"}])
def test_options_of_adapters_want_a_rank(encoder: str, option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(ConfigError, match=rf"^model\.{name}: given without model\.lora_rank; set model\.lora_rank"):
        HuggingFace(**option).prepare(encoder, [])


def test_the_encoder_can_be_frozen_apart_from_its_adapters(encoder: str) -> None:
    model = _model(encoder, freeze=("body.encoder.*",), lora_rank=2)
    assert model.free == [*match(model.free, "lora"), "head.toy.weight", "head.toy.bias"]
    assert len(model.free) == 10


def test_adapting_adapters_that_are_not_there_is_refused(encoder: str, tmp_path: Path) -> None:
    config = toy_config(
        tmp_path, data__max_length=32, model={"name": "hf", "path": encoder}, inner__adapt=["lora", "head"]
    )
    remedy = "set model.lora_rank, such as 4, with model.name=hf"
    with pytest.raises(ConfigError, match=rf"^inner\.adapt: 'lora' fits no parameter; {remedy}$"):
        build_experiment(config)
    model = {"name": "hf", "path": encoder, "lora_rank": 2, "freeze": "body"}
    with pytest.raises(ConfigError, match=r"^inner\.adapt: 'lora' fits no parameter that is not frozen; there are"):
        build_experiment(toy_config(tmp_path, data__max_length=32, model=model, inner__adapt="lora"))
