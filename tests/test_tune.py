"""Studies on Ray Tune: small, and real."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from toy import toy_config, toy_settings

from distmeta import train as driver
from distmeta.config import RunConfig
from distmeta.errors import ClusterError, ConfigError, TrainingError
from distmeta.progress import Reporter
from distmeta.settings import load_config
from distmeta.tasks.classification import Classification
from distmeta.tracking import Tracker
from distmeta.tune import study
from distmeta.tune.records import Point, Records, Trial
from distmeta.tune.trial import run_trial
from distmeta.types import Score, Stream

SPACE = {
    "algorithm.name": {"choice": ["maml", "protonet"]},
    "inner.lr": {"loguniform": [0.01, 1.0], "when": {"algorithm.name": "maml"}},
    "inner.steps": {"int": [1, 3], "when": {"algorithm.name": "maml"}},
    "outer.lr": {"loguniform": [1e-3, 1e-1]},
}
SHORT = {
    **{"outer__steps": 6, "evaluation__validation_every": 2, "evaluation__validation_episodes": 6},
    **{"tune__trials": 5, "tune__winner_seeds": 1, "tune__space": SPACE},
}


def settings(folder: Path, **overrides: Any) -> dict[str, Any]:
    return toy_settings(folder, **{**SHORT, **overrides})


def config_of(folder: Path, **overrides: Any) -> RunConfig:
    return toy_config(folder, **{**SHORT, **overrides})


def children(folder: Path, parent: str) -> dict[str, Any]:
    """The runs that MLflow holds below a study's, by name; no two of one name."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.`mlflow.parentRunId` = '{parent}'")
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("tune")
    return folder, study.start(config_of(folder), folder / "study", Reporter())


