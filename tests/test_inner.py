from typing import Any

import pytest
import torch
from torch import Tensor

from distmeta.inner import expand, gradient_descent
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
