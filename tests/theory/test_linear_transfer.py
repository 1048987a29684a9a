"""Averaged features against the algorithm run in dense algebra, and the marker of noise against sampled spectra."""

import math

import numpy as np
import pytest

from tests.theory.test_domains import accuracy, features, matrix, random_model
from theory import domains
from theory.domains import CLASS, INTERACTION, BlockModel
from theory.linear_transfer import averaging_gain, enough_nodes, full_gain, visibility


def averaged(model, f, t):
    """Scores (r m, r) of the algorithm, from its definition."""
    r, m = model.classes, model.domains
    moment = f.T @ f / len(f)
    means = f.reshape(r, m, -1)[:, 0]
    return f @ np.linalg.matrix_power(moment, t - 1) @ means.T


@pytest.mark.parametrize("t", [1, 2, 3])
def test_the_gain_is_that_of_the_algorithm_in_every_basis(t):
    rng, answered = np.random.default_rng(t), 0
    for _ in range(200):
        model = random_model(rng)
        r, m = model.classes, model.domains
        k = int(rng.integers(1, r * m + 1))
        scores = averaged(model, features(model, k, rng), t)
        label, source = np.arange(r * m) // m, np.arange(r * m) % m == 0
        Y = np.eye(r)[label] - 1.0 / r
        contrast = [np.sum(scores[part] * Y[part]) / np.sum(part) for part in (~source, source)]
        answer, right = averaging_gain(model, k, t), domains.target_accuracy(model, k)
        if answer.value is not None:
            answered += 1
            assert contrast[0] / contrast[1] == pytest.approx(answer.value, abs=1e-8)
        if right.value is not None:
            assert accuracy(scores[~source], label[~source]) == pytest.approx(right.value, abs=1e-9)
    assert answered > 80


@pytest.mark.parametrize(("r", "m"), [(2, 2), (5, 2), (3, 3)])
def test_the_gain_of_both_groups(r, m):
    model = BlockModel(r, m, 0.7, 0.1, 0.08, 0.02)
    lc, li = model.eigenvalues[CLASS], model.eigenvalues[INTERACTION]
    for t in (1, 2, 3):
        by_hand = (lc**t - li**t) / (lc**t + (m - 1) * li**t)
        assert averaging_gain(model, r * m, t).value == pytest.approx(by_hand, abs=1e-12)
        assert averaging_gain(model, r + m - 1, t).value == pytest.approx(1.0, abs=1e-12)


def test_scores_are_those_of_a_walk():
    """With all features, t steps of the random walk, from a node to the labelled ones; eigenvalues not negative."""
    model = BlockModel(3, 2, 0.7, 0.1, 0.08, 0.02)
    P = matrix(model)
    for t in (1, 2, 5):
        walked = 6.0 * np.linalg.matrix_power(P, t)[:, ::2]
        np.testing.assert_allclose(averaged(model, features(model, 6), t), walked, atol=1e-12)


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="walk_steps"):
        averaging_gain(BlockModel(2, 2, 0.8, 0.1, 0.08, 0.02), 3, 0)


@pytest.mark.parametrize(
    ("model", "gain"),
    [
        (BlockModel(2, 2, 0.8, 0.1, 0.08, 0.02), 0.111111),
        (BlockModel(5, 2, 0.6, 0.1, 0.05, 0.02), 0.145455),
        (BlockModel(4, 3, 0.7, 0.06, 0.05, 0.02), 0.0615385),
        (BlockModel(5, 2, 0.6, 0.02, 0.05, 0.1), -0.145455),
    ],
)
def test_all_features_leave_a_small_margin_of_the_right_sign(model, gain):
    assert full_gain(model) == pytest.approx(gain, abs=1e-6)
    assert full_gain(model) == pytest.approx(domains.head_gain(model, model.classes * model.domains).value, abs=1e-12)
    assert math.isnan(full_gain(BlockModel(2, 2, 0.5, 0.1, 0.5, 0.1)))


def test_the_marker_of_noise():
    """The bulk of a sampled adjacency matrix, seed 7, N = 800: its edge within 10 % of 2 sqrt(N p (1-p))."""
    model, n = BlockModel(2, 2, 0.5, 0.09, 0.15, 0.05), 200
    rng = np.random.default_rng(7)
    P = np.kron(matrix(model) * model.total, np.ones((n, n)))
    upper = np.triu(rng.random(P.shape) < P, 1)
    noise = np.linalg.eigvalsh((upper | upper.T) - P)
    edge = n * 2 * abs(model.across_domains - model.across_both) / visibility(model, n)
    assert max(abs(noise[0]), noise[-1]) == pytest.approx(edge, rel=0.1)
    assert visibility(model, 4 * n) == pytest.approx(2 * visibility(model, n), rel=1e-12)
    few = enough_nodes(model)
    assert n * few / n * 2 * 0.04 / (2 * math.sqrt(few * 4 * 0.1975 * 0.8025)) == pytest.approx(1.0, rel=1e-9)
    assert math.isinf(enough_nodes(BlockModel(2, 2, 0.5, 0.05, 0.15, 0.05)))
