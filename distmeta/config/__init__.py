"""The configuration's keys, types, ranges and defaults. Free of torch and ray, so that it loads at once.

Sections `model` and `algorithm` also take the options of the chosen model or algorithm; those are checked against its
fields when it is built, which is still before anything starts.
"""

from typing import Annotated, Literal, Self

import pydantic
from pydantic import ConfigDict, Field

from distmeta.config.base import (
    Count,
    NotNegative,
    Patterns,
    Positive,
    Sample,
    Section,
    Seed,
    Share,
    Ways,
)
from distmeta.config.cluster import ClusterConfig
from distmeta.config.tasks import DataConfig, EpisodesConfig, FamilyConfig, Fractions, StreamConfig
from distmeta.config.tune import Dimension, TuneConfig

__all__ = [
    "AlgorithmConfig",
    "CheckpointConfig",
    "ClusterConfig",
    "DataConfig",
    "Dimension",
    "EpisodesConfig",
    "EvaluationConfig",
    "FamilyConfig",
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
    first_order: bool | None = None  # inner gradients count as constants in the meta-gradient


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


FamilyName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$")]  # a part of parameters' names


class RunConfig(Section):
    """A whole run."""

    # Several families of tasks, by name; `data` and `episodes` are the short form of a single one.
    tasks: dict[FamilyName, FamilyConfig] = Field(default_factory=dict)
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

    @pydantic.model_validator(mode="after")
    def _one_form(self) -> Self:
        for name in ("data", "episodes"):
            if self.tasks and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"both tasks and {name} are given; move {name} into tasks.NAME.{name}")
        return self

    @property
    def families(self) -> dict[str, FamilyConfig]:
        """All families of tasks by name; a single one is called by its kind."""
        if self.tasks:
            return self.tasks
        return {self.data.kind: FamilyConfig(kind=self.data.kind, data=self.data, episodes=self.episodes)}

    def single(self, name: str) -> "RunConfig":
        """The configuration as if a family were the only one, in the short form."""
        family = self.families[name]
        data = family.data.model_copy(update={"kind": family.kind})
        return self.model_copy(update={"tasks": {}, "data": data, "episodes": family.episodes})

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
