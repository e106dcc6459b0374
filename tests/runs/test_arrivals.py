"""Rounds as they are evaluated: regret by hand, and a stream that stops in the middle and goes on."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streams import schedule, stream_config, visit
from toy import Stopped, evaluate

from distmeta.backends import open_backend
from distmeta.engine.interfaces import Work
from distmeta.errors import CheckpointError
from distmeta.report import figures
from distmeta.report.progress import Reporter
from distmeta.runs import arrivals
from distmeta.runs import train as driver
from distmeta.runs.arrivals import edge_rows, summarise
from distmeta.runs.experiment import build_experiment


def test_regret_worked_out_by_hand() -> None:
    """Losses on arrival 1.0, 0.6, 0.5 against 0.4, 0.5, 0.3 in hindsight: regrets 0.6, 0.1, 0.2, on average 0.3."""
    columns = {
        "loss": [1.0, 0.6, 0.5],
        "independent_loss": [1.0, 0.9, 1.1],
        "final_loss": [0.4, 0.5, 0.3],
        "accuracy": [0.5, 0.7, 0.8],
        "independent_accuracy": [0.5, 0.6, 0.5],
        "learned_accuracy": [0.9, 0.8],
        "final_accuracy": [0.7, 0.8, 0.9],
    }
    rows = [{name: values[t] for name, values in columns.items() if t < len(values)} for t in range(3)]
    summary = summarise(rows, 5, "accuracy")
    expected = {
        **{"shots": 5, "regret": 0.3, "independent_regret": 0.6, "ahead_loss": 0.3, "accuracy": 2 / 3},
        **{"independent_accuracy": 1.6 / 3, "ahead_accuracy": 0.4 / 3, "earlier_accuracy": 0.75, "forgetting": 0.1},
    }
    assert {name: summary[name] for name in expected} == pytest.approx(expected)
    # Regrets differ from their mean by 0.3, −0.2, −0.1: variance 0.14 / 2; t of three is 4.303.
    assert summary["regret_ci95"] == pytest.approx(4.303 * (0.07 / 3) ** 0.5, rel=1e-3)
    # Forgotten: 0.2 and 0, so 0.1 ± 12.706 · 0.1.
    assert summary["forgetting_ci95"] == pytest.approx(12.706 * 0.1, rel=1e-3)


def run(folder: Path, name: str, **overrides: Any) -> dict[str, Any]:
    return driver.train(stream_config(folder, **overrides), folder / name, Reporter())


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("stream")
    return folder, run(folder, "straight")


def test_a_stream_leaves_its_rounds_graph_and_figures(straight: tuple[Path, dict[str, Any]]) -> None:
    folder, result = straight
    rows = result["stream"]["rounds"]
    assert [(row["round"], row["shots"]) for row in rows] == [(t, k) for t in range(4) for k in (1, 2)]
    # In the first round nothing has been learned and nothing is remembered.
    assert all(row["loss"] == row["independent_loss"] for row in rows[:2])
    assert all(row["loss"] != row["independent_loss"] for row in rows[2:])
    assert [row["shots"] for row in result["stream"]["summary"]] == [1, 2]
    with (folder / "straight" / "task_graph.csv").open(encoding="utf-8") as file:
        edges = list(csv.DictReader(file))
    assert [(edge["round"], edge["earlier_round"]) for edge in edges if edge["round"] == "1"] == [("1", "0")]
    assert len(edges) == 1 + 2 + 2
    assert sum(int(edge["replayed_episodes"]) for edge in edges) == 3 * 3 * 2
    assert (folder / "straight" / "task_graph.png").read_bytes()[:4] == b"\x89PNG"
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    history = client.get_metric_history(result["mlflow_run_id"], "stream/independent_loss_2shot")
    assert [(metric.step, metric.value) for metric in history] == [
        (3 * t, rows[2 * t + 1]["independent_loss"]) for t in range(4)
    ]
    names = {artifact.path for artifact in client.list_artifacts(result["mlflow_run_id"])}
    assert {"task_graph.png", "task_graph.csv", "stream.json"} <= names


def test_rounds_are_evaluated_under_the_theta_of_their_time(straight: tuple[Path, dict[str, Any]]) -> None:
    """On arrival, by itself from the first θ, when it has been learned, and at the end: here one by one."""
    folder, result = straight
    config = stream_config(folder)
    experiment = build_experiment(config)
    rows = {(row["round"], row["shots"]): row for row in result["stream"]["rounds"]}
    with open_backend(config.cluster) as backend:
        coordination = backend.start(experiment.setup, print)

        def loss(round: int, shots: int, neighbours: int = 2, initial: bool = False) -> float:
            stream = visit((2, shots, 2), round=round, neighbours=neighbours)
            work = Work(stream, experiment.learner, training=False)
            statistics = evaluate(coordination, work, 6, 5, initial=initial)
            return experiment.setup.families["classification"].figures(statistics)["loss"]

        coordination.advance(3)
        for shots in (1, 2):
            assert rows[0, shots]["learned_loss"] == pytest.approx(loss(0, shots))
            assert rows[1, shots]["loss"] == pytest.approx(loss(1, shots))
            assert rows[1, shots]["independent_loss"] == pytest.approx(loss(1, shots, neighbours=0, initial=True))
        coordination.advance(9)
        assert rows[1, 2]["final_loss"] == pytest.approx(loss(1, 2))
        assert "learned_loss" not in rows[3, 2]
    figures = [rows[1, 2][name] for name in ("loss", "independent_loss", "learned_loss", "final_loss")]
    assert len(set(figures)) == 4


@pytest.mark.parametrize("stop", [5, 6, 7])
def test_a_stream_stopped_in_a_round_or_between_two_goes_on_to_the_same_figures(
    straight: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    folder, expected = straight
    step, name = Reporter.step, f"stopped-{stop}"

    def stopping(self: Reporter, report: Any, total: int) -> None:
        step(self, report, total)
        if report.outer_step == stop:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "step", stopping)
        with pytest.raises(Stopped):
            run(folder, name)
    with pytest.raises(CheckpointError, match=r"evaluated with .*'shots': \[1, 2\]"):
        driver.resume(folder / name, ["evaluation.shots=[2]"], Reporter())
    resumed = driver.resume(folder / name, [], Reporter())
    for key in ("stream", "meta_params_sha256", "meta_test"):
        assert resumed[key] == expected[key]
    assert driver.evaluate(folder / name, [], Reporter())["stream"] == expected["stream"]


@pytest.mark.slow
def test_a_stream_is_the_same_on_ray(straight: tuple[Path, dict[str, Any]], ray_session: None) -> None:
    folder, expected = straight
    there = run(folder, "ray", cluster__backend="ray")
    assert there["stream"] == expected["stream"]
    assert there["meta_params_sha256"] == expected["meta_params_sha256"]


def test_lost_rounds_are_named(straight: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = straight
    experiment = build_experiment(stream_config(folder))
    missing: Any = None
    with pytest.raises(CheckpointError, match=r"stream\.json: cannot be read"):
        arrivals.Arrivals(experiment, missing, folder, missing, missing, done=4)


def test_the_graph_is_a_table_and_a_picture(tmp_path: Path) -> None:
    rows = edge_rows(schedule(neighbours=1))
    assert [(row["round"], row["earlier_round"], row["start_weight"]) for row in rows] == [
        (1, 0, 1.0), (2, 0, 1.0), (2, 1, 0.0), (3, 1, 1.0), (3, 2, 0.0)
    ]  # fmt: skip
    assert [row["similarity"] for row in rows] == pytest.approx([0.5, 1.0, 0.5, 0.75**0.5, 0.0])
    figure = figures.task_graph(["a", "b", "a"], [(1, 0, 1.0), (2, 0, 0.75), (2, 1, 0.25)], tmp_path / "graph.png")
    (axes,) = figure.axes
    assert [tuple(np.asarray(line.get_data()).tolist()) for line in axes.lines] == [
        ([1, 0], [1, 0]), ([2, 0], [0, 0]), ([2, 1], [0, 1])
    ]  # fmt: skip
    assert [line.get_linewidth() for line in axes.lines] == pytest.approx([3.3, 2.55, 1.05])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert json.dumps(rows)
