"""Graphs of classes in domains, their eigenpairs, and heads on features: against loops over the definitions."""

import numpy as np
import pytest

from sims.engine.trace import Monitor
from sims.graphs import descent, domains, spectrum

WEIGHTS = (0.8, 0.1, 0.08, 0.02)


def rng(seed=0):
    return np.random.Generator(np.random.Philox(seed))


def some_features(graph, k, seed=1):
    return rng(seed).standard_normal((graph.nodes, k))


@pytest.fixture(scope="module")
def drawn():
    """Three classes in two domains, 15 nodes a block, N = 90."""
    return domains.sampled(3, 2, 15, rng(3), 0.5, 0.2, 0.3, 0.1)


# -- graphs ----------------------------------------------------------------------------------------------------------


def test_the_population_is_the_matrix_of_weights_over_its_row_sum():
    graph = domains.population(3, 2, *WEIGHTS)
    A = graph.abar.toarray()
    Z = 0.8 + 0.1 + 2 * 0.08 + 2 * 0.02
    for i in range(6):
        for j in range(6):
            weight = WEIGHTS[2 * (i // 2 != j // 2) + (i % 2 != j % 2)]
            assert A[i, j] == pytest.approx(weight / Z, abs=1e-15)
    assert (graph.label == [0, 0, 1, 1, 2, 2]).all() and (graph.domain == [0, 1] * 3).all()
    assert graph.w.sum() == pytest.approx(1.0) and graph.per_block == 1 and graph.lonely == 0


def test_edges_are_drawn_with_their_probabilities():
    """Seed 3, 40 nodes a block: the share of edges between every two blocks within 4 standard errors."""
    n, P = 40, domains.block_weights(3, 2, 0.5, 0.2, 0.3, 0.1)
    graph = domains.sampled(3, 2, n, rng(3), 0.5, 0.2, 0.3, 0.1)
    joined = graph.abar.toarray() > 0
    assert (joined == joined.T).all() and not joined.diagonal().any()
    for a in range(6):
        for b in range(6):
            pairs = n * (n - 1) / 2 if a == b else n * n
            count = joined[a * n : (a + 1) * n, b * n : (b + 1) * n].sum() / (2 if a == b else 1)
            assert abs(count / pairs - P[a, b]) < 4 * np.sqrt(P[a, b] * (1 - P[a, b]) / pairs)
    degree = joined.sum(axis=1)
    np.testing.assert_allclose(graph.w, degree / degree.sum(), atol=1e-15)
    np.testing.assert_allclose(graph.abar.toarray(), joined / np.sqrt(np.outer(degree, degree)), atol=1e-15)


def test_a_node_without_edges_has_one_to_itself_and_is_counted():
    graph = domains.sampled(2, 2, 3, rng(), 0.0, 0.0, 0.0, 0.0)
    assert graph.lonely == 12
    np.testing.assert_array_equal(graph.abar.toarray(), np.eye(12))
    few = domains.sampled(2, 2, 3, rng(5), 0.1, 0.0, 0.0, 0.05)
    alone = few.abar.diagonal() == 1.0
    assert 0 < few.lonely < 12 and few.lonely == alone.sum() and np.all(few.w > 0)


def test_the_tables_of_edges_are_those_of_a_random_walk(drawn):
    cumulative, _, indptr, indices, rows, _ = drawn.edges
    W = drawn.abar.toarray() * np.sqrt(np.outer(drawn.w, drawn.w))
    np.testing.assert_allclose(W.sum(axis=1), drawn.w, atol=1e-15)
    np.testing.assert_allclose(cumulative, np.cumsum(drawn.w), atol=1e-15)
    for x in (0, 17, 89):
        at = slice(indptr[x], indptr[x + 1])
        np.testing.assert_allclose(rows[at], np.cumsum(W[x, indices[at]] / drawn.w[x]), atol=1e-12)


def test_the_loss_is_its_two_expectations(drawn):
    F = 0.3 * some_features(drawn, 4)
    f = F / np.sqrt(drawn.w)[:, None]
    W = drawn.abar.toarray() * np.sqrt(np.outer(drawn.w, drawn.w))
    expected = -2 * np.sum(W * (f @ f.T)) + np.sum(np.outer(drawn.w, drawn.w) * (f @ f.T) ** 2)
    assert drawn.loss(F) == pytest.approx(expected, rel=1e-12)


# -- eigenpairs ------------------------------------------------------------------------------------------------------


def test_a_large_graph_has_the_eigenpairs_of_a_dense_solver():
    """N = 300, seven of them; the smallest eigenvalues are negative and none is among these."""
    graph = domains.sampled(3, 2, 50, rng(2), 0.5, 0.2, 0.3, 0.1)
    assert graph.nodes > domains.DENSE_NODES
    pairs = domains.solve(graph, 7)
    values, vectors = np.linalg.eigh(graph.abar.toarray())
    np.testing.assert_allclose(pairs.values, values[::-1][:7], atol=1e-9)
    overlap = np.abs(np.sum(pairs.vectors * vectors[:, ::-1][:, :7], axis=0))
    np.testing.assert_allclose(overlap, 1.0, atol=1e-7)
    assert values[0] < -0.1


def test_features_of_negative_eigenvalues_are_zero():
    graph = domains.population(2, 2, 0.1, 0.8, 0.8, 0.1)
    F = domains.minimiser(domains.solve(graph, 4), 4)
    assert (np.linalg.norm(F, axis=0) > 1e-9).tolist() == [True, False, False, False]


def test_energies_are_those_of_the_projectors(drawn):
    V = rng(4).standard_normal((90, 5))
    r, m, n = 3, 2, 15
    J = [np.full((size, size), 1.0 / size) for size in (r, m, n)]
    parts = [(J[0], J[1]), (np.eye(r) - J[0], J[1]), (J[0], np.eye(m) - J[1]), (np.eye(r) - J[0], np.eye(m) - J[1])]
    for found, (a, b) in zip(domains.group_energies(drawn, V), parts, strict=True):
        P = np.kron(np.kron(a, b), J[2])
        np.testing.assert_allclose(found, np.sum((P @ V) ** 2, axis=0), atol=1e-12)


def test_what_a_span_holds_of_each_group():
    graph = domains.population(3, 2, *WEIGHTS)
    pairs = domains.solve(graph, 6)
    np.testing.assert_allclose(domains.kept_shares(graph, domains.minimiser(pairs, 4)), [1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(domains.kept_shares(graph, domains.minimiser(pairs, 5)), [1, 1, 0.5], atol=1e-12)
    turned = domains.minimiser(pairs, 4) @ spectrum.random_rotation(4, rng())
    np.testing.assert_allclose(domains.kept_shares(graph, turned), [1, 1, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("weights", "k", "groups"),
    [
        (WEIGHTS, 3, set()),
        ((0.8, 0.05, 0.08, 0.05), 3, {"class", "interaction"}),
        ((0.8, 0.05, 0.08, 0.05), 2, set()),
        ((0.8, 0.05, 0.08, 0.05), 4, set()),
        ((0.8, 0.1, 0.05, 0.05), 3, {"domain", "interaction"}),
        ((0.8, 0.1, 0.1, 0.1), 2, {"class", "domain", "interaction"}),
        ((0.8, 0.0, 0.1, 0.0), 1, {"constant", "domain"}),
        ((0.1, 0.8, 0.8, 0.1), 3, set()),
    ],
)
def test_a_cut_through_an_eigenvalue_of_several_groups_is_noticed(weights, k, groups):
    graph = domains.population(2, 2, *weights)
    assert domains.mixed_groups(graph, domains.solve(graph, 4), k) == groups


def test_values_of_the_groups():
    """Of the population its eigenvalues; of a sampled graph Rayleigh quotients, near them: within 0.05."""
    graph = domains.population(3, 2, 0.5, 0.2, 0.3, 0.1)
    exact = domains.group_values(graph)
    values = domains.solve(graph, 6).values
    np.testing.assert_allclose(sorted([1.0, *exact[[0, 0, 1, 2, 2]]]), np.sort(values), atol=1e-12)
    large = domains.sampled(3, 2, 100, rng(1), 0.5, 0.2, 0.3, 0.1)
    np.testing.assert_allclose(domains.group_values(large), exact, atol=0.05)


def test_descent_reaches_the_minimiser_on_average():
    """Four nodes, 4000 steps of 64 pairs at a rate of 0.02: the loss is within 0.02 of the least one."""
    graph = domains.population(2, 2, *WEIGHTS)
    monitor = Monitor(np.zeros(1, np.uint8), np.zeros(1, np.int64), np.zeros((1, 1)))
    settings, seeds = domains.Descent(0.02, 64, 0.1), {"init": 1, "first_end": 2, "second_end": 3}
    advance, look = domains.descend(graph, 3, settings, lambda name: rng(seeds[name]), monitor)
    start = look()
    assert np.std(start) == pytest.approx(0.05, rel=0.6) and advance(0, 4000) == (descent.DONE, 4000)
    least = -np.sum(domains.solve(graph, 4).values[:3] ** 2)
    assert 0.0 <= graph.loss(look()) - least < 0.02 < graph.loss(start) - least


# -- heads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_least_squares_is_the_minimum_of_its_loss(drawn, ridge):
    f = some_features(drawn, 4)
    W = domains.least_squares(drawn, f, ridge)
    X, Y = f[drawn.domain == 0], np.eye(3)[drawn.label[drawn.domain == 0]] - 1 / 3
    gradient = X.T @ (X @ W - Y) / len(X) + ridge * W
    np.testing.assert_allclose(gradient, 0.0, atol=1e-12)


def test_of_heads_that_fit_the_smallest_is_taken():
    graph = domains.population(2, 2, *WEIGHTS)
    f = some_features(graph, 6)
    W = domains.least_squares(graph, f)
    X, Y = f[[0, 2]], np.array([[0.5, -0.5], [-0.5, 0.5]])
    np.testing.assert_allclose(X @ W, Y, atol=1e-12)
    np.testing.assert_allclose(W, X.T @ np.linalg.solve(X @ X.T, Y), atol=1e-12)


def test_averaged_features_are_preconditioned_means(drawn):
    f = some_features(drawn, 4)
    moment = sum(w * np.outer(one, one) for w, one in zip(drawn.w, f, strict=True))
    for t in (1, 3):
        for c in range(3):
            mean = f[(drawn.label == c) & (drawn.domain == 0)].mean(axis=0)
            expected = np.linalg.matrix_power(moment, t - 1) @ mean
            np.testing.assert_allclose(domains.averaged(drawn, f, t)[:, c], expected, atol=1e-12)


def test_ties_count_as_chance():
    scores = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1e-12, -1.0]])
    assert domains.accuracy(scores, np.array([0, 0, 2, 0])) == pytest.approx((0.5 + 0 + 1 / 3 + 0.5) / 4)
    assert domains.accuracy(np.zeros((4, 2)), np.array([0, 1, 0, 1])) == 0.5


def test_a_head_without_any_contrast_in_the_source_has_no_gain():
    graph = domains.population(2, 2, *WEIGHTS)
    found = domains.transfer(graph, np.zeros((4, 2)))
    assert np.isnan(found.gain) and found.target == found.source == 0.5
    right = domains.transfer(graph, graph.contrasts * np.where(graph.domain == 0, 1.0, -0.25)[:, None])
    assert right == (0.0, 1.0, pytest.approx(-0.25))


def test_domains_are_told_where_features_hold_them_and_else_by_chance():
    graph = domains.population(2, 2, *WEIGHTS)
    one, c, d = np.ones(4), np.array([1.0, 1, -1, -1]), np.array([1.0, -1, 1, -1])
    assert domains.domain_accuracy(graph, np.stack([one, c, d], axis=1)) == 1.0
    assert domains.domain_accuracy(graph, np.stack([one, c, c * d], axis=1)) == 0.5
    assert domains.domain_accuracy(graph, np.stack([one, c, 1e-5 * d + c * d], axis=1)) == 0.5, "almost nothing"


# -- geometry --------------------------------------------------------------------------------------------------------


def test_distances_are_means_over_pairs_of_blocks():
    graph = domains.sampled(3, 4, 5, rng(2), 0.5, 0.2, 0.3, 0.1)
    f = some_features(graph, 3)
    M = np.array([[f[(graph.label == c) & (graph.domain == d)].mean(axis=0) for d in range(4)] for c in range(3)])
    apart = [np.sum((M[c, d] - M[c, e]) ** 2) for c in range(3) for d in range(4) for e in range(4) if d != e]
    classes = [np.sum((M[c, d] - M[b, d]) ** 2) for d in range(4) for c in range(3) for b in range(3) if b != c]
    np.testing.assert_allclose(domains.squared_distances(graph, f), [np.mean(apart), np.mean(classes)], rtol=1e-12)


def test_places_of_the_minimiser_are_roots_of_eigenvalues_and_the_line_is_the_heads():
    graph = domains.population(2, 2, *WEIGHTS)
    f = 2.0 * domains.minimiser(domains.solve(graph, 4), 3) @ spectrum.random_rotation(3, rng(6))
    W = domains.least_squares(graph, f)
    found = domains.placed(graph, f, W, domains.shown_nodes(graph, 400))
    lam = domains.group_values(graph)
    expected = graph.functions * np.sqrt([lam[0], lam[1], 0.0])
    np.testing.assert_allclose(found["nodes"], expected, atol=1e-12)
    line = found["line"]
    np.testing.assert_allclose(line[0] + found["nodes"] @ line[1:], f @ (W[:, 0] - W[:, 1]), atol=1e-12)
    np.testing.assert_allclose(line, [0.0, 1.0 / np.sqrt(lam[0]), 0.0, 0.0], atol=1e-12)


def test_nothing_measured_depends_on_the_rotation(drawn):
    f = some_features(drawn, 4)
    turned = f @ spectrum.random_rotation(4, rng(8))
    for head in (lambda x: domains.least_squares(drawn, x), lambda x: domains.averaged(drawn, x, 2)):
        assert domains.transfer(drawn, f @ head(f)) == pytest.approx(domains.transfer(drawn, turned @ head(turned)))
        for name, values in domains.placed(drawn, f, head(f), np.arange(90)).items():
            np.testing.assert_allclose(
                values, domains.placed(drawn, turned, head(turned), np.arange(90))[name], atol=1e-9
            )
    assert domains.domain_accuracy(drawn, f) == domains.domain_accuracy(drawn, turned)
    np.testing.assert_allclose(domains.squared_distances(drawn, f), domains.squared_distances(drawn, turned))


def test_shown_nodes_are_few_and_spread():
    graph = domains.sampled(2, 2, 30, rng(), 0.5, 0.2, 0.3, 0.1)
    assert domains.shown_nodes(graph, 400).tolist() == list(range(120))
    few = domains.shown_nodes(graph, 13)
    assert few[0] == 0 and few[-1] == 119 and len(few) == 13
