"""Exported tasks: without distmeta, transformers and onnxruntime give the probabilities of the task."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from model_helpers import WORDS, save_encoder
from use_helpers import LABELS, NEW, TEXTS, untrained

from distmeta.cli import main
from distmeta.errors import CheckpointError, ConfigError, ModelError
from distmeta.use.export import hub, onnx
from distmeta.use.export.function import linear
from distmeta.use.export.write import export
from distmeta.use.task import Task

STEPS = {"lr": 0.5, "steps": 3}
CALIBRATION = {
    **{"shape": {"ways": 4, "shots": 3}, "temperature": 0.5, "before": 0.2, "after": 0.1},
    **{"thresholds": [[0.05, 0.375]], "episodes": 7},
}
# In a process that has no distmeta. A batch of 5 texts is padded.
PIPELINE = """
import json, sys
sys.modules["distmeta"] = None
from transformers import pipeline
found = {}
for folder, texts in json.loads(sys.argv[1]).items():
    classify = pipeline("text-classification", model=folder, truncation=True)
    scores = classify(texts, batch_size=5, top_k=None)
    best = [classify(text)[0] for text in texts[:2]]
    found[folder] = [{each["label"]: each["score"] for each in row} for row in scores]
    assert [each["label"] for each in best] == [max(row, key=row.get) for row in found[folder][:2]]
    assert type(classify.model).__module__.startswith("transformers.models")
print(json.dumps(found))
"""
RUNTIME = """
import json, sys
sys.modules["distmeta"] = sys.modules["torch"] = None
import numpy as np, onnxruntime
from tokenizers import Tokenizer
found = {}
for folder, texts in json.loads(sys.argv[1]).items():
    labels = json.load(open(folder + "/labels.json", encoding="utf-8"))["labels"]
    session = onnxruntime.InferenceSession(folder + "/model.onnx")
    tokenizer, found[folder] = Tokenizer.from_file(folder + "/tokenizer.json"), []
    for part in (texts[:1], texts[1:]):
        tokens = tokenizer.encode_batch(part)
        ids, mask = np.array([t.ids for t in tokens]), np.array([t.attention_mask for t in tokens])
        logits, rows = session.run(None, {"input_ids": ids, "attention_mask": mask})
        assert np.allclose(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), rows, atol=1e-6)
        found[folder] += [dict(zip(labels, map(float, row))) for row in rows]
