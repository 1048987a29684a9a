"""The closed forms of linear attention against brute force and against independently measured numbers.

Literal simulations below build the tokens, the three matrices and the attention sum of the definition; statistical
tests state their seed and bound.
"""

import itertools
import math

import numpy as np
import pytest
from scipy.linalg import block_diag

from theory import linear_attention as theory
from theory import linear_attention_flow as flow
from theory.linear_attention import Prompts, Weights

LAM = np.array([4.0, 2.0, 1.0, 0.5, 0.25])
ONES = np.ones(5)
DEFAULT = Prompts.isotropic(20, 5, 0.25)
WHITENED, PLAIN = Prompts.commuting(20, LAM, 1.0 / LAM, 0.25), Prompts.commuting(20, LAM, ONES, 0.25)


def reference(*, skip):
    """A fixed instance with every block at work: d = 3, n = 7."""
    i = np.arange(3.0)
    between = i[:, None] - i
    T = np.diag([0.5, 1.0, 1.5])
    T[0, 1] = T[1, 0] = 0.25
    h = np.array([0.2, 0.0, -0.2]) if skip else np.zeros(3)
    weights = Weights(np.array([0.1, 0.2, 0.3]), 0.3, 0.1 * np.eye(3) + 0.05 * between, np.array([0.05, -0.05, 0.1]), h)
    return Prompts(7, 0.5 ** np.abs(between), T, 0.25), weights


def random_instance(seed):
    """Non-commuting covariances and weights of the size at which both parts of the loss matter."""
    rng = np.random.default_rng(seed)
    d, n = int(rng.integers(1, 6)), int(rng.integers(1, 12))
    Sig, T = (M @ M.T / d for M in rng.standard_normal((2, d, d)))
    size = 0.5 / math.sqrt(n)
    blocks = (size * rng.standard_normal(shape) for shape in ((d,), (), (d, d), (d,), (d,)))
    u, c, A, b, h = blocks
    return Prompts(n, Sig, T, float(rng.random())), Weights(u, float(c), A, b, h)


def pack(w):
    return np.concatenate([w.u, [w.c], w.A.ravel(), w.b, w.h])


def unpack(x, d):
    u, c, A, b, h = np.split(x, np.cumsum([d, 1, d * d, d]))
    return Weights(u, float(c[0]), A.reshape(d, d), b, h)


def slopes(function, x, step):
    """Central differences of fourth order, one row for each entry of x."""
    rows = []
    for i in range(len(x)):
        one = step * np.eye(len(x))[i]
        near, far = function(x + one) - function(x - one), function(x + 2 * one) - function(x - 2 * one)
        rows.append((8.0 * near - far) / (12.0 * step))
    return np.array(rows)


def literal(weights, rng):
    """W_K, W_Q, W_V, h of a layer with these effective weights, in a random gauge: what must not matter is random."""
    d = len(weights.u)
    W_K, W_V = rng.standard_normal((2, d + 1, d + 1))
    M = np.vstack([weights.A, weights.b]) @ np.eye(d, d + 1) + np.outer(rng.standard_normal(d + 1), np.eye(d + 1)[d])
    W_Q = np.linalg.solve(W_K.T, M)
    h = np.append(weights.h, 1.0)
    W_V[d] = np.append(weights.u, weights.c) - h[:d] @ W_V[:d]
    return W_K, W_Q, W_V, h


def drawn_prompts(p, count, rng, w0=0.0):
    """X, y, x_q, y_q of ``count`` prompts."""
    root = [np.linalg.cholesky(M + 1e-15 * np.eye(p.d)) for M in (p.Sig, p.T)]
    w = w0 + rng.standard_normal((count, p.d)) @ root[1].T
    X = rng.standard_normal((count, p.n + 1, p.d)) @ root[0].T
    y = np.einsum("bni,bi->bn", X, w) + math.sqrt(p.s2) * rng.standard_normal((count, p.n + 1))
    return X[:, :-1], y[:, :-1], X[:, -1], y[:, -1]


def squared_errors(p, weights, count, rng, w0=0.0, attention="sum"):
    """Squared errors of the literal layer, token by token."""
    W_K, W_Q, W_V, h = literal(weights, rng)
    X, y, x_q, y_q = drawn_prompts(p, count, rng, w0)
    tokens = np.concatenate([X, y[:, :, None]], axis=2)
    query = np.concatenate([x_q, np.zeros((count, 1))], axis=1)
    scores = np.einsum("bni,bi->bn", tokens @ W_K.T, query @ W_Q.T)
    attended = np.einsum("bn,bni->bi", scores, tokens @ W_V.T) / (p.n if attention == "mean" else 1)
    return ((query + attended) @ h - y_q) ** 2


def assert_mean(values, expected, bound=3.0):
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    assert abs(np.mean(values) - expected) < bound * error, (np.mean(values), expected, error)


# -- loss and gradient -----------------------------------------------------------------------------------------


def test_reference_instance():
    p, w = reference(skip=False)
    assert theory.odd_loss(p, theory.effective_matrix(w)) == pytest.approx(2.15884375, abs=1e-12)
    assert theory.even_loss(p, w) == pytest.approx(2.9059078125, abs=1e-12)
    assert theory.optimal_loss(p) == pytest.approx(1.3467178771, abs=1e-10)
    g = theory.gradient(p, w)
    norms = [g.c, *(np.linalg.norm(block) for block in (g.A, g.u, g.b))]
    assert norms == pytest.approx([12.2085468750, 19.4161061201, 6.8230469430, 43.1024899534], abs=1e-9)


def test_reference_instance_with_skip():
    p, w = reference(skip=True)
    assert theory.even_loss(p, w) == pytest.approx(3.0551578125, abs=1e-12)
    g = theory.gradient(p, w)
    assert [g.c, np.linalg.norm(g.A), np.linalg.norm(g.h)] == pytest.approx(
        [11.8410468750, 20.1394931972, 3.4505318883], abs=1e-9
    )


