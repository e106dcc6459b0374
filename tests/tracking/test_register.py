"""Learners and tasks under a name in MLflow: found again anywhere, the same to the bit, without a pickle."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from bad_input.commands import fail
from bad_input.commands import run as command
from mlflow import MlflowClient
from toy import run, toy_settings
from use_helpers import LABELS, NEW, TEXTS, untrained

import distmeta
from distmeta.config.load import validate
from distmeta.errors import CheckpointError, TrackingError, UserError
from distmeta.runs import directory
from distmeta.runs.experiment import build_experiment
from distmeta.runs.models import content, registered
from distmeta.storage import write_sums
from distmeta.tracking import PACKAGES, check_names, fetch
from distmeta.tracking.models import write
from distmeta.use.learner import Learner

REQUEST = [{"examples": [{"text": t, "label": its} for t, its in zip(TEXTS, LABELS, strict=True)],
            "queries": [{"text": text} for text in NEW]}]  # fmt: skip


@pytest.fixture
def learner(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> Learner:
    """A learner in a folder, and its store in the environment."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    made = untrained(tmp_path, "protonet")
    made.save(tmp_path / "learner")
    return made


def served(uri: str, name: str) -> Any:
    """The model as MLflow loads it."""
    mlflow.set_tracking_uri(uri)
    try:
        return mlflow.pyfunc.load_model(name)
    finally:
        mlflow.set_tracking_uri(None)


