"""Closed forms of deep linear encoders against integration, bisection and simulated regressions."""

import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from theory.projection_head import (
    decayed_gram,
    downstream_mse,
    effective_ridge,
    half_time,
    imbalance_decay,
    largest_decay,
    layer_gain,
    layer_weights,
    min_loss,
    minimiser_gram,
    moments,
    smallest_start,
    step_limit,
)

P, Q = moments(np.array([2.0, 1.0, 1.0, 0.5]), np.array([0.5, 0.1, 1.0, 0.05]))


def test_the_standard_example():
    M = minimiser_gram(P, Q)
    np.testing.assert_allclose(M, [0.221453, 0.980296, 0.25, 3.921184], atol=5e-7)
    shares = layer_weights(M, 2)
    np.testing.assert_allclose(shares[0], 1.0)
    np.testing.assert_allclose(shares[1], [0.6860, 0.9950, 0.7071, 1.4072], atol=5e-5)
    np.testing.assert_allclose(shares[2], [0.4706, 0.9901, 0.5, 1.9802], atol=5e-5)
    np.testing.assert_allclose(P / Q, [0.9412, 0.9901, 0.5, 0.9901], atol=5e-5)
    assert step_limit(P, Q, 2) == pytest.approx(0.0664, abs=5e-5)
    with pytest.raises(ValueError, match="strengths must be positive"):
        moments(np.array([0.0]), np.array([1.0]))


def test_no_encoder_of_k_outputs_has_a_smaller_loss():
    rng = np.random.default_rng(0)
    for k in (1, 2, 4):
        kept = np.argsort(-(P / Q))[:k]
        E = np.zeros((k, 4))
        E[np.arange(k), kept] = np.sqrt(P / Q**2)[kept]

        def loss(E):
            return -2 * np.sum(E**2 * P) + np.sum((E * Q @ E.T) ** 2)

        assert loss(E) == pytest.approx(min_loss(P, Q, k), abs=1e-12)
        assert all(loss(E + 0.1 * rng.standard_normal(E.shape)) >= min_loss(P, Q, k) for _ in range(200))


@pytest.mark.parametrize(
    ("layers", "times"),
    [(1, [0.13977, 0.74613, 0.57439, 3.67861]), (2, [12.4643, 49.9324, 49.8655, 199.865])],
)
def test_half_times_of_the_standard_example(layers, times):
    found = [half_time(p, q, 0.05, layers) for p, q in zip(P, Q, strict=True)]
    np.testing.assert_allclose(found, times, rtol=5e-5)


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_gains_follow_their_equation(layers, decay):
    p, q, start, times = 1.0, 1.5, 0.3, np.linspace(0.0, 40.0, 50)

    def slope(_, a):
        return 4 * (p - q**2 * a ** (2 * layers)) * a ** (2 * layers - 1) - decay * a

    exact = solve_ivp(slope, (0, 40), [start], "DOP853", t_eval=times, rtol=1e-11, atol=1e-13).y[0]
    np.testing.assert_allclose(layer_gain(p, q, start, layers, decay, times), exact, rtol=1e-6)
    if decay == 0.0:
        half = half_time(p, q, start, layers)
        (gain,) = layer_gain(p, q, start, layers, 0.0, np.array([half]))
        assert gain ** (2 * layers) == pytest.approx(0.5 * p / q**2, rel=1e-6)


def test_a_feature_that_starts_high_has_no_half_time_and_comes_down():
    assert math.isnan(half_time(1.0, 2.0, 1.0, 2))
    path = layer_gain(1.0, 2.0, 1.0, 2, 0.0, np.array([0.0, 1.0, 20.0]))
    assert path[0] == pytest.approx(1.0) and path[2] == pytest.approx(0.25**0.25, rel=1e-6)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_decay_moves_the_end_to_the_largest_root(layers):
    for p, q in zip(P, Q, strict=True):
        m = decayed_gram(p, q, 0.01, layers)
        assert 4 * (p - q**2 * m) * m ** (1 - 1 / layers) == pytest.approx(0.01, rel=1e-6)
        end = layer_gain(p, q, 0.6, layers, 0.01, np.array([0.0, 3000.0]))[-1]
        assert end ** (2 * layers) == pytest.approx(m, rel=1e-5)
        assert decayed_gram(p, q, 0.0, layers) == pytest.approx(p / q**2)


