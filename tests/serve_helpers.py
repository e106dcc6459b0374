"""A service in this process: the real application and the real desk, without Ray and without a network."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
from use_helpers import untrained

from distmeta.serve.access import listen
from distmeta.serve.app import build_app
from distmeta.serve.desk import Asked, Desk
from distmeta.serve.limits import Limits, Refusal
from distmeta.serve.store import Store

JSON = {"content-type": "application/json"}
EXAMPLES = [{"text": f"topic{n} thing{n} word{k}", "label": f"class {n}"} for n in range(3) for k in range(2)]


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class LocalReplicas:
    """One replica, in this process; a test may set `lock` to keep adaptations waiting."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.count, self.lock = desk, 1, asyncio.Event()
        self.lock.set()

    async def create(self, task: str, request: dict[str, Any]) -> dict[str, Any] | Refusal:
        await self.lock.wait()
        return self.desk.create(task, request)

    async def grow(self, task: str, request: dict[str, Any]) -> dict[str, Any] | Refusal:
        await self.lock.wait()
        return self.desk.grow(task, request)

    async def predict(self, asked: Asked) -> list[dict[str, Any]] | Refusal:
        return self.desk.predict([asked])[0]

    def running(self) -> int:
        return self.count


class LocalService:
    """Calls the application as a server would."""

    def __init__(
        self, folder: Path, limits: Limits | None = None, token: str | None = None, hosts: Iterable[str] | None = None
    ) -> None:
        limits = limits or Limits(rate=1e6)
        if not (folder / "learner").exists():
            untrained(folder, "protonet").save(folder / "learner")
        self.last = Answer(0, {}, b"")
        self.store = Store(folder / "tasks")
        about = json.loads((folder / "learner" / "learner.json").read_text())
        self.store.make(about["meta_params_sha256"])
        self.desk = Desk(str(folder / "learner"), str(folder / "tasks"), limits)
        self.replicas = LocalReplicas(self.desk)
        names = None if hosts is None else set(hosts)
        self.app = build_app(self.replicas, self.store, self.desk.codecs, limits, token, names)

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        return asyncio.run(self.send(method, path, body, **headers))

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        given = {"host": "127.0.0.1:8000", **(JSON if body is not None else {})}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.raw(method, path, _chunks(content), given)

    async def raw(
        self, method: str, path: str, chunks: AsyncIterator[bytes], headers: dict[str, str], client: str = "127.0.0.1"
    ) -> Answer:
        """One request, whose body comes in chunks."""
        address, _, query = path.partition("?")
        scope = {
            **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http"},
            **{"path": address, "raw_path": address.encode(), "query_string": query.encode(), "root_path": ""},
            **{"client": (client, 1), "server": ("127.0.0.1", 8000)},
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
        }
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            async for chunk in chunks:
                return {"type": "http.request", "body": chunk, "more_body": True}
            if not any(message.get("done") for message in sent):
                sent.append({"type": "end", "done": True})
                return {"type": "http.request", "body": b"", "more_body": False}
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        try:
            await self.app(scope, receive, send)
        finally:
            (start,) = (message for message in sent if message["type"] == "http.response.start")
            body = b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body")
            self.last = Answer(start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, body)
        return self.last

    @contextmanager
    def listening(self) -> Iterator[str]:
        """Its address on this machine, while a server runs in a thread."""
        server = uvicorn.Server(uvicorn.Config(self.app, port=0, ws="none", log_config=None, access_log=False))
        with listen("127.0.0.1", 0) as socket:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
            thread.start()
            try:
                yield f"http://127.0.0.1:{socket.getsockname()[1]}"
            finally:
                server.should_exit = True
                thread.join()

    def make(self, examples: Any = EXAMPLES, **more: Any) -> str:
        """The id of a new task."""
        answer = self("POST", "/tasks", {"examples": examples, **more})
        assert answer.status == 201, answer.body
        return str(answer.json["id"])


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    if content:
        yield content
