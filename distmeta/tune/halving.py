"""Asynchronous successive halving (ASHA): which of the paused trials is promoted.

Li et al. A System for Massively Parallel Hyperparameter Tuning. MLSys 2020. https://arxiv.org/abs/1810.05934,
algorithm 2. A trial pauses at each rung, that is, after a number of outer steps. It is promoted once it is among the
best of all trials that have reached the rung, one in `tune.reduction_factor`. It then continues from its checkpoint. If
no trial can be promoted, the next trial begins. (The schedulers of Ray Tune and the pruners of Optuna stop trials at a
rung for good. They must let the first trials run on, since there is nothing to compare them with.)
"""

from __future__ import annotations

from collections.abc import Sequence

from distmeta.config import RunConfig
from distmeta.tune.records import Trial
from distmeta.types import Score


def rungs(config: RunConfig) -> list[int]:
    """Outer steps after which trials pause."""
    assert config.tune is not None
    step, steps = config.tune.grace_steps or config.quarter, list[int]()
    while step < config.outer.steps:
        steps.append(step)
        step *= config.tune.reduction_factor
    return steps


def following(rungs: Sequence[int], step: int) -> int | None:
    """The first rung after `step`; None if only the end of the run follows."""
    return next((rung for rung in rungs if rung > step), None)


def promoted(trials: Sequence[Trial], rungs: Sequence[int], factor: int, score: Score) -> Trial | None:
    """The trial to promote, from the highest rung possible; None if no trial is good enough yet."""
    for rung in reversed(rungs):
        scores = [(score.sign * value, trial) for trial in trials if (value := trial.score_at(rung)) is not None]
        scores.sort(key=lambda pair: -pair[0])
        if ready := [trial for _, trial in scores[: len(scores) // factor] if trial.pauses_at(rung)]:
            return ready[0]
    return None


def foremost(trials: Sequence[Trial], rungs: Sequence[int], score: Score) -> Trial | None:
    """The best trial of the highest rung, if trials are too few for `promoted`; None once a trial has finished."""
    return None if any(trial.status == "finished" for trial in trials) else promoted(trials, rungs, 1, score)
