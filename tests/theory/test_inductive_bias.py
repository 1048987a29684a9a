"""The spectra of encoder classes and what random minimisers know, against enumeration and random subspaces."""

import itertools
import math

import numpy as np
import pytest

from theory import graphs
from theory.inductive_bias import (
    class_spectrum,
    expected_r2,
    flip_factor,
    label_energy,
    learned_gram,
    rescale_factor,
    rescale_moment,
    sampling_deviation,
    separation_rate,
)


def every_character(dim, content, factor, least, most):
    subsets = itertools.chain.from_iterable(itertools.combinations(range(dim), size) for size in range(least, most + 1))
    values = [factor(sum(i < content for i in one), sum(i >= content for i in one)) for one in subsets]
    return np.sort(values)[::-1]


@pytest.mark.parametrize("factor", [rescale_factor(0.0, 1.0), rescale_factor(0.5, 1.0), flip_factor(0.05, 0.2)])
@pytest.mark.parametrize(("least", "most"), [(1, 1), (0, 1), (0, 2), (0, 6)])
def test_a_class_has_the_eigenvalues_of_its_characters(factor, least, most):
    found = class_spectrum(6, 2, factor, least, most)
    expected = every_character(6, 2, factor, least, most)
    assert found.size == len(expected)
    np.testing.assert_allclose(found.top(found.size), expected, atol=1e-14)
    assert found.min_loss(4) == pytest.approx(-np.sum(expected[:4] ** 2), abs=1e-13)
    np.testing.assert_array_equal(found.top(found.size + 3)[-3:], 0.0)


def test_flips_are_those_of_the_hypercube():
    q = np.r_[np.full(3, 0.05), np.full(4, 0.2)]
    cube = graphs.hypercube(q, (0,), graphs.parity_truth(1), 2**7)
    np.testing.assert_allclose(class_spectrum(7, 3, flip_factor(0.05, 0.2), 0, 7).top(128), cube.top(128), atol=1e-14)


def test_scales_in_closed_form():
    assert rescale_factor(0.0, 1.0)(1, 1) == pytest.approx(0.75)
    assert rescale_factor(0.5, 1.0)(0, 1) == pytest.approx(0.9642857, abs=1e-7)
    assert rescale_factor(0.7, 0.7)(0, 3) == pytest.approx(1.0), "one scale alone changes nothing"
    tau = np.random.default_rng(0).uniform(0.3, 0.9, 400_000)
    for order in (1, 2, 5):
        sample = tau**order
        assert rescale_moment(0.3, 0.9, order) == pytest.approx(sample.mean(), abs=5 * sample.std() / 600)
    for low, high in ((-0.1, 1.0), (0.6, 0.5), (0.0, 0.0)):
        with pytest.raises(ValueError, match="scales must satisfy"):
            rescale_factor(low, high)


@pytest.mark.parametrize(("degree", "units"), [((1, 1), 3), ((0, 1), 4), ((0, 2), 7), ((0, 8), 8)])
def test_numbers_of_invariant_directions(degree, units):
    found = class_spectrum(8, 3, flip_factor(0.0, 0.2), *degree)
    assert found.units == units and found.top(units + 1)[-1] == pytest.approx(0.36)
    assert class_spectrum(8, 3, rescale_factor(0.0, 1.0), *degree).units == (units if degree[1] < 8 else 8)


def test_rates_and_grams():
    assert separation_rate(0.75, 1 / 3) == pytest.approx(1 / 3)
    assert separation_rate(rescale_factor(0.8, 1.0)(0, 1), rescale_moment(0.8, 1.0, 2)) == pytest.approx(0.04 / 3)
    assert learned_gram(0.75, 1 / 3) == pytest.approx(2.25)
    assert sampling_deviation(256, 3000, 0.05) == pytest.approx(0.0045, abs=1e-4)


def test_energies_of_labels():
    np.testing.assert_allclose(label_energy(3, "bits"), [0, 1, 0, 0])
    np.testing.assert_allclose(label_energy(3, "majority"), [0, 0.75, 0, 0.25])
    with pytest.raises(ValueError, match="odd"):
        label_energy(2, "majority")


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("label", ["bits", "majority"])
@pytest.mark.parametrize(("degree", "k"), [((0, 2), 4), ((0, 3), 3), ((1, 1), 2), ((0, 3), 10)])
def test_the_expected_r2_is_the_mean_over_random_minimisers(intercept, label, degree, k):
    """3 content and 1 style bit, style flipped 0.2; 1500 draws, seed 0, bound 5 standard errors."""
    dim, content, rng = 4, 3, np.random.default_rng(0)
    factor = flip_factor(0.0, 0.2)
    bits = 1.0 - 2.0 * ((np.arange(16)[:, None] >> np.arange(3, -1, -1)) & 1)
    subsets = [s for size in range(degree[0], degree[1] + 1) for s in itertools.combinations(range(dim), size)]
    phi = np.stack([np.prod(bits[:, list(s)], axis=1) for s in subsets], axis=1) / 4.0
    values = np.array([factor(sum(i < 3 for i in s), sum(i >= 3 for i in s)) for s in subsets])
    y = bits[:, 0] if label == "bits" else np.sign(bits[:, :3].sum(axis=1))
    found = []
    for _ in range(1500):
        basis = []
        for value in sorted(set(values), reverse=True):
            space = phi[:, values == value]
            size = min(space.shape[1], k - sum(b.shape[1] for b in basis))
            basis.append(space @ np.linalg.qr(rng.standard_normal((space.shape[1], size)))[0])
        Z = np.concatenate(basis, axis=1)
        Z = np.column_stack([Z, np.ones(16)]) if intercept else Z
        found.append(1.0 - np.mean((y - Z @ np.linalg.lstsq(Z, y, rcond=1e-9)[0]) ** 2))
    expected = expected_r2(class_spectrum(dim, content, factor, *degree), label_energy(content, label), k, intercept)
    assert expected == pytest.approx(np.mean(found), abs=5 * np.std(found) / math.sqrt(1500) + 1e-12)


def test_published_shares():
    bits, free = label_energy(3, "bits"), class_spectrum(8, 3, flip_factor(0.0, 0.0), 0, 8)
    for k, r2 in ((3, 0.0118), (8, 0.0314), (32, 0.1255), (128, 0.5020), (256, 1.0)):
        assert expected_r2(free, bits, k) == pytest.approx(r2, abs=5e-5)
        assert expected_r2(free, bits, k, False) == pytest.approx(k / 256)
    linear = class_spectrum(8, 3, rescale_factor(0.0, 1.0), 1, 1)
    assert [expected_r2(linear, bits, k) for k in (1, 2, 3, 5)] == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0])
