"""Tasks that arrive one after another: the schedule of their rounds, and the graph of how alike they are.

The setting is that of Chelsea Finn, Aravind Rajeswaran, Sham Kakade, Sergey Levine. Online Meta-Learning. ICML 2019.
https://arxiv.org/abs/1902.08438

Axes: R rounds, E training episodes of all rounds together, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from distmeta.config import RunConfig, StreamConfig
from distmeta.errors import ConfigError
from distmeta.protocols import MetaLearner

Task = tuple[str, ...]  # class names, in label order
ORDER, POOL, ROWS, SOURCES, EPISODE = range(5)  # what random numbers are for


class Edge(NamedTuple):
    """An edge of the graph: to a remembered round. The weights of those chosen together add up to 1."""

    round: int
    weight: float


@dataclass(frozen=True, eq=False)
class Schedule:
    """Which task each round brings, which of its examples, and how alike the rounds are.

    A round is a node of the graph, also where its task has been there before: that it comes back is for the graph to
    notice. A class's examples are shared out to the rounds that bring it, so that it comes back with new ones.
    """

    config: StreamConfig
    seed: int
    tasks: tuple[Task, ...]  # (R,)
    similarity: np.ndarray  # (R, R) cosine of round t's first support to what is kept of round r
    sources: np.ndarray  # (E,) the round whose task each training episode is drawn from

    def round_at(self, index: int) -> int:
        """The round that goes on at a training episode."""
        return index * len(self.tasks) // len(self.sources)

    def buffer(self, now: int) -> range:
        """The rounds remembered while round `now` goes on: the latest before it."""
        return range(max(0, now - self.config.buffer), now)

    def edges(self, now: int, round: int, count: int) -> list[Edge]:
        """From `round` to the `count` most similar of the remembered rounds but itself, nearest first.

        None leads to a round that is less similar than `stream.min_similarity`.
        """
        similarity = self.similarity[round]
        among = [r for r in self.buffer(now) if r != round and similarity[r] >= self.config.min_similarity]
        return nearest(similarity, among, self.config, count)

    def share(self, round: int, name: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of a class's rows those that a round brings: the ones held out for evaluation, and the ones to train on."""
        visit, visits = (sum(name in task for task in tasks) for tasks in (self.tasks[:round], self.tasks))
        own = generator(self.seed, ROWS).permutation(rows)[visit::visits]
        cut = round_half_up(len(own) * self.config.held_out)
        return own[:cut], own[cut:]

    def title(self, round: int) -> str:
        """What people call a round's task: the name that its classes share, or all of them."""
        owners = {name.rpartition("/")[0] for name in self.tasks[round]}
        return owners.pop() if len(owners) == 1 and "" not in owners else ", ".join(self.tasks[round])


def generator(*entropy: int) -> np.random.Generator:
    """Random numbers by name of their algorithm: numpy may change what default_rng stands for."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


def round_half_up(value: float) -> int:
    """Python's own rounds half to even."""
    return int(value + 0.5)


def nearest(similarity: np.ndarray, among: Sequence[int], config: StreamConfig, count: int | None) -> list[Edge]:
    """The `count` (or all) rounds of `among` that are most similar, nearest first, with weights ∝ exp(s / temperature).

    Args:
        similarity: (R,), of which only the rounds `among` are looked at.
    """
    chosen = sorted(among, key=lambda r: (-similarity[r], r))[:count]
    if not chosen:
        return []
    scaled = similarity[chosen] / config.temperature
    weights = np.exp(scaled - scaled.max())
    return [Edge(r, float(w)) for r, w in zip(chosen, weights / weights.sum(), strict=True)]


def cosines(arriving: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """(R, D) and (R, D) → (R, R) cosines, row t for what arrives in round t."""
    unit = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (arriving, kept)]
    similarity: np.ndarray = unit[0] @ unit[1].T
    return similarity


def visit_order(config: StreamConfig, pool: int | None, seed: int) -> list[int]:
    """The task of each round, (R,), numbered as they are first met; a longer stream only adds to it.

    Args:
        config: with probability `recurrence` a round brings back one of the earlier tasks that have been away for `gap`
            rounds, if there are any; else a new one. When there is no new one left, an earlier one comes back.
        pool: how many tasks there are; None for any number.
        seed: of the order.
    """
    chance, order = generator(seed, ORDER), list[int]()
    for round in range(config.tasks):
        met = set(order)
        away = sorted(met.difference(order[max(0, round - config.gap) :]))
        exhausted = len(met) == pool
        back = bool(away) and (chance.random() < config.recurrence or exhausted)
        order.append(away[chance.integers(len(away))] if back else len(met))
    return order


