"""What follows from a spectrum, against dense graphs, random bases and a Runge-Kutta integration."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq

from theory.augmentation_graph import (
    aligned_mode_mass,
    constant_probe,
    error_bound_is_vacuous,
    factor_loss,
    gradient_flow,
    gradient_flow_gram,
    haar_argmax_error,
    half_time,
    min_loss,
    mode_masses,
    mse_bound_is_vacuous,
    natural_error_bound,
    node_error_bound,
    partition_cost_bound,
    probe_mse,
    probe_mse_bound,
    ring_argmax_error,
    scaled_minimiser_loss,
    subspace_tangent,
    subspace_tangent_bound,
    table_rate_limit,
    table_time,
)
from theory.graphs import (
    arc_partition_cost,
    block_eigenvalues,
    gaussian,
    glyph_manifold,
    hypercube,
    majority_truth,
    nested_blocks,
    parity_truth,
    ring_kernel,
    unequal_blocks,
    window_kernel,
    window_ring,
)

CUBE = np.array([0.02, 0.05, 0.05, 0.1, 0.2, 0.25, 0.3, 0.35])
BLOCKS = nested_blocks(4, 3, 25, 0.10, 0.04)
GLYPHS = ((1,) * 6, ring_kernel(8, (0.5, 0.25, 0.25)), ring_kernel(5, (0.6, 0.2, 0.2)), 3)


def normalised(aug, p_nat):
    W = aug.T @ (p_nat[:, None] * aug)
    w = W.sum(1)
    return W, w, W / np.sqrt(np.outer(w, w))


def blocks_graph(C, s, m, a1, a2):
    K = C * s
    same, class_ = np.eye(K, dtype=bool), np.arange(K) // s
    T = np.where(same, 1 - a1 - a2, np.where(class_[:, None] == class_, a1 / (s - 1), a2 / ((C - 1) * s)))
    aug = np.repeat(T / m, m, axis=1)
    return normalised(aug, np.full(K, 1 / K)), np.repeat(class_, m)


def descending(Abar):
    values, vectors = np.linalg.eigh(Abar)
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]


def population_loss(f, W, w):
    """Both expectations of the loss, pair by pair of nodes."""
    inner = f @ f.T
    return -2 * np.sum(W * inner) + np.sum(np.outer(w, w) * inner**2)


def probe_error(F, one_hot):
    """Weighted least squares on one-hot labels without intercept, all nodes."""
    weights = np.linalg.lstsq(F, one_hot, rcond=1e-9)[0]
    return float(np.sum((one_hot - F @ weights) ** 2))


# -- the loss ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 4, 12])
def test_the_loss_is_a_matrix_factorisation(k):
    (W, w, Abar), _ = blocks_graph(4, 3, 25, 0.10, 0.04)
    values, vectors = descending(Abar)
    f = np.random.default_rng(k).standard_normal((300, k))
    F = np.sqrt(w)[:, None] * f
    loss = population_loss(f, W, w)
    assert loss == pytest.approx(np.sum((Abar - F @ F.T) ** 2) - np.sum(Abar**2), rel=1e-12)
    assert np.sum(Abar**2) == pytest.approx(np.sum(BLOCKS.top(300) ** 2), abs=1e-10)
    assert factor_loss(values, vectors.T @ F) == pytest.approx(loss, rel=1e-10)


def test_least_loss_and_its_minimisers():
    (W, w, Abar), _ = blocks_graph(4, 3, 25, 0.10, 0.04)
    values, vectors = descending(Abar)
    expected = [-1, -1.803135, -2.606269, -3.409404, -3.839871, -5.131273, -6.853142]
    rng = np.random.default_rng(0)
    for k, published in zip((1, 2, 3, 4, 5, 8, 12), expected, strict=True):
        least = min_loss(BLOCKS, k)
        assert least == pytest.approx(published, abs=5e-7)
        rotation = np.linalg.qr(rng.standard_normal((k, k)))[0]
        f = vectors[:, :k] * np.sqrt(values[:k]) @ rotation / np.sqrt(w)[:, None]
        assert population_loss(f, W, w) == pytest.approx(least, abs=1e-10)
        for scale in (0.5, 0.9, 1.2):
            scaled = scaled_minimiser_loss(BLOCKS, k, scale)
            assert population_loss(scale * f, W, w) == pytest.approx(scaled, abs=1e-10) and scaled > least
    assert min_loss(BLOCKS, 20) == min_loss(BLOCKS, 12)


def test_losses_of_the_cube():
    cube = hypercube(np.array([0.02, 0.05, 0.05, 0.1, 0.25, 0.3, 0.35, 0.4]), (0,), parity_truth(1), 7)
    assert scaled_minimiser_loss(cube, 6, 0.5) == pytest.approx(-1.870776, abs=1e-6)
    assert min_loss(cube, 6) == pytest.approx(-4.276059, abs=1e-6)


# -- the probe -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (BLOCKS, {1: 0.75, 2: 0.5, 3: 0.25, 4: 0, 5: 0, 12: 0, 20: 0, 300: 0}),
        (nested_blocks(4, 3, 25, 0.005, 0.10), {k: 0.75 for k in range(1, 10)} | {10: 0.5, 11: 0.25, 12: 0.0}),
        (
            window_ring(240, 4, 6),
            {1: 0.833333, 3: 0.529352, 5: 0.301328, 7: 0.166163, 9: 0.109118, 11: 0.096942, 13: 0.096942, 15: 0.090721},
        ),
        (hypercube(CUBE, (0,), parity_truth(1), 20), {1: 0.5} | {k: 0.0 for k in range(2, 10)}),
        (glyph_manifold(*GLYPHS, 0.06, 0.3), {k: 1 - k / 6 for k in range(1, 7)}),
        (glyph_manifold(*GLYPHS, 0.06, 0.3, "colour"), {k: 2 / 3 for k in range(1, 55)} | {55: 1 / 3, 56: 0.0}),
    ],
)
def test_published_probe_errors(graph, expected):
    for k, published in expected.items():
        found = probe_mse(graph, k)
        assert found.value == pytest.approx(published, abs=6e-7) and found.reason == ""
        assert found.value <= probe_mse_bound(graph, k) + 1e-12


@pytest.mark.parametrize(("a1", "a2"), [(0.10, 0.04), (0.005, 0.10), (0.3, 0.6)])
def test_probe_error_of_blocks_in_any_basis(a1, a2):
    """Solvers may return any basis of a tied eigenspace, and the features any rotation of the minimiser."""
    (_, w, Abar), labels = blocks_graph(4, 3, 5, a1, a2)
    spectrum = nested_blocks(4, 3, 5, a1, a2)
    values, vectors = descending(Abar)
    one_hot = np.sqrt(w)[:, None] * (labels[:, None] == np.arange(4))
    rng = np.random.default_rng(3)
    edges = np.cumsum(spectrum.multiplicities)[:-1]
    for k in range(1, 13):
        spun = [
            part @ np.linalg.qr(rng.standard_normal((part.shape[1],) * 2))[0] for part in np.split(vectors, edges, 1)
        ]
        F = np.hstack(spun)[:, :k] * np.sqrt(values[:k]) @ np.linalg.qr(rng.standard_normal((k, k)))[0]
        assert probe_error(F, one_hot) == pytest.approx(probe_mse(spectrum, k).value, abs=1e-10)


def test_a_cut_through_unequal_directions_has_no_one_error():
    """6 arcs: frequency 3 splits into a wave that follows the labels and one that ignores them."""
    spectrum = window_ring(240, 4, 6)
    found = probe_mse(spectrum, 6)
    assert found.value is None and "keeps 1" in found.reason and "0.9" in found.reason
    assert (found.low, found.high) == pytest.approx((probe_mse(spectrum, 7).value, probe_mse(spectrum, 5).value))
    labels, x = np.arange(240) // 40, 2 * np.pi * np.arange(240) / 240
    one_hot = (labels[:, None] == np.arange(6)) / math.sqrt(240)
    kept = np.column_stack([np.ones(240), *(wave(j * x) for j in (1, 2) for wave in (np.cos, np.sin))])
    errors = [
        probe_error(np.column_stack([kept, np.cos(3 * x + turn)]), one_hot) for turn in np.linspace(0, np.pi, 241)
    ]
    assert min(errors) == pytest.approx(found.low, abs=1e-4) and max(errors) == pytest.approx(found.high, abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_the_range_of_a_cut_is_the_range_over_bases(seed):
    """A coarse graph with ties: every random basis lies between low and high, whole eigenspaces are exact."""
    rng = np.random.default_rng(seed)
    flip = np.array([0.1, 0.1, 0.1, 0.3])
    spectrum = hypercube(flip, (0, 1, 2), majority_truth(3), 16)
    points = np.array(np.meshgrid(*[[1, -1]] * 4, indexing="ij")).reshape(4, -1).T
    truth = np.where(points[:, :3].sum(1) > 0, 1, -1)
    one_hot = np.column_stack([truth > 0, truth < 0]) / 4.0
    aug = np.prod(np.where(points[:, None] != points[None], flip, 1 - flip), axis=2)
    vectors = descending(normalised(aug, np.full(16, 1 / 16))[2])[1]
    edges = np.cumsum(spectrum.multiplicities)[:-1]
    for k in range(1, 17):
        spun = [
            part @ np.linalg.qr(rng.standard_normal((part.shape[1],) * 2))[0] for part in np.split(vectors, edges, 1)
        ]
        error, found = probe_error(np.hstack(spun)[:, :k], one_hot), probe_mse(spectrum, k)
        assert found.low - 1e-10 <= error <= found.high + 1e-10
        assert (found.value is None) == (found.high - found.low > 1e-9)
        if not spectrum.degenerate_cut(k):
            assert found.value == pytest.approx(error, abs=1e-10)
    assert probe_mse(spectrum, 2).value is None


def test_probe_error_refuses_what_is_not_known():
    part = gaussian(np.array([1.5]), np.array([0.8]), 5)
    assert probe_mse(part, 5).value == pytest.approx(0.5 - 0.5 * (2 / np.pi) * (1 + 1 / 6), abs=1e-12)
    with pytest.raises(ValueError, match="listed"):
        probe_mse(part, 6)
    with pytest.raises(ValueError, match="at least 1"):
        probe_mse(part, 0)


# -- the bounds ----------------------------------------------------------------------------------------------------


def test_published_bounds():
    for k, bound in ((1, 0.75), (4, 0.2264), (12, 0.0779)):
        assert probe_mse_bound(BLOCKS, k) == pytest.approx(bound, abs=5e-5)
    cube = hypercube(CUBE, (0,), parity_truth(1), 3)
    assert probe_mse_bound(cube, 1) == pytest.approx(0.5, abs=1e-12) == probe_mse(cube, 1).value
    assert probe_mse_bound(BLOCKS, 1) == pytest.approx(probe_mse(BLOCKS, 1).value, abs=1e-12)
    closed = nested_blocks(4, 3, 5, 0.1, 0.0)
    assert closed.phi == 0.0 and probe_mse_bound(closed, 4) == 0.0 == probe_mse(closed, 4).value


@pytest.mark.parametrize("flip", [0.3, 0.05, 0.1])
def test_the_bound_is_attained_where_the_label_is_the_next_eigenvector(flip):
    q = np.array([0.02, flip, 0.2])
    for support in ((0,), (1,), (0, 1), (0, 1, 2)):
        spectrum = hypercube(q, support, parity_truth(len(support)), 8)
        own = float(np.prod((1 - 2 * q[list(support)]) ** 2))
        k = int(np.sum(spectrum.top(8) > own + 1e-9))
        assert probe_mse(spectrum, k).value == pytest.approx(probe_mse_bound(spectrum, k), abs=1e-12)


def test_when_the_bounds_turn_vacuous():
    """Sub-clusters leak a1 = 0.1, k = 4, classes leak more and more: no better than the constant, not above 1."""

    def at(a2):
        spectrum = nested_blocks(4, 3, 25, 0.1, a2)
        return probe_mse_bound(spectrum, 4), spectrum.class_probabilities

    assert brentq(lambda a2: 2 * at(a2)[0] - 0.75, 0.01, 0.4) == pytest.approx(0.0810, abs=5e-5)
    assert brentq(lambda a2: 2 * at(a2)[0] - 1.0, 0.01, 0.4) == pytest.approx(0.1336, abs=5e-5)
    assert not error_bound_is_vacuous(*at(0.0809)) and error_bound_is_vacuous(*at(0.0811))
    assert constant_probe(at(0.2)[1]) == pytest.approx((0.75, 0.75))
    jump = brentq(lambda a2: float(np.subtract(*block_eigenvalues(4, 3, 0.1, a2))), 0.3, 0.6)
    assert jump == pytest.approx(0.45, abs=1e-9)
    before, after = nested_blocks(4, 3, 25, 0.1, 0.4499), nested_blocks(4, 3, 25, 0.1, 0.4501)
    assert probe_mse(before, 4).value == pytest.approx(0.0, abs=1e-12) and probe_mse(after, 4).value == 0.75
    assert not mse_bound_is_vacuous(*at(0.4499)) and mse_bound_is_vacuous(*at(0.4501))
    assert at(0.45)[0] == pytest.approx(0.75, abs=1e-9)
    assert max(at(a2)[0] for a2 in np.linspace(0, 0.75, 301)) < 0.8, "a bound above 1 never comes"
    assert constant_probe(np.array([0.7, 0.2, 0.1])) == pytest.approx((0.46, 0.3))


def random_graph(rng):
    """15 naturals, 5 a class, each with 3 to 8 of 40 nodes; a node's label is the class of its largest joint mass."""
    p_nat, natural_labels = rng.dirichlet(np.full(15, 3.0)), np.repeat(np.arange(3), 5)
    aug = np.zeros((15, 40))
    for row in aug:
        nodes = rng.choice(40, rng.integers(3, 9), replace=False)
        row[nodes] = rng.dirichlet(np.ones(len(nodes)))
    aug = aug[:, aug.sum(0) > 0]
    joint = np.array([(p_nat[:, None] * aug)[natural_labels == c].sum(0) for c in range(3)])
    return aug, p_nat, natural_labels, np.argmax(joint, axis=0)


