"""Closed forms of the label-noise model against published numbers, an ODE solver and each other.

Instances: ``default_rng(seed).standard_normal((n, d))``, beta_star = r ones, then zeros.
Nothing here is simulated: counts over instances are exact for their seeds.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from theory import label_noise as theory


def instance(seed, n=40, d=100, r=5):
    """X, y, c, beta_star."""
    X = np.random.default_rng(seed).standard_normal((n, d))
    beta_star = np.zeros(d)
    beta_star[:r] = 1.0
    return X, X @ beta_star, (X**2).mean(0), beta_star


def error(beta, beta_star):
    return ((beta - beta_star) ** 2).sum(axis=-1)


# ---- the path ----------------------------------------------------------------------------------------------


def test_gradient_flow_limit_of_the_default_instance():
    X, y, _, beta_star = instance(123)
    assert error(theory.gradient_flow_limit(X, y, 1.0), beta_star) == pytest.approx(79.43, abs=0.01)


def test_slow_flow_errors_of_the_default_instance():
    X, y, c, beta_star = instance(123)
    path = theory.slow_flow(X, y, c, 1.0, np.array([0, 0.5, 1, 1.5, 2, 2.5, 3, 4]))
    expected = [79.43, 31.13, 13.67, 7.09, 4.34, 2.94, 2.06, 0.98]
    np.testing.assert_allclose(error(path, beta_star), expected, atol=0.0051)
    np.testing.assert_allclose(X @ path.T, np.tile(y[:, None], 8), atol=1e-8)


def test_half_trace_of_the_hessian_along_the_slow_flow():
    X, y, c, _ = instance(123)
    path = theory.slow_flow(X, y, c, 1.0, np.array([1.0, 2.0, 4.0]))
    np.testing.assert_allclose(theory.trace_hessian(path, c) / 2, [28.79, 14.45, 7.42], atol=0.0051)


def test_trace_hessian_is_the_trace_of_the_hessian():
    X, y, c, _ = instance(123)
    v = np.sqrt(theory.gradient_flow_limit(X, y, 1.0))
    hessian = 2 / 40 * (v[:, None] * (X.T @ X) * v)
    assert theory.trace_hessian(v * v, c) == pytest.approx(np.trace(hessian), rel=1e-12)


@pytest.mark.parametrize(
    ("alpha", "mean"), [(2, 1176), (1, 71.3), (0.5, 5.72), (0.3, 1.29), (0.1, 0.084), (0.03, 0.0045)]
)
def test_gradient_flow_error_over_initial_scales(alpha, mean):
    """Means over data seeds 0..5, to the digits given."""
    errors = []
    for seed in range(6):
        X, y, _, beta_star = instance(seed)
        errors.append(error(theory.gradient_flow_limit(X, y, alpha), beta_star))
    assert np.mean(errors) == pytest.approx(mean, rel=0.007)


def test_the_error_of_gradient_flow_grows_like_the_fourth_power_of_the_scale():
    X, y, _, beta_star = instance(123)
    errors = [error(theory.gradient_flow_limit(X, y, alpha), beta_star) for alpha in (30.0, 60.0)]
    assert errors[1] / errors[0] == pytest.approx(16.0, rel=0.01)


def test_limiting_flow_ode_is_the_closed_form():
    X, y, c, _ = instance(123)
    times = np.array([0.0, 1.0, 2.0, 4.0, 6.0])
    path = theory.slow_flow(X, y, c, 1.0, times)
    flow = solve_ivp(
        lambda _, beta: theory.slow_flow_velocity(np.maximum(beta, 0.0), X, c),
        (0.0, 6.0), path[0], method="DOP853", t_eval=times, rtol=1e-10, atol=1e-12,
    )  # fmt: skip
    assert np.abs(flow.y.T - path).max() < 1e-8


def test_signed_limiting_flow_ode_is_the_closed_form():
    """The signed model is the nonnegative one with features [X, -X] and beta = (u*u, w*w)."""
    X = np.random.default_rng(0).standard_normal((6, 15))
    beta_star, c = np.r_[1.0, -1.0, np.zeros(13)], (X**2).mean(0)
    times = np.array([0.0, 0.5, 2.0, 4.0])
    path = theory.slow_flow(X, X @ beta_star, c, 0.7, times, signed=True)
    product = 0.49 * np.exp(-c * times[:, None])
    root = np.sqrt(path**2 / 4 + product**2)
    stacked = np.hstack([root + path / 2, root - path / 2])
    flow = solve_ivp(
        lambda _, b: theory.slow_flow_velocity(np.maximum(b, 0.0), np.hstack([X, -X]), np.tile(c, 2)),
        (0.0, 4.0), stacked[0], method="DOP853", t_eval=times, rtol=1e-11, atol=1e-13,
    )  # fmt: skip
    assert np.abs(flow.y.T - stacked).max() < 1e-8


def test_velocity_conserves_the_predictions_and_is_the_written_formula():
    X, y, c, _ = instance(123)
    beta = theory.gradient_flow_limit(X, y, 1.0)
    velocity = theory.slow_flow_velocity(beta, X, c)
    BX = beta[:, None] * X.T
    written = -(beta * c - BX @ np.linalg.solve(X @ BX, X @ (beta * c)))
    np.testing.assert_allclose(velocity, written, atol=1e-10)
    assert np.abs(X @ velocity).max() < 1e-10


# ---- the end point -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("seed", [0, 123])
def test_slow_flow_ends_at_the_linear_program(seed, signed):
    X, y, c, _ = instance(seed)
    end = theory.min_weighted_l1(X, y, c, signed=signed)
    path = theory.slow_flow(X, y, c, 1.0, np.array([100.0, 600.0]), signed=signed)
    assert np.abs(path[1] - end).max() < 1e-7
    assert c @ np.abs(path[0]) >= c @ np.abs(end) - 1e-9


@pytest.mark.parametrize(("seed", "gstar"), [(123, 0.479), (0, 0.756), (1, 0.724), (2, 0.719), (3, 0.744)])
def test_dual_slack_is_the_decay_rate(seed, gstar):
    """The slope of log error over T in [15, 25] is -2 gstar within 2 %."""
    X, y, c, beta_star = instance(seed)
    end = theory.min_weighted_l1(X, y, c)
    found = theory.decay_rate(X, end, c)
    assert found == pytest.approx(gstar, abs=0.00051)
    times = np.linspace(15, 25, 11)
    slope = np.polyfit(times, np.log(error(theory.slow_flow(X, y, c, 1.0, times), beta_star)), 1)[0]
    assert -slope == pytest.approx(2 * found, rel=0.02)


def test_signed_dual_slack_is_the_decay_rate():
    X, _, c, _ = instance(0)
    beta_star = np.r_[1.0, -1, 1, -1, 1, np.zeros(95)]
    y = X @ beta_star
    found = theory.decay_rate(X, theory.min_weighted_l1(X, y, c, signed=True), c, signed=True)
    times = np.linspace(20, 30, 11)
    path = theory.slow_flow(X, y, c, 1.0, times, signed=True)
    slope = np.polyfit(times, np.log(error(path, beta_star)), 1)[0]
    assert -slope == pytest.approx(2 * found, rel=0.03)
    assert found < theory.decay_rate(X, np.abs(beta_star), c)


def test_decay_rate_at_the_edges():
    X, y, c, beta_star = instance(3, n=80)
    assert theory.decay_rate(X, beta_star, c) == math.inf  # the only nonnegative interpolator
    assert theory.decay_rate(X, np.ones(100), c) == math.inf
    X, y, c, beta_star = instance(0, n=12)
    assert theory.decay_rate(X, beta_star, c) < 0  # not the optimum
    assert theory.decay_rate(X, theory.min_weighted_l1(X, y, c), c) > 0


def test_time_to_error_is_about_the_time_the_error_takes():
    """A heuristic: within 40 % at eps = 1e-4 on five instances."""
    for seed in (0, 1, 2, 3, 123):
        X, y, c, beta_star = instance(seed)
        time = theory.time_to_error(1e-4, theory.decay_rate(X, beta_star, c), 1.0)
        times = np.linspace(0, 40, 400)
        taken = times[np.argmax(error(theory.slow_flow(X, y, c, 1.0, times), beta_star) < 1e-4)]
        assert time == pytest.approx(taken, rel=0.4)
    assert theory.time_to_error(1e-2, 0.5, 2.0) == pytest.approx(math.log(100) + math.log(4) / 0.5)


def test_below_the_threshold_the_end_is_the_weighted_program():
    X, y, c, beta_star = instance(0, n=12)
    path = theory.slow_flow(X, y, c, 1.0, np.array([18.0, 20.0, 30.0, 60.0]))
    np.testing.assert_allclose(path @ c, [1.894, 1.884, 1.860, 1.845], atol=0.00051)
    weighted = theory.min_weighted_l1(X, y, c)
    unweighted = theory.min_weighted_l1(X, y, np.ones(100))
    ends = [c @ beta for beta in (weighted, unweighted, beta_star)]
    np.testing.assert_allclose(ends, [1.840, 2.231, 5.842], atol=0.00051)


def test_weighted_programs_refuse_what_nothing_interpolates():
    X = np.abs(np.random.default_rng(0).standard_normal((5, 20)))
    with pytest.raises(theory.Infeasible, match="no interpolating nonnegative beta"):
        theory.min_weighted_l1(X, -np.ones(5), np.ones(20))
    with pytest.raises(theory.Infeasible, match="no interpolating nonnegative beta"):
        theory.slow_flow(X, -np.ones(5), np.ones(20), 1.0, np.array([0.0, 1.0]))
    assert theory.min_weighted_l1(X, -np.ones(5), np.ones(20), signed=True).min() < 0


@pytest.mark.parametrize("alpha", [0.0, math.nan, math.inf])
def test_a_start_that_cannot_move_is_refused(alpha):
    X, y, c, _ = instance(0)
    with pytest.raises(ValueError, match="init_scale"):
        theory.slow_flow(X, y, c, alpha, np.array([0.0]))


# ---- recovery ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dim", "sparsity", "signed", "n_star"),
    [
        (100, 5, False, 16.7), (100, 5, True, 20.4), (100, 10, False, 26.5), (200, 10, False, 33.4),
        (400, 20, False, 66.8), (1000, 20, False, 87.4),
        (10_000, 50, False, 306.6), (10_000, 100, False, 522.2),
    ],
)  # fmt: skip
def test_recovery_thresholds(dim, sparsity, signed, n_star):
    assert theory.recovery_threshold(dim, sparsity, signed=signed) == pytest.approx(n_star, abs=0.051)


def test_recovery_threshold_at_its_ends():
    assert theory.recovery_threshold(50, 50) == pytest.approx(50)
    with pytest.raises(ValueError, match="sparsity"):
        theory.recovery_threshold(50, 0)


def recovered(seeds, n, d, r):
    hits = 0
    for seed in seeds:
        X, y, c, beta_star = instance(seed, n, d, r)
        hits += error(theory.min_weighted_l1(X, y, c), beta_star) < 1e-4
    return hits / len(seeds)


def crossing(sizes, rates):
    """Where the piecewise linear rate first meets 1/2."""
    k = next(k for k, rate in enumerate(rates) if rate >= 0.5)
    return np.interp(0.5, rates[k - 1 : k + 1], sizes[k - 1 : k + 1])


def test_linear_program_recovers_half_at_the_threshold():
    """Seeds 0..59 a size: standard error of a rate 0.06, of the crossing 0.5; bounds 15 and 18.5."""
    sizes = [13, 16, 18, 20, 23]
    rates = [recovered(range(60), n, 100, 5) for n in sizes]
    assert 15 <= crossing(sizes, rates) <= 18.5
    np.testing.assert_allclose(rates, [0.12, 0.43, 0.68, 0.83, 0.95], atol=0.13)


@pytest.mark.slow
def test_larger_linear_program_recovers_half_at_the_threshold():
    """Seeds 0..14 a size: standard error of a rate 0.13; bound 63 to 72 around 66.8."""
    sizes = [53, 60, 66, 73, 80]
    assert 63 <= crossing(sizes, [recovered(range(15), n, 400, 20) for n in sizes]) <= 72


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "flow_rate", "program_rate"),
    [(12, 0.025, 0.10), (16, 0.25, 0.425), (20, 0.65, 0.80), (24, 0.825, 0.975), (30, 1, 1), (40, 1, 1)],
)
def test_recovery_of_the_slow_flow_at_a_finite_time(n, flow_rate, program_rate):
    """Exact counts over data seeds 0..39 at T = 20."""
    hits = 0
    for seed in range(40):
        X, y, c, beta_star = instance(seed, n)
        hits += error(theory.slow_flow(X, y, c, 1.0, np.array([20.0]))[0], beta_star) < 0.1
    assert hits / 40 == flow_rate
    assert recovered(range(40), n, 100, 5) == program_rate


def test_slow_flow_at_the_end_of_a_long_annealed_run():
    """T = 10.1: nearly the truth on most instances, not on the two with the smallest dual slack."""
    errors = {}
    for seed in (*range(10), 123):
        X, y, c, beta_star = instance(seed)
        errors[seed] = error(theory.slow_flow(X, y, c, 1.0, np.array([10.1]))[0], beta_star)
    assert errors.pop(5) == pytest.approx(1.3e-3, rel=0.05)
    assert errors.pop(123) == pytest.approx(3.7e-3, rel=0.05)
    assert min(errors.values()) > 3e-6
    assert max(errors.values()) < 3e-5


@pytest.mark.parametrize(("n", "probability"), [(40, 0.98), (50, 0.50), (60, 0.02)])
def test_wendel_probabilities(n, probability):
    assert theory.positive_null_vector_probability(n, 100) == pytest.approx(probability, abs=0.0051)


def test_wendel_at_its_ends():
    assert theory.positive_null_vector_probability(0, 10) == 1.0
    assert theory.positive_null_vector_probability(9, 10) == pytest.approx(2.0**-9)
    assert theory.positive_null_vector_probability(10, 10) == 0.0


# ---- corrections for a finite learning rate ----------------------------------------------------------------


def test_floor_and_residual_covariance():
    X, _, _, beta_star = instance(123)
    np.testing.assert_allclose(theory.stationary_floor(np.array([0.01, 0.003]), 1.0, 5.0), [0.05, 0.015])
    covariance = theory.residual_covariance(X, beta_star, 0.01, 2.0)
    np.testing.assert_allclose(covariance, 0.04 * X[:, :5] @ X[:, :5].T, atol=1e-14)


def test_start_up_is_half_the_divergence_of_gradient_flow():
    """KL/2 against the integral of the mean squared residual along gradient flow, by an ODE solver."""
    X, y, _, _ = instance(123)
    beta = theory.gradient_flow_limit(X, y, 1.0)
    divergence = theory.gradient_flow_kl(beta, 1.0)
    assert divergence == pytest.approx(24.83, abs=0.0051)
    assert theory.startup_time(0.001, divergence) == pytest.approx(0.01241, abs=1e-5)

    def flow(_, state):
        residual = X @ state[:-1] ** 2 - y
        return np.append(-(X.T @ residual / 40) * state[:-1], residual @ residual / 40)

    run = solve_ivp(flow, (0.0, 400.0), np.append(np.ones(100), 0.0), method="LSODA", rtol=1e-9, atol=1e-11)
    assert run.y[-1, -1] == pytest.approx(divergence / 2, rel=1e-5)
    np.testing.assert_allclose(run.y[:-1, -1] ** 2, beta, atol=1e-4)


@pytest.mark.parametrize(
    ("eta", "startup", "at_1", "at_2"),
    [
        (0.003, False, 11.01, 3.66), (0.003, True, 10.42, 3.55),
        (0.001, True, 12.51, None), (0.005, True, 8.64, None),
    ],
)  # fmt: skip
def test_batch_one_clock_predicts_the_error(eta, startup, at_1, at_2):
    X, y, c, beta_star = instance(123)
    clock = theory.batch_one_clock(X, y, c, 1.0, eta, np.array([1.0, 2.0]), startup)
    errors = error(theory.slow_flow(X, y, c, 1.0, clock), beta_star)
    assert errors[0] == pytest.approx(at_1, abs=0.0051)
    if at_2 is not None:
        assert errors[1] == pytest.approx(at_2, abs=0.0051)


def test_batch_one_clock_solves_its_equation():
    X, y, c, _ = instance(123)
    wanted = np.array([0.0, 0.2, 3.0, 15.0])
    clock = theory.batch_one_clock(X, y, c, 1.0, 0.004, wanted, startup=False)
    flow = solve_ivp(
        lambda _, t: 1 / (1 - 0.004 * (theory.slow_flow(X, y, c, 1.0, np.maximum(t, 0)) @ c)),
        (0.0, 15.0), [0.0], method="LSODA", t_eval=wanted, rtol=1e-8, atol=1e-10,
    )  # fmt: skip
    np.testing.assert_allclose(clock, flow.y[0], atol=2e-6)
    assert theory.batch_one_clock(X, y, c, 1.0, 0.004, np.empty(0)).shape == (0,)


def test_batch_one_clocks_on_one_data_set_share_its_norms(monkeypatch):
    X, y, c, _ = instance(123)
    wanted = np.array([0.5, 2.0])
    alone = [theory.batch_one_clock(X, y, c, 1.0, eta, wanted) for eta in (0.001, 0.002, 0.004)]
    followed, real = [], theory.slow_flow
    monkeypatch.setattr(theory, "slow_flow", lambda *a, **k: followed.append(1) or real(*a, **k))
    norms = theory.WeightedNorms(X, y, c, 1.0)
    shared = [theory.batch_one_clock(X, y, c, 1.0, eta, wanted, norms=norms) for eta in (0.001, 0.002, 0.004)]
    np.testing.assert_array_equal(shared, alone)
    assert len(followed) == len(norms._knots) - 1


def test_batch_one_clock_is_not_claimed_where_the_method_diverges():
    X, y, c, _ = instance(123)
    assert (theory.batch_one_clock(X, y, c, 1.0, 0.01, np.array([0.5, 1.0])) == math.inf).all()
    with pytest.raises(ValueError, match="nonnegative"):
        theory.batch_one_clock(X, y, c, 1.0, 0.001, np.array([-1.0]))


@pytest.mark.parametrize(("eta", "delta", "ratio"), [(0.05, 0.2, 1.058), (0.02, 0.5, 1.023)])
def test_full_batch_clock_of_a_constant_schedule(eta, delta, ratio):
    X, y, c, _ = instance(123)
    found = theory.clock_ratio(X, y, c, 1.0, np.linspace(0, 2, 101), eta, delta)
    assert math.isnan(found[0])
    assert found[-1] == pytest.approx(ratio, abs=0.0015)


def test_full_batch_clock_of_an_annealed_schedule():
    X, y, c, _ = instance(123)
    step = np.arange(6001)
    delta = math.sqrt(5 * 18 / 6000) / 0.1 * (1 - step / 6000) ** 2
    times = np.append(0.0, np.cumsum((0.1 * delta[:-1]) ** 2))
    kept = np.unique(np.linspace(0, 6000, 400).astype(int))
    found = theory.clock_ratio(X, y, c, 1.0, times[kept], 0.1, delta[kept])
    assert found[-1] == pytest.approx(1.068, abs=0.0015)


def test_full_batch_clock_sums_what_it_says():
    """Against the written sum at three times, with h_j formed from X B X^T."""
    X, y, c, _ = instance(0, n=10, d=30, r=2)
    times, eta, delta = np.array([0.5, 1.0, 1.5]), np.array([0.1, 0.1, 0.05]), np.array([0.3, 0.2, 0.1])
    betas = theory.slow_flow(X, y, c, 1.0, np.append(0.0, times))
    rates = []
    for beta, e, s in zip(betas, np.append(0.1, eta), np.append(0.3, delta), strict=True):
        h = np.array([x @ (X * beta) @ X.T @ x for x in X.T]) / (100 * c)
        rates.append(c * (1 + e * h + 1.5 * e**2 * s**2))
    expected = np.cumsum([(a + b) / 4 for a, b in pairwise(rates)], axis=0)
    found = theory.label_noise_clock(X, y, c, 1.0, times, eta, delta, kurtosis=1.5)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert theory.label_noise_clock(X, y, c, 1.0, times[:0], 0.1, 0.1).shape == (0, 30)


# ---- spherical noise and cartoons --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "seed", "slope"), [(20, 3, 59.0), (30, 3, 38.3), (40, 3, 18.0), (60, 3, -19.0), (60, 123, -153.0)]
)
def test_norm_growth_at_the_start(n, seed, slope):
    """At n > d/2 these are the formula's values all the same; it does not hold there."""
    X, y, _, _ = instance(seed, n)
    beta = theory.gradient_flow_limit(X, y, 1.0)
    assert theory.norm_growth(X, y, beta) == pytest.approx(slope, abs=0.051 if n < 50 else 0.5)


