"""What the addresses of the service do: each request is a call of the replicas, or is answered from the disk."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable
from typing import Any, Protocol

from fastapi import Response
from fastapi.responses import JSONResponse

from distmeta.errors import CheckpointError
from distmeta.serve.desk import Asked
from distmeta.serve.limits import Limits, Refusal, Refused, unknown
from distmeta.serve.metrics import Metrics
from distmeta.serve.store import Store, UnknownTaskError, new_id


class UnavailableError(Exception):
    """No replica answers."""


class Replicas(Protocol):
    """Those that compute. Each call returns a result, or why there is none."""

    async def create(self, task: str, request: dict[str, Any]) -> dict[str, Any] | Refusal:
        """Learns a task and keeps it."""

    async def grow(self, task: str, request: dict[str, Any]) -> dict[str, Any] | Refusal:
        """Learns a task again with further examples."""

    async def predict(self, asked: Asked) -> list[dict[str, Any]] | Refusal:
        """Predicts."""

    def running(self) -> int:
        """How many can answer."""


class Service:
    """What the addresses do."""

    def __init__(self, replicas: Replicas, store: Store, limits: Limits, metrics: Metrics) -> None:
        self._replicas, self._store, self._limits, self._metrics = replicas, store, limits, metrics
        self._adaptations = 0
        self._count = len(store.ids())
        metrics.watch(lambda: self._count, replicas.running)

    async def create(self, body: Any, response: Response) -> Any:
        """Learns a task from examples and keeps it."""
        if self._count >= self._limits.tasks:
            raise Refused(Refusal(409, "tasks", f"the service holds {self._count}", "delete some"))
        task = new_id()
        found = await self._adapt(self._replicas.create(task, body.model_dump()))
        self._count += 1
        response.headers["location"] = f"/tasks/{task}"
        return found

    async def grow(self, task: str, body: Any) -> Any:
        """Learns a task again with further examples, of its classes or of new ones."""
        return await self._adapt(self._replicas.grow(task, {**body.model_dump(), "key": uuid.uuid4().hex}))

    async def predict(self, task: str, body: Any) -> Any:
        """Predicts inputs. Those that the learner is not sure enough of get no label, unless `abstain` is false."""
        asked = Asked(task, body.model_dump()["inputs"], body.abstain)
        found = _result(await self._timed(self._replicas.predict(asked)))
        self._metrics.predictions.inc(len(found))
        return JSONResponse({"predictions": found})

    def about(self, task: str) -> Any:
        """What is known of a task."""
        try:
            return self._store.describe(task)
        except UnknownTaskError:
            raise Refused(unknown(task)) from None
        except CheckpointError as error:
            raise Refused(Refusal(500, "task", f"its files: {error.found}", "delete it and make it again")) from error

    def page(self, limit: int, after: str) -> Any:
        """The tasks, by id."""
        ids = self._store.ids()
        rest = [task for task in ids if task > after]
        described = []
        for task in rest[:limit]:
            try:
                described.append(self._store.describe(task))
            except CheckpointError as error:
                described.append({"id": task, "error": str(error.found)})
            except UnknownTaskError:
                continue  # deleted in the meantime
        return {"tasks": described, "total": len(ids), "next": rest[limit - 1] if len(rest) > limit else None}

    def delete(self, task: str) -> None:
        """Deletes a task."""
        try:
            self._store.delete(task)
        except UnknownTaskError:
            raise Refused(unknown(task)) from None
        self._count -= 1

    def health(self) -> JSONResponse:
        """Whether the service answers: 503 while no replica runs."""
        running = self._replicas.running()
        content = {"status": "ok" if running else "no replica runs", "replicas": running, "tasks": self._count}
        return JSONResponse(content, 200 if running else 503)

    async def _adapt(self, call: Awaitable[Any]) -> Any:
        if self._adaptations >= self._limits.adaptations:
            getattr(call, "close", lambda: None)()
            found = f"{self._adaptations} tasks are being learned"
            raise Refused(Refusal(429, "load", found, "try again in 2 s"), 2)
        self._adaptations += 1
        self._metrics.adaptations.set(self._adaptations)
        try:
            return _result(await self._timed(call))
        finally:
            self._adaptations -= 1
            self._metrics.adaptations.set(self._adaptations)

    async def _timed(self, call: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(self._limits.answer_seconds):
                return await call
        except (UnavailableError, TimeoutError):
            raise Refused(Refusal(503, "service", "no replica answers", "try again in 5 s"), 5) from None


def _result(found: Any) -> Any:
    if isinstance(found, Refusal):
        raise Refused(found)
    return found
