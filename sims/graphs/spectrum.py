"""Top eigenpairs of Abar, by the cheapest exact route that a graph's structure offers, and never a copy short.

Textbook graphs have eigenvalues of high multiplicity, and a single-vector Lanczos method can return too few copies
of one with residuals that look perfect. So: where the graph has structure (blocks, a circle, a Kronecker product) the
problem is split into small dense ones, which have all their eigenvalues; else a block of vectors larger than what is
asked for is iterated, and the result is not believed before a power iteration on the complement of what was found has
met nothing larger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine import ChalklineError
from . import kernels
from .generators import Graph

Array = NDArray[np.float64]
Operator = Callable[[Array], Array]

DENSE_NODES = 900  # up to which an unstructured graph is solved by a dense method
SAME = 1e-9  # eigenvalues closer than this count as copies of one
ZERO = 1e-12  # eigenvalues below it are the zeros of a graph of low rank
CHECK_STEPS, CHECK_SLACK = 12, 1e-6


class NotConverged(ChalklineError):
    """The block iteration did not reach its tolerance, or copies of an eigenvalue stay missing."""


@dataclass(frozen=True)
class Pairs:
    """The largest eigenvalues (m,), falling, and their orthonormal vectors (N, m)."""

    values: Array
    vectors: Array


def top(graph: Graph, count: int, rng: np.random.Generator) -> Pairs:
    """The `count` largest eigenpairs of Abar, at most as many as there are nodes.

    Of a vector and its opposite the one whose first largest entry is positive is chosen.
    """
    pairs = _top(graph, min(count, graph.nodes), rng)
    rows = np.argmax(np.round(np.abs(pairs.vectors), 9), axis=0)
    signs = np.sign(pairs.vectors[rows, np.arange(len(rows))])
    return Pairs(pairs.values, pairs.vectors * signs)


def _top(graph: Graph, count: int, rng: np.random.Generator) -> Pairs:
    if graph.block is not None:
        return _of_blocks(graph, count)
    if graph.modes:
        return of_modes(graph.modes, count)
    if graph.circulant is not None:
        return of_circulant(graph.circulant, count)
    if graph.nodes <= DENSE_NODES:
        return dense(graph, count)
    factor = graph.factor
    return verified(lambda X: by_factor(factor, X), graph.nodes, count, rng)


def dense(graph: Graph, count: int) -> Pairs:
    """All by a dense symmetric solver of Abar = B^T B."""
    factor = graph.factor.toarray()
    values, vectors = np.linalg.eigh(factor.T @ factor)
    return Pairs(np.maximum(values[::-1][:count], 0.0), np.ascontiguousarray(vectors[:, ::-1][:, :count]))


# -- operators ---------------------------------------------------------------------------------------------------


def by_factor(factor: Any, X: Array) -> Array:
    """B^T (B X) for a sparse B in row form; X (N, k)."""
    if X.shape[1] == 1:
        return factor.T @ (factor @ X)  # for one column there is nothing to share
    Y = np.empty(X.shape)
    kernels.apply_factor(factor.indptr, factor.indices, factor.data, np.ascontiguousarray(X), Y)
    return Y


def flat_modes(modes: tuple[Array, ...]) -> tuple[NDArray[np.int64], Array]:
    """Sides and entries of small matrices as `kernels.apply_modes` reads them."""
    sides = np.array([len(mode) for mode in modes], dtype=np.int64)
    return sides, np.concatenate([mode.reshape(-1) for mode in modes]) if modes else np.zeros(0)


def by_modes(modes: tuple[Array, ...], X: Array) -> Array:
    """The Kronecker product of the modes times X (N, k), mode by mode."""
    X = np.ascontiguousarray(X)
    Y = np.empty_like(X)
    kernels.apply_modes(*flat_modes(modes), X, Y)
    return Y


def by_circulant(kernel: Array, X: Array) -> Array:
    """Abar X for views that are shifts on a circle, by the fast Fourier transform; X (N, k)."""
    from scipy import fft

    power = np.abs(fft.rfft(kernel)) ** 2
    return np.asarray(fft.irfft(power[:, None] * fft.rfft(X, axis=0), n=len(kernel), axis=0))


# -- structure ---------------------------------------------------------------------------------------------------


def quotient(p_nat: Array, transition: Array) -> Array:
    """K x K matrix with the nonzero spectrum of a block graph: D^-1/2 T^T diag(pi) T D^-1/2, D the block weights."""
    weight = p_nat @ transition
    half = np.sqrt(p_nat)[:, None] * transition / np.sqrt(weight)[None, :]
    return half.T @ half


def _of_blocks(graph: Graph, count: int) -> Pairs:
    """Vectors that are constant on blocks from the quotient; beyond them Abar is zero."""
    assert graph.block is not None and graph.transition is not None
    values, small = np.linalg.eigh(quotient(graph.p_nat, graph.transition))
    values, small = np.maximum(values[::-1], 0.0), small[:, ::-1]
    sizes = np.bincount(graph.block)
    vectors = small[graph.block] / np.sqrt(sizes[graph.block])[:, None]
    if count <= len(values):
        return Pairs(values[:count].copy(), np.ascontiguousarray(vectors[:, :count]))
    rest = _within_blocks(graph.block, sizes, count - len(values))
    return Pairs(np.append(values, np.zeros(count - len(values))), np.concatenate([vectors, rest], axis=1))


def _within_blocks(block: NDArray[np.int64], sizes: NDArray[np.int64], count: int) -> Array:
    """`count` orthonormal vectors that sum to zero on every block."""
    starts = np.concatenate([[0], np.cumsum(sizes)])
    found = np.zeros((len(block), count))
    made = 0
    for b, size in enumerate(sizes):
        for j in range(1, size):
            if made == count:
                return found
            found[starts[b] : starts[b] + j, made] = 1.0
            found[starts[b] + j, made] = -float(j)
            found[:, made] /= np.sqrt(j * (j + 1.0))
            made += 1
    return found


def of_modes(modes: tuple[Array, ...], count: int) -> Pairs:
    """The largest products of the modes' eigenvalues, and the products of their vectors."""
    solved = [np.linalg.eigh(mode) for mode in modes]
    products = np.ones(1)
    for values, _ in solved:
        products = np.multiply.outer(products, np.maximum(values, 0.0)).reshape(-1)
    if count < len(products):
        least = np.partition(products, len(products) - count)[len(products) - count]
        candidates = np.flatnonzero(products >= least)
    else:
        candidates = np.arange(len(products))
    order = candidates[np.argsort(-products[candidates], kind="stable")][:count]
    which = np.unravel_index(order, [len(mode) for mode in modes])
    vectors = np.ones((1, len(order)))
    for (_, small), chosen in zip(solved, which, strict=True):
        vectors = (vectors[:, None, :] * small[None, :, chosen]).reshape(-1, len(order))
    return Pairs(products[order], vectors)


