"""Successive halving without waiting (ASHA): which of the trials that pause at a rung goes on.

Li et al. A System for Massively Parallel Hyperparameter Tuning. MLSys 2020. https://arxiv.org/abs/1810.05934,
algorithm 2. A trial pauses at each rung, that is, after so many outer steps, and goes on from its checkpoint once it is
among the best of all that have come there, one of `tune.reduction_factor`. Where none is, the next trial begins. (What
stops trials at a rung for good must let the first ones run on, since there is nothing to compare them with.)
"""

from __future__ import annotations

from collections.abc import Sequence

from distmeta.config import RunConfig
from distmeta.tune.records import Trial
from distmeta.types import Score


def rungs(config: RunConfig) -> list[int]:
    """Outer steps after which trials pause."""
    assert config.tune is not None
    step, found = config.tune.grace_steps or config.quarter, list[int]()
    while step < config.outer.steps:
        found.append(step)
        step *= config.tune.reduction_factor
    return found


def following(rungs: Sequence[int], step: int) -> int | None:
    """The rung after that of `step`; None for the end of the run."""
    return next((rung for rung in rungs if rung > step), None)


def promoted(trials: Sequence[Trial], rungs: Sequence[int], factor: int, score: Score) -> Trial | None:
    """The trial that goes on, from the highest rung where one does; None where none is good enough yet."""
    for rung in reversed(rungs):
        there = _ranked(trials, rung, score)
        if ready := [trial for trial in there[: len(there) // factor] if trial.pauses_at(rung)]:
            return ready[0]
    return None


def foremost(trials: Sequence[Trial], rungs: Sequence[int], score: Score) -> Trial | None:
    """The best trial of the highest rung, which goes on though the trials are too few to choose among.

    None once a trial has come to its end.
    """
    if any(trial.status == "finished" for trial in trials):
        return None
    for rung in reversed(rungs):
        if ready := [trial for trial in _ranked(trials, rung, score) if trial.pauses_at(rung)]:
            return ready[0]
    return None


def _ranked(trials: Sequence[Trial], rung: int, score: Score) -> list[Trial]:
    """Trials that have come to a rung, the best first."""
    there = [(value, trial) for trial in trials if (value := trial.score_at(rung)) is not None]
    return [trial for _, trial in sorted(there, key=lambda its: -score.sign * its[0])]
