from typing import Any

import pytest
import torch
from torch import Tensor

from distmeta.algorithms.inner import expand, gradient_descent
from distmeta.types import Params

RATE = 0.1

TARGETS = torch.tensor([1.0, -3.0], dtype=torch.float64)


def losses(point: Params) -> Tensor:
    return 0.5 * (point["x"] - TARGETS).square()


def descend(stacked: Params, steps: int, **options: Any) -> Params:
    """The last of the points."""
    *_, last = gradient_descent(losses, stacked, lambda name, step: RATE, steps, **options)
    return last


def start(requires_grad: bool = True) -> Params:
    return expand({"x": torch.tensor(2.0, dtype=torch.float64, requires_grad=requires_grad)}, ["x"], 2)


def test_each_task_descends_on_its_own_loss() -> None:
    """One step of rate 0.1 from 2: 2 − 0.1 · (2 − 1) and 2 − 0.1 · (2 + 3)."""
    with torch.no_grad():
        adapted = descend(start(), 1)
    assert adapted["x"].tolist() == pytest.approx([1.9, 1.5])
    assert not adapted["x"].requires_grad


@pytest.mark.parametrize(("first_order", "expected"), [(False, 2 * 0.9**3), (True, 2.0)])
def test_the_derivative_of_the_result(first_order: bool, expected: float) -> None:
    """x′ − t = 0.9³ (x − t) in each of two tasks; with constant inner gradients dx′/dx = 1."""
    x = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    adapted = descend(expand({"x": x}, ["x"], 2), 3, first_order=first_order)
    (gradient,) = torch.autograd.grad(adapted["x"].sum(), [x])
    assert float(gradient) == pytest.approx(expected)


def test_no_steps_change_nothing() -> None:
    assert descend(start(), 0)["x"].tolist() == [2.0, 2.0]


def test_a_start_without_gradient_can_be_adapted_in_meta_training() -> None:
    assert descend(start(requires_grad=False), 1)["x"].tolist() == pytest.approx([1.9, 1.5])


def test_the_rate_is_asked_for_by_name_and_step() -> None:
    """From 2 towards 1 at rates 0.1 and 0.5: 1 + 0.9 · 0.5 · (2 − 1)."""
    rates = {("x", 0): 0.1, ("x", 1): 0.5}
    *_, last = gradient_descent(losses, start(), lambda name, step: rates[name, step], 2)
    assert last["x"].tolist() == pytest.approx([1.45, -3 + 0.45 * 5])


def test_clipping_is_each_tasks_own() -> None:
    """The gradients are 1 and 5; at most 2 of each is taken: 2 − 0.1 · 1 and 2 − 0.1 · 2."""
    assert descend(start(), 1, clip_norm=2.0)["x"].tolist() == pytest.approx([1.9, 1.8])


@pytest.mark.parametrize(("first_order", "expected"), [(False, [0.9, 1.0]), (True, [1.0, 1.0])])
def test_the_derivative_goes_through_the_clipping(first_order: bool, expected: list[float]) -> None:
    """A clipped step is 2 whatever x, so dx′/dx = 1; with the scale 2/5 as a constant it would be 1 − 0.1 · 2/5."""
    x = torch.full((2,), 2.0, dtype=torch.float64, requires_grad=True)
    adapted = descend({"x": x}, 1, first_order=first_order, clip_norm=2.0)
    (gradient,) = torch.autograd.grad(adapted["x"].sum(), [x])
    assert gradient.tolist() == pytest.approx(expected)


def test_the_norm_is_over_all_parameters_of_a_task() -> None:
    """Gradients (3, 4) have norm 5; cut to 1 they are (0.6, 0.8)."""
    point = {"a": torch.zeros(1, 1), "b": torch.zeros(1)}
    (_, after) = gradient_descent(lambda p: 3 * p["a"].sum(1) + 4 * p["b"], point, lambda *_: 1.0, 1, clip_norm=1.0)
    assert (after["a"].item(), after["b"].item()) == pytest.approx((-0.6, -0.8))


def test_a_task_that_has_nothing_to_learn_keeps_a_derivative() -> None:
    """At x = t the gradient is 0, where the norm has no derivative; the step's is still 0.9."""
    x = TARGETS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(descend({"x": x}, 1, clip_norm=2.0)["x"].sum(), [x])
    assert gradient.tolist() == pytest.approx([0.9, 0.9])


def test_clipping_hides_no_divergence() -> None:
    adapted = descend({"x": torch.tensor([2.0, float("inf")], dtype=torch.float64)}, 1, clip_norm=2.0)
    assert adapted["x"][0].item() == pytest.approx(1.9)
    assert adapted["x"][1].isnan()