def of_circulant(kernel: Array, count: int) -> Pairs:
    """Squared Fourier coefficients of the kernel, with cosines and sines as vectors."""
    N = len(kernel)
    power = np.abs(np.fft.rfft(kernel)) ** 2
    frequency = np.concatenate([np.arange(len(power)), np.arange(1, (N + 1) // 2)])
    is_sine = np.arange(len(frequency)) >= len(power)
    order = np.lexsort((is_sine, frequency, -power[frequency]))[:count]
    angle = 2.0 * np.pi * np.outer(np.arange(N), frequency[order]) / N
    vectors = np.where(is_sine[order], np.sin(angle), np.cos(angle))
    return Pairs(power[frequency[order]], vectors / np.sqrt(np.sum(vectors**2, axis=0)))


# -- Lanczos, checked ----------------------------------------------------------------------------------------------


def verified(apply: Operator, nodes: int, count: int, rng: np.random.Generator) -> Pairs:
    """The `count` largest eigenpairs by Lanczos if nothing larger is left in its complement, else by block iteration.

    A Lanczos method started from one vector is the cheapest where eigenvalues differ, and not to be believed where
    they do not: its residuals cannot show that a copy is missing. Raises NotConverged as `iterated`.
    """
    pairs = lanczos(apply, nodes, count, rng)
    if complement(apply, pairs.vectors, pairs.values[-1], rng) is None:
        return pairs
    return iterated(apply, nodes, count, rng)


def lanczos(apply: Operator, nodes: int, count: int, rng: np.random.Generator) -> Pairs:
    """What ARPACK finds from one random vector, to a residual of 1e-10; copies of an eigenvalue may be missing."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    operator = LinearOperator((nodes, nodes), matvec=lambda x: apply(x.reshape(-1, 1))[:, 0], dtype=np.float64)
    start = rng.standard_normal(nodes)
    values, vectors = eigsh(operator, k=count, which="LA", v0=start, tol=1e-10, ncv=min(nodes, max(2 * count + 1, 20)))
    order = np.argsort(-values, kind="stable")
    return Pairs(np.maximum(values[order], 0.0), np.ascontiguousarray(vectors[:, order]))


# -- iteration ---------------------------------------------------------------------------------------------------


def iterated(
    apply: Operator,
    nodes: int,
    count: int,
    rng: np.random.Generator,
    tolerance: float = 1e-10,
    degree: int = 8,
    most_rounds: int = 400,
) -> Pairs:
    """The `count` largest eigenpairs of a positive operator with spectrum in [0, 1], by filtered subspace iteration.

    A block of `count` and some more random vectors is multiplied by a Chebyshev polynomial of the operator that is
    small below the smallest value found so far and grows as fast as possible above it, then projected (Rayleigh-Ritz).
    It ends when every wanted residual is below `tolerance`; then the complement is checked, and what it holds
    beyond the smallest value found is taken into the block, which is iterated again.

    Args:
        apply: X (N, b) -> Abar X.
        rng: the start and the check are drawn from it.

    Raises:
        NotConverged: after `most_rounds` polynomials, or after as many repairs as vectors were asked for.
    """
    block = min(nodes, count + max(6, count // 4))
    X = np.linalg.qr(rng.standard_normal((nodes, block)))[0]
    for _ in range(count + 1):
        values, X = _iterate(apply, X, count, tolerance, degree, most_rounds)
        missed = complement(apply, X, values[count - 1], rng)
        if missed is None:
            return Pairs(values[:count].copy(), np.ascontiguousarray(X[:, :count]))
        X = np.linalg.qr(np.concatenate([X, missed], axis=1))[0]
    raise NotConverged(f"Copies of an eigenvalue above {values[count - 1]:.6g} stay missing; ask for more vectors.")


def _iterate(
    apply: Operator, X: Array, count: int, tolerance: float, degree: int, most_rounds: int
) -> tuple[Array, Array]:
    """Filter and project until the first `count` residuals are below the tolerance."""
    for _ in range(most_rounds):
        Y = apply(X)
        small = X.T @ Y
        values, turn = np.linalg.eigh((small + small.T) / 2.0)
        values, turn = values[::-1], turn[:, ::-1]
        X, Y = X @ turn, Y @ turn
        residual = np.linalg.norm(Y[:, :count] - X[:, :count] * values[:count], axis=0)
        if np.max(residual) <= tolerance or X.shape[1] == len(X):
            return np.maximum(values, 0.0), X
        # Copies of one eigenvalue may fill the block: then only what lies clearly below it can be damped.
        cut = max(min(values[-1], 0.99 * values[count - 1]), 1e-3)
        X = np.linalg.qr(_filtered(apply, X, Y, cut, degree))[0]
    raise NotConverged(
        f"After {most_rounds} rounds the largest residual is {np.max(residual):.1e}, not {tolerance:.1e}; the "
        "eigenvalues asked for lie too close to the next ones. Ask for a number of them that ends at a gap."
    )


def _filtered(apply: Operator, X: Array, Y: Array, cut: float, degree: int) -> Array:
    """T_degree((2 Abar - cut)/cut) X, scaled; Y = Abar X is known."""
    before, now = X, 2.0 * Y / cut - X
    for _ in range(degree - 1):
        before, now = now, 2.0 * (2.0 * apply(now) / cut - now) - before
        scale = np.max(np.abs(now))
        before, now = before / scale, now / scale
    return now


def complement(
    apply: Operator, X: Array, least: float, rng: np.random.Generator, slack: float = CHECK_SLACK
) -> Array | None:
    """A vector (N, 1) outside the span of X whose Rayleigh quotient exceeds `least`, or None if none was met.

    A few Lanczos steps from a random start, kept orthogonal to X: if X lacks a copy of one of its eigenvalues, that
    copy is what they turn to. Their best quotient exceeds that of as many steps of power iteration.
    """
    if X.shape[1] >= len(X):
        return None
    basis = np.zeros((len(X), 0))
    v = rng.standard_normal((len(X), 1))
    images = []
    for _ in range(min(CHECK_STEPS, len(X) - X.shape[1])):
        for _ in range(2):  # once more, for what rounding has left
            v = v - X @ (X.T @ v) - basis @ (basis.T @ v)
        length = float(np.linalg.norm(v))
        if length <= slack * slack:
            break  # nothing is left, or the operator is zero there
        basis = np.concatenate([basis, v / length], axis=1)
        v = apply(basis[:, -1:])
        images.append(v)
    if not images:
        return None
    small = basis.T @ np.concatenate(images, axis=1)
    values, turn = np.linalg.eigh((small + small.T) / 2.0)
    return basis @ turn[:, -1:] if values[-1] > least + slack else None


# -- levels ------------------------------------------------------------------------------------------------------


def levels(values: Array) -> NDArray[np.int64]:
    """(m,) number of the distinct eigenvalue that each falling value is a copy of, from 0."""
    return np.concatenate([[0], np.cumsum(np.diff(values) < -SAME)]) if len(values) else np.zeros(0, dtype=np.int64)


def random_rotation(size: int, rng: np.random.Generator) -> Array:
    """(size, size) orthogonal matrix, uniform over all of them."""
    q, r = np.linalg.qr(rng.standard_normal((size, size)))
    return q * np.sign(np.diag(r))


def turned(pairs: Pairs, rng: np.random.Generator) -> Pairs:
    """The same eigenspaces with a random basis of each that has several copies, uniform over all bases."""
    level, vectors = levels(pairs.values), pairs.vectors.copy()
    for one in np.unique(level):
        copies = np.flatnonzero(level == one)
        if len(copies) > 1:
            vectors[:, copies] = pairs.vectors[:, copies] @ random_rotation(len(copies), rng)
    return Pairs(pairs.values, vectors)
