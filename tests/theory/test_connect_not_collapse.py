"""The rule of the smallest weight against least squares, and random matchings against all of them."""

import itertools

import numpy as np
import pytest

from tests.theory.test_domains import by_least_squares, features
from theory import domains
from theory.connect_not_collapse import (
    discrepancy,
    four_node_eigenvalues,
    four_node_rule,
    matching_accuracy,
    matching_distribution,
)
from theory.domains import CLASS, DOMAIN, INTERACTION, BlockModel


def four(*weights):
    return BlockModel(2, 2, *weights)


@pytest.mark.parametrize(
    ("weights", "rule", "tolerance"),
    [
        ((0.8, 0.1, 0.08, 0.02), (INTERACTION, 1.0, 1.0, 1.0), 1e-10),
        ((0.8, 0.1, 0.02, 0.05), (DOMAIN, 0.0641026, 1.0, 0.5), 1e-6),
        ((0.8, 0.02, 0.08, 0.1), (CLASS, -1.0, 0.0, 1.0), 1e-9),
        ((0.8, 0.06, 0.02, 0.1), (DOMAIN, -0.0512821, 0.0, 0.5), 1e-6),
    ],
)
def test_published_rows(weights, rule, tolerance):
    found = four_node_rule(four(*weights))
    assert found.dropped == rule[0] and found[2:] == rule[2:]
    assert found.gain == pytest.approx(rule[1], abs=tolerance)


def test_published_eigenvalues():
    lam = four_node_eigenvalues(four(0.8, 0.1, 0.02, 0.05))
    assert lam[CLASS] == pytest.approx(0.855670, abs=1e-6)
    assert lam[DOMAIN] == pytest.approx(0.690722, abs=1e-6)
    assert lam[INTERACTION] == pytest.approx(0.752577, abs=1e-6)
    apart, _ = domains.squared_distances(four(0.8, 0.1, 0.08, 0.02), 3)
    assert apart.domains == pytest.approx(4 * 0.76) and apart.classes == pytest.approx(4 * 0.8)


def test_the_rule_is_least_squares_on_300_random_weights():
    """Seed 1; ga may exceed rho, and then further eigenvalues are negative in some of them."""
    rng, negative = np.random.default_rng(1), 0
    for _ in range(300):
        al, be, ga = rng.random(3)
        model = four(max(al, be) + 0.3 * rng.random() + 1e-3, al, be, ga)
        lam = four_node_eigenvalues(model)
        for group, value in lam.items():
            assert value == pytest.approx(model.eigenvalues[group], abs=1e-13)
        negative += sorted(lam.values())[1] < 0
        rule = four_node_rule(model)
        gain, target, source, domain = by_least_squares(model, features(model, 3, rng))
        assert gain == pytest.approx(rule.gain, abs=1e-8) and source == 1.0
        assert (target, domain) == (rule.target_accuracy, rule.domain_accuracy)
        assert domains.kept(model, 3).counts[rule.dropped] == 0
        assert min((al, CLASS), (be, DOMAIN), (ga, INTERACTION))[1] == rule.dropped
    assert negative > 5


def test_ties_have_no_rule_and_other_models_neither():
    assert four_node_rule(four(0.8, 0.1, 0.05, 0.05)) is None
    assert four_node_rule(four(0.8, 0.05, 0.05, 0.1)) is None
    assert four_node_rule(four(0.8, 0.1, 0.1, 0.05)).dropped == INTERACTION, "the two larger may be equal"
    with pytest.raises(ValueError, match="two classes in two domains"):
        four_node_rule(BlockModel(3, 2, 0.8, 0.1, 0.08, 0.02))
    with pytest.raises(ValueError, match="rho must exceed"):
        four_node_rule(four(0.1, 0.1, 0.08, 0.02))


def test_the_discrepancy_is_its_definition():
    rng = np.random.default_rng(2)
    for r, k in ((2, 3), (3, 4), (4, 8)):
        model = BlockModel(r, 2, 0.8, 0.1, 0.08, 0.02)
        f = features(model, k, rng).reshape(r, 2, k)
        S, T = f[:, 0], f[:, 1]

        def mean_kernel(x, y):
            return np.mean(np.exp(-np.sum((x[:, None] - y[None]) ** 2, axis=2) / (2 * 0.7**2)))

        by_hand = mean_kernel(S, S) + mean_kernel(T, T) - 2 * mean_kernel(S, T)
        apart, _ = domains.squared_distances(model, k)
        assert discrepancy(apart, r, 0.7) == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize("r", [2, 3, 5])
def test_a_random_matching_is_right_for_one_class_on_average(r):
    fixed = np.array([sum(i == j for i, j in enumerate(one)) for one in itertools.permutations(range(r))])
    mean, deviation = matching_accuracy(r)
    assert fixed.mean() / r == pytest.approx(mean) and fixed.std() / r == pytest.approx(deviation)
    np.testing.assert_allclose(matching_distribution(r), np.bincount(fixed, minlength=r + 1) / len(fixed), atol=1e-12)
