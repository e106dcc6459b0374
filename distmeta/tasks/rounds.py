"""Tasks that arrive one after another: the schedule of their rounds, and the graph of their similarity.

The setting of Chelsea Finn, Aravind Rajeswaran, Sham Kakade, Sergey Levine. Online Meta-Learning. ICML 2019.
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
ORDER, POOL, ROWS, SOURCES, EPISODE = range(5)  # purposes of random numbers, as part of their seed


class Edge(NamedTuple):
    """An edge of the graph to a remembered round. The weights of edges that are chosen together add up to 1."""

    round: int
    weight: float


@dataclass(frozen=True, eq=False)
class Schedule:
    """The task and the examples of each round, and the similarity of rounds.

    Each round is its own node of the graph, even if the task occurred before: only similarity shows that it is back.
    A class's examples are divided among the rounds with that class, so each round has new examples.
    """

    config: StreamConfig
    seed: int
    tasks: tuple[Task, ...]  # (R,)
    similarity: np.ndarray  # (R, R) cosine of round t's first support with the kept examples of round r
    sources: np.ndarray  # (E,) the round whose task each training episode is drawn from

    def round_at(self, index: int) -> int:
        """The current round at a training episode."""
        return index * len(self.tasks) // len(self.sources)

    def buffer(self, now: int) -> range:
        """The rounds remembered during round `now`: the latest before it."""
        return range(max(0, now - self.config.buffer), now)

    def edges(self, now: int, round: int, count: int) -> list[Edge]:
        """Edges from `round` to the `count` most similar other remembered rounds, nearest first.

        Rounds with a similarity below `stream.min_similarity` are left out.
        """
        similarity = self.similarity[round]
        among = [r for r in self.buffer(now) if r != round and similarity[r] >= self.config.min_similarity]
        return nearest(similarity, among, self.config, count)

    def share(self, round: int, name: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A class's rows in a round: those held out for evaluation, and those for training."""
        visit, visits = (sum(name in task for task in tasks) for tasks in (self.tasks[:round], self.tasks))
        own = generator(self.seed, ROWS).permutation(rows)[visit::visits]
        cut = round_half_up(len(own) * self.config.held_out)
        return own[:cut], own[cut:]

    def title(self, round: int) -> str:
        """A round's task as shown to users: the owner that all class names share, or all class names."""
        owners = {name.rpartition("/")[0] for name in self.tasks[round]}
        return owners.pop() if len(owners) == 1 and "" not in owners else ", ".join(self.tasks[round])


def generator(*entropy: int) -> np.random.Generator:
    """A generator with a fixed algorithm, because numpy may change the one of default_rng."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


def round_half_up(value: float) -> int:
    """Rounds half up. Python's `round` rounds half to even."""
    return int(value + 0.5)


def nearest(similarity: np.ndarray, among: Sequence[int], config: StreamConfig, count: int | None) -> list[Edge]:
    """Edges to the most similar rounds of `among`, nearest first, with weights ∝ exp(s / temperature).

    Args:
        similarity: (R,). Only the entries of `among` are used.
        among: rounds to choose from.
        config: for the temperature.
        count: number of edges, or None for all.
    """
    chosen = sorted(among, key=lambda r: (-similarity[r], r))[:count]
    if not chosen:
        return []
    scaled = similarity[chosen] / config.temperature
    weights = np.exp(scaled - scaled.max())
    return [Edge(r, float(w)) for r, w in zip(chosen, weights / weights.sum(), strict=True)]


def cosines(arriving: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """(R, D) and (R, D) → (R, R) cosines. Row t is for the features that arrive in round t."""
    unit = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (arriving, kept)]
    similarity: np.ndarray = unit[0] @ unit[1].T
    return similarity


def visit_order(config: StreamConfig, pool: int | None, seed: int) -> list[int]:
    """The task of each round, (R,), numbered by first occurrence. A longer stream only appends rounds.

    Args:
        config: with probability `recurrence`, a round has an earlier task that did not occur in the last `gap` rounds,
            if there is one. Otherwise it has a new task. If no new task is left, it has an earlier one.
        pool: number of tasks; None for no limit.
        seed: of the order.
    """
    chance, order = generator(seed, ORDER), list[int]()
    for round in range(config.tasks):
        earlier = set(order)
        away = sorted(earlier.difference(order[max(0, round - config.gap) :]))
        exhausted = len(earlier) == pool
        back = bool(away) and (chance.random() < config.recurrence or exhausted)
        order.append(away[chance.integers(len(away))] if back else len(earlier))
    return order


def round_tasks(config: RunConfig, tasks: Sequence[Task] | None, classes: Sequence[str]) -> tuple[Task, ...]:
    """The classes of each round, (R,).

    Args:
        config: of the run.
        tasks: of meta-training, used in a seeded order. If None, each new task is a fixed random set of `episodes.ways`
            classes.
        classes: of meta-training.

    Raises:
        ConfigError: there are too few tasks for the rounds.
    """
    stream, ways, seed = config.stream, config.episodes.ways, config.seed
    order = visit_order(stream, None if tasks is None else len(tasks), seed)
    if tasks is None:
        draws = [generator(seed, POOL, n).choice(len(classes), ways, replace=False) for n in range(max(order) + 1)]
        pool: list[Task] = [tuple(sorted(classes[i] for i in drawn)) for drawn in draws]
        return tuple(pool[n] for n in order)
    if stream.tasks > len(tasks) and not stream.recurrence:
        found = f"{stream.tasks}, but meta_train has {len(tasks)} tasks, and no task comes back"
        raise ConfigError("stream.tasks", found, "lower it, or set stream.recurrence")
    if max(order) >= len(tasks):
        found = f"{stream.gap}, but meta_train has {len(tasks)} tasks, all too recent to come back"
        raise ConfigError("stream.gap", found, f"set it to {len(tasks) - 1} or less, or lower stream.tasks")
    shuffled = generator(seed, POOL).permutation(len(tasks))
    return tuple(tasks[shuffled[n]] for n in order)


def episode_sources(config: StreamConfig, meta_batch_size: int, similarity: np.ndarray, seed: int) -> np.ndarray:
    """The round whose task each training episode is drawn from, (E,) with E = rounds · steps · meta-batch.

    In step s of a round's K steps, the last episodes of the meta-batch are replayed from remembered rounds, sampled by
    weight. Each other episode is from the next round with probability `drift` · s / (K − 1), else from this round.
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
    """Refuses stream settings that contradict each other.

    Raises:
        ConfigError: a setting is refused; the error names its key.
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
        ("outer.steps", config.outer.steps != total, f"{config.outer.steps}", f"set it to {total} for this stream"),
        (
            "cluster.max_staleness",
            config.cluster.max_staleness,
            "with a stream, whose rounds are in order",
            "leave it out",
        ),
        ("episodes.label_mixing", config.episodes.label_mixing, "mixed tasks with a stream", "leave it out"),
        ("episodes.unlabelled", config.episodes.unlabelled, "set together with a stream", "leave it out"),
        ("data.descriptions", config.data.descriptions, "set together with a stream", "leave it out"),
        (
            "algorithm.teacher",
            learner.has_teacher,
            "set together with a stream",
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
            f"{stream.replay:g} of {batch} episodes is {replayed}",
            "leave it out, change it, or set another outer.meta_batch_size",
        ),
        (
            "stream.examples",
            stream.replay and stream.examples < needed,
            f"{stream.examples} per class, but an episode needs {needed}",
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
