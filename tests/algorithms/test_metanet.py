"""Meta networks: encoder, meta-information and generated head by hand, and both terms of the objective."""

from math import exp, log
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fakes import Given
from metric_helpers import (
    TASK,
    given,
    outputs_of,
    random_given,
    scattered,
    slope,
    small_model,
    take,
    text_episode,
    with_padding,
    without_classes,
)
from torch import Tensor
from toy import toy_config

from distmeta.algorithms.metanet import MetaNet, meta_information, slow_head
from distmeta.algorithms.protonet import ProtoNet, prototypes
from distmeta.errors import ConfigError
from distmeta.models.functional import FunctionalModel
from distmeta.runs.experiment import build_experiment
from distmeta.types import Adapted, Episode, Params

ONE = 1 / (1 + exp(2))  # 1 − p of the right class, below
NAMES = ("hidden.weight", "hidden.bias", "output.weight", "output.bias")


def theta_of(encoder: list[Any], generator: list[Any]) -> Params:
    """θ from the values of both networks, in the order of `NAMES`."""
    networks = {"meta.encoder": encoder, "meta.generator": generator}
    return {
        f"{network}.{name}": torch.tensor(value, dtype=torch.float64)
        for network, values in networks.items()
        for name, value in zip(NAMES, values, strict=True)
    }


# E(f) = 0. G([c; m]) = (3, 1) relu(m) + (0, ¼).
IDENTITY = [[[0.0]], [0.0], [[0.0]], [0.0]]
BY_HAND = theta_of(IDENTITY, [[[0.0, 1.0]], [0.0], [[3.0], [1.0]], [0.0, 0.25]])
LEARNER = MetaNet(scale=0.5)  # 2 · scale = 1: scores are w r + b
# Class 0 at 1, class 1 at −1: w = (1, −1), b = (−½, −½). Scores of 1: (½, −3/2), so that p_0 = 1 / (1 + e⁻²); of −1
# the other way round. (5 has weight 0.)
SUPPORT = given([[1.0], [5.0], [-1.0]], [0, 0, 1], [1, 0, 1])


def started(model: Any, learner: MetaNet, size: float = 0.3) -> Params:
    """θ in which nothing is 0."""
    return scattered(learner.init(model, torch.Generator().manual_seed(0)), size)


def test_the_head_of_a_hand_worked_episode() -> None:
    """m_0 = 2 · (½ (1 − p) · 1 + ½ (0 − (1 − p)) · −1) = 2 (1 − p), m_1 = −m_0, which the relu of G makes 0."""
    m = 2 * ONE
    model: Any = Given(1)
    with torch.no_grad():
        head = LEARNER.adapt(model, BY_HAND, SUPPORT).stacked
    assert head["weight"].flatten().tolist() == pytest.approx([1 + 3 * m, -1], abs=1e-12)
    assert head["bias"].flatten().tolist() == pytest.approx([-0.5 + m + 0.25, -0.5 + 0.25], abs=1e-12)
    outputs = outputs_of(LEARNER, model, BY_HAND, SUPPORT, given([[2.0]], [0]))
    assert outputs.flatten().tolist() == pytest.approx([2 * (1 + 3 * m) - 0.25 + m, -2.25], abs=1e-12)


def test_the_figures_of_a_hand_worked_episode() -> None:
    """L_meta = −log p = log(1 + e⁻²); the query text at 2, of class 0, has the scores above; one of weight 0 none."""
    query = given([[2.0], [2.0]], [0, 1], [1, 0])
    model: Any = Given(1)
    _, metrics = LEARNER.meta_gradient(model, BY_HAND, Episode("classification", SUPPORT, query, (("a", "b"),)))
    assert metrics["meta_loss"].tolist() == pytest.approx([log(1 + exp(-2))], abs=1e-12)
    margin = 2 * (1 + 6 * ONE) - 0.25 + 2 * ONE + 2.25
    assert metrics["loss"].tolist() == pytest.approx([log(1 + exp(-margin))], abs=1e-12)
    assert metrics["accuracy"].tolist() == [1.0]


