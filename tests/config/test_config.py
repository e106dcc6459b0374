"""The configuration: what is read, what is refused, and in which words."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from distmeta.config import RunConfig
from distmeta.config.load import build_options, default_run_dir, load_config, override, validate
from distmeta.data.sources import read_source
from distmeta.errors import ConfigError, DataError

FOLDER = Path(__file__).parents[2] / "jobs"
# Tables of jobs, a manifest for Kubernetes, and what a measurement is made of.
OTHERS = {FOLDER / name for name in ("leaderboard.yaml", "rayjob.yaml", "scale.yaml")}
JOBS = sorted({*FOLDER.glob("*.yaml")} - OTHERS)


def configure(*overrides: str) -> RunConfig:
    return validate(override({"data": {"path": "attack"}}, overrides))


def test_overrides_are_yaml_with_dotted_keys() -> None:
    config = configure("outer.lr=1e-3", "inner.adapt=[head, body.a]", "data.split=2", "run_dir=null", "inner={lr: 0.5}")
    assert (config.outer.lr, config.data.split, config.run_dir) == (0.001, "2", None)
    assert (config.inner.lr, config.inner.adapt) == (0.5, None)  # a whole section replaces what was there


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("inner.lrr=1", "inner.lrr: unknown key; did you mean inner.lr?"),
        ("innr.lr=1", "innr: unknown key; did you mean inner?"),
        ("cluster.wrokers=1", "cluster.wrokers: unknown key; did you mean cluster.workers?"),
        ("data.splits={trai: 0.5}", "data.splits.trai: unknown key; did you mean data.splits.train?"),
        ("inner.lr=-1", "inner.lr: invalid value -1; input should be greater than 0"),
        ("outer.lr=.nan", "outer.lr: invalid value nan; input should be a finite number"),
        ("outer.steps=few", "outer.steps: invalid value 'few'; input should be a valid integer"),
        ("outer.optimizer=sg", "outer.optimizer: invalid value 'sg'; input should be 'sgd', 'adam' or 'adamw'"),
        ("episodes.ways=1", "episodes.ways: invalid value 1; input should be greater than or equal to 2"),
        ("evaluation.episodes=1", "evaluation.episodes: invalid value 1; input should be greater than or equal to 2"),
        ("evaluation.shots=[0]", "evaluation.shots.0: invalid value 0"),
        ("data.splits={train: 0.9, validation: 0.2}", "the fractions add up to 1.3; give at most 1"),
        ("outer.regularizer=l2", "outer.regularizer_weight: invalid value 0.0; outer.regularizer l2 needs a weight"),
        ("outer.regularizer_weight=1", "outer.regularizer_weight: invalid value 1; there is no regularizer to weigh"),
        (
            "episodes.label_mixing=1.1",
            "episodes.label_mixing: invalid value 1.1; input should be less than or equal to 1",
        ),
        ("episodes={shots: 1, label_mixing: 1}", "episodes.label_mixing: invalid value 1; a mixed class has texts of"),
        ("inner.clip_norm=0", "inner.clip_norm: invalid value 0; input should be greater than 0"),
        ("inner.dropout=1", "inner.dropout: invalid value 1; input should be less than 1"),
        ("inner.multi_step_loss=1", "inner.multi_step_loss: invalid value 1; input should be less than 1"),
        (
            "cluster.workers={min: 4, max: 2}",
            "invalid value {'min': 4, 'max': 2}; min is 4 and max 2; give a max of at least 4",
        ),
        (
            "cluster.workers={min: 0, max: 2}",
            "cluster.workers.min: invalid value 0; input should be greater than or equal to 1",
        ),
        ("cluster.workers={most: 2}", "cluster.workers.most: unknown key; valid: cluster.workers.max, clus"),
        ("cluster.workers=0", "cluster.workers: invalid value 0; input should be greater than or equal to 1"),
        ("seed=-1", "seed: invalid value -1"),
        ("outer=3", "outer: invalid value 3"),
        ("seed.x=3", "seed: invalid value {'x': 3}"),
        ("nonsense", "'nonsense': not of the form key=value"),
        ("outer.lr=[", "outer.lr line 1: not valid YAML"),
        ("outer={lr: 1, lr: 2}", "lr: given twice"),
        ("outer={lr: !!python/object/apply:os.getcwd []}", "outer line 1: the tag"),
    ],
)
def test_a_mistake_is_named_by_its_key(setting: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configure(setting)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_dotted_key_below_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="seed is a value, not a section"):
        configure("seed=1", "seed.x=2")


def test_data_that_are_not_named_are_missed_when_they_are_read() -> None:
    """Kinds that make their tasks up need none."""
    config = validate({})
    assert config.data.path is None
    with pytest.raises(DataError, match=r"^data\.path: missing; give a file, a folder, hub:owner/name or attack$"):
        read_source(config.data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"", "holds no sections"),
        (b"- a", "holds no sections"),
        (b"data: {path: x\n", "line 2: not valid YAML"),
        (b"data: \xff", "not UTF-8 at byte 6"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "c.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_the_jobs_are_valid(path: Path) -> None:
    load_config(path)


@dataclasses.dataclass(frozen=True)
class Options:
    rate: Annotated[float, Field(gt=0)] = 0.1
    names: str | tuple[str, ...] = "all"


def make(**options: Any) -> Options:
    return build_options(Options, options, {name: f"algorithm.{name}" for name in options})


def test_options_become_a_dataclass() -> None:
    assert make(rate="2", names=["a"]) == Options(2.0, ("a",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rte": 1}, "algorithm.rte: not an option of Options; did you mean algorithm.rate?"),
        ({"rate": 0}, "algorithm.rate: invalid value 0; input should be greater than 0"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(**options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"algorithm": {"name": "maml", "scale": 2}},
            "algorithm.scale: not an option of MAML; valid: algorithm.name, inner.adapt, inner.clip_norm, "
            "inner.dropout, inner.first_order, inner.learn_lr, inner.lr, inner.multi_step_loss, inner.steps",
        ),
        (
            {"algorithm": {"name": "protonet", "trains": True}},
            "algorithm.trains: not an option of ProtoNet; valid: algorithm.name, algorithm.scale",
        ),
        (
            {"algorithm": {"name": "protonet", "scle": 2}},
            "algorithm.scle: not an option of ProtoNet; did you mean algorithm.scale?",
        ),
        (
            {"algorithm": {"name": "maml", "leran_lr": True}},
            "algorithm.leran_lr: not an option of MAML; did you mean inner.learn_lr?",
        ),
        (
            {"model": {"name": "text_cnn", "reads": "text"}},
            "model.reads: not an option of TextCNN; valid: model.dropout, model.embedding_size, model.filters, "
            "model.freeze, model.min_count, model.name, model.normalize, model.path, model.vocab_size, "
            "model.vocabulary, model.widths",
        ),
    ],
)
def test_what_may_be_set_is_listed_as_it_is_typed(settings: dict[str, Any], message: str) -> None:
    from distmeta.runs.settings import make_learner, make_model_options

    make = make_learner if "algorithm" in settings else make_model_options
    with pytest.raises(ConfigError) as caught:
        make(validate(settings))
    assert str(caught.value) == message


def test_the_configuration_loads_without_torch_and_ray() -> None:
    code = "import sys, distmeta.config, distmeta.cli; sys.exit(bool({'torch', 'ray', 'mlflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_runs_that_start_in_the_same_second_have_different_directories() -> None:
    names = {default_run_dir("jobs/quickstart.yaml") for _ in range(9)}
    assert len(names) == 9
    assert all(re.fullmatch(r"runs/quickstart-\d{8}-\d{6}-[0-9a-f]{6}", str(name)) for name in names)
