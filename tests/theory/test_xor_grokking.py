"""The closed forms for XOR clusters against the numbers they must give, and against brute force."""

import math
from itertools import pairwise, product

import numpy as np
import pytest
from scipy.special import ndtr

from theory import xor_grokking as theory


def clusters(n, p, signal, flip, rng):
    """An iid data set in R^p: points, labels."""
    mu = theory.mean_norm(signal, p)
    c, s = rng.integers(0, 2, n), 2.0 * rng.integers(0, 2, n) - 1.0
    X = rng.standard_normal((n, p))
    X[np.arange(n), c] += s * mu
    y = (1.0 - 2.0 * c) * np.where(rng.random(n) < flip, -1.0, 1.0)
    return X, y


def step_one(K, cross, y, m, runs, rng, balanced):
    """(runs, points) outputs after one step of size 1 from vanishing starts, by simulation."""
    n = len(y)
    L = np.linalg.cholesky(K)
    out = np.empty((runs, cross.shape[1]))
    for run in range(runs):
        fires = (rng.standard_normal((m, n)) @ L.T) > 0
        sign = np.where(np.arange(m) % 2, -1.0, 1.0) if balanced else 2.0 * rng.integers(0, 2, m) - 1.0
        moved = sign[:, None] * ((fires * y) @ cross) / (2.0 * n * math.sqrt(m))
        out[run] = sign @ np.maximum(moved, 0.0) / math.sqrt(m)
    return out


@pytest.fixture(scope="module")
def one_data_set():
    rng = np.random.default_rng(1)
    X, y = clusters(50, 2000, 2.0, 0.15, rng)
    fresh, _ = clusters(40, 2000, 2.0, 0.0, rng)
    return X @ X.T, X @ np.concatenate([X, fresh]).T, y


def test_step_one_moments_with_iid_signs(one_data_set):
    """4000 starts of one data set, seed 2, 90 correlated points.

    z of the mean: rms between .5 and 1.5, largest 4.5; variance: mean ratio within 2 %, each within 12 % (its
    standard error is 2.3 %).
    """
    K, cross, y = one_data_set
    f = step_one(K, cross, y, 64, 4000, np.random.default_rng(2), balanced=False)
    z = (f.mean(0) - theory.step_one_mean(cross, y, 1.0)) / (f.std(0, ddof=1) / math.sqrt(len(f)))
    assert 0.5 < math.sqrt(np.mean(z**2)) < 1.5 and np.max(np.abs(z)) < 4.5
    ratio = f.var(0, ddof=1) / theory.step_one_variance(cross, y, K, 64, 1.0, balanced=False)
    assert abs(ratio.mean() - 1.0) < 0.02 and np.all(np.abs(ratio - 1.0) < 0.12)


def test_balanced_signs_halve_the_variance(one_data_set):
    """2000 starts, seed 3: same mean; the Gaussian formula within 15 %, the iid one about twice too large."""
    K, cross, y = one_data_set
    f = step_one(K, cross, y, 64, 2000, np.random.default_rng(3), balanced=True)
    z = (f.mean(0) - theory.step_one_mean(cross, y, 1.0)) / (f.std(0, ddof=1) / math.sqrt(len(f)))
    assert math.sqrt(np.mean(z**2)) < 1.6
    ratio = f.var(0, ddof=1) / theory.step_one_variance(cross, y, K, 64, 1.0, balanced=True)
    assert abs(ratio.mean() - 1.0) < 0.08 and np.all(np.abs(ratio - 1.0) < 0.25)
    iid = f.var(0, ddof=1) / theory.step_one_variance(cross, y, K, 64, 1.0, balanced=False)
    assert 0.45 < iid.mean() < 0.68


def test_orthogonal_points_leave_only_the_count_of_neurons():
    """K = p I: with iid signs the margin over its deviation is sqrt(m/3), for every point."""
    K, y = 1e6 * np.eye(8), np.tile([1.0, -1.0], 4)
    found = theory.conditional_step_one_train_accuracy(K, y, 10, balanced=False)
    assert found == pytest.approx(ndtr(math.sqrt(10 / 3)), rel=1e-12)
    assert found == pytest.approx(0.966, abs=5e-4)
    assert theory.step_one_train_accuracy(8, 10**15, 10, 0.0, 0.0, "iid") == pytest.approx(found, abs=1e-9)


@pytest.mark.parametrize(
    ("p", "signal", "share"), [(200, 4, 0.721), (500, 4, 0.805), (1000, 4, 0.877), (200, 0.5, 0.907)]
)
def test_step_one_train_accuracy_iid(p, signal, share):
    assert theory.step_one_train_accuracy(100, p, 200, signal, 0.1, "iid") == pytest.approx(share, abs=6e-4)


