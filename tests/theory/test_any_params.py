"""Whatever regression problem the model draws, the theory answers, and its answer passes the conditions of optimality.

All checks are exact inequalities with room for rounding; the problems are drawn with the seeds given.
"""

import math

import numpy as np
import pytest

import sims
from sims.engine import get_lab
from sims.label_noise.lab import data_numbered
from sims.label_noise.prediction import chalk
from theory import label_noise as theory

ALGORITHMS = ("gd", "gd_label_noise", "sgd_label_noise", "minibatch_noise", "sgd", "gaussian_noise")


def drawn(seed):
    """Params over the whole range of the model that is quick to run; half of them with n near or above d/2."""
    rng = np.random.default_rng(seed)
    dim = int(rng.integers(1, 61))
    few = bool(rng.random() < 0.5)
    slow_time = 10 ** rng.uniform(-1, math.log10(50))
    params = {
        "algorithm": str(rng.choice(ALGORITHMS, p=[0.1, 0.4, 0.2, 0.1, 0.1, 0.1])),
        "learning_rate": float(10 ** rng.uniform(-4, -0.5)),
        "steps": int(10 ** rng.uniform(0, 5)),
        "init_scale": float(10 ** rng.uniform(-3, 1)),
        "parametrization": str(rng.choice(["square", "signed"], p=[0.7, 0.3])),
        "covariates": str(rng.choice(["gaussian", "rademacher", "planar"], p=[0.45, 0.45, 0.1])),
    }
    if params["covariates"] == "planar":
        params["planar_slope"] = float(10 ** rng.uniform(-2, 2))
    else:
        params["dim"] = dim
        params["n_train"] = int(rng.integers(1, 81)) if few else max(1, min(80, int(dim * rng.uniform(0.45, 1.1))))
        params["sparsity"] = int(rng.integers(1, dim + 1 if few else max(2, dim // 8)))
        params["data_seed"] = int(rng.integers(0, 1000))
    if params["algorithm"] not in ("gd", "sgd"):
        params["noise_schedule"] = str(rng.choice(["constant", "anneal", "stairs"], p=[0.6, 0.25, 0.15]))
        params["noise_std"] = min(100.0, math.sqrt(slow_time / params["steps"]) / params["learning_rate"])
    return params


def divergence(beta, scale):
    """KL(beta || scale), summed over the last axis."""
    return (beta * np.log(np.where(beta > 0, beta, 1.0) / scale) - beta + scale).sum(axis=-1)


def check(seed):
    lab = get_lab("label_noise")
    params = lab.params.make(drawn(seed))
    sims.predict("label_noise", **drawn(seed))
    number = params.data_number(0)
    one, (X, y, c, beta_star) = chalk(params, number), data_numbered(params, number)
    size = max(1.0, np.abs(y).max())
    beta, T = one.path, one.slow_times[:, None]
    assert np.abs(beta @ X.T - y).max() <= 1e-9 * max(size, 1e-6 * np.abs(X).max() * np.abs(beta).sum(axis=1).max())

    # minimal: KL(. || init_scale^2) + T sum_j c_j |.|_j over interpolators, here against three others
    scale, end = params.init_scale**2, one.least_norm
    if params.signed:
        half = np.sqrt((beta / 2) ** 2 + (scale * np.exp(-c * T)) ** 2)
        split, weights = np.hstack([np.maximum(half + beta / 2, 0), np.maximum(half - beta / 2, 0)]), np.tile(c, 2)
        others = [np.r_[np.maximum(b, 0), np.maximum(-b, 0)] for b in (end, beta_star)]
    else:
        split, weights, others = beta, c, [end, beta_star]
    others.append(split[0])
    assert split.min() >= 0
    value = divergence(split, scale) + T[:, 0] * (split @ weights)
    for other in others:
        better = divergence(other, scale) + T[:, 0] * (other @ weights)
        assert (value <= better + 1e-8 * (1.0 + np.abs(better))).all()

    # complementary to the linear program as T grows: its excess is at most (KL(end) - KL(path))/T
    excess, late = split @ weights - np.abs(end) @ c, T[:, 0] > 1
    assert (excess >= -1e-8 * (1.0 + np.abs(end) @ c)).all()
    bound = (divergence(others[0], scale) - divergence(split, scale))[late] / T[late, 0]
    assert (excess[late] <= bound + 1e-8 * (1.0 + np.abs(end) @ c)).all()

    # stationary: the exponent that beta needs lies in the row space of X, on the entries that are not 0
    if not params.signed:
        on = beta[-1] > 1e-9 * beta[-1].max()
        exponent = np.log(beta[-1, on] / scale) + c[on] * T[-1, 0]
        fitted = X[:, on].T @ np.linalg.lstsq(X[:, on].T, exponent)[0]
        assert np.abs(fitted - exponent).max() <= 1e-5 * (1.0 + np.abs(exponent).max())


@pytest.mark.parametrize("seed", range(60))
def test_every_problem_is_answered(seed):
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60, 360))
def test_every_one_of_many_problems_is_answered(seed):
    check(seed)


@pytest.mark.parametrize(("n", "data_seed"), [(51, 0), (53, 2), (60, 3), (70, 1), (80, 0), (99, 5), (100, 0), (120, 0)])
def test_beta_star_as_the_only_nonnegative_interpolator_stays_for_all_times(n, data_seed):
    params = get_lab("label_noise").params.make(n_train=n, data_seed=data_seed)
    X, y, c, beta_star = data_numbered(params, data_seed)
    path = theory.slow_flow(X, y, c, 1.0, np.linspace(0, 10, 261))
    if n > 55:
        np.testing.assert_allclose(path, np.tile(beta_star, (261, 1)), atol=1e-9)
    np.testing.assert_allclose(X @ path.T, np.tile(y[:, None], 261), atol=1e-9)
    sims.predict("label_noise", n_train=n, data_seed=data_seed)


@pytest.mark.parametrize("signed", [False, True])
def test_the_path_reaches_its_end_at_slow_times_of_any_size(signed):
    """1e15 is the largest slow time that steps, learning_rate and noise_std can be set to."""
    X = np.random.default_rng(0).standard_normal((25, 48))
    y, c = X[:, :7].sum(axis=1), (X**2).mean(0)
    path = theory.slow_flow(X, y, c, 1e-3, np.array([0.0, 1e3, 1e6, 1e6, 1e11, 1e15]), signed=signed)
    end = theory.min_weighted_l1(X, y, c, signed=signed)
    np.testing.assert_allclose(path[1:], np.tile(end, (5, 1)), atol=1e-8)


def test_a_tiny_start_is_followed_after_most_weights_have_vanished():
    """The dual is undetermined along vanished weights, and its noise must not be extrapolated: T ends at 1417."""
    lab = get_lab("label_noise")
    params = lab.params.make(
        n_train=63, dim=123, sparsity=14, data_seed=497234, init_scale=0.00038683286731465845,
        learning_rate=0.01610354483608196, noise_std=2.360606355025863, steps=980287,
    )  # fmt: skip
    one = chalk(params, params.data_number(0))
    X, y, _, beta_star = data_numbered(params, params.data_number(0))
    np.testing.assert_allclose(X @ one.path.T, np.tile(y[:, None], len(one.step)), atol=1e-8)
    np.testing.assert_allclose(one.path[-1], beta_star, atol=1e-8)
