"""A step of gradient descent in R^p beside the same step in the space of inner products, timed in turns."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..engine import generator
from ..engine.provenance import single_threaded_blas
from . import gram, kernels
from .lab import DIRECT_NUMBERS, STREAMS

if TYPE_CHECKING:
    from .lab import XorGrokkingParams

Array = NDArray[np.float64]
Steps = Callable[[int], Array]  # take so many steps; (n,) outputs on the training points, before the last one


class Timing(NamedTuple):
    """Milliseconds a step at one dimension; no brute force where its matrices are too large."""

    dim: int
    brute_ms: float | None
    gram_ms: float
    ratio: float | None  # median over rounds of the ratio within a round
    difference: float | None  # of the outputs after equally many steps, relative to the largest one


def fits(params: XorGrokkingParams) -> bool:
    """Whether points and weights in R^p are small enough to be formed."""
    return max(params.n_train, params.width) * params.dim <= DIRECT_NUMBERS


def side_by_side(params: XorGrokkingParams, rounds: int = 3, steps: int = 40) -> Timing:
    """Time one step of brute force and `steps` steps in Gram space, round after round, on the same data.

    Both run on one thread. Where brute force does not fit, the inner products are sampled instead. The first step of
    each, untimed, warms it up.
    """
    single_threaded_blas()
    if not fits(params):
        found = gram.problem(params.replace(n_test=4), 0)
        in_gram = gram_steps(params, found.points.gram, found.start, found.points.label, found.output)
        in_gram(1)
        taken = [_seconds(in_gram, steps) / steps for _ in range(rounds)]
        return Timing(params.dim, None, 1e3 * median(taken), None, None)
    X, W, y, a = in_full(params)
    in_gram, brute = gram_steps(params, X @ X.T, W @ X.T, y, a), brute_steps(params, X, W, y, a)
    f, g = in_gram(3), brute(3)
    difference = float(np.max(np.abs(f - g)) / np.max(np.abs(g)))
    pairs = [(_seconds(brute, 1), _seconds(in_gram, steps) / steps) for _ in range(rounds)]
    slow, fast = (1e3 * median(column) for column in zip(*pairs, strict=True))
    return Timing(params.dim, slow, fast, median(b / k for b, k in pairs), difference)


def in_full(params: XorGrokkingParams) -> tuple[Array, Array, Array, Array]:
    """Points (n, p), start (m, p), labels (n,) and output weights (m,) with all their coordinates."""
    found = gram.points(params, 0)
    X = generator(params.seed, STREAMS["noise"], 0).standard_normal((params.n_train, params.dim))
    X[:, :2] = found.plane
    W = generator(params.seed, STREAMS["init"], 0).standard_normal((params.width, params.dim))
    W *= params.init_std
    a = np.where(np.arange(params.width) % 2 == 0, 1.0, -1.0) / np.sqrt(params.width)
    return X, W, found.label, a


def brute_steps(params: XorGrokkingParams, X: Array, W: Array, y: Array, a: Array) -> Steps:
    """Plain NumPy on W, which it overwrites; all that is large is preallocated. Two products of 2 m n p operations."""
    moved, H = np.empty_like(W), np.empty((len(W), len(X)))
    rate = params.learning_rate / params.n_train

    def run(steps: int) -> Array:
        for _ in range(steps):
            np.dot(W, X.T, out=H)
            f = a @ np.maximum(H, 0.0)
            pull = y / (1.0 + np.exp(y * f))
            np.dot((rate * a)[:, None] * (H > 0.0) * pull, X, out=moved)
            np.add(W, moved, out=W)
        return np.asarray(f)

    return run


def gram_steps(params: XorGrokkingParams, K: Array, H: Array, y: Array, a: Array) -> Steps:
    """The kernel's step: a product of 2 m n^2 operations or less, whatever the dimension."""
    m, n = H.shape
    none_flipped = np.zeros(n, bool)
    order = gram.in_order(y, none_flipped)
    H, K, y = H[:, order].copy(), K[np.ix_(order, order)], y[order]
    C, f, pull = np.zeros((m, n)), np.empty(n), np.empty(n)
    scratch = [np.empty(kernels.block_of(m, n) * n) for _ in range(2)]
    sides, bounds = kernels.sides_of(a), kernels.bounds_of(y, none_flipped)
    rate, no_factor, cancel = params.learning_rate / n, np.empty((n, 0)), np.zeros(1, np.uint8)

    def run(steps: int) -> Array:
        kernels.outputs(a, H, f)
        for _ in range(steps):
            before = f.copy()
            kernels.pulls(y, f, pull)
            kernels.update(H, C, a, sides, K, no_factor, pull, bounds, rate, *scratch, f, cancel)
        return before[np.argsort(order)]

    return run


def _seconds(run: Steps, steps: int) -> float:
    start = perf_counter()
    run(steps)
    return perf_counter() - start
