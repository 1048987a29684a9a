"""Pairs of views, the batch loss with its gradients, and the network, against definitions and differences."""

import math
from itertools import pairwise

import numpy as np
import pytest

from sims.graphs import descent, generators, network
from sims.graphs import kernels as machinery


def rng(seed=0):
    return np.random.Generator(np.random.Philox(seed))


def sampler(graph):
    aug = graph.kernel
    rows = [np.cumsum(aug.data[a:b]) for a, b in zip(aug.indptr[:-1], aug.indptr[1:], strict=True)]
    np.testing.assert_allclose(descent.row_sums(aug.indptr, aug.data), np.concatenate(rows), atol=1e-14)
    return descent.tables(np.cumsum(graph.p_nat), aug.indptr, aug.indices, np.concatenate(rows))


def naive_loss(z1, z2):
    B = len(z1)
    positive = sum(float(z1[i] @ z2[i]) for i in range(B))
    negative = sum(float(z1[i] @ z2[j]) ** 2 for i in range(B) for j in range(B) if i != j)
    return -2.0 / B * positive + negative / (B * (B - 1))


def clipped_loss(z1, z2, clip):
    def cut(z):
        return z * np.minimum(1.0, clip / np.linalg.norm(z, axis=1))[:, None]

    return naive_loss(cut(z1), cut(z2))


def differences(loss, x, h=1e-5):
    """Central differences of a function of one array."""
    found = np.empty_like(x)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += h
        down[index] -= h
        found[index] = (loss(up) - loss(down)) / (2 * h)
    return found


def test_pairs_have_the_law_of_the_graph():
    """200 000 pairs: every entry of W within 5 standard errors, and the draws are those of searchsorted."""
    graph = generators.sparse_random(np.random.default_rng(4), naturals=5, nodes=6, most=6)
    count = 200_000
    first, second = np.empty(count, np.int64), np.empty(count, np.int64)
    machinery.draw_pairs(*sampler(graph), rng(1), rng(2), rng(3), first, second)
    W = graph.dense()[0]
    seen = np.zeros_like(W)
    np.add.at(seen, (first, second), 1.0 / count)
    assert np.all(np.abs(seen - W) <= 5 * np.sqrt(W * (1 - W) / count) + 1e-12)
    nat = np.searchsorted(np.cumsum(graph.p_nat), rng(1).random(1000), side="right").clip(max=4)
    dense = np.cumsum(graph.kernel.toarray(), axis=1)
    view = [min(int(np.searchsorted(dense[x], u, side="right")), 5) for x, u in zip(nat, rng(2).random(1000))]  # noqa: B905
    np.testing.assert_array_equal(first[:1000], view)


def edge_sampler(W):
    """A dense matrix of positive weights as `draw_edges` reads it."""
    N = len(W)
    rows = np.cumsum(W / W.sum(axis=1, keepdims=True), axis=1)
    places = np.tile(np.arange(N, dtype=np.int32), N)
    starts = np.arange(N + 1, dtype=np.int32) * N
    return descent.tables(np.cumsum(W.sum(axis=1)) / W.sum(), starts, places, rows.reshape(-1))


def some_weights():
    """Symmetric weights of four nodes that are not alike, and no product of views: an eigenvalue is negative."""
    W = rng(9).random((4, 4)) + np.ones((4, 4)) - np.eye(4)
    W = W + W.T
    assert np.linalg.eigvalsh(W)[0] < 0
    return W / W.sum()


def test_edges_are_drawn_with_their_weights():
    """200 000 edges: every weight within 5 standard errors."""
    W, count = some_weights(), 200_000
    first, second = np.empty(count, np.int64), np.empty(count, np.int64)
    machinery.draw_edges(*edge_sampler(W), rng(1), rng(3), first, second)
    seen = np.zeros_like(W)
    np.add.at(seen, (first, second), 1.0 / count)
    assert np.all(np.abs(seen - W) <= 5 * np.sqrt(W * (1 - W) / count))


