"""Closed spectra against a dense eigensolver on graphs built node by node from their definitions."""

import math
from itertools import pairwise, product

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from theory.graphs import (
    arc_crossing,
    arc_energy,
    arc_partition_cost,
    block_eigenvalues,
    colour_crossing,
    gaussian,
    glyph_manifold,
    hermite_sign_weight,
    hypercube,
    majority_truth,
    mixture_crossing,
    nested_blocks,
    parity_truth,
    ring,
    ring_kernel,
    swap_eigenvalue,
    top_characters,
    unequal_blocks,
    walsh_coefficients,
    window_kernel,
    window_ring,
    window_transform,
    wrapped_gaussian_kernel,
    wrapped_gaussian_ring,
)

CUBE = np.array([0.02, 0.05, 0.05, 0.1, 0.2, 0.25, 0.3, 0.35])
ROTATIONS, SHIFTS = ring_kernel(8, (0.5, 0.25, 0.25)), ring_kernel(5, (0.6, 0.2, 0.2))


# -- naive graphs --------------------------------------------------------------------------------------------------


def normalised(aug, p_nat):
    W = aug.T @ (p_nat[:, None] * aug)
    w = W.sum(1)
    return W, w, W / np.sqrt(np.outer(w, w))


def crossings(aug, p_nat, labels, natural_labels):
    W = normalised(aug, p_nat)[0]
    phi = W[labels[:, None] != labels].sum()
    alpha = (p_nat[:, None] * aug)[np.asarray(natural_labels)[:, None] != labels].sum()
    return phi, alpha


def agrees(spectrum, aug, labels, natural_labels, p_nat=None, tolerance=1e-10):
    """Everything a Spectrum says, against the dense graph."""
    p_nat = np.full(len(aug), 1.0 / len(aug)) if p_nat is None else p_nat
    _, w, Abar = normalised(aug, p_nat)
    values, vectors = np.linalg.eigh(Abar)
    values, vectors = values[::-1], vectors[:, ::-1]
    count = spectrum.listed
    np.testing.assert_allclose(spectrum.top(count), values[:count], atol=tolerance)
    assert spectrum.size == len(w)
    phi, alpha = crossings(aug, p_nat, labels, natural_labels)
    assert spectrum.phi == pytest.approx(phi, abs=tolerance)
    assert spectrum.alpha == pytest.approx(alpha, abs=tolerance)
    one_hot = np.sqrt(w)[:, None] * (labels[:, None] == np.arange(labels.max() + 1))
    np.testing.assert_allclose(spectrum.class_probabilities, (one_hot**2).sum(0), atol=tolerance)
    edges = np.concatenate([[0], np.cumsum(spectrum.multiplicities)])
    for group, (a, b) in enumerate(pairwise(edges)):
        if b < len(values):
            assert values[b - 1] - values[b] > 1e-9, "the sample has eigenvalues too close to tell apart"
        form = np.linalg.svd(vectors[:, a:b].T @ one_hot, compute_uv=False) ** 2
        listed = spectrum.energies[group]
        padded = np.concatenate([listed, np.zeros(max(len(form) - len(listed), 0))])[: len(form)]
        np.testing.assert_allclose(padded, form, atol=tolerance)
    if spectrum.complete:
        assert spectrum.energy.sum() == pytest.approx(1.0, abs=tolerance)


def blocks_graph(C, s, m, a1, a2):
    """One row a sub-cluster, one column a node."""
    K = C * s
    aug = np.zeros((K, K * m))
    for n in range(K):
        for b in range(K):
            if b == n:
                chance = 1 - a1 - a2
            elif b // s == n // s:
                chance = a1 / (s - 1)
            else:
                chance = a2 / ((C - 1) * s)
            aug[n, b * m : (b + 1) * m] = chance / m
    return aug, np.arange(K * m) // (s * m), np.arange(K) // s


def ring_graph(kernel, C):
    n = len(kernel)
    aug = np.array([[kernel[(x - i) % n] for x in range(n)] for i in range(n)])
    labels = np.arange(n) // (n // C)
    return aug, labels, labels


