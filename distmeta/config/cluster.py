"""The section `cluster`."""

from typing import Annotated, Literal, Self

import pydantic
from pydantic import Field

from distmeta.config.base import Count, NotNegative, Positive, Section


class Workers(Section):
    """Number of workers: training starts with `min`, and up to `max` join when there is room."""

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
    gpus_per_worker: NotNegative | None = None  # none: a share of the cluster's GPUs, at most one each
    memory_per_worker: Positive | None = None  # GiB that Ray reserves; none: nothing is reserved
    resources_per_worker: dict[str, Positive] = Field(default_factory=dict)  # custom resources of the nodes
    reduce: Literal["none", "node"] = "none"  # node: add a node's gradients there, where the sum stays the same
    server_shards: Count = 1  # actors that share θ and the optimiser's state
    compression: Literal["none", "bf16"] = "none"  # of sent gradients; bf16: half the bytes, 8 significant bits
    deterministic: bool = True  # on GPUs, refuse kernels that add in no fixed order; false: results may vary
    start_timeout_seconds: Count = 900  # for all workers to start; a cluster may have to start machines first
    tasks_per_unit: Count = 2  # episodes that a worker computes at once; changes rounding, so it is not set by workers
    # A unit that takes longer than both limits gets a backup copy on an idle worker. After three times as long its
    # worker is replaced.
    deadline_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 4.0  # times the running median
    deadline_seconds: Positive = 10.0
    # How many versions older than θ a gradient may be. 0: synchronous, the same result on every backend. Above 0, the
    # backend inprocess simulates the configured number of workers in turn.
    max_staleness: Annotated[int, Field(ge=0, le=64)] = 0
    staleness_alpha: NotNegative = 0.5  # the weight of a gradient that is s versions old is 1/(1+s)^alpha

    @property
    def range(self) -> Workers:
        """`workers` as a range."""
        return self.workers if isinstance(self.workers, Workers) else Workers(min=self.workers, max=self.workers)