def test_norm_growth_tends_to_d_minus_2n():
    X, y, _, _ = instance(3, 20)
    assert theory.norm_growth(X, y, theory.gradient_flow_limit(X, y, 1000.0)) == pytest.approx(60.0, abs=0.01)
    assert math.isnan(theory.norm_growth(X, y, np.zeros(100)))


def test_norm_growth_is_the_generator_of_the_constrained_walk():
    """d E|v|^2/ds = tr P + 2 v.(curvature + drift), P the projection on the tangent space.

    Curvature: the Ito term -(1/2) N (N^T N)^{-1} tr(P Hess g_i) that keeps the constraints
    g_i(v) = x_i.(v*v) - y_i, N their gradients. Drift: -(1/2) P grad of (1/2) log det(X B X^T), the
    entropy of the normal fluctuations, differentiated numerically.
    """
    X, y, _, _ = instance(3, 20)
    beta = theory.gradient_flow_limit(X, y, 1.0)
    v = np.sqrt(beta)
    normals = 2 * X.T * v[:, None]
    inverse = np.linalg.inv(normals.T @ normals)
    tangent = np.eye(100) - normals @ inverse @ normals.T
    curvature = -0.5 * normals @ inverse @ np.array([np.trace(tangent @ np.diag(2 * x)) for x in X])

    def log_det(w):
        return 0.5 * np.linalg.slogdet((X * w**2) @ X.T)[1]

    step = 1e-5
    gradient = np.array([(log_det(v + step * e) - log_det(v - step * e)) / (2 * step) for e in np.eye(100)])
    drift = -0.5 * tangent @ gradient
    growth = np.trace(tangent) + 2 * v @ (curvature + drift)
    assert theory.norm_growth(X, y, beta) == pytest.approx(growth, abs=1e-3)