@pytest.mark.parametrize("seed", range(12))
def test_gradient_is_the_slope_of_the_loss(seed):
    """Fourth-order differences of a polynomial of degree four per block: exact up to rounding."""
    p, w = random_instance(seed)
    found = pack(theory.gradient(p, w))
    slope = slopes(lambda x: theory.loss(p, unpack(x, p.d)), pack(w), 1e-2)
    np.testing.assert_allclose(found, slope, rtol=1e-10, atol=1e-10 * np.max(np.abs(found)))


@pytest.mark.parametrize("seed", range(12))
def test_loss_against_moments_of_the_literal_layer(seed):
    """20000 literal prompts at d <= 5, n <= 11, seed as given: within 4 standard errors (12 instances)."""
    p, w = random_instance(seed)
    assert_mean(squared_errors(p, w, 20_000, np.random.default_rng(seed)), theory.loss(p, w), bound=4.0)


@pytest.mark.slow
@pytest.mark.parametrize("skip", [False, True])
def test_loss_of_the_reference_instance_over_two_million_literal_prompts(skip):
    """Seed 0, within 3 standard errors; independently measured values are 5.062(.012) and 5.211(.012)."""
    p, w = reference(skip=skip)
    rng = np.random.default_rng(0)
    found = np.concatenate([squared_errors(p, w, 100_000, rng) for _ in range(20)])
    assert_mean(found, theory.loss(p, w))
    assert theory.loss(p, w) == pytest.approx(5.211 if skip else 5.062, abs=3 * 0.012)


def test_mean_attention_is_a_rescaled_sum():
    """The layer that divides by n: Q_mean = n Q. 60000 prompts, seed 1."""
    p, w = reference(skip=True)
    sum_weights = w._replace(u=w.u / p.n, c=w.c / p.n)
    found = squared_errors(p, w, 60_000, np.random.default_rng(1), attention="mean")
    assert_mean(found, theory.loss(p, sum_weights))


def test_invariances():
    """Rescaling leaves the loss, and gradient flow conserves c^2 + |u|^2 - |A|^2 - |b|^2."""
    p, w = random_instance(3)
    scaled = Weights(2.0 * w.u, 2.0 * w.c, w.A / 2.0, w.b / 2.0, w.h)
    assert theory.loss(p, scaled) == pytest.approx(theory.loss(p, w), rel=1e-12)
    g = theory.gradient(p, w)
    drift = w.c * g.c + w.u @ g.u - np.sum(w.A * g.A) - w.b @ g.b
    assert drift == pytest.approx(0.0, abs=1e-12 * abs(w.c * g.c))


def test_many_matrices_at_once():
    Q = np.random.default_rng(0).standard_normal((4, 2, 5, 5)) / 100
    together = theory.odd_loss(PLAIN, Q)
    assert together.shape == (4, 2)
    assert together[2, 1] == pytest.approx(float(theory.odd_loss(PLAIN, Q[2, 1])), rel=1e-14)


# -- the optimum -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "d", "s2", "least"),
    [(20, 5, 0.25, 1.440476), (20, 5, 0.0, 1.153846), (10, 10, 1.0, 6.454545), (40, 20, 0.25, 7.188776)],
)
def test_isotropic_optimum(n, d, s2, least):
    p = Prompts.isotropic(n, d, s2)
    assert theory.optimal_loss(p) == pytest.approx(least, abs=5e-7)
    eta = theory.optimal_step(n, d, s2)
    assert eta == pytest.approx(1 / (n + d + 1 + s2), rel=1e-15)
    np.testing.assert_allclose(theory.optimal_preconditioner(p), eta * np.eye(d), atol=1e-16)
    assert theory.step_loss(eta, n, d, s2) == pytest.approx(theory.optimal_loss(p), rel=1e-14)


@pytest.mark.parametrize(
    ("prompts", "least", "diagonal"),
    [
        (WHITENED, 1.440476, [0.009524, 0.019048, 0.038095, 0.07619, 0.152381]),
        (PLAIN, 1.867474, [0.01087, 0.02, 0.034483, 0.054054, 0.075472]),
    ],
)
def test_optimum_of_a_spread_spectrum(prompts, least, diagonal):
    assert theory.optimal_loss(prompts) == pytest.approx(least, abs=5e-7)
    np.testing.assert_allclose(theory.optimal_preconditioner(prompts), np.diag(diagonal), atol=5e-7)


@pytest.mark.parametrize("seed", range(12))
def test_the_optimum_is_stationary_symmetric_and_attains_the_least_loss(seed):
    p, w = random_instance(seed)
    Q = theory.optimal_preconditioner(p)
    inverse = np.linalg.inv((p.n + 1) * p.Sig + p.v1 * np.linalg.inv(p.T))
    np.testing.assert_allclose(Q, inverse, rtol=1e-6, atol=1e-9 * np.max(np.abs(Q)))
    best = theory.balanced_minimum(p)
    assert theory.loss(p, best) == pytest.approx(theory.optimal_loss(p), rel=1e-12)
    assert best.c**2 == pytest.approx(np.sum(best.A**2), rel=1e-12)
    assert np.max(np.abs(pack(theory.gradient(p, best)))) < 1e-10 * p.n * p.v1 * max(1.0, np.max(p.Sig))
    assert theory.loss(p, w) > theory.optimal_loss(p) and theory.even_loss(p, w) > 0


