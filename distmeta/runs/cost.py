"""What a run will cost, from what one of its units cost. Pure arithmetic; `distmeta.runs.measure` measures.

A step's time is that of the rounds in which its units are done, of the update, and of what goes between processes.
Ranges are honest, not narrow: units differ in the lengths of their texts, workers share a machine's memory and caches,
and the learners that evaluation compares differ in what they do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

GIB = 2**30
TRAINING = (0.85, 1.4)  # the range of a training's time, beyond that of its units
EVALUATION = (0.4, 2.0)  # of an evaluation's: baselines may do less or more than the learner that was measured
# Measured on two cores: seconds around a call to workers, and how fast gradients and θ get from process to process.
RAY_CALL, RAY_BYTES_PER_SECOND = 0.03, 0.5e9
RAY_BYTES = 0.7 * GIB  # of a private Ray's own processes
PART = 0.4  # of a unit's memory, if only the top layers or adapters of an encoder are adapted
SHORTEST = 8  # tokens that a text may still have
COPIES = 8  # of θ at the server: θ, the first one, the sum, the mean, Adam's two moments, and two in flight


@dataclass(frozen=True)
class Measured:
    """What one process needed. Seconds are of the processor where it computes, which other programs do not change.

    `units` holds the seconds of units after the first; `busy` is how much longer they took on the clock. Bytes are
    those of the process: `base` before the first unit, `peak` at most in units of training and `evaluation_peak` in
    those of evaluation, `shared` of files that all processes of a machine have in common, `gpu` at most on the GPU (0:
    none). If not `exact`, the peaks are at least those of building the process too. `chunk` holds the seconds in which
    64 rows are encoded, where evaluation looks features up.
    """

    units: Sequence[float]
    busy: float
    update: float
    evaluation_unit: float
    chunk: float
    base: int
    peak: int
    evaluation_peak: int
    exact: bool
    shared: int
    gpu: int
    parameters: int

    @property
    def worker(self) -> int:
        """Bytes of a worker at most."""
        return max(self.peak, self.evaluation_peak)


@dataclass(frozen=True)
class Plan:
    """How much is to be done: `episodes` and `chunks` in all evaluations together."""

    steps: int
    units_per_step: int
    workers: int
    at_once: int  # workers that the processors have room for
    synchronous: bool
    ray: bool
    episodes: int
    episodes_per_unit: int
    chunks: int


class Range(NamedTuple):
    """The likely value, and a range that should hold it."""

    low: float
    likely: float
    high: float

    @property
    def rounded(self) -> list[float]:
        """Plain numbers for JSON."""
        return [round(value, 1) for value in self]


RAY_SECONDS = Range(5.0, 10.0, 30.0)  # until a private Ray and its workers are ready


class Cost(NamedTuple):
    """Seconds until workers are ready, of training and of evaluation, and bytes of all processes on one machine."""

    start: Range
    training: Range
    evaluation: Range
    memory: Range


def estimate(measured: Measured, plan: Plan) -> Cost:
    """The cost of a run."""
    at_once = max(1, min(plan.at_once, plan.workers))
    in_a_row = plan.units_per_step / at_once
    rounds = math.ceil(in_a_row) if plan.synchronous else in_a_row
    units = sorted(measured.units) or [0.0]
    middle, fastest, slowest = units[len(units) // 2], units[0], units[-1]

    sent = 4 * measured.parameters * (plan.units_per_step + at_once)  # gradients, and θ
    around = RAY_CALL + sent / RAY_BYTES_PER_SECOND if plan.ray else 0.0

    def training(unit: float) -> float:
        return plan.steps * (rounds * unit + measured.update + around)

    trained = Range(
        TRAINING[0] * training(fastest), training(middle), TRAINING[1] * training(slowest) * max(1.0, measured.busy)
    )
    call = RAY_CALL if plan.ray else 0.0
    count = plan.episodes / plan.episodes_per_unit
    likely = (count * (measured.evaluation_unit + call) + plan.chunks * (measured.chunk + call)) / at_once
    evaluated = Range(EVALUATION[0] * likely, likely, EVALUATION[1] * likely * max(1.0, measured.busy))
    return Cost(RAY_SECONDS if plan.ray else Range(0.0, 0.0, 0.0), trained, evaluated, _memory(measured, plan))


def _memory(measured: Measured, plan: Plan) -> Range:
    """Of the workers, the server and the driver; in one process of that alone."""
    parameters = 4 * COPIES * measured.parameters
    if not plan.ray:
        return Range(measured.worker, measured.worker + parameters, 1.2 * measured.worker + parameters)
    alone = plan.workers * measured.worker + 2 * measured.base + parameters + RAY_BYTES
    common = (plan.workers + 1) * measured.shared
    return Range(0.8 * (alone - common), alone - common, alone)


class Saver(NamedTuple):
    """A change of settings that saves memory: about these shares of a unit's own memory are left."""

    change: str
    training: float
    evaluation: float