def test_the_chain_of_bounds_on_random_graphs():
    """200 graphs, k = 1..14, three inequalities: 8400 checks. Seed 0."""
    rng = np.random.default_rng(0)
    checks, ratios = 0, []
    for _ in range(200):
        aug, p_nat, natural_labels, labels = random_graph(rng)
        W, w, Abar = normalised(aug, p_nat)
        vectors = descending(Abar)[1]
        phi = W[labels[:, None] != labels].sum()
        alpha = (p_nat[:, None] * aug)[natural_labels[:, None] != labels].sum()
        assert phi <= 2 * alpha
        one_hot = np.sqrt(w)[:, None] * (labels[:, None] == np.arange(3))
        single = unequal_blocks(p_nat, aug, np.ones(len(w), dtype=int), labels, natural_labels)
        assert (single.phi, single.alpha) == pytest.approx((phi, alpha), abs=1e-12)
        for k in range(1, 15):
            kept = vectors[:, :k]
            fitted = kept @ (kept.T @ one_hot)
            mse = float(np.sum((one_hot - fitted) ** 2))
            guess = np.argmax(fitted, axis=1)
            node_error = float(w[guess != labels].sum())
            votes = aug @ (guess[:, None] == np.arange(3))
            natural_error = float(p_nat[np.argmax(votes, axis=1) != natural_labels].sum())
            exact = probe_mse(single, k)  # a graph in pieces has eigenvalue 1 more than once
            assert exact.low - 1e-9 <= mse <= exact.high + 1e-9
            bound = probe_mse_bound(single, k)
            assert mse <= bound + 1e-10
            assert node_error <= node_error_bound(mse) + 1e-10
            assert natural_error <= natural_error_bound(node_error, alpha) + 1e-10
            checks += 3
            ratios.append(mse / bound)
    assert checks == 8400
    assert np.mean(ratios) == pytest.approx(0.355, abs=0.015)  # other draws gave 0.354 and 0.356