def test_a_singular_prior_and_singular_covariates():
    """Directions without prior get no step; the least loss comes from the others alone."""
    flat = Prompts(20, np.diag(LAM), np.diag([1.0, 1.0, 1.0, 0.0, 0.0]), 0.25)
    small = Prompts(20, np.diag(LAM[:3]), np.eye(3), 0.25)
    assert theory.optimal_loss(flat) == pytest.approx(theory.optimal_loss(small), rel=1e-14)
    Q = theory.optimal_preconditioner(flat)
    np.testing.assert_allclose(Q, block_diag(theory.optimal_preconditioner(small), np.zeros((2, 2))), atol=1e-17)
    silent = Prompts(20, np.diag([1.0, 1.0, 0.0]), np.eye(3), 0.25)
    assert theory.odd_loss(silent, theory.optimal_preconditioner(silent)) == pytest.approx(theory.optimal_loss(silent))


def test_rank_one_has_a_second_minimum():
    """d = 1: b u' alone reaches the least loss too, with c = A = 0."""
    p = Prompts.isotropic(20, 1, 0.25)
    root = np.sqrt(theory.optimal_preconditioner(p)[0])
    other = Weights(root, 0.0, np.zeros((1, 1)), root, np.zeros(1))
    assert theory.loss(p, other) == pytest.approx(theory.optimal_loss(p), rel=1e-14)
    assert np.max(np.abs(pack(theory.gradient(p, other)))) < 1e-13


def test_kurtosis_of_coordinates():
    """Uniform(-1, 1) has variance 1/3; n = d = 10 without noise. Others at n = 20, d = 5, s2 = 0.25."""
    k4 = theory.kurtosis_of("uniform")
    eta = theory.optimal_step(10, 10, 0.0, kurtosis=k4, variance=1 / 3)
    assert eta == pytest.approx(3 / 19.8, rel=1e-14) and eta == pytest.approx(0.151515, abs=5e-7)
    assert theory.step_loss(eta, 10, 10, 0.0, kurtosis=k4, variance=1 / 3) == pytest.approx(1.64983, abs=5e-6)
    steps = {name: theory.optimal_step(20, 5, 0.25, kurtosis=theory.kurtosis_of(name)) for name in
             ("gaussian", "rademacher", "student_t")}  # fmt: skip
    assert steps == pytest.approx({"gaussian": 0.038095, "rademacher": 0.041237, "student_t": 0.036036}, abs=5e-7)
    assert theory.optimal_step(20, 5, 0.25, kurtosis=1.0) == pytest.approx(1 / (20 + 5 - 1 + 0.25))


@pytest.mark.parametrize("eta", [0.0, 0.02, 0.05])
def test_step_loss_is_the_quadratic(eta):
    for tau2 in (1.0, 2.5):
        p = Prompts.isotropic(20, 5, 0.25, tau2)
        assert theory.step_loss(eta, 20, 5, 0.25, tau2) == pytest.approx(float(theory.odd_loss(p, eta * np.eye(5))))
        scaled = Prompts(20, 3.0 * np.eye(5), tau2 * np.eye(5), 0.25)
        found = theory.step_loss(eta, 20, 5, 0.25, tau2, variance=3.0)
        assert found == pytest.approx(float(theory.odd_loss(scaled, eta * np.eye(5))))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["uniform", "rademacher", "student_t"])
def test_kurtosis_against_explicit_prompts(name):
    """Best step by least squares over 400000 prompts, seed 0: within 4 standard errors, and the loss within 4."""
    rng, n, d, s2 = np.random.default_rng(0), 20, 5, 0.25
    draw = {"uniform": lambda size: rng.uniform(-1, 1, size) * math.sqrt(3),
            "rademacher": lambda size: 2.0 * rng.integers(0, 2, size) - 1.0,
            "student_t": lambda size: rng.standard_t(8, size) * math.sqrt(6 / 8)}[name]  # fmt: skip
    count = 400_000
    X, w = draw((count, n + 1, d)), rng.standard_normal((count, d))
    y = np.einsum("bni,bi->bn", X, w) + math.sqrt(s2) * rng.standard_normal((count, n + 1))
    p = np.einsum("bi,bni,bn->b", X[:, -1], X[:, :-1], y[:, :-1])
    target, k4 = y[:, -1], theory.kurtosis_of(name)
    expected = theory.optimal_step(n, d, s2, kurtosis=k4)
    eta = np.mean(p * target) / np.mean(p**2)
    error = np.std(p * (target - eta * p)) / (math.sqrt(count) * np.mean(p**2))
    assert abs(eta - expected) < 4 * error
    assert_mean((target - 0.03 * p) ** 2, float(theory.step_loss(0.03, n, d, s2, kurtosis=k4)), bound=4.0)


# -- nonlinear teachers ----------------------------------------------------------------------------------------

FUNCTIONS = {
    "cubic": lambda z: z**3,
    "relu": lambda z: np.maximum(z, 0.0),
    "sign": np.sign,
    "hermite3": lambda z: (z**3 - 3.0 * z) / math.sqrt(6.0),
    "tanh": lambda z: np.tanh(3.0 * z),
}


@pytest.mark.parametrize(
    ("teacher", "eta", "least"),
    [
        ("relu", 0.028571, 0.457143),
        ("network", 0.028571, 0.457143),
        ("sign", 0.036180, 0.63934),
        ("tanh", 0.037550, 0.40624),
        ("cubic", 0.026746, 10.286),
        ("hermite3", 0.0, 1.1),
    ],
)
def test_nonlinear_teachers(teacher, eta, least):
    """d = 5, n = 20, s2 = 0.1."""
    moments = theory.teacher_moments(teacher, 5)
    assert theory.teacher_step(moments, 20, 5, 0.1) == pytest.approx(eta, abs=6e-7)
    assert theory.teacher_loss(moments, 20, 5, 0.1) == pytest.approx(least, rel=4e-5)
    assert theory.teacher_loss(moments, 20, 5, 0.1, eta + 0.01) > theory.teacher_loss(moments, 20, 5, 0.1, eta)


