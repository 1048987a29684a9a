"""Linear probes on an embedding: least squares on one-hot labels with the weights of the nodes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

SINGULAR = 1e-10  # relative size below which a direction of the features counts as absent


def targets(label: Integers, classes: int, w: Array) -> Array:
    """U (N, C): sqrt(w) times the one-hot labels; its total energy is 1."""
    return (label[:, None] == np.arange(classes)) * np.sqrt(w)[:, None]


def span(F: Array) -> Array:
    """(N, r) orthonormal basis of the columns of F, weak directions (see SINGULAR) left out."""
    if F.shape[1] == 0 or not np.all(np.isfinite(F)):
        return np.zeros((len(F), 0))
    left, size, _ = np.linalg.svd(F, full_matrices=False)
    return left[:, size > SINGULAR * max(float(size[0]), np.finfo(float).tiny)]


def fit(F: Array, label: Integers, classes: int, w: Array) -> tuple[float, Array]:
    """Mean squared error of the best linear probe, and its outputs (N, C) times sqrt(w).

    F (N, k) = sqrt(w) times the embedding; no intercept; all nodes, weighted. Features that depend on each other
    are allowed (the pseudo-inverse is used).
    """
    return fit_on(span(F), targets(label, classes, w))


def fit_on(basis: Array, U: Array) -> tuple[float, Array]:
    """The same from an orthonormal basis (N, r) of the features and the targets U (N, C)."""
    fitted = basis @ (basis.T @ U)
    return float(np.sum((U - fitted) ** 2)), fitted


def argmax_error(outputs: Array, label: Integers, w: Array) -> float:
    """Weight of the nodes whose largest output is not that of their class; of equal outputs the first counts."""
    return float(np.sum(w[np.argmax(outputs, axis=1) != label]))


def error(F: Array, label: Integers, classes: int, w: Array) -> tuple[float, float]:
    """Mean squared error and argmax error of the best linear probe on F (N, k)."""
    return error_on(span(F), targets(label, classes, w), label, w)


def error_on(basis: Array, U: Array, label: Integers, w: Array) -> tuple[float, float]:
    """The same from an orthonormal basis (N, r) of the features and the targets U (N, C)."""
    mse, fitted = fit_on(basis, U)
    return mse, argmax_error(_rounded(fitted / np.sqrt(w)[:, None]), label, w)


def vote_error(
    F: Array, label: Integers, classes: int, w: Array, aug: sparse.csr_array, p_nat: Array, nat_label: Integers
) -> float:
    """Weight of the naturals whose views, each with its probability a vote for its argmax, elect another class."""
    _, fitted = fit(F, label, classes, w)
    chosen = np.argmax(_rounded(fitted / np.sqrt(w)[:, None]), axis=1)
    votes = aug @ (chosen[:, None] == np.arange(classes)).astype(np.float64)
    return float(np.sum(p_nat[np.argmax(_rounded(votes), axis=1) != nat_label]))


def nested(vectors: Array, label: Integers, classes: int, w: Array) -> tuple[Array, Array]:
    """(m,) mean squared and argmax error of the probe on the first 1, 2, ..., m of orthonormal vectors (N, m)."""
    U = targets(label, classes, w)
    part = vectors.T @ U
    mse = np.maximum(float(np.sum(U**2)) - np.cumsum(np.sum(part**2, axis=1)), 0.0)
    wrong, outputs = np.empty(len(part)), np.zeros_like(U)
    for j in range(len(part)):
        outputs += np.outer(vectors[:, j], part[j])
        wrong[j] = argmax_error(_rounded(outputs / np.sqrt(w)[:, None]), label, w)
    return mse, wrong


def _rounded(outputs: Array) -> Array:
    """Outputs that differ by rounding errors only are a tie."""
    return np.round(outputs, 9)


def subspace_tangent(F: Array, V: Array) -> float:
    """Tangent of the largest principal angle between the span of F (N, k) and that of orthonormal V (N, k).

    Infinite where some direction of V is orthogonal to all of F, NaN where F is not finite.
    """
    return basis_tangent(span(F), V) if np.all(np.isfinite(F)) else float("nan")


def basis_tangent(Q: Array, V: Array) -> float:
    """The same from an orthonormal basis Q (N, r) of the span of F."""
    if Q.shape[1] < V.shape[1]:
        return float("inf")
    inside = V.T @ Q
    least = np.linalg.svd(inside, compute_uv=False)[-1]
    if least < 1e-14:
        return float("inf")
    return float(np.linalg.svd(np.linalg.solve(inside.T, (Q - V @ inside).T), compute_uv=False)[0])


def aligned(F: Array, target: Array) -> Array:
    """F Q (N, k) for the orthogonal Q that brings it nearest to `target` (N, k): Procrustes."""
    left, _, right = np.linalg.svd(F.T @ target)
    return F @ (left @ right)
