"""Draws classification tasks that arrive in rounds (see `distmeta.tasks.rounds`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from distmeta.config import EvaluationConfig, RunConfig
from distmeta.data.corpus import Corpus
from distmeta.errors import ConfigError, DataError
from distmeta.protocols import Model, TaskFamily
from distmeta.tasks.drawing import Classes, Draw, draw_rows
from distmeta.tasks.rounds import EPISODE, Schedule, cosines, episode_sources, generator, round_tasks
from distmeta.types import Stream

NEIGHBOURS, ROUND = "neighbours", "round"  # entries of a stream's shape


@dataclass(frozen=True)
class Visits:
    """A way of drawing: the tasks of meta-training arrive in rounds. Other episodes are drawn by `others`.

    Streams of the rounds have `neighbours` in their shape. With `round`, an episode evaluates that round on examples
    held out of training. Without it, the episode is for training, in the schedule's order. The draw's memory holds the
    kept examples of `neighbours` earlier rounds.
    """

    others: Classes
    schedule: Schedule

    def has_others(self, stream: Stream) -> bool:
        """As in `Classes`; a round has no others."""
        return stream.get(NEIGHBOURS) is None and self.others.has_others(stream)

    def draw(self, stream: Stream, index: int) -> Draw:
        """The episode of that index, drawn as by `draw_rows`.

        An evaluation episode takes the rows held out of the round. A training episode takes the other rows of the
        round, or the kept rows if the round is over.
        """
        if stream.get(NEIGHBOURS) is None:
            return self.others.draw(stream, index)
        corpus, schedule = self.others.corpus, self.schedule
        shots, queries = stream["shots"], stream["queries"]
        now, round = self._rounds(stream, index)
        held_out = stream.get(ROUND) is not None
        chance = generator(stream.seed, EPISODE, index, round, held_out, stream["ways"], shots, queries)
        if round < now:
            parts = list(kept_rows(corpus, schedule, round))
        else:
            shares = [schedule.share(round, name, corpus.rows_of(name)) for name in schedule.tasks[round]]
            parts = [held if held_out else rest for held, rest in shares]
        rows = np.stack(draw_rows(corpus, parts, [shots + queries] * len(parts), chance))
        memory = self._memory(now, round, stream[NEIGHBOURS]) if stream[NEIGHBOURS] else None
        return Draw(schedule.tasks[round], rows[:, :shots], rows[:, shots:], memory)

    def _memory(self, now: int, round: int, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
        """Kept rows (K, N, examples) of the K nearest rounds, and the rounds' weights in the graph, (K,).

        If fewer rounds are remembered, rows of weight 0 fill the rest.
        """
        edges = self.schedule.edges(now, round, neighbours)
        missing = neighbours - len(edges)
        rounds = [*(edge.round for edge in edges), *[round] * missing]
        rows = np.stack([kept_rows(self.others.corpus, self.schedule, r) for r in rounds])
        return rows, np.array([*(edge.weight for edge in edges), *[0.0] * missing])

    def _rounds(self, stream: Stream, index: int) -> tuple[int, int]:
        """The current round, and the round of the episode."""
        if (round := stream.get(ROUND)) is not None:
            return round, round
        return self.schedule.round_at(index), int(self.schedule.sources[index])


def arrange(config: RunConfig, family: Any, stream: Stream, model: Model) -> tuple[TaskFamily, Stream]:
    """A family whose tasks of meta-training arrive in rounds, and the stream of their episodes. Driver only.

    Nodes of the graph are mean features under the model's starting values, without labels. A round's node on arrival
    is the mean of its first support texts. As a remembered round, it is the mean of all its kept texts.

    Args:
        config: of the run.
        family: its attribute `drawing` is replaced in the copy.
        stream: of the family's meta-training episodes.
        model: computes features of texts.

    Raises:
        UserError: the stream cannot be used with the data.
    """
    drawing = getattr(family, "drawing", None)
    if not isinstance(drawing, Classes):
        raise ConfigError("data.kind", f"{family.kind} with a stream", "use classification")
    rounds, shots, corpus = config.stream, config.episodes.shots, drawing.corpus
    persistent = None if drawing.tasks is None else drawing.tasks["meta_train"]
    tasks = round_tasks(config, persistent, drawing.drawable("meta_train"))
    count = len(tasks)
    schedule = Schedule(rounds, config.seed, tasks, np.zeros((count, count)), np.empty(0, np.int32))
    _check_rows(config, corpus, schedule)
    if rounds.neighbours or rounds.replay:
        model.train(False)
        params, means = model.init(), []
        for round in range(count):
            rows = kept_rows(corpus, schedule, round)
            with torch.no_grad():
                features = model.features(params, {}, family.collate(rows.reshape(1, -1)))
            by_class = features.double().view(*rows.shape, -1).numpy()
            means.append([by_class[:, :shots].mean((0, 1)), by_class.mean((0, 1))])
        arriving, kept = np.array(means).swapaxes(0, 1)
        schedule = replace(schedule, similarity=cosines(arriving, kept))
    sources = episode_sources(rounds, config.outer.meta_batch_size, schedule.similarity, config.seed)
    visits = Visits(drawing, replace(schedule, sources=sources))
    return replace(family, drawing=visits), replace(stream, shape=(*stream.shape, (NEIGHBOURS, rounds.neighbours)))


def of_round(stream: Stream, round: int, shots: int, evaluation: EvaluationConfig, neighbours: int) -> Stream:
    """The stream that evaluates a round. `stream` comes from `arrange`."""
    shape = {"ways": stream["ways"], "shots": shots, "queries": evaluation.queries}
    return Stream.of(stream.family, stream.split, evaluation.seed, **shape, **{NEIGHBOURS: neighbours, ROUND: round})


def schedule_of(family: Any) -> Schedule:
    """The schedule of a family that `arrange` returned."""
    assert isinstance(family.drawing, Visits), "a family whose tasks do not arrive in rounds"
    return family.drawing.schedule


def _check_rows(config: RunConfig, corpus: Corpus, schedule: Schedule) -> None:
    """Checks that each class of each round has enough examples for training and for evaluation."""
    stream, episodes, evaluation = config.stream, config.episodes, config.evaluation
    kept = stream.examples if stream.neighbours or stream.replay else 0
    needed = max(evaluation.shots) + evaluation.queries, max(episodes.shots + episodes.queries, kept)
    for round, task in enumerate(schedule.tasks):
        for name in task:
            found = tuple(len(part) for part in schedule.share(round, name, corpus.rows_of(name)))
            if found[0] < needed[0] or found[1] < needed[1]:
                counts = f"{found[0]} of {needed[0]} examples to evaluate on, and {found[1]} of {needed[1]} to train on"
                counts += ", without the rows that were left out in reading" if corpus.numbers is not None else ""
                remedy = "lower stream.examples, shots, queries or stream.recurrence, or raise data.min_examples"
                raise DataError(f"class {name!r} in round {round} of the stream", counts, remedy)


def kept_rows(corpus: Corpus, schedule: Schedule, round: int) -> np.ndarray:
    """The remembered rows of a round, (N, `stream.examples`)."""
    names, size = schedule.tasks[round], schedule.config.examples
    return np.stack([schedule.share(round, name, corpus.rows_of(name))[1][:size] for name in names])