@pytest.mark.parametrize("teacher", FUNCTIONS)
@pytest.mark.parametrize("d", [1, 5, 64])
def test_closed_moments_are_those_of_quadrature(teacher, d):
    by_quadrature = theory.single_index_moments(lambda z: float(FUNCTIONS[teacher](z)), d)
    assert by_quadrature == pytest.approx(theory.teacher_moments(teacher, d), rel=1e-9, abs=1e-12)


def test_a_linear_teacher_is_the_linear_model():
    moments = theory.teacher_moments("linear", 5, tau2=2.0)
    assert theory.teacher_step(moments, 20, 5, 0.25) == pytest.approx(theory.optimal_step(20, 5, 0.25, 2.0), rel=1e-14)
    p = Prompts.isotropic(20, 5, 0.25, 2.0)
    for eta in (None, 0.02):
        Q = theory.optimal_preconditioner(p) if eta is None else eta * np.eye(5)
        assert theory.teacher_loss(moments, 20, 5, 0.25, eta) == pytest.approx(float(theory.odd_loss(p, Q)), rel=1e-13)


@pytest.mark.parametrize("width", [1, 3])
def test_moments_of_a_network_at_every_width(width):
    """P2, K, and A1 from two inputs of one function, by 200000 draws, seed 0: within 4 standard errors."""
    rng, d, count = np.random.default_rng(0), 4, 200_000
    signs = 2.0 * rng.integers(0, 2, (count, width)) - 1.0
    W = rng.standard_normal((count, width, d))
    W /= np.linalg.norm(W, axis=2, keepdims=True)
    x, other = rng.standard_normal((2, count, d))
    f, g = (
        np.sum(signs * np.maximum(np.einsum("bmi,bi->bm", W, z), 0.0), axis=1) / math.sqrt(width) for z in (x, other)
    )
    moments = theory.teacher_moments("network", d)
    assert_mean(f**2, moments.P2, bound=4.0)
    assert_mean(f**2 * np.sum(x**2, axis=1), moments.K, bound=4.0)
    assert_mean(f * g * np.sum(x * other, axis=1), moments.A1, bound=4.0)


# -- gradient flow ---------------------------------------------------------------------------------------------


def test_logistic_clock():
    q = flow.logistic_flow(np.array([0.03, 0.04]), 1e-4, 20, 5, 0.25)
    np.testing.assert_allclose(q, [0.01373080, 0.02938088], atol=1e-8)
    assert flow.half_time(1e-4, 20, 5, 0.25) == pytest.approx(0.033206, abs=5e-7)
    assert flow.logistic_flow(flow.half_time(1e-4, 20, 5, 0.25), 1e-4, 20, 5, 0.25) == pytest.approx(1 / 26.25 / 2)
    assert flow.logistic_flow(1e3, 1e-4, 20, 5, 0.25) == pytest.approx(1 / 26.25, rel=1e-14)


@pytest.mark.parametrize("tau2", [2.0])
def test_logistic_clock_is_the_flow_of_the_exact_gradient(tau2):
    """RK4 on the full gradient from a balanced start, to 8 digits."""
    p = Prompts.isotropic(20, 5, 0.25, tau2)
    q0, end, steps = 1e-3, 0.02 / tau2, 400
    c = math.sqrt(math.sqrt(5) * q0)
    x = pack(Weights(np.zeros(5), c, q0 / c * np.eye(5), np.zeros(5), np.zeros(5)))

    def slope(z):
        return -pack(theory.gradient(p, unpack(z, 5)))

    dt = end / steps
    for _ in range(steps):
        k1 = slope(x)
        k2 = slope(x + dt / 2 * k1)
        k3 = slope(x + dt / 2 * k2)
        x = x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + slope(x + dt * k3))
    Q = theory.effective_matrix(unpack(x, 5))
    expected = float(flow.logistic_flow(end, q0, 20, 5, 0.25, tau2))
    np.testing.assert_allclose(Q, expected * np.eye(5), rtol=1e-8, atol=1e-15)


def test_logistic_clock_of_mean_attention():
    """n times the matrix, n times slower."""
    t = np.linspace(0.0, 0.05, 7)
    slow = flow.logistic_flow(20 * t, 20 * 1e-4, 20, 5, 0.25, attention="mean")
    np.testing.assert_allclose(slow, 20 * flow.logistic_flow(t, 1e-4, 20, 5, 0.25), rtol=1e-13)
    assert flow.half_time(2e-3, 20, 5, 0.25, attention="mean") == pytest.approx(20 * flow.half_time(1e-4, 20, 5, 0.25))
    assert flow.good_path_learning_rate(20, 5, attention="mean") == pytest.approx(20 * 0.01118, rel=1e-4)


def test_small_start():
    q0 = 1e-4
    c = math.sqrt(math.sqrt(5) * q0)
    balanced = Weights(np.zeros(5), c, q0 / c * np.eye(5), np.zeros(5), np.zeros(5))
    assert flow.small_start(balanced) == pytest.approx(q0, rel=1e-14)
    assert flow.small_start(balanced._replace(c=-c, A=-balanced.A)) == pytest.approx(q0, rel=1e-14)


def test_merged_flow_has_one_drop():
    """Half-times independently measured; a_i = 1e-3, c = sqrt5 1e-3."""
    found = flow.merged_flow(np.linspace(0.0, 0.5, 50), LAM, ONES, 20, 0.25, 1e-3 * ONES, math.sqrt(5) * 1e-3)
    np.testing.assert_allclose(found.half_times, [0.0062, 0.0110, 0.0284, 0.0905, 0.3087], atol=6e-5)
    assert found.q.shape == (50, 5) and found.loss[0] == pytest.approx(8.0, abs=3e-3)
    assert np.all(np.diff(found.loss) < 1e-12)


