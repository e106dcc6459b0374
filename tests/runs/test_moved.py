"""A project that was moved: what lies around a run is found again."""

from pathlib import Path

import pytest
from toy import run, toy_config, write_data

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
