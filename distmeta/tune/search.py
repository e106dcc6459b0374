"""Which settings the next trial has, from what the earlier ones have come to. Optuna proposes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from distmeta.config import RunConfig
from distmeta.tune.records import Trial
from distmeta.tune.space import Space, Values
from distmeta.types import Score

MOST = 100_000  # combinations of a grid that are looked at
STARTUP = 8  # trials at random before TPE learns from them
optuna.logging.set_verbosity(optuna.logging.WARNING)


def propose(config: RunConfig, space: Space, score: Score, trials: Sequence[Trial]) -> Values:
    """The settings of the trial after these: the same again for the same trials.

    The first has those of the file, where they lie in the space: what is found is then no worse than what there was, as
    far as meta-validation can tell. `tpe` is the tree-structured Parzen estimator of Bergstra et al. Algorithms for
    Hyper-Parameter Optimization. NIPS 2011. https://papers.nips.cc/paper/4443, in Optuna's form, which assumes a low
    score of trials that are still running.

    Args:
        config: with `tune`.
        space: of its keys.
        score: which scores are better.
        trials: all earlier ones.
    """
    assert config.tune is not None
    if config.tune.searcher == "grid":
        # Shuffled: neighbours are alike, and an early trial is compared with those before it. Of more combinations than
        # there are trials, some from all over the grid.
        every = list(itertools.islice(space.combinations(), MOST))
        return every[int(np.random.default_rng(config.seed).permutation(len(every))[len(trials)])]
    seed = int(np.random.SeedSequence([config.seed, len(trials)]).generate_state(1)[0])
    sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=seed)
    if config.tune.searcher == "tpe":
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=STARTUP)
    with_seconds = config.tune.objectives == "score and seconds"
    better = StudyDirection.MAXIMIZE if score.higher_is_better else StudyDirection.MINIMIZE
    directions = [better, StudyDirection.MINIMIZE] if with_seconds else [better]
    study = optuna.create_study(directions=directions, sampler=sampler)
    for trial in trials:
        asked, _ = _ask(study, space, trial.values)
        _tell(study, asked, trial, with_seconds)
    return _ask(study, space, next(itertools.islice(_fixed(space), len(trials), None)))[1]


def _fixed(space: Space) -> Iterator[Values]:
    """What is not left to Optuna: first all the settings of the file, then the values of grids in turn."""
    grids = [key for key, dimension in space.dimensions.items() if dimension.grid is not None]
    turns = itertools.cycle(space.combinations(grids))
    if start := space.start():
        next(turn for turn in turns if turn.items() <= start.items())
        yield start
    yield from turns


def _ask(study: optuna.Study, space: Space, fixed: Values) -> tuple[optuna.trial.Trial, Values]:
    listed = [key for key in fixed if space.dimensions[key].is_list]
    study.enqueue_trial({**fixed, **{key: json.dumps(fixed[key]) for key in listed}})
    asked = study.ask()
    return asked, space.draw(asked)


def _tell(study: optuna.Study, asked: optuna.trial.Trial, trial: Trial, with_seconds: bool) -> None:
    """What a trial has come to.

    One that pauses or was stopped counts as such with its scores so far. Beside its seconds they would say nothing, and
    neither does a failure: it is just not learned from.
    """
    if trial.status == "finished":
        last = trial.curve[-1]
        study.tell(asked, [last.score, last.seconds] if with_seconds else last.score)
    elif trial.status == "stopped" or (trial.is_idle and not trial.is_over):
        for point in trial.curve if not with_seconds else []:
            asked.report(point.score, point.step)
        study.tell(asked, state=TrialState.FAIL if with_seconds else TrialState.PRUNED)
    elif trial.status == "failed":
        study.tell(asked, state=TrialState.FAIL)
