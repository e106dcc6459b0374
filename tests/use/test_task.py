"""A task learned from a user's examples: any number of classes and examples, kept, grown, and elsewhere the same."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from use_helpers import ALGORITHMS, LABELS, NEW, TEXTS, untrained

import distmeta
from distmeta.errors import CheckpointError, DataError
from distmeta.use import examples as given
from distmeta.use import expect


@pytest.mark.parametrize("name", ALGORITHMS)
def test_it_learns_any_number_of_classes_and_examples(tmp_path: Path, name: str) -> None:
    """The learner was made for three ways and two shots."""
    learner = untrained(tmp_path, name)
    for count in (2, 3, 4):
        task = learner.adapt(TEXTS[: 3 * count - 2], LABELS[: 3 * count - 2])  # one example of the last class
        assert task.names == tuple(f"class {n}" for n in range(count))
        found = task.predict_proba(NEW)
        assert found.shape == (4, count)
        assert found.sum(1) == pytest.approx(1)
        assert task.predict(NEW) == [task.names[n] for n in found.argmax(1)]
        assert np.ptp(found, axis=1).min() > 1e-6, "it tells the classes apart"


def test_it_answers_what_it_learned(tmp_path: Path) -> None:
    task = untrained(tmp_path, "protonet", model__filters=64, model__embedding_size=32).adapt(TEXTS, LABELS)
    assert task.predict(TEXTS) == LABELS
    assert task.score(TEXTS, LABELS) == 1
    assert task.score(TEXTS, ["class 1"] * 12) == 0.25


@pytest.mark.parametrize("name", ["protonet", "maml", "anil"])
def test_another_process_predicts_the_same(tmp_path: Path, name: str) -> None:
    task = untrained(tmp_path, name).adapt(TEXTS, LABELS)
    task.save(tmp_path / "[task] #1")
    code = "import sys, json, distmeta; task = distmeta.load_task(sys.argv[1]);"
    code += "print(json.dumps(task.predict_proba(sys.argv[2:]).tolist()))"
    command = [sys.executable, "-c", code, str(tmp_path / "[task] #1"), *NEW]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout)
    assert np.array_equal(found, task.predict_proba(NEW))


def test_it_is_read_back_whole(tmp_path: Path) -> None:
    task = untrained(tmp_path, "maml").adapt(TEXTS, LABELS)
    task.save(tmp_path / "task")
    task.save(tmp_path / "task")  # replaces itself
    again = distmeta.load_task(tmp_path / "task")
    assert again.expected == task.expected
    assert (again.examples, again.names, again.threshold) == (task.examples, task.names, task.threshold)
    assert not list(tmp_path.glob(".task*"))


def test_growing_is_learning_from_all_examples(tmp_path: Path) -> None:
    learner = untrained(tmp_path, "maml")
    first = learner.adapt(TEXTS[:6], LABELS[:6])
    first.save(tmp_path / "task")
    grown = distmeta.load_task(tmp_path / "task").grow(TEXTS[6:], LABELS[6:])
    assert grown.names == tuple(f"class {n}" for n in range(4)), "with its new classes"
    assert np.array_equal(grown.predict_proba(NEW), learner.adapt(TEXTS, LABELS).predict_proba(NEW))


@pytest.mark.parametrize(
    "name", ["protonet", "matching", "relation", "metanet", "protomaml", "multitask", "maml", "a large task"]
)
def test_what_it_expects_of_itself_is_what_it_does_without_an_example(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted again one by one; learners that adapt the body leave out a fifth of each class at a time."""
    if name == "a large task":
        name, by_fifths = "protonet", True
        monkeypatch.setattr(expect, "SCORES", 1)
    else:
        by_fifths = name in ("maml", "protomaml")
    learner = untrained(tmp_path, name)
    texts, labels = [*TEXTS, "topic9 word3"], [*LABELS, "the only one"]
    labels[4] = "class 0"  # which it will get wrong
    task = learner.adapt(texts, labels)
    assert task.expected is not None
    examples = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    fold = [labels[:n].count(label) % 5 for n, label in enumerate(labels[:12])]
    fold = fold if by_fifths else list(range(12))
    right = 0
    for number in range(12):
        kept = [example for n, example in enumerate(examples) if n == 12 or fold[n] != fold[number]]
        (found,) = learner.predict(kept, [{"text": texts[number]}])
        right += found["label"] == labels[number]
    assert (task.expected.right, task.expected.tested) == (right, 12)
    assert task.expected.low < task.expected.accuracy < task.expected.high


def test_without_a_second_example_nothing_is_expected(tmp_path: Path) -> None:
    assert untrained(tmp_path, "protonet").adapt(["topic1", "topic2"], ["a", "b"]).expected is None


def test_a_learner_is_not_tested_where_nobody_asks(tmp_path: Path) -> None:
    learner = untrained(tmp_path, "maml")
    task = learner.adapt(TEXTS, LABELS, expect=False)
    assert task.expected is None
    assert np.array_equal(task.predict_proba(NEW), learner.adapt(TEXTS, LABELS).predict_proba(NEW))