def test_a_learner_comes_back_the_same_to_the_bit(
    tmp_path: Path, learner: Learner, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = registered(str(tmp_path / "learner"), "two words", "champion")
    assert tuple(made) == ("two words", "1", "champion", "models:/two words/1")
    wanted = learner.adapt(TEXTS, LABELS).predict_proba(NEW)
    shutil.rmtree(tmp_path / "learner")
    for name in ("models:/two words@champion", "models:/two words/1", "models:/two words/latest"):
        assert np.array_equal(distmeta.load(name).adapt(TEXTS, LABELS).predict_proba(NEW), wanted)
    monkeypatch.setattr("distmeta.use.adapting.cross_validate", lambda *_: pytest.fail("no answer shows it"))
    (found,) = served(uri, made.uri).predict(REQUEST)
    assert np.array_equal([[row["probabilities"][f"class {n}"] for n in range(4)] for row in found], wanted)


def test_a_task_answers_texts_alone(tmp_path: Path, learner: Learner, uri: str) -> None:
    task = learner.adapt(TEXTS, LABELS)
    task.save(tmp_path / "task")
    registered(str(tmp_path / "task"), "intents", None)
    shutil.rmtree(tmp_path / "task")
    assert np.array_equal(distmeta.load_task("models:/intents/1").predict_proba(NEW), task.predict_proba(NEW))
    model = served(uri, "models:/intents/1")
    assert model.predict(NEW) == list(task.answers(NEW))
    assert str(model.metadata.signature.inputs) == "[string (required)]"


def test_a_task_of_label_sets_answers_with_lists(tmp_path: Path, learner: Learner, uri: str) -> None:
    task = learner.adapt([*TEXTS, "topic0 topic1", "word9"], [*([its] for its in LABELS), ["class 0", "class 1"], []])
    task.save(tmp_path / "task")
    registered(str(tmp_path / "task"), "sets", None)
    assert distmeta.load_task("models:/sets/1").limits == task.limits
    assert served(uri, "models:/sets/1").predict(NEW) == list(task.answers(NEW))


def test_a_model_holds_no_pickle_and_says_what_it_takes(tmp_path: Path, learner: Learner) -> None:
    (aside := tmp_path / "aside").mkdir()
    model = write(aside, content(tmp_path / "learner", learner))
    suffixes = {path.suffix for path in model.rglob("*") if path.is_file()}
    assert suffixes == {"", ".json", ".py", ".safetensors", ".txt", ".yaml", ".zip"}
    assert [path.name for path in model.rglob("*") if path.is_file() and not path.suffix] == ["MLmodel", "SHA256SUMS"]
    for path in model.rglob("*"):  # every pickle of a protocol in use begins so
        assert path.is_dir() or not path.read_bytes().startswith(b"\x80")
    with zipfile.ZipFile(model / "artifacts" / "package.zip") as package:
        assert {Path(name).suffix for name in package.namelist()} == {".py"}
    asked = json.loads((model / "input_example.json").read_text())
    assert len(asked["inputs"][0]["examples"]) == 4
    about = (model / "MLmodel").read_text()
    assert "loader_module: mlflow.pyfunc.loaders.code_model" in about
    for words in ('"name": "examples"', '"name": "queries"', '"map"'):
        assert words in about
    needed = (model / "requirements.txt").read_text().split()
    assert {line.partition("==")[0] for line in needed} == set(PACKAGES)
    assert not any("+" in line for line in needed), "a version of this machine alone"


def test_what_a_learner_imports_is_among_the_requirements(tmp_path: Path, learner: Learner) -> None:
    """With what those need themselves."""
    learner.adapt(TEXTS, LABELS).save(tmp_path / "task")
    code = """
import sys, distmeta
task = distmeta.load_task(sys.argv[1])
task.grow(["topic1"], ["new"]).predict(["topic2"])
files = {name.partition(".")[0]: str(getattr(module, "__file__", "")) for name, module in sys.modules.items()}
print(*[name for name, file in files.items() if "-packages" in file and name.strip("_") == name])
"""
    found = subprocess.run([sys.executable, "-c", code, tmp_path / "task"], check=True, capture_output=True, text=True)
    own = {"numpy", "pyarrow", "pydantic", "yaml", "safetensors", "scipy", "tokenizers", "torch"}
    assert own == {{"PyYAML": "yaml"}.get(name, name) for name in PACKAGES} - {"mlflow"}
    theirs = {
        "distmeta",
        "annotated_types",
        "charset_normalizer",
        "cloudpickle",
        "dill",
        "pydantic_core",
        "torchgen",
        "tqdm",
    }
    theirs |= {"torchgen", "typing_extensions", "typing_inspection", "huggingface_hub", "setuptools"}
    assert set(found.stdout.split()) <= own | theirs


def test_bad_input_is_mlflows_error_for_it(tmp_path: Path, learner: Learner, uri: str) -> None:
    registered(str(tmp_path / "learner"), "intents", None)
    model = served(uri, "models:/intents/1")
    examples = [{"text": " ", "label": "b"}, {"text": "a", "label": "a"}]
    twice = [*REQUEST, {"examples": examples, "queries": [{"text": "q"}]}]
    for request, words in (
        (twice, "task 2: example 1: text is ' '; give a text"),
        (twice[1:], "example 1: text is ' '"),
        ([{"examples": [], "queries": [{"text": "q"}]}], "examples"),
        ([{"examples": [{"text": "a"}], "queries": []}], "Missing required properties: {'label'}"),
        ([{"queries": []}], r"missing inputs \['examples'\]"),
    ):
        with pytest.raises(mlflow.exceptions.MlflowException, match=words) as caught:
            model.predict(request)
        assert caught.value.get_http_status_code() == 400


def test_abstaining_can_be_declined(tmp_path: Path, learner: Learner, uri: str) -> None:
    shares = (0.01, 0.02, 0.05, 0.1, 0.2)
    sure = {"shape": {"ways": 4, "shots": 3}, "temperature": 1.0, "thresholds": [[share, 1.1] for share in shares]}
    learner.calibrated({"classification": [sure]}).save(tmp_path / "calibrated")
    registered(str(tmp_path / "calibrated"), "intents", None)
    model = served(uri, "models:/intents/1")
    assert [row["label"] for row in model.predict(REQUEST)[0]] == [None] * 4
    assert None not in [row["label"] for row in model.predict(REQUEST, params={"abstain": False})[0]]


def test_each_time_is_a_new_version_and_the_alias_moves(tmp_path: Path, learner: Learner, uri: str) -> None:
    registered(str(tmp_path / "learner"), "intents", "champion")
    other = untrained(tmp_path, "protonet", seed=5)
    other.save(tmp_path / "other")
    assert registered(str(tmp_path / "other"), "intents", "champion").version == "2"
    hashes = [distmeta.load(f"models:/intents{n}").about["meta_params_sha256"] for n in ("@champion", "/1", "/2")]
    assert hashes[0] == hashes[2] != hashes[1]
    assert registered("models:/intents/1", "intents", None).version == "3", "a version can be registered again"


def test_several_families_are_told_apart_by_name(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    toy: dict[str, Any] = {**toy_settings(tmp_path), "algorithm": {"name": "protonet"}, "inner": {}}
    section = {"data": toy.pop("data"), "episodes": toy.pop("episodes")}
    config = validate({**toy, "tasks": {"a": section, "b": section}})
    experiment = build_experiment(config)
    experiment.trained(experiment.setup.meta_params, 0).save(tmp_path / "learner")
    registered(str(tmp_path / "learner"), "both", None)
    model = served(uri, "models:/both/1")
    assert len(model.predict([{**REQUEST[0], "family": "b"}])[0]) == 4
    with pytest.raises(mlflow.exceptions.MlflowException, match="family is 'c'; give a or b"):
        model.predict([{**REQUEST[0], "family": "c"}])


@pytest.mark.parametrize(
    "name", ["", " ", "a/b", "a:b", "a@b", "a?b", "50%", "#1", "m-1", "..", "a\nb", " a", "x" * 201]
)
def test_names_that_mlflow_could_not_find_again(name: str) -> None:
    with pytest.raises(UserError, match="--name: "):
        check_names(name, None)


@pytest.mark.parametrize("alias", ["", "latest", "Latest", "v3", "a b", "a/b", "é", "x" * 256])
def test_aliases_that_mlflow_does_not_take(alias: str) -> None:
    with pytest.raises(UserError, match="--alias: "):
        check_names("intents", alias)


@pytest.mark.parametrize("name", ["intents", "=1+1", "[red]a", "'; DROP TABLE runs; --", "é ß", "$HOME", "-x", "{x}"])
def test_a_name_is_data(tmp_path: Path, learner: Learner, name: str) -> None:
    made = registered(str(tmp_path / "learner"), name, None)
    assert distmeta.load(made.uri).about["meta_params_sha256"] == learner.about["meta_params_sha256"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("models:/none@champion", "is not in sqlite:"),
        ("models:/none/3", "is not in sqlite:"),
        ("models:/none/latest", "is not in sqlite:"),
        ("models:/intents/2", "is not in sqlite:"),
        ("models:/intents/two", "is not in sqlite:"),
        ("models:/intents@other", "is not in sqlite:"),
        ("models:/m-none", "is not in sqlite:"),
        ("models:/intents", "is no name of a model; give models:/NAME@ALIAS"),
        ("models:/", "is no name of a model"),
        ("models:/../../etc/passwd", "is no name of a model"),
    ],
)
def test_models_that_are_not_there(tmp_path: Path, learner: Learner, name: str, message: str) -> None:
    registered(str(tmp_path / "learner"), "intents", None)
    with pytest.raises(TrackingError, match=message):
        distmeta.load(name)


def test_a_model_of_another_program_is_refused(tmp_path: Path, learner: Learner, uri: str) -> None:
    """Nothing of it is run or read."""
    client = MlflowClient(uri)
    (tmp_path / "mlartifacts" / "theirs").mkdir(parents=True)
    client.create_registered_model("theirs")
    client.create_model_version("theirs", (tmp_path / "mlartifacts" / "theirs").as_uri())
    with pytest.raises(TrackingError, match="was not registered by distmeta"):
        distmeta.load("models:/theirs/1")


def test_an_altered_model_is_refused(tmp_path: Path, learner: Learner, uri: str) -> None:
    made = registered(str(tmp_path / "learner"), "intents", None)
    path = fetch(uri, made.uri) / "theta.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match=r"theta\.safetensors: was altered or cut short"):
        distmeta.load(made.uri)


def test_a_store_that_was_moved_finds_its_models(
    tmp_path: Path, learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(str(tmp_path / "learner"), "intents", "champion")
    (moved := tmp_path / "moved").mkdir()
    for name in ("mlflow.db", "mlartifacts"):
        shutil.move(tmp_path / name, moved / name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{moved}/mlflow.db")
    assert distmeta.load("models:/intents@champion").about["outer_steps"] == 0


def test_looking_for_a_model_makes_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(TrackingError, match=r"none\.db does not exist"):
        distmeta.load("models:/intents@champion")
    assert not list(tmp_path.iterdir())


class Shell:
    """The command line in a folder with a run."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder)
        self._given = capsys, monkeypatch

    def __call__(self, *words: str) -> tuple[object, str, str]:
        return command(list(words), *self._given)

    def fails(self, *words: str) -> str:
        return fail(list(words), *self._given)


def test_a_run_is_registered_by_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its learner is what the run has logged; by that name evaluation finds the run, until it has another learner."""
    result = run(tmp_path, "run", tracking__log_model=True)
    shell = Shell(tmp_path, capsys, monkeypatch)
    code, out, err = shell("register", "run", "--name", "intents", "--alias", "champion", "--json")
    assert code == 0
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert json.loads(out) == {"name": "intents", "version": "1", "alias": "champion", "uri": "models:/intents/1"}
    assert err == "distmeta: models:/intents/1, models:/intents@champion\n"
    client = MlflowClient(uri)
    run_id = result["mlflow_run_id"]
    assert client.get_model_version("intents", "1").run_id == run_id
    (model,) = client.get_run(run_id).outputs.model_outputs
    assert client.get_model_version("intents", "1").source == f"models:/{model.model_id}"
    assert json.loads(client.get_logged_model(model.model_id).tags["mlflow.modelVersions"]) == [
        {"name": "intents", "version": client.get_model_version("intents", "1").version}
    ]
    assert shell("register", run_id, "--name", "intents")[0] == 0
    assert client.get_model_version("intents", "2").source == f"models:/{model.model_id}"
    assert directory.resolve("models:/intents@champion") == tmp_path / "run"
    loaded = distmeta.load("models:/intents/2")
    assert loaded.about["meta_params_sha256"] == result["meta_params_sha256"]
    learner = tmp_path / "run" / "learner"
    (learner / "SHA256SUMS").write_text("another")
    assert "has another learner now; give the run directory" in shell.fails("evaluate", "models:/intents@champion")


def test_what_cannot_be_registered_is_refused_in_one_line(
    tmp_path: Path, learner: Learner, uri: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = Shell(tmp_path, capsys, monkeypatch)
    (tmp_path / "empty").mkdir()
    assert "no such run directory" in shell.fails("register", "no/run", "--name", "a")
    assert "empty: holds no learner" in shell.fails("register", "empty", "--name", "a")
    assert "invalid value 'a/b'" in shell.fails("register", "learner", "--name", "a/b")
    assert "'latest' is reserved" in shell.fails("register", "learner", "--name", "a", "--alias", "latest")
    secret = "http://me:hunter2@127.0.0.1:9"
    assert "hunter2" not in shell.fails("register", "learner", "--name", "a", "--uri", secret)
    about = tmp_path / "learner" / "learner.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "format": 0}))
    write_sums(tmp_path / "learner")
    assert "is of format 0" in shell.fails("register", "learner", "--name", "a")
    assert MlflowClient(uri).search_registered_models() == []
    assert not list((tmp_path / "mlartifacts").glob("models/*"))
