"""What MLflow shows with a run: its data, source, user, commit, model, and its machine."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from toy import run, toy_settings
from tracking_helpers import history, run_of

import distmeta
from distmeta.errors import ConfigError
from distmeta.tracking import Dataset, Tracker, origin, sync
from distmeta.tracking.machine import check_system


def contexts(found: Any) -> dict[str, dict[str, Any]]:
    """The data sets of a run by split."""
    return {its.tags[0].value: its.dataset.to_dictionary() for its in found.inputs.dataset_inputs}


def test_a_run_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "ada")
    monkeypatch.setenv("LOGNAME", "ada")
    (config := tmp_path / "toy.yaml").write_text(yaml.safe_dump(toy_settings(tmp_path, tracking__log_model=True)))
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *words], check=True, env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"})
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    monkeypatch.chdir("/")
    result = distmeta.train(config, run_dir=str(tmp_path / "run"))
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    found = client.get_run(result["mlflow_run_id"])
    tags = {key: value for key, value in found.data.tags.items() if key.startswith(("mlflow.s", "mlflow.u"))}
    assert tags == {
        "mlflow.user": "ada",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": str(config),
        "mlflow.source.git.commit": commit,
    }
    data = contexts(found)
    assert list(data) == ["meta_train", "meta_validation", "meta_test"]
    assert [json.loads(its["profile"]) for its in data.values()] == [
        {"num_rows": 64, "num_classes": 8},
        {"num_rows": 32, "num_classes": 4},
        {"num_rows": 32, "num_classes": 4},
    ]
    assert len({its["digest"] for its in data.values()}) == 3
    first = data["meta_train"]
    assert (first["name"], first["source_type"]) == ("data.csv", "local")
    assert json.loads(first["source"]) == {"uri": str(tmp_path / "data.csv")}
    assert [its["name"] for its in json.loads(first["schema"])["mlflow_colspec"]] == ["text", "label"]
    (output,) = found.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert (model.name, model.status, model.source_run_id) == ("learner", LoggedModelStatus.READY, found.info.run_id)
    assert model.tags["distmeta.meta_params_sha256"] == result["meta_params_sha256"]
    distmeta.evaluate(tmp_path / "run")
    assert client.get_run(found.info.run_id).outputs.model_outputs == [output], "the same learner is logged once"


def test_the_same_data_has_the_same_digest_in_any_run(tmp_path: Path) -> None:
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    found = []
    for name, overrides in (("one", {}), ("two", {"seed": 1}), ("three", {"data__split": "2"})):
        result = run(tmp_path, name, evaluation__episodes=2, **overrides)
        found.append([its["digest"] for its in contexts(client.get_run(result["mlflow_run_id"])).values()])
    assert found[0] == found[1] != found[2]


def test_what_a_run_comes_from_waits_for_an_mlflow_that_is_away(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data and model too; a model that was begun is completed, not begun again."""
    from mlflow.exceptions import MlflowException

    notes: list[str] = []

    def away(*_: Any, **__: Any) -> None:
        raise MlflowException("away")

    monkeypatch.setattr("distmeta.tracking.tracker.FINISH_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_inputs", away)
        patch.setattr(MlflowClient, "log_model_artifacts", away)
        result = run(tmp_path, "run", tracking__log_model=True)
        assert "dataset" in (tmp_path / "run" / "unsent.jsonl").read_text().splitlines()[0]
        patch.undo()
        patch.setattr(MlflowClient, "log_model_artifacts", away)
        with pytest.raises(distmeta.errors.TrackingError, match="still away"):
            sync(uri, result["mlflow_run_id"], tmp_path / "run", notes.append)
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    client = MlflowClient(uri)
    (begun,) = client.get_run(result["mlflow_run_id"]).outputs.model_outputs
    assert client.get_logged_model(begun.model_id).status == LoggedModelStatus.PENDING
    assert sync(uri, result["mlflow_run_id"], moved, notes.append)
    found = client.get_run(result["mlflow_run_id"])
    assert len(contexts(found)) == 3
    assert found.outputs.model_outputs == [begun]
    assert client.get_logged_model(begun.model_id).status == LoggedModelStatus.READY
    assert (found.info.status, (moved / "unsent.jsonl").exists()) == ("FINISHED", False)


