"""Tasks whose predictions share a run of the body, and tasks that are kept without their learner."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from use_helpers import LABELS, NEW, TEXTS, untrained

from distmeta.errors import CheckpointError, DataError
from distmeta.models.functional import FunctionalModel
from distmeta.storage import write_sums
from distmeta.use.saved import load_task
from distmeta.use.together import Question, answer_together

LONG = ["topic1 thing1 word7 and many other words that are padding for all others", "topic3"]


@pytest.mark.parametrize("name", ["protonet", "matching", "relation", "metanet", "anil", "maml"])
def test_together_tasks_answer_as_they_do_alone(tmp_path: Path, name: str) -> None:
    learner = untrained(tmp_path, name)
    tasks = [learner.adapt(TEXTS[: 3 * n], LABELS[: 3 * n]) for n in (2, 3, 4)]
    found = answer_together([Question(task, NEW[: n + 1] + LONG[:n]) for n, task in enumerate(tasks)])
    for n, (task, answers) in enumerate(zip(tasks, found, strict=True)):
        assert not isinstance(answers, DataError)
        shares = [[answer["probabilities"][name] for name in task.names] for answer in answers]
        assert np.allclose(shares, task.predict_proba(NEW[: n + 1] + LONG[:n]), atol=1e-5)


def test_the_body_runs_once_for_all_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, runs = untrained(tmp_path, "protonet"), []
    tasks = [learner.adapt(TEXTS[: 3 * n], LABELS[: 3 * n]) for n in (2, 3, 4)]
    encode = FunctionalModel.encode

    def counted(self: FunctionalModel, shared: Any, adapted: Any, inputs: Any) -> Any:
        runs.extend([] if "features" in inputs else [inputs])
        return encode(self, shared, adapted, inputs)

    monkeypatch.setattr(FunctionalModel, "encode", counted)
    answer_together([Question(task, NEW) for task in tasks])
    assert len(runs) == 1


def test_an_input_that_cannot_be_used_fails_its_own_question_only(tmp_path: Path) -> None:
    task = untrained(tmp_path, "protonet").adapt(TEXTS, LABELS)
    first, second, third = answer_together([Question(task, NEW), Question(task, ["topic1", " "]), Question(task, [])])
    assert first == list(task.answers(NEW))
    assert isinstance(second, DataError)
    assert second.where == "example 2"
    assert third == []


def test_without_abstaining_every_input_gets_an_answer(tmp_path: Path) -> None:
    learner = untrained(tmp_path, "protonet")
    shape = {"ways": 4, "shots": 3}
    always = {"shape": shape, "temperature": 1.0, "thresholds": [[0.05, 2.0]]}
    task = learner.calibrated({"classification": [always]}).adapt(TEXTS, LABELS)
    silent, talking = answer_together([Question(task, NEW), Question(task, NEW, abstain=False)])
    assert [answer["label"] for answer in silent] == [None] * 4  # type: ignore[union-attr]
    assert [answer["label"] for answer in talking] == task.predict(NEW, abstain=False)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["protonet", "maml", "anil"])
def test_a_task_is_kept_without_its_learner(tmp_path: Path, name: str) -> None:
    learner = untrained(tmp_path, name)
    task = learner.adapt(TEXTS, LABELS)
    (tmp_path / "task").mkdir()
    task.write(tmp_path / "task")
    write_sums(tmp_path / "task")
    assert sorted(path.name for path in (tmp_path / "task").iterdir()) == [
        *("SHA256SUMS", "adapted.safetensors", "examples.jsonl", "task.json")
    ]
    assert np.array_equal(load_task(tmp_path / "task", learner).predict_proba(NEW), task.predict_proba(NEW))
    other = untrained(tmp_path, name, seed=7)
    other.about["meta_params_sha256"] = "0" * 64
    with pytest.raises(CheckpointError, match="was learned by another learner"):
        load_task(tmp_path / "task", other)