def cube_graph(flip, label):
    points = np.array(list(product((1, -1), repeat=len(flip))))
    differ = points[:, None] != points[None]
    aug = np.prod(np.where(differ, flip, 1 - np.asarray(flip)), axis=2)
    labels = np.array([0 if label(x) > 0 else 1 for x in points])
    return aug, labels, labels


def swap_matrix(kinds, swap):
    return np.eye(1) if kinds == 1 else np.where(np.eye(kinds, dtype=bool), 1 - swap, swap / (kinds - 1))


def glyph_graph(symmetries, rotations, shifts, colours, eps, eps_colour, label, merge_naturals=False):
    """Label tuples first; then equal images become one node, by summing columns (and rows, if naturals merge too)."""
    G, R, S = len(symmetries), len(rotations), len(shifts)
    around = [ring_graph(h, 1)[0] for h in (rotations, shifts)]
    full = swap_matrix(G, eps)
    for factor in (*around, swap_matrix(colours, eps_colour)):
        full = np.kron(full, factor)
    tuples = list(product(range(G), range(R), range(S), range(colours)))
    images = [(g, r % (R // symmetries[g]), s, c) for g, r, s, c in tuples]
    nodes = sorted(set(images))
    member = np.array([[image == node for node in nodes] for image in images], dtype=float)
    aug, p_nat = full @ member, np.full(len(tuples), 1 / len(tuples))
    natural = np.array([one[0 if label == "glyph" else 3] for one in tuples])
    labels = np.array([one[0 if label == "glyph" else 3] for one in nodes])
    if merge_naturals:
        p_nat = member.sum(0) / len(tuples)
        aug, natural = member.T @ aug / member.sum(0)[:, None], labels
    return aug, labels, natural, p_nat


# -- nested blocks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("C", "s", "m", "a1", "a2"),
    [
        (4, 3, 25, 0.10, 0.04),
        (4, 3, 5, 0.005, 0.10),
        (2, 1, 4, 0.0, 0.3),
        (3, 2, 3, 0.2, 0.0),
        (1, 4, 2, 0.3, 0.0),
        (5, 2, 1, 0.0, 0.1),
        (4, 3, 2, 0.1, 0.8),
        (3, 2, 2, 0.5, 0.0),
    ],
)
def test_nested_blocks(C, s, m, a1, a2):
    aug, labels, natural = blocks_graph(C, s, m, a1, a2)
    agrees(nested_blocks(C, s, m, a1, a2), aug, labels, natural)


def test_published_numbers_of_the_nested_blocks():
    found = nested_blocks(4, 3, 25, 0.10, 0.04)
    np.testing.assert_allclose(found.eigenvalues[1:3], [0.8961778, 0.6561], atol=1e-7)
    assert found.multiplicities.tolist() == [1, 3, 8, 288] and found.rank == 12
    assert found.phi == pytest.approx(0.0778667, abs=1e-7) and found.alpha == 0.04
    assert found.phi <= 2 * found.alpha
    wrong = nested_blocks(4, 3, 25, 0.005, 0.10)
    np.testing.assert_allclose(wrong.eigenvalues[1:3], [0.7966, 0.7511], atol=5e-5)
    assert wrong.multiplicities.tolist() == [1, 8, 3, 288]


@pytest.mark.parametrize("leak", [0.0, 0.1, 0.3, 0.449, 0.451, 0.6])
def test_classes_lead_while_they_leak_less_than_sub_clusters(leak):
    cls, sub = block_eigenvalues(4, 3, 0.1, leak)
    assert (cls > sub) == (leak < 0.1 * 3 * 3 / 2)
    assert block_eigenvalues(4, 1, 0.0, leak) == (cls, 0.0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((0, 3, 5, 0.1, 0.1), "positive"),
        ((4, 3, 5, 0.6, 0.6), "a1 \\+ a2 <= 1"),
        ((4, 3, 5, -0.1, 0.6), "nonnegative"),
        ((4, 1, 5, 0.1, 0.1), "one sub-cluster"),
        ((1, 3, 5, 0.1, 0.1), "one class"),
    ],
)
def test_impossible_blocks_are_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        nested_blocks(*arguments)


@pytest.mark.parametrize("seed", range(5))
def test_unequal_blocks_by_their_quotient(seed):
    rng = np.random.default_rng(seed)
    K, C = 6, 3
    T, p = rng.dirichlet(np.full(K, 0.5), K), rng.dirichlet(np.ones(K))
    nodes, labels = rng.integers(1, 9, K), rng.permutation(np.arange(K) % C)
    aug = np.repeat(T / nodes, nodes, axis=1)
    found = unequal_blocks(p, T, nodes, labels, labels)
    agrees(found, aug, np.repeat(labels, nodes), labels, p)


def test_unequal_blocks_contain_the_equal_ones_and_drop_what_no_view_reaches():
    aug, labels, natural = blocks_graph(4, 3, 1, 0.1, 0.04)
    p = np.full(12, 1 / 12)
    found, expected = unequal_blocks(p, aug, np.full(12, 25), labels, natural), nested_blocks(4, 3, 25, 0.1, 0.04)
    np.testing.assert_allclose(found.eigenvalues, expected.eigenvalues, atol=1e-12)
    assert found.multiplicities.tolist() == expected.multiplicities.tolist()
    for mine, theirs in zip(found.energies, expected.energies, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)
    wider = np.column_stack([aug, np.zeros(12)])
    dropped = unequal_blocks(p, wider, np.full(13, 25), np.append(labels, 0), natural)
    assert dropped.size == 300 and dropped.phi == pytest.approx(expected.phi, abs=1e-12)
    with pytest.raises(ValueError, match="every row of transition"):
        unequal_blocks(p, 2 * aug, np.full(12, 2), labels, natural)
    with pytest.raises(ValueError, match="p_nat"):
        unequal_blocks(2 * p, aug, np.full(12, 2), labels, natural)
    with pytest.raises(ValueError, match="at least one node"):
        unequal_blocks(p, aug, np.zeros(12, dtype=int), labels, natural)


# -- ring ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "r", "C"), [(240, 4, 6), (60, 7, 6), (60, 5, 2), (45, 4, 5), (48, 2, 3), (40, 3, 1), (12, 1, 12), (35, 3, 7)]
)
def test_window_ring(n, r, C):
    kernel = window_kernel(n, r)
    found = window_ring(n, r, C)
    agrees(found, *ring_graph(kernel, C))
    plain = ring(kernel, C)
    np.testing.assert_allclose(found.top(n), plain.top(n), atol=1e-14)
    np.testing.assert_allclose(window_transform(n, r), np.fft.fft(kernel).real, atol=1e-14)


