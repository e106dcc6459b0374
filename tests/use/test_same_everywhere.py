"""A task gives the same calibrated probabilities wherever it goes."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from bad_input.commands import run
from model_helpers import WORDS, save_encoder
from serve_helpers import LocalService
from use_helpers import LABELS, untrained

import distmeta
from distmeta.client import Client
from distmeta.runs.models import registered

CALIBRATION = {
    **{"shape": {"ways": 4, "shots": 3}, "temperature": 0.4, "before": 0.2, "after": 0.1},
    **{"thresholds": [[0.05, 0.375]], "episodes": 7},
}
TEXTS = [" ".join(WORDS[(7 * n + k) % 20] for k in range(1 + n % 6)) for n in range(12)]
NEW = [*TEXTS[:3], " ".join(WORDS[:16]), "word3", "unheard of word4"]  # the fourth is cut to 12 tokens
Rows = list[dict[str, float]]


def by_pipeline(folder: Path) -> Rows:
    from transformers import pipeline

    found = pipeline("text-classification", model=str(folder), truncation=True, device="cpu")(NEW, top_k=None)
    return [{each["label"]: each["score"] for each in row} for row in found]


def by_onnx(folder: Path) -> Rows:
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens = tokenizer.encode_batch(NEW)
    given = {"input_ids": [its.ids for its in tokens], "attention_mask": [its.attention_mask for its in tokens]}
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    _, rows = session.run(None, {name: np.array(value) for name, value in given.items()})
    return [dict(zip(json.loads((folder / "labels.json").read_text())["labels"], row, strict=True)) for row in rows]


def by_service(folder: Path) -> Rows:
    with LocalService(folder).listening() as address:
        task = Client(address).adapt(TEXTS, LABELS)
        return [its["probabilities"] for its in task.answers(NEW)]


def by_mlflow(name: str, request: Sequence[Any], uri: str) -> Any:
    mlflow.set_tracking_uri(uri)
    try:
        return mlflow.pyfunc.load_model(f"models:/{name}/1").predict(list(request))
    finally:
        mlflow.set_tracking_uri(None)


@pytest.mark.slow
def test_a_task_gives_the_same_probabilities_by_every_path(
    tmp_path: Path, uri: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 1e-4, with the temperature: without it they differ by more than a hundred times as much."""
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    model = {"name": "hf", "path": save_encoder(tmp_path / "encoder", "bert")}
    learner = untrained(tmp_path, "protonet", model=model, data__max_length=12, algorithm__scale=10)
    learner = learner.calibrated({"classification": [CALIBRATION]})
    learner.save(tmp_path / "learner")
    task = learner.adapt(TEXTS, LABELS)
    wanted = task.predict_proba(NEW)
    assert np.abs(replace(task, calibration=None).predict_proba(NEW) - wanted).max() > 0.01

    def command(*words: str) -> None:
        code, _, err = run(list(words), capsys, monkeypatch)
        assert code == 0, err

    for name, lines in (("examples", zip(TEXTS, LABELS, strict=True)), ("new", ((text, "") for text in NEW))):
        with Path(f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *lines])
    command("adapt", "learner", "examples.csv", "--out", "task")
    command("predict", "task", "new.csv", "--out", "found.jsonl")
    for form in ("hf", "onnx"):
        command("export", "task", "--format", form, "--out", form)
    for name in ("learner", "task"):
        registered(str(tmp_path / name), name, None)
    request = {
        "examples": [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)],
        "queries": [{"text": text} for text in NEW],
    }
    paths: dict[str, Callable[[], Rows]] = {
        "command": lambda: [json.loads(line)["probabilities"] for line in Path("found.jsonl").read_text().splitlines()],
        "service": lambda: by_service(tmp_path),
        "hf": lambda: by_pipeline(tmp_path / "hf"),
        "onnx": lambda: by_onnx(tmp_path / "onnx"),
        "registered task": lambda: [its["probabilities"] for its in by_mlflow("task", NEW, uri)],
        "registered learner": lambda: [its["probabilities"] for its in by_mlflow("learner", [request], uri)[0]],
    }
    differences = {"read back": float(np.abs(distmeta.load_task("task").predict_proba(NEW) - wanted).max())}
    for name, path in paths.items():
        rows = np.array([[row[label] for label in task.names] for row in path()])
        differences[name] = float(np.abs(rows - wanted).max())
    assert max(differences.values()) < 1e-4, differences