def test_a_leak_bounds_the_crossings():
    for a1, a2 in ((0.1, 0.04), (0.005, 0.1), (0.3, 0.6)):
        found = nested_blocks(4, 3, 25, a1, a2)
        assert found.phi <= 2 * found.alpha
    for r in (1, 4, 20, 60):
        found = window_ring(240, r, 6)
        assert found.phi <= 2 * found.alpha + 1e-12


@pytest.mark.parametrize("n", [12, 240])
def test_cheegers_easy_side_on_rings(n):
    r = {12: 1, 240: 4}[n]
    spectrum = window_ring(n, r, 1)
    for m in (2, 3, 4, 6):
        cost = arc_partition_cost(window_kernel(n, r), m)
        assert partition_cost_bound(spectrum, m) <= cost + 1e-12
    assert partition_cost_bound(BLOCKS, 4) == pytest.approx((1 - 0.8961778) / 2, abs=1e-7)


@pytest.mark.parametrize("seed", range(6))
def test_cheegers_easy_side_by_brute_force(seed):
    """Random graphs of 8 nodes: every partition into m parts costs at least (1 - lam_m)/2."""
    rng = np.random.default_rng(seed)
    aug = rng.dirichlet(np.full(8, 0.3), 6)
    p_nat = rng.dirichlet(np.ones(6))
    W, w, _ = normalised(aug, p_nat)
    spectrum = unequal_blocks(p_nat, aug, np.ones(8, dtype=int), np.zeros(8, dtype=int), np.zeros(6, dtype=int))
    codes = np.array(np.meshgrid(*[range(3)] * 7, indexing="ij")).reshape(7, -1)
    assignments = np.vstack([np.zeros(codes.shape[1], dtype=int), codes])
    for m in (2, 3):
        parts = [(assignments == part).astype(float) for part in range(m)]
        proper = (assignments < m).all(0) & np.all([part.any(0) for part in parts], axis=0)
        cost = [1 - np.sum(part[:, proper] * (W @ part[:, proper]), axis=0) / (w @ part[:, proper]) for part in parts]
        rho = np.min(np.max(cost, axis=0))
        assert partition_cost_bound(spectrum, m) <= rho + 1e-12


