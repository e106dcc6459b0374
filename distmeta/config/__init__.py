"""Keys, types, ranges and defaults of the configuration. Imports neither torch nor ray, so that it loads fast.

Sections `model` and `algorithm` also take the options of the chosen model or algorithm. These are checked when the
model or algorithm is built, before anything starts.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

import pydantic
from pydantic import ConfigDict, Field

from distmeta.config.base import (
    Count,
    Location,
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
from distmeta.errors import ConfigError

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
    """The model; further keys are the options of that model."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())
    name: str = "text_cnn"
    path: Location | None = None  # pretrained weights: a folder, hub:owner/name or package:name/folder
    # Patterns of the parameters that are never trained, such as body.*embeddings*.
    freeze: Patterns = Field(default_factory=list)


class AlgorithmConfig(Section):
    """The algorithm; further keys are the options of that algorithm."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = "maml"


class InnerConfig(Section):
    """Adaptation to one task; a missing key takes the algorithm's default."""

    lr: Positive | None = None
    steps: Annotated[int, Field(ge=0)] | None = None
    adapt: Patterns | None = None  # head, body, all, lora, top:K (layers), or patterns of parameter names
    learn_lr: bool | None = None  # meta-learn a rate for each step and tensor, starting at inner.lr (MAML++)
    multi_step_loss: Share | None = None  # weight of the mean query loss after all steps but the last (MAML++)
    clip_norm: Positive | None = None  # of each task's gradient
    dropout: Share | None = None  # of the support features, in meta-training only
    first_order: bool | None = None  # treat inner gradients as constants in the meta-gradient


class OuterConfig(Section):
    """The meta-parameters' optimiser, run by the parameter server."""

    lr: Positive = 1e-3  # Finn et al. 2017, few-shot classification
    steps: Annotated[int, Field(ge=0)] = 1000  # 0: evaluate the initial meta-parameters
    meta_batch_size: Count = 4  # Finn et al. 2017, 5-way 1-shot
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    weight_decay: NotNegative = 0.0
    momentum: Share = 0.0  # sgd only
    clip_norm: Positive | None = None
    # l2: ½‖θ‖²; l1: ‖θ‖₁; proximal: ½‖θ − θ₀‖² with θ₀ the initial θ; learned inner rates are left out
    regularizer: Literal["none", "l2", "l1", "proximal"] = "none"
    regularizer_weight: Annotated[NotNegative, Field(validate_default=True)] = 0.0  # λ
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    max_bad_tasks: Annotated[int, Field(ge=0)] = 0  # with more tasks without a finite gradient the run stops

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
    """Meta-test on a fixed list of episodes, and meta-validation during training."""

    episodes: Sample = 600
    shots: Annotated[list[Count], Field(min_length=1)] = Field(default_factory=lambda: [1, 5])
    ways: Ways | None = None  # none: episodes.ways
    queries: Count = 5
    unlabelled: Annotated[int, Field(ge=0)] = 0  # with so many texts of a class without labels, meta-test is done again
    seed: Seed = 0  # separate from `seed`, so that runs are compared on the same episodes
    episodes_per_unit: Count = 20
    validation_every: Annotated[int, Field(ge=0)] = 0  # outer steps; 0: never
    validation_episodes: Sample = 40
    validation_shots: Count | None = None  # none: episodes.shots
    curve_steps: Annotated[int, Field(ge=0)] = 10  # inner steps of the adaptation curve
    curve_episodes: Sample = 100
    calibration_episodes: Sample | None = None  # of each shape, to fit and to check probabilities; none: curve_episodes


class CheckpointConfig(Section):
    """When to write checkpoints, and how many to keep."""

    every: Annotated[int, Field(ge=0)] = 100  # outer steps; 0: only at the end
    keep: Count = 2


class TrackingConfig(Section):
    """Tracking in MLflow."""

    uri: str | None = None  # none: $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db here
    experiment: Annotated[str, Field(max_length=500)] = "distmeta"  # as long as MLflow takes
    log_model: bool = True  # also keep the learner in MLflow, as the run's model
    system_metrics: bool = False  # also log processors, memory, disk, network and GPUs of the driver's machine


FamilyName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$")]  # becomes part of parameter names


@dataclass(frozen=True)
class _Origin:
    """The file of settings. Equal settings are equal wherever they are from."""

    path: str | None = field(default=None, compare=False)


class RunConfig(Section):
    """A whole run."""

    # Several families of tasks, by name; `data` and `episodes` are the short form for a single family.
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
    tune: TuneConfig | None = None  # what `distmeta tune` searches; training ignores it
    seed: Seed = 0
    run_dir: Location | None = None  # none: runs/<name of the file>-<time>
    # If settings chose another algorithm or model than the file: the file's, by section, and the keys of the settings.
    _former: dict[str, str] = pydantic.PrivateAttr(default_factory=dict)
    _settings: tuple[str, ...] = pydantic.PrivateAttr(default=())
    _origin: _Origin = pydantic.PrivateAttr(default=_Origin())

    @pydantic.model_validator(mode="after")
    def _one_form(self) -> Self:
        for name in ("data", "episodes"):
            if self.tasks and getattr(self, name) != type(self).model_fields[name].default:
                raise ConfigError("tasks", f"given beside {name}", f"move {name} into tasks.NAME.{name}")
        return self

    @property
    def families(self) -> dict[str, FamilyConfig]:
        """All families of tasks by name; in the short form the name is the kind of task."""
        if self.tasks:
            return self.tasks
        return {self.data.kind: FamilyConfig(kind=self.data.kind, data=self.data, episodes=self.episodes)}

    def single(self, name: str) -> "RunConfig":
        """The configuration of one family alone, in the short form."""
        family = self.families[name]
        data = family.data.model_copy(update={"kind": family.kind})
        return self.model_copy(update={"tasks": {}, "data": data, "episodes": family.episodes})

    def remember(self, former: dict[str, str], settings: tuple[str, ...]) -> None:
        """Notes that settings with these keys chose other names than those of the file, which are given by section."""
        self._former, self._settings = former, settings

    def came_from(self, path: str | None) -> "RunConfig":
        """Notes the file of these settings, as typed; returns the configuration."""
        self._origin = _Origin(path)
        return self

    @property
    def source(self) -> str | None:
        """The file of these settings, if they were just read from one."""
        return self._origin.path

    @property
    def former(self) -> dict[str, str]:
        """The names that the file chose and the settings replaced, by section."""
        return self._former

    def is_set(self, key: str) -> bool:
        """Whether a key, or a section that it is in, was given as a setting; known only if there is a `former` name."""
        return any(f"{key}.".startswith(f"{setting}.") for setting in self._settings)

    @property
    def evaluation_ways(self) -> int:
        """Ways of meta-validation and meta-test episodes."""
        return self.evaluation.ways or self.episodes.ways

    @property
    def quarter(self) -> int:
        """Outer steps of a quarter of the run, rounded down to a multiple of `validation_every`, and at least that."""
        every = self.evaluation.validation_every
        return max(every, self.outer.steps // 4 // every * every)

    @property
    def validation_shots(self) -> int:
        """Shots of meta-validation episodes."""
        return self.evaluation.validation_shots or self.episodes.shots

    @property
    def examples_per_class(self) -> int:
        """Number of examples that the largest episode takes from a class."""
        shots = max(*self.evaluation.shots, self.validation_shots)
        evaluated = shots + self.evaluation.queries + max(self.evaluation.unlabelled, self.episodes.unlabelled)
        return max(self.episodes.shots + self.episodes.queries + self.episodes.unlabelled, evaluated)
