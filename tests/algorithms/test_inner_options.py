"""Options of the inner loop: learned rates, the loss over several steps, clipping, dropout; and what is refused."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from fakes import Quadratic, quadratic_episode
from learner_helpers import TASK, episode_of, small_model
from torch import Tensor

from distmeta.algorithms.base import GradientBased, registry
from distmeta.config.load import validate
from distmeta.errors import ConfigError
from distmeta.models.functional import FunctionalModel
from distmeta.runs.settings import make_learner
from distmeta.types import Metrics, Params

ALGORITHMS = [name for name in registry.names() if issubclass(registry.get(name), GradientBased)]


X, S, Q = 2.0, 1.0, 0.5  # from x towards the support's s, judged at the query's q
R1, R2 = 0.1, 0.4


def line_gradient(name: str, **options: Any) -> tuple[Params, Metrics]:
    """The meta-gradient of a learner whose two steps have the rates R1 and R2."""
    learner, model = registry.get(name)(inner_steps=2, inner_learn_lr=True, **options), Quadratic({"body.b": X})
    theta = learner.init(model, torch.Generator())
    assert theta.keys() == {"body.b", "meta.rate.body.b"}
    theta["meta.rate.body.b"] = torch.tensor([R1, R2], dtype=torch.float64)
    gradient, metrics = learner.meta_gradient(model, theta, quadratic_episode([[S]], [[Q]]))
    return gradient, metrics


def test_learned_rates_on_paper() -> None:
    """x₂ = s + (1 − r₁)(1 − r₂)(x − s) = 1.54, which is 1.04 above q. dx₂/dr₁ = −(1 − r₂), dx₂/dr₂ = −(1 − r₁)."""
    gradient, metrics = line_gradient("maml")
    assert float(metrics["loss"]) == pytest.approx(0.5 * 1.04**2)
    assert float(gradient["body.b"]) == pytest.approx(1.04 * 0.9 * 0.6)
    assert gradient["meta.rate.body.b"].tolist() == pytest.approx([1.04 * -0.6, 1.04 * -0.9])


def test_learned_rates_of_first_order_on_paper() -> None:
    """The inner gradients x − s = 1 and x₁ − s = 0.9 are constants: x₂ = x − r₁ − 0.9 r₂."""
    gradient, _ = line_gradient("fomaml")
    assert float(gradient["body.b"]) == pytest.approx(1.04)
    assert gradient["meta.rate.body.b"].tolist() == pytest.approx([-1.04, -1.04 * 0.9])


def test_the_loss_over_several_steps_on_paper() -> None:
    """0.7 · ½ (x₂ − q)² + 0.3 · ½ (x₁ − q)², x₁ = 1.9 and x₁ − q = 1.4; the figures are those after the last step."""
    gradient, metrics = line_gradient("maml", inner_multi_step_loss=0.3)
    assert float(metrics["loss"]) == pytest.approx(0.5 * 1.04**2)
    assert float(gradient["body.b"]) == pytest.approx(0.7 * 1.04 * 0.54 + 0.3 * 1.4 * 0.9)
    by_r1 = 0.7 * 1.04 * -0.6 + 0.3 * 1.4 * -1
    assert gradient["meta.rate.body.b"].tolist() == pytest.approx([by_r1, 0.7 * 1.04 * -0.9])


def test_earlier_steps_count_by_their_mean() -> None:
    """Three steps of 0.5 leave 1.5, 1.25, 1.125: 0.6 · L₃ + 0.4 · (L₁ + L₂) / 2, with dx_k/dx = ½ᵏ."""
    learner, model = (
        registry.get("maml")(inner_lr=0.5, inner_steps=3, inner_multi_step_loss=0.4),
        Quadratic({"body.b": X}),
    )
    gradient, _ = learner.meta_gradient(model, model.init(), quadratic_episode([[S]], [[Q]]))
    expected = 0.6 * 0.625 / 8 + 0.2 * (1.0 / 2 + 0.75 / 4)
    assert float(gradient["body.b"]) == pytest.approx(expected)


def test_beyond_the_learned_steps_the_last_rate_goes_on() -> None:
    """1 + 0.9 · 0.6 · 0.6 · (2 − 1) after three steps with rates for two; fewer steps take the first rates."""
    learner, model = registry.get("maml")(inner_steps=2, inner_learn_lr=True), Quadratic({"body.b": X})
    theta = {**model.init(), "meta.rate.body.b": torch.tensor([R1, R2], dtype=torch.float64)}
    for steps, expected in ((0, 2.0), (1, 1.9), (2, 1.54), (3, 1.324)):
        adapted = replace(learner, inner_steps=steps).adapt(model, theta, quadratic_episode([[S]], [[Q]]).support)
        assert adapted.stacked["body.b"].item() == pytest.approx(expected)


def start(learner: Any, model: FunctionalModel) -> Params:
    return {name: value.double() for name, value in learner.init(model, torch.Generator()).items()}


@pytest.mark.parametrize("name", ["maml", "anil", "boil", "protomaml"])
@pytest.mark.parametrize("clip_norm", [0.05, 0.2])
def test_the_meta_gradient_with_every_option_is_the_derivative(name: str, clip_norm: float) -> None:
    """Central differences in float64, in a random direction of the model's parameters and in one of the rates."""
    options = {"inner_lr": 0.5, "inner_steps": 3, "inner_learn_lr": True, "inner_multi_step_loss": 0.3}
    learner = registry.get(name)(**options, inner_clip_norm=clip_norm, inner_dropout=0.4)
    model, episode = small_model("mlp", None), episode_of()
    model.train(True)
    theta = start(learner, model)

    def loss(at: Params) -> float:
        torch.manual_seed(11)
        with torch.no_grad():
            _, *points = learner.trajectory(model, at, episode.support)
            first, second, last = (
                TASK.loss(learner.predict(model, point, episode.query.inputs), episode.query).sum() for point in points
            )
        return float(0.7 * last + 0.3 * (first + second) / 2)

    torch.manual_seed(11)
    gradient, _ = learner.meta_gradient(model, theta, episode)
    generator, h = torch.Generator().manual_seed(0), 1e-6
    for kind in ("body.", "meta.rate."):
        names = [name for name in theta if name.startswith(kind)]
        direction = {n: torch.randn(theta[n].shape, generator=generator, dtype=torch.float64) for n in names}
        along = sum(float((gradient[n] * direction[n]).sum()) for n in names)
        moved = [{**theta, **{n: theta[n] + sign * h * direction[n] for n in names}} for sign in (1, -1)]
        assert along == pytest.approx((loss(moved[0]) - loss(moved[1])) / (2 * h), rel=2e-5)
        assert abs(along) > 1e-6