@pytest.mark.parametrize("weights", [(0.5, 0.25, 0.25), (0.6, 0.2, 0.2), (0.7, 0.1, 0.1, 0.05, 0.05), (0.2, 0.8)])
def test_ring_with_a_listed_kernel(weights):
    agrees(ring(ring_kernel(24, weights), 4), *ring_graph(ring_kernel(24, weights), 4))


@pytest.mark.parametrize(("n", "sig"), [(48, 0.3), (24, 0.02), (40, 1.0)])
def test_wrapped_gaussian_ring(n, sig):
    """At few points and little noise the aliases matter: the kernel is then far from a continuous Gaussian."""
    angle = 2 * np.pi * np.arange(n) / n
    density = sum(np.exp(-0.5 * ((angle + 2 * np.pi * m) / sig) ** 2) for m in range(-40, 41))
    kernel = wrapped_gaussian_kernel(n, sig)
    np.testing.assert_allclose(kernel, density / density.sum(), atol=1e-13)
    found = wrapped_gaussian_ring(n, sig, 4)
    aug, labels, natural = ring_graph(density / density.sum(), 4)
    phi, alpha = crossings(aug, np.full(n, 1 / n), labels, natural)
    assert (found.phi, found.alpha) == pytest.approx((phi, alpha), abs=1e-12)
    np.testing.assert_allclose(
        found.top(found.listed), np.linalg.eigvalsh(normalised(aug, np.full(n, 1 / n))[2])[::-1], atol=1e-10
    )
    if sig * n > 12:
        np.testing.assert_allclose(found.top(7), np.exp(-(sig**2) * np.array([0, 1, 1, 4, 4, 9, 9])), atol=1e-10)