# -- the 0-1 error -------------------------------------------------------------------------------------------------


def test_the_cliff_is_in_the_squared_error_not_in_the_argmax():
    """10 classes, 4000 draws a point, seed 1: standard errors below 0.002, bound 0.03."""
    rng = np.random.default_rng(1)
    spectrum = nested_blocks(10, 2, 3, 0.2, 0.05)
    published = [0.90, 0.80, 0.55, 0.32, 0.16, 0.065, 0.022, 0.006, 0.000, 0.0]
    for k, expected in enumerate(published, 1):
        found, error = haar_argmax_error(10, k, 4000, rng)
        assert error < 0.002 and found == pytest.approx(expected, abs=0.03)
        assert found <= node_error_bound(probe_mse(spectrum, k).value) + 1e-12
        assert probe_mse(spectrum, k).value == pytest.approx(1 - k / 10, abs=1e-12)
    assert ring_argmax_error(240, 6, 0) == pytest.approx(5 / 6) and ring_argmax_error(240, 6, 1) == 0.0


@pytest.mark.parametrize("frequencies", [1, 2, 4])
def test_argmax_error_of_the_ring_by_projection(frequencies):
    n, C = 60, 12
    labels, x = np.arange(n) // 5, 2 * np.pi * np.arange(n) / n
    modes = np.column_stack(
        [np.ones(n), *(wave(j * x) for j in range(1, frequencies + 1) for wave in (np.cos, np.sin))]
    )
    modes /= np.linalg.norm(modes, axis=0)
    fitted = modes @ (modes.T @ (labels[:, None] == np.arange(C)))
    expected = np.mean(np.argmax(np.round(fitted, 10), axis=1) != labels)
    assert ring_argmax_error(n, C, frequencies) == pytest.approx(expected, abs=1e-12)


