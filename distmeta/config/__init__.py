"""The configuration's keys, types, ranges and defaults. Free of torch and ray, so that it loads at once.

Sections `model` and `algorithm` also take the options of the chosen model or algorithm; those are checked against its
fields when it is built, which is still before anything starts.
"""

from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import ConfigDict, Field

from distmeta.config.base import (
    Count,
    NotNegative,
    Patterns,
    Positive,
    Probability,
    Sample,
    Section,
    Seed,
    Share,
    Ways,
)
from distmeta.config.cluster import ClusterConfig
from distmeta.config.tune import Dimension, TuneConfig

__all__ = [
    "AlgorithmConfig",
    "CheckpointConfig",
    "ClusterConfig",
    "DataConfig",
    "Dimension",
    "EpisodesConfig",
    "EvaluationConfig",
    "Fractions",
    "InnerConfig",
    "ModelConfig",
    "OuterConfig",
    "RunConfig",
    "Section",
    "StreamConfig",
    "TrackingConfig",
    "TuneConfig",
]


class Fractions(Section):
    """Shares of the classes (or of the groups of classes) that go into each split."""

    train: Annotated[float, Field(gt=0, lt=1)] = 0.6
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    test: Annotated[float, Field(gt=0, lt=1)] = 0.2

    @pydantic.model_validator(mode="after")
    def _at_most_one(self) -> Self:
        if (total := self.train + self.validation + self.test) > 1 + 1e-9:
            raise ValueError(f"the fractions add up to {total:g}; give at most 1")
        return self


class DataConfig(Section):
    """Which tasks: for classification, labelled texts, and which of their classes may be seen when.

    Further keys are the options of the kind.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    kind: str = "classification"
    path: str | None = None  # a parquet, CSV or JSONL file, a folder of them, hub:owner/name, or attack
    subset: str | None = None  # a hub data set's configuration
    text: str = "text"
    label: str = "label"
    group: str | None = None  # classes of one group stay in one split
    task: str | None = None  # the column that names a text's task: an episode is all the labels of one task
    splits: str | Fractions = Fractions()  # a JSON file of class names, or shares
    split: str = "1"  # which split of the file; with shares, which of the random ones
    min_examples: Annotated[int, Field(ge=0)] = 0  # smaller classes are left out
    max_length: Annotated[int, Field(ge=4)] = 64  # tokens; longer texts are cut
    cache: str = "~/.cache/distmeta"  # of tokenised texts
    keep_features: bool = False  # there too, of an encoder that is frozen; trials of a study share them

    @pydantic.field_validator("split", mode="before")
    @classmethod
    def _name(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value


class EpisodesConfig(Section):
    """The shape of a training episode."""

    ways: Ways = 5
    shots: Count = 5
    queries: Count = 5
    # Yin et al., ICLR 2020, https://arxiv.org/abs/1912.03820: what a task's labels mean must not be known beforehand.
    label_shuffle: bool = True  # false: a class has the same label in all episodes, which invites memorising
    label_mixing: Probability = 0.0  # share of the episodes in which each class is a mix of two
    # Patterns, such as "card *", of the classes that meta-training draws from; with data.task of the tasks.
    only: Annotated[tuple[str, ...], Field(min_length=1)] = ("*",)

    @pydantic.field_validator("label_mixing")
    @classmethod
    def _halves(cls, value: float, info: pydantic.ValidationInfo) -> float:
        if value and min(info.data.get(name, 2) for name in ("shots", "queries")) < 2:
            raise ValueError("a class is a half of each of two; give episodes.shots and episodes.queries of 2 or more")
        return value


class StreamConfig(Section):
    """Tasks of meta-training that arrive one after another, a round each, instead of all at once.

    Recurring: a task may come back, after a gap, with new examples. Drifting: while a round goes on, a growing share of
    its episodes is drawn from the next round's task, so that one domain turns into the next little by little.
    """

    steps_per_task: Annotated[int, Field(ge=0)] = 0  # outer steps of a round; 0: no stream
    tasks: Annotated[int, Field(ge=2)] = 10  # rounds; outer.steps must be steps_per_task times this
    recurrence: Probability = 0.0  # probability that a round brings an earlier task back; else it brings a new one
    gap: Annotated[int, Field(ge=1)] = 2  # rounds for which a task stays away at least
    drift: Probability = 0.0  # share of the episodes from the next task at the end of a round; grows from 0
    buffer: Count = 8  # earlier rounds that are remembered, the latest
    examples: Count = 20  # of each class of a remembered round that are kept
    replay: Share = 0.0  # share of each meta-batch that is drawn from what is kept
    neighbours: Annotated[int, Field(ge=0)] = 0  # remembered rounds, the most similar, that `online` starts from
    min_similarity: Annotated[float, Field(ge=-1, le=1)] = 0.0  # cosine from which on a remembered round is a neighbour
    temperature: Positive = 0.1  # of similarities: a remembered round's weight is ∝ exp(cosine / temperature)
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.5  # share of a round's examples that only evaluation sees
    episodes: Sample = 40  # of each round's evaluation, for each of evaluation.shots


class ModelConfig(Section):
    """Which learner; further keys are the options of that model."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())
    name: str = "text_cnn"
    path: str | None = None  # pretrained weights: a folder, hub:owner/name or package:name/folder
    # Parameters that are never changed, as patterns such as body.*embeddings*.
    freeze: Patterns = Field(default_factory=list)