def test_published_numbers_of_the_ring():
    found = window_ring(240, 4, 6)
    assert (found.phi, found.alpha) == pytest.approx((0.0740741, 0.0555556), abs=1e-7)
    energy = arc_energy(240, 6)
    assert energy.sum() == pytest.approx(1.0, abs=1e-12) and energy[0] == pytest.approx(1 / 6)
    np.testing.assert_allclose(energy[6::6], 0.0, atol=1e-30)


def test_counting_borders_is_exact_for_short_shifts_only():
    """240 nodes, 6 arcs of 40: right while the differences of shifts are at most 40."""
    for r in (0, 4, 20):
        found, counted = window_ring(240, r, 6), arc_crossing(window_kernel(240, r), 6)
        assert (found.phi, found.alpha) == pytest.approx(counted, abs=1e-12)
    found, (phi, alpha) = window_ring(240, 25, 6), arc_crossing(window_kernel(240, 25), 6)
    assert abs(found.phi - phi) == pytest.approx(0.004, abs=5e-4)
    assert found.alpha == pytest.approx(alpha, abs=1e-12)


def test_the_cheapest_partition_of_a_ring_is_arcs():
    """All partitions of 12 nodes into 2, 3 and 4 parts."""
    n, kernel = 12, ring_kernel(12, (0.5, 0.25, 0.25))
    aug = ring_graph(kernel, 1)[0]
    W = normalised(aug, np.full(n, 1 / n))[0]
    inside = np.array([[(code >> x) & 1 for x in range(n)] for code in range(1, 2**n)], dtype=float)
    cost = [math.inf, *(1.0 - np.sum((inside @ W) * inside, axis=1) / (inside @ W.sum(1))).tolist()]
    best = cost
    for parts in (2, 3, 4):
        fewer, best = best, [math.inf] * 2**n
        for whole in range(1, 2**n):
            if parts == 4 and whole != 2**n - 1:
                continue
            low = whole & -whole
            part = rest = whole ^ low
            while True:  # every subset that holds the lowest node
                part = (part - 1) & rest
                best[whole] = min(best[whole], max(cost[part | low], fewer[rest ^ part]))
                if part == 0:
                    break
        assert best[-1] == pytest.approx(arc_partition_cost(kernel, parts), abs=1e-12)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: arc_energy(10, 3), "divide"),
        (lambda: window_kernel(10, 5), "half_width"),
        (lambda: window_ring(10, 7, 2), "half_width"),
        (lambda: ring_kernel(8, (0.5, 0.2)), "add up to 1"),
        (lambda: wrapped_gaussian_ring(12, 0.0, 2), "noise_std"),
    ],
)
def test_impossible_rings_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# -- hypercube -----------------------------------------------------------------------------------------------------


def sign_of(support, truth):
    """The label as a function of a point, from its truth table."""
    return lambda x: truth[sum(2 ** (len(support) - 1 - b) * int(x[i] < 0) for b, i in enumerate(support))]


@pytest.mark.parametrize(
    ("flip", "support", "truth"),
    [
        (CUBE, (0,), parity_truth(1)),
        (CUBE, (0, 3), parity_truth(2)),
        (CUBE, (0, 1, 2), majority_truth(3)),
        (CUBE, (6, 1, 4), majority_truth(3)),
        (np.full(6, 0.1), (0, 5), np.array([1.0, -1.0, -1.0, -1.0])),
        (np.array([0.0, 0.1, 0.2, 0.0, 0.3]), (0, 1, 3), majority_truth(3)),
        (np.array([0.0, 0.1, 0.2, 0.3]), (0, 1), np.array([1.0, -1.0, -1.0, -1.0])),
        (np.array([0.5, 0.1, 0.1, 0.5, 0.3]), (0, 1, 2), majority_truth(3)),
        (np.array([0.9, 0.1, 0.2, 0.7]), (0, 2), np.array([1.0, 1.0, 1.0, -1.0])),
        (np.array([0.1, 0.2]), (1,), np.array([1.0, 1.0])),
    ],
)
def test_hypercube(flip, support, truth):
    graph = cube_graph(flip, sign_of(support, truth))
    whole = hypercube(flip, support, truth, 2 ** len(flip))
    if truth.min() == truth.max():
        assert whole.class_probabilities.tolist() == [1.0, 0.0] and whole.phi == pytest.approx(0.0, abs=1e-15)
        return
    assert whole.complete
    agrees(whole, *graph)
    part = hypercube(flip, support, truth, 3)
    assert part.listed >= 3
    agrees(part, *graph)


