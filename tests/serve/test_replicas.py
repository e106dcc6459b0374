"""Calls of replicas that may die in the middle."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from serve_helpers import LocalService
from use_helpers import NEW

from distmeta.serve.desk import Asked
from distmeta.serve.limits import Limits
from distmeta.serve.service import UnavailableError


def replicas(deaths: int) -> tuple[Any, list[Any]]:
    """Replicas of which the first ones die during a call, and the calls."""
    pytest.importorskip("grpc_reflection", reason="needs the serve extra")
    from ray.exceptions import ActorDiedError

    from distmeta.serve.replicas import RayReplicas

    calls: list[Any] = []

    async def remote(*arguments: Any) -> str:
        calls.append(arguments)
        if len(calls) <= deaths:
            raise ActorDiedError
        return "an answer"

    method = SimpleNamespace(remote=remote)
    return RayReplicas(SimpleNamespace(predict=method, create=method, grow=method)), calls


def test_a_call_whose_replica_dies_is_sent_again() -> None:
    found, calls = replicas(2)
    assert asyncio.run(found.create("an id", {"key": "a key"})) == "an answer"
    assert calls == [("an id", {"key": "a key"})] * 3, "the same call, so that it is done once"


def test_at_last_it_is_given_up() -> None:
    found, calls = replicas(100)
    with pytest.raises(UnavailableError):
        asyncio.run(found.predict(Asked("an id", NEW, True)))
    assert len(calls) == 5


def test_without_replicas_a_request_is_told_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = LocalService(tmp_path, Limits(answer_seconds=0.05))
    task = service.make()

    async def never(asked: Any) -> Any:
        await asyncio.sleep(60)

    async def none(asked: Any) -> Any:
        raise UnavailableError

    for behaviour in (never, none):
        monkeypatch.setattr(service.replicas, "predict", behaviour)
        answer = service("POST", f"/tasks/{task}/predict", {"inputs": NEW})
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
