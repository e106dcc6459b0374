"""Regression of sinusoids: a task is a curve y = A sin(x + φ), to be learned from a few of its points.

The benchmark of Chelsea Finn, Pieter Abbeel, Sergey Levine. Model-Agnostic Meta-Learning for Fast Adaptation of Deep
Networks. ICML 2017, §5.1. https://arxiv.org/abs/1703.03400
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import AfterValidator, FiniteFloat
from torch import Tensor

from distmeta.config import DataConfig, RunConfig
from distmeta.data.splits import SPLITS
from distmeta.errors import ConfigError
from distmeta.tasks.base import Loaded, Reader, Split, registry
from distmeta.types import Batch, Episode, Inputs, Metrics, Score, Stream

MANIFEST_FORMAT = 1


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] >= bounds[1]:
        raise ValueError("give a lower bound and a higher one")
    return bounds


Range = Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_ordered)]


@registry.register("sinusoid")
@dataclass(frozen=True, kw_only=True)
class SinusoidData:
    """What curves and points are drawn from, uniformly; the defaults are the paper's."""

    amplitude: Range = (0.1, 5.0)
    phase: Range = (0.0, math.pi)
    x: Range = (-5.0, 5.0)

    def load(self, config: RunConfig, model: Reader) -> Loaded:
        """Nothing is read: curves are made up as they are needed, apart from one another by their split.

        Raises:
            ConfigError: a key of the section `data` that is for tasks which are read.
        """
        for key in DataConfig.model_fields.keys() - {"kind"}:
            # Not `model_fields_set`: a run's own config.yaml gives every key.
            if getattr(config.data, key) != DataConfig.model_fields[key].get_default():
                remedy = "leave it out, or choose another data.kind"
                raise ConfigError(f"data.{key}", "sinusoid tasks are made up, not read", remedy)
        task, shape = Sinusoid(self), config.episodes
        streams = [Stream(split, 1, shape.shots, shape.queries, config.seed) for split in SPLITS]
        splits = {stream.split: Split((), 0, task.episode_at(stream, 0).name) for stream in streams}
        return Loaded(task, {"inputs": 1}, None, splits)


class Draw(NamedTuple):
    """One curve, and where its points lie: support (shots,) and query (queries,), float64."""

    amplitude: float
    phase: float
    support: np.ndarray
    query: np.ndarray

    @property
    def name(self) -> str:
        """The curve as people write it."""
        return f"y = {self.amplitude:.3f} sin(x + {self.phase:.3f})"


@dataclass(frozen=True)
class Sinusoid:
    """The task kind (see `distmeta.protocols.TaskKind`): inputs are `values` x (T, B, 1), targets y (T, B), float32."""

    ranges: SinusoidData
    score: ClassVar[Score] = Score("mse", is_share=False, higher_is_better=False)
    has_classes: ClassVar[bool] = False
    reads: ClassVar[str] = "numbers"
    classes: ClassVar[int] = 0

    @property
    def fingerprint(self) -> str:
        """Of the ranges."""
        text = json.dumps({"kind": "sinusoid", **asdict(self.ranges)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def episode_at(self, stream: Stream, index: int) -> Draw:
        """The episode of that index: the same on any machine, whatever was drawn before."""
        entropy = [stream.seed, SPLITS.index(stream.split), index, stream.ways, stream.shots, stream.queries]
        # PCG64 by name: numpy may change what default_rng stands for.
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
        amplitude, phase = generator.uniform(*self.ranges.amplitude), generator.uniform(*self.ranges.phase)
        points = generator.uniform(*self.ranges.x, size=stream.shots + stream.queries)
        return Draw(amplitude, phase, points[: stream.shots], points[stream.shots :])

    def episodes(self, stream: Stream, first_index: int, count: int, tokens: bool = True) -> Episode:
        """Stacks the T = `count` episodes from `first_index`; S = shots, Q = queries. There are no tokens."""
        draws = [self.episode_at(stream, index) for index in range(first_index, first_index + count)]
        support = self._batch(draws, np.stack([draw.support for draw in draws]))
        query = self._batch(draws, np.stack([draw.query for draw in draws]))
        return Episode(support, query, tuple((draw.name,) for draw in draws))

    def _batch(self, draws: list[Draw], points: np.ndarray) -> Batch:
        """The curves' values at points (T, B)."""
        amplitudes, phases = (np.array([[draw[i]] for draw in draws]) for i in (0, 1))
        targets = torch.from_numpy(amplitudes * np.sin(points + phases)).float()
        return Batch({"values": torch.from_numpy(points).float().unsqueeze(-1)}, targets, torch.ones(targets.shape))

    def rows(self, split: str) -> np.ndarray:
        """None, (0,): there is no corpus."""
        return np.zeros(0, np.int64)

    def collate(self, rows: np.ndarray, tokens: bool = True) -> Inputs:
        """Never has anything to do, since there are no rows."""
        raise IndexError("sinusoid tasks have no rows")

    def outputs(self, ways: int) -> int:
        """One: y."""
        return 1

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Weighted mean squared error of each task: outputs (T, B, 1) → (T,)."""
        errors = (outputs.squeeze(-1) - batch.targets).square()
        return (errors * batch.weights).sum(-1) / batch.weights.sum(-1)

    def metrics(self, outputs: Tensor, batch: Batch) -> Metrics:
        """`loss` and `mse` of each task, (T,) each, detached: one and the same, under the names of all task kinds."""
        error = self.loss(outputs.detach(), batch)
        return {"loss": error, "mse": error}

    def manifest(self, stream: Stream, episodes: int) -> dict[str, Any]:
        """The first `episodes` episodes as plain JSON: each curve, and x of its points."""
        draws = (self.episode_at(stream, index) for index in range(episodes))
        return {
            "format": MANIFEST_FORMAT,
            "kind": "sinusoid",
            "source": self.fingerprint,
            "stream": stream.to_json(),
            "episodes": [
                {
                    "amplitude": draw.amplitude,
                    "phase": draw.phase,
                    "support": draw.support.tolist(),
                    "query": draw.query.tolist(),
                }
                for draw in draws
            ],
        }