def test_published_numbers_of_the_cube():
    found = hypercube(CUBE, (0,), parity_truth(1), 8)
    np.testing.assert_allclose(found.top(8), [1, 0.9216, 0.81, 0.81, 0.746496, 0.746496, 0.6561, 0.64], atol=1e-12)
    assert found.phi == pytest.approx((1 - 0.9216) / 2)
    assert hypercube(CUBE, (0, 1, 2), majority_truth(3), 8).phi == pytest.approx(0.1067173, abs=1e-7)


def test_a_large_cube_is_never_listed():
    """2^60 nodes: the top of the list agrees with sums over all pairs and triples of coordinates."""
    rng = np.random.default_rng(5)
    flip = rng.uniform(0.02, 0.4, 60)
    factor = (1 - 2 * flip) ** 2
    small = [1.0, *factor]
    small += [factor[i] * factor[j] for i in range(60) for j in range(i)]
    small += [factor[i] * factor[j] * factor[k] for i in range(60) for j in range(i) for k in range(j)]
    small = np.sort(small)[::-1]
    assert np.sort(factor)[::-1][:4].prod() < small[50], "four coordinates come later than the ones compared"
    found = hypercube(flip, (0,), parity_truth(1), 40)
    np.testing.assert_allclose(found.top(40), small[:40], atol=1e-13)
    assert found.size == 2**60 and not found.complete
    np.testing.assert_allclose([value for value, _ in top_characters(flip, 40)], small[:40], atol=1e-13)
    same = hypercube(np.full(60, 0.1), (0, 1), parity_truth(2), 62)
    assert same.multiplicities.tolist() == [1, 60, 60 * 59 // 2]
    np.testing.assert_allclose(same.energies[2], [0.5])


@pytest.mark.parametrize("flip", [CUBE, np.full(5, 0.1), np.array([0.5, 0.1, 0.3]), np.array([0.2, 0.0, 0.1, 0.9])])
def test_characters_in_order(flip):
    d = len(flip)
    subsets = [one for code in range(2**d) if (one := tuple(i for i in range(d) if (code >> i) & 1)) or code == 0]
    values = {one: math.prod((1 - 2 * flip[i]) ** 2 for i in one) for one in subsets}
    ranked = sorted((one for one in subsets if values[one] > 1e-15), key=lambda s: (-round(values[s], 12), len(s), s))
    for count in (1, 4, 7, 2**d):
        found = top_characters(flip, count)
        assert [subset for _, subset in found] == ranked[:count]
        np.testing.assert_allclose([value for value, _ in found], [values[s] for s in ranked[:count]], atol=1e-13)


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_walsh_coefficients_are_means(m):
    rng = np.random.default_rng(m)
    truth = rng.choice([-1.0, 1.0], 2**m)
    points = np.array(list(product((1, -1), repeat=m)))
    for code, found in enumerate(walsh_coefficients(truth)):
        chosen = [b for b in range(m) if (code >> (m - 1 - b)) & 1]
        assert found == pytest.approx(np.mean(truth * points[:, chosen].prod(1)), abs=1e-15)
    np.testing.assert_allclose(walsh_coefficients(majority_truth(3)), [0, 0.5, 0.5, 0, 0.5, 0, 0, -0.5])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: hypercube(np.array([1.2]), (0,), parity_truth(1), 2), "flip probability"),
        (lambda: hypercube(np.full(63, 0.1), (0,), parity_truth(1), 2), "62"),
        (lambda: hypercube(CUBE, (0, 0), parity_truth(2), 2), "distinct"),
        (lambda: hypercube(CUBE, (8,), parity_truth(1), 2), "0..7"),
        (lambda: hypercube(CUBE, (1,), parity_truth(2), 2), "truth table"),
        (lambda: majority_truth(4), "odd"),
    ],
)
def test_impossible_cubes_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# -- Gaussian ------------------------------------------------------------------------------------------------------


