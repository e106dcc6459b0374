"""What a run will cost: each figure is worked out by hand."""

from dataclasses import replace

import pytest

from distmeta.runs.cost import GIB, Measured, Plan, Shape, advice, duration, estimate, savers, size

MEASURED = Measured(
    units=[2.0, 1.0, 4.0],
    busy=1.0,
    update=0.5,
    evaluation_unit=3.0,
    chunk=0.25,
    base=1 * GIB,
    peak=5 * GIB,
    evaluation_peak=2 * GIB,
    exact=True,
    shared=GIB // 2,
    gpu=0,
    parameters=0,
)
PLAN = Plan(
    steps=10,
    units_per_step=3,
    workers=2,
    at_once=2,
    synchronous=True,
    ray=False,
    episodes=40,
    episodes_per_unit=10,
    chunks=8,
)
SHAPE = Shape(
    tasks_per_unit=2,
    inner_steps=5,
    second_order=True,
    can_be_first_order=True,
    adapts_body=True,
    encoder=True,
    adapts_part=False,
    max_length=64,
    episodes_per_unit=20,
)


def test_training_is_rounds_of_units_and_updates() -> None:
    """3 units on 2 workers are 2 rounds of 2 s each, with an update of ½ s: 4.5 s a step."""
    assert estimate(MEASURED, PLAN).training == pytest.approx((0.85 * 25, 45, 1.4 * 85))
    staggered = estimate(MEASURED, replace(PLAN, synchronous=False))
    assert staggered.training.likely == pytest.approx(10 * (1.5 * 2 + 0.5))
    crowded = estimate(MEASURED, replace(PLAN, at_once=1))
    assert crowded.training.likely == pytest.approx(10 * (3 * 2 + 0.5)), "two workers on one core take turns"


def test_ray_adds_calls_and_what_is_sent() -> None:
    """125 million parameters of 4 bytes, as 3 gradients and 2 copies of θ, are 2.5 GB: 5 s; and 0.03 s for the call."""
    ray = estimate(replace(MEASURED, parameters=125_000_000), replace(PLAN, ray=True))
    assert ray.training.likely == pytest.approx(10 * (4.5 + 5.03))
    assert ray.start.likely > 0
    assert estimate(MEASURED, PLAN).start.likely == 0


def test_evaluation_is_units_and_chunks() -> None:
    """4 units of 3 s and 8 chunks of ¼ s on two workers: 7 s."""
    assert estimate(MEASURED, PLAN).evaluation == pytest.approx((0.4 * 7, 7, 2 * 7))


def test_a_busy_machine_widens_the_range_only() -> None:
    quiet, busy = estimate(MEASURED, PLAN), estimate(replace(MEASURED, busy=2.0), PLAN)
    assert busy.training.likely == quiet.training.likely
    assert busy.training.high == 2 * quiet.training.high


def test_without_training_only_evaluation_takes_time() -> None:
    assert estimate(replace(MEASURED, units=[], update=0.0), replace(PLAN, steps=0)).training == (0, 0, 0)


def test_memory_of_all_processes() -> None:
    """Two workers of 5 GiB, server and driver of 1 GiB each, Ray's 0.7 GiB; common files count once of four times."""
    low, likely, high = estimate(MEASURED, replace(PLAN, ray=True)).memory
    assert high == pytest.approx(12.7 * GIB)
    assert likely == pytest.approx((12.7 - 1.5) * GIB)
    assert low == pytest.approx(0.8 * likely)
    alone = estimate(replace(MEASURED, parameters=GIB // 32), PLAN).memory
    assert alone.likely == 5 * GIB + 8 * 4 * GIB // 32, "one process, with eight times θ"
    larger = estimate(replace(MEASURED, evaluation_peak=6 * GIB), PLAN).memory
    assert larger.likely == 6 * GIB, "whichever needs more"


def test_what_helps_most_comes_first() -> None:
    """Of a unit's 4 GiB a fifth is left in first order, half with one task at a time, two fifths with two steps."""
    assert advice(MEASURED, PLAN, SHAPE, 5 * GIB) == []
    found = advice(MEASURED, PLAN, SHAPE, 4 * GIB)
    assert found == [
        "set inner.first_order=true: about 2.0 GiB instead of 5.0 GiB",
        "set inner.adapt=top:2, or model.lora_rank=4 and inner.adapt=lora: about 2.6 GiB instead of 5.0 GiB",
        "set inner.steps=2: about 2.6 GiB instead of 5.0 GiB",
        "set cluster.tasks_per_unit=1: about 3.0 GiB instead of 5.0 GiB",
        "set data.max_length=32: about 3.0 GiB instead of 5.0 GiB",
    ]
    on_ray = advice(MEASURED, replace(PLAN, ray=True), SHAPE, 8 * GIB)
    assert any(change.startswith("set cluster.workers=1") for change in on_ray)
    test_is_larger = replace(MEASURED, peak=2 * GIB, evaluation_peak=5 * GIB)
    changes = advice(test_is_larger, PLAN, SHAPE, 4 * GIB)
    assert "set evaluation.episodes_per_unit=10: about 3.0 GiB instead of 5.0 GiB" in changes
    assert not any("tasks_per_unit" in change for change in changes), "it would not help"


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ({"second_order": False}, ("inner.first_order", "inner.steps")),
        ({"adapts_body": False}, ("inner.first_order", "inner.steps", "inner.adapt")),
        ({"can_be_first_order": False}, ("inner.first_order",)),
        ({"inner_steps": 1}, ("inner.first_order", "inner.steps")),
        ({"tasks_per_unit": 1}, ("cluster.tasks_per_unit",)),
        ({"encoder": False}, ("inner.adapt",)),
        ({"adapts_part": True}, ("inner.adapt",)),
        ({"max_length": 0}, ("data.max_length",)),
        ({"episodes_per_unit": 1}, ("evaluation.episodes_per_unit",)),
    ],
)
def test_only_what_applies_is_proposed(change: dict[str, int], gone: tuple[str, ...]) -> None:
    keys = {saver.change.split()[1].partition("=")[0] for saver in savers(SHAPE)}
    left = {saver.change.split()[1].partition("=")[0] for saver in savers(replace(SHAPE, **change))}  # type: ignore[arg-type]
    assert keys - left == set(gone)


def test_figures_in_words() -> None:
    assert [size(count) for count in (2**20, 1.5 * GIB)] == ["1 MiB", "1.5 GiB"]
    assert [duration(seconds) for seconds in (0.1234, 75, 600, 7200)] == ["0.123 s", "75 s", "10 min", "2.0 h"]