@pytest.mark.parametrize(
    ("n", "m", "p", "signal", "share", "as_iid"),
    [(200, 100, 500, 1, 0.936, 0.900), (200, 100, 1000, 8, 0.856, 0.685), (400, 100, 2000, 8, 0.804, 0.676),
     (100, 200, 200, 4, 0.903, 0.721)],
)  # fmt: skip
def test_step_one_train_accuracy_stratified(n, m, p, signal, share, as_iid):
    noise = 4 * round(0.1 * n / 4) / n
    assert theory.step_one_train_accuracy(n, p, m, signal, noise, "stratified") == pytest.approx(share, abs=3e-3)
    assert theory.step_one_train_accuracy(n, p, m, signal, noise, "iid") == pytest.approx(as_iid, abs=6e-4)


def test_linear_classifiers_are_right_on_half_of_xor():
    found = theory.linear_cluster_accuracies(np.array([0.78, 1.155]))
    assert found == pytest.approx([0.782, 0.218, 0.124, 0.876], abs=5e-4)
    for b in product([-40.0, -1.0, 0.0, 0.3, 40.0], repeat=2):
        assert np.mean(theory.linear_cluster_accuracies(np.array(b))) == pytest.approx(0.5, abs=1e-15)


def test_cluster_accuracies_of_a_classifier_by_sampling():
    """The offsets of v = sum y_i x_i on 40,000 fresh points a cluster, seed 5: standard error at most .0025."""
    rng = np.random.default_rng(4)
    X, y = clusters(60, 300, 2.0, 0.15, rng)
    mu = theory.mean_norm(2.0, 300)
    v = y @ X
    b = theory.linear_offsets(v[:2], v @ v, mu)
    noise = np.random.default_rng(5).standard_normal((4, 40_000)) * np.linalg.norm(v)
    centre = mu * np.array([v[0], -v[0], v[1], -v[1]])[:, None]
    measured = np.mean((centre + noise) * np.array([1, 1, -1, -1])[:, None] > 0, axis=1)
    assert measured == pytest.approx(theory.linear_cluster_accuracies(b), abs=0.01)


@pytest.mark.parametrize(("p", "signal", "sd"), [(10**6, 0.5, 0.3543), (10**6, 2, 1.4149), (10**8, 5, 3.5356)])
def test_spread_of_the_offsets(p, signal, sd):
    assert math.sqrt(theory.offset_variance(signal, p, "iid")) == pytest.approx(sd, rel=2e-3)
    assert math.sqrt(theory.offset_variance(signal, p, "stratified")) < 0.05


def test_spread_where_the_means_are_long():
    assert theory.offset_variance(4, 200, "iid") == pytest.approx(2.54**2, rel=5e-3)


@pytest.mark.parametrize(("n", "noise", "cosine"), [(100, 0.0, 0.0289), (200, 0.1, 0.0361)])
def test_alignment_plateau(n, noise, cosine):
    assert theory.alignment_plateau(n, 20, 10**10, noise) == pytest.approx(cosine, abs=6e-5)


def test_equal_clusters_survive_and_outnumbered_ones_do_not():
    equal = np.array([[[45, 5], [45, 5]], [[5, 45], [5, 45]]])
    assert np.all(theory.clusters_survive(equal))
    # +mu1 has so few clean points that its mirror image takes the neurons, and it has all the flips.
    unequal = equal.copy()
    unequal[0] = [[15, 8], [45, 0]]
    margins = theory.cluster_margins(unequal)
    assert margins[0] < 0 < margins[1] and list(theory.clusters_survive(unequal)) == [False, True, True, True]
    assert margins[1] == pytest.approx(ndtr(38 / math.sqrt(68)) * (45 - 15 / 2))
    # the same counts with the classes exchanged move the failure to +mu2
    exchanged = unequal[::-1, :, ::-1]
    assert list(theory.clusters_survive(exchanged)) == [True, True, False, True]
    assert not np.any(theory.clusters_survive(np.zeros((2, 2, 2), dtype=int))), "no points, no neurons"


def test_fit_returns_its_table():
    for (i, n), (k, signal) in product(enumerate(theory.FIT_N), enumerate(theory.FIT_SIGNAL)):
        expected = theory.FIT_QUANTILE[i][k] * math.sqrt(n)
        assert theory.fitted_quantile(n, signal) == pytest.approx(expected, rel=1e-9, nan_ok=True)


@pytest.mark.parametrize(("signal", "n", "error"), [(1.4, 40, 0.294), (1.4, 80, 0.228), (1.4, 160, 0.145),
                                                    (2, 40, 0.169), (2, 80, 0.097), (2, 160, 0.040),
                                                    (0.5, 640, 0.375), (0.7, 640, 0.245),
                                                    (2.8, 40, 0.065)])  # fmt: skip