def test_equipartition_level():
    assert theory.equipartition_level(40, 0.002, 0.5) == pytest.approx(1600 * 0.002 * 0.25)


def test_log_walk_drifts_down_while_the_mean_square_grows():
    assert theory.log_walk_drift(0.3) == pytest.approx(-0.04716, abs=5e-6)
    x = np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(theory.log_walk_drift(x), (np.log(1 + x) + np.log(1 - x)) / 2)


def test_planar_flow():
    path = theory.planar_flow(2.0, 1.0, np.array([0.0, 3.0, 60.0]))
    np.testing.assert_allclose(path[1], [1.981, 0.0097], rtol=0.005)
    assert math.sqrt(0.01 * 2) == pytest.approx(0.141, abs=5e-4)
    np.testing.assert_allclose(path[2], theory.planar_end_point(2.0), atol=1e-8)
    other = theory.planar_flow(0.5, 1.0, np.array([80.0]))[0]
    np.testing.assert_allclose(other, theory.planar_end_point(0.5), atol=1e-8)
    still = theory.planar_flow(1.0, 0.7, np.array([0.0, 5.0]))
    np.testing.assert_allclose(still, np.ones((2, 2)), atol=1e-9)
    assert theory.planar_end_point(1.0) == (1.0, 1.0)
    with pytest.raises(ValueError, match="positive"):
        theory.planar_end_point(0.0)


