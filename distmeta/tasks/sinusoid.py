"""Regression of sinusoids: a task is a curve y = A sin(x + φ), learned from a few points.

The benchmark of Chelsea Finn, Pieter Abbeel, Sergey Levine. Model-Agnostic Meta-Learning for Fast Adaptation of Deep
Networks. ICML 2017, §5.1. https://arxiv.org/abs/1703.03400
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import AfterValidator, FiniteFloat
from tokenizers import Tokenizer
from torch import Tensor

from distmeta.config import DataConfig, RunConfig, Section
from distmeta.data.splits import SPLITS
from distmeta.errors import ConfigError, DataError
from distmeta.protocols import Example, Prediction
from distmeta.tasks.base import Family, Loaded, Split, registry, weighted_mean
from distmeta.types import Batch, Episode, HeadSpec, Inputs, Score, Statistics, Stream


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] >= bounds[1]:
        raise ValueError("give a lower bound and a higher one")
    return bounds


Range = Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_ordered)]


@registry.register("sinusoid")
@dataclass(frozen=True, kw_only=True)
class SinusoidData:
    """Ranges of curves and points, drawn uniformly. The defaults are the paper's."""

    amplitude: Range = (0.1, 5.0)
    phase: Range = (0.0, math.pi)
    x: Range = (-5.0, 5.0)

    def read(self, name: str, config: RunConfig) -> Curves:
        """Reads nothing: curves are generated when needed, with other random numbers in each split.

        Raises:
            ConfigError: a key is set that needs data files or classes.
        """
        for key in DataConfig.model_fields.keys() - {"kind"}:
            if _is_set(config.data, key):
                remedy = "leave it out, or choose another data.kind"
                raise ConfigError(f"data.{key}", "sinusoid tasks are made up, not read", remedy)
        classes = [("episodes", key) for key in ("ways", "label_shuffle", "label_mixing", "only")]
        for section, key in (*classes, ("evaluation", "ways")):
            if _is_set(getattr(config, section), key):
                value = getattr(getattr(config, section), key)
                raise ConfigError(f"{section}.{key}", f"{value}, but sinusoid tasks have no classes", "leave it out")
        return Curves(Sinusoid(self, name), config)

    def codec(self, name: str, settings: Mapping[str, Any], tokenizer: Tokenizer | None) -> PointCodec:
        """The codec of a learner without data."""
        return PointCodec(name)


@dataclass(frozen=True)
class Curves:
    """Generated curves (see `distmeta.tasks.base.Examples`)."""

    family: Sinusoid
    config: RunConfig
    reads: str = "numbers"
    architecture: dict[str, Any] = field(default_factory=lambda: {"inputs": 1})

    def texts(self) -> Iterator[str]:
        """None."""
        return iter(())

    def load(self, tokenizer: Tokenizer | None, architecture: Mapping[str, Any]) -> Loaded:
        """The family, and the shapes of its episodes."""
        config, name = self.config, self.family.name
        queries = config.evaluation.queries

        def evaluated(split: str, shots: int) -> Stream:
            return Stream.of(name, split, config.evaluation.seed, shots=shots, queries=queries)

        shape = {"shots": config.episodes.shots, "queries": config.episodes.queries}
        streams = {
            "meta_train": [Stream.of(name, "meta_train", config.seed, **shape)],
            "meta_validation": [evaluated("meta_validation", config.validation_shots)],
            "meta_test": [evaluated("meta_test", shots) for shots in config.evaluation.shots],
        }
        samples = {split: self.family.draw(Stream.of(name, split, config.seed, **shape), 0) for split in SPLITS}
        return Loaded(self.family, {split: Split((), 0, draw.curve) for split, draw in samples.items()}, streams)


def _is_set(section: Section, key: str) -> bool:
    """Whether a key differs from its default. A run's config.yaml holds defaults too."""
    default = type(section).model_fields[key].get_default(call_default_factory=True)
    return bool(getattr(section, key) != default)


class Draw(NamedTuple):
    """One curve, and the x of its points: support (shots,) and query (queries,), float64."""

    amplitude: float
    phase: float
    support: np.ndarray
    query: np.ndarray

    @property
    def curve(self) -> str:
        """The curve's formula."""
        return f"y = {self.amplitude:.3f} sin(x + {self.phase:.3f})"

    @property
    def names(self) -> tuple[str, ...]:
        """The curve's formula, which the targets are values of."""
        return (self.curve,)


