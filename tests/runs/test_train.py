"""What a run leaves behind in MLflow and in its directory."""

import json
from pathlib import Path
from typing import Any

import pytest
from toy import toy_config

from distmeta.report.progress import Reporter
from distmeta.runs import directory, paths
from distmeta.runs import train as driver


def mlflow_run(folder: Path, run_id: str) -> tuple[Any, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    return client, client.get_run(run_id)


def test_a_run_is_all_there(tmp_path: Path) -> None:
    config = toy_config(tmp_path, evaluation__validation_every=2)
    result = driver.train(config, tmp_path / "run", Reporter())
    client, run = mlflow_run(tmp_path, result["mlflow_run_id"])
    assert run.data.params["outer.meta_batch_size"] == "5"
    assert run.data.params["data.splits.train"] == "0.5"

    def steps(key: str) -> list[int]:
        return [metric.step for metric in client.get_metric_history(run.info.run_id, key)]

    for key in ("meta_train/loss", "meta_train/accuracy", "outer/grad_norm", "time/step_seconds"):
        assert steps(key) == [1, 2, 3, 4, 5]
    assert steps("meta_validation/accuracy") == [2, 4]
    assert run.data.metrics["meta_test/accuracy_3way_2shot"] == result["meta_test"][1]["accuracy"]
    assert run.data.metrics["meta_test/accuracy_3way_2shot_ci95"] == result["meta_test"][1]["ci95"]
    assert "| 3-way 2-shot | maml, meta-trained |" in run.data.tags["mlflow.note.content"]
    names = {"adaptation_curve.png", "adaptation_curve.json", "answers.json", "config.yaml", "evaluation.json"}
    names |= {f"{kind}-3way-{shots}shot.json" for kind in ("manifest", "scores") for shots in (1, 2)}
    assert {artifact.path for artifact in client.list_artifacts(run.info.run_id)} == names
    in_run_dir = {path.name for path in (tmp_path / "run").iterdir()}
    assert in_run_dir == names | {"run.json", "tokenizer.json", "checkpoints", "learner", ".lock"}
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text()) == result
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == ["step-00000004", "step-00000005"]


def test_every_contender_meets_the_same_episodes(tmp_path: Path) -> None:
    """Without an outer step that moves θ, meta-trained is not ahead of not meta-trained by anything at all."""
    config = toy_config(tmp_path, outer__steps=1, outer__lr=1e-12)
    for row in driver.train(config, tmp_path / "run", Reporter())["meta_test"]:
        untrained = row["baselines"][0]
        assert (untrained["difference"], untrained["difference_ci95"]) == (0, 0)
        assert untrained["accuracy"] == row["accuracy"]


def test_a_prolonged_run_is_a_longer_run(tmp_path: Path) -> None:
    long = driver.train(toy_config(tmp_path, outer__steps=4), tmp_path / "long", Reporter())
    driver.train(toy_config(tmp_path, outer__steps=2), tmp_path / "short", Reporter())
    prolonged = driver.resume(tmp_path / "short", ["outer.steps=4"], Reporter())
    assert prolonged["meta_params_sha256"] == long["meta_params_sha256"]


def test_an_evaluation_leaves_scores_of_its_own_meta_parameters_alone(tmp_path: Path) -> None:
    first = driver.train(toy_config(tmp_path, outer__steps=4), tmp_path / "run", Reporter())
    other = driver.evaluate(tmp_path / "run", ["evaluation.shots=[1]"], Reporter(), step=2)
    assert other["meta_params_sha256"] != first["meta_params_sha256"]
    left = {path.name for kind in ("scores", "manifest") for path in (tmp_path / "run").glob(f"{kind}-*")}
    assert left == {"scores-3way-1shot.json", "manifest-3way-1shot.json"}
    scores = json.loads((tmp_path / "run" / "scores-3way-1shot.json").read_text())
    assert scores["meta_params_sha256"] == other["meta_params_sha256"]


def test_a_run_may_be_resumed_with_the_configuration_it_was_started_with(tmp_path: Path) -> None:
    config = toy_config(tmp_path, outer__steps=2)
    first = driver.train(config, tmp_path / "run", Reporter())
    again = driver.resume(tmp_path / "run", [], Reporter(), config)
    assert again == first


def test_a_password_in_an_address_is_not_kept(tmp_path: Path) -> None:
    config = toy_config(tmp_path, tracking__uri="https://me:secret@host:5000/mlflow")
    directory.create(tmp_path / "run", paths.absolute(config), "{}")
    written = (tmp_path / "run" / "config.yaml").read_text()
    assert "secret" not in written
    assert "uri: https://host:5000/mlflow" in written


def test_a_failed_run_is_failed_in_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Reporter, "step", fail)
    with pytest.raises(ZeroDivisionError):
        driver.train(toy_config(tmp_path), tmp_path / "run", Reporter())
    run_id = json.loads((tmp_path / "run" / "run.json").read_text())["mlflow_run_id"]
    assert mlflow_run(tmp_path, run_id)[1].info.status == "FAILED"