def grid_graph(points, density, noise_std):
    p = density / density.sum()
    aug = np.exp(-0.5 * ((points[:, None] - points) / noise_std) ** 2)
    return aug / aug.sum(1, keepdims=True), p


def test_gaussian_against_a_grid():
    points = np.linspace(-12, 12, 600)
    aug, p = grid_graph(points, np.exp(-0.5 * (points / 1.5) ** 2), 0.8)
    w = p @ aug
    kept = w > 1e-14
    B = np.sqrt(p)[:, None] * aug[:, kept] / np.sqrt(w[kept])
    vectors, values = np.linalg.svd(B.T, full_matrices=False)[:2]
    found = gaussian(np.array([1.5]), np.array([0.8]), 6)
    np.testing.assert_allclose(found.top(6), 0.7785467 ** np.arange(6), atol=1e-6)
    np.testing.assert_allclose(values[:4] ** 2, found.top(4), atol=1e-7)
    np.testing.assert_allclose(values[:6] ** 2, found.top(6), atol=1e-5)
    sign = np.sign(points[kept])
    on_grid = 0.5 * (vectors.T @ (np.sqrt(w[kept]) * sign)) ** 2
    np.testing.assert_allclose(found.energy[1:6], on_grid[1:6], atol=2e-4)  # the label jumps between two grid points
    phi, alpha = crossings(aug[:, kept], p, (sign > 0).astype(int), (points > 0).astype(int))
    assert (found.phi, found.alpha) == pytest.approx((phi, alpha), abs=1e-3)


def test_gaussian_labels_cross_as_two_correlated_normals_do():
    found = gaussian(np.array([1.5, 1.0]), np.array([0.8, 0.3]), 30, coordinate=1)
    r = 1 / 1.09
    for correlation, leak in ((r, found.phi), (math.sqrt(r), found.alpha)):
        both = multivariate_normal(cov=[[1, correlation], [correlation, 1]]).cdf([0, 0])
        assert leak == pytest.approx(1 - 2 * both, abs=1e-6)


def test_independent_gaussian_coordinates_multiply():
    one, two, equal = (
        gaussian(np.array(t), np.array(s), 40) for t, s in (([1.5], [0.8]), ([2.0], [0.5]), ([2.0, 4.0], [0.5, 1.0]))
    )
    both = gaussian(np.array([1.5, 2.0]), np.array([0.8, 0.5]), 20)
    np.testing.assert_allclose(both.top(20), np.sort(np.outer(one.top(40), two.top(40)).ravel())[::-1][:20], rtol=1e-12)
    r = 4 / 4.25
    np.testing.assert_allclose(equal.eigenvalues[:5], r ** np.arange(5), rtol=1e-12)
    assert equal.multiplicities[:5].tolist() == [1, 2, 3, 4, 5]
    assert equal.size is None and not equal.complete
    far = gaussian(np.array([1.5]), np.array([0.8]), 300)
    assert far.listed == 300 and far.eigenvalue(300) == 0.0 and far.rank == 138
    noisy = gaussian(np.array([0.05]), np.array([20.0]), 10)
    assert noisy.listed == 10 and noisy.rank == 3
    np.testing.assert_allclose(equal.energy[:4], two.energy[:4])
    with pytest.raises(ValueError, match="positive"):
        gaussian(np.array([0.0]), np.array([1.0]), 3)


