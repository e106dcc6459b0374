"""The pool of worker actors, without Ray: what becomes of workers that are lost."""

from typing import Any
from unittest.mock import MagicMock

import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError

from distmeta.backends import workers
from distmeta.backends.workers import MOVE_AFTER, RayPool
from distmeta.types import Done, Lost

UNAVAILABLE = ActorUnavailableError("gone\nbehind the first line", b"0" * 16)


class Unbuilt(ActorDiedError):  # type: ignore[misc]
    def __str__(self) -> str:
        return "The actor died because of an error raised in its creation task, no module named x"


class Answers:
    """Stands for Ray: references are numbers, and `say` is what they come to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.say: dict[int, Any] = {}
        self.asked: list[tuple[str, int]] = []  # whose place, by what reference
        self.killed: list[Any] = []
        self.made: list[tuple[str, str | None]] = []
        monkeypatch.setattr(ray, "get", self.get)
        monkeypatch.setattr(ray, "wait", lambda references, **_: ([r for r in references if r in self.say], []))
        monkeypatch.setattr(ray, "kill", lambda actor, no_restart: self.killed.append((actor, no_restart)))
        monkeypatch.setattr(workers, "ask_place", self.ask)

    def get(self, reference: int) -> Any:
        if isinstance(answer := self.say[reference], Exception):
            raise answer
        return answer

    def ask(self, actor: Any, setup: list[Any]) -> int:
        self.asked.append((actor.name, 1000 + len(self.asked)))
        return self.asked[-1][1]

    def make(self, name: str, avoid: str | None = None) -> Any:
        self.made.append((name, avoid))
        return actor(name)


def actor(name: str) -> Any:
    made = MagicMock()
    made.name = name
    return made


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    return Answers(monkeypatch)


def joined(answers: Answers, pool: RayPool, node: str) -> None:
    """The one who was asked last answers."""
    answers.say[answers.asked[-1][1]] = (node, 1)
    assert pool.wait(1.0) == []


def lose(answers: Answers, pool: RayPool, error: Exception = UNAVAILABLE) -> None:
    """Gives the worker a unit that does not come back."""
    reference = 2000 + len(answers.asked)
    pool._actors["a"].run.remote.return_value = reference
    pool.submit("a", MagicMock(training=False), MagicMock(), ())
    answers.say[reference] = error
    assert pool.wait(1.0) == [Lost("a", str(error).splitlines()[0])]


def test_a_worker_is_one_while_it_answers(answers: Answers) -> None:
    pool = RayPool({"a": actor("a")}, [], answers.make, apart=False)  # type: ignore[arg-type]
    assert list(pool.workers) == []
    joined(answers, pool, "n")
    assert list(pool.workers) == ["a"]
    lose(answers, pool)
    assert list(pool.workers) == []
    joined(answers, pool, "n")
    assert list(pool.workers) == ["a"]
    assert answers.made == []


def test_three_losses_in_a_row_on_a_node_move_a_worker(answers: Answers) -> None:
    pool = RayPool({"a": actor("a")}, [], answers.make, apart=False)  # type: ignore[arg-type]
    joined(answers, pool, "good")
    lose(answers, pool)
    for _ in range(MOVE_AFTER - 1):
        joined(answers, pool, "bad")
        lose(answers, pool)
    assert answers.made == []
    joined(answers, pool, "bad")
    lose(answers, pool)
    assert answers.made == [("a", "bad")]
    assert [no_restart for _, no_restart in answers.killed] == [True]


def test_a_worker_that_was_moved_has_all_its_chances_again(answers: Answers) -> None:
    """Also where there is no other node."""
    pool = RayPool({"a": actor("a")}, [], answers.make, apart=False)  # type: ignore[arg-type]
    for _ in range(2 * MOVE_AFTER):
        joined(answers, pool, "only")
        lose(answers, pool)
    assert answers.made == [("a", "only")] * 2


def test_an_answer_in_between_is_forgiving(answers: Answers) -> None:
    pool = RayPool({"a": actor("a")}, [], answers.make, apart=False)  # type: ignore[arg-type]
    for _ in range(2 * MOVE_AFTER):
        joined(answers, pool, "n")
        reference = 3000 + len(answers.asked)
        pool._actors["a"].run.remote.return_value = reference
        pool.submit("a", MagicMock(training=False), MagicMock(), ())
        answers.say[reference] = "result"
        assert pool.wait(1.0) == [Done("a", "result")]  # type: ignore[arg-type]
        lose(answers, pool)
    assert answers.made == []


def test_an_actor_that_ray_gives_up_gets_a_successor(answers: Answers) -> None:
    pool = RayPool({"a": actor("a")}, [], answers.make, apart=False)  # type: ignore[arg-type]
    joined(answers, pool, "n")
    lose(answers, pool, ActorDiedError())
    assert answers.made == [("a", None)]


def test_an_actor_that_cannot_be_built_is_an_error_to_be_seen(answers: Answers) -> None:
    pool = RayPool({"a": actor("a")}, [], answers.make, apart=False)  # type: ignore[arg-type]
    answers.say[answers.asked[-1][1]] = Unbuilt()
    with pytest.raises(ActorDiedError):
        pool.wait(1.0)
