"""Episodes are pure functions of their index, fair, and scored as worked out by hand."""

import json
import math
import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpora import kind_in
from model_helpers import episodes
from tokenizers import Tokenizer
from toy import changed, toy_config

from distmeta.config import DataConfig
from distmeta.data.corpus import build_corpus
from distmeta.data.sources import read_source
from distmeta.data.splits import split_classes
from distmeta.protocols import TaskFamily
from distmeta.runs.experiment import build_experiment
from distmeta.tasks.base import manifest, manifest_sha256
from distmeta.tasks.classification import Classification
from distmeta.tasks.drawing import Classes
from distmeta.types import Batch, Stream

STREAM = Stream.of("classification", "meta_train", 7, ways=3, shots=2, queries=4)


@pytest.fixture(scope="module")
def kind(tmp_path_factory: pytest.TempPathFactory) -> Classification:
    return kind_in(tmp_path_factory.mktemp("corpus"))


def test_keeps_the_protocol(kind: Classification) -> None:
    task: TaskFamily = kind
    assert task.outputs(changed(STREAM, ways=5)) == 5
    assert task.rows("meta_test").tolist() == kind.corpus.rows("meta_test").tolist()


def test_shapes_types_and_label_order(kind: Classification) -> None:
    episode = episodes(kind, STREAM, 0, 2)
    for batch, size in ((episode.support, 6), (episode.query, 12)):
        longest = int(batch.inputs["attention_mask"].sum(-1).max())
        shapes = {name: tuple(value.shape) for name, value in batch.inputs.items()}
        tokens = {"input_ids": (2, size, longest), "attention_mask": (2, size, longest)}
        assert shapes == {**tokens, "rows": (2, size), "labels": (2, size)}
        assert {value.dtype for value in batch.inputs.values()} == {torch.int64}
        assert batch.weights.dtype == torch.float32
        assert batch.weights.tolist() == [[1.0] * size] * 2
    assert episode.support.targets.tolist() == [[0, 0, 1, 1, 2, 2]] * 2
    assert episode.query.targets.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]] * 2


def test_targets_stand_for_names_and_texts_for_rows(kind: Classification) -> None:
    episode = episodes(kind, STREAM, 5, 3)
    for batch in (episode.support, episode.query):
        for task, names in enumerate(episode.names):
            for position, target in enumerate(batch.targets[task].tolist()):
                # Token c stands for class c, and row r's text has r % 9 + 1 of them.
                row = int(batch.inputs["rows"][task, position])
                length = int(batch.inputs["attention_mask"][task, position].sum())
                ids = batch.inputs["input_ids"][task, position, :length]
                assert ids.tolist() == ["abcdefghijkl".index(names[target])] * (row % 9 + 1)


def test_support_and_query_share_no_row(kind: Classification) -> None:
    full = changed(STREAM, shots=4, queries=5)  # all nine rows of a class
    for index in range(20):
        draw = kind.draw(full, index)
        assert len(set(draw.names)) == 3
        for name, support, query in zip(draw.names, draw.support, draw.query, strict=True):
            assert sorted([*support, *query]) == kind.corpus.rows_of(name).tolist()


def test_any_stacking_gives_the_same_episodes(kind: Classification) -> None:
    stacked = episodes(kind, STREAM, 3, 4)
    for position in range(4):
        alone = episodes(kind, STREAM, 3 + position, 1)
        assert alone.names[0] == stacked.names[position]
        for batch, one in ((stacked.support, alone.support), (stacked.query, alone.query)):
            assert torch.equal(batch.inputs["rows"][position], one.inputs["rows"][0])
            length = one.inputs["input_ids"].shape[-1]
            assert torch.equal(batch.inputs["attention_mask"][position, :, :length], one.inputs["attention_mask"][0])
            assert not batch.inputs["attention_mask"][position, :, length:].any()


@pytest.mark.parametrize(
    "change", [{"seed": 8}, {"split": "meta_validation"}, {"ways": 2}, {"shots": 1}, {"shots": 3, "queries": 3}]
)
def test_streams_are_independent(kind: Classification, change: dict[str, Any]) -> None:
    other = changed(STREAM, **change)
    assert other != STREAM

    def places(stream: Stream) -> list[int]:
        """Which of their class's nine rows are drawn first: comparable whatever the classes."""
        return [int(kind.draw(stream, index).support[0, 0]) % 9 for index in range(12)]

    assert places(other) != places(STREAM)
    assert places(STREAM) == places(changed(STREAM))


def test_label_positions_carry_nothing(kind: Classification) -> None:
    count = 2000
    draws = [kind.draw(STREAM, index) for index in range(count)]
    for position in range(3):
        seen = Counter(draw.names[position] for draw in draws)
        # Each of 4 classes a quarter of the time: binomial, 5 standard deviations.
        assert all(abs(seen[name] - count / 4) < 5 * math.sqrt(count * 3 / 16) for name in "bcde")
    first = Counter(int(draw.support[0, 0]) % 9 for draw in draws)
    assert all(abs(first[place] - count / 9) < 5 * math.sqrt(count * 8 / 81) for place in range(9))


def test_collate_takes_rows_of_any_shape(kind: Classification) -> None:
    inputs = kind.collate(np.array([[0, 1], [2, 9]]))
    assert inputs["input_ids"].shape == (2, 2, 3)
    assert inputs["rows"].tolist() == [[0, 1], [2, 9]]


def batch_of(targets: list[list[int]], weights: list[list[float]]) -> Batch:
    return Batch({}, torch.tensor(targets), torch.tensor(weights), 4)


