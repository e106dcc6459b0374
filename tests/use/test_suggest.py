"""The texts most worth a label: uncertain, different, not known yet; and better than chance, by simulation."""

import csv
from pathlib import Path

import numpy as np
import pytest
from bad_input.commands import run
from use_helpers import LABELS, NEW, TEXTS, untrained

import distmeta
from distmeta.errors import DataError
from distmeta.use.suggest import central, suggest


def test_centres_are_means_by_weight_and_elements_differ() -> None:
    """Two clouds; the heavy elements of each pull its centre."""
    chance = np.random.default_rng(0)
    left, right = chance.normal(size=(50, 2)) - 20, chance.normal(size=(50, 2)) + 20
    features, weights = np.concatenate([left, right]), np.full(100, 1e-6)
    weights[[7, 60]] = 1.0
    assert sorted(central(features, weights, 2)) == [7, 60]
    assert len(set(central(features[:5], np.ones(5), 5))) == 5
    assert len(set(central(np.zeros((6, 2)), np.ones(6), 4))) == 4, "also where all are the same"


def test_known_texts_and_copies_are_not_suggested(tmp_path: Path) -> None:
    task = untrained(tmp_path, "protonet").adapt(TEXTS, LABELS)
    pool = [TEXTS[0], *NEW, NEW[0], TEXTS[5]]
    found = suggest(task, pool, 10)
    assert sorted(found) == [1, 2, 3, 4]
    assert len(suggest(task, pool, 2)) == 2
    with pytest.raises(DataError, match="TEXTS: all of them have a label already; give others"):
        suggest(task, TEXTS, 3)


@pytest.mark.parametrize("name", ["protonet", "maml"])
def test_features_are_those_of_the_adapted_body(tmp_path: Path, name: str) -> None:
    task = untrained(tmp_path, name).adapt(TEXTS, LABELS)
    features, gaps = task.look(NEW)
    low, high = np.sort(task.predict_proba(NEW), axis=1)[:, -2:].T
    assert gaps == pytest.approx(high - low, abs=1e-6)
    plain = untrained(tmp_path, name).models["classification"]
    plain.train(False)
    theta = plain.own(untrained(tmp_path, name).theta)
    batch = task.codec.encode([{"text": text} for text in NEW], task.names)
    same = np.allclose(features, plain.features(theta, {}, batch.inputs)[0].detach().numpy(), atol=1e-6)
    assert same == (name == "protonet")


def test_suggested_texts_teach_more_than_random_ones() -> None:
    """Unit-length features of ten classes, of which a pool has 2 to 15 each; prototypes; 10 new labels; 60 pools."""
    chance, gains = np.random.default_rng(0), []
    for _ in range(60):
        centres = chance.normal(size=(10, 16))
        counts = chance.integers(2, 16, size=10)

        def draw(labels: np.ndarray, centres: np.ndarray = centres) -> np.ndarray:
            found = centres[labels] + 1.3 * chance.normal(size=(len(labels), 16))
            unit: np.ndarray = found / np.linalg.norm(found, axis=1, keepdims=True)
            return unit

        start, pool, test = np.arange(10), np.repeat(np.arange(10), counts), np.repeat(np.arange(10), 10)
        known, texts, queries = draw(start), draw(pool), draw(test)
        shares = np.exp(_scores(known, start, texts))
        two = np.sort(shares / shares.sum(1, keepdims=True), axis=1)[:, -2:]
        picks = central(texts, 1 - (two[:, 1] - two[:, 0]), 10), chance.choice(len(pool), 10, replace=False)
        scores = [
            (_scores(np.concatenate([known, texts[p]]), np.append(start, pool[p]), queries).argmax(1) == test).mean()
            for p in picks
        ]
        gains.append(scores[0] - scores[1])
    assert np.mean(gains) > 2 * np.std(gains) / 60**0.5


def _scores(features: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """(n, 10) −5 · squared distances to the means of the classes."""
    means = np.stack([features[labels == n].mean(0) for n in range(10)])
    found: np.ndarray = -5 * np.square(queries[:, None] - means).sum(-1)
    return found


def test_the_command_writes_a_table_to_fill_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    untrained(tmp_path, "protonet").adapt(TEXTS, LABELS).save(tmp_path / "task")
    (tmp_path / "pool.txt").write_text("\n".join([*NEW, "", TEXTS[0]]))
    words = ["suggest", str(tmp_path / "task"), str(tmp_path / "pool.txt"), "-n", "3"]
    code, out, _ = run([*words, "--out", str(tmp_path / "fill.csv")], capsys, monkeypatch)
    assert (code, out) == (0, "")
    rows = list(csv.DictReader((tmp_path / "fill.csv").read_text().splitlines()))
    assert len(rows) == 3
    assert {row["text"] for row in rows} < set(NEW)
    assert {row["label"] for row in rows} == {""}
    assert [row["guess"] for row in rows] == distmeta.load_task(tmp_path / "task").predict([r["text"] for r in rows])
    filled = (tmp_path / "fill.csv").read_text().replace(",,", ",class 9,")
    (tmp_path / "fill.csv").write_text(filled)
    code, *_ = run(["adapt", str(tmp_path / "task"), str(tmp_path / "fill.csv")], capsys, monkeypatch)
    assert code == 0
    assert "class 9" in distmeta.load_task(tmp_path / "task").names
