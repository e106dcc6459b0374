"""The settings of the next trial, from the results of the earlier ones. Optuna proposes them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from distmeta.config import Dimension
from distmeta.tune.records import Trial
from distmeta.tune.space import Space, Values
from distmeta.types import Score

MOST = 100_000  # combinations of a grid that are considered at most
STARTUP = 8  # random trials before TPE learns from them
optuna.logging.set_verbosity(optuna.logging.WARNING)


def propose(space: Space, score: Score, trials: Sequence[Trial]) -> Values:
    """The settings of the next trial: always the same for the same earlier trials.

    The first trial has the settings of the file, if they lie in the space. So the winner is at least as good on
    meta-validation. `tpe` is the tree-structured Parzen estimator of Bergstra et al. Algorithms for Hyper-Parameter
    Optimization. NIPS 2011. https://papers.nips.cc/paper/4443, in Optuna's form, which assumes a bad score for running
    trials.

    Args:
        space: the study's space.
        score: says which scores are better.
        trials: all earlier ones.
    """
    turns = list(itertools.islice(space.combinations(), MOST))
    if space.tune.searcher == "grid":
        # Shuffled, because neighbours are alike, and an early trial is compared with those before it. If there are more
        # combinations than trials, the trials are spread over the grid.
        return turns[int(np.random.default_rng(space.seed).permutation(len(turns))[len(trials)])]
    seed = int(np.random.SeedSequence([space.seed, len(trials)]).generate_state(1)[0])
    sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=seed)
    if space.tune.searcher == "tpe":
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=STARTUP)
    with_seconds = space.tune.objectives == "score and seconds"
    directions = [direction(score), *([StudyDirection.MINIMIZE] if with_seconds else [])]
    study = optuna.create_study(directions=directions, sampler=sampler)
    for trial in trials:
        _tell(study, ask(study, space, trial.values)[0], trial, with_seconds)
    start = space.start()  # after it the combinations of grids take turns
    first = next((number for number, turn in enumerate(turns) if start and turn.items() <= start.items()), 0)
    fixed = start if start and not trials else turns[(first + len(trials)) % len(turns)]
    return ask(study, space, fixed)[1]


def direction(score: Score) -> StudyDirection:
    """The direction of an Optuna study."""
    return StudyDirection.MAXIMIZE if score.higher_is_better else StudyDirection.MINIMIZE


def ask(study: optuna.Study, space: Space, fixed: Values) -> tuple[optuna.trial.Trial, Values]:
    """A new trial of an Optuna study, and its values; those in `fixed` are not drawn."""
    lists = {key: json.dumps(value) for key, value in fixed.items() if space.dimensions[key].is_list}
    study.enqueue_trial(fixed | lists)
    trial = study.ask()
    return trial, next(space.assign(lambda key, dimension: [_suggest(trial, key, dimension)]))


def _suggest(trial: optuna.trial.Trial, key: str, dimension: Dimension) -> Any:
    if dimension.is_list:
        assert dimension.values is not None
        # As JSON: Optuna's categories are scalars, and a value may be a list or a section.
        return json.loads(trial.suggest_categorical(key, [json.dumps(value) for value in dimension.values]))
    assert dimension.ends is not None
    low, high = dimension.ends
    log = dimension.kind.startswith("log")
    if dimension.kind.endswith("int"):
        return trial.suggest_int(key, int(low), int(high), log=log)
    return trial.suggest_float(key, low, high, log=log)


def _tell(study: optuna.Study, own: optuna.trial.Trial, trial: Trial, with_seconds: bool) -> None:
    """Tells Optuna the result of a trial; `own` is Optuna's trial.

    A paused or stopped trial counts as pruned, with its scores so far. With two objectives Optuna cannot use pruned
    trials, and it never uses failed ones.
    """
    if trial.status == "finished":
        last = trial.curve[-1]
        study.tell(own, [last.score, last.seconds] if with_seconds else last.score)
    elif trial.status == "failed" or (trial.is_idle and with_seconds):
        study.tell(own, state=TrialState.FAIL)
    elif trial.is_idle:
        for point in trial.curve:
            own.report(point.score, point.step)
        study.tell(own, state=TrialState.PRUNED)