# -- dynamics ------------------------------------------------------------------------------------------------------


def gradient(Abar, F):
    return 4.0 * (Abar @ F - F @ (F.T @ F))


def runge_kutta(Abar, F, times, dt):
    """Classical fourth order, from 0 to each of the times."""
    now, path = 0.0, []
    for time in times:
        for _ in range(round((time - now) / dt)):
            a = gradient(Abar, F)
            b = gradient(Abar, F + dt / 2 * a)
            c = gradient(Abar, F + dt / 2 * b)
            F = F + dt / 6 * (a + 2 * b + 2 * c + gradient(Abar, F + dt * c))
        now = time
        path.append(F)
    return path


def euler(Abar, F, times, dt):
    now, path = 0, []
    for time in times:
        for _ in range(round(time / dt) - now):
            F = F + dt * gradient(Abar, F)
        now = round(time / dt)
        path.append(F)
    return path


SMALL = blocks_graph(4, 3, 5, 0.10, 0.04)[0][2]
TIMES = np.arange(1.0, 7.0)


def test_gradient_is_that_of_the_loss():
    (W, w, Abar), _ = blocks_graph(2, 2, 2, 0.1, 0.04)
    rng = np.random.default_rng(0)
    F, direction = rng.standard_normal((2, 8, 3))
    root = np.sqrt(w)[:, None]
    step = 1e-5
    slope = (
        population_loss((F + step * direction) / root, W, w) - population_loss((F - step * direction) / root, W, w)
    ) / (2 * step)
    assert slope == pytest.approx(-np.sum(gradient(Abar, F) * direction), rel=1e-7)