def test_hermite_weights_of_the_sign():
    """Against Gauss-Hermite-free quadrature, and they add up to 1 (slowly: the tail is 2 c/sqrt(j))."""
    from numpy.polynomial.hermite_e import hermeval

    x = np.linspace(0, 14, 200_001)
    for degree in range(8):
        half = np.trapezoid(hermeval(x, np.eye(9)[degree]) * np.exp(-0.5 * x**2), x) / math.sqrt(2 * math.pi)
        expected = (2 * half) ** 2 / math.factorial(degree) if degree % 2 else 0.0
        assert hermite_sign_weight(degree) == pytest.approx(expected, abs=1e-8)
    total = sum(hermite_sign_weight(j) for j in range(1, 2000, 2))
    assert 0.97 < total < 1.0


def test_mixture_keeps_the_variational_inequality():
    points = np.linspace(-12, 12, 600)
    density = sum(np.exp(-0.5 * (points - m) ** 2) for m in (-3, 3))
    aug, p = grid_graph(points, density, 0.8)
    values = np.linalg.eigvalsh(normalised(aug, p)[2])[::-1]
    phi, alpha = mixture_crossing(3.0, 1.0, 0.8)
    assert 2 * phi == pytest.approx(0.030943, abs=1e-5)
    assert 1 - values[1] == pytest.approx(0.018670, abs=1e-5) and 1 - values[1] <= 2 * phi
    np.testing.assert_allclose(values[2:4], [0.6065, 0.5557], atol=1e-3)
    on_grid = crossings(aug, p, (points > 0).astype(int), (points > 0).astype(int))
    assert (phi, alpha) == pytest.approx(on_grid, abs=1e-4)
    plain = gaussian(np.array([1.3]), np.array([0.4]), 2)
    assert mixture_crossing(0.0, 1.3, 0.4) == pytest.approx((plain.phi, plain.alpha), abs=1e-12)


# -- glyph manifold ------------------------------------------------------------------------------------------------


SMALL_SHIFTS = ring_kernel(3, (0.6, 0.3, 0.1))


@pytest.mark.parametrize(
    ("symmetries", "shifts", "colours", "eps", "eps_colour"),
    [
        pytest.param((1,) * 6, SHIFTS, 3, 0.06, 0.3, marks=pytest.mark.slow),
        pytest.param((1,) * 5 + (2,), SHIFTS, 3, 0.06, 0.3, marks=pytest.mark.slow),
        pytest.param((1, 1, 1, 1, 4, 2), SHIFTS, 3, 0.06, 0.3, marks=pytest.mark.slow),
        ((1, 1, 2), SMALL_SHIFTS, 3, 0.06, 0.3),
        ((1, 1, 4, 2), SMALL_SHIFTS, 2, 0.06, 0.3),
        ((2, 2, 4), SMALL_SHIFTS, 2, 0.1, 0.05),
        ((1, 1, 8), SMALL_SHIFTS, 1, 0.0, 0.0),
        ((2,), SMALL_SHIFTS, 1, 0.0, 0.0),
        ((1, 2, 1), SMALL_SHIFTS, 4, 0.2, 0.225),
    ],
)
def test_glyph_manifold(symmetries, shifts, colours, eps, eps_colour):
    for label in ("glyph", "colour"):
        found = glyph_manifold(symmetries, ROTATIONS, shifts, colours, eps, eps_colour, label)
        assert found.complete
        agrees(found, *glyph_graph(symmetries, ROTATIONS, shifts, colours, eps, eps_colour, label))


def test_published_numbers_of_the_glyphs():
    found = glyph_manifold((1,) * 6, ROTATIONS, SHIFTS, 3, 0.06, 0.3)
    assert found.size == 720
    np.testing.assert_allclose(found.eigenvalues[:4], [1, 0.8612, 0.7286, 0.6274], atol=5e-5)
    assert found.multiplicities[:4].tolist() == [1, 5, 2, 10] and found.phi == pytest.approx(0.11568, abs=1e-7)
    assert glyph_manifold((1,) * 6, ROTATIONS, SHIFTS, 3, 0.06, 0.3, "colour").phi == pytest.approx(0.465)