class CurveScoring(Family):
    """Scores outputs whose targets are numbers."""

    kind: ClassVar[str] = "sinusoid"
    score: ClassVar[Score] = Score("mse", is_share=False, higher_is_better=False)
    head: ClassVar[HeadSpec] = HeadSpec("text")
    has_classes: ClassVar[bool] = False
    reads: ClassVar[str] = "numbers"
    classes: ClassVar[int] = 0

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Weighted mean squared error of each task: outputs (T, E, 1) → (T,)."""
        return weighted_mean((outputs.squeeze(-1) - batch.targets).square(), batch.weights)

    def statistics(self, outputs: Tensor, batch: Batch) -> Statistics:
        """Sums over the points of each task, (T,) each: squared `error` and `weight`."""
        total = batch.weights.double().sum(-1)
        return {"error": self.loss(outputs, batch) * total, "weight": total}

    def figures(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """`loss` and `mse`, the same number: all families have `loss`."""
        error = float(statistics["error"].sum()) / float(statistics["weight"].sum())
        return {"loss": error, "mse": error}


@dataclass(frozen=True)
class Sinusoid(CurveScoring):
    """The task family (see `distmeta.protocols.TaskFamily`): inputs `values` x (T, E, 1), targets y (T, E), float32."""

    ranges: SinusoidData
    name: str = "sinusoid"

    @property
    def fingerprint(self) -> str:
        """Hash of the ranges."""
        text = json.dumps({"kind": "sinusoid", **asdict(self.ranges)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def source(self) -> str:
        """Hash of the ranges."""
        return self.fingerprint

    def draw(self, stream: Stream, index: int) -> Draw:
        """The episode of that index. It is the same on any machine and independent of earlier draws."""
        # The 1 is in the place of the ways of other tasks.
        entropy = [stream.seed, SPLITS.index(stream.split), index, 1, stream["shots"], stream["queries"]]
        # PCG64 by name, because numpy may change the algorithm of default_rng.
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
        amplitude, phase = generator.uniform(*self.ranges.amplitude), generator.uniform(*self.ranges.phase)
        points = generator.uniform(*self.ranges.x, size=stream["shots"] + stream["queries"])
        return Draw(amplitude, phase, points[: stream["shots"]], points[stream["shots"] :])

    def batch(self, draws: Sequence[Draw], tokens: bool = True) -> Episode:
        """Stacks T draws; S = shots, Q = queries."""
        support = self._batch(draws, np.stack([draw.support for draw in draws]))
        query = self._batch(draws, np.stack([draw.query for draw in draws]))
        return Episode(self.name, support, query, tuple(draw.names for draw in draws))

    def _batch(self, draws: Sequence[Draw], points: np.ndarray) -> Batch:
        """The curves' values at points (T, E)."""
        amplitudes, phases = (np.array([[draw[i]] for draw in draws]) for i in (0, 1))
        targets = torch.from_numpy(amplitudes * np.sin(points + phases)).float()
        return Batch({"values": torch.from_numpy(points).float().unsqueeze(-1)}, targets, torch.ones(targets.shape), 1)

    def to_json(self, draw: Draw) -> dict[str, Any]:
        """The curve, and the x of its points."""
        points = {"support": draw.support.tolist(), "query": draw.query.tolist()}
        return {"amplitude": draw.amplitude, "phase": draw.phase, **points}

    def rows(self, split: str) -> np.ndarray:
        """No rows, (0,): there is no corpus."""
        return np.zeros(0, np.int64)

    def collate(self, rows: np.ndarray) -> Inputs:
        """Always fails, because there are no rows.

        Raises:
            IndexError: always."""
        raise IndexError("sinusoid tasks have no rows")

    def outputs(self, stream: Stream) -> int:
        """One: y."""
        return 1

    def describe(self, shape: Mapping[str, Any]) -> str:
        """For example 10-shot."""
        return f"{shape['shots']}-shot"

    def codec_settings(self) -> dict[str, Any]:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class PointCodec(CurveScoring):
    """Converts users' points (see `distmeta.protocols.Codec`): ``{"x": …, "y": …}``."""

    given: ClassVar[tuple[str, ...]] = ("x",)
    answer: ClassVar[str] = "y"
    samples: ClassVar[tuple[Example, ...]] = ({"x": -1.5, "y": -2.0}, {"x": 0.0, "y": 0.1}, {"x": 1.5, "y": 2.0})
    max_length: ClassVar[int] = 0

    name: str

    def cut(self, examples: Sequence[Example]) -> int:
        """None: points have no length."""
        return 0

    def names(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """The coordinate that is predicted."""
        return ("y",)

    def encode(self, examples: Sequence[Example], names: Sequence[str], first: int = 1) -> Batch:
        """One curve. Points without y have weight 0."""
        for number, example in enumerate(examples, first):
            if "x" not in example:
                raise DataError(f"example {number}", "has no x", "give x, a number")
        values = torch.tensor([[[float(example["x"])] for example in examples]])
        targets = torch.tensor([[float(example.get("y", 0.0)) for example in examples]])
        weights = torch.tensor([[float("y" in example) for example in examples]])
        return Batch({"values": values}, targets, weights, 1)

    def shape(self, batch: Batch) -> dict[str, float]:
        """The number of points."""
        return {"shots": float(batch.weights.sum())}

    def decode(self, outputs: Tensor, batch: Batch, names: Sequence[str], threshold: float = 0.0) -> list[Prediction]:
        """`y` of each point."""
        return [{"y": value} for value in outputs[0].squeeze(-1).tolist()]
