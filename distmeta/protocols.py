"""What acts on the nouns of `distmeta.types`: the interfaces between the rooms.

    TaskKind        rows → Batch, loss, metrics      (tasks/)
    Model           pure functions of parameters     (models/)
    MetaLearner     an algorithm                     (algorithms/)
    Pool            workers, here or as Ray actors   (backends/)
    Aggregator      what the coordinator feeds       (server.py)

Axes are those of `distmeta.types`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from distmeta.config import OuterConfig
from distmeta.types import (
    Adapted,
    Add,
    Batch,
    Done,
    Episode,
    Inputs,
    Leaf,
    Lost,
    Metrics,
    Params,
    Score,
    ServerState,
    StepReport,
    Stream,
    Unit,
    UnitResult,
    Work,
)


class TaskKind(Protocol):
    """One kind of task: how episodes are made, the loss, the metrics. It is picklable: workers draw by themselves."""

    score: ClassVar[Score]
    has_classes: ClassVar[bool]  # whether targets are classes; if not, episodes have one way
    reads: ClassVar[str]  # the kind of inputs: text | numbers

    @property
    def classes(self) -> int:
        """How many classes all splits have together, 0 without any: `labels` of inputs count up to it."""

    @property
    def fingerprint(self) -> str:
        """Hash of all the data that it draws from."""

    def episodes(self, stream: Stream, first_index: int, count: int, tokens: bool = True) -> Episode:
        """Draws and stacks episodes; the same arguments give the same tensors anywhere.

        Without `tokens`, inputs hold what is known of the rows, but not what a body reads of them.
        """

    def rows(self, split: str) -> np.ndarray:
        """All corpus rows of a split, shortest text first; none where examples are made up as they are needed."""

    def collate(self, rows: np.ndarray, tokens: bool = True) -> Inputs:
        """Tokens of any rows, padded to the longest, with the shape of `rows` in front; or all but the tokens."""

    def outputs(self, ways: int) -> int:
        """How many outputs a head needs for an episode of that many ways."""

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean loss of each task, (T,)."""

    def metrics(self, outputs: Tensor, batch: Batch) -> Metrics:
        """Figures of each task, each (T,)."""

    def manifest(self, stream: Stream, episodes: int) -> dict[str, Any]:
        """Which rows of the source the first episodes of a stream are made of, as plain JSON."""


class Model(Protocol):
    """Pure functions of parameters; `body.*` makes features of inputs, `head.*` outputs of features."""

    task: TaskKind
    dim: int  # D, the number of features
    twice_differentiable: bool  # whether all of its kernels have a second derivative

    def init(self) -> Params:
        """Starting values of everything that is not frozen."""

    def encode(self, shared: Params, adapted: Iterable[str], inputs: Inputs) -> Inputs:
        """Runs once over all tasks' inputs what comes before the first of the names that differ between tasks."""

    def features(self, shared: Params, stacked: Params, inputs: Inputs) -> Tensor:
        """(T, B, ..., D) features; `stacked` holds the parameters that differ between tasks, (T, ...) each."""

    def outputs(self, shared: Params, stacked: Params, inputs: Inputs, dropout: float = 0.0) -> Tensor:
        """(T, B, ..., N) outputs of the head on the features, of which meta-training drops the share `dropout`."""

    def train(self, mode: bool) -> None:
        """Switches dropout on or off."""


class MetaLearner(Protocol):
    """A published algorithm: a frozen dataclass whose fields are its hyperparameters.

    Parameters of its own in θ are named `meta.*`; the model's are `body.*` and `head.*`.
    """

    trains: ClassVar[bool]  # whether it has a meta-gradient at all

    def check(self, model: Model) -> None:
        """Raises a `ConfigError` where it cannot go together with the model or its task kind."""

    def adapts(self, names: Sequence[str]) -> list[str]:
        """Which of the model's parameters each task gets a copy of."""

    def init(self, model: Model, generator: torch.Generator) -> Params:
        """θ from the model's starting values: may leave some out and add its own."""

    def meta_gradient(self, model: Model, meta_params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """The gradient with respect to θ summed over the episode's tasks, and figures of each task."""

    def adapt(self, model: Model, meta_params: Params, support: Batch) -> Adapted:
        """Learns each task from its support set."""

    def predict(self, model: Model, adapted: Adapted, inputs: Inputs) -> Tensor:
        """(T, B, ..., N) outputs of the adapted learners."""


class StepwiseLearner(MetaLearner, Protocol):
    """A learner that adapts step by step, so that its adaptation curve can be drawn."""

    def trajectory(self, model: Model, meta_params: Params, support: Batch) -> Iterator[Adapted]:
        """The learner after 0, 1, 2, … of its steps; the last is what `adapt` returns."""


class Pool(Protocol):
    """Workers that each do one unit at a time."""

    can_race: ClassVar[bool]  # whether a second copy of a unit may be faster than the first

    @property
    def workers(self) -> Sequence[str]:
        """The names of those that can be given a unit; they may join and leave at any time."""

    def publish(self, value: Any) -> Any:
        """Makes what `Aggregator.handle` gives, or `Features`, readable by all workers; a handle for `submit`."""

    def submit(self, worker: str, work: Work, unit: Unit, handle: Any, features: Any = None) -> None:
        """Starts a unit on an idle worker, under θ and, where it looks them up, features; both are handles."""

    def wait(self, seconds: float) -> list[Done | Lost]:
        """Blocks until something has happened, or nothing has for so long."""

    def add(self, leaves: Sequence[Leaf]) -> np.ndarray:
        """(P,) float32, the weighted sum of results' gradients in their order (see `distmeta.engine.reduction`).

        Raises:
            GradientsLostError: some went down with the machine they lay on, and must be worked out again.
        """

    def replace(self, worker: str) -> None:
        """Ends a worker that does not answer and starts another of its name; `wait` tells of it as lost."""


class Parameters(Protocol):
    """Where θ is kept and updated: in one `distmeta.engine.shard.Shard`, or in several."""

    @property
    def values(self) -> np.ndarray:
        """A copy, (P,) float32."""

    @property
    def handle(self) -> Any:
        """What `Pool.publish` takes: the values, or references of their parts."""

    def take(self, leaves: Sequence[Leaf], add: Add) -> None:
        """Has gradients added up for the next step; raises what `add` does."""

    def squares(self, tasks: int) -> list[float]:
        """Makes the mean gradient over so many tasks; the sum of squares of each of its blocks, in order."""

    def step(self, scale: float, rate: float) -> None:
        """One step of the optimiser along the gradient times `scale`."""

    def move_anchor(self) -> None:
        """From now on the proximal regulariser pulls to where θ is."""

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays of a `ServerState`."""

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Goes back to what `arrays` returned."""


MakeParameters = Callable[[OuterConfig, np.ndarray, np.ndarray | None], Parameters]


class Aggregator(Protocol):
    """Owner of θ: the coordinator hands it a whole meta-batch at a time, in index order."""

    @property
    def version(self) -> int:
        """Updates so far."""

    @property
    def meta_params(self) -> np.ndarray:
        """A copy of θ, (P,) float32."""

    @property
    def handle(self) -> Any:
        """θ as a pool publishes it."""

    def apply(self, results: Sequence[UnitResult], add: Add) -> StepReport:
        """Has the gradients added in the order given, clips, updates θ, and counts the version up.

        What `add` raises is raised before anything has changed.
        """

    def state(self) -> ServerState:
        """A copy of everything `load` needs."""

    def load(self, state: ServerState) -> None:
        """Goes back to a state."""