def test_descent_on_edges_follows_the_batch_loss_edge_by_edge():
    W, B, steps, eta = some_weights(), 5, 30, 0.7
    tables, w = edge_sampler(W), W.sum(axis=1)
    f = 0.3 * rng(4).standard_normal((4, 3))
    by_hand, count = f.copy(), B * steps
    first, second = np.empty(count, np.int64), np.empty(count, np.int64)
    machinery.draw_edges(*tables, rng(1), rng(3), first, second)
    for a, b in zip(first.reshape(steps, B), second.reshape(steps, B), strict=True):
        z1, z2 = by_hand[a], by_hand[b]
        G = z1 @ z2.T * (1 - np.eye(B))
        g1, g2 = (2 / (B * (B - 1)) * M @ z - 2 / B * z for M, z in ((G, z2), (G.T, z1)))
        for x, g in zip([*a, *b], [*g1, *g2], strict=True):
            by_hand[x] -= eta / (4 * w[x]) * g
    cancel, progress = np.zeros(1, np.uint8), np.zeros(1, np.int64)
    done = descent.sgd(
        descent.EDGES, *tables, eta / (4 * w), B, 0.0, f, 0, steps, rng(1), rng(2), rng(3), cancel, progress
    )
    assert done == (descent.DONE, steps) and progress[0] == steps
    np.testing.assert_allclose(f, by_hand, rtol=1e-11)


def test_a_place_beyond_the_last_sum_is_the_last_one():
    sums = np.array([0.2, 0.5, 1.0 - 1e-16])
    guides = machinery.guide(np.array([0, 3]), sums)
    wanted = [0, 1, 1, 2, 2]
    assert [machinery.place(sums, guides, 0, 3, u) for u in (0.0, 0.2, 0.4999, 0.5, 0.9999999999999999)] == wanted


@pytest.mark.parametrize("shape", [0.02, 1.0, 30.0])
def test_a_place_with_a_guide_is_that_of_a_search(shape):
    """Rows of 1 to 300 weights, alike and not at all alike, some of them zero; drawn, at every sum and beside it."""
    draws = np.random.default_rng(3)
    sizes = np.array([1, 2, 3, 7, 64, 120, 300])
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    rows = []
    for n in sizes:
        weights = draws.gamma(shape, size=n) * (draws.random(n) < 0.8)
        weights[draws.integers(n)] += 1e-3
        rows.append(np.cumsum(weights / weights.sum()))
    sums = np.concatenate(rows)
    guides = machinery.guide(indptr, sums)
    for first, n, row in zip(indptr, sizes, rows, strict=False):
        grid = np.arange(n) / n
        exact = np.concatenate([row, grid])
        asked = np.concatenate([draws.random(500), exact, np.nextafter(exact, 0), np.nextafter(exact, 1), [1 - 2**-53]])
        for u in asked[(asked >= 0) & (asked < 1)]:
            wanted = min(int(np.searchsorted(row, u, side="right")), n - 1)
            assert machinery.place(sums, guides, int(first), int(first + n), u) == first + wanted


@pytest.mark.parametrize(("B", "k"), [(2, 1), (5, 3), (9, 4), (4, 4), (3, 5)])
def test_the_batch_loss_and_its_gradients(B, k):
    """From moments where k <= B, from all products where it is larger: against differences, and the definition."""
    z1, z2 = rng(1).standard_normal((B, k)), rng(2).standard_normal((B, k))
    g1, g2 = np.empty_like(z1), np.empty_like(z2)
    machinery.batch_gradients(z1, z2, g1, g2)
    others = (z1 @ z2.T) * (1.0 - np.eye(B))
    scale = 2.0 / (B * (B - 1.0))
    np.testing.assert_allclose(g1, scale * others @ z2 - 2.0 / B * z2, rtol=0, atol=1e-14)
    np.testing.assert_allclose(g2, scale * others.T @ z1 - 2.0 / B * z1, rtol=0, atol=1e-14)
    assert machinery.batch_loss(z1, z2) == pytest.approx(naive_loss(z1, z2), rel=1e-13)
    np.testing.assert_allclose(g1, differences(lambda z: naive_loss(z, z2), z1), atol=1e-8)
    np.testing.assert_allclose(g2, differences(lambda z: naive_loss(z1, z), z2), atol=1e-8)


def test_clipping_is_differentiated_through():
    z1, z2 = rng(3).standard_normal((6, 3)), rng(4).standard_normal((6, 3))
    clip = 1.2
    assert (np.linalg.norm(z1, axis=1) > clip).any() and (np.linalg.norm(z1, axis=1) < clip).any()
    c1, c2 = z1.copy(), z2.copy()
    s1, s2 = np.empty(6), np.empty(6)
    machinery.clipped(c1, clip, s1)
    machinery.clipped(c2, clip, s2)
    g1, g2 = np.empty_like(z1), np.empty_like(z2)
    assert machinery.batch_loss(c1, c2) == pytest.approx(clipped_loss(z1, z2, clip), rel=1e-12)
    machinery.batch_gradients(c1, c2, g1, g2)
    machinery.unclip(c1, clip, s1, g1)
    machinery.unclip(c2, clip, s2, g2)
    np.testing.assert_allclose(g1, differences(lambda z: clipped_loss(z, z2, clip), z1), atol=1e-8)
    np.testing.assert_allclose(g2, differences(lambda z: clipped_loss(z1, z, clip), z2), atol=1e-8)
    untouched = z1.copy()
    machinery.clipped(untouched, 0.0, s1)
    np.testing.assert_array_equal(untouched, z1)