def test_a_study_leaves_its_best_configuration_ready_to_train(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, result = finished
    best = load_config(result["best"])
    values = result["winner"]["values"]
    assert (best.algorithm.name, best.outer.lr) == (values["algorithm.name"], values["outer.lr"])
    assert best.tune is None
    again = driver.train(best, folder / "again", Reporter())
    run_dir = folder / "study" / "trials" / result["winner"]["name"]
    assert again["meta_params_sha256"] == json.loads((run_dir / "evaluation.json").read_text())["meta_params_sha256"]


def test_the_winner_is_compared_with_the_settings_as_they_were(finished: tuple[Path, dict[str, Any]]) -> None:
    """On meta-test, on the same episodes; and with another seed on meta-validation."""
    folder, result = finished
    assert [row["shots"] for row in result["meta_test"]] == [1, 2]
    for row in result["meta_test"]:
        assert [its["run"] for its in row["runs"]] == ["winner", "default"]
        assert row["runs"][1]["difference_ci95"] > 0
    default = load_config(folder / "study" / "final" / "default" / "config.yaml")
    assert (default.inner.lr, default.inner.steps, default.outer.lr) == (0.1, 2, 0.01)  # of the toy
    (seed,) = result["winner_seeds"]
    assert seed["status"] == "finished"
    assert load_config(folder / "study" / "final" / seed["name"] / "config.yaml").seed == 1


def test_trials_that_came_to_their_end_are_ranked_by_their_last_meta_validation(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, result = finished
    trials = Records(folder / "study" / "trials").all()
    assert len(trials) == 5
    assert all(trial.status in ("finished", "stopped") for trial in trials)
    scores = [trial.curve[-1].score for trial in trials if trial.status == "finished"]
    assert result["winner"]["score"] == max(scores)
    for trial in trials:
        steps = [point.step for point in trial.curve]
        assert steps == [2, 4, 6][: len(steps)]
        assert (len(steps) == 3) >= (trial.status == "finished")
    with (folder / "study" / "trials.csv").open() as file:
        assert [row["trial"] for row in csv.DictReader(file)] == [trial.name for trial in trials]


def test_mlflow_shows_a_study_with_its_trials_below_it(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, result = finished
    runs = children(folder, result["mlflow_run_id"])
    trials = {trial.name: trial for trial in Records(folder / "study" / "trials").all()}
    assert set(runs) == {*trials, "default", "winner-seed-1"}
    for name, trial in trials.items():
        assert runs[name].info.status == ("FINISHED" if trial.status == "finished" else "KILLED")
        assert runs[name].data.params["outer.lr"] == json.dumps(trial.values["outer.lr"])
        assert runs[name].data.metrics["meta_validation/accuracy"] == trial.curve[-1].score
        tested = {key for key in runs[name].data.metrics if key.startswith("meta_test/")}
        assert bool(tested) == (name == result["winner"]["name"]), "meta-test is for the winner alone"
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    files = {file.path for file in client.list_artifacts(result["mlflow_run_id"])}
    assert {"best.yaml", "trials.csv", "result.json", "convergence.png", "parallel_coordinates.png"} <= files
    parent = client.get_run(result["mlflow_run_id"])
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["best/accuracy"] == result["winner"]["score"]


def test_a_trial_has_no_meta_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the trial itself, nor by the back door."""
    seen: set[str] = set()
    draw = Classification.episodes

    def watched(self: Classification, stream: Stream, *indices: int) -> Any:
        seen.add(stream.split)
        return draw(self, stream, *indices)

    monkeypatch.setattr(Classification, "episodes", watched)
    config = toy_config(tmp_path, evaluation__validation_every=2)
    driver.search(config, tmp_path / "run", Reporter(), parent="a study's run")
    assert seen == {"meta_train", "meta_validation"}
    monkeypatch.setattr("distmeta.train._validate", lambda opened, done: opened.experiment.stream("meta_test", 1))
    with pytest.raises(PermissionError, match="must not see meta-test"):
        driver.search(config, tmp_path / "other", Reporter(), parent="a study's run")


def test_a_trial_tracks_where_its_study_does(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though only the study's process may have been told, by its environment."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")  # and what a trial sets is undone
    monkeypatch.setattr("ray.tune.report", lambda figures: None)
    config = config_of(tmp_path)
    config = config.model_copy(update={"tracking": config.tracking.model_copy(update={"uri": None})})
    records = Records(tmp_path / "trials")
    records.write(Trial("trial-0000", {"outer.lr": 0.01}))
    parent = Tracker.start(uri, "Default", "study", {}, tmp_path)
    run_trial({"name": "trial-0000"}, records.folder, config, parent.run_id, None, {"MLFLOW_TRACKING_URI": uri})
    assert records.read("trial-0000").status == "finished"
    assert list(children(tmp_path, parent.run_id)) == ["trial-0000"]
    parent.finish()


def test_the_front_is_what_no_other_trial_beats_in_score_and_seconds() -> None:
    def trial(name: str, seconds: float, score: float, status: Any = "finished") -> Trial:
        return Trial(name, {}, status, curve=[Point(5, score, 0.1, seconds)])

    trials = [trial("a", 9, 0.9), trial("b", 5, 0.8), trial("c", 6, 0.7), trial("d", 1, 0.5), trial("e", 1, 0.4)]
    trials += [trial("f", 9, 0.8), trial("g", 0.5, 0.95, "stopped")]
    accuracy, mse = (Score("x", is_share=True, higher_is_better=higher) for higher in (True, False))
    assert [its.name for its in study.front(trials, accuracy)] == ["d", "b", "a"]
    assert [its.name for its in study.front(trials, mse)] == ["e"]


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no validation": ({"evaluation__validation_every": 0}, ConfigError, "evaluation.validation_every: 0, but trials"),
    "no space": ({"tune__space": {"outer.rl": {"uniform": [0, 1]}}}, ConfigError, "did you mean outer.lr"),
    "too many": (
        {"cluster__workers": 1000, "cluster__backend": "ray"},
        ClusterError,
        "cluster.workers: a trial needs 1000 CPU, the cluster has",
    ),
    "no such resource": (
        {"cluster__resources_per_worker": {"tpu": 1}},
        ClusterError,
        "a trial needs 1 tpu, the cluster has 0",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_could_never_run_is_refused_before_anything_is_written(
    case: str, tmp_path: Path, ray_session: None
) -> None:
    overrides, kind, message = REFUSED[case]
    with pytest.raises(kind, match=re.escape(message)):
        study.start(config_of(tmp_path, **overrides), tmp_path / "study", Reporter())
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("searcher", "scheduler"), [("random", "none"), ("grid", "asha")])
def test_other_searchers_and_schedulers(searcher: str, scheduler: str, tmp_path: Path, ray_session: None) -> None:
    """With workers of their own on Ray, one trial after another; a grid ends by itself."""
    space = {"outer.lr": {"choice": [0.001, 0.01, 0.1]}}
    overrides = {"tune__searcher": searcher, "tune__scheduler": scheduler, "tune__space": space, "tune__trials": 4}
    overrides |= {"cluster__backend": "ray", "cluster__workers": 1, "tune__winner_seeds": 0, "tune__concurrent": 1}
    result = study.start(config_of(tmp_path, **overrides), tmp_path / "study", Reporter())
    assert sum(result["trials"].values()) == (3 if searcher == "grid" else 4)
    assert result["trials"]["failed"] == 0
    assert (result["trials"]["stopped"] == 0) >= (scheduler == "none")


@pytest.mark.slow
def test_a_configuration_that_fails_ends_its_trial_and_not_the_study(tmp_path: Path, ray_session: None) -> None:
    space = {"inner.lr": {"choice": [0.1, 1e30, 0.2]}}
    overrides = {"tune__space": space, "tune__searcher": "grid", "tune__winner_seeds": 0, "tune__scheduler": "none"}
    result = study.start(config_of(tmp_path, **overrides), tmp_path / "study", Reporter())
    assert result["trials"] == {"finished": 2, "stopped": 0, "failed": 1}
    (failed,) = [trial for trial in Records(tmp_path / "study" / "trials").all() if trial.status == "failed"]
    assert failed.values == {"inner.lr": 1e30}
    assert "its inner loop diverged" in failed.reason
    run = children(tmp_path, result["mlflow_run_id"])[failed.name]
    assert run.info.status == "FAILED"


@pytest.mark.slow
def test_a_study_without_any_trial_that_ends_says_why(tmp_path: Path, ray_session: None) -> None:
    config = config_of(tmp_path, tune__space={"inner.lr": {"choice": [1e30]}}, tune__searcher="grid")
    with pytest.raises(TrainingError, match=r"no trial came to its end. trial-0000: task 0 .* inner loop diverged"):
        study.start(config, tmp_path / "study", Reporter())


def tune(folder: Path, *words: str) -> "subprocess.Popen[str]":
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "distmeta.cli", "tune", *words, "--json"]
    return subprocess.Popen(command, cwd=folder, start_new_session=True, **pipes)


@pytest.mark.slow
def test_a_study_that_is_killed_goes_on_and_runs_no_trial_again(tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings(tmp_path, outer__steps=60, checkpoint__every=2)))
    process = tune(tmp_path, "toy.yaml", "run_dir=study", "tune.scheduler=none")
    records = Records(tmp_path / "study" / "trials")
    while sum(trial.is_over for trial in records.all()) < 2:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = {trial.name: trial for trial in records.all()}
    over = [name for name, trial in before.items() if trial.is_over]
    assert 2 <= len(over) < 5, "it was to be killed before the end"
    out, said = tune(tmp_path, "--resume", "study").communicate(timeout=500)
    assert out, said
    result = json.loads(out)
    after = {trial.name: trial for trial in records.all()}
    assert result["trials"]["finished"] == len(after) == 5
    for name, trial in before.items():
        assert after[name].values == trial.values
        assert after[name].curve[: len(trial.curve)] == trial.curve
    assert all(after[name] == before[name] for name in over)
    runs = children(tmp_path, result["mlflow_run_id"])
    assert {name for name in runs if name.startswith("trial")} == set(after)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def trial_processes() -> list[int]:
    """Of Ray Tune's trials."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith((b"ray::ImplicitFunc", b"ray::partial", b"ray::run_trial")):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("retries", [0, 1])
def test_a_trial_whose_process_is_killed_is_tried_again(tmp_path: Path, retries: int) -> None:
    """From its last checkpoint, as often as it may be; then it has failed, and the others go on."""
    steps = 200
    overrides: dict[str, Any] = {
        "outer__steps": steps,
        "checkpoint__every": 2,
        "tune__retries": retries,
        "tune__trials": 2,
    }
    overrides |= {"tune__scheduler": "none", "tune__concurrent": 1, "tune__winner_seeds": 0}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings(tmp_path, **overrides)))
    process = tune(tmp_path, "toy.yaml", "run_dir=study")
    records = Records(tmp_path / "study" / "trials")
    while not any(trial.curve for trial in records.all()):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    (victim,) = trial_processes()
    os.kill(victim, signal.SIGKILL)
    out, said = process.communicate(timeout=500)
    assert out, said
    first, second = records.all()
    assert second.status == "finished"
    if retries:
        assert (first.status, first.curve[-1].step) == ("finished", steps)
        assert [point.step for point in first.curve] == list(range(2, steps + 1, 2))
    else:
        assert first.status == "failed"
        assert first.reason
        run = children(tmp_path, json.loads(out)["mlflow_run_id"])[first.name]
        assert (run.info.status, bool(run.data.tags["distmeta.reason"])) == ("FAILED", True)