def test_an_algorithm_that_keeps_its_head_takes_no_more_classes(tmp_path: Path) -> None:
    learner = untrained(tmp_path, "boil", inner={"lr": 0.5, "steps": 3})
    assert learner.adapt(TEXTS[:6], LABELS[:6]).predict_proba(NEW).shape == (4, 2)
    with pytest.raises(DataError, match="4 classes, and this learner does not adapt its head of 3; give at most 3"):
        learner.adapt(TEXTS, LABELS)


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        ([], [], "examples: there are none"),
        (["topic1"], [], "examples: 1 inputs and 0 answers"),
        (["topic1", " "], ["a", "b"], "example 2: text is ' '"),
        (["topic1", "topic2"], ["a", 3], "example 2: label is 3"),
    ],
)
def test_examples_that_cannot_be_used(tmp_path: Path, texts: list[Any], labels: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        untrained(tmp_path, "protonet").adapt(texts, labels)


def test_a_text_that_cannot_be_predicted_is_named_by_its_number(tmp_path: Path) -> None:
    task = untrained(tmp_path, "protonet").adapt(TEXTS, LABELS)
    with pytest.raises(DataError, match="example 71: text is ''"):
        task.predict([*NEW] * 17 + ["topic1", "topic2", ""])


def test_a_folder_of_something_else_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    task = untrained(tmp_path, "protonet").adapt(TEXTS, LABELS)
    with pytest.raises(CheckpointError, match="mine: exists and holds no task; name another folder"):
        task.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_an_altered_task_is_refused_and_a_pickle_is_not_read(tmp_path: Path) -> None:
    untrained(tmp_path, "protonet").adapt(TEXTS, LABELS).save(tmp_path / "task")
    written = (tmp_path / "task" / "examples.jsonl").read_text()
    (tmp_path / "task" / "examples.jsonl").write_text(written.replace("topic1", "topic2"))
    with pytest.raises(CheckpointError, match=r"examples\.jsonl: was altered or cut short"):
        distmeta.load_task(tmp_path / "task")
    (tmp_path / "task" / "examples.jsonl").write_text(written)
    (tmp_path / "task" / "adapted.pkl").write_bytes(pickle.dumps(_Alarm()))
    with pytest.raises(CheckpointError, match=r"adapted\.pkl: was altered"):
        distmeta.load_task(tmp_path / "task")


class _Alarm:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return pytest.fail, ("a pickle was read",)


def test_a_description_is_one_more_example(tmp_path: Path) -> None:
    learner = untrained(tmp_path, "protonet")
    described = {f"class {n}": f"topic{n}" for n in range(4)}
    task = learner.adapt(TEXTS, LABELS, descriptions=described)
    plain = learner.adapt([*TEXTS, *described.values()], [*LABELS, *described])
    assert task.predict_proba(NEW) == pytest.approx(plain.predict_proba(NEW), abs=1e-6)
    assert task.expected is not None
    assert plain.expected is not None
    assert (task.expected.tested, plain.expected.tested) == (12, 16), "it is not a text like those to be predicted"
    alone = learner.adapt([], [], descriptions=described)
    assert alone.names == tuple(described)
    assert alone.expected is None
    one_each = learner.adapt(TEXTS[::3], LABELS[::3], descriptions=described)
    assert one_each.expected is not None, "the description stays when the only example is left out"
    assert one_each.expected.tested == 4


@pytest.mark.parametrize("name", ["protonet", "protomaml", "maml"])
def test_texts_without_labels_change_what_is_learned_and_are_kept(tmp_path: Path, name: str) -> None:
    learner = untrained(tmp_path, name)
    plain, task = learner.adapt(TEXTS, LABELS), learner.adapt(TEXTS, LABELS, unlabelled=NEW)
    assert not np.allclose(plain.predict_proba(NEW), task.predict_proba(NEW))
    assert task.expected is not None
    assert task.expected.tested == 12
    task.save(tmp_path / "task")
    again = distmeta.load_task(tmp_path / "task")
    assert np.array_equal(again.predict_proba(NEW), task.predict_proba(NEW))
    grown = again.grow(["topic9 thing4"], ["class 9"])
    whole = learner.adapt([*TEXTS, "topic9 thing4"], [*LABELS, "class 9"], unlabelled=NEW)
    assert grown.predict_proba(NEW) == pytest.approx(whole.predict_proba(NEW), abs=1e-6)
    both = plain.grow(unlabelled=NEW)
    assert both.predict_proba(NEW) == pytest.approx(task.predict_proba(NEW), abs=1e-6)


def test_a_task_that_would_not_fit_in_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve examples of four classes are 48 scores."""
    monkeypatch.setattr(given, "SCORES", 48)
    learner = untrained(tmp_path, "protonet")
    learner.adapt(TEXTS, LABELS)
    with pytest.raises(DataError, match="13 of 4 classes; give fewer: examples times classes may be 48 at most"):
        learner.adapt([*TEXTS, "topic1"], [*LABELS, "class 1"])


def test_too_many_texts_without_labels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = untrained(tmp_path, "protonet")
    monkeypatch.setattr("distmeta.use.adapting.NUMBERS", 64)
    with pytest.raises(DataError, match="unlabelled: 5 examples, and 4 classes; give at most 4, chosen at random"):
        learner.adapt(TEXTS, LABELS, unlabelled=[*NEW, "topic1"])