def test_separate_flow_is_a_staircase():
    """k_i = .01, c = sqrt5 .01: half-times independently measured; the loss rests near each plateau."""
    times = np.linspace(0.0, 10.0, 2001)
    found = flow.separate_flow(times, LAM, ONES, 20, 0.25, 0.01 * ONES, math.sqrt(5) * 0.01)
    np.testing.assert_allclose(found.half_times, [0.1044, 0.1706, 0.3694, 1.0156, 3.186], rtol=1e-3)
    levels = flow.plateaus(LAM, ONES, 20, 0.25)
    np.testing.assert_allclose(levels, [8.0, 4.52174, 2.92174, 2.23208, 1.96181, 1.86747], atol=5e-6)
    middle = np.sqrt(found.half_times[:-1] * found.half_times[1:])
    np.testing.assert_allclose(np.interp(middle, times, found.loss), levels[1:-1], rtol=0.03)
    assert found.loss[-1] == pytest.approx(levels[-1], abs=1e-3)


@pytest.mark.parametrize(("run", "size"), [(flow.merged_flow, 1e-3), (flow.separate_flow, 0.02)])
def test_a_flow_whose_half_times_are_not_asked_for_is_the_same(run, size):
    times = np.array([0.0, 0.003, 0.003, 0.02, 0.1, 4.0])
    timed, quick = (run(times, LAM, ONES, 20, 0.25, size * ONES, 2 * size, timed=timed) for timed in (True, False))
    np.testing.assert_allclose(quick.q, timed.q, rtol=1e-7)
    np.testing.assert_allclose(quick.loss, timed.loss, rtol=1e-8)
    later = run(times[1:], LAM, ONES, 20, 0.25, size * ONES, 2 * size, timed=False)
    np.testing.assert_allclose(later.q, quick.q[1:], rtol=1e-7)
    assert np.isnan(quick.half_times).all() and np.isfinite(timed.half_times).all()


def test_repeated_times_and_time_zero():
    found = flow.merged_flow(np.array([0.0, 0.01, 0.01]), LAM, ONES, 20, 0.25, 0.01 * ONES, 0.02)
    np.testing.assert_allclose(found.q[0], 0.01 * 0.02 * ONES, rtol=1e-12)
    np.testing.assert_array_equal(found.q[1], found.q[2])
    assert np.all(np.isinf(flow.merged_flow(np.zeros(1), LAM, ONES, 20, 0.25, 0.01 * ONES, 0.02).half_times))


@pytest.mark.parametrize("power", [1, 2])
def test_commuting_flows_are_the_flow_of_the_exact_gradient(power):
    """RK4 on the chain rule of the full gradient, to 1e-7."""
    start, c0, end, steps = np.array([0.02, 0.03, 0.05, 0.04, 0.02]), 0.05, 0.05, 300
    run = flow.merged_flow if power == 1 else flow.separate_flow
    expected = run(np.array([end]), LAM, ONES, 20, 0.25, start, c0).q[-1]

    def slope(z):
        x, c = z[:-1], z[-1]
        g = theory.gradient(PLAIN, Weights(np.zeros(5), c, np.diag(x**power), np.zeros(5), np.zeros(5)))
        along = np.diag(g.A) * (1.0 if power == 1 else x)  # key and query share k: each has half of d(k^2) = 2k dk
        return -np.append(along, g.c)

    z, dt = np.append(start, c0), end / steps
    for _ in range(steps):
        k1 = slope(z)
        k2 = slope(z + dt / 2 * k1)
        k3 = slope(z + dt / 2 * k2)
        z = z + dt / 6 * (k1 + 2 * k2 + 2 * k3 + slope(z + dt * k3))
    np.testing.assert_allclose(expected, z[-1] * z[:-1] ** power, rtol=1e-7)


def test_isotropic_merged_flow_is_the_logistic_clock():
    q0 = 1e-4
    c = math.sqrt(math.sqrt(5) * q0)
    t = np.linspace(0.0, 0.06, 30)
    found = flow.merged_flow(t, ONES, ONES, 20, 0.25, q0 / c * ONES, c)
    expected = flow.logistic_flow(t, q0, 20, 5, 0.25)
    np.testing.assert_allclose(found.q, np.tile(expected[:, None], 5), rtol=1e-7)
    q_star = 1 / 26.25
    np.testing.assert_allclose(found.loss, theory.optimal_loss(DEFAULT) + 100 * (expected - q_star) ** 2 / q_star)


# -- edge of stability -----------------------------------------------------------------------------------------


def full_hessian(p, weights, *, skip):
    """Differences of the exact gradient in (u, c, A, b), with h where the skip is trained."""
    d, keep = p.d, len(pack(weights)) - (0 if skip else p.d)
    slope = slopes(lambda x: pack(theory.gradient(p, unpack(x, d))), pack(weights), 1e-3)
    return (slope[:keep, :keep] + slope[:keep, :keep].T) / 2.0


@pytest.mark.parametrize("tau2", [1.0, 2.0])
@pytest.mark.parametrize("d", [1, 2, 5])
def test_isotropic_spectrum_is_complete(d, tau2):
    p = Prompts.isotropic(20, d, 0.25, tau2)
    found = flow.isotropic_spectrum(20, d, 0.25, tau2)
    expected = np.sort([value for value, times in found for _ in range(times)])
    measured = np.linalg.eigvalsh(full_hessian(p, theory.balanced_minimum(p), skip=False))
    np.testing.assert_allclose(measured, expected, rtol=1e-8, atol=1e-6)
    assert flow.good_path_sharpness(p) == pytest.approx(4 * 20 * math.sqrt(d) * tau2, rel=1e-10)
    assert flow.largest_learning_rate(p) == pytest.approx(2.0 / expected[-1], rel=1e-10)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_the_sharpness_of_diagonal_covariances_is_that_of_the_whole_hessian(d):
    """The diagonal case has a block of its own; turned away from the axes the same prompts are iterated."""
    p = Prompts.commuting(12, LAM[:d], np.linspace(1.0, 0.3, d), 0.25)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((d, d)))[0]
    turned = Prompts(12, turn @ p.Sig @ turn.T, turn @ p.T @ turn.T, 0.25)
    assert flow.good_path_sharpness(p) == pytest.approx(flow.good_path_sharpness(turned), rel=1e-9)


