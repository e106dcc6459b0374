"""A small labelled data set, and a run on it that takes seconds."""

import csv
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stores import store

from distmeta.config import RunConfig
from distmeta.config.load import override, validate
from distmeta.engine.interfaces import Evaluated, Evaluation, Work
from distmeta.engine.setup import RunSetup
from distmeta.report.progress import Reporter
from distmeta.runs import train as driver
from distmeta.runs.experiment import Experiment
from distmeta.types import Stream

CLASSES, TEXTS = 16, 8


def write_data(path: Path) -> Path:
    """Texts of 3 to 9 words; a class's texts share two words out of its own."""
    chance = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(CLASSES):
            for _ in range(TEXTS):
                common = [f"word{chance.randrange(30)}" for _ in range(chance.randint(1, 7))]
                writer.writerow([" ".join([f"topic{number}", *common, f"thing{number % 5}"]), f"class {number:02}"])
    return path


def toy_settings(folder: Path, **overrides: Any) -> dict[str, Any]:
    """Nested settings of a run in `folder`; overrides have dotted keys, with `__` for the dots."""
    if not (folder / "data.csv").exists():
        write_data(folder / "data.csv")
    content: dict[str, Any] = {
        "data": {
            "path": str(folder / "data.csv"),
            "splits": {"train": 0.5, "validation": 0.25, "test": 0.25},
            "cache": str(folder / "cache"),
        },
        "episodes": {"ways": 3, "shots": 2, "queries": 2},
        "model": {"name": "text_cnn", "embedding_size": 8, "filters": 4, "widths": [2], "min_count": 1},
        "algorithm": {"name": "maml"},
        "inner": {"lr": 0.1, "steps": 2},
        "outer": {"lr": 0.01, "steps": 5, "meta_batch_size": 5, "clip_norm": 1.0},
        "cluster": {"backend": "inprocess", "workers": 2, "tasks_per_unit": 2},
        "evaluation": {
            **{"episodes": 12, "shots": [1, 2], "queries": 2, "episodes_per_unit": 5},
            **{"curve_steps": 2, "curve_episodes": 6},
        },
        "checkpoint": {"every": 2},
        "tracking": {"uri": store(folder), "log_model": False},  # which takes a second
    }
    for key, value in overrides.items():
        *parents, last = key.split("__")
        section = content
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    return content


def toy_config(folder: Path, **overrides: Any) -> RunConfig:
    """A validated configuration."""
    return validate(override(toy_settings(folder, **overrides), []))


def evaluate(
    coordination: Any, work: Work, count: int, per_unit: int, first: int = 0, initial: bool = False
) -> dict[str, np.ndarray]:
    """The metrics of one evaluation, which is to come to some."""
    figures: list[Evaluated] = coordination.evaluate([Evaluation(work, first, count, per_unit, initial)])
    assert len(figures) == 1
    return figures[0].require()


def start_training(folder: Path, *words: str, command: str = "train") -> "subprocess.Popen[str]":
    """`distmeta train`, or another command, in a process group of its own, with `--json`."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    line = [sys.executable, "-m", "distmeta.cli", command, *words, "--json"]
    return subprocess.Popen(line, cwd=folder, start_new_session=True, **pipes)


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    """Waits until it exists, while the process runs."""
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


def training_stream(setup: RunSetup) -> Stream:
    """The meta-training episodes of the only family."""
    assert isinstance(setup.training.stream, Stream)
    return setup.training.stream


def evaluated(experiment: Experiment, split: str, shots: int) -> Stream:
    """The stream of classification episodes of a split that has so many shots."""
    (stream,) = (its for its in experiment.evaluated("classification", split) if its["shots"] == shots)
    return stream


def changed(stream: Stream, split: str | None = None, seed: int | None = None, **shape: Any) -> Stream:
    """A stream with another split, another seed, or other entries of its shape."""
    merged = {**dict(stream.shape), **shape}
    return Stream.of(stream.family, split or stream.split, stream.seed if seed is None else seed, **merged)


DROPOUT = {"model__dropout": 0.3}  # drawn from the episode's index, so it is the same anywhere


def run(folder: Path, name: str, **overrides: Any) -> dict[str, Any]:
    config = toy_config(folder, **{**DROPOUT, **overrides})
    return driver.train(config, folder / name, Reporter())


class Stopped(Exception):
    """Thrown in the middle of a run."""


def run_and_stop(folder: Path, monkeypatch: pytest.MonkeyPatch, **overrides: Any) -> Path:
    """A run that ends after step 3 of 5; its last checkpoint is of step 2."""
    step = Reporter.step

    def stop_after_3(self: Reporter, report: Any, total: int) -> None:
        step(self, report, total)
        if report.outer_step == 3:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "step", stop_after_3)
        with pytest.raises(Stopped):
            run(folder, "stopped", **overrides)
    assert max(p.name for p in (folder / "stopped" / "checkpoints").iterdir()) == "step-00000002"
    return folder / "stopped"
