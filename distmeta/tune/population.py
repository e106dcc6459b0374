"""Population-based training: trials whose settings change while they run, in rounds.

Jaderberg et al. Population Based Training of Neural Networks. 2017. https://arxiv.org/abs/1711.09846. After each round
each trial of the lowest quarter continues from the state of a trial of the highest quarter, with that trial's settings
perturbed. All trials wait for each other, so that it does not matter how many of them run at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from distmeta.config import Dimension, RunConfig
from distmeta.engine.params import Layout
from distmeta.errors import ConfigError
from distmeta.runs.experiment import Experiment
from distmeta.runs.settings import make_learner
from distmeta.runs.starting import starting_values
from distmeta.tune.records import Move, Trial
from distmeta.tune.space import Space, Values, shown
from distmeta.types import Params, Score

SAMPLES = 20  # of the space, whose layouts of θ are compared
QUARTER = 0.25
RESAMPLED = 0.25  # probability that a value is drawn anew
FACTORS = (0.8, 1.2)  # one of them multiplies a number that is not drawn anew
# Keys and sections that decide the layout of θ or its optimiser, or the data.
SHAPES = {
    *("outer.steps", "outer.optimizer", "inner.adapt", "inner.learn_lr", "algorithm.name", "episodes.ways"),
    *("seed", "model", "algorithm", "inner", "outer", "episodes", "data", "stream"),
}


def rounds(config: RunConfig) -> list[int]:
    """The outer steps after which the trials are compared; the last is the end of the run.

    Raises:
        ConfigError: a key cannot change during a run, or a round does not end with a meta-validation.
    """
    assert config.tune is not None
    for key in config.tune.space:
        if key in SHAPES or key.split(".")[0] in ("model", "data", "stream"):
            remedy = "search it with another tune.scheduler"
            raise ConfigError(f"tune.space.{key}", "cannot change in the middle of a run, which pbt would do", remedy)
    if config.tune.trials < 1 / QUARTER:
        raise ConfigError("tune.trials", f"{config.tune.trials}, of which pbt moves a quarter", "give 4 or more")
    steps, every = config.outer.steps, config.evaluation.validation_every
    length = config.tune.perturb_steps or config.quarter
    if length % every:
        found = f"{length}, but trials are validated every {every} outer steps"
        raise ConfigError("tune.perturb_steps", found, "give a multiple of evaluation.validation_every")
    return [*range(length, steps, length), steps]


def require_one_layout(space: Space, experiment: Experiment) -> None:
    """Refuses a space that changes the layout of θ, such as numbers of inner steps if each step has learned rates.

    Raises:
        ConfigError: the space has such values; the message gives them.
    """
    for values in itertools.islice(space.samples(), SAMPLES):
        learner = make_learner(space.config(values))
        theta: Params = {}
        for model in experiment.models.values():
            theta |= starting_values(learner, model, 0)
        if Layout.of(theta) != experiment.setup.layout:
            found = f"pbt moves trials in the middle of a run, and the meta-parameters differ with {shown(values)}"
            remedy = "take out the key that changes them, or use another tune.scheduler"
            raise ConfigError("tune.space", found, remedy)


def move(trials: Sequence[Trial], step: int, score: Score, space: Space) -> list[Trial]:
    """The trials that continue from another trial after the round that ended with `step`, each with its move added.

    Always the same for the same trials, even if some moves are already recorded, or a trial failed after the round.
    """
    chance = np.random.default_rng([space.seed, step])
    scores = [(score.sign * value, trial) for trial in trials if (value := trial.score_at(step)) is not None]
    ranked = [trial for _, trial in sorted(scores, key=lambda pair: pair[0])]
    count = int(QUARTER * len(ranked))
    moved = []
    for trial in ranked[:count]:
        origin = ranked[len(ranked) - 1 - int(chance.integers(count))]
        values = perturbed(origin.values, space, chance)
        if trial.status != "failed" and not any(recorded.step == step for recorded in trial.moves):
            trial.moves.append(Move(step, origin.name, trial.values))
            trial.values = values
            moved.append(trial)
    return moved


def perturbed(values: Values, space: Space, chance: np.random.Generator) -> Values:
    """Perturbed values: numbers are multiplied by a factor, within their range, and some values are drawn anew."""

    def near(key: str, dimension: Dimension) -> list[Any]:
        if key not in values or chance.random() < RESAMPLED:
            return [dimension.draw(chance)]
        return [values[key] if dimension.is_list else _near(values[key], dimension, chance)]

    return next(space.assign(near))


def _near(value: float, dimension: Dimension, chance: np.random.Generator) -> float:
    assert dimension.ends is not None
    low, high = dimension.ends
    number = value * float(chance.choice(FACTORS))
    if dimension.kind.endswith("int"):
        number = round(number) if round(number) != value else value + int(chance.choice([-1, 1]))
    return min(max(number, low), high)
