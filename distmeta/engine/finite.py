"""Which figures of a unit are finite, and which of its tasks are at fault."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from distmeta.types import Episode, Rejected, Statistics, Unit

DIVERGED = "its inner loop diverged: the loss after adaptation is not finite"
LARGEST_NORM = float(np.finfo(np.float32).max) ** 0.5  # of a unit's gradient: Adam squares it, sums must stay finite


def diverged(unit: Unit, episode: Episode, statistics: Statistics) -> tuple[Rejected, ...]:
    """The tasks of a unit whose statistics are not all finite."""
    # The number of right answers would hide it: the argmax of NaN outputs is the first class.
    finite = torch.stack([value.isfinite().reshape(len(value), -1).all(1) for value in statistics.values()]).all(0)
    bad = (t for t in range(unit.count) if not finite[t])
    return tuple(Rejected(unit.first_index + t, episode.names[t], DIVERGED) for t in bad)


def norm_of(gradient: Tensor) -> float:
    """The norm of a flat gradient; in float32 if it is far from too large, which is twenty times faster."""
    rough = float(torch.linalg.vector_norm(gradient))
    if rough < LARGEST_NORM / 2:  # false on overflow and for NaN
        return rough
    return float(torch.linalg.vector_norm(gradient, dtype=torch.float64))


def are_finite(metrics: Statistics) -> bool:
    """Whether all figures are finite."""
    return all(bool(value.isfinite().all()) for value in metrics.values())