def test_encodings_by_hand() -> None:
    """E(f) = ½ (1 · relu(2 f − 1) + 4 · relu(−f)) + 0.1: of 1, ½ (1 + 0) + 0.1 = 0.6; of −1, ½ (0 + 4) + 0.1 = 2.1."""
    encoder = [[[2.0], [-1.0]], [-1.0, 0.0], [[1.0, 4.0]], [0.1]]
    theta = theta_of(encoder, [[[0.0, 1.0]], [0.0], [[3.0], [1.0]], [0.0, 0.25]])
    model: Any = Given(1)
    texts = given([[1.0], [-1.0]], [0, 1])
    assert LEARNER.encodings(model, theta, texts.inputs).flatten().tolist() == pytest.approx([1.6, 1.1], abs=1e-12)
    # Query texts are encoded too: a head of weight 3 and bias ¼ gives them 3 r + ¼.
    head = {"weight": torch.tensor([[[3.0]]], dtype=torch.float64), "bias": torch.tensor([[0.25]], dtype=torch.float64)}
    scores = LEARNER.predict(model, Adapted(theta, head), texts.inputs)
    assert scores.flatten().tolist() == pytest.approx([3 * 1.6 + 0.25, 3 * 1.1 + 0.25], abs=1e-12)


def test_meta_information_is_the_gradient_of_the_representation_loss() -> None:
    """m = −N / (2 · scale) · ∂L/∂w, by backpropagation with w as leaves."""
    learner, support = MetaNet(scale=1.7), random_given(2, 3, 2, 4, seed=0)
    support.weights[:, 1] = 0.25
    encodings = support.inputs["features"]
    head = slow_head(encodings, support)
    weight = head["weight"].clone().requires_grad_()
    scores = learner.scores({"weight": weight, "bias": head["bias"]}, encodings)
    (gradient,) = torch.autograd.grad(TASK.loss(scores, support).sum(), [weight])
    torch.testing.assert_close(meta_information(encodings, scores, support), -3 / (2 * 1.7) * gradient)


