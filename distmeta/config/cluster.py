"""The section `cluster`."""

from typing import Annotated, Literal, Self

import pydantic
from pydantic import Field

from distmeta.config.base import Count, NotNegative, Positive, Section


class Workers(Section):
    """How many workers there may be: with `min` of them training starts, up to `max` join when there is room."""

    min: Count = 1
    max: Count

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min is {self.min} and max {self.max}; give a max of at least {self.min}")
        return self

    def __str__(self) -> str:
        return f"{self.min} to {self.max}"


class ClusterConfig(Section):
    """Where the workers run."""

    backend: Literal["ray", "inprocess"] = "ray"
    address: str | None = None  # host:port or auto; none: $RAY_ADDRESS, else a private Ray on this machine
    workers: Count | Workers = 2  # a number, or {min: 1, max: 8}: as many as the cluster has room for at the time
    cpus_per_worker: Positive = 1
    gpus_per_worker: NotNegative | None = None  # none: shares of the GPUs there are, at most one each
    memory_per_worker: Positive | None = None  # GiB that Ray sets aside; none: none
    resources_per_worker: dict[str, Positive] = Field(default_factory=dict)  # custom ones of the cluster's nodes
    reduce: Literal["none", "node"] = "none"  # node: a node's gradients are added there, as far as that is the same sum
    server_shards: Count = 1  # actors over which θ and its optimiser are spread
    compression: Literal["none", "bf16"] = "none"  # of gradients on their way: half of the bytes, 8 bits of each number
    deterministic: bool = True  # on GPUs, refuse kernels that add in no fixed order; false gives up the same answer
    start_timeout_seconds: Count = 900  # for all workers to start; a cluster may have to start machines first
    tasks_per_unit: Count = 2  # episodes that a worker stacks; part of the arithmetic, so not set by workers
    # A unit that takes longer than both gets a backup copy on an idle worker, and after three times that its worker is
    # replaced.
    deadline_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 4.0  # times the running median
    deadline_seconds: Positive = 10.0
    # Versions by which a gradient may be older than the θ that it updates; 0: synchronous, the same answer anywhere.
    # Above 0 as many workers as are configured take turns in one process.
    max_staleness: Annotated[int, Field(ge=0, le=64)] = 0
    staleness_alpha: NotNegative = 0.5  # a gradient that is s versions old counts 1/(1+s)^alpha

    @property
    def range(self) -> Workers:
        """`workers` as a range."""
        return self.workers if isinstance(self.workers, Workers) else Workers(min=self.workers, max=self.workers)