def test_the_flow_in_closed_form():
    F0 = 1e-3 * np.random.default_rng(0).standard_normal((60, 6))
    found = gradient_flow_gram(SMALL, F0, TIMES)
    for M, F in zip(found, runge_kutta(SMALL, F0, TIMES, 0.005), strict=True):
        assert np.abs(M - F @ F.T).max() < 1e-7
    values, vectors = descending(SMALL)
    for M, t in zip(found[:3], TIMES[:3], strict=True):
        E = vectors @ (np.exp(4 * values * t)[:, None] * (vectors.T @ F0))
        bracket = np.where(values > 1e-12, np.expm1(8 * values * t) / np.maximum(values, 1e-12), 8 * t)
        S = np.eye(6) + (vectors.T @ F0).T @ (bracket[:, None] * (vectors.T @ F0))
        np.testing.assert_allclose(M, E @ np.linalg.solve(S, E.T), atol=1e-10)


@pytest.mark.parametrize("size", [1e-6, 0.1, 0.7])
def test_the_flow_from_any_start_and_for_any_time(size):
    """Rank-deficient graphs, large starts, and times at which exp(8 t) is no double: it ends at a minimiser."""
    F0 = size * np.random.default_rng(4).standard_normal((60, 4))
    values, vectors = descending(SMALL)
    times = np.array([0.0, 0.01, 0.5, 0.5, 40.0, 3000.0])
    path = gradient_flow(values, vectors.T @ F0, times)
    np.testing.assert_allclose(path[0] @ path[0].T, vectors.T @ F0 @ F0.T @ vectors, atol=1e-12 * size**2)
    exact = runge_kutta(SMALL, F0, [0.01, 0.5], 0.0001)
    for F, G in zip(path[1:3], exact, strict=True):
        np.testing.assert_allclose(vectors @ F @ F.T @ vectors.T, G @ G.T, atol=1e-8 * max(size**2, 1e-4))
    assert (path[2] == path[3]).all() and np.isfinite(path).all()
    losses = factor_loss(values, path)
    assert (np.diff(losses) <= 1e-12).all()
    assert losses[-1] == pytest.approx(min_loss(nested_blocks(4, 3, 5, 0.1, 0.04), 4), abs=1e-10)
    np.testing.assert_allclose(mode_masses(path[-1])[:5], [1, 0.8961778, 0.8961778, 0.8961778, 0], atol=1e-6)
    with pytest.raises(ValueError, match="times"):
        gradient_flow(values, F0, np.array([1.0, 0.5]))
    with pytest.raises(ValueError, match="times"):
        gradient_flow(values, F0, np.array([-1.0]))


