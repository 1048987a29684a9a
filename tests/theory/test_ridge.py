"""The Bayes risk of linear regression against explicit ridge regression, and Wishart moments against known ones.

Statistical tests state their seed and bound.
"""

import math
from fractions import Fraction

import numpy as np
import pytest

from theory import ridge


def explicit_risk(Sig, T, n, s2, count, rng):
    """Posterior risk of ridge regression on ``count`` explicit designs, noise of the query included."""
    root = np.linalg.cholesky(Sig)
    X = rng.standard_normal((count, n, len(Sig))) @ root.T
    precision = np.linalg.inv(T) + X.transpose(0, 2, 1) @ X / s2
    return s2 + np.einsum("ij,bji->b", Sig, np.linalg.inv(precision))


def agree(one, other, bound=3.0):
    assert abs(one.mean - other.mean) < bound * math.hypot(one.error, other.error), (one, other)


@pytest.mark.parametrize(
    ("n", "d", "s2", "equivalent", "measured", "error"),
    [
        (20, 5, 0.25, 0.33153, 0.3370, 0.0003),
        (10, 10, 1.0, 3.7016, 3.852, 0.005),
        (40, 20, 0.25, 0.49397, 0.5057, 0.0004),
        (5, 10, 0.25, 5.4782, 5.515, 0.0015),
    ],
)
def test_isotropic_risk(n, d, s2, equivalent, measured, error):
    """Against explicit designs (2000), whole Wishart matrices (4000), and independently measured values: seed 0, 3 s.e.

    The deterministic equivalent is too low, by at most 5 %.
    """
    rng = np.random.default_rng(0)
    found = ridge.bayes_isotropic(d, n, s2, 20_000, rng)
    agree(found, ridge._mean(explicit_risk(np.eye(d), np.eye(d), n, s2, 2000, rng)))
    agree(found, ridge.bayes_sampled(np.ones(d), n, s2, 4000, rng))
    agree(found, ridge.Sampled(measured, error))
    limit = ridge.bayes_equivalent(np.ones(d), n, s2)
    assert limit == pytest.approx(equivalent, rel=2e-5)
    assert 0.95 * found.mean < limit < found.mean


def test_the_equivalent_misses_small_problems():
    """n = d = 8, s2 = .1: 14 % too low."""
    found = ridge.bayes_isotropic(8, 8, 0.1, 40_000, np.random.default_rng(0))
    assert ridge.bayes_equivalent(np.ones(8), 8, 0.1) / found.mean == pytest.approx(0.86, abs=0.01)


@pytest.mark.parametrize(("n", "d"), [(30, 4), (3, 6)])
def test_risk_of_a_spread_spectrum(n, d):
    """Random non-commuting Sig and T, 8000 explicit designs and 8000 Wishart matrices, seed 1: 3 s.e."""
    rng = np.random.default_rng(1)
    Sig, T = (M @ M.T / d + 0.1 * np.eye(d) for M in rng.standard_normal((2, d, d)))
    values, vectors = np.linalg.eigh(T)
    root = vectors * np.sqrt(values) @ vectors.T
    m = np.linalg.eigvalsh(root @ Sig @ root)
    explicit = ridge._mean(explicit_risk(Sig, T, n, 0.3, 8_000, rng))
    found = ridge.bayes_sampled(m, n, 0.3, 8_000, rng)
    agree(found, explicit)
    assert ridge.bayes_equivalent(m, n, 0.3) == pytest.approx(found.mean, rel=0.15)


def test_variance_of_the_prior_scales_the_risk():
    """Labels times 3: tau2 and s2 times 9, and so is the risk. Same draws, so equal up to rounding."""
    one = ridge.bayes_isotropic(5, 20, 0.25, 100, np.random.default_rng(2))
    nine = ridge.bayes_isotropic(5, 20, 2.25, 100, np.random.default_rng(2), tau2=9.0)
    assert nine == pytest.approx((9 * one.mean, 9 * one.error), rel=1e-12)


def test_one_dimension_by_quadrature():
    assert ridge.bayes_scalar(5, 0.5) == pytest.approx(0.628803, abs=5e-7)
    assert ridge.bayes_scalar(20, 0.25) == pytest.approx(0.263676, abs=5e-7)
    for n, s2, m in ((1, 0.1, 2.0), (2, 3.0, 1.0), (400, 0.01, 1.0)):
        sampled = ridge.bayes_isotropic(1, n, s2, 50_000, np.random.default_rng(3), tau2=m)
        assert abs(sampled.mean - ridge.bayes_scalar(n, s2, m)) < 4 * sampled.error


def test_without_noise():
    """Exactly the directions that n samples leave out; 0 where they leave none."""
    rng = np.random.default_rng(4)
    assert ridge.bayes_isotropic(10, 4, 0.0, 2, rng, tau2=2.0) == (12.0, 0.0)
    assert ridge.bayes_isotropic(5, 20, 0.0, 2, rng) == (0.0, 0.0)
    found = ridge.bayes_sampled(np.ones(10), 4, 0.0, 2000, rng)
    assert abs(found.mean - 6.0) < 1e-9 + 3 * found.error
    assert ridge.bayes_sampled(np.array([1.0, 2.0, 0.0]), 2, 0.0, 10, rng) == (0.0, 0.0)
    tiny = ridge.bayes_isotropic(10, 4, 1e-9, 2000, rng)
    assert tiny.mean == pytest.approx(6.0, abs=1e-6)