@pytest.mark.parametrize(("clip_norm", "binds"), [(1e9, False), (0.05, True)])
def test_clipping_binds_only_where_the_gradient_is_longer(clip_norm: float, binds: bool) -> None:
    model, episode = small_model("mlp", None), episode_of()
    plain = registry.get("maml")(inner_lr=0.5, inner_steps=1)
    clipped = replace(plain, inner_clip_norm=clip_norm)
    theta = start(plain, model)
    steps = []
    for learner in (plain, clipped):
        with torch.no_grad():
            after = learner.adapt(model, theta, episode.support).stacked
        steps.append(torch.cat([(after[n] - theta[n]).flatten(1) for n in theta], dim=1).norm(dim=1))
    if binds:
        assert steps[1].tolist() == pytest.approx([0.5 * 0.05] * 2)
        assert steps[0].min() > steps[1].max()
    else:
        assert torch.equal(*steps)


def test_rates_are_in_theta_one_for_each_tensor_that_is_adapted() -> None:
    learner = registry.get("protomaml")(inner_lr=0.3, inner_steps=4, inner_learn_lr=True, inner_adapt="head")
    theta = learner.init(small_model("mlp", None), torch.Generator())
    rates = {name: value.tolist() for name, value in theta.items() if name.startswith("meta.")}
    assert rates == {f"meta.rate.head.classification.{name}": [pytest.approx(0.3)] * 4 for name in ("weight", "bias")}


def adapted(model: FunctionalModel, learner: Any, seed: int) -> Tensor:
    torch.manual_seed(seed)
    with torch.no_grad():
        after = learner.adapt(model, start(learner, model), episode_of().support).stacked
    weight: Tensor = after["head.classification.weight"]
    return weight


@pytest.mark.parametrize("adapt", ["head", "all"])
def test_dropout_is_for_meta_training_and_repeats_with_its_seed(adapt: str) -> None:
    model = small_model("mlp", None)
    plain = registry.get("maml")(inner_lr=0.5, inner_steps=2, inner_adapt=adapt)
    dropping = replace(plain, inner_dropout=0.5)
    model.train(False)
    assert torch.equal(adapted(model, dropping, 1), adapted(model, plain, 1))
    model.train(True)
    assert torch.equal(adapted(model, dropping, 1), adapted(model, dropping, 1))
    assert not torch.equal(adapted(model, dropping, 1), adapted(model, dropping, 2))
    assert not torch.equal(adapted(model, dropping, 1), adapted(model, plain, 1))


