r"""Bayes risk of linear regression with a Gaussian prior (ridge), and the Wishart matrices it depends on.

``y_i = w.x_i + N(0, s2)``, n labels, ``w ~ N(0, T)``, ``x ~ N(0, Sig)``. The best predictor of a fresh noisy label is
ridge regression, and its risk depends on ``m``, the eigenvalues of ``T^(1/2) Sig T^(1/2)``, only:

    s2 + E tr[ N (I + S/s2)^(-1) ],   S ~ Wishart_d(n, N),  N = diag(m).

Sources: Dobriban and Wager 2018 (risk of ridge regression); Dumitriu and Edelman 2002 (bidiagonal model of Wishart
eigenvalues); the deterministic equivalent is that of Marchenko and Pastur. Bad input raises ValueError.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import chi2

ZERO = 1e-12  # eigenvalues below this fraction of the largest count as zero where rank matters
BLOCK = 2_000_000  # numbers drawn at a time


Tridiagonals = tuple[Float[np.ndarray, "draws r"], Float[np.ndarray, "draws r-1"]]


class Sampled(NamedTuple):
    """A mean over draws and its standard error (0 where nothing had to be drawn)."""

    mean: float
    error: float


def bayes_equivalent(m: Float[np.ndarray, " d"], n: int, s2: float) -> float:
    """n kappa, where n kappa = s2 + kappa sum_i m_i/(m_i + kappa): the limit of large n and d, too low by O(1/n).

    Without noise kappa is 0 for n >= rank, else the positive root.
    """
    spectrum, count = _spectrum(m, n, s2)
    positive = spectrum[spectrum > 0]
    if s2 == 0 and len(positive) <= count:
        return 0.0
    if not len(positive):
        return float(s2)

    def excess(kappa: float) -> float:
        return count - s2 / kappa - float(np.sum(positive / (positive + kappa)))

    high = (s2 + float(np.sum(positive))) / count
    low = s2 / count if s2 > 0 else float(positive[-1]) * (len(positive) / count - 1.0)
    if excess(low) >= 0 or excess(high) <= 0:  # the bracket is as narrow as rounding
        return count * (low if abs(excess(low)) < abs(excess(high)) else high)
    return count * float(brentq(excess, low, high, xtol=1e-300, rtol=1e-14, maxiter=500))


def bayes_scalar(n: int, s2: float, m: float = 1.0) -> float:
    """Bayes risk for d = 1: s2 + E m/(1 + m chi^2_n/s2), by quadrature (exact to about 1e-10)."""
    spectrum, count = _spectrum(np.array([m]), n, s2)
    if s2 == 0 or spectrum[0] == 0:
        return float(s2)

    def integrand(x: float) -> float:
        return float(chi2.pdf(x, count) / (1.0 + m * x / s2))

    inner = [float(chi2.ppf(level, count)) for level in (1e-6, 0.01, 0.5, 0.99)]
    pieces = pairwise([0.0, *inner, float(chi2.isf(1e-16, count))])
    return s2 + m * float(sum(quad(integrand, a, b, epsabs=1e-14, epsrel=1e-12, limit=200)[0] for a, b in pieces))


def bayes_isotropic(
    d: int,
    n: int,
    s2: float,
    draws: int,
    rng: np.random.Generator,
    tau2: float = 1.0,
    drawn: Sequence[Tridiagonals] | None = None,
) -> Sampled:
    """Bayes risk for m_i = tau2, at finite n and d, by draws of a bidiagonal matrix: O(min(n, d)) work each.

    Without noise it is tau2 max(d - n, 0), without draws. ``drawn`` are those of :func:`isotropic_draws`, where many
    risks at one n and d share them.
    """
    _spectrum(np.array([tau2]), n, s2)
    if not (math.isfinite(d) and d == int(d) and d >= 1):
        raise ValueError(f"d must be a whole number of at least 1, not {d}")
    if s2 == 0 or tau2 == 0:
        return Sampled(s2 + (tau2 * max(d - n, 0) if s2 == 0 else 0.0), 0.0)
    traces = [
        _inverse_trace(1.0 + tau2 / s2 * diagonal, tau2 / s2 * beside) + max(d - n, 0)
        for diagonal, beside in (isotropic_draws(d, n, draws, rng) if drawn is None else drawn)
    ]
    return _mean(s2 + tau2 * np.concatenate(traces))


def isotropic_draws(d: int, n: int, draws: int, rng: np.random.Generator) -> list[Tridiagonals]:
    """What :func:`bayes_isotropic` draws, in blocks."""
    return [wishart_tridiagonal(d, n, count, rng) for count in _blocks(draws, 4 * min(n, d))]


def bayes_sampled(m: Float[np.ndarray, " d"], n: int, s2: float, draws: int, rng: np.random.Generator) -> Sampled:
    """Bayes risk for any spectrum m, at finite n and d, by draws of whole Wishart matrices: O(d^3) work each."""
    spectrum, count = _spectrum(m, n, s2)
    m = spectrum[spectrum > 0]
    d, silent = len(m), float(s2)
    if not d or (s2 == 0 and d <= count):
        return Sampled(silent, 0.0)
    risks = []
    for size in _blocks(draws, d * min(d, count)):
        if count >= d:
            Z = np.sqrt(m)[:, None] * bartlett(d, count, size, rng)
        else:
            Z = np.sqrt(m)[:, None] * rng.standard_normal((size, d, count))
        small = Z.transpose(0, 2, 1) @ Z + s2 * np.eye(Z.shape[2])
        explained = np.einsum("i,bij,bji->b", m, Z, np.linalg.solve(small, Z.transpose(0, 2, 1)))
        risks.append(silent + np.sum(m) - explained)
    return _mean(np.concatenate(risks))


# -- Wishart matrices ------------------------------------------------------------------------------------------


def bartlett(d: int, n: int, draws: int, rng: np.random.Generator) -> Float[np.ndarray, "draws d d"]:
    """Lower triangular L with L L' ~ Wishart_d(n, I), n >= d: chi on the diagonal, normals below."""
    if n < d:
        raise ValueError(f"a Wishart matrix of {n} < {d} samples has no Bartlett factor")
    L = np.tril(rng.standard_normal((draws, d, d)), -1)
    L[:, np.arange(d), np.arange(d)] = np.sqrt(rng.chisquare(n - np.arange(d), (draws, d)))
    return L