def test_isotropic_spectrum_of_the_default():
    values = [value for value, _ in flow.isotropic_spectrum(20, 5, 0.25)]
    assert values == pytest.approx([0.0, 8.249, 89.44, 178.89, 2825.2], rel=5e-5)
    assert [times for _, times in flow.isotropic_spectrum(20, 5, 0.25)] == [1, 5, 24, 1, 5]
    assert flow.largest_learning_rate(DEFAULT) == pytest.approx(7.08e-4, rel=1e-3)
    assert flow.good_path_learning_rate(20, 5) == pytest.approx(0.01118, rel=1e-4)


@pytest.mark.parametrize(("prompts", "rate"), [(WHITENED, 8.594e-5), (PLAIN, 5.239e-5)])
def test_largest_learning_rate_of_a_spread_spectrum(prompts, rate):
    found = flow.largest_learning_rate(prompts)
    assert found == pytest.approx(rate, rel=1e-4)
    Q = theory.optimal_preconditioner(prompts)
    rough = 1 / (np.linalg.norm(Q) * 20 * 22 * prompts.Ev2 * 4.0)
    assert found == pytest.approx(rough, rel=5e-3)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("prompts", [WHITENED, PLAIN, reference(skip=False)[0]])
def test_largest_learning_rate_is_that_of_the_whole_hessian(prompts, skip):
    top = np.linalg.eigvalsh(full_hessian(prompts, theory.balanced_minimum(prompts), skip=skip))[-1]
    assert flow.largest_learning_rate(prompts, skip=skip) == pytest.approx(2.0 / top, rel=1e-8)


@pytest.mark.parametrize("skip", [False, True])
def test_largest_learning_rate_of_mean_attention(skip):
    """The whole Hessian of L at u/n, c/n, at the balanced point c^2 = |A|^2 of the mean layer."""
    p, _ = reference(skip=False)
    best = theory.balanced_minimum(p)
    stretched = best._replace(c=best.c * math.sqrt(p.n), A=best.A * math.sqrt(p.n))

    def mean_gradient(x):
        w = unpack(x, p.d)
        g = theory.gradient(p, w._replace(u=w.u / p.n, c=w.c / p.n))
        return pack(g._replace(u=g.u / p.n, c=g.c / p.n))

    keep = len(pack(best)) - (0 if skip else p.d)
    top = np.linalg.eigvalsh(slopes(mean_gradient, pack(stretched), 1e-3)[:keep, :keep])[-1]
    assert flow.largest_learning_rate(p, "mean", skip=skip) == pytest.approx(2.0 / top, rel=1e-7)


@pytest.mark.parametrize(("ratio", "high", "low"), [(1.05, 0.1905, -0.2381), (1.2, 0.2985, -0.4652)])
def test_oscillation_beyond_the_edge(ratio, high, low):
    """The reduced model a += lr c r, c += lr d a r settles on the predicted pair."""
    assert flow.edge_oscillation(ratio) == pytest.approx((high, low), abs=1e-4)
    n, d, q_star = 20, 5, 1 / 26.25
    lr = ratio * flow.good_path_learning_rate(n, d)
    a, c, seen = 0.1, math.sqrt(d) * 0.1, []
    for _ in range(4000):
        r = 2 * n * (1 - a * c / q_star)
        a, c = a + lr * c * r, c + lr * d * a * r
        seen.append(a * c / q_star - 1)
    assert sorted(seen[-2:], reverse=True) == pytest.approx(flow.edge_oscillation(ratio), rel=1e-9)


def test_below_the_edge_nothing_oscillates():
    for ratio in (1.0, 1.24):
        with pytest.raises(ValueError, match="period two"):
            flow.edge_oscillation(ratio)


# -- the other path --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("prompts", "ratio"), [(DEFAULT, math.sqrt(5)), (WHITENED, 1.154), (PLAIN, 1.0328)])
def test_race_of_the_paths(prompts, ratio):
    """The two rates are the largest eigenvalues of minus the Hessian at zero, in (c, A) and in (u, b)."""
    good, bad = flow.growth_rates(prompts)
    assert good / bad == pytest.approx(ratio, rel=1e-3)
    zero = unpack(np.zeros(5 + 1 + 25 + 5 + 5), 5)
    growth = np.sort(np.linalg.eigvalsh(-full_hessian(prompts, zero, skip=False)))[::-1]
    assert growth[:2] == pytest.approx([good, bad], rel=1e-9)


def test_the_rival_minimum():
    """lam = 4..1/4, T = I: a worse local minimum, with no negative eigenvalue of the whole Hessian."""
    found = flow.rival_minimum(PLAIN)
    odd = float(theory.odd_loss(PLAIN, theory.effective_matrix(found)))
    assert theory.loss(PLAIN, found) == pytest.approx(4.17408, abs=6e-6)
    assert [odd, theory.even_loss(PLAIN, found)] == pytest.approx([3.1059, 1.0681], abs=6e-5)
    sizes = [np.linalg.norm(found.u), np.linalg.norm(found.b), abs(found.c), np.linalg.norm(found.A)]
    assert sizes == pytest.approx([0.2930, 0.0342, 0.0693, 0.2992], abs=1e-4)
    assert np.max(np.abs(pack(theory.gradient(PLAIN, found)._replace(h=np.zeros(5))))) < 1e-9
    values = np.linalg.eigvalsh(full_hessian(PLAIN, found, skip=False))
    assert values[:3] == pytest.approx([0.0, 0.973, 1.19], abs=2e-3)