def round_tasks(config: RunConfig, tasks: Sequence[Task] | None, classes: Sequence[str]) -> tuple[Task, ...]:
    """The classes of each round, (R,).

    Args:
        config: of the run.
        tasks: those of meta-training, met in a seeded order; None where tasks do not persist. Then each new one is a
            set of `episodes.ways` classes, drawn once and for all.
        classes: those of meta-training.

    Raises:
        ConfigError: more rounds than tasks to fill them.
    """
    stream, ways, seed = config.stream, config.episodes.ways, config.seed
    order = visit_order(stream, None if tasks is None else len(tasks), seed)
    if tasks is None:
        draws = [generator(seed, POOL, n).choice(len(classes), ways, replace=False) for n in range(max(order) + 1)]
        pool: list[Task] = [tuple(sorted(classes[i] for i in drawn)) for drawn in draws]
        return tuple(pool[n] for n in order)
    if stream.tasks > len(tasks) and not stream.recurrence:
        found = f"{stream.tasks}, and meta_train has {len(tasks)} tasks, of which none comes back"
        raise ConfigError("stream.tasks", found, "lower it, or set stream.recurrence")
    if max(order) >= len(tasks):
        found = f"{stream.gap}, and meta_train has {len(tasks)} tasks, all too recent to come back"
        raise ConfigError("stream.gap", found, f"set it to {len(tasks) - 1} or less, or lower stream.tasks")
    shuffled = generator(seed, POOL).permutation(len(tasks))
    return tuple(tasks[shuffled[n]] for n in order)


def episode_sources(config: StreamConfig, meta_batch_size: int, similarity: np.ndarray, seed: int) -> np.ndarray:
    """The round whose task each training episode is drawn from, (E,) with E = rounds · steps · meta-batch.

    In step s of K of a round, the last episodes of the meta-batch are replayed from remembered rounds, by their
    weights; each of the others is the next round's with probability `drift` · s / (K − 1), else the round's own.
    """
    steps, sources = config.steps_per_task, []
    for now in range(config.tasks):
        chance = generator(seed, SOURCES, now)
        kept = nearest(similarity[now], range(max(0, now - config.buffer), now), config, None)
        replayed = round_half_up(config.replay * meta_batch_size) if kept else 0
        for step in range(steps):
            share = config.drift * step / max(1, steps - 1) if now + 1 < config.tasks else 0.0
            sources.append(now + (chance.random(meta_batch_size - replayed) < share))
            if replayed:
                rounds, weights = zip(*kept, strict=True)
                sources.append(chance.choice(rounds, replayed, p=weights))
    return np.concatenate(sources).astype(np.int32)


def check_stream(config: RunConfig, learner: MetaLearner) -> None:
    """Refuses settings of a stream that do not go together.

    Raises:
        ConfigError: naming the key.
    """
    stream, name, batch = config.stream, config.algorithm.name, config.outer.meta_batch_size
    if not stream.steps_per_task:
        if learner.needs_rounds:
            found = f"0, but {name} is for tasks that arrive in rounds"
            raise ConfigError("stream.steps_per_task", found, "set it to the outer steps of a round, such as 20")
        return
    replayed, needed = round_half_up(stream.replay * batch), config.episodes.shots + config.episodes.queries
    total = stream.steps_per_task * stream.tasks
    for key, wrong, found, remedy in (
        ("outer.steps", config.outer.steps != total, f"{config.outer.steps}", f"a stream of that size has {total}"),
        (
            "cluster.max_staleness",
            config.cluster.max_staleness,
            "with a stream, whose rounds are in order",
            "leave it out",
        ),
        ("episodes.label_mixing", config.episodes.label_mixing, "mixed tasks with a stream", "leave it out"),
        (
            "algorithm.teacher",
            learner.has_teacher,
            "beside a stream",
            "leave out one of them",
        ),
        (
            "stream.replay",
            stream.replay and not learner.replays,
            f"{name} keeps nothing of earlier tasks",
            "set it to 0",
        ),
        (
            "stream.replay",
            stream.replay and replayed in (0, batch),
            f"{stream.replay:g} of {batch} episodes comes to {replayed}",
            "leave it out, change it, or set another outer.meta_batch_size",
        ),
        (
            "stream.examples",
            stream.replay and stream.examples < needed,
            f"{stream.examples} of a class, and an episode takes {needed}",
            f"set it to {needed} or more",
        ),
        (
            "stream.neighbours",
            stream.neighbours and not learner.starts_near,
            f"{name} starts from θ alone",
            "set it to 0",
        ),
        (
            "stream.neighbours",
            stream.neighbours > stream.buffer,
            f"{stream.neighbours} of {stream.buffer} remembered rounds",
            f"set it to {stream.buffer} or less, or raise stream.buffer",
        ),
    ):
        if wrong:
            raise ConfigError(key, found, remedy)