def wishart_tridiagonal(d: int, n: int, draws: int, rng: np.random.Generator) -> Tridiagonals:
    """Diagonal and side diagonal of a tridiagonal matrix with the r = min(n, d) nonzero eigenvalues of Wishart_d(n, I).

    B B' of a bidiagonal B: chi_n, chi_{n-1}, .. on its diagonal and chi_{d-1}, chi_{d-2}, .. below it, independent;
    for n < d the two change places, and d - n eigenvalues are zero.
    """
    long, short = max(n, d), min(n, d)
    on = rng.chisquare(long - np.arange(short), (draws, short))
    below = rng.chisquare(short - 1 - np.arange(short - 1), (draws, short - 1))
    diagonal = on.copy()
    diagonal[:, 1:] += below
    return np.asfortranarray(diagonal), np.asfortranarray(np.sqrt(on[:, :-1] * below))  # used column by column


@lru_cache(maxsize=256)
def wishart_trace_moments(d: int, n: int, order: int) -> tuple[int, ...]:
    """E tr S^j for j = 0..order, S ~ Wishart_d(n, I): whole numbers, exact at every order.

    In the bidiagonal model tr S^j counts closed walks on a path whose edges carry independent chi_n, chi_{d-1},
    chi_{n-1}, chi_{d-2}, ..; walks that cross edge i upwards r_i times are (j/r_1) prod C(r_i + r_{i+1} - 1, r_{i+1})
    many, and E chi_k^(2r) = k (k+2) .. (k+2r-2).
    """
    if d < 1 or n < 1 or order < 0:
        raise ValueError(f"d and n must be at least 1 and order at least 0, not {d}, {n} and {order}")
    long, short = max(n, d), min(n, d)
    degrees = [long - i // 2 if i % 2 == 0 else short - 1 - i // 2 for i in range(2 * short - 1)]
    totals = [0] * (order + 1)
    # after[r][left]: weight of all walks beyond an edge crossed r times, with `left` crossings to spend there
    after = [[int(left == 0) for left in range(order + 1)] for _ in range(order + 1)]
    for k in reversed(degrees):
        power = [math.prod(k + 2 * i for i in range(r)) for r in range(order + 1)]
        for j in range(1, order + 1):
            totals[j] += sum(j * power[r] * after[r][j - r] // r for r in range(1, j + 1))
        after = [
            [
                int(left == 0)
                + sum(math.comb(r + s - 1, s) * power[s] * after[s][left - s] for s in range(1, left + 1))
                for left in range(order + 1)
            ]
            for r in range(order + 1)
        ]
    return (d, *totals[1:])


# -- parts -----------------------------------------------------------------------------------------------------


def _spectrum(m: Float[np.ndarray, " d"], n: int, s2: float) -> tuple[Float[np.ndarray, " d"], int]:
    """m descending with rounding set to zero, and n, checked."""
    if not (math.isfinite(n) and n == int(n) and n >= 1):
        raise ValueError(f"n must be a whole number of at least 1, not {n}")
    if not (math.isfinite(s2) and s2 >= 0):
        raise ValueError(f"s2 must be finite and not negative, not {s2}")
    values = np.sort(np.asarray(m, dtype=float))[::-1]
    if values.ndim != 1 or not len(values) or not np.all(np.isfinite(values)) or values[-1] < -1e-10 * abs(values[0]):
        raise ValueError("m must be a vector of finite eigenvalues, none of them negative")
    return np.where(values > ZERO * values[0], values, 0.0), int(n)


def _blocks(draws: int, numbers: int) -> list[int]:
    """Sizes of blocks of draws that hold about BLOCK numbers each."""
    if draws != int(draws) or draws < 2:
        raise ValueError(f"draws must be a whole number of at least 2, not {draws}")
    size = max(1, BLOCK // max(1, numbers))
    return [min(size, int(draws) - start) for start in range(0, int(draws), size)]


def _mean(values: Float[np.ndarray, " draws"]) -> Sampled:
    return Sampled(float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values)))


def _inverse_trace(
    diagonal: Float[np.ndarray, "draws r"], beside: Float[np.ndarray, "draws r-1"]
) -> Float[np.ndarray, " draws"]:
    """Traces of the inverses of positive definite tridiagonal matrices, by pivots from above and from below."""
    size, squared = diagonal.shape[1], beside**2
    above, below = diagonal.copy(order="K"), diagonal.copy(order="K")
    for i in range(1, size):
        above[:, i] -= squared[:, i - 1] / above[:, i - 1]
        below[:, size - 1 - i] -= squared[:, size - 1 - i] / below[:, size - i]
    return np.sum(1.0 / (above + below - diagonal), axis=1)
