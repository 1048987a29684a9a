"""Stochastic gradient descent on an embedding table f (N, k), by the spectral contrastive loss of a batch of pairs.

    f_x -= eta/(N w_x) dL_B/df_x,    whose mean is the gradient flow of F = sqrt(w) f with time eta/N a step.

A pair is either two views of one natural example, or an edge of a weighted graph whose weights are the probabilities
of positive pairs. A call is resumable: it goes from step `first` to step `last` on the array that it overwrites, so
that whatever is measured in between is measured outside. Source: HaoChen, Wei, Gaidon, Ma, NeurIPS 2021; L_B as in
the code published with it.
"""

import numpy as np
from numba import njit

from .kernels import batch_gradients, clipped, draw_edges, draw_pairs, guide, unclip

STATUS = {"done": 0, "cancelled": 1, "diverged": 2}
PAIRS = {"views": 0, "edges": 1}
LIMIT = 1e3  # of |f|: beyond it training has diverged

DONE = STATUS["done"]
CANCELLED = STATUS["cancelled"]
DIVERGED = STATUS["diverged"]
VIEWS = PAIRS["views"]
EDGES = PAIRS["edges"]


def row_sums(indptr, data):
    """(entries,) running sums within each row of a sparse matrix in row form, as the draws read them."""
    running = np.cumsum(data)
    before = np.concatenate([[0.0], running])[indptr[:-1]]
    return running - np.repeat(before, np.diff(indptr))


def tables(cumulative, indptr, indices, row_cumulative):
    """What is drawn from, as kernels take it: running sums of the rows' weights, and within each row; with guides."""
    ends = np.array([0, cumulative.size])
    return cumulative, guide(ends, cumulative), indptr, indices, row_cumulative, guide(indptr, row_cumulative)


@njit(nogil=True, cache=True, error_model="numpy")
def within(f, rows):
    """Whether the rows of f that are named hold no number beyond LIMIT, and no NaN."""
    for i in range(rows.size):
        for c in range(f.shape[1]):
            if not abs(f[rows[i], c]) <= LIMIT:
                return False
    return True


@njit(nogil=True, cache=True, error_model="numpy")
def sgd(
    pairs, cumulative, guides, indptr, indices, row_cumulative, row_guides, rate, batch, clip_norm, f,
    first, last, rng, first_rng, second_rng, cancel, progress,
):  # fmt: skip
    """Take the SGD steps first, ..., last - 1 on the table f (N, k); return (status, step it ended at).

    pairs: one of PAIRS, which says what the `tables` hold: see `kernels.draw_pairs` and `kernels.draw_edges`; for edges
    `rng` draws the one end and `second_rng` the other. rate (N,) = eta/(N w): the step size of each node. A node that
    a batch holds several times adds up its gradients, all taken at the table before the step. clip_norm: see
    `kernels.clipped`, 0 for none.
    """
    k = f.shape[1]
    x1, x2 = np.empty(batch, np.int64), np.empty(batch, np.int64)
    z1, z2 = np.empty((batch, k)), np.empty((batch, k))
    g1, g2 = np.empty((batch, k)), np.empty((batch, k))
    c1, c2 = np.empty(batch), np.empty(batch)
    for step in range(first, last):
        progress[0] = step
        if cancel[0] != 0:
            return CANCELLED, step
        if pairs == VIEWS:
            draw_pairs(
                cumulative, guides, indptr, indices, row_cumulative, row_guides, rng, first_rng, second_rng, x1, x2
            )
        else:
            draw_edges(cumulative, guides, indptr, indices, row_cumulative, row_guides, rng, second_rng, x1, x2)
        embed(f, x1, z1)
        embed(f, x2, z2)
        batch_step(z1, z2, clip_norm, c1, c2, g1, g2)
        for i in range(batch):
            a, b = x1[i], x2[i]
            for c in range(k):
                f[a, c] -= rate[a] * g1[i, c]
                f[b, c] -= rate[b] * g2[i, c]
        if not (within(f, x1) and within(f, x2)):
            return DIVERGED, step + 1
    progress[0] = last
    return DONE, last


@njit(nogil=True, cache=True, error_model="numpy")
def embed(f, rows, z):
    """z = f[rows]."""
    for i in range(rows.size):
        for c in range(f.shape[1]):
            z[i, c] = f[rows[i], c]


@njit(nogil=True, cache=True, error_model="numpy")
def batch_step(z1, z2, clip_norm, c1, c2, g1, g2):
    """Gradients g1, g2 (B, k) of L_B with respect to the rows before clipping; c1, c2 (B,) are scratch."""
    clipped(z1, clip_norm, c1)
    clipped(z2, clip_norm, c2)
    batch_gradients(z1, z2, g1, g2)
    unclip(z1, clip_norm, c1, g1)
    unclip(z2, clip_norm, c2, g2)
