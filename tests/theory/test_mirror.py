"""Entropy projections: optimality, brute force, hard targets, and what cannot be solved."""

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, minimize

from theory.mirror import Infeasible, projection, projection_path


def gaussian(seed, n, d, r):
    X = np.random.default_rng(seed).standard_normal((n, d))
    beta_star = np.zeros(d)
    beta_star[:r] = 1.0
    return X, beta_star


def kl(beta, scale):
    return float((beta * np.log(beta / scale) - beta + scale).sum())


def hyperbolic(beta, scale):
    """The potential whose gradient is arcsinh(beta / 2 scale)."""
    return float((beta * np.arcsinh(beta / (2 * scale)) - np.sqrt(beta**2 + 4 * scale**2)).sum())


@pytest.mark.filterwarnings("ignore:delta_grad == 0.0")  # the brute-force optimiser meets a flat direction
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_projection_is_the_brute_force_minimiser(seed, signed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((3, 7))
    truth = rng.standard_normal(7) if signed else rng.uniform(0.2, 2.0, 7)
    scale = rng.uniform(0.3, 1.5, 7)
    objective = hyperbolic if signed else kl
    brute = minimize(
        objective,
        truth,
        args=(scale,),
        method="trust-constr",
        bounds=None if signed else [(1e-9, None)] * 7,
        constraints=LinearConstraint(X, X @ truth, X @ truth),
        options={"gtol": 1e-10, "xtol": 1e-12, "maxiter": 3000},
    )
    found = projection(X, X @ truth, np.log(scale), signed=signed)
    assert np.abs(X @ found.beta - X @ truth).max() < 1e-9
    assert objective(found.beta, scale) <= objective(brute.x, scale) + 1e-7
    np.testing.assert_allclose(found.beta, brute.x, atol=2e-4)


@pytest.mark.parametrize("signed", [False, True])
def test_beta_has_the_stated_form_and_the_dual_is_a_warm_start(signed):
    X, beta_star = gaussian(123, 40, 100, 5)
    log_scale = np.random.default_rng(1).normal(size=100)
    shift = np.random.default_rng(2).normal(size=100) if signed else None
    target = X @ beta_star
    found = projection(X, target, log_scale, shift, signed=signed)
    if signed:
        expected = 2 * np.exp(log_scale) * np.sinh(X.T @ found.dual + shift)
    else:
        expected = np.exp(log_scale + X.T @ found.dual)
    np.testing.assert_allclose(found.beta, expected, rtol=1e-9)
    assert found.residual == pytest.approx(np.abs(X @ found.beta - target).max(), abs=1e-12)
    again = projection(X, target, log_scale, shift, signed=signed, dual=found.dual)
    assert again.iterations <= 2
    np.testing.assert_allclose(again.beta, found.beta, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("signed", [False, True])
def test_path_equals_single_projections(signed):
    X, beta_star = gaussian(7, 20, 60, 3)
    target, c = X @ beta_star, (X**2).mean(0)
    times = np.array([0.0, 0.0, 0.3, 2.0, 2.0, 9.0, 80.0])
    path = projection_path(X, target, np.zeros(60), -c, times, signed=signed)
    assert path.shape == (7, 60)
    assert (path[0] == path[1]).all() and (path[3] == path[4]).all()
    for time, beta in zip(times, path, strict=True):
        np.testing.assert_allclose(beta, projection(X, target, -c * time, signed=signed).beta, atol=1e-8)
    assert projection_path(X, target, np.zeros(60), -c, np.empty(0), signed=signed).shape == (0, 60)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("factor", [1e-3, 1e3, 1e8])
@pytest.mark.parametrize("log_scale", [-1200.0, -14.0, 0.0, 14.0])
def test_targets_and_scales_of_any_size(signed, factor, log_scale):
    """Residual within 1e-10 of the target's size, or within rounding of X beta for a large dense beta."""
    X, beta_star = gaussian(3, 40, 100, 5)
    target = factor * (X @ beta_star)
    found = projection(X, target, np.full(100, log_scale), signed=signed)
    rounding = 1e-15 * np.abs(X).max() * np.abs(found.beta).sum()
    assert np.abs(X @ found.beta - target).max() <= max(1e-10 * max(1.0, np.abs(target).max()), 8 * rounding)


@pytest.mark.parametrize("n", [60, 80, 99])
def test_beta_star_as_the_only_nonnegative_interpolator_is_found_at_the_boundary(n):
    X, beta_star = gaussian(3, n, 100, 5)
    found = projection(X, X @ beta_star, np.zeros(100))
    np.testing.assert_allclose(found.beta, beta_star, atol=1e-8)


def test_entries_that_the_constraints_hold_at_zero_are_zero_where_newton_cannot_go():
    """Sign rows; the last entry is pinned by a row with weight on it alone, the others stay free."""
    X = 2.0 * np.random.default_rng(0).integers(0, 2, (6, 20)) - 1.0
    X, beta_star = np.vstack([X, np.eye(20)[-1]]), np.r_[np.ones(19), 0.0]
    log_scale, target = np.random.default_rng(1).normal(size=20), X @ beta_star
    found = projection(X, target, log_scale, max_iter=12)  # Newton takes an e-fold off the last entry at each step
    assert found.beta[-1] == 0.0 and found.beta[:-1].min() > 0.0
    np.testing.assert_allclose(found.beta, projection(X, target, log_scale).beta, atol=1e-9)
    np.testing.assert_allclose(found.beta[:-1], np.exp(log_scale + X.T @ found.dual)[:-1], rtol=1e-9)
    path = projection_path(X, target, log_scale, -np.arange(20) / 10, np.array([0.0, 1.0, 30.0]))
    assert (path[:, -1] == 0.0).all()
    alone = projection_path(X[:6, :-1], target[:6], log_scale[:-1], -np.arange(19) / 10, np.array([0.0, 1.0, 30.0]))
    np.testing.assert_allclose(path[:, :-1], alone, atol=1e-8)
    quick = projection_path(X, target, log_scale, -np.arange(20) / 10, np.array([0.0, 1.0, 30.0]), find_zeros=False)
    np.testing.assert_allclose(quick, path, atol=1e-9)
    assert projection(np.ones((1, 3)), np.zeros(1), np.zeros(3), max_iter=5).beta.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("n", [100, 130])
def test_as_many_samples_as_dimensions_leave_one_solution(n, signed):
    X, beta_star = gaussian(0, n, 100, 5)
    target = X @ beta_star
    found = projection(X, target, np.zeros(100), signed=signed)
    np.testing.assert_allclose(found.beta, beta_star, atol=1e-10)
    path = projection_path(X, target, np.zeros(100), -np.ones(100), np.array([0.0, 5.0]), signed=signed)
    np.testing.assert_allclose(path, np.stack([beta_star, beta_star]), atol=1e-10)


@pytest.mark.parametrize("copies", [2, 6])
def test_duplicate_rows_change_nothing(copies):
    """Six distinct sign rows in 30 dimensions, repeated until n = 12 < d and n = 36 > d."""
    X = 2.0 * np.random.default_rng(0).integers(0, 2, (6, 30)) - 1.0
    beta_star = np.r_[np.ones(3), np.zeros(27)]
    repeated, drift, times = np.vstack([X] * copies), -np.arange(30) / 10, np.array([0.0, 1.0, 50.0])
    once = projection_path(X, X @ beta_star, np.zeros(30), drift, times)
    often = projection_path(repeated, repeated @ beta_star, np.zeros(30), drift, times)
    np.testing.assert_allclose(often, once, atol=1e-9)
    single = projection(repeated, repeated @ beta_star, np.zeros(30))
    np.testing.assert_allclose(single.beta, once[0], atol=1e-9)
    with pytest.raises(Infeasible, match="no interpolating"):
        projection(repeated, repeated @ beta_star + np.arange(6 * copies), np.zeros(30))


def test_infeasible_targets_are_named():
    X = np.abs(np.random.default_rng(0).standard_normal((5, 20)))
    with pytest.raises(Infeasible, match=r"no interpolating nonnegative beta.*signed parametrisation"):
        projection(X, -np.ones(5), np.zeros(20))
    with pytest.raises(Infeasible, match="no interpolating nonnegative beta"):
        projection_path(X, -np.ones(5), np.zeros(20), -np.ones(20), np.array([0.0, 1.0]))
    assert projection(X, -np.ones(5), np.zeros(20), signed=True).residual < 1e-9
    square = np.random.default_rng(1).standard_normal((6, 6))
    with pytest.raises(Infeasible, match="negative entries"):
        projection(square, square @ np.array([1.0, 1, 1, 1, 1, -1]), np.zeros(6))
    with pytest.raises(Infeasible, match="no beta fits all samples"):
        projection(np.vstack([square, np.eye(2, 6)]), np.arange(8.0), np.zeros(6), signed=True)


def test_newton_that_may_not_step_enough_says_so():
    X, beta_star = gaussian(123, 40, 100, 5)
    with pytest.raises(ArithmeticError, match="raise max_iter"):
        projection(X, X @ beta_star, np.zeros(100), max_iter=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": np.empty((0, 4))}, "nonempty"),
        ({"target": np.ones(3)}, "target must have shape"),
        ({"log_scale": np.ones(5)}, "log_scale must have shape"),
        ({"log_scale": np.full(4, np.nan)}, "finite"),
        ({"shift": np.ones(4)}, "signed"),
        ({"dual": np.ones(3)}, "dual must have shape"),
    ],
)
def test_bad_input_is_refused(change, message):
    good = {"X": np.ones((2, 4)), "target": np.ones(2), "log_scale": np.zeros(4)}
    with pytest.raises(ValueError, match=message):
        projection(**(good | change))


@pytest.mark.parametrize("times", [[1.0, 0.5], [0.0, np.inf], [[0.0]]])
def test_bad_times_are_refused(times):
    with pytest.raises(ValueError, match="nondecreasing"):
        projection_path(np.ones((1, 3)), np.ones(1), np.zeros(3), np.zeros(3), np.array(times))


def test_the_same_input_gives_the_same_bits():
    X, beta_star = gaussian(5, 40, 100, 5)
    first = projection(X, X @ beta_star, np.zeros(100))
    second = projection(np.asfortranarray(X), X @ beta_star, np.zeros(100))
    assert first.beta.tobytes() == second.beta.tobytes()
