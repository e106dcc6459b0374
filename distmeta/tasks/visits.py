"""Episodes of classification tasks that arrive in rounds (see `distmeta.tasks.rounds`)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from distmeta.config import RunConfig
from distmeta.data.corpus import Corpus
from distmeta.errors import DataError
from distmeta.protocols import Model
from distmeta.tasks.rounds import EPISODE, Schedule, Task, cosines, episode_sources, generator, round_tasks
from distmeta.types import Batch, Visit

if TYPE_CHECKING:
    from distmeta.tasks.classification import Classification


def arrange(config: RunConfig, kind: Classification, model: Model) -> Classification:
    """The same kind of tasks with a schedule of rounds. Driver only.

    Nodes of the graph are mean features under the model's starting values; no label enters into them. A round arrives
    with the texts of its first support, and is kept with all of its kept ones.

    Raises:
        UserError: the stream does not fit the data.
    """
    stream, shots = config.stream, config.episodes.shots
    persistent = None if kind.tasks is None else kind.tasks["meta_train"]
    tasks = round_tasks(config, persistent, kind.drawable("meta_train"))
    rounds = len(tasks)
    schedule = Schedule(stream, config.seed, tasks, np.zeros((rounds, rounds)), np.empty(0, np.int32))
    _check_rows(config, kind.corpus, schedule)
    if stream.neighbours or stream.replay:
        model.train(False)
        params, means = model.init(), []
        for round in range(rounds):
            rows = kept_rows(kind.corpus, schedule, round)
            with torch.no_grad():
                features = model.features(params, {}, kind.collate(rows.reshape(1, -1)))
            by_class = features.double().view(*rows.shape, -1).numpy()
            means.append([by_class[:, :shots].mean((0, 1)), by_class.mean((0, 1))])
        arriving, kept = np.array(means).swapaxes(0, 1)
        schedule = replace(schedule, similarity=cosines(arriving, kept))
    sources = episode_sources(stream, config.outer.meta_batch_size, schedule.similarity, config.seed)
    return replace(kind, schedule=replace(schedule, sources=sources))


def _check_rows(config: RunConfig, corpus: Corpus, schedule: Schedule) -> None:
    """Every class of every round has examples enough, to train on and held out."""
    stream, episodes, evaluation = config.stream, config.episodes, config.evaluation
    kept = stream.examples if stream.neighbours or stream.replay else 0
    needed = max(evaluation.shots) + evaluation.queries, max(episodes.shots + episodes.queries, kept)
    for round, task in enumerate(schedule.tasks):
        for name in task:
            found = tuple(len(part) for part in schedule.share(round, name, corpus.rows_of(name)))
            if found[0] < needed[0] or found[1] < needed[1]:
                counts = f"{found[0]} of {needed[0]} examples to evaluate on, and {found[1]} of {needed[1]} to train on"
                remedy = "lower stream.examples, shots, queries or stream.recurrence, or raise data.min_examples"
                raise DataError(f"class {name!r} in round {round} of the stream", counts, remedy)


def kept_rows(corpus: Corpus, schedule: Schedule, round: int) -> np.ndarray:
    """What is remembered of a round: (N, `stream.examples`) rows."""
    names, size = schedule.tasks[round], schedule.config.examples
    return np.stack([schedule.share(round, name, corpus.rows_of(name))[1][:size] for name in names])


def visit_rows(corpus: Corpus, schedule: Schedule, visit: Visit, index: int) -> tuple[Task, np.ndarray]:
    """Class names and rows (N, shots + queries) of an episode, drawn without replacement.

    An episode of an evaluation takes them from what is held out of the round; one of training from the rest of the
    round, or, if the round is over, from what is kept of it.
    """
    size, held_out = visit.shots + visit.queries, visit.round is not None
    now, round = _rounds(schedule, visit, index)
    chance = generator(visit.seed, EPISODE, index, round, held_out, visit.ways, visit.shots, visit.queries)
    if round < now:
        parts = list(kept_rows(corpus, schedule, round))
    else:
        shares = [schedule.share(round, name, corpus.rows_of(name)) for name in schedule.tasks[round]]
        parts = [held if held_out else rest for held, rest in shares]
    return schedule.tasks[round], np.stack([chance.choice(part, size, replace=False) for part in parts])


def with_memory(kind: Classification, visit: Visit, first_index: int, support: Batch, tokens: bool = True) -> Batch:
    """Puts what is kept of the nearest rounds in front of the support examples, with weight 0.

    The input `memory` (T, B) is an example's share in the warm start: its round's weight in the graph, and 0 for the
    support's own. Where fewer rounds are remembered, rows of weight 0 fill up.
    """
    schedule, corpus = kind.schedule, kind.corpus
    assert schedule is not None, "a visit to tasks without a schedule"
    rows, shares = [], []
    for index in range(first_index, first_index + len(support.targets)):
        now, round = _rounds(schedule, visit, index)
        edges = schedule.edges(now, round, visit.neighbours)
        missing = visit.neighbours - len(edges)
        rows.append([kept_rows(corpus, schedule, r) for r in [*(edge.round for edge in edges), *[round] * missing]])
        shares.append([*(edge.weight for edge in edges), *[0.0] * missing])
    tasks, count, ways, size = (kept := np.array(rows)).shape
    weights = torch.tensor(shares, dtype=support.weights.dtype).repeat_interleave(ways * size, dim=1)
    targets = torch.arange(ways).repeat_interleave(size).repeat(tasks, count)
    everything = np.concatenate([kept.reshape(tasks, -1), support.inputs["rows"].numpy()], axis=1)
    memory = torch.cat([weights, torch.zeros_like(support.weights)], dim=1)
    return Batch(
        {**kind.collate(everything, tokens), "memory": memory},
        torch.cat([targets, support.targets], dim=1),
        torch.cat([torch.zeros_like(weights), support.weights], dim=1),
    )


def _rounds(schedule: Schedule, visit: Visit, index: int) -> tuple[int, int]:
    """The round that goes on, and the one that the episode is of."""
    if visit.round is not None:
        return visit.round, visit.round
    return schedule.round_at(index), int(schedule.sources[index])
