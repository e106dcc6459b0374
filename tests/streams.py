"""A small data set of tasks that persist, and a run on a stream of them that takes seconds."""

import csv
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from toy import toy_config

from distmeta.config import RunConfig, StreamConfig
from distmeta.tasks.rounds import Schedule, cosines
from distmeta.types import Stream

STREAM: dict[str, Any] = {
    **{"data__task": "domain", "data__splits": {"train": 0.5, "validation": 0.25, "test": 0.25}},
    **{"episodes": {"ways": 2, "shots": 2, "queries": 2}, "evaluation__shots": [1, 2]},
    "stream": {
        **{"steps_per_task": 3, "tasks": 4, "recurrence": 0.5, "gap": 1, "drift": 0.5, "buffer": 2, "examples": 5},
        **{"replay": 0.4, "neighbours": 2, "episodes": 6},
    },
    **{"outer__steps": 12, "algorithm__name": "online", "outer__meta_batch_size": 5},
}


def write_tasks(path: Path, labels: tuple[str, ...] = ("0", "1"), examples: int = 40, domains: int = 8) -> Path:
    """Domains of two labels; a text has a word of its domain and one of its label."""
    chance = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "domain"])
        for domain in range(domains):
            for label in labels:
                for _ in range(examples):
                    common = [f"word{number}" for number in chance.integers(20, size=3)]
                    words = [f"domain{domain}", *common, f"mood{label}"] if chance.random() < 0.8 else common
                    writer.writerow([" ".join(words), label, f"d{domain}"])
    return path


def stream_config(folder: Path, **overrides: Any) -> RunConfig:
    if not (folder / "data.csv").exists():
        write_tasks(folder / "data.csv")
    return toy_config(folder, **{**deepcopy(STREAM), **overrides})


def visit(shape: tuple[int, int, int], seed: int = 0, neighbours: int = 0, round: int | None = None) -> Stream:
    """Episodes of (ways, shots, queries) of tasks that arrive in rounds: of training, or of a round's evaluation."""
    entries = dict(zip(("ways", "shots", "queries"), shape, strict=True)) | {"neighbours": neighbours}
    entries |= {} if round is None else {"round": round}
    return Stream.of("classification", "meta_train", seed, **entries)


# Unit vectors at 0, 60, 0 and 90 degrees: their cosines are 1, ½, 0 and √3/2.
POINTS = np.array([[1.0, 0.0], [0.5, 0.75**0.5], [1.0, 0.0], [0.0, 1.0]])


def settings(**values: Any) -> StreamConfig:
    return StreamConfig(**{"steps_per_task": 4, "tasks": 4, "buffer": 2, "temperature": 0.5, **values})


def schedule(**values: Any) -> Schedule:
    tasks = (("a", "b"), ("c", "d"), ("a", "b"), ("a", "e"))
    return Schedule(settings(**values), 0, tasks, cosines(POINTS, POINTS), np.repeat(np.arange(4), 8))