def test_loss_and_accuracy_by_hand(kind: Classification) -> None:
    # Odds 3 : 1 for class 0, in each example of both tasks.
    outputs = torch.tensor([math.log(3), 0.0], dtype=torch.float64).expand(2, 2, 2)
    batch = batch_of([[0, 1], [0, 1]], [[1, 1], [3, 1]])
    right, wrong = -math.log(3 / 4), -math.log(1 / 4)
    expected = torch.tensor([(right + wrong) / 2, (3 * right + wrong) / 4], dtype=torch.float64)
    assert kind.loss(outputs, batch).dtype == torch.float64
    torch.testing.assert_close(kind.loss(outputs, batch), expected, rtol=0, atol=1e-15)
    metrics = kind.metrics(outputs, batch)
    torch.testing.assert_close(metrics["loss"], expected, rtol=0, atol=1e-15)
    assert metrics["accuracy"].tolist() == [0.5, 0.75]
    assert sorted(metrics) == ["accuracy", "loss"]


def test_weight_zero_takes_an_example_out(kind: Classification) -> None:
    outputs = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0))
    padded = kind.loss(outputs, batch_of([[2, 0, 1]], [[1, 1, 0]]))
    torch.testing.assert_close(padded, kind.loss(outputs[:, :2], batch_of([[2, 0]], [[1, 1]])))


def test_gradient_of_the_loss(kind: Classification) -> None:
    outputs = torch.zeros(1, 2, 2, dtype=torch.float64, requires_grad=True)
    batch = batch_of([[0, 1]], [[1, 1]])
    (gradient,) = torch.autograd.grad(kind.loss(outputs, batch).sum(), outputs)
    # (softmax - one-hot) / 2 examples: (0.5 - 1) / 2 and 0.5 / 2
    assert gradient.tolist() == [[[-0.25, 0.25], [0.25, -0.25]]]
    assert not kind.metrics(outputs, batch)["loss"].requires_grad


def test_manifest_names_rows_of_the_source(kind: Classification) -> None:
    test = Stream.of("classification", "meta_test", 3, ways=2, shots=1, queries=2)
    content = manifest(kind, test, 4)
    assert json.loads(json.dumps(content)) == content
    assert content["stream"] == {"split": "meta_test", "ways": 2, "shots": 1, "queries": 2, "seed": 3}
    assert content["source"] == kind.corpus.source_fingerprint
    assert len(content["episodes"]) == 4
    for index, episode in enumerate(content["episodes"]):
        assert episode["classes"] == list(kind.draw(test, index).names)
        for name, support, query in zip(episode["classes"], episode["support"], episode["query"], strict=True):
            # Source rows of class c are 9 c ... 9 c + 8.
            assert (len(support), len(query)) == (1, 2)
            assert {row // 9 for row in support + query} == {"abcdefghijkl".index(name)}


def test_manifest_hash(kind: Classification, tmp_path: Path) -> None:
    # printf '{"a":[1],"b":"x"}' | sha256sum
    assert manifest_sha256({"b": "x", "a": [1]}) == "9fae53c0de2a098ff740e77894a456809d4cbd144fc6d283e76e1b695964a7d8"
    fixed = manifest_sha256(manifest(kind, STREAM, 5))
    assert fixed != manifest_sha256(manifest(kind, changed(STREAM, seed=8), 5))
    # Another tokenizer is another corpus, but the same episodes.
    other = kind_in(tmp_path, extra_word=True)
    assert other.corpus.fingerprint != kind.corpus.fingerprint
    assert manifest_sha256(manifest(other, STREAM, 5)) == fixed


def test_same_episodes_in_another_process(kind: Classification, tmp_path: Path) -> None:
    (tmp_path / "kind.pickle").write_bytes(pickle.dumps((kind, STREAM), protocol=5))
    code = (
        "import pickle, sys; from distmeta.tasks.base import manifest, manifest_sha256\n"
        "kind, stream = pickle.load(open(sys.argv[1], 'rb')); print(manifest_sha256(manifest(kind, stream, 20)))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "11"}
    command = [sys.executable, "-c", code, str(tmp_path / "kind.pickle")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == manifest_sha256(manifest(kind, STREAM, 20))


@pytest.mark.data
def test_real_episodes(real_data: Path, minilm: str, tmp_path: Path) -> None:
    data = DataConfig(path=str(real_data / "clinc150.parquet"), splits=str(real_data / "clinc150.splits.json"))
    source = read_source(data)
    splits = split_classes(source, data, ways={"meta_test": 5}, examples_per_class=10)
    tokenizer = Tokenizer.from_file(f"{minilm}/tokenizer.json")
    corpus = build_corpus(source, splits, tokenizer, 32, tmp_path)
    kind = Classification(corpus, Classes(corpus))
    stream = Stream.of("classification", "meta_test", 0, ways=5, shots=5, queries=5)
    every = read_source(data.model_copy(update={"copies": True}))
    for episode in manifest(kind, stream, 50)["episodes"]:
        assert set(episode["classes"]) <= set(splits["meta_test"])
        for name, support, query in zip(episode["classes"], episode["support"], episode["query"], strict=True):
            assert {every.labels[row].as_py() for row in support + query} == {name}
            assert len({*support, *query}) == 10


def test_a_long_label_is_shown_short(tmp_path: Path) -> None:
    config = toy_config(tmp_path)
    path = Path(config.data.path or "")
    path.write_text(path.read_text().replace("class", "very " * 50_000 + "long"))
    samples = [split.sample for split in build_experiment(config).splits["classification"].values()]
    assert max(map(len, samples)) == 300
    assert any("…" in sample for sample in samples)
