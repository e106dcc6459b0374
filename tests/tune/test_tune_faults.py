"""Studies of which trials fail, or are killed, or which are killed themselves: real processes, real signals."""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from toy import start_training
from tune_helpers import children, config_of, settings

from distmeta.errors import TrainingError
from distmeta.report.progress import Reporter
from distmeta.tune import study
from distmeta.tune.records import Records
from distmeta.tune.search import STARTUP


@pytest.mark.nightly
def test_a_configuration_that_fails_ends_its_trial_and_not_the_study(tmp_path: Path, ray_session: None) -> None:
    space = {"inner.lr": {"choice": [0.1, 1e30, 0.2]}}
    overrides: dict[str, Any] = {"tune__space": space, "tune__searcher": "grid", "tune__winner_seeds": 0}
    overrides |= {"tune__scheduler": "none", "inner__lr": 1e30}
    result = study.start(config_of(tmp_path, **overrides), tmp_path / "study", Reporter())
    assert result["trials"] == {"finished": 2, "stopped": 0, "failed": 1}
    (failed,) = [trial for trial in Records(tmp_path / "study" / "trials").all() if trial.status == "failed"]
    assert failed.values == {"inner.lr": 1e30}
    assert "its inner loop diverged" in failed.reason
    run = children(tmp_path, result["mlflow_run_id"])[failed.name]
    assert run.info.status == "FAILED"
    # The file's own settings are such.
    assert "its inner loop diverged" in result["default"]["reason"]
    assert [[run["run"] for run in row["runs"]] for row in result["meta_test"]] == [["winner"], ["winner"]]
    # Killed while the winner was evaluated.
    run_dir = tmp_path / "study" / "trials" / result["winner"]["name"]
    (run_dir / "evaluation.json").unlink()
    (run_dir / "scores-3way-2shot.json").unlink()
    assert study.resume(tmp_path / "study", Reporter()) == result


@pytest.mark.nightly
def test_a_study_without_any_trial_that_ends_says_why(tmp_path: Path, ray_session: None) -> None:
    config = config_of(tmp_path, tune__space={"inner.lr": {"choice": [1e30]}}, tune__searcher="grid")
    with pytest.raises(
        TrainingError, match=r"no trial finished. trial-0000: outer step 1: task .* its inner loop diverged"
    ):
        study.start(config, tmp_path / "study", Reporter())
    assert "its inner loop diverged" in (tmp_path / "study" / "trials.csv").read_text()


def tune(folder: Path, *words: str) -> "subprocess.Popen[str]":
    return start_training(folder, *words, command="tune")


@pytest.mark.nightly
def test_a_study_that_is_killed_comes_to_what_it_would_have_and_runs_no_trial_again(tmp_path: Path) -> None:
    """Trial by trial, where they run one after another: whoever pauses goes on, and TPE learns from the same trials."""
    trials = STARTUP + 2
    overrides: dict[str, Any] = {"outer__steps": 12, "tune__concurrent": 1, "tune__winner_seeds": 0}
    overrides["tune__trials"] = trials
    overrides |= {"tune__grace_steps": 2, "checkpoint__every": 2}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings(tmp_path, **overrides)))

    def outcome(name: str) -> list[Any]:
        trials = Records(tmp_path / name / "trials").all()
        return [(trial.values, trial.status, trial.until, [point[:3] for point in trial.curve]) for trial in trials]

    process = tune(tmp_path, "toy.yaml", "run_dir=straight")
    assert process.communicate(timeout=500)[0]
    process = tune(tmp_path, "toy.yaml", "run_dir=killed")
    records = Records(tmp_path / "killed" / "trials")
    while len(now := records.all()) < 6 or not any(trial.is_over for trial in now):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = records.all()
    assert len(before) < trials, "it was to be killed before the end"
    out, log = tune(tmp_path, "--resume", "killed").communicate(timeout=500)
    assert out, log
    assert outcome("killed") == outcome("straight")
    after = {trial.name: trial for trial in records.all()}
    assert {trial.status for trial in after.values()} == {"finished", "stopped"}
    for trial in before:  # to the second: what had been done was not done again
        assert after[trial.name].curve[: len(trial.curve)] == trial.curve
    statuses = {name: run.info.status for name, run in children(tmp_path, json.loads(out)["mlflow_run_id"]).items()}
    ends = {name: "FINISHED" if trial.status == "finished" else "KILLED" for name, trial in after.items()}
    assert {name: status for name, status in statuses.items() if name in ends} == ends
    assert set(statuses) - set(ends) <= {"default"}


def trial_processes(study_process: int) -> list[int]:
    """Of Ray Tune's trials: below the process of this study, others may be running on this machine."""
    found = []
    for one in psutil.Process(study_process).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if " ".join(one.cmdline()).startswith(("ray::ImplicitFunc", "ray::partial", "ray::run_trial")):
                found.append(one.pid)
    return found


def kill_trial(process: "subprocess.Popen[str]", records: Records, name: str, points: int, killed: set[int]) -> None:
    """Kills the process of a trial once it has so many points, and adds it to `killed`."""
    victims: list[int] = []
    while not victims:
        assert process.poll() is None, process.communicate()[1]
        if any(trial.name == name and len(trial.curve) >= points for trial in records.all()):
            victims = [one for one in trial_processes(process.pid) if one not in killed]
        time.sleep(0.05)
    (victim,) = victims
    os.kill(victim, signal.SIGKILL)
    killed.add(victim)


@pytest.mark.slow
def test_a_trial_whose_process_is_killed_is_tried_again(tmp_path: Path) -> None:
    """From its last checkpoint."""
    overrides: dict[str, Any] = {"outer__steps": 40, "checkpoint__every": 2, "tune__trials": 1, "tune__retries": 1}
    overrides |= {"tune__scheduler": "none", "tune__concurrent": 1, "tune__winner_seeds": 0}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings(tmp_path, **overrides)))
    process = tune(tmp_path, "toy.yaml", "run_dir=study")
    records = Records(tmp_path / "study" / "trials")
    kill_trial(process, records, "trial-0000", 1, set())
    before = records.all()[0].curve
    out, log = process.communicate(timeout=500)
    assert out, log
    (trial,) = records.all()
    assert trial.status == "finished"
    assert [point.step for point in trial.curve] == list(range(2, 41, 2))
    assert trial.curve[: len(before)] == before


@pytest.mark.nightly
def test_a_trial_is_tried_again_as_often_as_it_may_be(tmp_path: Path) -> None:
    """The first one is killed twice and has failed, the other once."""
    steps = 60
    overrides: dict[str, Any] = {"outer__steps": steps, "checkpoint__every": 2, "tune__trials": 2, "tune__retries": 1}
    overrides |= {"tune__scheduler": "none", "tune__concurrent": 1, "tune__winner_seeds": 0}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings(tmp_path, **overrides)))
    process = tune(tmp_path, "toy.yaml", "run_dir=study")
    records = Records(tmp_path / "study" / "trials")
    killed: set[int] = set()
    for name, points in (("trial-0000", 1), ("trial-0000", 10), ("trial-0001", 1)):
        kill_trial(process, records, name, points, killed)
    out, log = process.communicate(timeout=500)
    assert out, log
    first, second = records.all()
    assert first.status == "failed"
    assert "process" in first.reason
    assert 10 <= len(first.curve) < steps // 2
    run = children(tmp_path, json.loads(out)["mlflow_run_id"])[first.name]
    assert (run.info.status, bool(run.data.tags["distmeta.reason"])) == ("FAILED", True)
    assert second.status == "finished"
    assert [point.step for point in second.curve] == list(range(2, steps + 1, 2))
