"""The configuration: YAML and ``key=value`` overrides → `RunConfig`. Free of torch and ray, so that it loads at once.

Sections `model` and `algorithm` also take the options of the chosen model or algorithm; those are checked against its
fields when it is built, which is still before anything starts.
"""

import datetime
import re
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field

from distmeta.errors import ConfigError, suggest

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Ways = Annotated[int, Field(ge=2)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Patterns = str | list[str]
T = typing.TypeVar("T")


class Section(BaseModel):
    """A section whose keys are all known."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Fractions(Section):
    """Shares of the classes (or of the groups of classes) that go into each split."""

    train: Annotated[float, Field(gt=0, lt=1)] = 0.6
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    test: Annotated[float, Field(gt=0, lt=1)] = 0.2

    @pydantic.model_validator(mode="after")
    def _at_most_one(self) -> typing.Self:
        if (total := self.train + self.validation + self.test) > 1 + 1e-9:
            raise ValueError(f"the fractions add up to {total:g}; give at most 1")
        return self


class DataConfig(Section):
    """Which labelled texts, and which of their classes may be seen when."""

    path: str  # a parquet, CSV or JSONL file, a folder of them, hub:owner/name, or attack
    subset: str | None = None  # a hub data set's configuration
    text: str = "text"
    label: str = "label"
    group: str | None = None  # classes of one group stay in one split
    splits: str | Fractions = Fractions()  # a JSON file of class names, or shares
    split: str = "1"  # which split of the file; with shares, which of the random ones
    min_examples: Annotated[int, Field(ge=0)] = 0  # smaller classes are left out
    max_length: Annotated[int, Field(ge=4)] = 64  # tokens; longer texts are cut
    cache: str = "~/.cache/distmeta"

    @pydantic.field_validator("split", mode="before")
    @classmethod
    def _name(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value


class EpisodesConfig(Section):
    """The shape of a training episode."""

    ways: Ways = 5
    shots: Count = 5
    queries: Count = 5


class ModelConfig(Section):
    """Which learner; further keys are the options of that model."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())
    name: str = "text_cnn"
    path: str | None = None  # pretrained weights: a folder, hub:owner/name or package:name/folder
    freeze: Patterns = []  # parameters that are never changed, as patterns such as body.*embeddings*


class AlgorithmConfig(Section):
    """Which meta-learner; further keys are the options of that algorithm."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = "maml"


class InnerConfig(Section):
    """Adaptation to one task; what is left out takes the algorithm's default."""

    lr: Positive | None = None
    steps: Annotated[int, Field(ge=0)] | None = None
    adapt: Patterns | None = None  # head, body, all, or patterns of parameter names


class OuterConfig(Section):
    """The meta-parameters' optimiser, run by the parameter server."""

    lr: Positive = 1e-3  # Finn et al. 2017, few-shot classification
    steps: Count = 1000
    meta_batch_size: Count = 4  # Finn et al. 2017, 5-way 1-shot
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    weight_decay: NotNegative = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0  # sgd only
    clip_norm: Positive | None = None
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    max_bad_tasks: Annotated[int, Field(ge=0)] = 0  # tasks without a finite gradient before the run stops


class ClusterConfig(Section):
    """Where the workers run."""

    backend: Literal["ray", "inprocess"] = "ray"
    address: str | None = None  # host:port or auto; none: $RAY_ADDRESS, else a private Ray on this machine
    workers: Count = 2
    cpus_per_worker: Positive = 1
    gpus_per_worker: NotNegative | None = None  # none: shares of the GPUs there are, at most one each
    tasks_per_unit: Count = 2  # episodes that a worker stacks; part of the arithmetic, so not set by workers


class EvaluationConfig(Section):
    """Meta-test on a fixed list of episodes, and meta-validation on the way."""

    episodes: Count = 600
    shots: Annotated[list[Count], Field(min_length=1)] = [1, 5]
    ways: Ways | None = None  # none: episodes.ways
    queries: Count = 5
    seed: Seed = 0  # apart from `seed`, so that runs are compared on the same episodes
    episodes_per_unit: Count = 20
    validation_every: Annotated[int, Field(ge=0)] = 0  # outer steps; 0: never
    validation_episodes: Count = 40
    curve_steps: Annotated[int, Field(ge=0)] = 10  # the adaptation curve goes this far
    curve_episodes: Count = 100


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

    data: DataConfig
    episodes: EpisodesConfig = EpisodesConfig()
    model: ModelConfig = ModelConfig()
    algorithm: AlgorithmConfig = AlgorithmConfig()
    inner: InnerConfig = InnerConfig()
    outer: OuterConfig = OuterConfig()
    cluster: ClusterConfig = ClusterConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    tracking: TrackingConfig = TrackingConfig()
    seed: Seed = 0
    run_dir: str | None = None  # none: runs/<name of the file>-<time>

    @property
    def evaluation_ways(self) -> int:
        """Ways of meta-validation and meta-test episodes."""
        return self.evaluation.ways or self.episodes.ways

    @property
    def examples_per_class(self) -> int:
        """How many examples the largest episode takes from a class."""
        shots = max(self.evaluation.shots)
        return max(self.episodes.shots + self.episodes.queries, shots + self.evaluation.queries)


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-3 as a number and refuses a key given twice."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    mapping = loader.construct_mapping(node, deep=True)
    if len(mapping) < len(node.value):
        keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
        twice = next(key for key in keys if keys.count(key) > 1)
        where = f"line {node.start_mark.line + 1}"
        raise ConfigError(f"{twice}", f"given twice in the mapping at {where}", "keep one")
    return mapping


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def parse_yaml(text: str, source: str) -> Any:
    """Parses safe YAML; a syntax error names its line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source} line {mark.line + 1}" if mark else source
        raise ConfigError(where, f"not valid YAML ({getattr(error, 'problem', error)})", "mend it") from error


def load_config(path: str | Path, overrides: typing.Sequence[str] = ()) -> RunConfig:
    """Reads a YAML file, applies ``key=value`` overrides and validates.

    Raises:
        ConfigError: naming the key or the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read ({error.strerror})", "give a YAML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"not UTF-8 at byte {error.start}", "save it as UTF-8") from error
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise ConfigError(str(path), "holds no sections", "start from a file in jobs/")
    return validate(override(content, overrides))


