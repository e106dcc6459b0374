"""Calls a service that `distmeta serve` started. Needs nothing but the standard library.

    client = Client("http://127.0.0.1:8000")
    task = client.adapt(["I want my money back", "where is my parcel"], ["refund", "delivery"])
    task.predict(["has it been sent?"])

The file can be copied to where distmeta is not installed, with `distmeta/errors.py` beside it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any

from distmeta.errors import ConfigError, UserError

MANY = 256  # texts sent at once, unless the client is told otherwise
WAIT_SECONDS = 1.0  # before a request is sent again, if the service does not say how long


class RefusedError(UserError):
    """The service refused a request. `status` is the status code of HTTP."""

    def __init__(self, status: int, where: str, found: str, remedy: str) -> None:
        super().__init__(where, found, remedy)
        self.args = (status, where, found, remedy)
        self.status = status


class Client:
    """Calls a service.

    Args:
        address: of the service, such as ``http://127.0.0.1:8000``.
        token: of the service, if it needs one.
        timeout: seconds until an answer, before the call is given up.
        patience: seconds for which requests are sent again while the service is overloaded (429), or has no replica
            (503).
        at_once: the most texts of one request; `predict` sends several if there are more.
    """

    def __init__(
        self,
        address: str = "http://127.0.0.1:8000",
        token: str | None = None,
        *,
        timeout: float = 120.0,
        patience: float = 60.0,
        at_once: int = MANY,
    ) -> None:
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ConfigError("address", "is not the address of a service", "give one such as http://127.0.0.1:8000")
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        self._base, self._token = parts.path.rstrip("/"), token
        self._timeout, self._patience, self.at_once = timeout, patience, at_once

    def adapt(
        self,
        texts: Sequence[Any],
        labels: Sequence[Any],
        *,
        wrong: float | None = None,
        name: str | None = None,
    ) -> ServedTask:
        """Makes a task from examples. `wrong` is that of `Learner.adapt`; `name` is for people.

        Raises:
            RefusedError: an example cannot be used; `where` names it.
        """
        request: dict[str, Any] = {"examples": _examples(texts, labels)}
        given = {"wrong": wrong, "name": name}
        request |= {key: value for key, value in given.items() if value is not None}
        return ServedTask(self, self.call("POST", "/tasks", request))

    def task(self, id: str) -> ServedTask:
        """The task with an id.

        Raises:
            RefusedError: there is none.
        """
        return ServedTask(self, self.call("GET", f"/tasks/{urllib.parse.quote(id, safe='')}"))

    def tasks(self) -> Iterator[dict[str, Any]]:
        """What is known of each task, by id."""
        after = ""
        while after is not None:
            found = self.call("GET", "/tasks?" + urllib.parse.urlencode({"limit": 1000, "after": after}))
            yield from found["tasks"]
            after = found["next"]

    def health(self) -> dict[str, Any]:
        """Whether the service answers."""
        found: dict[str, Any] = self.call("GET", "/health")
        return found

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Sends a request; returns the JSON of its answer.

        Raises:
            RefusedError: the service refused it, or is still overloaded.
            OSError: the service does not answer.
        """
        until = time.monotonic() + self._patience
        while True:
            status, headers, content = self._send(method, path, body)
            if status < 400:
                return json.loads(content) if content else None
            wait = _seconds(headers.get("Retry-After"))
            if status not in (429, 503) or time.monotonic() + wait > until:
                raise _refused(status, content)
            time.sleep(wait)

    def _send(self, method: str, path: str, body: Any) -> tuple[int, Any, bytes]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        with contextlib.closing(kind(self._host, self._port, timeout=self._timeout)) as connection:
            # A service that refuses a long body answers before it has been sent.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, self._base + path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()


class ServedTask:
    """A task of a service. `about` is what is known of it, such as `classes` and `expected`."""

    def __init__(self, client: Client, about: dict[str, Any]) -> None:
        self._client, self.about = client, about

    @property
    def id(self) -> str:
        """By which the service knows it."""
        return str(self.about["id"])

    @property
    def names(self) -> tuple[str, ...]:
        """The classes, in the order of `predict_proba`."""
        return tuple(self.about["classes"])

    def answers(self, texts: Sequence[Any], abstain: bool = True) -> list[dict[str, Any]]:
        """A prediction for each text: `label`, `certainty` and `probabilities`.

        Raises:
            RefusedError: a text cannot be used; `where` names it, counted from 0 among those of one request.
        """
        found: list[dict[str, Any]] = []
        for first in range(0, len(texts), self._client.at_once):
            request = {"inputs": list(texts[first : first + self._client.at_once]), "abstain": abstain}
            found += self._client.call("POST", f"/tasks/{self.id}/predict", request)["predictions"]
        return found

    def predict(self, texts: Sequence[Any], abstain: bool = True) -> list[str | None]:
        """The label of each text; None where the learner is not sure enough, unless `abstain` is false."""
        return [found["label"] for found in self.answers(texts, abstain)]

    def predict_proba(self, texts: Sequence[Any]) -> list[list[float]]:
        """The probabilities of the classes `names`, for each text."""
        return [[found["probabilities"][name] for name in self.names] for found in self.answers(texts)]

    def grow(self, texts: Sequence[Any], labels: Sequence[Any]) -> None:
        """Learns further examples, of its classes or of new ones."""
        self.about = self._client.call("POST", f"/tasks/{self.id}/examples", {"examples": _examples(texts, labels)})

    def delete(self) -> None:
        """Deletes the task."""
        self._client.call("DELETE", f"/tasks/{self.id}")


def _examples(texts: Sequence[Any], labels: Sequence[Any]) -> list[dict[str, Any]]:
    if len(texts) != len(labels):
        raise ConfigError("examples", f"{len(texts)} texts and {len(labels)} labels", "give one label to each")
    return [
        {**(text if isinstance(text, dict) else {"text": text}), "label": label}
        for text, label in zip(texts, labels, strict=True)
    ]


def _seconds(header: str | None) -> float:
    return float(header) if header is not None and header.isdigit() else WAIT_SECONDS


def _refused(status: int, content: bytes) -> RefusedError:
    try:
        error = json.loads(content)["error"]
        return RefusedError(status, error["where"], error["found"], error["remedy"])
    except (ValueError, KeyError, TypeError):
        return RefusedError(status, "service", f"answered {status} without a reason", "check that it is distmeta's")
