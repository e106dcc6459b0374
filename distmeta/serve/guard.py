"""What every request passes before the application reads it: host, token, rate, load, size and encoding."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from distmeta.serve.limits import Limits, Refusal, Refused
from distmeta.serve.metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/", "/health", "/docs", "/openapi.json")  # they tell nothing of tasks
ADDRESSES = 10_000  # whose rate is remembered
DRAIN_SECONDS, DRAIN_BYTES = 1.0, 2**20  # of a refused body, so that the client gets to read the answer
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
)
NOTHING_ELSE = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


class Rates:
    """A bucket of requests for each address: it fills with `rate` a second, up to `most`."""

    def __init__(self, rate: float, most: float) -> None:
        self._rate, self._most = rate, max(1.0, most)
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests, and when

    def wait_seconds(self, address: str, now: float) -> float:
        """Takes a request out of the bucket; 0, or how long until there is one."""
        left, then = self._left.pop(address, (self._most, now))
        left = min(self._most, left + (now - then) * self._rate)
        wait = 0.0 if left >= 1 else (1 - left) / self._rate
        self._left[address] = (left - 1 if not wait else left, now)
        if len(self._left) > ADDRESSES:
            self._left.popitem(last=False)
        return wait


class Guard:
    """An ASGI application around another one.

    Args:
        app: gets requests whose body is complete.
        limits: of the service.
        token: without it, a request needs none.
        hosts: the names under which the service may be called; None: any. It keeps pages of other sites, whose name
            was made to point here, from a service without a token.
        metrics: counts requests.
    """

    def __init__(
        self, app: App, limits: Limits, token: str | None, hosts: Collection[str] | None, metrics: Metrics
    ) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._hosts = None if hosts is None else {host.lower() for host in hosts}
        self._secret = None if token is None else _hashed(token.encode())
        self._rates = Rates(limits.rate, limits.rate * limits.burst_seconds)
        self._pending = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", []), *HEADERS]
                if all(name.lower() != NOTHING_ELSE[0] for name, _ in headers):
                    headers.append(NOTHING_ELSE)
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._admitted(scope, receive, answer)
        except Refused as error:
            await _refuse(answer, error)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.request(scope["method"], route, status, time.monotonic() - started)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        self._check_host(headers)
        if scope["path"] not in OPEN:
            self._check_token(headers)
        if scope["path"] != "/health" and (wait := self._rates.wait_seconds(_address(scope), time.monotonic())):
            found = f"more than {self._limits.rate:g} requests a second from your address"
            raise _too_many("rate", found, math.ceil(wait))
        if self._pending >= self._limits.pending:
            raise _too_many("load", f"{self._pending} requests are being answered", 1)
        self._pending += 1
        self._metrics.pending.set(self._pending)
        try:
            try:
                body = await self._body(headers, receive)
            except Refused as error:
                await _refuse(send, error, receive)
                return
            await self._app(scope, _replay(body, receive), send)
        finally:
            self._pending -= 1
            self._metrics.pending.set(self._pending)

    def _check_host(self, headers: dict[bytes, bytes]) -> None:
        if self._hosts is None:
            return
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
        if name.strip("[]") not in self._hosts:
            remedy = "call it as localhost, or start it with a token"
            raise Refused(Refusal(403, "Host", "the service does not answer to this name", remedy))

    def _check_token(self, headers: dict[bytes, bytes]) -> None:
        if self._secret is None:
            return
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        # Of hashes, so that the time does not tell the token's length either.
        if not hmac.compare_digest(_hashed(given.strip()), self._secret) or kind.lower() != b"bearer":
            found = "the token is wrong" if given else "there is no token"
            raise Refused(Refusal(401, "Authorization", found, "send the header Authorization: Bearer TOKEN"))

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """The whole body.

        Raises:
            Refused: it is too long, too slow, not JSON by its header, or not UTF-8.
        """
        most = self._limits.body_bytes
        too_long = Refused(Refusal(413, "body", f"more than {most} bytes", "send less at once"))
        length = headers.get(b"content-length", b"0")
        if len(length) > 15 or int(length or b"0") > most:
            raise too_long
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        break
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise too_long
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            found = f"not complete after {self._limits.body_seconds:g} s"
            raise Refused(Refusal(408, "body", found, "send it faster")) from None
        body = b"".join(parts)
        if body:
            kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
            if kind != b"application/json":
                found = "the body is not declared as JSON"
                raise Refused(Refusal(415, "Content-Type", found, "send the header Content-Type: application/json"))
            try:
                body.decode()
            except UnicodeDecodeError as error:
                raise Refused(Refusal(400, "body", f"byte {error.start} is not UTF-8", "send UTF-8")) from None
        return body


def _address(scope: Scope) -> str:
    return str((scope.get("client") or ("unknown",))[0])


def _hashed(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def _too_many(where: str, found: str, seconds: int) -> Refused:
    return Refused(Refusal(429, where, found, f"try again in {seconds} s"), seconds)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read, then what comes after it."""
    given = False

    async def next_message() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message


def content_of(refusal: Refusal) -> bytes:
    """The body of a refusal, in ASCII: what a user typed may be no valid text."""
    _, where, found, remedy = refusal
    return json.dumps({"error": {"where": where, "found": found, "remedy": remedy}}).encode()


def headers_of(error: Refused) -> dict[str, str]:
    """The headers of a refusal."""
    headers = {"content-type": "application/json"}
    if error.refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.retry_seconds is not None:
        headers["retry-after"] = str(error.retry_seconds)
    return headers


async def _refuse(send: Send, error: Refused, unread: Receive | None = None) -> None:
    """Answers. Takes in a little of an unread body: a client that is still sending would not see the answer."""
    body = content_of(error.refusal)
    headers = {**headers_of(error), "content-length": str(len(body))}
    if unread is not None:
        headers["connection"] = "close"
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.refusal.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body, "more_body": unread is not None})
    if unread is not None:
        await _drain(unread)
        await send({"type": "http.response.body", "body": b""})


async def _drain(receive: Receive) -> None:
    left = DRAIN_BYTES
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
