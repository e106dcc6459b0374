"""The driver's end of a server actor that dies, without Ray: the actor and how it dies are made up."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import ray
from arrays import f32
from ray.exceptions import ActorDiedError, RayTaskError

from distmeta.backends.server import MAX_SERVER_LOSSES, RemoteCoordinator
from distmeta.engine.interfaces import Evaluated
from distmeta.errors import DivergedError, TrainingError
from distmeta.types import ServerState, StepReport

FIGURES = Evaluated({})


class Actor:
    """A server whose θ is the number of steps it has taken; `dies` says before which of its calls."""

    def __init__(self, dies: Callable[["Actor", str], bool]) -> None:
        self.version, self.dies = 0, dies
        self.asked, self.evaluated = 0, False
        self.call = self

    def remote(self, method: str, *arguments: Any) -> Callable[[], Any]:
        def call() -> Any:
            return getattr(self, method)(*arguments)

        return call

    def advance(self, steps: int) -> list[StepReport]:
        reports = []
        for _ in range(steps):
            if self.dies(self, "advance"):
                raise ActorDiedError
            self.version += 1
            reports.append(StepReport(self.version, {}))
        return reports

    def state(self) -> ServerState:
        if self.dies(self, "state"):
            raise ActorDiedError
        return ServerState({"meta_params": f32(self.version)}, {"version": self.version})

    def evaluate(self, evaluations: list[Any]) -> list[Evaluated]:
        self.evaluated = True
        return [FIGURES]

    def progress(self) -> tuple[int, int]:
        self.asked += 1
        return self.asked - 1, 10 if self.asked > 1 else 0

    def load(self, state: ServerState) -> None:
        if self.dies(self, "load"):
            raise ActorDiedError
        self.version = int(state.arrays["meta_params"][0])


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get", lambda call: call())
    monkeypatch.setattr(ray, "kill", lambda actor: None)


def start(dies: Callable[[Actor, str], bool]) -> tuple[RemoteCoordinator, list[Actor], list[str]]:
    actors: list[Actor] = []
    said: list[str] = []

    def make() -> Actor:
        actors.append(Actor(dies))
        return actors[-1]

    return RemoteCoordinator(make, said.append), actors, said


@pytest.mark.parametrize("seed", range(20))
def test_however_often_servers_die_every_step_is_reported_once(seed: int) -> None:
    """A server lasts for 12 calls and steps on average, those that it does again included."""
    chance = random.Random(seed)
    coordinator, actors, said = start(lambda actor, method: chance.random() < 1 / 12)
    reported: list[int] = []
    while len(reported) < 200:
        reported += [report.outer_step for report in coordinator.advance(5)]
        if len(reported) % 50 == 0:
            assert coordinator.state().counters["version"] == len(reported)
    assert reported == list(range(1, 201))
    assert len(actors) > 20
    assert len(said) == len(actors) - 1


def test_servers_that_a_step_kills_end_the_run() -> None:
    """The steps before it, done again, do not count as if it went on."""
    coordinator, actors, _ = start(lambda actor, method: method == "advance" and actor.version == 37)
    for _ in range(7):
        coordinator.advance(5)
    with pytest.raises(TrainingError, match=f"lost {MAX_SERVER_LOSSES + 1} times in a row"):
        coordinator.advance(5)
    assert len(actors) == MAX_SERVER_LOSSES + 2  # the first of those that followed got as far as that step


def test_progress_is_asked_for_until_the_figures_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of the server that takes the place of one which died."""
    answers, told = iter([False, False, False, ActorDiedError(), False, True]), list[tuple[int, int]]()

    def wait(references: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        if isinstance(answer := next(answers), Exception):
            raise answer
        return (references, []) if answer else ([], references)

    monkeypatch.setattr(ray, "wait", wait)
    coordinator, actors, _ = start(lambda actor, method: False)
    assert coordinator.evaluate([], lambda *its: told.append(its)) == [FIGURES]
    assert told == [(1, 10), (2, 10), (1, 10)]  # not while units are planned
    assert [actor.evaluated for actor in actors] == [False, True]
    assert coordinator.evaluate([]) == [FIGURES]  # nobody wants to know


def test_what_a_run_died_of_is_told_in_its_own_words() -> None:
    """And anything unexpected with the traceback of the actor."""
    for cause in (DivergedError("meta_test task 3 (x): it diverged"), TrainingError("a worker was lost")):
        with pytest.raises(type(cause)) as caught:
            start(failing(cause))[0].state()
        assert str(caught.value) == str(cause)
    with pytest.raises(ValueError, match="far away"):
        start(failing(ValueError("odd")))[0].state()


def failing(cause: Exception) -> Callable[[Actor, str], bool]:
    def fail(actor: Actor, method: str) -> bool:
        raise RayTaskError("call", "Traceback:\n  far away", cause)

    return fail
