"""What trials are given of a cluster, and how Ray Tune is asked to run them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tune_helpers import config_of

from distmeta.backends.ray import possible_resources
from distmeta.errors import ClusterError
from distmeta.tune import execute
from distmeta.tune.records import Point, Records, Trial


def test_a_plan_counts_machines_that_a_cluster_would_start(
    tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, cluster__workers=1, cluster__cpus_per_worker=1000, cluster__backend="ray")
    present = possible_resources()
    monkeypatch.setattr("distmeta.tune.execute.possible_resources", lambda: {**present, "CPU": 2000.0})
    assert execute.Plan.of(config).at_once == 2
    monkeypatch.setattr("distmeta.tune.execute.possible_resources", lambda: {**present, "CPU": 999.0})
    with pytest.raises(ClusterError, match="a trial needs 1000 CPU, the cluster has 999"):
        execute.Plan.of(config)


def test_what_ray_tune_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {}

    class Tuner:
        def __init__(self, trainable: Any, **given: Any) -> None:
            options.update(given)

        def fit(self) -> None: ...

    monkeypatch.setattr("ray.tune.Tuner", Tuner)
    plan = execute.Plan([{"CPU": 1.0}], 3, {"CPU": 3.0})
    config = config_of(tmp_path, tune__retries=2)
    execute.run_trials(Records(tmp_path / "trials"), config, "", plan, lambda running: iter(()), lambda trial: None)
    assert options["tune_config"].max_concurrent_trials == 3
    assert options["run_config"].failure_config.max_failures == 2


def test_a_worker_has_its_share_on_one_machine(
    tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left over on two does not add up to room for another."""
    machines = [{"Alive": True, "Resources": {"CPU": 4.0}}] * 3 + [{"Alive": False, "Resources": {"CPU": 100.0}}]
    monkeypatch.setattr("ray.nodes", lambda: machines)
    for name in ("ray.cluster_resources", "distmeta.tune.execute.possible_resources"):
        monkeypatch.setattr(name, lambda: {"CPU": 12.0})
    workers = {"cluster__backend": "ray", "cluster__cpus_per_worker": 2.5, "cluster__gpus_per_worker": 0}
    assert execute.Plan.of(config_of(tmp_path, **workers, cluster__workers=1)).at_once == 3
    with pytest.raises(ClusterError, match="a trial has 4 workers, and the machines of the cluster have room for 3"):
        execute.Plan.of(config_of(tmp_path, **workers, cluster__workers=4))


def test_a_trial_whose_process_never_began_has_failed(tmp_path: Path) -> None:
    """As where it could not be placed after all; one that had come to its end is what it was."""
    records, over = Records(tmp_path / "trials"), list[Trial]()
    records.write(Trial("waiting", {}))
    records.write(Trial("done", {}, "finished", curve=[Point(5, 0.5, 0.1, 1.0)]))
    callback = execute.ResultCallback(records, set(), over.append)
    path = tmp_path / "error.txt"
    path.write_text("Failure # 1\nTraceback …\nRuntimeError: no room\n\n")
    for name in ("waiting", "done"):
        callback.on_trial_error(1, [], SimpleNamespace(config={"name": name}, error_file=str(path)))
    assert [(trial.status, trial.reason) for trial in over] == [("failed", "RuntimeError: no room"), ("finished", "")]
    assert [records.read(trial.name) for trial in over] == over
    records.write(Trial("lost", {}))
    callback.on_trial_error(1, [], SimpleNamespace(config={"name": "lost"}, error_file=None))
    assert over[-1].reason == "its process was lost"


def test_a_trial_runs_until_its_process_has_ended(tmp_path: Path) -> None:
    """The queue is told which are running, to give none of them again."""
    records, running = Records(tmp_path / "trials"), set[str]()
    records.write(Trial("one", {}, "finished", curve=[Point(5, 0.5, 0.1, 1.0)]))
    queue = execute.TrialQueue(iter(["one", None]), running)
    callback = execute.ResultCallback(records, running, lambda trial: None)
    assert (queue.suggest("a"), queue.suggest("b"), queue.suggest("c")) == ({"name": "one"}, None, "FINISHED")
    callback.on_trial_result(1, [], SimpleNamespace(config={"name": "one"}), {})
    assert running == {"one"}
    callback.on_trial_complete(1, [], SimpleNamespace(config={"name": "one"}))
    assert running == set()
