"""Where workers run: in this process or as Ray actors. The driver uses the same coordinator for both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from distmeta.config import ClusterConfig

if TYPE_CHECKING:  # submitting a job needs no torch
    from distmeta.backends.base import Backend

# Ray reads this when it is imported: it sends no usage statistics unless the user asks for it.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@contextmanager
def open_backend(cluster: ClusterConfig) -> Iterator[Backend]:
    """Connects to where the workers will run, and always cleans up afterwards."""
    if cluster.backend == "ray":
        from distmeta.backends.ray import RayBackend

        with RayBackend(cluster) as backend:
            yield backend
    else:
        from distmeta.backends.inprocess import InProcessBackend

        yield InProcessBackend(cluster)