def test_it_starts_as_the_prototypical_network() -> None:
    model: Any = Given(4, 3)
    support, query = random_given(2, 3, 2, 4, seed=0), random_given(2, 3, 1, 4, seed=1)
    learner = MetaNet(scale=1.5)
    theta = learner.init(model, torch.Generator().manual_seed(0))
    assert {value.dtype for value in theta.values()} == {torch.float64}
    assert {name.split(".")[0] for name in theta} == {"meta"}
    # What is multiplied by 0 at the start is random, or no gradient would ever reach it.
    again, other = (learner.init(model, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    for name in ("meta.encoder.hidden.weight", "meta.generator.hidden.weight"):
        assert torch.equal(theta[name], again[name])
        assert float((theta[name] - other[name]).std()) == pytest.approx(2**0.5, rel=0.1)  # of two normal variables
    ours = outputs_of(learner, model, theta, support, query)
    theirs = outputs_of(ProtoNet(scale=1.5), model, {}, support, query)
    torch.testing.assert_close(ours.log_softmax(-1), theirs.log_softmax(-1))


def test_order_and_padding_of_the_support_set_do_not_matter() -> None:
    model: Any = Given(4, 3)
    support, query = random_given(2, 3, 2, 4, seed=0), random_given(2, 3, 1, 4, seed=1)
    learner = MetaNet(hidden_size=6, scale=1.0)
    theta = started(model, learner)
    outputs = outputs_of(learner, model, theta, support, query)
    for changed in (take(support, [3, 0, 5, 1, 4, 2]), with_padding(support, 3)):
        torch.testing.assert_close(outputs_of(learner, model, theta, changed, query), outputs, rtol=0, atol=1e-12)


def test_one_generator_serves_classes_of_any_number_and_order() -> None:
    """Classes that are numbered 2, 0, 1 instead get the same scores under their new numbers."""
    model: Any = Given(4, 2)
    learner = MetaNet(hidden_size=6, scale=1.0)
    theta = started(model, learner)
    support, query = random_given(2, 3, 2, 4, seed=0), random_given(2, 3, 1, 4, seed=1)
    outputs = outputs_of(learner, model, theta, support, query)
    assert outputs.shape == (2, 3, 3)
    numbers = torch.tensor([2, 0, 1])
    renumbered = outputs_of(learner, model, theta, support._replace(targets=numbers[support.targets]), query)
    torch.testing.assert_close(renumbered[..., numbers], outputs, rtol=0, atol=1e-12)


def case(name: str, alpha: float, beta: float) -> tuple[MetaNet, FunctionalModel, Params]:
    learner, model = MetaNet(alpha=alpha, beta=beta, hidden_size=5, scale=2.0), small_model(name)
    return learner, model, started(model, learner)


def objectives(learner: MetaNet, model: FunctionalModel, theta: Params, episode: Episode) -> tuple[Tensor, Tensor]:
    """L_task and L_meta summed over tasks; the latter by distances, which is the same loss."""
    adapted = learner.adapt(model, theta, episode.support)
    task = TASK.loss(learner.predict(model, adapted, episode.query.inputs), episode.query).sum()
    encodings = learner.encodings(model, theta, episode.support.inputs)
    distances = (encodings.unsqueeze(2) - prototypes(encodings, episode.support).unsqueeze(1)).square().sum(-1)
    losses = F.cross_entropy((-2.0 * distances).flatten(0, 1), episode.support.targets.flatten(), reduction="none")
    weights = episode.support.weights
    return task, ((losses.view_as(weights) * weights).sum(1) / weights.sum(1)).sum()


@pytest.mark.parametrize(("alpha", "beta"), [(0.7, 0.3), (1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("name", ["mlp", "text_cnn"])
def test_the_gradient_is_the_derivative_of_the_objective(name: str, alpha: float, beta: float) -> None:
    learner, model, theta = case(name, alpha, beta)
    episode = text_episode()
    gradient, _ = learner.meta_gradient(model, theta, episode)

    def objective(moved: Params) -> Tensor:
        task, meta = objectives(learner, model, moved, episode)
        return alpha * task + beta * meta

    ours, theirs = slope(objective, theta, gradient)
    assert ours == pytest.approx(theirs, rel=2e-5)
    assert abs(ours) > 1e-3


@pytest.mark.parametrize("name", ["mlp", "text_cnn"])
def test_the_gradient_is_the_weighted_sum_of_both_terms(name: str) -> None:
    """α · (that of L_task alone) + β · (that of L_meta alone); the generator's is exactly 0 in the latter."""
    gradients = []
    for alpha, beta in ((2.0, 0.25), (1.0, 0.0), (0.0, 1.0)):
        learner, model, theta = case(name, alpha, beta)
        gradients.append(learner.meta_gradient(model, theta, text_episode())[0])
    both, of_task, of_meta = gradients
    for parameter in both:
        expected = 2.0 * of_task[parameter] + 0.25 * of_meta[parameter]
        torch.testing.assert_close(both[parameter], expected, rtol=1e-12, atol=1e-14)
        assert of_task[parameter].abs().max() > 0
        if parameter.startswith("meta.generator."):
            assert of_meta[parameter].count_nonzero() == 0
        else:
            assert of_meta[parameter].abs().max() > 0


def test_a_head_that_is_too_large_is_refused() -> None:
    """Five classes of nine features and a bias are 50 numbers; 49 leave room for four, 19 for one: no choice."""
    model: Any = Given(9)
    MetaNet(max_generated=50).check(model, 5)
    found = r"algorithm\.max_generated: 49, but a head is 5 classes × \(9 features \+ 1\) = 50 numbers; set it to 50, "
    with pytest.raises(ConfigError, match=found + "or use at most 4 classes in episodes and evaluation"):
        MetaNet(max_generated=49).check(model, 5)
    with pytest.raises(ConfigError, match="use protonet"):
        MetaNet(max_generated=19).check(model, 5)


@pytest.mark.parametrize(("ways", "of_evaluation", "largest"), [(3, 4, 4), (3, 2, 3), (3, None, 3)])
def test_the_largest_head_of_a_run_is_measured(
    tmp_path: Path, ways: int, of_evaluation: int | None, largest: int
) -> None:
    """Four filters of one width are four features, and a bias."""
    settings: dict[str, Any] = {"episodes__ways": ways, "evaluation__ways": of_evaluation, "inner": {}}
    algorithm = {"name": "metanet", "max_generated": largest * 5}
    build_experiment(toy_config(tmp_path, **settings, algorithm=algorithm))
    found = rf"a head is {largest} classes × \(4 features \+ 1\) = {largest * 5} numbers"
    with pytest.raises(ConfigError, match=found):
        build_experiment(toy_config(tmp_path, **settings, algorithm={**algorithm, "max_generated": largest * 5 - 1}))


def test_what_does_not_do_is_refused() -> None:
    model: Any = Given(2)
    with pytest.raises(ConfigError, match=r"algorithm\.name.*classes"):
        MetaNet().check(without_classes(2), 1)
    with pytest.raises(ConfigError, match=r"algorithm\.alpha"):
        MetaNet(alpha=0, beta=0).check(model, 2)
    MetaNet(alpha=0).check(model, 2)
    MetaNet(beta=0).check(model, 2)
