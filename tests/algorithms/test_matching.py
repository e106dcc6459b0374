"""Matching networks: attention by hand, and full context embeddings against torch's own recurrent cells."""

from dataclasses import replace
from math import exp, log
from typing import Any

import pytest
import torch
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
from torch import Tensor, nn

from distmeta.algorithms.matching import Matching
from distmeta.errors import ConfigError
from distmeta.types import Params

FULL = Matching(full_context=True, context_steps=2, scale=3.0)


def context(model: Any, learner: Matching = FULL) -> Params:
    """θ whose cells are at work."""
    return scattered(learner.init(model, torch.Generator().manual_seed(0)), 0.3)


def test_attention_of_a_hand_worked_episode() -> None:
    """From (3, 0), cosines to (1, 0), (0, 2) and (−5, 0) are 1, 0, −1, whatever the lengths.

    With scale log 2 they count 2, 1 and ½: class 0 has 3 of 3½, class 1 has ½. (9, 9) has weight 0; and when (0, 2)
    weighs ½, class 0 has 2½ of 3.
    """
    learner, model = Matching(scale=log(2)), Given(2)
    points = [[1.0, 0.0], [0.0, 2.0], [-5.0, 0.0], [9.0, 9.0]]
    query = given([[3.0, 0.0]], [0])
    outputs = outputs_of(learner, model, {}, given(points, [0, 0, 1, 1], [1, 1, 1, 0]), query)
    assert outputs.exp().flatten().tolist() == pytest.approx([6 / 7, 1 / 7], abs=1e-12)
    outputs = outputs_of(learner, model, {}, given(points, [0, 0, 1, 1], [1, 0.5, 1, 0]), query)
    assert outputs.exp().flatten().tolist() == pytest.approx([5 / 6, 1 / 6], abs=1e-12)


def test_improbable_classes_have_finite_log_probabilities() -> None:
    """Two of class 0 at cosine 1, one of class 1 at −1: log P(1) = −s − (s + log 2) = −20000 − log 2 for s = 10⁴."""
    support = given([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]], [0, 0, 1])
    outputs = outputs_of(Matching(scale=1e4), Given(2), {}, support, given([[1.0, 0.0]], [0]))
    assert outputs.flatten().tolist() == pytest.approx([0.0, -20000 - log(2)], abs=1e-9)


def test_the_order_of_the_support_set_matters_in_full_context_alone() -> None:
    model, support, query = Given(4, 3), random_given(2, 3, 2, 4, seed=0), random_given(2, 3, 1, 4, seed=1)
    order = [3, 0, 5, 1, 4, 2]
    for learner, theta, same in ((Matching(scale=3.0), {}, True), (FULL, context(model), False)):
        outputs = outputs_of(learner, model, theta, support, query)
        moved = outputs_of(learner, model, theta, take(support, order), query)
        assert torch.allclose(outputs, moved, rtol=0, atol=1e-12) is same


@pytest.mark.parametrize("at", [0, 3, 6])
@pytest.mark.parametrize("full", [False, True])
def test_support_examples_of_weight_0_are_ignored(full: bool, at: int) -> None:
    model, support, query = Given(4, 3), random_given(2, 3, 2, 4, seed=0), random_given(2, 3, 1, 4, seed=1)
    learner, theta = (FULL, context(model)) if full else (Matching(), {})
    outputs = outputs_of(learner, model, theta, support, query)
    padded = outputs_of(learner, model, theta, with_padding(support, at), query)
    torch.testing.assert_close(padded, outputs, rtol=0, atol=1e-12)


