"""Features of one domain that are moved until a kernel cannot tell them from those of another, and how alike they are.

The squared maximum mean discrepancy of r features S (r, d) and T (r, d) with a Gaussian kernel of width h is

    r^-2 sum_ij [K(S_i, S_j) + K(T_i, T_j) - 2 K(S_i, T_j)],    K(x, y) = exp(-|x - y|^2/(2 h^2)),

i = j included. A step goes against its gradient in T, `step_scale` r h^2 times; h falls through a list of widths.
Source: Gretton, Borgwardt, Rasch, Schoelkopf, Smola, JMLR 2012 (the discrepancy).
"""

import math

import numpy as np
from numba import njit

CANCELLED, DONE = 1, 0


@njit(nogil=True, cache=True, error_model="numpy")
def mean_kernel(x, y, width):
    """Mean of K over all pairs of rows of x and y."""
    total = 0.0
    for i in range(x.shape[0]):
        for j in range(y.shape[0]):
            square = 0.0
            for c in range(x.shape[1]):
                square += (x[i, c] - y[j, c]) ** 2
            total += math.exp(-square / (2.0 * width * width))
    return total / (x.shape[0] * y.shape[0])


@njit(nogil=True, cache=True, error_model="numpy")
def discrepancy(S, T, width):
    """The squared discrepancy of the rows of S and T, of any numbers; at least 0."""
    return max(0.0, mean_kernel(S, S, width) + mean_kernel(T, T, width) - 2.0 * mean_kernel(S, T, width))


@njit(nogil=True, cache=True, error_model="numpy")
def align(S, widths, step_scale, total, T, first, last, cancel, progress):
    """Take the steps first, ..., last - 1 of `total` on T (r, d), in place; return (status, step it ended at).

    The widths share the steps evenly, one after the other.
    """
    r, d = T.shape
    pull = np.empty((r, d))
    for step in range(first, last):
        progress[0] = step
        if cancel[0] != 0:
            return CANCELLED, step
        width = widths[min(step * widths.size // total, widths.size - 1)]
        for a in range(r):
            for c in range(d):
                pull[a, c] = 0.0
            for j in range(r):
                away, near = 0.0, 0.0
                for c in range(d):
                    away += (T[a, c] - T[j, c]) ** 2
                    near += (T[a, c] - S[j, c]) ** 2
                push = math.exp(-away / (2.0 * width * width))
                draw = math.exp(-near / (2.0 * width * width))
                for c in range(d):
                    pull[a, c] += push * (T[a, c] - T[j, c]) - draw * (T[a, c] - S[j, c])
        for a in range(r):
            for c in range(d):
                T[a, c] += step_scale * 2.0 / r * pull[a, c]
    progress[0] = last
    return DONE, last


@njit(nogil=True, cache=True, error_model="numpy")
def measure(S, T, width, same, row):
    """row (6,): discrepancy, share of T_c nearest to S_c, the same of S_c, accuracy on the domain, residual, matching.

    The classifier of domains is least squares of +-1 on the features, without a constant; where its output is within
    `same` of 0 it says nothing, which counts one half. The residual is the largest distance of a row of T from the
    nearest one of S; matching is 1 where each S_j is nearest to one T_c, else 0.
    """
    r, d = T.shape
    nearest = np.empty(r, np.int64)
    right, residual = 0, 0.0
    taken = np.zeros(r, np.int64)
    for a in range(r):
        best = np.inf
        for j in range(r):
            square = 0.0
            for c in range(d):
                square += (T[a, c] - S[j, c]) ** 2
            if square < best:
                best, nearest[a] = square, j
        residual = max(residual, math.sqrt(best))
        taken[nearest[a]] += 1
        if nearest[a] == a:
            right += 1
    gram = np.dot(S.T, S) + np.dot(T.T, T)
    side = np.zeros(d)
    for a in range(r):
        for c in range(d):
            side[c] += S[a, c] - T[a, c]
    classifier = np.linalg.solve(gram, side)
    told = 0.0
    for sign, x in ((1.0, S), (-1.0, T)):
        for a in range(r):
            output = 0.0
            for c in range(d):
                output += sign * classifier[c] * x[a, c]
            told += 0.5 if abs(output) <= same else 1.0 if output > 0.0 else 0.0
    row[0] = discrepancy(S, T, width)
    row[1] = right / r
    row[2] = 1.0
    row[3] = told / (2.0 * r)
    row[4] = residual
    row[5] = 1.0 if np.max(taken) == 1 else 0.0
