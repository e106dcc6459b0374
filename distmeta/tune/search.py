"""Which settings the next trial has, from what the earlier ones have come to. Optuna proposes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

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


class Proposals:
    """Settings for trial after trial, learned from those that are over.

    The first are those of the file, where they lie in the space: what is found is then no worse than what there was, as
    far as meta-validation can tell.

    `tpe` is the tree-structured Parzen estimator of Bergstra et al. Algorithms for Hyper-Parameter Optimization. NIPS
    2011. https://papers.nips.cc/paper/4443, in Optuna's form, which assumes a low score of trials that are still
    running.

    Args:
        config: with `tune`.
        space: of its keys.
        score: which scores are better.
    """

    def __init__(self, config: RunConfig, space: Space, score: Score) -> None:
        assert config.tune is not None
        self.space, self.score = space, score
        self.with_seconds = config.tune.objectives == "score and seconds"
        sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=config.seed)
        if config.tune.searcher == "tpe":
            sampler = optuna.samplers.TPESampler(seed=config.seed, constant_liar=True, n_startup_trials=STARTUP)
        better = StudyDirection.MAXIMIZE if score.higher_is_better else StudyDirection.MINIMIZE
        directions = [better, StudyDirection.MINIMIZE] if self.with_seconds else [better]
        self.study = optuna.create_study(directions=directions, sampler=sampler)
        self._asked: dict[str, optuna.trial.Trial] = {}
        self._fixed = self._grid(config.seed) if config.tune.searcher == "grid" else self._starts()

    def next(self, name: str) -> Values:
        """The values of a new trial."""
        return self._ask(name, next(self._fixed))

    def again(self, trial: Trial) -> None:
        """Takes in a trial of an earlier process."""
        next(self._fixed, None)
        self._ask(trial.name, trial.values)
        if trial.is_over:
            self.tell(trial)

    def tell(self, trial: Trial) -> None:
        """A trial is over.

        One that was stopped early counts as such with its scores so far. Beside its seconds they would say nothing,
        and neither does a failure: it is just not learned from.
        """
        asked = self._asked.pop(trial.name)
        if trial.status == "finished":
            last = trial.curve[-1]
            self.study.tell(asked, [last.score, last.seconds] if self.with_seconds else last.score)
        elif trial.status == "stopped" and not self.with_seconds:
            for point in trial.curve:
                asked.report(point.score, point.step)
            self.study.tell(asked, state=TrialState.PRUNED)
        else:
            self.study.tell(asked, state=TrialState.FAIL)

    def _grid(self, seed: int) -> Iterator[Values]:
        """Shuffled: neighbours are alike, and stopping early compares a trial with those before it.

        Of more than there are trials, some from all over the grid.
        """
        every = list(itertools.islice(self.space.combinations(), MOST))
        return (every[place] for place in np.random.default_rng(seed).permutation(len(every)))

    def _starts(self) -> Iterator[Values]:
        """What is not left to Optuna: first all the settings of the file, then the values of grids in turn."""
        grids = [key for key, dimension in self.space.dimensions.items() if dimension.grid is not None]
        turns = itertools.cycle(self.space.combinations(grids))
        if start := self.space.start():
            next(turn for turn in turns if turn.items() <= start.items())
            yield start
        yield from turns

    def _ask(self, name: str, fixed: Values) -> Values:
        listed = [key for key in fixed if self.space.dimensions[key].is_list]
        self.study.enqueue_trial({**fixed, **{key: json.dumps(fixed[key]) for key in listed}})
        self._asked[name] = self.study.ask()
        return self.space.draw(self._asked[name])
