"""What the driver's machine does, as metrics of a run: ``system/cpu_utilization_percentage`` and others."""

from __future__ import annotations

import time
from importlib.util import find_spec

from distmeta.errors import ConfigError
from distmeta.tracking import private

EVERY_SECONDS = 10.0  # MLflow's own default


def check_system(wanted: bool) -> None:
    """Raises a `ConfigError` if system metrics are wanted and cannot be measured."""
    if wanted and not find_spec("psutil"):
        raise ConfigError("tracking.system_metrics", "needs the package psutil", "install it with `pip install psutil`")


class Machine:
    """Measures with MLflow's own monitors.

    MLflow would do it in a thread that sends by itself, and that ends when MLflow is away. Here the figures go the way
    of all others.
    """

    def __init__(self) -> None:
        self._monitors, self._looked = private.monitors(), time.monotonic()

    def look(self) -> dict[str, float]:
        """The figures since the last look; empty before `EVERY_SECONDS` have passed."""
        if time.monotonic() - self._looked < EVERY_SECONDS:
            return {}
        self._looked = time.monotonic()
        figures: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            figures |= {f"system/{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        return figures
