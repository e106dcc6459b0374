"""Texts with several labels: thresholds, F1, and a task of them from adapting to export."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from use_helpers import LABELS, NEW, TEXTS, untrained

from distmeta.errors import DataError
from distmeta.storage import replacing
from distmeta.use import several
from distmeta.use.expect import held_out_texts
from distmeta.use.saved import load_task
from distmeta.use.suggest import suggest
from distmeta.use.together import Question, answer_together

BOTH = [f"{TEXTS[0]} {TEXTS[3]}", f"{TEXTS[1]} {TEXTS[4]}", "word9 word8", "thing0 word0"]
SETS = [["class 0", "class 1"], ["class 1", "class 0"], [], []]
ALL = [*TEXTS, *BOTH]
ANSWERS = [*([label] for label in LABELS), *SETS]


def brute_force(scores: np.ndarray, truth: np.ndarray) -> float:
    """The highest F1 of any threshold."""
    given = [scores >= limit for limit in scores]
    return max(float(2 * (its & truth).sum() / (its.sum() + truth.sum())) for its in given)


@pytest.mark.parametrize("seed", range(20))
def test_a_threshold_has_the_highest_f1(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores, truth = generator.integers(8, size=12) / 4, generator.random(12) < 0.4
    truth[0] = True
    limit = several._best(scores, truth, 0.3)
    given = scores > limit
    assert 2 * (given & truth).sum() / (given.sum() + truth.sum()) == pytest.approx(brute_force(scores, truth))


def test_thresholds_of_few_texts_stay_near_the_usual_one() -> None:
    none = several.choose(np.full((3, 2), 0.5), np.zeros((3, 2), bool))
    assert none == pytest.approx([several.USUAL] * 2)
    shares, truth = np.array([[0.95, 0.05], [0.1, 0.9]]), np.eye(2, dtype=bool)
    few, many = several.choose(shares, truth), several.choose(np.tile(shares, (500, 1)), np.tile(truth, (500, 1)))
    assert few == pytest.approx([several.USUAL] * 2)  # any threshold between 0.1 and 0.9 is best
    assert many == pytest.approx([several.USUAL] * 2)
    low = np.tile([[0.2, 0.8], [0.02, 0.98]], (500, 1))
    assert several.choose(low, np.tile(np.array([[True, True], [False, True]]), (500, 1)))[0] < 0.2


def test_figures_by_hand() -> None:
    truth = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]], bool)
    found = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]], bool)
    # right 1, 1, 0; given 2, 1, 0; have 1, 2, 0: F1 2/3, 2/3, and the third class does not occur
    assert several.figures(found, truth) == pytest.approx({"micro_f1": 4 / 6, "macro_f1": 2 / 3, "exact": 1 / 3})
    nothing = np.zeros((2, 3), bool)
    assert several.figures(nothing, nothing) == {"micro_f1": 1.0, "macro_f1": 1.0, "exact": 1.0}


def test_all_rows_of_a_text_are_left_out_at_once(tmp_path: Path) -> None:
    learner = untrained(tmp_path, "protonet")
    codec, model = learner.codecs["classification"], learner.models["classification"]
    examples = several.with_sets([{"text": t, "label": a} for t, a in zip(ALL, ANSWERS, strict=True)], codec)
    rows, numbers = several.rows_of(examples, codec)
    names = codec.names(rows)
    theta = model.own(learner.theta)
    with torch.no_grad():
        support = codec.encode(rows, names)
        support = support._replace(inputs=model.encode(theta, (), support.inputs))
        outputs, texts = held_out_texts(learner.algorithm, model, theta, support, numbers, len(examples))
        assert texts.tolist() == list(range(14))  # the last two have no row
        left = torch.from_numpy(numbers != 12)
        rest = support._replace(
            inputs={name: value[:, left] for name, value in support.inputs.items() if name == "features"},
            targets=support.targets[:, left],
            weights=support.weights[:, left],
        )
        query = {"features": support.inputs["features"][:, [12]]}
        alone = learner.algorithm.predict(model, learner.algorithm.adapt(model, theta, rest), query)
    torch.testing.assert_close(outputs[12], alone[0, 0])


@pytest.mark.parametrize("name", ["protonet", "maml", "protomaml"])
def test_a_task_of_label_sets_from_adapting_to_another_process(tmp_path: Path, name: str) -> None:
    learner = untrained(tmp_path, name)
    task = learner.adapt(ALL, ANSWERS)
    assert task.thresholds is not None
    assert len(task.thresholds) == len(task.names) == 4
    found = list(task.answers(NEW))
    for prediction in found:
        shares = prediction["probabilities"]
        assert prediction["label"] == [label for label in task.names if shares[label] >= (task.limits or {})[label]]
        assert sum(shares.values()) == pytest.approx(1)
        assert 0.5 <= prediction["certainty"] <= 1
    assert all(task.predict(NEW, abstain=False))
    assert (task.expected, task.threshold) == (None, 0.0)
    assert task.expected_f1 is not None
    assert task.expected_f1.tested == 16
    assert task.expected_f1.low <= task.expected_f1.micro_f1 <= task.expected_f1.high
    task.save(tmp_path / "task")
    again = load_task(tmp_path / "task")
    assert list(again.answers(NEW)) == found
    assert again.expected_f1 == task.expected_f1
    (together,) = answer_together([Question(task, NEW)])
    assert not isinstance(together, DataError)
    for one, other in zip(together, found, strict=True):
        assert one["label"] == other["label"]
        assert one["probabilities"] == pytest.approx(other["probabilities"])
    assert len(suggest(task, NEW, 2)) == 2
    grown = again.grow(["word1 word2"], [["class 3", "new"]])
    assert grown.thresholds is not None
    assert grown.names == (*task.names, "new")
    wanted = several.truth_of([{"label": its} for its in ANSWERS], task.codec, task.names)
    given = several.truth_of([{"label": its} for its in task.predict(ALL)], task.codec, task.names)
    assert task.figures(ALL, ANSWERS) == several.figures(given, wanted)
    assert task.score(ALL, ANSWERS) == task.figures(ALL, ANSWERS)["micro_f1"]


def test_one_label_each_as_sets_gives_the_same_probabilities(tmp_path: Path) -> None:
    learner = untrained(tmp_path, "protonet")
    single, sets = learner.adapt(TEXTS, LABELS), learner.adapt(TEXTS, LABELS, multi_label=True)
    np.testing.assert_allclose(single.predict_proba(NEW), sets.predict_proba(NEW), rtol=1e-6)
    assert (single.thresholds, single.expected_f1) == (None, None)


@pytest.mark.parametrize(
    ("arguments", "options", "found"),
    [
        ((TEXTS, LABELS), {"wrong": 0.05}, "wrong: 0.05, and texts may have several labels"),
        ((TEXTS, LABELS), {"unlabelled": NEW}, "unlabelled: texts without labels"),
        ((TEXTS[:2], [["a", 1], ["b"]]), {}, "example 1: one of its labels is 1"),
        ((TEXTS[:2], [["a"], [" "]]), {}, "example 2: one of its labels is ' '"),
        ((TEXTS[:2], [["a"], ["a"]]), {}, "examples: one class, 'a'"),
        ((TEXTS[:2], [[], []]), {}, "examples: there are none"),
    ],
)
def test_what_does_not_go_with_several_labels(tmp_path: Path, arguments: tuple, options: dict, found: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(DataError) as caught:
        untrained(tmp_path, "protonet").adapt(*arguments, **options, multi_label=True)
    assert str(caught.value).startswith(found)


def test_a_task_of_one_label_each_does_not_grow_by_sets(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the task's texts have one label each"):
        untrained(tmp_path, "protonet").adapt(TEXTS, LABELS).grow(["word1"], [["class 0", "class 1"]])


def test_a_task_written_before_reads(tmp_path: Path) -> None:
    task = untrained(tmp_path, "protonet").adapt(TEXTS, LABELS)
    with replacing(tmp_path / "task") as folder:
        task.write(folder)
        about = json.loads((folder / "task.json").read_text())
        for key in ("thresholds", "expected_f1"):
            del about[key]
        (folder / "task.json").write_text(json.dumps(about))
    learner: Any = task.learner
    assert load_task(tmp_path / "task", learner).predict(NEW) == task.predict(NEW)