# ---- signed ------------------------------------------------------------------------------------------------


def test_signed_gradient_flow_on_signs():
    """d = 100, n = 50, data seed 0: near the least Euclidean norm, equal to it for large weights."""
    X = 2.0 * np.random.default_rng(0).integers(0, 2, (50, 100)) - 1.0
    beta_star = np.r_[1.0, -1.0, 1.0, -1.0, 1.0, np.zeros(95)]
    y = X @ beta_star
    least = np.linalg.lstsq(X, y)[0]
    found = theory.gradient_flow_limit(X, y, 1.0, signed=True)
    assert error(found, beta_star) == pytest.approx(2.407, abs=6e-4)
    assert error(least, beta_star) == pytest.approx(2.430, abs=6e-4)
    np.testing.assert_allclose(theory.gradient_flow_limit(X, y, 1e4, signed=True), least, atol=1e-8)
    sparse = theory.gradient_flow_limit(X, y, 1e-8, signed=True)
    np.testing.assert_allclose(sparse, theory.min_weighted_l1(X, y, np.ones(100), signed=True), atol=1e-6)


def test_signed_label_noise_shrinks_the_product_of_the_weights():
    """c = 1 on sign rows: log(u w) = -4 at T = 4 from unit weights, whatever the data."""
    X = 2.0 * np.random.default_rng(0).integers(0, 2, (50, 100)) - 1.0
    y = X @ np.r_[1.0, -1.0, 1.0, -1.0, 1.0, np.zeros(95)]
    beta = theory.slow_flow(X, y, np.ones(100), 1.0, np.array([4.0]), signed=True)[0]
    row_space = np.arcsinh(beta / (2 * math.exp(-4.0)))
    assert np.abs(row_space - X.T @ np.linalg.lstsq(X.T, row_space)[0]).max() < 1e-8
