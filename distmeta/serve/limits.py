"""How much the service takes, and the refusals of what is more or cannot be used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """The defaults suit a machine with two cores."""

    body_bytes: int = 4 * MIB
    texts: int = 256  # inputs of one prediction
    characters: int = 10_000  # of a text; a learner reads a few hundred tokens at most
    label_characters: int = 200
    classes: int = 200  # of a task
    examples: int = 2000  # of a task
    tasks: int = 100_000  # on disk
    memory_bytes: int = 512 * MIB  # of a replica's tasks in memory
    rate: float = 200.0  # requests a second from one address
    burst_seconds: float = 5.0  # an address may save up so many seconds' requests
    pending: int = 256  # requests at once
    adaptations: int = 16  # at once, those that wait included
    body_seconds: float = 30.0  # for a client to send its body
    answer_seconds: float = 120.0  # for the replicas to answer


class Refusal(NamedTuple):
    """Why a request gets no result. `where`, `found` and `remedy` are those of a `UserError`."""

    status: int
    where: str
    found: str
    remedy: str


class Refused(Exception):
    """A request is refused. `retry_seconds`: when it is worth trying again."""

    def __init__(self, refusal: Refusal, retry_seconds: int | None = None) -> None:
        super().__init__(refusal)
        self.refusal, self.retry_seconds = refusal, retry_seconds


def unknown(task: str) -> Refusal:
    """There is no such task."""
    return Refusal(404, "task", f"there is none with the id {task[:64]!r}", "make one with POST /tasks")