def test_equal_images_break_the_product():
    one_symmetric = glyph_manifold((1,) * 5 + (2,), ROTATIONS, SHIFTS, 3, 0.06, 0.3)
    assert one_symmetric.size == 660
    np.testing.assert_allclose(one_symmetric.top(8)[1:], [0.861184] * 5 + [0.7116976] * 2, atol=5e-7)
    two = glyph_manifold((1, 1, 1, 1, 4, 2), ROTATIONS, SHIFTS, 3, 0.06, 0.3)
    assert two.size == 570
    np.testing.assert_allclose(two.top(8)[1:], [0.861184] * 5 + [0.6948418] * 2, atol=5e-7)
    plain = [ring_kernel(1, (1.0,)), 1, 0.06, 0.0, "glyph"]  # shifts and colours only multiply
    merged, _, _, p_nat = glyph_graph((1,) * 5 + (2,), ROTATIONS, *plain, merge_naturals=True)
    values = np.linalg.eigvalsh(normalised(merged, p_nat)[2])[::-1]
    assert values[6] == pytest.approx(0.711173, abs=1e-6), "a different graph: naturals of one image merged too"


def test_one_symmetric_glyph_is_its_folded_orbit():
    found = glyph_manifold((2,), ROTATIONS, np.ones(1), 1, 0.0, 0.0)
    np.testing.assert_allclose(found.top(4), [1, 0.25, 0.25, 0], atol=1e-12)
    folded = ring(ROTATIONS[:4] + ROTATIONS[4:], 1)
    np.testing.assert_allclose(found.top(4), folded.top(4), atol=1e-12)
    np.testing.assert_allclose(np.sort(np.abs(np.fft.fft(ROTATIONS)[::2]) ** 2)[::-1], found.top(4), atol=1e-12)


def test_colour_takes_the_second_eigenvector_where_it_leaks_less():
    where = colour_crossing(6, 0.06, 3)
    assert where == pytest.approx(0.048, abs=1e-12)
    for swap, leads in ((where * 0.99, "colour"), (where * 1.01, "glyph")):
        found = {
            label: glyph_manifold((1,) * 6, ROTATIONS, SHIFTS, 3, 0.06, swap, label) for label in ("glyph", "colour")
        }
        assert found[leads].energy[1] > 0.6 and sum(one.energy[1] for one in found.values()) == found[leads].energy[1]
    far = glyph_manifold((1,) * 6, ROTATIONS, SHIFTS, 3, 0.06, 0.3, "colour")
    place = int(np.flatnonzero(far.energy > 0)[1])
    before = int(far.multiplicities[:place].sum())
    assert (before, int(far.multiplicities[place])) == (54, 2)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: glyph_manifold((1, 3), ROTATIONS, SHIFTS, 3, 0.1, 0.1), "divide"),
        (lambda: glyph_manifold((1,), ROTATIONS, SHIFTS, 3, 0.1, 0.1), "one kind"),
        (lambda: glyph_manifold((1, 1), ROTATIONS, SHIFTS, 1, 0.1, 0.1), "one kind"),
        (lambda: swap_eigenvalue(3, 1.5), "0..1"),
    ],
)
def test_impossible_glyphs_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# -- the value itself ----------------------------------------------------------------------------------------------


def test_a_spectrum_knows_its_eigenvalues_by_number():
    found = nested_blocks(4, 3, 5, 0.1, 0.04)
    assert [found.eigenvalue(i) for i in (1, 2, 4, 5, 12, 13, 60, 99)] == pytest.approx(
        [1, found.eigenvalues[1], found.eigenvalues[1], 0.6561, 0.6561, 0, 0, 0]
    )
    assert [found.degenerate_cut(k) for k in (1, 2, 3, 4, 5, 12, 13, 60)] == [
        False, True, True, False, True, False, True, False,
    ]  # fmt: skip
    assert found.top(70)[12:].tolist() == [0.0] * 58
    with pytest.raises(ValueError, match="60 eigenvalues"):
        found.group(61)
    with pytest.raises(ValueError, match="number 0"):
        found.group(0)
    part = hypercube(CUBE, (0,), parity_truth(1), 4)
    assert part.listed == 4
    with pytest.raises(ValueError, match="listed"):
        part.top(5)
    with pytest.raises(ValueError, match="listed"):
        part.eigenvalue(5)