def test_several_starts_flow_as_each_alone():
    """Among them one that misses an eigenvector, one of rank one, and none at all: their staircases differ."""
    values, vectors = descending(SMALL)
    starts = 0.05 * np.random.default_rng(6).standard_normal((5, 60, 4))
    starts[1] -= np.outer(vectors[:, 0], vectors[:, 0] @ starts[1])
    starts[2] = np.outer(starts[2, :, 0], [1.0, 2.0, 0.0, -1.0])
    starts[3] = 0.0
    times = np.array([0.0, 0.3, 1.0, 6.0])
    together = gradient_flow(values, vectors.T @ starts, times)
    assert together.shape == (5, 4, 60, 4) and not together[3].any()
    for start, path in zip(starts, together, strict=True):
        alone = gradient_flow(values, vectors.T @ start, times)
        np.testing.assert_allclose(path @ np.swapaxes(path, 1, 2), alone @ np.swapaxes(alone, 1, 2), atol=1e-12)
        for F, G in zip(path[1:3], runge_kutta(SMALL, start, times[1:3], 0.002), strict=True):
            np.testing.assert_allclose(vectors @ F @ F.T @ vectors.T, G @ G.T, atol=1e-8)
    mass = mode_masses(together[1, -1])
    np.testing.assert_allclose(mass[:4], [0.0, *values[1:4]], atol=1e-3)
    assert mass[4:12].sum() == pytest.approx(values[4], abs=1e-3), "the fourth feature goes to the next level"
    found = subspace_tangent(values, vectors.T @ starts, times)
    np.testing.assert_allclose(found[0], subspace_tangent(values, vectors.T @ starts[0], times), rtol=1e-12)
    assert np.isposinf(found[1:4]).all() and np.isfinite(found[[0, 4]]).all()


def test_rows_of_one_eigenspace_may_be_compressed():
    F0 = 0.01 * np.random.default_rng(2).standard_normal((60, 4))
    values, vectors = descending(SMALL)
    A = vectors.T @ F0
    short = np.vstack([A[:12], np.linalg.qr(A[12:])[1]])
    few = np.concatenate([values[:12], np.zeros(4)])
    whole, less = gradient_flow(values, A, TIMES), gradient_flow(few, short, TIMES)
    np.testing.assert_allclose(mode_masses(whole)[:, :12], mode_masses(less)[:, :12], atol=1e-13)
    np.testing.assert_allclose(factor_loss(values, whole), factor_loss(few, less), atol=1e-12)
    np.testing.assert_allclose(subspace_tangent(values, A, TIMES), subspace_tangent(few, short, TIMES), rtol=1e-9)


def test_aligned_modes_grow_alone():
    lam = np.array([1.0, 0.8961778, 0.6561])
    half = half_time(lam, 1e-6)
    np.testing.assert_allclose(half, [1.7269, 1.9117, 2.5518], atol=5e-5)
    for i, t in enumerate(half):
        assert aligned_mode_mass(lam[i], 1e-6, np.array([t]))[0] == pytest.approx(lam[i] / 2, rel=1e-10)
    values, vectors = descending(SMALL)
    times = np.linspace(0, 5, 26)
    F0 = 1e-3 * vectors[:, :12]
    path = gradient_flow(values, vectors.T @ F0, times)
    masses = aligned_mode_mass(values[:12], 1e-6, times)
    np.testing.assert_allclose(mode_masses(path)[:, :12], masses.T, atol=1e-10)
    loss = np.sum(-2 * values[:12, None] * masses + masses**2, axis=0)
    np.testing.assert_allclose(factor_loss(values, path), loss, atol=1e-10)
    assert np.isnan(half_time(1e-6, 1e-6)) and np.isnan(half_time(0.0, 1e-6))