def test_roots_of_the_equivalent():
    """n kappa solves its equation, on every branch."""
    for m, n, s2 in ((np.ones(5), 20, 0.25), (np.geomspace(1e-6, 10, 40), 7, 1e-8), (np.ones(3), 1, 1e6)):
        kappa = ridge.bayes_equivalent(m, n, s2) / n
        assert n * kappa == pytest.approx(s2 + kappa * np.sum(m / (m + kappa)), rel=1e-9)
    assert ridge.bayes_equivalent(np.ones(5), 5, 0.0) == 0.0
    assert ridge.bayes_equivalent(np.array([1.0, 1.0, 0.0]), 2, 0.0) == 0.0
    assert ridge.bayes_equivalent(np.zeros(2), 2, 0.3) == 0.3
    m = np.array([4.0, 2.0, 1.0, 0.5, 0.25])
    kappa = ridge.bayes_equivalent(m, 2, 0.0) / 2
    assert kappa > 0.1 and np.sum(m / (m + kappa)) == pytest.approx(2.0, rel=1e-12)
    assert ridge.bayes_equivalent(np.ones(10), 4, 0.0) == pytest.approx(6.0, rel=1e-12)


def test_tridiagonal_traces():
    rng = np.random.default_rng(5)
    diagonal, beside = ridge.wishart_tridiagonal(6, 9, 50, rng)
    full = np.stack([np.diag(a) + np.diag(b, 1) + np.diag(b, -1) for a, b in zip(diagonal, beside, strict=True)])
    expected = np.trace(np.linalg.inv(np.eye(6) + full), axis1=1, axis2=2)
    np.testing.assert_allclose(ridge._inverse_trace(1.0 + diagonal, beside), expected, rtol=1e-10)


@pytest.mark.parametrize(("d", "n"), [(1, 1), (1, 7), (5, 20), (20, 5), (3, 3), (64, 200)])
def test_trace_moments_of_low_order(d, n):
    known = (
        d,
        n * d,
        n * d * (n + d + 1),
        n * d * (n**2 + d**2 + 3 * n * d + 3 * n + 3 * d + 4),
        n * d * (n**3 + d**3 + 6 * n**2 * d + 6 * n * d**2 + 6 * n**2 + 6 * d**2 + 17 * n * d + 21 * n + 21 * d + 20),
    )
    assert ridge.wishart_trace_moments(d, n, 4) == known


def test_trace_moments_of_one_dimension_and_symmetry():
    assert ridge.wishart_trace_moments(1, 6, 8) == tuple(math.prod(6 + 2 * i for i in range(j)) for j in range(9))
    assert ridge.wishart_trace_moments(4, 9, 10)[1:] == ridge.wishart_trace_moments(9, 4, 10)[1:]


def test_trace_moments_of_high_order():
    """Order 5 and 6 from 200000 Bartlett draws, seed 6: 4 standard errors."""
    L = ridge.bartlett(3, 6, 200_000, np.random.default_rng(6))
    values = np.linalg.eigvalsh(L @ L.transpose(0, 2, 1))
    for j in (2, 5, 6):
        traces = np.sum(values**j, axis=1)
        error = np.std(traces) / math.sqrt(len(traces))
        assert abs(np.mean(traces) - ridge.wishart_trace_moments(3, 6, 6)[j]) < 4 * error


def test_trace_moments_of_two_dimensions_exactly():
    """d = 2 from the moments of trace and determinant: E tr S^j by Newton's identity over Bartlett's entries."""
    n, order = 5, 6
    moments: dict[tuple[int, int, int], Fraction] = {}

    def chi(k, r):
        return math.prod(k + 2 * i for i in range(r))

    def term(i, j, k):  # E L11^2i L21^2j L22^2k
        return moments.setdefault((i, j, k), Fraction(chi(n, i) * chi(1, j) * chi(n - 1, k)))

    expected = []
    for power in range(order + 1):
        # tr S^p = sum_q p/(p-q) C(p-q, q) (-1)^q (tr)^(p-2q) det^q
        total = Fraction(2 if power == 0 else 0)
        for q in range(power // 2 + 1 if power else 0):
            weight = Fraction(power * math.comb(power - q, q) * (-1) ** q, power - q)
            free = power - 2 * q
            for i in range(free + 1):
                for j in range(free - i + 1):
                    ways = math.comb(free, i) * math.comb(free - i, j)
                    total += weight * ways * term(i + q, j, free - i - j + q)
        expected.append(total)
    assert ridge.wishart_trace_moments(2, n, order) == tuple(expected)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ridge.bayes_equivalent(np.ones(2), 0, 0.1), "n must be"),
        (lambda: ridge.bayes_equivalent(np.ones(2), 3, -0.1), "s2 must be"),
        (lambda: ridge.bayes_equivalent(np.array([1.0, -1.0]), 3, 0.1), "eigenvalues"),
        (lambda: ridge.bayes_scalar(3, math.nan), "s2 must be"),
        (lambda: ridge.bayes_isotropic(3, 3, 0.1, 1, np.random.default_rng(0)), "draws"),
        (lambda: ridge.bayes_isotropic(0, 3, 0.1, 10, np.random.default_rng(0)), "d must be"),
        (lambda: ridge.bayes_sampled(np.array([math.nan]), 3, 0.1, 10, np.random.default_rng(0)), "eigenvalues"),
        (lambda: ridge.bartlett(4, 3, 10, np.random.default_rng(0)), "Bartlett"),
        (lambda: ridge.wishart_trace_moments(0, 3, 2), "at least 1"),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()
