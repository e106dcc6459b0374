"""Parts of a vector do to their numbers what the whole would, to the bit."""

from typing import Any

import numpy as np
import pytest

from distmeta.backends.shards import cuts
from distmeta.config import OuterConfig
from distmeta.engine import reduction
from distmeta.engine.shard import BLOCK, Shard

SIZE = 3 * BLOCK + 100


@pytest.mark.parametrize(
    ("size", "shards", "expected"),
    [(10, 4, []), (SIZE, 1, []), (SIZE, 2, [2 * BLOCK]), (SIZE, 3, [BLOCK, 2 * BLOCK]), (2 * BLOCK, 9, [BLOCK])],
)
def test_a_vector_is_cut_at_blocks(size: int, shards: int, expected: list[int]) -> None:
    assert cuts(size, shards) == expected


@pytest.mark.parametrize(
    "outer",
    [
        {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1},
        {"optimizer": "adam", "regularizer": "l2", "regularizer_weight": 0.1},
        {"optimizer": "adamw", "weight_decay": 0.1, "regularizer": "proximal", "regularizer_weight": 0.3},
        {"optimizer": "adam", "regularizer": "l1", "regularizer_weight": 0.1},
    ],
)
def test_parts_come_to_the_same_as_the_whole(outer: dict[str, Any]) -> None:
    chance = np.random.default_rng(0)
    start = chance.standard_normal(SIZE).astype(np.float32)
    mask = chance.random(SIZE) < 0.5
    config, ends = OuterConfig(**outer), cuts(SIZE, 3)
    whole = Shard(config, start, mask)
    parts = [Shard(config, *its) for its in zip(np.split(start, ends), np.split(mask, ends), strict=True)]
    for step in range(3):
        gradient = chance.standard_normal(SIZE).astype(np.float32)
        whole.take([(gradient, 1.0)], reduction.add)
        for part, its in zip(parts, np.split(gradient, ends), strict=True):
            part.take([(its, 1.0)], reduction.add)
        assert whole.squares(7) == [square for part in parts for square in part.squares(7)]
        for shard in (whole, *parts):
            assert shard.step(0.37, 0.01)
            if step == 1:
                shard.move_anchor()
    assert np.array_equal(whole.values, np.concatenate([part.values for part in parts]))
    arrays = [part.arrays() for part in parts]
    for name, array in whole.arrays().items():
        joined = np.concatenate([its[name] for its in arrays]) if array.ndim else arrays[0][name]
        assert np.array_equal(array, joined), name


def test_the_squares_are_those_of_the_mean_gradient() -> None:
    """(3² + 4²) / 5² = 1 in one block, and 10² / 5² = 4 in the next."""
    shard = Shard(OuterConfig(), np.zeros(BLOCK + 1, np.float32))
    gradient = np.zeros(BLOCK + 1, np.float32)
    gradient[[0, 7, BLOCK]] = 3, 4, 10
    shard.take([(gradient, 1.0)], reduction.add)
    assert shard.squares(5) == pytest.approx([1.0, 4.0])


@pytest.mark.parametrize(
    "outer", [{"optimizer": "sgd", "momentum": 0.9}, {"optimizer": "adam"}, {"optimizer": "adamw"}]
)
def test_a_step_is_undone_to_the_bit(outer: dict[str, Any]) -> None:
    """Whether it has moments yet or not; the anchor stays where it is."""
    shard = Shard(OuterConfig(**outer), np.ones(3, np.float32))
    for gradient in ([1.0, 2.0, 3.0], [0.5, 0.5, 0.5]):
        before = shard.arrays()
        shard.take([(np.array([1e30, 1, 1], np.float32), 1.0)], reduction.add)
        shard.squares(1)
        assert not shard.step(1.0, 1e30)
        shard.undo()
        after = shard.arrays()
        assert after.keys() == before.keys()
        assert all(np.array_equal(after[name], value) for name, value in before.items())
        shard.take([(np.array(gradient, np.float32), 1.0)], reduction.add)
        shard.squares(1)
        assert shard.step(1.0, 0.1)