class AlgorithmConfig(Section):
    """Which meta-learner; further keys are the options of that algorithm."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = "maml"


class InnerConfig(Section):
    """Adaptation to one task; what is left out takes the algorithm's default."""

    lr: Positive | None = None
    steps: Annotated[int, Field(ge=0)] | None = None
    adapt: Patterns | None = None  # head, body, all, lora, top:K (layers), or patterns of parameter names
    learn_lr: bool | None = None  # meta-learn a rate for each step and tensor, from inner.lr on (MAML++)
    multi_step_loss: Share | None = None  # weight of the mean query loss after all steps but the last (MAML++)
    clip_norm: Positive | None = None  # of each task's gradient
    dropout: Share | None = None  # of the support features, in meta-training only


class OuterConfig(Section):
    """The meta-parameters' optimiser, run by the parameter server."""

    lr: Positive = 1e-3  # Finn et al. 2017, few-shot classification
    steps: Annotated[int, Field(ge=0)] = 1000  # 0: evaluate what training would start from
    meta_batch_size: Count = 4  # Finn et al. 2017, 5-way 1-shot
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    weight_decay: NotNegative = 0.0
    momentum: Share = 0.0  # sgd only
    clip_norm: Positive | None = None
    # ½‖θ‖², ‖θ‖₁, ½‖θ − θ₀‖² with θ₀ the start; not of learned inner rates
    regularizer: Literal["none", "l2", "l1", "proximal"] = "none"
    regularizer_weight: Annotated[NotNegative, Field(validate_default=True)] = 0.0  # λ
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    max_bad_tasks: Annotated[int, Field(ge=0)] = 0  # tasks without a finite gradient before the run stops

    @pydantic.field_validator("regularizer_weight")
    @classmethod
    def _both_or_none(cls, value: float, info: pydantic.ValidationInfo) -> float:
        kind = info.data.get("regularizer", "none")
        if value and kind == "none":
            raise ValueError("there is no regularizer to weigh; set outer.regularizer to l2, l1 or proximal")
        if not value and kind != "none":
            raise ValueError(f"outer.regularizer {kind} needs a weight above 0")
        return value


class EvaluationConfig(Section):
    """Meta-test on a fixed list of episodes, and meta-validation on the way."""

    episodes: Sample = 600
    shots: Annotated[list[Count], Field(min_length=1)] = Field(default_factory=lambda: [1, 5])
    ways: Ways | None = None  # none: episodes.ways
    queries: Count = 5
    seed: Seed = 0  # apart from `seed`, so that runs are compared on the same episodes
    episodes_per_unit: Count = 20
    validation_every: Annotated[int, Field(ge=0)] = 0  # outer steps; 0: never
    validation_episodes: Sample = 40
    validation_shots: Count | None = None  # none: episodes.shots
    curve_steps: Annotated[int, Field(ge=0)] = 10  # the adaptation curve goes this far
    curve_episodes: Sample = 100


class CheckpointConfig(Section):
    """When to write the state down."""

    every: Annotated[int, Field(ge=0)] = 100  # outer steps; 0: only at the end
    keep: Count = 2


class TrackingConfig(Section):
    """MLflow."""

    uri: str | None = None  # none: $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db here
    experiment: str = "distmeta"


class RunConfig(Section):
    """A whole run."""

    data: DataConfig = DataConfig()
    episodes: EpisodesConfig = EpisodesConfig()
    stream: StreamConfig = StreamConfig()
    model: ModelConfig = ModelConfig()
    algorithm: AlgorithmConfig = AlgorithmConfig()
    inner: InnerConfig = InnerConfig()
    outer: OuterConfig = OuterConfig()
    cluster: ClusterConfig = ClusterConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    tracking: TrackingConfig = TrackingConfig()
    tune: TuneConfig | None = None  # what `distmeta tune` searches; training leaves it aside
    seed: Seed = 0
    run_dir: str | None = None  # none: runs/<name of the file>-<time>

    @property
    def evaluation_ways(self) -> int:
        """Ways of meta-validation and meta-test episodes."""
        return self.evaluation.ways or self.episodes.ways

    @property
    def quarter(self) -> int:
        """Outer steps: a quarter of a run, in whole meta-validations; at least one of them."""
        every = self.evaluation.validation_every
        return max(every, self.outer.steps // 4 // every * every)

    @property
    def validation_shots(self) -> int:
        """Shots of meta-validation episodes."""
        return self.evaluation.validation_shots or self.episodes.shots

    @property
    def examples_per_class(self) -> int:
        """How many examples the largest episode takes from a class."""
        shots = max(*self.evaluation.shots, self.validation_shots)
        return max(self.episodes.shots + self.episodes.queries, shots + self.evaluation.queries)
