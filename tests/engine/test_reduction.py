"""Expected sums stand beside the assertions, worked out by hand."""

from typing import Any

import numpy as np
import pytest
from arrays import f32
from hypothesis import given, settings
from hypothesis import strategies as st

from distmeta.engine import reduction


def test_the_tree_splits_at_powers_of_two() -> None:
    """Seven leaves are ((0 1) (2 3)) ((4 5) 6), whole branches of one machine are taken together."""
    names = iter("abcdefg")
    single = reduction.fold(list(names), lambda _, start, __: start, lambda left, right: (left, right))
    assert single == (((0, 1), (2, 3)), ((4, 5), 6))
    nodes = ["x", "x", "x", "x", "x", "y", "y"]
    branches = reduction.fold(nodes, lambda *branch: branch, lambda left, right: (left, right))
    assert branches == (("x", 0, 4), ((("x", 4, 5), ("y", 5, 6)), ("y", 6, 7)))


def test_numbers_are_added_along_the_tree() -> None:
    """In float32 1e8 + 1 = 1e8: from left to right this is 0, along the tree (1e8 + 1) + (-1e8 + 3) = 0 too, but
    1 + 1e8 - 1e8 with the first two apart from the last is 0, and 3 and -1e8 make -99999997 ≈ -1e8 + 0."""
    sums = [reduction.add([(f32(x), 1.0) for x in row]) for row in ((1.0, 1e8, -1e8, 0.5), (1e8, -1e8, 1.0, 0.5))]
    assert [total.tolist() for total in sums] == [[0.0], [1.5]]


def test_weights_count() -> None:
    """2 · 0.5 + 3 = 4."""
    assert reduction.add([(f32(2.0), 0.5), (f32(3.0), 1.0)]).tolist() == [4.0]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=17), st.integers(0, 2**32 - 1), st.booleans())
def test_wherever_the_leaves_lie_the_sum_is_the_same_to_the_bit(nodes: list[int], seed: int, packed: bool) -> None:
    chance = np.random.default_rng(seed)
    values = [chance.standard_normal(5).astype(np.float32) * 10.0 ** chance.integers(-6, 6) for _ in nodes]
    leaves: list[Any] = [
        (reduction.pack(value.astype(np.float32)) if packed else value.astype(np.float32), 1 / (1 + n))
        for n, value in enumerate(values)
    ]
    total = reduction.fold([str(n) for n in nodes], lambda _, a, b: reduction.add(leaves[a:b]), np.add)
    assert np.array_equal(total, reduction.add(leaves))


@pytest.mark.parametrize(
    ("value", "packed"),
    [
        (1.0, 1.0),
        (1.00390625, 1.0),  # half-way between 1 and 1.0078125: to the even one
        (1.01171875, 1.015625),  # half-way between 1.0078125 and 1.015625
        (1.004, 1.0078125),
        (-3.14159, -3.140625),
        (0.0, 0.0),
        (1e-40, 9.99966e-41),  # below the normal numbers
    ],
)
def test_bfloat16_keeps_eight_bits(value: float, packed: float) -> None:
    kept = reduction.unpack(reduction.pack(f32(value)))
    assert kept.tolist() == pytest.approx([packed], rel=3e-3 if 0 < abs(value) < 1e-30 else 1e-7)


def test_bfloat16_rounds_to_the_nearest_even() -> None:
    """The same rounding by an independent route, on the bits, for every exponent."""
    chance = np.random.default_rng(0)
    values = (chance.standard_normal(10_000) * 10.0 ** chance.uniform(-37, 37, 10_000)).astype(np.float32)
    bits = values.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    assert np.array_equal(reduction.pack(values), rounded)
    assert reduction.pack(values).nbytes == values.nbytes // 2


def test_what_is_not_finite_stays_so_and_is_not_taken_for_a_number() -> None:
    """The largest float32 number is above the largest bfloat16; a NaN may have any bits."""
    odd = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000], np.uint32).view(np.float32)
    assert np.isnan(reduction.unpack(reduction.pack(odd))).all()
    assert reduction.unpack(reduction.pack(f32(3.4e38, -np.inf))).tolist() == [np.inf, -np.inf]


def test_what_cannot_be_written_to_is_unpacked() -> None:
    packed = reduction.pack(f32(1.0, -2.0))
    packed.flags.writeable = False
    assert reduction.unpack(packed).tolist() == [1.0, -2.0]
