"""Studies on Ray Tune: small, and real."""

import csv
import json
import re
from pathlib import Path
from typing import Any, cast

import pytest
from mlflow import MlflowClient
from toy import toy_config
from tune_helpers import ACCURACY, children, config_of

from distmeta.config import TrackingConfig
from distmeta.config.load import load_config
from distmeta.errors import ClusterError, ConfigError
from distmeta.report.progress import Reporter
from distmeta.runs import directory, paths
from distmeta.runs import train as driver
from distmeta.tasks.classification import Classification
from distmeta.tracking import Tracker
from distmeta.tune import study
from distmeta.tune.execute import Plan
from distmeta.tune.records import Point, Records, Status, Trial, front
from distmeta.tune.space import Space
from distmeta.tune.trial import run_trial
from distmeta.types import Score, Stream


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
    assert [row["shape"]["shots"] for row in result["meta_test"]] == [1, 2]
    for row in result["meta_test"]:
        assert [run["run"] for run in row["runs"]] == ["winner", "default"]
        assert (row["runs"][1]["difference_ci95"] > 0) == (not result["winner"]["is_default"])
    first = Records(folder / "study" / "trials").read("trial-0000")
    default = "trials/trial-0000" if first.status == "finished" else "final/default"
    own = load_config(folder / "study" / default / "config.yaml")
    assert (own.inner.lr, own.inner.steps, own.outer.lr) == (0.1, 2, 0.01)  # of the toy
    assert (folder / "study" / default / "evaluation.json").exists()
    assert first.values == {"algorithm.name": "maml", "inner.lr": 0.1, "inner.steps": 2, "outer.lr": 0.01}
    assert result["winner"]["is_default"] == (result["winner"]["name"] == first.name)
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
    needed = {"default"} - ({"default"} if trials["trial-0000"].status == "finished" else set())
    assert set(runs) == {*trials, *needed, "winner-seed-1"}
    for name, trial in trials.items():
        assert runs[name].info.status == ("FINISHED" if trial.status == "finished" else "KILLED")
        assert runs[name].data.params["outer.lr"] == json.dumps(trial.values["outer.lr"])
        assert runs[name].data.metrics["meta_validation/accuracy"] == trial.curve[-1].score
        tested = {key for key in runs[name].data.metrics if key.startswith("meta_test/")}
        is_default = name == "trial-0000" and not needed
        assert bool(tested) == (name == result["winner"]["name"] or is_default), "meta-test is for these alone"
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    files = {file.path for file in client.list_artifacts(result["mlflow_run_id"])}
    assert {"best.yaml", "trials.csv", "result.json", "convergence.png", "parallel_coordinates.png"} <= files
    parent = client.get_run(result["mlflow_run_id"])
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["best/accuracy"] == result["winner"]["score"]
    best, default = result["meta_test"][0]["runs"]
    description = parent.data.tags["mlflow.note.content"]
    assert (
        f"3-way 1-shot accuracy of the best: {100 * best['accuracy']:.1f} ± {100 * best['ci95']:.1f} %" in description
    )
    if not result["winner"]["is_default"]:
        assert f"difference from the settings of the file: {100 * default['difference']:+.1f}" in description