def test_two_examples_of_weight_a_half_are_read_as_one() -> None:
    """By the reader alone: the cells that read along the support set, and would meet both, are at their start."""
    model, support, query = Given(4, 3), random_given(2, 3, 2, 4, seed=0), random_given(2, 3, 1, 4, seed=1)
    start = FULL.init(model, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    theta = {**start, **{n: v for n, v in context(model).items() if "reader" in n}}
    twice = take(support, [0, 0, 1, 2, 3, 4, 5])
    twice.weights[:, :2] = 0.5
    outputs = outputs_of(FULL, model, theta, support, query)
    torch.testing.assert_close(outputs_of(FULL, model, theta, twice, query), outputs, rtol=0, atol=1e-12)


def test_full_context_starts_from_plain_attention() -> None:
    model, support, query = Given(4, 3), random_given(2, 3, 2, 4, seed=0), random_given(2, 3, 1, 4, seed=1)
    theta = FULL.init(model, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    assert {value.dtype for value in theta.values()} == {torch.float64}
    plain = outputs_of(replace(FULL, full_context=False), model, {}, support, query)
    torch.testing.assert_close(outputs_of(FULL, model, theta, support, query), plain, rtol=0, atol=0)
    again = FULL.init(model, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    assert all(torch.equal(theta[name], again[name]) for name in theta)


def reordered(value: Tensor) -> Tensor:
    """Our gates, input, forget, output, new, in torch's order: input, forget, new, output."""
    enter, keep, show, new = value.chunk(4)
    return torch.cat([enter, keep, new, show])


def test_full_context_embeddings_are_those_of_torchs_cells() -> None:
    """g by a bidirectional `nn.LSTM`; f by `nn.LSTMCell` that is fed [f′, h, r], one query at a time."""
    dim = 4
    model: Any = Given(dim, 3)
    support, query, theta = random_given(2, 3, 2, dim, seed=0), random_given(2, 3, 1, dim, seed=1), context(model)
    features = support.inputs["features"]
    lstm = nn.LSTM(dim, dim, bidirectional=True, batch_first=True).double()
    cell = nn.LSTMCell(3 * dim, dim).double()
    with torch.no_grad():
        for name, suffix in (("forward", ""), ("backward", "_reverse")):
            weight = reordered(theta[f"meta.context.{name}.weight"])
            getattr(lstm, f"weight_ih_l0{suffix}").copy_(weight[:, :dim])
            getattr(lstm, f"weight_hh_l0{suffix}").copy_(weight[:, dim:])
            getattr(lstm, f"bias_ih_l0{suffix}").copy_(reordered(theta[f"meta.context.{name}.bias"]))
            getattr(lstm, f"bias_hh_l0{suffix}").zero_()
        cell.weight_ih.copy_(reordered(theta["meta.context.reader.weight"]))
        cell.bias_ih.copy_(reordered(theta["meta.context.reader.bias"]))
        cell.weight_hh.zero_()
        cell.bias_hh.zero_()
        states, _ = lstm(features)
        keys = features + states[..., :dim] + states[..., dim:]
        torch.testing.assert_close(FULL.adapt(model, theta, support).stacked["keys"], keys)
        outputs = outputs_of(FULL, model, theta, support, query)
        for t in range(2):
            for q in range(3):
                first = query.inputs["features"][t, q]
                h, c = first, torch.zeros(dim, dtype=torch.float64)
                for _ in range(2):
                    attention = torch.softmax(keys[t] @ h, dim=0)
                    shown, c = cell(torch.cat([first, h, attention @ keys[t]]), (torch.zeros_like(c), c))
                    h = shown + first
                sizes = [exp(3.0 * float(torch.cosine_similarity(h, key, dim=0))) for key in keys[t]]
                expected = [sum(sizes[2 * n : 2 * n + 2]) / sum(sizes) for n in range(3)]
                assert outputs[t, q].exp().tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["mlp", "text_cnn"])
def test_the_gradient_in_full_context_is_the_derivative(name: str) -> None:
    model, episode = small_model(name), text_episode()
    theta = context(model)
    gradient, metrics = FULL.meta_gradient(model, theta, episode)

    def objective(moved: Params) -> Tensor:
        outputs = FULL.predict(model, FULL.adapt(model, moved, episode.support), episode.query.inputs)
        return TASK.loss(outputs, episode.query).sum()

    ours, theirs = slope(objective, theta, gradient)
    assert ours == pytest.approx(theirs, rel=2e-5)
    assert all(float(gradient[name].abs().max()) > 1e-9 for name in theta if name.startswith("meta."))
    assert torch.allclose(metrics["loss"].sum(), objective(theta))


def test_theta_has_no_head() -> None:
    model, generator = small_model("mlp"), torch.Generator()
    plain, full = Matching().init(model, generator), FULL.init(model, generator)
    assert set(plain) == {name for name in model.init() if name.startswith("body.")}
    cells = {f"meta.context.{cell}.{part}" for cell in ("forward", "backward", "reader") for part in ("weight", "bias")}
    assert set(full) == set(plain) | cells


def test_what_does_not_do_is_refused() -> None:
    model: Any = Given(2)
    with pytest.raises(ConfigError, match=r"algorithm\.context_steps: 3, but algorithm\.full_context is false; leave"):
        Matching(context_steps=3).check(model, 2)
    Matching(context_steps=3, full_context=True).check(model, 2)
    with pytest.raises(ConfigError, match=r"algorithm\.name.*classes"):
        Matching().check(without_classes(2), 1)