@pytest.mark.slow
def test_a_trained_skip_leads_out_of_the_rival_minimum():
    """With h free it is no stationary point any more, and the same path goes on to the global minimum."""
    assert np.linalg.norm(theory.gradient(PLAIN, flow.rival_minimum(PLAIN)).h) > 0.4
    found = flow.rival_minimum(PLAIN, skip=True)
    assert theory.loss(PLAIN, found) == pytest.approx(theory.optimal_loss(PLAIN), rel=1e-9)


@pytest.mark.parametrize("prompts", [DEFAULT, WHITENED, Prompts.isotropic(20, 1, 0.25)])
def test_elsewhere_the_other_path_ends_in_the_global_minimum(prompts):
    found = flow.rival_minimum(prompts)
    assert theory.loss(prompts, found) == pytest.approx(theory.optimal_loss(prompts), rel=1e-10)


def test_the_rival_minimum_in_turned_coordinates():
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 5)))[0]
    turned = Prompts(20, turn @ np.diag(LAM) @ turn.T, np.eye(5), 0.25)
    assert theory.loss(turned, flow.rival_minimum(turned)) == pytest.approx(4.17408, abs=6e-6)
    with pytest.raises(ValueError, match="commute"):
        flow.rival_minimum(reference(skip=False)[0])


# -- tested elsewhere ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attention", "losses"),
    [("sum", [3.7534, 2.6196, 3.4359, 24.842, 137.31]), ("mean", [4.1616, 2.3475, 0.98696, 0.76020, 0.64683])],
)
def test_other_lengths(attention, losses):
    found = [theory.shifted_loss(DEFAULT, Prompts.isotropic(n, 5, 0.25), attention) for n in (5, 10, 40, 80, 160)]
    assert found == pytest.approx(losses, rel=3e-5)


def test_retrained_at_other_lengths():
    found = [theory.optimal_loss(Prompts.isotropic(n, 5, 0.25)) for n in (5, 10, 40, 80, 160)]
    assert found == pytest.approx([3.0278, 2.1731, 0.92568, 0.61232, 0.43797], rel=2e-5)


def test_limits_of_endless_prompts():
    assert theory.long_mean_limit(DEFAULT) == pytest.approx(0.53345, abs=5e-6)
    assert theory.long_mean_limit(DEFAULT) == pytest.approx(5 * (1 - 20 / 26.25) ** 2 + 0.25, rel=1e-14)
    assert theory.long_sum_growth(DEFAULT) == pytest.approx(5 / 26.25**2, rel=1e-14)
    for trained, tested in itertools.product((DEFAULT, PLAIN), (WHITENED, PLAIN)):
        endless = Prompts(10**8, tested.Sig, tested.T, tested.s2)
        limit = theory.long_mean_limit(trained, tested)
        assert theory.shifted_loss(trained, endless, "mean") == pytest.approx(limit, rel=1e-5)
        growth = theory.long_sum_growth(trained, tested)
        assert theory.shifted_loss(trained, endless) / 1e16 == pytest.approx(growth, rel=1e-5)


def test_covariate_shift():
    for scale, shifted, retrained in ((0.5, 1.3260, 0.8632), (1.5, 3.4235, 2.0175), (2.0, 10.105, 2.5945),
                                      (3.0, 48.883, 3.7484)):  # fmt: skip
        tested = Prompts(20, scale * np.eye(5), np.eye(5), 0.25)
        assert theory.shifted_loss(DEFAULT, tested) == pytest.approx(shifted, rel=3e-5)
        assert theory.optimal_loss(tested) == pytest.approx(retrained, abs=6e-5)
    reversed_spectrum = Prompts.commuting(20, LAM[::-1], ONES, 0.25)
    assert theory.shifted_loss(PLAIN, reversed_spectrum) == pytest.approx(129.55, abs=5e-3)
    assert theory.optimal_loss(reversed_spectrum) == pytest.approx(1.8675, abs=5e-5)


@pytest.mark.parametrize("attention", ["sum", "mean"])
def test_a_layer_with_an_even_part_is_tested_elsewhere(attention):
    """A literal layer trained at n = 7, tested at n' = 11 on other noise: 60000 prompts, seed 2, 4 standard errors."""
    p, w = reference(skip=True)
    tested = Prompts(11, p.Sig, 2.0 * p.T, 0.5)
    trained = w._replace(u=w.u * p.n, c=w.c * p.n) if attention == "mean" else w
    found = squared_errors(tested, trained, 60_000, np.random.default_rng(2), attention=attention)
    moved = theory.at_length(w, p.n, tested.n, attention)
    assert_mean(found, theory.loss(tested, moved), bound=4.0)


# -- a task vector with a mean ---------------------------------------------------------------------------------


def test_a_prior_mean():
    w0 = np.array([2.0, 0.0, 0.0, 0.0, 0.0])
    assert theory.prior_mean_loss(DEFAULT, w0) == pytest.approx(2.2290, abs=5e-5)
    assert theory.optimal_loss(DEFAULT) == pytest.approx(1.4405, abs=5e-5)


def test_one_step_from_the_prior_mean():
    """30000 literal prompts, seeds 3 and 4: with the skip L*(T), without it L*(T + w0 w0'); 4 standard errors."""
    w0 = np.array([2.0, 0.0, 0.0, 0.0, 0.0])
    weights = theory.prior_mean_weights(DEFAULT, w0)
    found = squared_errors(DEFAULT, weights, 30_000, np.random.default_rng(3), w0)
    assert_mean(found, theory.optimal_loss(DEFAULT), bound=4.0)
    wider = Prompts(20, np.eye(5), np.eye(5) + np.outer(w0, w0), 0.25)
    found = squared_errors(DEFAULT, theory.balanced_minimum(wider), 30_000, np.random.default_rng(4), w0)
    assert_mean(found, theory.prior_mean_loss(DEFAULT, w0), bound=4.0)


