"""Labels that spread along the edges of a graph."""

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, error_model="numpy")
def spread(indptr, indices, chances, walk_steps, values):
    """values (N, r) <- P^walk_steps values, in place, for a random walk P in row form, `chances` its entries.

    What a walker who starts at each node is worth on average after so many steps, if it is worth `values` where it is.
    """
    N, r = values.shape
    moved = np.empty((N, r))
    for _ in range(walk_steps):
        for x in range(N):
            for c in range(r):
                moved[x, c] = 0.0
            for e in range(indptr[x], indptr[x + 1]):
                y, chance = indices[e], chances[e]
                for c in range(r):
                    moved[x, c] += chance * values[y, c]
        values[:, :] = moved
