"""Arrays as the system passes them."""

import numpy as np


def f32(*values: float) -> np.ndarray:
    """A float32 vector."""
    return np.array(values, np.float32)
