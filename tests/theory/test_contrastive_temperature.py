"""Closed forms of the temperature against quadrature, sampling and numerical minimisation."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize_scalar

from theory.contrastive_temperature import (
    best_share,
    class_blind_similarity,
    collapse_temperature,
    force_density,
    force_entropy,
    large_temperature_loss,
    log_mean_exp,
    log_odds,
    mean_similarity,
    retrieval,
    small_temperature_loss,
    small_temperature_similarity,
    two_level_loss,
    uniformity,
)


@pytest.mark.parametrize(
    ("dim", "tau", "total", "mean"),
    [(2, 0.1, -2.05703, 0.94860), (3, 0.2, -2.30263, 0.80009), (16, 0.5, -1.87585, 0.12331), (16, 0.07, None, 0.59538)],
)
def test_published_forces(dim, tau, total, mean):
    assert mean_similarity(dim, tau) == pytest.approx(mean, abs=6e-6)
    assert total is None or log_mean_exp(dim, tau) == pytest.approx(total, abs=6e-6)


@pytest.mark.parametrize("dim", [2, 3, 7, 40, 300])
@pytest.mark.parametrize("tau", [0.01, 0.07, 0.5, 5.0])
def test_forces_are_integrals_over_the_angle(dim, tau):
    def weight(angle, power):
        return math.exp((math.cos(angle) - 1) / tau) * math.sin(angle) ** (dim - 2) * math.cos(angle) ** power

    peak = math.acos(min(1.0, max(-1.0, mean_similarity(dim, tau))))
    parts = [quad(weight, 0, math.pi, args=(power,), points=[peak], limit=500, epsabs=0)[0] for power in (0, 1)]
    area = quad(lambda a: math.sin(a) ** (dim - 2), 0, math.pi, limit=500, epsabs=0)[0]
    assert log_mean_exp(dim, tau) == pytest.approx(math.log(parts[0] / area), rel=1e-7)
    assert mean_similarity(dim, tau) == pytest.approx(parts[1] / parts[0], rel=1e-7)
    angle = np.linspace(0.01, math.pi - 0.01, 7)
    expected = [weight(a, 0) / parts[0] for a in angle]
    np.testing.assert_allclose(force_density(dim, tau, angle), expected, rtol=1e-6, atol=1e-300)


def test_both_ways_to_the_bessel_functions_agree_and_many_dimensions_are_finite():
    for dim in (2, 3, 10, 128):
        near = [log_mean_exp(dim, 1 / z) for z in (dim * 0.999999, dim * 1.000001)]
        assert near[0] == pytest.approx(near[1], rel=1e-5)
    assert math.isfinite(log_mean_exp(1024, 0.005)) and 0 < mean_similarity(1024, 100.0) < 1e-3
    assert mean_similarity(128, 0.07) == pytest.approx(0.1103, abs=1e-3)


def test_the_entropy_of_the_force_rises_with_temperature():
    for dim in (2, 16, 128):
        found = [force_entropy(dim, tau) for tau in (0.02, 0.1, 0.5, 2.0, 50.0)]
        assert np.all(np.diff(found) > 0) and found[-1] == pytest.approx(0.0, abs=1e-3)


def test_the_limit_of_small_temperatures_needs_few_dimensions():
    assert small_temperature_similarity(2, 0.01) == pytest.approx(mean_similarity(2, 0.01), abs=1e-4)
    assert small_temperature_similarity(16, 0.07) == pytest.approx(0.475) and mean_similarity(16, 0.07) > 0.59
    for bad in (0.0, -1.0):
        with pytest.raises(ValueError, match="temperature must be positive"):
            mean_similarity(3, bad)
    with pytest.raises(ValueError, match="2 dimensions"):
        log_mean_exp(1, 0.1)


def softmax_loss(S, tau):
    top = S.max(axis=1, keepdims=True)
    return -np.diag(S) / tau + top[:, 0] / tau + np.log(np.sum(np.exp((S - top) / tau), axis=1))


def test_limits_of_the_loss():
    S = np.random.default_rng(0).uniform(-1, 1, (6, 6))
    tau = 1e-3
    np.testing.assert_allclose(softmax_loss(S, tau), small_temperature_loss(S, tau), atol=0.7 + 1e-9)
    ratio = softmax_loss(S, tau)[small_temperature_loss(S, tau) > 10] / small_temperature_loss(S, tau)[small_temperature_loss(S, tau) > 10]  # noqa: E501  # fmt: skip
    np.testing.assert_allclose(ratio, 1.0, atol=1e-3)
    tau = 1e3
    left = softmax_loss(S, tau) - large_temperature_loss(S, tau)
    np.testing.assert_allclose(left, np.var(S, axis=1) / (2 * tau**2), rtol=1e-2)


@pytest.mark.parametrize(
    ("tau", "share"), [(0.05, 0.094856), (0.1, 0.189712), (0.2, 0.379424), (0.3, 0.569136), (0.5, 0.948560)]
)
def test_the_best_share_is_the_numerical_minimum(tau, share):
    found = minimize_scalar(
        lambda c: two_level_loss(c, tau, 0.6, 10, 10), bounds=(0, 1), method="bounded", options={"xatol": 1e-10}
    )
    assert best_share(tau, 0.6, 10, 10) == pytest.approx(share, abs=6e-7)
    assert found.x == pytest.approx(share, abs=1e-5)


def test_collapse_and_stable_instances():
    assert collapse_temperature(0.6, 10, 10) == pytest.approx(0.527115, abs=1e-6)
    assert best_share(0.53, 0.6, 10, 10) == 1.0 and retrieval(1.0, 10) == 0.1 and retrieval(0.99, 10) == 1.0
    assert collapse_temperature(0.97, 10, 10) == math.inf
    assert [best_share(tau, 0.97, 10, 10) for tau in (0.1, 1.0, 10.0)] == [0.0, 0.0, 0.0]
    for bad in ((0.0, 10, 10), (1.0, 10, 10), (0.5, 1, 10), (0.5, 10, 1)):
        with pytest.raises(ValueError, match=r"must lie between|are needed"):
            log_odds(*bad)


def test_uniformities_of_the_standard_example():
    taus = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    shares = [best_share(tau, 0.6, 10, 10) for tau in taus]
    limit = [-3.985, -3.959, -3.902, -3.720, -3.415, -2.970, -2.401, -2.230]
    few = [-3.861, -3.836, -3.784, -3.624, -3.355, -2.946, -2.398, -2.230]
    np.testing.assert_allclose([uniformity(c, 10, 10) for c in shares], limit, atol=6e-4)
    np.testing.assert_allclose([uniformity(c, 10, 10, 64) for c in shares], few, atol=6e-4)
    assert class_blind_similarity(96) == pytest.approx(-0.0105, abs=5e-5)
