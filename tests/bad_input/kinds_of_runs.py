"""Settings, data and models that do not go together, each with the words of its one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from bad_input.commands import write
from model_helpers import save_encoder

Settings = dict[str, Any]


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
RUNS: dict[str, tuple[Callable[[Path], Settings], str]] = {
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
