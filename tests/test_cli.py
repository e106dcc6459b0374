"""The command line as a shell sees it: what goes where, exit codes, and what is left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from toy import toy_config, toy_settings

from distmeta import cli
from distmeta.errors import ConfigError
from distmeta.runs import directory

DISTMETA = [sys.executable, "-m", "distmeta.cli"]
RAY_CLUSTER_FILE = Path("/tmp/ray/ray_current_cluster")


def settings(folder: Path, **overrides: Any) -> str:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(toy_settings(folder, **overrides)))
    return str(path)


def run(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*DISTMETA, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["train", "check", "tune", "submit"])
@pytest.mark.parametrize(
    ("text", "setting", "said"),
    [
        ("outer: {stepz: 3}", "seed=1", "outer.stepz: unknown key; did you mean outer.steps?"),
        ("outer: {steps: 3", "seed=1", "not valid YAML"),
        ("outer: {steps: 3}", "outer.lr=-1", "outer.lr: "),
    ],
)
def test_wrong_settings_are_told_of_before_torch_is_imported(
    command: str, text: str, setting: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(text)
    words = [command, "config.yaml", setting, *(["--address", "http://127.0.0.1:9"] if command == "submit" else [])]
    imported, err = imports_of(words, tmp_path)
    assert said in err
    assert len(err.splitlines()) == 1
    assert not imported & {"torch", "ray", "mlflow", "numpy"}


@pytest.mark.parametrize("words", [["train", "--resume", "run"], ["evaluate", "run"]])
@pytest.mark.parametrize(
    ("setting", "said"),
    [("cluster.wrkers=2", "cluster.wrkers: unknown key; did you mean"), ("outer.lr=2", "outer.lr: cannot change in")],
)
def test_what_cannot_change_is_told_of_before_torch_is_imported(
    words: list[str], setting: str, said: str, tmp_path: Path
) -> None:
    directory.create(tmp_path / "run", toy_config(tmp_path), None, {"mlflow_run_id": "abc"})
    imported, err = imports_of([*words, setting], tmp_path)
    assert said in err
    assert len(err.splitlines()) == 1
    assert not imported & {"torch", "ray", "mlflow"}


def imports_of(words: list[str], cwd: Path) -> tuple[set[str], str]:
    """The modules that a command has imported when it ends, and what it said."""
    code = "import sys\nfrom distmeta import cli\nsys.argv = ['distmeta', *sys.argv[1:]]\n"
    code += "try:\n    cli.main()\nfinally:\n    print('\\nmodules', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=cwd, capture_output=True, text=True, check=False)
    return set(done.stdout.rpartition("\nmodules ")[2].split()), done.stderr


def test_runs_are_compared_without_torch(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        content: dict[str, Any] = {
            "family": "toy",
            "shape": {"ways": 5, "shots": 1},
            "title": "5-way 1-shot",
            "manifest_sha256": "m",
        }
        content |= {"scores": [0.25, 0.5]}
        content |= {"format": 1, "meta_params_sha256": "t"}
        content["score"] = {"name": "accuracy", "is_share": True, "higher_is_better": True}
        (tmp_path / name / "scores-5way-1shot.json").write_text(json.dumps(content))
    imported, err = imports_of(["compare", "a", "b"], tmp_path)
    assert "37.5" in err
    assert "scipy" in imported
    assert not imported & {"torch", "ray", "mlflow"}


Called = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Called:
    """As `run`, in this process, which has imported everything: the exit code and what was printed."""

    def called(*words: str, cwd: Path) -> tuple[int, str, str]:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["distmeta", *words])
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0), *capfd.readouterr()

    return called


def test_json_is_one_object_on_stdout_and_the_rest_is_on_stderr(tmp_path: Path, call: Called) -> None:
    here = ["data.path=data.csv", "tracking.uri=null", "outer.steps=2", "run_dir=run"]
    result = run("train", settings(tmp_path), *here, "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    assert printed["run_dir"] == "run"
    assert printed["outer_steps"] == 2
    assert [(row["title"], row["episodes"]) for row in printed["meta_test"]] == [
        ("3-way 1-shot", 12),
        ("3-way 2-shot", 12),
    ]
    assert [row["shape"] for row in printed["meta_test"]] == [
        {"ways": 3, "shots": shots, "queries": 2} for shots in (1, 2)
    ]
    assert "outer steps 2/2" in result.stderr
    assert "3-way 2-shot" in result.stderr
    for row in printed["meta_test"]:
        manifest = tmp_path / "run" / f"manifest-3way-{row['shape']['shots']}shot.json"
        assert len(json.loads(manifest.read_text())["episodes"]) == 12
    code, out, err = call("compare", "run", printed["mlflow_run_id"], "--json", cwd=tmp_path)
    assert code == 0, err
    for row, shown in zip(printed["meta_test"], json.loads(out)["meta_test"], strict=True):
        figures = {"accuracy": row["accuracy"], "ci95": row["ci95"], "difference": 0.0, "difference_ci95": 0.0}
        assert [{**its, "run": ""} for its in shown["runs"]] == [{**figures, "run": ""}] * 2
    store = f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"
    (elsewhere := tmp_path / "elsewhere").mkdir()
    code, out, err = call("evaluate", printed["mlflow_run_id"], store, "--json", cwd=elsewhere)
    assert code == 0, err
    assert json.loads(out)["meta_test"] == printed["meta_test"]


def test_without_json_stdout_is_empty(tmp_path: Path, call: Called) -> None:
    code, out, err = call("check", settings(tmp_path), cwd=tmp_path)
    assert (code, out) == (0, "")
    assert "adapted to each task: body.embedding.weight" in err
    assert "plan: inprocess" in err


def test_check_starts_and_writes_nothing(tmp_path: Path) -> None:
    path = settings(tmp_path, cluster__backend="ray", tracking__uri=f"sqlite:///{tmp_path}/new.db")
    result = run("check", path, "--json", cwd=tmp_path)
    plan = json.loads(result.stdout)
    assert plan["plan"]["workers"] == 2
    assert [len(split["classes"]) for split in plan["splits"].values()] == [8, 4, 4]
    assert {p.name for p in tmp_path.iterdir()} == {"config.yaml", "data.csv", "cache", "mlflow.db"}


def test_check_looks_at_a_study_too(tmp_path: Path, call: Called) -> None:
    space = "tune={trials: 4, space: {inner.steps: {choice: [1, 2]}, episodes.shots: {choice: [1, %d]}}}"
    words = ("check", settings(tmp_path), "evaluation.validation_every=1", "--json")
    _, out, _ = call(*words, space % 2, cwd=tmp_path)
    study = {"trials": 4, "keys": ["inner.steps", "episodes.shots"], "score": "accuracy"}
    assert json.loads(out)["study"] == study
    code, out, err = call(*words, space % 500, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert "episodes.shots" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (1, r"outer step 1: task 4 \((class \d\d, ){2}class \d\d\) was rejected, its inner loop diverged: the loss "),
        (0, r"meta_test task 0 \((class \d\d, ){2}class \d\d\) and 11 more: its inner loop diverged: the loss "),
    ],
)
def test_an_inner_loop_that_diverges_on_ray_ends_in_one_line_that_names_its_task(
    steps: int,
    message: str,
    tmp_path: Path,
    ray_session: None,
    call: Called,
) -> None:
    """In meta-training, and in the first unit of meta-test. `check` could not have found it, so the exit code is 1."""
    cluster = {"backend": "ray", "workers": 1}
    path = settings(tmp_path, cluster=cluster, inner__lr=1e30, outer__steps=steps, run_dir=str(tmp_path / "run"))
    code, out, err = call("train", path, cwd=tmp_path)
    assert (code, out) == (1, "")
    assert re.match(f"distmeta: {message}", err.splitlines()[-1]), err
    assert "Traceback" not in err


def test_nothing_heavy_is_imported_for_help() -> None:
    code = "import sys, distmeta.cli as c; sys.argv = ['distmeta', '--help']\ntry: c.main()\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'ray', 'mlflow', 'pydantic'} & set(sys.modules), sys.modules.keys()"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def marked(mark: str) -> list[int]:
    """Processes that inherited an environment variable."""
    # None of other users' processes.
    return [one.pid for one in psutil.process_iter(["environ"]) if mark in (one.info["environ"] or {}).values()]


@pytest.mark.nightly
@pytest.mark.parametrize("ending", ["success", "error", "ctrl-c"])
def test_nothing_is_left_behind(tmp_path: Path, ending: str) -> None:
    """No process, no actor, no cluster file, and MLflow knows how the run ended."""
    mark = uuid.uuid4().hex
    before = RAY_CLUSTER_FILE.exists()
    options: dict[str, Any] = {"outer__steps": 3 if ending == "success" else 100_000, "checkpoint__every": 2}
    if ending == "error":  # a rate at which the inner loop overflows
        options["inner__lr"] = 1e30
    path = settings(tmp_path, cluster__backend="ray", **options)
    process = subprocess.Popen(
        [*DISTMETA, "train", path, "run_dir=run"],
        cwd=tmp_path,
        env={**os.environ, "DISTMETA_TEST_MARK": mark},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if ending == "ctrl-c":
        deadline = time.monotonic() + 100
        while not list((tmp_path / "run" / "checkpoints").glob("step-*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    _, err = process.communicate(timeout=100)
    assert process.returncode == {"success": 0, "error": 1, "ctrl-c": 130}[ending], err
    if ending == "ctrl-c":
        assert "Traceback" not in err
        assert "--resume" in err
    if ending == "error":
        assert "was rejected" in err
        assert "Traceback" not in err
    deadline = time.monotonic() + 10
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []
    assert RAY_CLUSTER_FILE.exists() == before

    from mlflow import MlflowClient

    run_id = json.loads((tmp_path / "run" / "run.json").read_text())["mlflow_run_id"]
    status = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_run(run_id).info.status
    assert status == {"success": "FINISHED", "error": "FAILED", "ctrl-c": "KILLED"}[ending]


def test_what_others_say_on_stdout_does_not_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ray prints there that a worker died, whatever it is told."""
    from distmeta.runs import train as driver

    def chatty(*_: Any) -> dict[str, Any]:
        print("(raylet) A worker died")
        return {"outer_steps": 1}

    for name in ("train", "resume", "evaluate"):
        monkeypatch.setattr(driver, name, chatty)
    path = settings(tmp_path)
    for words in (["train", path, "--json"], ["train", "--resume", str(tmp_path), "--json"]):
        cli.app(words, standalone_mode=False)
        assert capsys.readouterr() == ('{"outer_steps": 1}\n', "(raylet) A worker died\n")
    cli.app(["evaluate", str(tmp_path), "--json"], standalone_mode=False)
    assert capsys.readouterr().out == '{"outer_steps": 1}\n'