def test_half_times_of_explicit_euler():
    """Step 0.001, first step at which the mass is above one half of its limit."""
    values, vectors = descending(SMALL)
    F, found = 1e-3 * vectors[:, :12], {}
    for step in range(3000):
        masses = np.sum((vectors[:, :12].T @ F) ** 2, axis=1)
        for i in (0, 1, 4):
            if i not in found and masses[i] >= values[i] / 2:
                found[i] = step * 0.001
        F = F + 0.001 * gradient(SMALL, F)
    assert list(found.values()) == pytest.approx([1.730, 1.915, 2.555], abs=1.5e-3)
    np.testing.assert_allclose(list(found.values()), half_time(values[[0, 1, 4]], 1e-6), rtol=5e-3)


def test_the_staircase_of_six_modes():
    spectrum = hypercube(np.array([0.02, 0.05, 0.1, 0.2, 0.3, 0.4]), (0,), parity_truth(1), 7)
    lam = spectrum.top(6)
    np.testing.assert_allclose(lam, [1, 0.9216, 0.81, 0.7465, 0.64, 0.5898], atol=5e-5)
    np.testing.assert_allclose(half_time(lam, 1e-6), [1.727, 1.863, 2.100, 2.264, 2.611, 2.816], atol=5e-4)


def tangent(F, vectors, k):
    return math.tan(
        max(np.arccos(np.clip(np.linalg.svd(vectors[:, :k].T @ np.linalg.qr(F)[0], compute_uv=False), -1, 1)))
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_span_turns_as_in_power_iteration(seed):
    F0 = 1e-3 * np.random.default_rng(seed).standard_normal((60, 4))
    values, vectors = descending(SMALL)
    found = subspace_tangent(values, vectors.T @ F0, TIMES)
    exact = runge_kutta(SMALL, F0, TIMES, 0.005)
    np.testing.assert_allclose(found, [tangent(F, vectors, 4) for F in exact], rtol=1e-6)
    steps = euler(SMALL, F0, TIMES, 0.001)
    np.testing.assert_allclose(found, [tangent(F, vectors, 4) for F in steps], rtol=0.01)
    start = subspace_tangent(values, vectors.T @ F0, np.zeros(1))[0]
    assert start == pytest.approx(tangent(F0, vectors, 4), rel=1e-9)
    bound = subspace_tangent_bound(nested_blocks(4, 3, 5, 0.1, 0.04), 4, start, TIMES)
    assert (found <= bound).all() and found[5] / found[4] == pytest.approx(math.exp(-4 * 0.24008), abs=3e-3)
    flow = gradient_flow(values, vectors.T @ F0, TIMES)
    np.testing.assert_allclose([tangent(F, np.eye(60), 4) for F in flow], found, rtol=1e-6)


def test_angles_where_they_have_no_meaning():
    values, vectors = descending(SMALL)
    F0 = np.random.default_rng(0).standard_normal((60, 3))
    assert np.isnan(subspace_tangent(values, vectors.T @ F0, TIMES)).all(), "eigenvalues 3 and 4 tie"
    assert np.isposinf(subspace_tangent(values, np.eye(60)[:, 4:8], TIMES)).all(), "nothing of the top four to grow"
    with pytest.raises(ValueError, match="decrease"):
        subspace_tangent(values[::-1], F0, TIMES)


def test_explicit_euler_is_stable_below_one_quarter():
    """Near the minimiser the fastest direction shrinks by 1 - 8 lam dt in mass: 14/60 converges, 16/60 does not."""
    assert table_rate_limit(60) == 15.0 and table_time(2.0, 300, 60) == pytest.approx(10.0)
    F0 = 0.1 / math.sqrt(60) * np.random.default_rng(0).standard_normal((60, 4))
    least = min_loss(nested_blocks(4, 3, 5, 0.1, 0.04), 4)
    for rate, settles in ((14.0, True), (16.0, False)):
        F = euler(SMALL, F0, [400 * rate / 60], rate / 60)[0]
        loss = float(np.sum((SMALL - F @ F.T) ** 2) - np.sum(SMALL**2))
        assert (abs(loss - least) < 1e-6) == settles
