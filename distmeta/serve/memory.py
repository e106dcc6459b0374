"""Tasks in memory: those that were used last, up to a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict

from distmeta.use.task import Task

BASE_BYTES = 4096  # of the objects of a task, besides tensors and examples


class Memory:
    """Keeps each task under its id and version. Threads may share it."""

    def __init__(self, most_bytes: int) -> None:
        self._most, self._bytes = most_bytes, 0
        self._tasks: OrderedDict[str, tuple[str, Task, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._tasks)

    def get(self, name: str, version: str) -> Task | None:
        """A version of a task, if it is in memory; it then counts as used."""
        with self._lock:
            found = self._tasks.get(name)
            if found is None or found[0] != version:
                return None
            self._tasks.move_to_end(name)
            return found[1]

    def put(self, name: str, version: str, task: Task) -> None:
        """Keeps a task in place of its other versions. The least recently used ones make room; one always stays."""
        size = size_of(task)
        with self._lock:
            self._bytes += size - self._tasks.pop(name, (version, task, 0))[2]
            self._tasks[name] = (version, task, size)
            while self._bytes > self._most and len(self._tasks) > 1:
                self._bytes -= self._tasks.popitem(last=False)[1][2]


def size_of(task: Task) -> int:
    """About how many bytes a task takes that are not its learner's."""
    own = {id(value) for value in task.learner.theta.values()}
    tensors = [*task.adapted.stacked.values(), *(v for v in task.adapted.shared.values() if id(v) not in own)]
    texts = sum(len(str(value)) for example in task.examples for value in example.values())
    return BASE_BYTES + sum(tensor.numel() * tensor.element_size() for tensor in tensors) + 2 * texts