def test_the_batch_loss_is_unbiased():
    """Cube, k = 6, f = minimiser/2, 4000 batches of 64: -1.870776 within 3 standard errors, .0015 and .0065."""
    graph = generators.hypercube((0.02, 0.05, 0.05, 0.1, 0.25, 0.3, 0.35, 0.4), (0,))
    from sims.graphs import spectrum

    pairs = spectrum.top(graph, 6, rng())
    losses = np.empty(4000)
    for scale, predicted, most in ((0.5, -1.870776, 0.002), (1.0, -4.276059, 0.008)):
        f = scale * pairs.vectors * np.sqrt(pairs.values) / np.sqrt(graph.w)[:, None]
        machinery.sampled_losses(f, *sampler(graph), rng(5), rng(6), rng(7), 64, losses)
        error = losses.std(ddof=1) / math.sqrt(len(losses))
        assert error < most and losses.mean() == pytest.approx(predicted, abs=3 * error)
        population = -2 * np.sum(graph.dense()[0] * (f @ f.T)) + np.sum(np.outer(graph.w, graph.w) * (f @ f.T) ** 2)
        assert population == pytest.approx(predicted, abs=1e-6)


@pytest.mark.parametrize("kind", [0, 1])
def test_the_flow_is_the_negative_gradient_of_the_factorisation(kind):
    graph = generators.hypercube((0.1, 0.25, 0.4), (0,))
    from sims.graphs import spectrum

    F = 0.5 * rng(8).standard_normal((8, 3))
    Abar, factor = graph.dense()[1], graph.factor
    slope = np.empty_like(F)
    modes = spectrum.flat_modes(graph.modes)
    machinery.flow(kind, factor.indptr, factor.indices, factor.data, *modes, F, slope)
    by_hand = differences(lambda X: float(((Abar - X @ X.T) ** 2).sum()), F)
    np.testing.assert_allclose(slope, -by_hand, atol=1e-8)
    np.testing.assert_allclose(slope, 4 * (Abar @ F - F @ F.T @ F), atol=1e-13)


# -- the network -------------------------------------------------------------------------------------------------

LAYERS = np.array([3, 5, 4, 2], dtype=np.int64)


def naive_network(theta, x, layers=LAYERS):
    offset, current = 0, x
    for layer, (a, b) in enumerate(pairwise(layers)):
        weight = theta[offset : offset + a * b].reshape(b, a)
        bias = theta[offset + a * b : offset + (a + 1) * b]
        offset += (a + 1) * b
        current = current @ weight.T + bias
        if layer < len(layers) - 2:
            current = np.maximum(current, 0.0)
    return current


def test_the_network_and_its_gradient():
    theta, x = network.start(LAYERS, rng(1)), rng(2).standard_normal((7, 3))
    assert len(theta) == network.size(LAYERS) == 3 * 5 + 5 + 5 * 4 + 4 + 4 * 2 + 2
    hidden, out = network.forward(LAYERS, theta, x)
    np.testing.assert_allclose(out, naive_network(theta, x), atol=1e-14)
    assert hidden.shape == (7, 9)
    pull = rng(3).standard_normal((7, 2))
    gradient = network.backward(LAYERS, theta, x, hidden, pull)
    by_hand = differences(lambda t: float((pull * naive_network(t, x)).sum()), theta, 1e-6)
    np.testing.assert_allclose(gradient, by_hand, atol=1e-8)


def test_a_start_is_uniform_within_one_over_the_root_of_the_inputs():
    layers = np.array([100, 400, 3], dtype=np.int64)
    theta = network.start(layers, rng(4))
    first, second = theta[: 400 * 101], theta[400 * 101 :]
    for part, fan_in in ((first, 100), (second, 400)):
        scaled = part * math.sqrt(fan_in)
        assert np.abs(scaled).max() <= 1.0 and np.abs(scaled).max() > 0.98
        assert np.mean(scaled**2) == pytest.approx(1 / 3, abs=4 * 0.3 / math.sqrt(len(part)))


def test_adam_is_adam():
    theta, mean, square = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    expected, m, v = theta.copy(), np.zeros(2), np.zeros(2)
    for step in range(1, 6):
        gradient = np.array([0.3 * step, -1.0 / step])
        network.adam(theta, gradient, mean, square, 0.01, step)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        expected -= 0.01 * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        np.testing.assert_allclose(theta, expected, atol=1e-15)
