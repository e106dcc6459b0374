"""Whatever a user gets wrong: one line that names it, exit code 2, no traceback, nothing half-written."""

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from model_helpers import save_encoder
from toy import toy_config, toy_settings

from distmeta import cli
from distmeta.report.progress import Reporter
from distmeta.runs import train as driver

Folder = Path
Settings = dict[str, Any]


def fail(arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a command that must be refused; returns its one line."""
    monkeypatch.setattr(sys, "argv", ["distmeta", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out, err = capsys.readouterr()
    assert caught.value.code == 2, err
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("distmeta: ")
    return err


def files(folder: Path) -> set[Path]:
    return {p for p in folder.rglob("*") if "cache" not in p.parts}


@pytest.fixture(params=["silent", "closed"])
def dead_port(request: pytest.FixtureRequest) -> Iterator[int]:
    """A port that nobody listens on, or that accepts connections and never says anything."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "silent":
            listener.listen()
        yield listener.getsockname()[1]


def write(path: Path, content: bytes | str) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def write_splits(folder: Path, **changes: list[str]) -> str:
    names = [f"class {n:02}" for n in range(12)]
    splits = {"train": names[:6], "validation": names[6:9], "test": names[9:], **changes}
    return write(folder / "splits.json", json.dumps({"1": splits}))


def broken_parquet(folder: Path) -> str:
    good = folder / "good.parquet"
    pq.write_table(pa.table({"text": ["a b"] * 9, "label": ["x"] * 9}), good)
    return write(folder / "cut.parquet", good.read_bytes()[:-20])


def broken_link(folder: Path) -> str:
    (folder / "b.csv").symlink_to(folder / "gone")
    return str(folder / "b.csv")


def model_without_weights(folder: Path) -> Settings:
    path = Path(save_encoder(folder / "encoder"))
    (path / "model.safetensors").unlink()
    return {"model": {"name": "hf", "path": str(path)}, "data__max_length": 40}


SINUSOID: Settings = {"data": {"kind": "sinusoid"}, "model": {"name": "dense"}, "episodes": {"shots": 2, "queries": 2}}
CASES: dict[str, tuple[Callable[[Folder], Settings], str]] = {
    "unknown key": (lambda f: {"inner__lrr": 1}, "inner.lrr: unknown key; did you mean inner.lr?"),
    "wrong type": (lambda f: {"outer__steps": "many"}, "outer.steps: invalid value 'many'"),
    "wrong range": (lambda f: {"inner__lr": -1}, "inner.lr: invalid value -1"),
    "unknown algorithm": (lambda f: {"algorithm__name": "mamll"}, "'mamll' is unknown; did you mean maml?"),
    "unknown model": (lambda f: {"model": {"name": "text_cn"}}, "'text_cn' is unknown; did you mean text_cnn?"),
    "option of another algorithm": (lambda f: {"algorithm__scale": 2}, "algorithm.scale: not an option of MAML"),
    "inner loop of a metric learner": (
        lambda f: {"algorithm__name": "protonet", "inner": {"steps": 3}},
        "inner.steps: protonet does not learn a task by gradient steps",
    ),
    "second order through an attention kernel": (
        lambda f: {
            "model": {"name": "hf", "path": save_encoder(f / "encoder"), "attention": "sdpa"}, "data__max_length": 40,
        },
        "model.attention: this algorithm needs second derivatives, which this attention kernel does not have; "
        "set it to eager",
    ),
    "earlier steps that are not there": (
        lambda f: {"inner": {"steps": 1, "multi_step_loss": 0.5}},
        "inner.multi_step_loss: there are no earlier steps, since inner.steps is 1",
    ),
    "meta-training of what is not meta-trained": (
        lambda f: {"algorithm__name": "finetune"}, "outer.steps: 5, but finetune does no meta-training",
    ),
    "prototypes without classes": (
        lambda f: {**SINUSOID, "algorithm__name": "protonet", "inner": {}},
        "algorithm.name: prototypes stand for classes, and these tasks have no classes; use maml",
    ),
    "labels without classes": (
        lambda f: {**SINUSOID, "episodes": {"label_shuffle": False}},
        "episodes.label_shuffle: False, but sinusoid tasks have no classes",
    ),
    "mixed labels of too few classes": (
        lambda f: {"episodes": {"ways": 5, "shots": 2, "queries": 2, "label_mixing": 0.5}, "evaluation__ways": 3},
        "episodes.label_mixing: needs 10 classes, but meta_train has 8",
    ),
    "adapting what an algorithm owns": (
        lambda f: {"inner__adapt": ["head", "meta.*"], "inner__learn_lr": True},
        "inner.adapt: 'meta.*' fits no parameter",
    ),
    "a regularizer without a weight": (
        lambda f: {"outer__regularizer": "proximal"}, "outer.regularizer_weight: invalid value 0.0",
    ),
    "no data": (lambda f: {"data__path": None}, "data.path: missing; give a file"),
    "option of another model": (lambda f: {"model__heads": 2}, "model.heads: not an option of TextCNN"),
    "pattern that fits nothing": (lambda f: {"inner__adapt": "haed"}, "inner.adapt: 'haed' fits no parameter"),
    "frozen and adapted": (
        lambda f: {"inner__adapt": "head", "model__freeze": ["head.*"]},
        "inner.adapt: 'head' fits no parameter that is not frozen",
    ),
    "other ways for a meta-learned head": (lambda f: {"evaluation__ways": 2}, "evaluation.ways: maml meta-learns"),
    "missing file": (lambda f: {"data__path": str(f / "none.csv")}, "none.csv: no such file"),
    "unreadable file": (lambda f: {"data__path": broken_parquet(f)}, "cut.parquet: not a readable parquet"),
    "empty file": (lambda f: {"data__path": write(f / "empty.csv", "")}, "empty.csv: no rows"),
    "missing column": (lambda f: {"data__label": "labels"}, "no column 'labels'"),
    "non-UTF-8 text": (
        lambda f: {"data__path": write(f / "latin.csv", b"text,label\nna\xefve,a\n")},
        "latin.csv line 2: the text is not UTF-8",
    ),
    "other encoding without a mark": (
        lambda f: {"data__path": write(f / "odd.csv", "text,label\nx,\ud800".encode("utf-16", "surrogatepass"))},
        "odd.csv: not valid utf-16",
    ),
    "quote that is never closed": (
        lambda f: {"data__path": write(f / "open.csv", 'text,label\n"a,b\nc,d\n')},
        "open.csv line 2: a quote that opens here is never closed",
    ),
    "number of 5000 digits": (
        lambda f: {"data__path": write(f / "long.jsonl", '{"text": "a", "label": ' + "9" * 5000 + "}")},
        "long.jsonl line 1: a number with too many digits",
    ),
    "kind of file that is not read": (
        lambda f: {"data__path": write(f / "a.xlsx", b"PK")}, "a.xlsx: '.xlsx' is no known kind of file; save it as",
    ),
    "name that is too long": (lambda f: {"data__path": str(f / ("a" * 300))}, "cannot be read (File name too long)"),
    "NUL in a path": (lambda f: {"data__path": "a\0b"}, "'; leave out the NUL character"),
    "link to nothing": (lambda f: {"data__path": broken_link(f)}, "b.csv: a link to"),
    "too few examples": (lambda f: {"episodes__shots": 7}, "take 9 of each class; lower shots or queries"),
    "too few examples to evaluate": (
        lambda f: {"evaluation__shots": [7]}, "take 9 of each class; lower shots or queries",
    ),
    "too few classes": (lambda f: {"episodes__ways": 9, "algorithm__name": "protomaml"}, "9"),
    "overlapping splits": (
        lambda f: {"data__splits": write_splits(f, test=["class 00", "class 10", "class 11"])}, "class 00",
    ),
    "label that the data lacks": (
        lambda f: {"data__splits": write_splits(f, test=["class 99", "class 10", "class 11"])}, "class 99",
    ),
    "unknown split": (lambda f: {"data__splits": write_splits(f), "data__split": "2"}, "data.split"),
    "model folder without weights": (model_without_weights, "encoder"),
    "model folder that is missing": (
        lambda f: {"model": {"name": "hf", "path": str(f / "nothing")}}, "nothing",
    ),
    "texts longer than the model takes": (
        lambda f: {"model": {"name": "hf", "path": save_encoder(f / "encoder")}},
        "data.max_length: 64 tokens; hf takes at most 40",
    ),
    "hub model without internet": (lambda f: {"model": {"name": "hf", "path": "hub:some/encoder"}}, "some/encoder"),
    "hub data without internet": (lambda f: {"data__path": "hub:some/data"}, "hub:some/data: cannot be loaded"),
    "more GPUs than there are": (lambda f: {"cluster__gpus_per_worker": 64}, "cluster.gpus_per_worker"),
    "more GPUs than there are, on Ray": (
        lambda f: {"cluster__gpus_per_worker": 64, "cluster__backend": "ray"}, "cluster.gpus_per_worker",
    ),
    "MLflow store that is no database": (
        lambda f: {"tracking__uri": f"sqlite:///{write(f / 'x.db', 'nonsense' * 99)}"}, "x.db",
    ),
    "MLflow store in a missing folder": (lambda f: {"tracking__uri": f"sqlite:///{f}/none/mlflow.db"}, "none"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seed=010", "seed: 010 with its leading 0 can mean 10 or 8; write 10 or 8"),
        ("outer.steps==5", "outer.steps: invalid value '=5'"),
        ("outer.steps = 5", "outer.steps : unknown key; did you mean outer.steps?"),
        ("—outer.steps=5", "—outer: unknown key"),
        ("outer.=5", "'outer.=5': a part of the key is empty; check its dots"),
        ("nothing.x=5", "nothing: unknown key"),
        ("run_dir=$NO_SUCH_VARIABLE/x", "run_dir: invalid value '$NO_SUCH_VARIABLE/x'; the environment variable"),
        ("data.path=~no-such-user/x.csv", "data.path: invalid value '~no-such-user/x.csv'; there is no user"),
        ("algorithm.teacher=2024", "algorithm.teacher: not an option of MAML"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_line(
    setting: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "config.yaml", yaml.safe_dump(toy_settings(tmp_path, run_dir="run")))
    before = files(tmp_path)
    assert message in fail(["check", "config.yaml", setting], capsys, monkeypatch)
    assert files(tmp_path) == before


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("command", ["check", "train"])
def test_a_mistake_is_one_line(
    command: str, case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, message = CASES[case]
    content = toy_settings(tmp_path, run_dir="run")
    # After the data file, so that the changes may write files of their own.
    content = toy_settings(tmp_path, run_dir="run", **make(tmp_path))
    write(tmp_path / "config.yaml", yaml.safe_dump(content))
    before = files(tmp_path)
    assert message in fail([command, "config.yaml"], capsys, monkeypatch)
    assert {p for p in files(tmp_path) - before if p.suffix != ".lock" and p.name != "mlartifacts"} == set()


def test_an_address_where_no_ray_answers(
    dead_port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"127.0.0.1:{dead_port}"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    content = toy_settings(tmp_path, run_dir="run", cluster__backend="ray", cluster__address=address)
    path = write(tmp_path / "config.yaml", yaml.safe_dump(content))
    started = time.monotonic()
    assert f"no Ray answers at {address}" in fail(["train", path], capsys, monkeypatch)
    assert time.monotonic() - started < 15


def test_an_mlflow_that_does_not_answer(
    dead_port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"http://user:secret@127.0.0.1:{dead_port}"
    path = write(tmp_path / "config.yaml", yaml.safe_dump(toy_settings(tmp_path, run_dir="run", tracking__uri=uri)))
    message = fail(["train", path], capsys, monkeypatch)
    assert "tracking.uri: http://***@127.0.0.1" in message
    assert "does not answer" in message


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run's directory."""
    driver.train(toy_config(tmp_path, outer__steps=1), tmp_path / "run", Reporter())
    return tmp_path / "run"


def test_runs_that_cannot_go_on(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one test, since a finished run takes seconds to make."""
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "config.yaml", yaml.safe_dump(toy_settings(tmp_path, run_dir="run")))

    def refused(*arguments: str) -> str:
        return fail(list(arguments), capsys, monkeypatch)

    assert "run_dir: run exists" in refused("train", path)
    assert "inner.lr: cannot change in a run that has begun" in refused("train", "--resume", "run", "inner.lr=2")
    other = refused("train", path, "inner.lr=2", "--resume", "run")
    assert "was made with other settings: inner.lr was 0.1, and is 2.0" in other
    assert "no such run directory" in refused("evaluate", "no/run")
    assert "Run with id=0123456789abcdef not found" in refused("evaluate", "0123456789abcdef")
    assert "is not a run's directory" in refused("evaluate", str(tmp_path))
    assert "CONFIG: missing" in refused("train")

    (data := tmp_path / "data.csv").write_text(data.read_text().replace("topic", "subject"))
    assert "was made with other data" in refused("train", "--resume", "run")
    state = finished / "checkpoints" / "step-00000001" / "state.safetensors"
    for content in (state.read_bytes()[:-1], b"x" + state.read_bytes()[1:]):
        state.write_bytes(content)
        assert "state.safetensors: was altered or cut short" in refused("evaluate", "run")