def test_a_study_that_is_over_is_resumed_without_running_a_trial_again(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, result = finished
    records = Records(folder / "study" / "trials")
    before = [(trial.name, trial.status, trial.curve) for trial in records.all()]
    assert study.resume(folder / "study", Reporter()) == result
    assert [(trial.name, trial.status, trial.curve) for trial in records.all()] == before


def test_a_trial_has_no_meta_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the trial itself, nor by the back door."""
    seen: set[str] = set()
    draw = Classification.draw

    def watched(self: Classification, stream: Stream, index: int) -> Any:
        seen.add(stream.split)
        return draw(self, stream, index)

    monkeypatch.setattr(Classification, "draw", watched)
    config = toy_config(tmp_path, evaluation__validation_every=2)
    driver.train_trial(config, tmp_path / "run", Reporter(), parent="a study's run")
    assert seen == {"meta_train", "meta_validation"}
    monkeypatch.setattr(
        "distmeta.runs.train._validate", lambda opened, done: opened.experiment.evaluated("classification", "meta_test")
    )
    with pytest.raises(PermissionError, match="must not see meta-test"):
        driver.train_trial(config, tmp_path / "other", Reporter(), parent="a study's run")


def test_a_trial_tracks_where_its_study_does(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though only the study's process may have been told, by its environment."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere.db")  # and what a trial sets is undone
    monkeypatch.setattr("ray.tune.report", lambda figures: None)
    config = config_of(tmp_path)
    config = config.model_copy(update={"tracking": config.tracking.model_copy(update={"uri": None})})
    records = Records(tmp_path / "trials")
    records.write(Trial("trial-0000", {"outer.lr": 0.01}))
    parent = Tracker.start(uri, "Default", "study", {}, tmp_path)
    run_trial({"name": "trial-0000"}, records.folder, config, parent.run_id, {"MLFLOW_TRACKING_URI": uri})
    assert records.read("trial-0000").status == "finished"
    assert list(children(tmp_path, parent.run_id)) == ["trial-0000"]
    parent.finish()


def test_settings_that_are_written_down_hold_no_password(tmp_path: Path) -> None:
    """Neither a run's own nor a study's best."""
    config = config_of(tmp_path)
    config = config.model_copy(update={"tracking": TrackingConfig(uri="http://me:secret@host:5000")})
    directory.write_config(tmp_path / "best.yaml", config, leave_out=("tune", "run_dir"))
    assert "secret" not in (tmp_path / "best.yaml").read_text()
    best = load_config(str(tmp_path / "best.yaml"))
    assert (best.tracking.uri, best.tune) == ("http://host:5000", None)


def test_the_front_is_what_no_other_trial_beats_in_score_and_seconds() -> None:
    def trial(name: str, seconds: float, score: float, status: Any = "finished") -> Trial:
        return Trial(name, {}, status, curve=[Point(5, score, 0.1, seconds)])

    trials = [trial("a", 9, 0.9), trial("b", 5, 0.8), trial("c", 6, 0.7), trial("d", 1, 0.5), trial("e", 1, 0.4)]
    trials += [trial("f", 9, 0.8), trial("g", 0.5, 0.95, "stopped")]
    accuracy, mse = (Score("x", is_share=True, higher_is_better=higher) for higher in (True, False))
    assert front(trials, accuracy) == ["d", "b", "a"]
    assert front(trials, mse) == ["e"]


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no validation": ({"evaluation__validation_every": 0}, ConfigError, "evaluation.validation_every: 0, but trials"),
    "no space": ({"tune__space": {"outer.rl": {"uniform": [0, 1]}}}, ConfigError, "did you mean outer.lr"),
    "space, before data are loaded": (
        {"tune__space": {"outer.rl": {"uniform": [0, 1]}}, "data__path": "nowhere.csv"},
        ConfigError,
        "did you mean outer.lr",
    ),
    "data from a pipe": (
        {"data__path": "-"},
        ConfigError,
        "data.path: each trial reads the data, and a pipe can be read once; give them as a file",
    ),
    "more ways than classes": (
        {"tune__space": {"episodes.ways": {"choice": [3, 100]}}},
        ConfigError,
        "classes for episodes of 100 ways; set episodes.ways=10",
    ),
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


def test_a_study_that_is_stopped_says_of_no_trial_that_it_runs(
    tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def search(self: study.Study) -> list[Trial]:
        records = Records(tmp_path / "study" / "trials")
        for name, status in (("done", "finished"), ("busy", "running"), ("paused", "waiting"), ("next", "waiting")):
            records.write(Trial(name, {}, cast("Status", status)))
            if name != "next":
                seen.append(self.tracker.run_id)
                folder = records.run_dir(name)
                tracker = Tracker.start(
                    str(self.config.tracking.uri), "Default", name, {}, folder, tags={"mlflow.parentRunId": seen[0]}
                )
                directory.create(folder, self.config, None)
                directory.write_json(folder / directory.RUN, {"mlflow_run_id": tracker.run_id})
                if name != "busy":
                    tracker.finish()
        raise KeyboardInterrupt

    monkeypatch.setattr(study.Study, "search", search)
    with pytest.raises(KeyboardInterrupt):
        study.start(config_of(tmp_path), tmp_path / "study", Reporter())
    ends = {name: run.info.status for name, run in children(tmp_path, seen[0]).items()}
    assert ends == {"done": "FINISHED", "busy": "KILLED", "paused": "KILLED"}


def test_a_trial_that_was_over_before_its_study_was_resumed_ends_in_mlflow_too(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study was killed between the trial's record and MLflow."""
    monkeypatch.setattr("distmeta.tune.study.run_trials", lambda *rest: None)
    config = config_of(tmp_path, tracking__uri=uri)
    records = Records(tmp_path / "study" / "trials")
    records.write(Trial("lost", {}, "failed", "its process was lost"))
    folder = records.run_dir("lost")
    tracker = Tracker.start(uri, "Default", "lost", {}, folder)
    directory.create(folder, config, None)
    directory.write_json(folder / directory.RUN, {"mlflow_run_id": tracker.run_id})
    plan = Plan([{"CPU": 1.0}], 1, {"CPU": 1.0})
    resumed = study.Study(config, Space(config), ACCURACY, tmp_path / "study", plan, tracker, Reporter())
    resumed._run(records, lambda running: iter(()), 1)
    run = MlflowClient(uri).get_run(tracker.run_id)
    assert (run.info.status, run.data.tags["distmeta.reason"]) == ("FAILED", "its process was lost")


def test_folders_in_a_space_are_those_of_the_directory_where_the_study_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    space = {"model.path": {"choice": ["one", None, "package:its/model"]}, "outer.lr": {"uniform": [0, 1]}}
    config = config_of(tmp_path, tune__space=space)
    assert config.tune
    found = paths.absolute(config).tune
    assert found
    assert found.space["model.path"].choice == [str(tmp_path / "one"), None, "package:its/model"]
    assert found.space["outer.lr"] == config.tune.space["outer.lr"]


@pytest.mark.nightly
@pytest.mark.parametrize(("searcher", "scheduler"), [("random", "none"), ("grid", "asha")])
def test_other_searchers_and_schedulers(searcher: str, scheduler: str, tmp_path: Path, ray_session: None) -> None:
    """One trial after another, those of a grid with a worker of their own on Ray; a grid ends by itself."""
    space = {"outer.lr": {"choice": [0.001, 0.01, 0.1]}}
    overrides: dict[str, Any] = {"tune__searcher": searcher, "tune__scheduler": scheduler, "tune__space": space}
    overrides |= {"tune__trials": 9 if searcher == "grid" else 3}
    overrides |= {"tune__winner_seeds": 0, "tune__concurrent": 1, "cluster__workers": 1}
    overrides |= {"cluster__backend": "ray" if searcher == "grid" else "inprocess"}
    result = study.start(config_of(tmp_path, **overrides), tmp_path / "study", Reporter())
    assert sum(result["trials"].values()) == 3
    assert result["trials"]["failed"] == 0
    assert (result["trials"]["stopped"] == 0) >= (scheduler == "none")