def test_fit_at_measured_errors(signal, n, error):
    assert theory.late_test_error(n, signal) == pytest.approx(error, abs=0.02)


@pytest.mark.parametrize(("n", "signal"), [(39, 1), (641, 1), (100, 0.49), (100, 4.01), (200, 4), (400, 2.8), (200, 3)])
def test_fit_is_silent_outside_its_table(n, signal):
    assert math.isnan(theory.fitted_quantile(n, signal)) and math.isnan(theory.late_test_error(n, signal))
    assert math.isfinite(theory.nearest_quantile(n, signal))


def test_rule_of_thumb_is_right_where_it_is_claimed():
    for n, signal in product((40, 80, 160, 320, 640), (1.0, 1.4)):
        assert theory.rule_of_thumb(n, signal) == pytest.approx(theory.late_test_error(n, signal), abs=0.02)
    assert theory.rule_of_thumb(640, 0.5) - theory.late_test_error(640, 0.5) > 0.02, "no constant c for weak signals"


@pytest.mark.parametrize(("signal", "n", "error"), [(1, 40, 0.317), (2, 40, 0.132), (2, 160, 0.0111), (4, 40, 0.0110),
                                                    (4, 80, 0.0006)])  # fmt: skip
def test_strong_signal_limit(signal, n, error):
    """Within the rounding of the published digits."""
    assert theory.strong_signal_error(n, signal, 0.1) == pytest.approx(error, abs=10.0 ** -(4 if error < 0.1 else 3))


@pytest.mark.parametrize(("n", "signal", "noise"), [(40, 1.0, 0.1), (160, 2.0, 0.1), (40, 4.0, 0.0), (100, 0.5, 0.2),
                                                    (8, 0.1, 0.45), (40, 2.0, 0.4), (10, 1.0, 0.45)])  # fmt: skip
def test_the_strong_signal_limit_is_that_of_drawn_outputs(n, signal, noise):
    """1,000,000 draws, seed 6: within four standard errors, at most .002."""
    wrong = theory.strong_signal_outputs(n, signal, noise, 1_000_000, np.random.default_rng(6)) < 0.0
    error = math.sqrt(np.mean(wrong) * np.mean(~wrong) / len(wrong))
    assert theory.strong_signal_error(n, signal, noise) == pytest.approx(np.mean(wrong), abs=4 * error)


def test_the_strong_signal_limit_depends_on_the_signal_times_the_root_of_n():
    """Far in the tail, where no draws would tell, it still falls; at a signal of 1000 nothing is left."""
    assert theory.strong_signal_error(160, 2.0, 0.1) == pytest.approx(
        theory.strong_signal_error(40, 4.0, 0.1), rel=1e-9
    )
    errors = [theory.strong_signal_error(n, 4.0, 0.1) for n in (40, 80, 160, 320, 640)]
    assert all(after < before**1.5 for before, after in pairwise(errors)) and errors[-1] > 0.0
    assert theory.strong_signal_error(10_000, 1000.0, 0.1) == 0.0


def test_strong_signal_quantile():
    """mean/sd of the output is about .129 sig sqrt(n) - .57 (seed 7, 400,000 draws, within .2)."""
    for n, signal in product((40, 160), (2, 4)):
        F = theory.strong_signal_outputs(n, signal, 0.1, 400_000, np.random.default_rng(7))
        assert F.mean() / F.std() == pytest.approx(0.129 * signal * math.sqrt(n) - 0.57, abs=0.2)


def test_dimension_of_a_regime():
    for r in (0.1, 1.0):
        p = theory.dim_at(100, 2.0, r)
        assert theory.regime(100, 2.0, int(p)) == pytest.approx(r, rel=1e-6)


@pytest.mark.parametrize(
    ("n", "signal", "p", "name"),
    [(200, 4, 10**9, "benign"), (200, 0.5, 10**9, "catastrophic"), (160, 1.4, 10**9, "in between"),
     (200, 4, 300, "not memorised in one step"), (400, 4, 60, "classical")],
)  # fmt: skip
def test_zones(n, signal, p, name):
    # 0.99 after one step needs m well above 3*2.33^2 = 16
    assert theory.zone(n, signal, p, 100, 0.1) == name


def test_zones_change_once_along_each_axis():
    """At fixed n mu^2/p, more signal or more points never makes the late quantile smaller."""
    signals, sizes = np.geomspace(0.3, 8, 40), np.geomspace(20, 1000, 30)
    z = np.array([[theory.nearest_quantile(n, s) for s in signals] for n in sizes])
    assert np.all(np.diff(z, axis=1) > 0) and np.all(np.diff(z, axis=0) > 0)