def test_dropout_is_of_the_support_alone() -> None:
    """Without steps there is no support, and the query's features are whole."""
    model, episode = small_model("mlp", None), episode_of()
    model.train(True)
    plain = registry.get("maml")(inner_steps=0)
    losses = [
        its.meta_gradient(model, model.init(), episode)[1]["loss"] for its in (plain, replace(plain, inner_dropout=0.5))
    ]
    assert torch.equal(*losses)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("patterns", ["all", "*", "meta.*", ("meta.rate.head.*", "*weight")])
def test_what_an_algorithm_owns_is_never_adapted(name: str, patterns: str | tuple[str, ...]) -> None:
    model = small_model("mlp", None)
    learner = registry.get(name)(inner_adapt=patterns)  # unchecked, so that those with a fixed choice take it too
    names = [*model.init(), "meta.rate.head.classification.weight", "meta.classes.classification.weight"]
    assert not [name for name in learner.adapts(names) if name.startswith("meta.")]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("maml", {"inner_steps": 1, "inner_multi_step_loss": 0.5}, "inner.multi_step_loss: there are no earlier steps"),
        ("maml", {"inner_steps": 0, "inner_multi_step_loss": 0.5}, "inner.multi_step_loss: there are no earlier steps"),
        ("anil", {"inner_steps": 0, "inner_learn_lr": True}, "inner.learn_lr: there are no steps"),
        ("reptile", {"inner_learn_lr": True}, "inner.learn_lr: this algorithm does not differentiate"),
        ("reptile", {"inner_multi_step_loss": 0.5}, "inner.multi_step_loss: this algorithm does not differentiate"),
        (
            "reptile",
            {"inner_steps": 0},
            "inner.steps: 0, but reptile learns from the result of the inner steps; set it to 1",
        ),
        ("proximal", {"inner_learn_lr": True}, "inner.learn_lr: this algorithm does not differentiate"),
        ("finetune", {"inner_learn_lr": True}, "inner.learn_lr: this algorithm does not differentiate"),
        ("multitask", {"inner_multi_step_loss": 0.5}, "inner.multi_step_loss: this algorithm does not differentiate"),
    ],
)
def test_options_that_would_do_nothing_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        registry.get(name)(**options).check(small_model("mlp", None), 2)
    assert str(caught.value).startswith(message)


def test_options_that_do_something_are_not_refused() -> None:
    registry.get("fomaml")(inner_steps=2, inner_multi_step_loss=0.5).check(small_model("mlp", None), 2)
    registry.get("maml")(inner_steps=1, inner_learn_lr=True).check(small_model("mlp", None), 2)


@pytest.mark.parametrize("frozen", ["head.*", "head.classification.bias"])
def test_a_head_that_is_made_anew_cannot_be_frozen(frozen: str) -> None:
    with pytest.raises(ConfigError, match=r"^model\.freeze: the head is frozen"):
        registry.get("protomaml")().check(small_model("mlp", None, (frozen,)), 2)


@pytest.mark.parametrize(
    ("name", "options", "refused"),
    [
        ("maml", {}, True),
        ("maml", {"inner_adapt": ("head", "body.*bias")}, True),
        ("protomaml", {}, True),
        ("maml", {"inner_adapt": "head"}, False),
        ("maml", {"inner_steps": 0}, False),
        ("anil", {}, False),
        ("fomaml", {}, False),
        ("reptile", {}, False),
        ("finetune", {"inner_adapt": "all"}, False),
        ("multitask", {"inner_adapt": "all"}, False),
    ],
)
def test_second_derivatives_need_kernels_that_have_them(name: str, options: dict[str, Any], refused: bool) -> None:
    model = small_model("mlp", None)
    model.twice_differentiable = False
    learner = registry.get(name)(**options)
    if refused:
        with pytest.raises(ConfigError, match=r"^model\.attention: this algorithm needs second derivatives"):
            learner.check(model, 2)
    else:
        learner.check(model, 2)


@pytest.mark.parametrize(
    "content", [{"algorithm": {"name": "protonet"}}, {"inner": {"lr": 0.3, "adapt": ["head"], "clip_norm": 2}}]
)
def test_a_configuration_that_gives_every_key_makes_the_same_learner(content: dict[str, Any]) -> None:
    """A run that goes on reads its own config.yaml, in which nothing is left out."""
    given = validate(content)
    assert make_learner(validate(given.model_dump(mode="json"))) == make_learner(given)