def test_a_run_that_goes_on_keeps_its_origin(uri: str, tmp_path: Path) -> None:
    first = Tracker.start(uri, "E", "r", {}, tmp_path, origin=lambda: {"mlflow.user": "ada"})
    again = Tracker.start(uri, "E", "r", {}, tmp_path, run_id=first.run_id, origin=lambda: {"mlflow.user": "bob"})
    assert run_of(again).data.tags["mlflow.user"] == "ada"


@pytest.mark.parametrize(
    ("source", "subset", "expected"),
    [
        ("/data/a.csv", None, ("local", {"uri": "/data/a.csv"})),
        ("https://me:hunter2@host/a.csv?token=abc", None, ("http", {"url": "https://***@host/a.csv?token=***"})),
        ("s3://bucket/a.csv", None, ("s3", {"uri": "s3://bucket/a.csv"})),
        ("hub:owner/name", "de", ("hugging_face", {"path": "owner/name", "config_name": "de"})),
        ("attack", None, ("code", {"tags": {"mlflow.source.name": "attack"}})),
        ("-", None, ("code", {"tags": {"mlflow.source.name": "-"}})),
    ],
)
def test_sources_of_data(uri: str, tmp_path: Path, source: str, subset: str | None, expected: Any) -> None:
    tracker = Tracker.start(uri, "E", "r", {}, tmp_path)
    tracker.log_dataset(Dataset(source * 100, source, subset, "d" * 64, [], {}, "meta_train"))
    tracker.flush()
    found = contexts(run_of(tracker))["meta_train"]
    assert (found["source_type"], json.loads(found["source"])) == expected
    assert "hunter2" not in str(found)


def test_an_origin_that_is_not_known_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["-c"])
    assert origin(None) == {}
    assert origin("https://me:hunter2@host/a.yaml")["mlflow.source.name"] == "https://***@host/a.yaml"


def test_an_experiment_without_a_kind_gets_one_and_keeps_another(uri: str, tmp_path: Path) -> None:
    client, key = MlflowClient(uri), "mlflow.experimentKind"
    client.create_experiment("old", tags={"mine": "stays"})
    client.create_experiment("other", tags={key: "finetuning"})
    for name in ("old", "other"):
        Tracker.start(uri, name, "r", {}, tmp_path)
    tags = {name: client.get_experiment_by_name(name).tags for name in ("old", "other")}
    assert (tags["old"][key], tags["old"]["mine"], tags["other"][key]) == (
        "custom_model_development",
        "stays",
        "finetuning",
    )


def test_figures_of_the_machine_are_logged_with_the_others(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distmeta.tracking.machine.EVERY_SECONDS", 0.0)
    key = "system/cpu_utilization_percentage"
    tracker = Tracker.start(uri, "E", "r", {}, tmp_path, has_system_metrics=True)
    for step in (1, 2):
        tracker.log(step, {"loss": 1.0})
    tracker.finish()
    assert [step for step, _ in history(tracker, key)] == [0, 1]
    assert all(0 <= value <= 100 for _, value in history(tracker, key))
    again = Tracker.start(uri, "E", "r", {}, tmp_path, run_id=tracker.run_id, has_system_metrics=True)
    again.log(3, {"loss": 1.0})
    again.finish()
    assert [step for step, _ in history(again, key)] == [0, 1, 2]
    assert "system/system_memory_usage_megabytes" in run_of(again).data.metrics
    plain = Tracker.start(uri, "E", "r", {}, tmp_path / "plain")
    plain.log(1, {"loss": 1.0})
    plain.finish()
    assert list(run_of(plain).data.metrics) == ["loss"]


def test_without_psutil_the_machine_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distmeta.tracking.machine.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"tracking\.system_metrics: needs the package psutil; install it"):
        check_system(True)
    check_system(False)