def test_a_step_without_a_run_to_go_on_with_is_refused(tmp_path: Path) -> None:

    with pytest.raises(ConfigError, match="--step: names a checkpoint to go on from; give --resume RUN too"):
        cli.app(["train", settings(tmp_path), "--step", "3"], standalone_mode=False)


def test_sync_says_how_much_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    directory.create(tmp_path / "run", toy_config(tmp_path), None)
    directory.write_json(tmp_path / "run" / "run.json", {"mlflow_uri": "", "mlflow_run_id": "abc"})
    asked: list[Any] = []
    for count, said in ((0, "nothing was waiting"), (7, "7 entries sent")):

        def sync(uri: str, run_id: str, run_dir: Path, sent: int = count) -> int:
            asked.append((uri, run_id, run_dir))
            return sent

        monkeypatch.setattr("distmeta.tracking.sync", sync)
        cli.app(["sync", str(tmp_path / "run")], standalone_mode=False)
        assert capsys.readouterr() == ("", f"distmeta: {said}\n")
    assert asked[0] == (f"sqlite:///{tmp_path}/mlflow.db", "abc", tmp_path / "run")


def test_a_working_directory_that_was_deleted_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(sys, "argv", ["distmeta", "check", "config.yaml"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err == "distmeta: working directory: was deleted; change to another, such as `cd ~`\n"
    monkeypatch.undo()


def test_a_secret_in_an_error_is_not_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: Any) -> None:
        raise ConfigError("tracking.uri", "invalid value 'http://ann:pa/ss@host'", "give another")

    monkeypatch.setattr(cli, "app", refuse)
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == "distmeta: tracking.uri: invalid value 'http://***@host'; give another\n"
