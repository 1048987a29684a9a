"""The linear probe against least squares and counting, and angles between subspaces."""

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from sims.graphs import generators, probe, spectrum


def rng(seed=0):
    return np.random.Generator(np.random.Philox(seed))


GRAPH = generators.sparse_random(np.random.default_rng(4))


def naive_probe(f, graph):
    """Weighted least squares on one-hot labels by rows, no intercept."""
    y = (graph.label[:, None] == np.arange(graph.classes)).astype(float)
    root = np.sqrt(graph.w)[:, None]
    theta = np.linalg.lstsq(root * f, root * y, rcond=None)[0]
    out = f @ theta
    return float(graph.w @ ((y - out) ** 2).sum(axis=1)), out


@pytest.mark.parametrize("k", [1, 2, 5, 12])
def test_the_probe_is_weighted_least_squares(k):
    f = rng(k).standard_normal((GRAPH.nodes, k))
    F = np.sqrt(GRAPH.w)[:, None] * f
    mse, out = naive_probe(f, GRAPH)
    found, fitted = probe.fit(F, GRAPH.label, GRAPH.classes, GRAPH.w)
    assert found == pytest.approx(mse, abs=1e-12)
    np.testing.assert_allclose(fitted / np.sqrt(GRAPH.w)[:, None], out, atol=1e-9)
    wrong = GRAPH.w[out.argmax(axis=1) != GRAPH.label].sum()
    assert probe.error(F, GRAPH.label, GRAPH.classes, GRAPH.w) == pytest.approx((mse, wrong), abs=1e-12)


def test_the_probe_does_not_see_a_change_of_basis_or_a_repeated_feature():
    F = rng(3).standard_normal((GRAPH.nodes, 4))
    expected = probe.error(F, GRAPH.label, GRAPH.classes, GRAPH.w)
    turn = rng(4).standard_normal((4, 4))
    assert probe.error(F @ turn, GRAPH.label, GRAPH.classes, GRAPH.w) == pytest.approx(expected, abs=1e-10)
    doubled = np.hstack([F, F[:, :1], np.zeros((GRAPH.nodes, 1))])
    assert probe.error(doubled, GRAPH.label, GRAPH.classes, GRAPH.w) == pytest.approx(expected, abs=1e-10)


def test_features_of_zero_know_only_the_first_class():
    mse, wrong = probe.error(np.zeros((GRAPH.nodes, 3)), GRAPH.label, GRAPH.classes, GRAPH.w)
    assert mse == pytest.approx(1.0) and wrong == pytest.approx(GRAPH.w[GRAPH.label != 0].sum())


def test_nested_probes_are_the_probes_of_the_first_vectors():
    pairs = spectrum.dense(GRAPH, 9)
    mse, wrong = probe.nested(pairs.vectors, GRAPH.label, GRAPH.classes, GRAPH.w)
    for k in range(1, 10):
        expected = probe.error(pairs.vectors[:, :k], GRAPH.label, GRAPH.classes, GRAPH.w)
        assert (mse[k - 1], wrong[k - 1]) == pytest.approx(expected, abs=1e-12)


def test_the_vote_counts_the_views_of_each_natural_example():
    F = spectrum.dense(GRAPH, 2).vectors
    f = F / np.sqrt(GRAPH.w)[:, None]
    chosen = naive_probe(f, GRAPH)[1].argmax(axis=1)
    aug = GRAPH.kernel.toarray()
    wrong = 0.0
    for n, row in enumerate(aug):
        votes = [row[chosen == c].sum() for c in range(GRAPH.classes)]
        wrong += GRAPH.p_nat[n] * (int(np.argmax(votes)) != GRAPH.nat_label[n])
    found = probe.vote_error(
        F, GRAPH.label, GRAPH.classes, GRAPH.w, GRAPH.kernel, GRAPH.p_nat, GRAPH.nat_label
    )  # fmt: skip
    assert found == pytest.approx(wrong, abs=1e-14) and 0 < wrong < 1


def test_the_tangent_is_that_of_the_largest_principal_angle():
    V = np.linalg.qr(rng(5).standard_normal((40, 4)))[0]
    F = V @ rng(6).standard_normal((4, 4)) + 0.3 * rng(7).standard_normal((40, 4))
    assert probe.subspace_tangent(F, V) == pytest.approx(np.tan(subspace_angles(F, V)[0]), rel=1e-10)
    assert probe.subspace_tangent(V @ rng(8).standard_normal((4, 4)), V) < 1e-12
    tiny = V + 1e-9 * rng(9).standard_normal((40, 4))
    assert 1e-10 < probe.subspace_tangent(tiny, V) < 1e-8, "small angles are not lost in rounding"


def test_a_missing_direction_is_infinitely_far_and_nan_stays_nan():
    V = np.eye(6)[:, :2]
    assert probe.subspace_tangent(np.eye(6)[:, [0, 3]], V) == np.inf
    assert probe.subspace_tangent(np.eye(6)[:, [0, 0]], V) == np.inf
    assert np.isnan(probe.subspace_tangent(np.full((6, 2), np.nan), V))


def test_procrustes_finds_the_rotation_that_was_applied():
    F = rng(10).standard_normal((30, 3))
    turn = np.linalg.qr(rng(11).standard_normal((3, 3)))[0]
    np.testing.assert_allclose(probe.aligned(F @ turn, F), F, atol=1e-12)
    off = probe.aligned(F @ turn + 0.01 * rng(12).standard_normal((30, 3)), F)
    assert np.linalg.norm(off - F) < 0.2