@dataclass(frozen=True)
class Shape:
    """What decides a unit's memory, of the configuration and its algorithm."""

    tasks_per_unit: int
    inner_steps: int  # 0: the algorithm has none
    second_order: bool  # whether the meta-gradient goes through the inner steps, of the body too
    can_be_first_order: bool
    adapts_body: bool
    encoder: bool  # whether the body is a pretrained encoder with layers
    adapts_part: bool  # whether only some layers or adapters of the body are adapted
    max_length: int  # tokens; 0: the body reads no texts
    episodes_per_unit: int  # of evaluation


def savers(shape: Shape) -> list[Saver]:
    """The changes that apply, those that help training most first."""
    found, kept = [], shape.second_order and shape.adapts_body and shape.inner_steps > 1
    if kept and shape.can_be_first_order:
        found.append(Saver("set inner.first_order=true", 1 / shape.inner_steps, 1.0))
    if shape.tasks_per_unit > 1:
        found.append(Saver("set cluster.tasks_per_unit=1", 1 / shape.tasks_per_unit, 1.0))
    if kept:
        fewer = shape.inner_steps // 2
        found.append(Saver(f"set inner.steps={fewer}", fewer / shape.inner_steps, 1.0))
    if shape.adapts_body and shape.encoder and not shape.adapts_part:
        found.append(Saver("set inner.adapt=top:2, or model.lora_rank=4 and inner.adapt=lora", PART, PART))
    if shape.max_length >= 2 * SHORTEST:
        found.append(Saver(f"set data.max_length={shape.max_length // 2}", 0.5, 0.5))
    if shape.episodes_per_unit > 1:
        fewer = shape.episodes_per_unit // 2
        found.append(Saver(f"set evaluation.episodes_per_unit={fewer}", 1.0, fewer / shape.episodes_per_unit))
    return sorted(found, key=lambda saver: saver.training)


def advice(measured: Measured, plan: Plan, shape: Shape, limit: int) -> list[str]:
    """What to change so that the likely memory fits into `limit` bytes; empty if it does. What helps most comes first.

    Each change says what all processes together would need with it alone.
    """
    now = _memory(measured, plan).likely
    if now <= limit:
        return []

    def left(peak: int, share: float) -> int:
        return measured.base + round(share * max(0, peak - measured.base))

    changed = [
        (
            replace(
                measured,
                peak=left(measured.peak, saver.training),
                evaluation_peak=left(measured.evaluation_peak, saver.evaluation),
            ),
            plan,
            saver.change,
        )
        for saver in savers(shape)
    ]
    if plan.ray and plan.workers > 1:
        changed.append((measured, replace(plan, workers=1), "set cluster.workers=1"))
    found = [(_memory(their, its).likely, change) for their, its, change in changed]
    return [
        f"{change}: about {size(needed)} instead of {size(now)}" for needed, change in sorted(found) if needed < now
    ]


def size(count: float) -> str:
    """Bytes as text."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.0f} MiB"


def duration(seconds: float) -> str:
    """Seconds as text."""
    if seconds < 90:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
