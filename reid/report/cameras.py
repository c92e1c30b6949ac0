"""Which cameras a matrix of cameras shows."""

import numpy as np
from numpy.typing import NDArray

_MOST = 16


def busiest(camids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the cameras with most images, 16 at most, ascending."""
    cameras, counts = np.unique(camids, return_counts=True)
    return np.sort(cameras[np.argsort(-counts, kind="stable")[:_MOST]])
