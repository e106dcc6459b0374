"""The script that makes tables of many runs, on toy runs."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from toy import toy_settings

from distmeta.config.load import load_config
from distmeta.runs.settings import make_learner, make_model_options

ROOT = Path(__file__).parents[2]
JOBS = ROOT / "jobs"


@pytest.fixture(scope="module")
def leaderboard() -> ModuleType:
    spec = importlib.util.spec_from_file_location("leaderboard", JOBS / "leaderboard.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_mean_over_splits_and_its_interval(leaderboard: ModuleType) -> None:
    """(80 + 90) / 2 = 85, √(3² + 4²) / 2 = 2.5; of the baseline 50 and √(0 + 2²) / 2 = 1."""
    rows = [
        {"accuracy": 0.8, "ci95": 0.03, "baselines": [{"accuracy": 0.4, "ci95": 0.0}]},
        {"accuracy": 0.9, "ci95": 0.04, "baselines": [{"accuracy": 0.6, "ci95": 0.02}]},
    ]
    assert leaderboard.show(rows, 0) == "85.0 ± 2.5"
    assert leaderboard.show(rows, 1) == "50.0 ± 1.0"
    assert leaderboard.show([{"mse": 0.5, "ci95": 0.25}], 0) == "0.50 ± 0.25"
    rows[0]["baselines"] = [{"accuracy": None, "ci95": None, "diverged": "task 3"}]
    assert leaderboard.show(rows, 1) == "diverged"


def stream_run(losses: list[float], best: list[float], accuracies: list[float]) -> dict[str, Any]:
    """A run of three rounds, adapted to one example and to two; what is made of two is nonsense."""
    rounds = [
        {
            "shots": 1,
            "loss": loss,
            "final_loss": last,
            "accuracy": accuracy,
            "final_accuracy": accuracy + 0.1,
            "independent_loss": 2 * loss,
            "independent_accuracy": accuracy - 0.2,
        }
        for loss, last, accuracy in zip(losses, best, accuracies, strict=True)
    ]
    return {"stream": {"rounds": [{**row, "shots": 2, "loss": 99.0} for row in rounds] + rounds}}


def test_figures_of_a_stream(leaderboard: ModuleType) -> None:
    """Regret against the first row's hindsight: mean of 1 − 0.5, 2 − 1, 3 − 0; kept: without the last round."""
    own = stream_run([1, 2, 3], [9, 9, 9], [0.5, 0.6, 0.7])
    first = stream_run([7, 7, 7], [0.5, 1, 0], [0.1, 0.1, 0.1])
    assert leaderboard.stream_figures(own, first, "") == pytest.approx((1.5, 60, 65))
    assert leaderboard.stream_figures(own, first, "independent_") == pytest.approx((3.5, 40, 65))


def test_a_table_of_streams_has_intervals_over_seeds(leaderboard: ModuleType) -> None:
    """Two seeds: t = 12.706 at one degree of freedom; √2 · 0.1 / √2 = 0.1 is the error of regrets 0.4 and 0.6."""
    runs = [stream_run([1, 1, 1], [1 - regret] * 3, [0.5] * 3) for regret in (0.4, 0.6)]
    other = [stream_run([2, 2, 2], [0, 0, 0], [accuracy] * 3) for accuracy in (0.2, 0.4)]
    results = {("online", "A"): runs, ("plain", "A"): other}
    title, online, plain, alone = leaderboard.streams(results, ["online", "plain"], ["A"])
    assert title == ["", "A regret", "A accuracy", "A kept"]
    assert online == ["online", "0.500 ± 1.271", "50.0 ± 0.0", "60.0 ± 0.0"]
    assert plain == ["plain", "1.500 ± 1.271", "30.0 ± 127.1", "40.0 ± 127.1"]
    assert alone == ["online, each task by itself", "1.500 ± 1.271", "30.0 ± 0.0", ""]


@pytest.mark.nightly
def test_a_table_of_two_rows_is_run_once(
    leaderboard: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = toy_settings(tmp_path, outer__steps=1, evaluation__curve_steps=0)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    table = {
        "config": str(tmp_path / "toy.yaml"),
        "splits": [1, 2],
        "rows": {"MAML": [], "prototypes": ["algorithm.name=protonet", "inner={}", "tracking.experiment={first}"]},
    }
    made = leaderboard.make(table, tmp_path / "runs", ["outer.lr=0.02"])
    lines = made.splitlines()
    names = [line.split(" | ")[0] for line in lines]
    assert names == [
        *("| ", "| ---", "| MAML", "| prototypes"),
        *("| fine-tuned head, frozen encoder", "| prototypes, frozen encoder"),
    ]
    assert lines[0] == "|  | 1-shot | 2-shot | seconds |"
    results = [json.loads((tmp_path / "runs" / f"maml-{n}" / "evaluation.json").read_text()) for n in (1, 2)]
    mean = sum(100 * result["meta_test"][0]["accuracy"] for result in results) / 2
    assert f"| MAML | {mean:.1f} ±" in lines[2]
    config = yaml.safe_load((tmp_path / "runs" / "prototypes-2" / "config.yaml").read_text())
    assert (config["data"]["split"], config["outer"]["lr"]) == ("2", 0.02)
    assert config["tracking"]["experiment"] == str(tmp_path / "runs" / "maml-2")
    monkeypatch.setattr(leaderboard.subprocess, "run", None)  # nothing more is run
    assert leaderboard.make(table, tmp_path / "runs", ["outer.lr=0.02"]) == made


@pytest.mark.nightly
def test_a_stopped_run_goes_on(leaderboard: ModuleType, tmp_path: Path) -> None:
    settings = toy_settings(tmp_path, outer__steps=4, evaluation__curve_steps=0)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    table = {"config": str(tmp_path / "toy.yaml"), "rows": {"MAML, rate 0.5": []}}
    leaderboard.make(table, tmp_path / "runs", [])
    run = tmp_path / "runs" / "maml_rate_0.5"
    first = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation.json").unlink()
    leaderboard.make(table, tmp_path / "runs", [])
    again = json.loads((run / "evaluation.json").read_text())
    assert again["meta_params_sha256"] == first["meta_params_sha256"]
    assert "going on from outer step 4" in (tmp_path / "runs" / "maml_rate_0.5.log").read_text()


def test_a_run_that_fails_ends_the_table(leaderboard: ModuleType, tmp_path: Path) -> None:
    table = {"config": str(tmp_path / "none.yaml"), "rows": {"MAML, rate 0.5": []}}
    with pytest.raises(SystemExit, match="exit code 2"):
        leaderboard.make(table, tmp_path / "runs", [])


def test_every_row_of_every_table_is_a_configuration() -> None:
    tables = yaml.safe_load((JOBS / "leaderboard.yaml").read_text(encoding="utf-8"))
    for table in tables.values():
        for where in table.get("columns", {"": []}).values():
            for its in table["rows"].values():
                config = load_config(ROOT / table["config"], [*table.get("settings", []), *where, *its])
                make_learner(config)
                make_model_options(config)