def test_decayed_weights_of_the_standard_example():
    m = np.array([decayed_gram(p, q, 0.01, 2) for p, q in zip(P, Q, strict=True)])
    np.testing.assert_allclose(m**0.25, [0.68577, 0.99441, 0.70622, 1.40541], atol=6e-6)
    np.testing.assert_allclose(m**0.5, [0.47028, 0.98885, 0.49875, 1.97518], atol=6e-6)
    np.testing.assert_allclose(largest_decay(P, Q), [2.898, 1.524, 0.770, 0.762], atol=6e-4)
    assert decayed_gram(P[2], Q[2], 0.769, 2) > 0 and decayed_gram(P[2], Q[2], 0.771, 2) == 0


def test_what_starts_too_small_dies():
    for p, q, about in zip(P, Q, [0.025, 0.05, 0.05, 0.1], strict=True):
        least = smallest_start(p, q, 0.01, 2)
        assert least == pytest.approx(about, rel=0.02)
        late = np.array([0.0, 2000.0])
        assert layer_gain(p, q, 0.99 * least, 2, 0.01, late)[-1] < 1e-2 * least
        assert layer_gain(p, q, 1.01 * least, 2, 0.01, late)[-1] > 2 * least
    assert smallest_start(1.0, 1.0, 0.0, 2) == 0.0 and smallest_start(1.0, 1.0, 100.0, 2) == math.inf
    np.testing.assert_allclose(
        imbalance_decay(0.01, np.array([50.0, 100.0, 200.0])), [0.36788, 0.13534, 0.01832], atol=5e-6
    )


TASKS = {
    "A": (3.0, 3.0, [0.0536, 0.3407, 0.9165]),
    "B": (0.6, 0.1, [1.0754, 0.7276, 0.3624]),
    "C": (1.5, 1.0, [0.3383, 0.4804, 0.6396]),
}


@pytest.mark.parametrize("task", TASKS)
def test_errors_downstream(task):
    phi, nu, expected = TASKS[task]
    strengths, noises = np.r_[phi, np.ones(59)], np.r_[nu, np.full(59, 0.7)]
    shares = layer_weights(minimiser_gram(*moments(strengths, noises)), 2)
    found = [downstream_mse(g * strengths, 0, 20, 1e-6) for g in shares]
    np.testing.assert_allclose(found, expected, atol=6e-5)


def test_an_interior_layer_can_be_best():
    strengths = np.r_[1.0, np.full(29, 3.0), np.full(30, 0.3)]
    noises = np.r_[0.5, np.full(29, 5.0), np.full(30, 0.15)]
    shares = layer_weights(minimiser_gram(*moments(strengths, noises)), 4)
    found = [downstream_mse(g * strengths, 0, 20, 1e-6) for g in shares]
    np.testing.assert_allclose(found, [1.8715, 0.9555, 0.4670, 0.3327, 0.4002], atol=6e-5)


def test_the_equivalent_is_the_mean_over_draws():
    """d = 60, n = 20, 400 draws, seed 1: within 5 standard errors and 3 %."""
    rng = np.random.default_rng(1)
    amplitudes = np.r_[2.0, np.linspace(0.5, 1.5, 59)]
    found = []
    for _ in range(400):
        e = rng.choice([-1.0, 1.0], size=(20, 60))
        Z = e * amplitudes
        b = Z.T @ np.linalg.solve(Z @ Z.T + 0.1 * np.eye(20), e[:, 0])
        found.append(np.sum((amplitudes * b - np.eye(60)[0]) ** 2))
    expected = downstream_mse(amplitudes, 0, 20, 0.1)
    assert expected == pytest.approx(np.mean(found), abs=5 * np.std(found) / 20 + 0.03 * expected)


def test_limits_of_the_ridge():
    s = np.array([1.0, 4.0, 0.0])
    assert effective_ridge(s, 2, 0.0) == 0.0 and downstream_mse(np.sqrt(s), 0, 2, 0.0) == 0.0
    kappa = effective_ridge(s, 1, 0.0)
    assert 1 / (1 + kappa) + 4 / (4 + kappa) == pytest.approx(1.0, rel=1e-9)
    assert downstream_mse(np.sqrt(s), 2, 5, 1e-3) == 1.0, "a feature that is not there cannot be read"
    assert downstream_mse(np.array([1.0, 1.0]), 0, 5, 0.0) == 0.0