print(json.dumps(found))
"""
HEADS: dict[str, dict[str, Any]] = {
    "protonet": {"algorithm__scale": 10},
    "maml": {"inner": STEPS},
    "protomaml": {"inner": {**STEPS, "adapt": "head"}},
    "adapters": {"algorithm__name": "protomaml", "inner": {**STEPS, "adapt": "*lora*"}},
}


def encoder_task(folder: Path, kind: str, head: str, **model: Any) -> Task:
    """A task of a small pretrained encoder whose texts have 3 to 18 tokens, of which 12 are read."""
    path = save_encoder(folder / "encoder", kind, **({"layer_norm_eps": 1e-4} if kind == "roberta" else {}))
    settings = {"model": {"name": "hf", "path": path, **model}, "data__max_length": 12, **HEADS[head]}
    learner = untrained(folder, settings.pop("algorithm__name", head), **settings)
    return learner.calibrated({"classification": [CALIBRATION]}).adapt(WORDS_TEXTS, LABELS)


WORDS_TEXTS = [" ".join(WORDS[(7 * n + k) % 20] for k in range(1 + n % 6)) for n in range(12)]
FURTHER = [*WORDS_TEXTS, " ".join(WORDS[:16]), "word3", "[SEP] unheard [PAD] word4"]


def elsewhere(code: str, tasks: dict[Path, tuple[Task, list[str]]]) -> None:
    """Compares what a process without distmeta finds in folders with what the tasks predict."""
    given = json.dumps({str(folder): texts for folder, (_, texts) in tasks.items()})
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    result = subprocess.run(
        [sys.executable, "-c", code, given], check=True, capture_output=True, text=True, cwd="/", env=environment
    )
    found = json.loads(result.stdout)
    for folder, (task, texts) in tasks.items():
        rows = np.array([[row[name] for name in task.names] for row in found[str(folder)]])
        assert np.abs(rows - task.predict_proba(texts)).max() < 1e-4, folder
        assert np.ptp(rows, axis=1).min() > 0.01, "it tells the classes apart"


@pytest.mark.slow
def test_an_ordinary_pipeline_gives_the_probabilities_of_the_task(tmp_path: Path) -> None:
    """Each way of pooling, of length, and of adapting; the last text is typed to look like special tokens."""
    cases: dict[str, tuple[str, str, dict[str, Any]]] = {
        "mean": ("roberta", "protonet", {}),
        "first": ("roberta", "maml", {"pooling": "cls"}),
        "long": ("distilbert", "protomaml", {"normalize": False}),
        "plain": ("bert", "protomaml", {"normalize": False, "pooling": "cls"}),
        "lora": ("bert", "adapters", {"lora_rank": 2, "layers": 1}),
    }
    tasks = {}
    for name, (kind, head, model) in cases.items():
        (tmp_path / name).mkdir()
        task = encoder_task(tmp_path / name, kind, head, **model)
        assert export(task, tmp_path / name / "out", "hf") < 1e-5
        tasks[tmp_path / name / "out"] = (task, FURTHER)
    elsewhere(PIPELINE, tasks)
    adapted = {name for name in tasks[tmp_path / "lora" / "out"][0].adapted.stacked if "lora" in name}
    assert adapted, "the case is one of adapters"


SMALL = {"embedding_size": 8, "min_count": 1}
BODIES: dict[str, dict[str, Any]] = {
    "matching": {"model": {"name": "text_cnn", "filters": 8, "widths": [1, 3], **SMALL}, "algorithm__scale": 20},
    "maml": {"model": {"name": "text_rnn", "hidden_size": 8, **SMALL}},
    "metanet": {"model": {"name": "text_rnn", "hidden_size": 8, "bidirectional": False, **SMALL}},
    "relation": {"model": {"name": "text_attention", "heads": 2, **SMALL}},
}


def toy_task(folder: Path, name: str, **settings: Any) -> Task:
    """A task of a body of our own, whose texts are cut to 12 tokens."""
    learner = untrained(folder, name, data__max_length=12, **settings)
    return learner.calibrated({"classification": [CALIBRATION]}).adapt(TEXTS, LABELS)


@pytest.mark.parametrize(
    "names", [["maml"], pytest.param(["matching", "metanet", "relation", "hf"], marks=pytest.mark.nightly)]
)
def test_onnxruntime_gives_the_probabilities_of_the_task(tmp_path: Path, names: list[str]) -> None:
    """For any number of texts of any length."""
    pytest.importorskip("onnxruntime")
    texts = [*NEW, "topic3", " ".join(f"word{n % 9} topic{n % 4}" for n in range(20)), "unheard of topic1"]
    tasks = {}
    for name in names:
        (folder := tmp_path / name).mkdir()
        if name == "hf":
            task = encoder_task(folder, "bert", "adapters", lora_rank=2)
        else:
            task = toy_task(folder, name, **BODIES[name])
        assert export(task, folder / "out", "onnx") < 1e-5
        tasks[folder / "out"] = (task, FURTHER if name == "hf" else texts)
        about = json.loads((folder / "out" / "labels.json").read_text())
        assert (about["format"], about["labels"], about["abstention_threshold"]) == (1, list(task.names), 0.375)
        assert "onnxruntime" in (folder / "out" / "README.md").read_text()
    elsewhere(RUNTIME, tasks)


def test_large_weights_stand_in_a_file_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnx, "LARGE", 1)
    assert export(toy_task(tmp_path, "protonet"), tmp_path / "out", "onnx") < 1e-5
    assert (tmp_path / "out" / "model.onnx.data").exists()


def test_what_is_not_linear_in_the_features_is_found_out(tmp_path: Path) -> None:
    for name in ("matching", "relation"):
        assert linear(toy_task(tmp_path, name)) is None, name
    for name in ("protonet", "metanet", "maml"):  # metanet's encoder adds nothing before it is trained
        assert linear(toy_task(tmp_path, name)) is not None, name
    task = toy_task(tmp_path, "protonet", algorithm__scale=3)
    function, batch = linear(task), task.codec.encode([{"text": text} for text in NEW], task.names)
    assert function is not None
    features = task.learner.models[task.family].features(task.adapted.shared, {}, batch.inputs)[0].detach().double()
    logits = features @ function.weight.T + function.bias
    assert np.abs(logits.softmax(-1).numpy() - task.predict_proba(NEW)).max() < 1e-6


def test_the_card_tells_its_figures_and_takes_labels_as_they_stand(tmp_path: Path) -> None:
    names = ["# `a` <b>x</b>", "- [y](z): |\n---", "c{max_length}"]
    path = save_encoder(tmp_path / "encoder", "bert")
    learner = untrained(tmp_path, "protonet", model={"name": "hf", "path": path}, data__max_length=12)
    task = learner.calibrated({"classification": [CALIBRATION]}).adapt(WORDS_TEXTS, [names[n % 3] for n in range(12)])
    export(task, tmp_path / "my: 'out'", "hf")
    _, head, page = (tmp_path / "my: 'out'" / "README.md").read_text().split("---\n", 2)
    about = yaml.safe_load(head)
    assert about["pipeline_tag"] == "text-classification"
    assert about["model-index"][0]["name"] == "my: 'out'"
    assert task.expected is not None
    assert about["model-index"][0]["results"][0]["metrics"][0]["value"] == round(task.expected.accuracy, 4)
    assert "- `` # `a` <b>x</b> ``: 4" in page
    assert "- `- [y](z): |\\n---`: 4" in page
    assert "- `c{max_length}`: 4" in page
    assert f"{task.expected.right} of 12" in page
    assert "0.100, and 0.200 without it" in page
    assert "then 5% of the answers that were given to meta-validation tasks were wrong" in page
    assert "the first 12 tokens" in page
    config = json.loads((tmp_path / "my: 'out'" / "config.json").read_text())
    assert config["id2label"] == {str(n): name for n, name in enumerate(task.names)}
    assert config["abstention_threshold"] == 0.375
    assert not list((tmp_path / "my: 'out'").glob("*.py")), "no code of its own"
    tokenizer = json.loads((tmp_path / "my: 'out'" / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast", "which transformers 4 knows too"


def test_a_text_that_is_too_long_is_not_answered_otherwise(tmp_path: Path) -> None:
    from transformers import pipeline

    export(encoder_task(tmp_path, "bert", "protonet"), tmp_path / "out", "hf")
    classify = pipeline("text-classification", model=str(tmp_path / "out"), device="cpu")
    with pytest.raises(RuntimeError, match="size"):
        classify(" ".join(WORDS[:16]))


def test_what_cannot_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = toy_task(tmp_path, "protonet")
    with pytest.raises(
        ConfigError, match=r"--format: hf, which is for bert, .*, and the body is text_cnn; use --format onnx"
    ):
        export(own, tmp_path / "out", "hf")
    path = save_encoder(tmp_path / "encoder", "bert")
    learner = untrained(tmp_path, "matching", model={"name": "hf", "path": path}, data__max_length=12)
    with pytest.raises(ConfigError, match="matching scores classes by more than a linear function of a text's feat"):
        export(learner.adapt(WORDS_TEXTS, LABELS), tmp_path / "out", "hf")
    monkeypatch.setattr(onnx, "PACKAGES", ("no_such_package",))
    with pytest.raises(ConfigError, match=r"no_such_package is not installed; pip install 'distmeta\[onnx\]'"):
        export(own, tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_disagrees_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = encoder_task(tmp_path, "bert", "protonet")

    def shifted(its: Task) -> Any:
        found = linear(its)
        assert found is not None
        return found._replace(bias=found.bias + torch.arange(4) * 1e-2)

    monkeypatch.setattr(hub, "linear", shifted)
    with pytest.raises(ModelError, match=r"out: its probabilities differ by 0\.0\d+ from the task's"):
        export(task, tmp_path / "out", "hf")
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    encoder_task(tmp_path, "bert", "protonet").save(tmp_path / "task")

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["distmeta", "export", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return (int(ended.value.code or 0), *capsys.readouterr())

    words = [str(tmp_path / "task"), "--format", "hf", "--out", str(tmp_path / "out")]
    code, out, _ = run(*words, "--json")
    assert (code, json.loads(out)["format"]) == (0, "hf")
    before = (tmp_path / "out" / "SHA256SUMS").read_text()
    code, out, error = run(*words)
    assert (code, out, error) == (2, "", f"distmeta: {tmp_path / 'out'}: exists; name another folder\n")
    assert (tmp_path / "out" / "SHA256SUMS").read_text() == before
    assert run(*words[:2], "pickle", *words[3:])[0] == 2
    with pytest.raises(CheckpointError, match="exists; name another folder"):
        export(toy_task(tmp_path, "protonet"), tmp_path / "task", "onnx")


def test_thresholds_of_several_labels_go_along(tmp_path: Path) -> None:
    learner = untrained(tmp_path, "protonet")
    task = learner.adapt([*TEXTS, "topic0 topic1"], [*([label] for label in LABELS), ["class 0", "class 1"]])
    assert export(task, tmp_path / "onnx", "onnx") < 1e-5
    about = json.loads((tmp_path / "onnx" / "labels.json").read_text())
    assert about["label_thresholds"] == task.limits
    page = (tmp_path / "onnx" / "README.md").read_text()
    assert "`label_thresholds`" in page
    assert f"- `class 0`: {(task.limits or {})['class 0']:.4f}" in page
