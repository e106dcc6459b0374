"""Prometheus metrics of the service."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """Counts requests, predictions and what is under way. Labels hold routes, never what a user typed."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "route")
        self._requests = Counter(
            "distmeta_requests", "Requests by their answer", (*labels, "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "distmeta_request_seconds", "Time to answer", labels, buckets=SECONDS, registry=self._registry
        )
        self.predictions = Counter("distmeta_predictions", "Inputs that were predicted", registry=self._registry)
        self.pending = Gauge("distmeta_pending_requests", "Requests that are being answered", registry=self._registry)
        self.adaptations = Gauge("distmeta_adaptations", "Tasks that are being learned", registry=self._registry)
        self._tasks = Gauge("distmeta_tasks", "Tasks on disk", registry=self._registry)
        self._replicas = Gauge("distmeta_replicas", "Replicas that run", registry=self._registry)

    def watch(self, tasks: Callable[[], int], replicas: Callable[[], int]) -> None:
        """Where to ask for the numbers of tasks and replicas."""
        self._tasks.set_function(tasks)
        self._replicas.set_function(replicas)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts a request."""
        known = method if method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH") else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(known, route).observe(seconds)

    def text(self) -> bytes:
        """All of them, in the text format."""
        found: bytes = generate_latest(self._registry)
        return found
