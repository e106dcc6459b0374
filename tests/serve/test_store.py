"""Tasks on disk and in memory: whole or not there, and there for every replica."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from serve_helpers import EXAMPLES
from use_helpers import LABELS, NEW, TEXTS, untrained

from distmeta.errors import CheckpointError
from distmeta.serve.desk import Asked, Desk
from distmeta.serve.limits import Limits, Refusal
from distmeta.serve.memory import Memory, size_of
from distmeta.serve.store import Store, TakenError, UnknownTaskError, new_id

ASKED = {"examples": EXAMPLES, "name": None, "wrong": None, "family": None}
MORE = {"examples": [{"text": "topic9 word1", "label": "new"}], "key": "the request"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    learner = untrained(tmp_path, "protonet")
    learner.save(tmp_path / "learner")
    Store(tmp_path / "tasks").make(learner.about["meta_params_sha256"])
    return tmp_path


def desk(folder: Path, **limits: Any) -> Desk:
    """A replica."""
    return Desk(str(folder / "learner"), str(folder / "tasks"), Limits(**limits))


def answers(replica: Desk, task: str) -> list[Any]:
    (found,) = replica.predict([Asked(task, NEW, False)])
    assert not isinstance(found, Refusal)
    return [its["probabilities"] for its in found]


def test_a_task_is_there_for_other_replicas_and_after_a_restart(folder: Path) -> None:
    first, second, task = desk(folder), desk(folder), new_id()
    first.create(task, ASKED)
    before = answers(first, task)
    assert answers(second, task) == before
    assert not list((folder / "tasks" / task).rglob("learner*")), "without a copy of the learner"
    second.grow(task, MORE)
    assert answers(first, task) == answers(second, task) == answers(desk(folder), task) != before
    assert [path.name for path in (folder / "tasks" / task).iterdir()] == ["00000002"]


def test_a_call_that_is_sent_again_is_done_once(folder: Path) -> None:
    """As after a replica that died before it could answer."""
    replica, task = desk(folder), new_id()
    made = replica.create(task, ASKED)
    assert desk(folder).create(task, ASKED) == made
    grown = replica.grow(task, MORE)
    assert desk(folder).grow(task, MORE) == grown
    assert not isinstance(grown, Refusal)
    assert grown["examples"] == len(EXAMPLES) + 1
    again = replica.grow(task, {**MORE, "key": "another request"})
    assert not isinstance(again, Refusal)
    assert again["examples"] == len(EXAMPLES) + 2


def test_of_two_that_grow_a_task_at_once_neither_is_lost(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, task = desk(folder), desk(folder), new_id()
    first.create(task, ASKED)
    add, other = Store.add, [lambda: second.grow(task, {"examples": [EXAMPLES[0]], "key": "second"})]

    def late(self: Store, *arguments: Any) -> Path:
        if other:
            other.pop()()  # the other one is quicker
        return add(self, *arguments)

    monkeypatch.setattr(Store, "add", late)
    grown = first.grow(task, MORE)
    assert not isinstance(grown, Refusal)
    assert (grown["version"], grown["examples"]) == (3, len(EXAMPLES) + 2)


def test_a_version_is_written_once(tmp_path: Path) -> None:
    store, task = Store(tmp_path), new_id()
    store.add(task, 1, {}, lambda aside: None)
    with pytest.raises(TakenError):
        store.add(task, 1, {}, lambda aside: None)
    store.delete(task)
    with pytest.raises(UnknownTaskError):
        store.add(task, 2, {}, lambda aside: None)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_cleared_away(folder: Path) -> None:
    replica, task, half, gone = desk(folder), new_id(), new_id(), folder / "tasks" / ".0123"
    replica.create(task, ASKED)
    (folder / "tasks" / half / ".part").mkdir(parents=True)
    (folder / "tasks" / task / ".part").mkdir()
    gone.mkdir()
    store = Store(folder / "tasks")
    with pytest.raises(UnknownTaskError):
        store.newest(half)
    sha256 = json.loads((folder / "tasks" / "tasks.json").read_text())["meta_params_sha256"]
    with (
        store.opened(sha256),
        pytest.raises(CheckpointError, match="is in use by another service"),
        Store(store.folder).opened(sha256),
    ):
        pytest.fail("two services in one folder")
    assert store.ids() == [task]
    assert [path.name for path in (folder / "tasks" / task).iterdir()] == ["00000001"]
    assert not gone.exists()
    assert not (folder / "tasks" / half).exists()


def test_an_altered_task_is_refused_and_a_pickle_is_not_read(folder: Path) -> None:
    replica, task, other = desk(folder), new_id(), new_id()
    replica.create(task, ASKED)
    replica.create(other, ASKED)
    (folder / "tasks" / task / "00000001" / "adapted.pkl").write_bytes(b"a pickle")
    broken, whole = desk(folder).predict([Asked(task, NEW, False), Asked(other, NEW, False)])
    assert isinstance(broken, Refusal)
    assert (broken.status, "was altered" in broken.found) == (500, True)
    assert not isinstance(whole, Refusal)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": 1, "meta_params_sha256": "0" * 64}, "holds tasks of another learner"),
        ({"format": 9}, "is of format 9"),
        ([], "holds no object of keys"),
    ],
)
def test_a_folder_of_other_tasks_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    (tmp_path / "tasks.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message):
        Store(tmp_path).make("1" * 64)


def test_a_folder_of_something_else_stays(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="holds something else than the tasks of a service; name another folder"):
        Store(tmp_path).make("1" * 64)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_limits_count_what_was_there_before(folder: Path) -> None:
    replica, task = desk(folder, examples=len(EXAMPLES), classes=3), new_id()
    replica.create(task, ASKED)
    for limited, found in ((replica, "7 with those before"), (desk(folder, classes=3), "4 classes")):
        refused = limited.grow(task, MORE)
        assert isinstance(refused, Refusal)
        assert (refused.status, refused.where, refused.found) == (422, "examples", found)
    unusable = desk(folder).grow(task, {"examples": [{"text": " ", "label": "new"}], "key": ""})
    assert isinstance(unusable, Refusal)
    assert unusable.where == "examples[0]", "its place in the request, not in the task"


def test_the_least_recently_used_task_leaves_the_memory(tmp_path: Path) -> None:
    learner = untrained(tmp_path, "protonet")
    task = learner.adapt(TEXTS, LABELS)
    memory = Memory(3 * size_of(task))
    for name in "abc":
        memory.put(name, "1", task)
    assert memory.get("a", "1") is task
    memory.put("d", "1", task)
    assert [memory.get(name, "1") is None for name in "abcd"] == [False, True, False, False]
    memory.put("d", "2", replace(task, threshold=0.5))
    assert memory.get("d", "1") is None
    assert len(memory) == 3, "another version takes the place of the one before"
    memory.put("large", "1", replace(task, examples=task.examples * 1000))
    assert (len(memory), memory.get("large", "1") is None) == (1, False), "one always stays"


def test_a_task_that_left_the_memory_answers_the_same(folder: Path) -> None:
    replica, tasks = desk(folder, memory_bytes=1), [new_id() for _ in range(3)]
    for task in tasks:
        replica.create(task, ASKED)
    assert answers(replica, tasks[0]) == answers(replica, tasks[2]) == answers(desk(folder), tasks[1])