def override(content: dict[str, Any], overrides: typing.Sequence[str]) -> dict[str, Any]:
    """Applies ``a.b=value`` settings (values are YAML) to a nested mapping, in place."""
    for item in overrides:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ConfigError(repr(item), "not of the form key=value", "write for example outer.steps=50")
        *parents, last = key.split(".")
        section = content
        for parent in parents:
            inner = section.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise ConfigError(key, f"{parent} is a value, not a section", "check the dots of the key")
            section = inner
        section[last] = parse_yaml(value, key)
    return content


def validate(content: dict[str, Any]) -> RunConfig:
    """Validates a nested mapping; the first fault is named by its dotted key."""
    try:
        return RunConfig.model_validate(content)
    except pydantic.ValidationError as error:
        raise config_error(error, RunConfig) from error


def config_error(error: pydantic.ValidationError, model: type) -> ConfigError:
    """Turns pydantic's first complaint into one line that names the key and what would do."""

    # A misspelt key explains more than the missing one it leaves behind.
    def rank(fault: Any) -> tuple[bool, bool]:
        wrong_branch = fault["type"] == "string_type" and isinstance(fault["input"], dict)
        return fault["type"] != "extra_forbidden", wrong_branch

    first = min(error.errors(), key=rank)
    path = [str(part) for part in first["loc"] if not re.search(r"[\[\(]|^(str|list|Fractions)$", str(part))]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        parents = ".".join(path[:-1])
        valid = [f"{parents}.{name}" if parents else name for name in _keys(model, path[:-1])]
        return ConfigError(key, "unknown key", suggest(key, valid))
    if first["type"] == "missing":
        return ConfigError(key, "missing", "add it")
    message = first["msg"].removeprefix("Value error, ")
    return ConfigError(key, f"{first['input']!r} does not do", message[0].lower() + message[1:])


def _keys(model: Any, path: list[str]) -> list[str]:
    """The valid keys of the section at `path` below `model`."""
    for name in path:
        annotation = typing.get_type_hints(model)[name]
        options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
        model = next(option for option in options if isinstance(option, type) and issubclass(option, Section))
    return list(model.model_fields)


def build_options(cls: type[T], options: dict[str, Any], keys: dict[str, str]) -> T:
    """Makes a registered dataclass (an algorithm, a model's options) from configuration values.

    Args:
        cls: a frozen dataclass; annotate ranges with `pydantic.Field`.
        options: values by field name.
        keys: the dotted configuration key of each option, for messages.

    Raises:
        ConfigError: an option the class does not have, or a value of the wrong type or range.
    """
    fields = typing.get_type_hints(cls)
    for name in options:
        if name not in fields:
            raise ConfigError(keys[name], f"not an option of {cls.__name__}", suggest(name, fields))
    try:
        return pydantic.TypeAdapter(cls).validate_python(options)
    except pydantic.ValidationError as error:
        wrong = config_error(error, cls)
        name, _, rest = wrong.where.partition(".")
        raise ConfigError(keys.get(name, name) + (f".{rest}" if rest else ""), wrong.found, wrong.remedy) from error


def default_run_dir(path: str | Path) -> Path:
    """``runs/<name>-<UTC time>`` in the working directory."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{Path(path).stem}-{stamp}"
