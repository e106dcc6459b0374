"""A project that was moved: what lies around a run is found again."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from toy import run, toy_config, toy_settings, write_data

from distmeta.config.load import validate
from distmeta.errors import UserError
from distmeta.report.progress import Reporter
from distmeta.runs import directory
from distmeta.runs import train as driver


def test_a_run_goes_on_where_its_project_was_moved_to(tmp_path: Path) -> None:
    """Data and database were beside it; a file that is elsewhere is given, and must have the same content."""
    (before := tmp_path / "project").mkdir()
    first = run(before, "runs/run", outer__steps=1)
    moved = before.rename(tmp_path / "elsewhere")
    again = driver.evaluate(moved / "runs" / "run", [], Reporter())
    assert again["meta_test"] == first["meta_test"]
    assert again["mlflow_run_id"] == first["mlflow_run_id"]

    data = (moved / "data.csv").rename(tmp_path / "other.csv")
    with pytest.raises(UserError, match=r"data\.csv"):
        driver.evaluate(moved / "runs" / "run", [], Reporter())
    assert driver.resume(moved / "runs" / "run", [f"data.path={data}"], Reporter())["outer_steps"] == 1
    data.write_text(data.read_text().replace("topic", "subject"))
    with pytest.raises(UserError, match="was made with other data"):
        driver.evaluate(moved / "runs" / "run", [f"data.path={data}"], Reporter())


def test_what_is_still_there_is_not_looked_for(tmp_path: Path) -> None:
    """A file of the same name nearer to the run counts only if the file of before is gone."""
    config = toy_config(tmp_path)
    (tmp_path / "other" / "runs").mkdir(parents=True)
    write_data(tmp_path / "other" / "data.csv")
    directory.create(run_dir := tmp_path / "other" / "runs" / "run", config, None, {"mlflow_run_id": "abc"})
    assert directory.read(run_dir, [])[0].data.path == str(tmp_path / "data.csv")
    (tmp_path / "data.csv").unlink()
    assert directory.read(run_dir, [])[0].data.path == str(tmp_path / "other" / "data.csv")
    given = directory.read(run_dir, [f"data.path={tmp_path}/data.csv", "tracking.uri=sqlite:////none/mlflow.db"])[0]
    assert (given.data.path, given.tracking.uri) == (f"{tmp_path}/data.csv", "sqlite:////none/mlflow.db")


class Notes(Reporter):
    """Keeps what is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_nothing_is_written_to_the_place_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Artifacts and tokenised texts are beside the run, and MLflow finds the artifacts of before there."""
    (before := tmp_path / "project").mkdir()
    run_id = run(before, "runs/run", outer__steps=1)["mlflow_run_id"]
    moved = before.rename(tmp_path / "elsewhere")
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._artifact_repos_cache", {})  # of another process
    reporter = Notes()
    found = directory.resolve(run_id, [f"tracking.uri=sqlite:///{moved}/mlflow.db"])
    assert found == moved / "runs" / "run"
    driver.evaluate(found, [], reporter)
    assert not before.exists()
    places = ", ".join(f"{moved}/{name}" for name in ("mlflow.db", "cache", "data.csv"))
    assert [note for note in reporter.notes if "moved" in note] == [
        f"note: the run was moved; found beside it: {places}",
        f"note: {moved}/mlflow.db was moved; its artifacts are in {moved}/mlartifacts, no longer in "
        f"file://{before}/mlartifacts",
    ]
    client = MlflowClient(f"sqlite:///{moved}/mlflow.db")
    assert client.get_run(run_id).info.artifact_uri == f"file://{moved}/mlartifacts/{run_id}/artifacts"
    assert "config.yaml" in [file.path for file in client.list_artifacts(run_id)]
    again = Notes()
    driver.evaluate(found, [], again)
    assert not [note for note in again.notes if "artifacts" in note]


def test_the_directory_of_another_run_is_not_taken_for_the_moved_one(tmp_path: Path) -> None:
    (before := tmp_path / "project").mkdir()
    run_id = run(before, "runs/run", outer__steps=0)["mlflow_run_id"]
    moved = before.rename(tmp_path / "elsewhere")
    about = moved / "runs" / "run" / "run.json"
    about.write_text(about.read_text().replace(run_id, "abc"))
    with pytest.raises(UserError, match=f"{run_id}: .*/runs/run is the directory of another run; give its run dir"):
        directory.resolve(run_id, [f"tracking.uri=sqlite:///{moved}/mlflow.db"])


@pytest.mark.parametrize("key", ["data.path", "data.splits", "data.cache"])
def test_where_the_data_of_one_family_is_may_change(key: str, tmp_path: Path) -> None:
    settings = toy_settings(tmp_path)
    family = {name: settings.pop(name) for name in ("data", "episodes")}
    config = validate({**settings, "tasks": {"mine": family}})
    directory.create(run_dir := tmp_path / "run", config, None, {"mlflow_run_id": "abc"})
    read, _ = directory.read(run_dir, [f"tasks.mine.{key}={tmp_path}/other"])
    assert getattr(read.tasks["mine"].data, key.removeprefix("data.")) == f"{tmp_path}/other"
    for other in ("tasks.mine.data.text=x", "tasks.mine.episodes.ways=2", "tasks.mine.weight=2"):
        with pytest.raises(UserError, match="cannot change in a run that has begun"):
            directory.read(run_dir, [other])
