"""The inner products that training sees, sampled exactly in law without p dimensions, or formed in R^p.

Sampling: rotate the p - 2 noise directions so that the first n points span the first n of them. The points are
then the rows of ``Z = [s_i mu e_c + N(0, I_2) | L]`` with L lower triangular, standard normal below the diagonal
and ``L_kk = sqrt(chi2(p - 2 - k))`` on it (Bartlett 1933). The start of the network and the fresh test points have
2 + n coordinates of their own in that basis, iid normal. In the q = p - 2 - n directions left over, rotate once
more so that the m neurons span the first min(m, q): there the start is such a triangle, and a test point is iid
normal. Hence every inner product has its exact joint law, and p enters only through degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import dtrmm

from ..engine import generator
from ..engine.normals import normals
from .lab import STREAMS

if TYPE_CHECKING:
    from .lab import XorGrokkingParams

Array = NDArray[np.float64]

COLUMNS = 4096  # coordinates of R^p held at once in direct mode
TEST_POINTS = 256  # test points multiplied between two looks at the cancel flag


class Points(NamedTuple):
    """Training points up to a rotation."""

    label: Array  # (n,) observed, +-1
    clean: Array  # (n,) +-1
    counts: NDArray[np.int64]  # (2, 2, 2) points with mean c, sign + or -, observed label +1 or -1
    plane: Array  # (n, 2) coordinates along the two means
    gram: Array  # (n, n)
    triangle: Array | None  # (n, n) coordinates outside the plane; None in direct mode
    factor: Array  # (n, p) all coordinates where p is so small that products with them are cheaper, else (n, 0)


class Labels(NamedTuple):
    """Which clusters the training points are of, and how they are labelled."""

    cluster: NDArray[np.int64]  # (n,) 0..3
    label: Array  # (n,) observed, +-1
    clean: Array  # (n,) +-1
    counts: NDArray[np.int64]  # (2, 2, 2) points with mean c, sign + or -, observed label +1 or -1


class LabelSum(NamedTuple):
    """v = sum_i y_i x_i, the direction of the first step: what of it is along the means, and |v|^2."""

    along: Array  # (2,)
    norm_sq: float


class Problem(NamedTuple):
    """All inner products of one replicate; see `kernels.simulate`."""

    points: Points
    output: Array  # (m,) +-1/sqrt(m)
    start: Array  # (m, n) W(0) X^T
    start_plane: Array  # (m, 2)
    start_norm_sq: Array  # (m,)
    cross: Array  # (n_test, n)
    test_start: Array  # (m, n_test)
    quadrant: NDArray[np.int64]  # (n_test,)


def points(params: XorGrokkingParams, replicate: int) -> Points:
    """The training points of one replicate; shared between callers, its arrays read-only."""
    p = params
    return _points(
        p.seed, replicate, p.n_train, p.dim, p.mu, p.label_flip_prob, p.label_sampler, p.data_mode, p.flips_per_cluster
    )


@lru_cache(maxsize=8)
def _points(
    seed: int, replicate: int, n: int, dim: int, mu: float, flip: float, sampler: str, mode: str, flips: int
) -> Points:
    def draw(name: str) -> np.random.Generator:
        return generator(seed, STREAMS[name], replicate)

    cluster, label, clean, counts = _labels(seed, replicate, n, flip, sampler, flips)
    plane = centres(cluster, mu) + draw("signal").standard_normal((n, 2))
    gram, triangle, factor = plane @ plane.T, None, np.empty((n, 0))
    if mode == "sampled":
        triangle = bartlett(n, dim - 2, draw("noise"), draw("radius"))
        gram += triangle @ triangle.T
    else:
        for block in _blocks(draw("noise"), n, dim - 2):
            gram += block @ block.T
            if 2 * dim < n:
                factor = np.hstack([plane, block])
    found = Points(label, clean, counts, plane, gram, triangle, factor)
    for array in found:
        if array is not None:
            array.flags.writeable = False
    return found


def labels(params: XorGrokkingParams, replicate: int) -> Labels:
    """The labels of one replicate; shared between callers, its arrays read-only."""
    p = params
    return _labels(p.seed, replicate, p.n_train, p.label_flip_prob, p.label_sampler, p.flips_per_cluster)


@lru_cache(maxsize=256)
def _labels(seed: int, replicate: int, n: int, flip: float, sampler: str, flips: int) -> Labels:
    if sampler == "stratified":
        cluster = np.repeat(np.arange(4), n // 4)
        flipped = np.arange(n) % (n // 4) < flips
    else:
        cluster = generator(seed, STREAMS["cluster"], replicate).integers(0, 4, n)
        flipped = generator(seed, STREAMS["flip"], replicate).random(n) < flip
    clean = np.where(cluster < 2, 1.0, -1.0)
    label = np.where(flipped, -clean, clean)
    counts = np.zeros((2, 2, 2), dtype=np.int64)
    np.add.at(counts, (cluster // 2, cluster % 2, (label < 0).astype(int)), 1)
    found = Labels(cluster, label, clean, counts)
    for array in found:
        array.flags.writeable = False
    return found


def label_sum(params: XorGrokkingParams, replicate: int) -> LabelSum:
    """v of one replicate, with the bits of its points but without their inner products."""
    p = params
    asked = (p.seed, replicate, p.n_train, p.label_flip_prob, p.label_sampler, p.flips_per_cluster)
    found = _labels(*asked)
    along = found.label @ centres(found.cluster, p.mu) + _signal_sum(*asked)
    return LabelSum(along, float(np.sum(along**2)) + _noise_sum(p.dim, p.data_mode, *asked))


@lru_cache(maxsize=4096)
def _signal_sum(seed: int, replicate: int, n: int, flip: float, sampler: str, flips: int) -> Array:
    """(2,) of v, what noise adds along the means."""
    label = _labels(seed, replicate, n, flip, sampler, flips).label
    return np.asarray(label @ generator(seed, STREAMS["signal"], replicate).standard_normal((n, 2)))


@lru_cache(maxsize=4096)
def _noise_sum(dim: int, mode: str, seed: int, replicate: int, n: int, flip: float, sampler: str, flips: int) -> float:
    """|v|^2 outside the plane of the means; the same for every signal."""
    label = _labels(seed, replicate, n, flip, sampler, flips).label
    noise = generator(seed, STREAMS["noise"], replicate)
    if mode == "sampled":
        return float(np.sum((label @ bartlett(n, dim - 2, noise, generator(seed, STREAMS["radius"], replicate))) ** 2))
    return sum(float(np.sum((label @ block) ** 2)) for block in _blocks(noise, n, dim - 2))


def problem(params: XorGrokkingParams, replicate: int, cancel: NDArray[np.uint8] | None = None) -> Problem:
    """Everything that one replicate is trained and tested on; incomplete once the cancel flag was seen."""

    def cancelled() -> bool:
        return cancel is not None and bool(cancel[0])

    def draw(name: str) -> np.random.Generator:
        return generator(params.seed, STREAMS[name], replicate)

    n, m, n_test, p = params.n_train, params.width, params.n_test, params.dim
    found = points(params, replicate)
    if params.output_signs == "balanced":
        sign = np.where(np.arange(m) % 2 == 0, 1.0, -1.0)
    else:
        sign = 2.0 * draw("output_sign").integers(0, 2, m) - 1.0
    quadrant = np.repeat(np.arange(4), n_test // 4)
    init, test = draw("init"), draw("test")
    start_plane = params.init_std * normals(init, (m, 2))
    test_plane = centres(quadrant, params.mu) + normals(test, (n_test, 2))
    start = start_plane @ found.plane.T
    test_start = start_plane @ test_plane.T
    cross = test_plane @ found.plane.T
    norm_sq = np.sum(start_plane**2, axis=1)
    if found.triangle is None:
        noise = draw("noise")
        for X, W, Q in zip(
            _blocks(noise, n, p - 2), _blocks(init, m, p - 2), _blocks(test, n_test, p - 2), strict=True
        ):
            if cancelled():
                break
            W *= params.init_std
            start += W @ X.T
            test_start += W @ Q.T
            cross += Q @ X.T
            norm_sq += np.sum(W**2, axis=1)
    else:
        W, Q = params.init_std * normals(init, (m, n)), normals(test, (n_test, n))
        start += W @ found.triangle.T
        test_start += W @ Q.T
        # Q L^T in the memory of Q: a product with a triangle has half of the operations.
        cross += dtrmm(1.0, found.triangle.T, Q.T, trans_a=1, overwrite_b=1).T
        norm_sq += np.sum(W**2, axis=1)
        left = bartlett(m, p - 2 - n, draw("start_noise"), draw("start_radius"))
        left *= params.init_std
        rest = normals(draw("test_rest"), (left.shape[1], n_test))
        for first in range(0, n_test, TEST_POINTS):
            if cancelled():
                break
            some = slice(first, first + TEST_POINTS)
            test_start[:, some] += left @ rest[:, some]
        norm_sq += np.sum(left**2, axis=1)
    return Problem(found, sign / math.sqrt(m), start, start_plane, norm_sq, cross, test_start, quadrant)


def by_label(found: Problem) -> Problem:
    """The same problem with its points in the order that `kernels.update` is fastest with."""
    p = found.points
    order = in_order(p.label, p.label != p.clean)
    points = p._replace(
        label=p.label[order],
        clean=p.clean[order],
        plane=p.plane[order],
        gram=p.gram[np.ix_(order, order)],
        triangle=None,
        factor=p.factor[order],
    )
    return found._replace(points=points, start=found.start.take(order, axis=1), cross=found.cross.take(order, axis=1))


def in_order(label: Array, flipped: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The points by their labels, +1 first, and of each those that are flipped next to the other label."""
    return np.argsort(np.where(label > 0.0, flipped, 3 - flipped), kind="stable")


def centres(cluster: NDArray[np.int64], mu: float) -> Array:
    """(points, 2) means of the clusters 0..3: +mu1, -mu1, +mu2, -mu2."""
    return mu * np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])[cluster]


def bartlett(rows: int, dof: int, noise: np.random.Generator, radius: np.random.Generator) -> Array:
    """(rows, min(rows, dof)) lower triangle with the law of iid normal rows of R^dof, up to a rotation of R^dof."""
    columns = min(rows, dof)
    below = np.tril_indices(rows, -1, columns)
    found = np.zeros((rows, columns))
    found[below] = normals(noise, len(below[0]))
    diagonal = np.arange(columns)
    found[diagonal, diagonal] = np.sqrt(radius.chisquare(float(dof) - diagonal))
    return found


def _blocks(rng: np.random.Generator, rows: int, columns: int) -> Iterator[Array]:
    """Standard normal columns of a matrix too wide to hold, COLUMNS at a time."""
    for first in range(0, columns, COLUMNS):
        yield normals(rng, (rows, min(COLUMNS, columns - first)))