# -- stacked layers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "least", "steps", "within"),
    [
        (1, 1.440476, [0.0381], 5e-7),
        (2, 0.672440, [0.02589, 0.06084], 5e-7),
        (3, 0.4575, [0.0211, 0.0350, 0.0817], 3e-4),
        (4, 0.385, None, 1e-3),
    ],
)
def test_stacked_layers(k, least, steps, within):
    found = theory.stacked_layers(k, 20, 5, 0.25)
    assert found.loss == pytest.approx(least, abs=within)
    assert steps is None or found.steps == pytest.approx(steps, abs=6e-5)


def test_the_steps_form_the_polynomial():
    for k in (1, 2, 3, 5):
        found = theory.stacked_layers(k, 20, 5, 0.25, tau2=2.0)
        s = np.linspace(0.0, 40.0, 9)
        residual = np.prod(1.0 - found.steps * s[:, None], axis=1)
        polynomial = sum(found.beta[i] * s ** (i + 1) for i in range(k))
        np.testing.assert_allclose(1.0 - polynomial, residual, rtol=1e-6, atol=1e-6)


def test_one_layer_of_a_stack_is_one_step():
    for n, d, s2, tau2 in ((20, 5, 0.25, 1.0), (3, 8, 0.0, 2.0), (1, 1, 1.0, 0.5)):
        found = theory.stacked_layers(1, n, d, s2, tau2)
        assert found.steps[0] == pytest.approx(theory.optimal_step(n, d, s2, tau2), rel=1e-12)
        assert found.loss == pytest.approx(theory.optimal_loss(Prompts.isotropic(n, d, s2, tau2)), rel=1e-12)


@pytest.mark.parametrize("k", [2, 3])
def test_loss_of_a_stack_against_explicit_prompts(k):
    """The layers run on 60000 explicit prompts with the predicted steps, largest first, seed 5: 4 s.e."""
    found, rng = theory.stacked_layers(k, 20, 5, 0.25), np.random.default_rng(5)
    X, y, x_q, y_q = drawn_prompts(DEFAULT, 60_000, rng)
    slot, left = np.zeros(len(y)), y.copy()
    for step in found.steps[::-1]:
        g = np.einsum("bni,bn->bi", X, left)
        left = left - step * np.einsum("bni,bi->bn", X, g)
        slot = slot - step * np.sum(x_q * g, axis=1)
    assert_mean((-slot - y_q) ** 2, found.loss, bound=4.0)


# -- bad input -------------------------------------------------------------------------------------------------

EYE = np.eye(3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Prompts(0, EYE, EYE, 0.1), "n must be"),
        (lambda: Prompts(2.5, EYE, EYE, 0.1), "whole number"),
        (lambda: Prompts(5, EYE, EYE, -0.1), "s2 must be"),
        (lambda: Prompts(5, EYE, EYE, math.nan), "s2 must be"),
        (lambda: Prompts(5, EYE + np.diag([1.0, 1.0], 1), EYE, 0.1), "Sig must be symmetric"),
        (lambda: Prompts(5, EYE, np.diag([1.0, 1.0, -1e-6]), 0.1), "T must be positive semidefinite"),
        (lambda: Prompts(5, np.full((3, 3), math.nan), EYE, 0.1), "finite"),
        (lambda: Prompts(5, np.ones((3, 2)), EYE, 0.1), "square"),
        (lambda: Prompts(5, EYE, np.eye(2), 0.1), "one shape"),
        (lambda: Prompts(5, EYE, 0.0 * EYE, 0.0), "every label is zero"),
        (lambda: Prompts.isotropic(5, 0, 0.1), "d must be"),
        (lambda: theory.optimal_step(5, 3, 0.1, tau2=0.0), "tau2"),
        (lambda: theory.optimal_step(5, 3, 0.1, kurtosis=0.5), "kurtosis"),
        (lambda: theory.kurtosis_of("student_t", 4.0), "degrees"),
        (lambda: theory.kurtosis_of("cauchy"), "must be one of"),
        (lambda: theory.teacher_moments("quartic", 5), "must be one of"),
        (lambda: theory.teacher_moments("tanh", 5, gain=math.inf), "gain"),
        (lambda: theory.teacher_moments("network", 5, activation="network"), "activation"),
        (lambda: theory.length_factor(20, 10, "max"), "sum or mean"),
        (lambda: theory.prior_mean_loss(DEFAULT, np.zeros(3)), "w0"),
        (lambda: theory.stacked_layers(0, 20, 5, 0.25), "number of layers"),
        (lambda: theory.stacked_layers(2, 20, 5, 0.25, tau2=0.0), "nothing to learn"),
        (lambda: flow.logistic_flow(0.1, 0.0, 20, 5, 0.25), "exactly zero"),
        (lambda: flow.half_time(1.0, 20, 5, 0.25), "has passed"),
        (lambda: flow.logistic_rate(20, 5, tau2=0.0), "tau2"),
        (lambda: flow.logistic_rate(20, 5, attention="max"), "sum or mean"),
        (lambda: flow.small_start(unpack(np.zeros(41), 5)), "saddle"),
        (lambda: flow.merged_flow(np.ones(1), LAM, ONES, 20, 0.25, 0.0 * ONES, 1.0), "saddle"),
        (lambda: flow.separate_flow(np.ones(1), LAM, ONES, 20, 0.25, ONES, 0.0), "saddle"),
        (lambda: flow.merged_flow(-np.ones(1), LAM, ONES, 20, 0.25, ONES, 1.0), "times"),
        (lambda: flow.merged_flow(np.ones(1), LAM, ONES, 20, 0.25, np.ones(4), 1.0), "start"),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_rounding_in_a_covariance_is_forgiven():
    noise = 1e-12 * np.random.default_rng(0).standard_normal((3, 3))
    p = Prompts(5, np.diag([1.0, 1.0, -1e-11]) + noise, EYE + noise, 0.1)
    np.testing.assert_array_equal(p.Sig, p.Sig.T)
    assert math.isfinite(theory.optimal_loss(p))
