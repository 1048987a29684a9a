"""The eigensolver against dense algebra, and the graphs on which a solver can lose copies of an eigenvalue."""

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator, eigsh

from sims.graphs import generators, glyphs, spectrum
from sims.graphs.spectrum import (
    NotConverged,
    by_circulant,
    by_factor,
    by_modes,
    complement,
    iterated,
    lanczos,
    verified,
)

CUBE = (0.02, 0.05, 0.05, 0.1, 0.2, 0.25, 0.3, 0.35)


def rng(seed=0):
    return np.random.Generator(np.random.Philox(seed))


def graphs():
    T = np.random.default_rng(5).dirichlet(np.ones(6), 6)
    pi = np.random.default_rng(6).dirichlet(np.ones(6))
    letters = tuple(glyphs.STROKES[letter] for letter in "FJZ")
    return {
        "blocks": generators.blocks(4, 3, 5, 0.1, 0.04),
        "unequal blocks": generators.unequal_blocks(pi, T, np.array([3, 1, 4, 1, 5, 9]), np.arange(6) // 2),
        "even ring": generators.ring(generators.window_kernel(24, 2), 6),
        "odd ring": generators.ring(generators.window_kernel(45, 3), 5),
        "lopsided ring": generators.ring(np.random.default_rng(1).dirichlet(np.ones(12)), 3),
        "cube": generators.hypercube((0.1, 0.1, 0.25, 0.4, 0.5), (0, 1)),
        "gaussian": generators.gaussian(1.5, 0.8, 0.0, 90),
        "glyphs": generators.glyph_images(glyphs.strokes(3), 4, 4, 2, 0.06, 0.3),
        "symmetric glyphs": generators.glyph_images(letters, 4, 4, 2, 0.06, 0.3),
        "sampled": generators.sampled_blocks(60, np.random.default_rng(3)),
        "sparse": generators.sparse_random(np.random.default_rng(4)),
    }


@pytest.mark.parametrize("name", graphs())
def test_every_route_agrees_with_dense_algebra(name):
    """Eigenvalues to 1e-12, vectors orthonormal with residual 1e-11, for a few, for many and for all."""
    graph = graphs()[name]
    Abar = graph.dense()[1]
    exact = np.linalg.eigvalsh(Abar)[::-1]
    for count in (1, 4, graph.nodes // 2, graph.nodes):
        pairs = spectrum.top(graph, count, rng())
        np.testing.assert_allclose(pairs.values, exact[:count], atol=1e-12)
        np.testing.assert_allclose(pairs.vectors.T @ pairs.vectors, np.eye(count), atol=1e-10)
        np.testing.assert_allclose(Abar @ pairs.vectors, pairs.vectors * pairs.values, atol=1e-11)


@pytest.mark.parametrize("name", graphs())
def test_every_operator_is_the_dense_matrix(name):
    graph = graphs()[name]
    Abar, X = graph.dense()[1], rng(1).standard_normal((graph.nodes, 3))
    np.testing.assert_allclose(by_factor(graph.factor, X), Abar @ X, atol=1e-13)
    if graph.modes:
        np.testing.assert_allclose(by_modes(graph.modes, X), Abar @ X, atol=1e-13)
    if graph.circulant is not None:
        np.testing.assert_allclose(by_circulant(graph.circulant, X), Abar @ X, atol=1e-13)


def test_modes_of_any_side_are_multiplied_in_the_order_of_the_kronecker_product():
    mats = tuple(rng(side).standard_normal((side, side)) for side in (3, 1, 2, 5))
    full = np.ones((1, 1))
    for one in mats:
        full = np.kron(full, one)
    X = rng(2).standard_normal((30, 4))
    np.testing.assert_allclose(by_modes(mats, X), full @ X, atol=1e-13)


@pytest.mark.parametrize(("bits", "columns"), [(1, 1), (2, 1), (3, 1), (4, 1), (7, 1), (8, 3), (5, 2)])
def test_two_butterflies_in_one_pass_are_bit_for_bit_one_after_the_other(bits, columns):
    """The rule is written out for each mode: a sum from zero over the two entries, in order."""
    mats = [rng(bit).standard_normal((2, 2)) for bit in range(bits)]
    expected = rng(9).standard_normal((2**bits, columns))
    X = np.asfortranarray(expected)
    for bit, M in enumerate(mats):
        pairs = expected.reshape(2**bit, 2, -1)
        expected = np.stack([(0.0 + row[0] * pairs[:, 0]) + row[1] * pairs[:, 1] for row in M], axis=1)
    assert by_modes(tuple(mats), X).tobytes() == expected.reshape(2**bits, columns).tobytes()


def test_the_quotient_has_the_spectrum_of_six_unequal_blocks():
    graph = graphs()["unequal blocks"]
    small = spectrum.quotient(graph.p_nat, graph.transition)
    full = np.linalg.eigvalsh(graph.dense()[1])[::-1]
    np.testing.assert_allclose(np.linalg.eigvalsh(small)[::-1], full[:6], atol=1e-14)
    np.testing.assert_allclose(full[6:], 0.0, atol=1e-14)


def test_large_blocks_never_build_a_matrix_of_nodes():
    graph = generators.blocks(10, 10, 2000, 0.1, 0.04)
    assert graph.aug is None and graph.nodes == 200_000
    small = spectrum.quotient(graph.p_nat, graph.transition)
    values = np.linalg.eigvalsh(small)[::-1]
    np.testing.assert_allclose(values[1:10], (1 - 0.04 * 10 / 9) ** 2, atol=1e-12)


# -- traps -------------------------------------------------------------------------------------------------------


def cube_of_twelve():
    graph = generators.hypercube((0.1,) * 12, (0,))
    exact = np.concatenate([[1.0], np.full(12, 0.64)])
    return graph, lambda X: by_modes(graph.modes, X), exact


def naive(apply, nodes, count, seed, **more):
    start = np.random.default_rng(seed).standard_normal(nodes)
    operator = LinearOperator((nodes, nodes), matvec=lambda x: apply(x.reshape(-1, 1))[:, 0], dtype=float)
    values, vectors = eigsh(operator, k=count, which="LA", v0=start, **more)
    order = np.argsort(-values)
    return values[order], vectors[:, order]


@pytest.mark.slow
def test_a_naive_solver_loses_copies_on_the_cube_and_the_check_says_so():
    """d = 12, all flip probabilities 0.1, k = 13, tol = 0: the thirteenth value comes out as .4096, not .64."""
    _, apply, exact = cube_of_twelve()
    wrong = 0
    for seed in range(2):
        values, vectors = naive(apply, 4096, 13, seed, tol=0)
        residual = np.linalg.norm(apply(vectors) - vectors * values, axis=0).max()
        missed = complement(apply, vectors, values[-1], rng(seed))
        if values[-1] < 0.5:
            wrong += 1
            assert residual < 1e-10, "its residuals look perfect"
            assert missed is not None and float((missed.T @ apply(missed))[0, 0]) == pytest.approx(0.64, abs=1e-3)
        else:
            np.testing.assert_allclose(values, exact, atol=1e-10)
            assert missed is None
    assert wrong >= 1


def test_the_iterated_solver_finds_all_twelve_copies():
    _, apply, exact = cube_of_twelve()
    for seed in range(2):
        pairs = iterated(apply, 4096, 13, rng(seed))
        np.testing.assert_allclose(pairs.values, exact, atol=1e-10)
        assert complement(apply, pairs.vectors, pairs.values[-1], rng(seed)) is None


def test_a_lanczos_run_that_lost_copies_is_not_believed():
    """The solver loses them too, in one try from one vector, notices, and iterates a block; else it does not."""
    _, apply, exact = cube_of_twelve()
    assert lanczos(apply, 4096, 13, rng(1)).values[-1] < 0.5
    np.testing.assert_allclose(verified(apply, 4096, 13, rng(1)).values, exact, atol=1e-10)
    graph = generators.sampled_blocks(300, np.random.default_rng(3))
    calls = []

    def counted(X):
        calls.append(X.shape[1])
        return by_factor(graph.factor, X)

    found = verified(counted, graph.nodes, 10, rng(1))
    np.testing.assert_allclose(found.values, spectrum.dense(graph, 10).values, atol=1e-10)
    assert set(calls) == {1}, "no block was iterated"


def test_a_block_smaller_than_the_multiplicity_is_repaired_by_the_check():
    """One eigenvalue with 40 copies, asked for 5: any five are right; planted copies are taken from the complement."""
    exact = np.concatenate([np.full(40, 0.9), np.linspace(0.5, 0.0, 60)])
    basis = np.linalg.qr(rng(7).standard_normal((100, 100)))[0]
    matrix = (basis * exact) @ basis.T
    pairs = iterated(lambda X: matrix @ X, 100, 5, rng(8))
    np.testing.assert_allclose(pairs.values, 0.9, atol=1e-10)
    some = basis[:, [0, 1, 2, 50, 51]]
    missed = complement(lambda X: matrix @ X, some, 0.5, rng(9))
    assert missed is not None and np.abs(some.T @ missed).max() < 1e-10
    assert float((missed.T @ matrix @ missed)[0, 0]) == pytest.approx(0.9, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_loose_lanczos_is_wrong_on_the_ring_where_every_route_here_is_right(seed):
    """Ring N = 240, r = 4, k = 9: tol = 1e-8 with the default basis loses copies, the routes here do not."""
    graph = generators.ring(generators.window_kernel(240, 4), 6)

    def apply(X):
        return by_circulant(graph.circulant, X)

    exact = np.linalg.eigvalsh(graph.dense()[1])[::-1][:9]
    values, _ = naive(apply, 240, 9, seed, tol=1e-8)
    assert np.abs(values - exact).max() > 0.1
    np.testing.assert_allclose(spectrum.top(graph, 9, rng(seed)).values, exact, atol=1e-13)
    np.testing.assert_allclose(iterated(apply, 240, 9, rng(seed)).values, exact, atol=1e-9)


def test_the_iterated_solver_says_when_it_does_not_converge():
    graph = generators.ring(generators.window_kernel(1024, 2), 4)
    with pytest.raises(NotConverged, match="ends at a gap"):
        iterated(lambda X: by_circulant(graph.circulant, X), 1024, 6, rng(), most_rounds=3)


def test_a_graph_of_low_rank_has_nothing_in_its_complement():
    graph = generators.blocks(3, 2, 4, 0.1, 0.1)
    Abar = graph.dense()[1]
    vectors = np.linalg.eigh(Abar)[1][:, ::-1][:, :6]
    assert complement(lambda X: Abar @ X, vectors, 0.1, rng()) is None


def test_unstructured_graphs_beyond_the_dense_size_are_iterated(monkeypatch):
    graph = generators.sampled_blocks(400, np.random.default_rng(3))
    exact = spectrum.dense(graph, 12)
    monkeypatch.setattr(spectrum, "DENSE_NODES", 10)
    found = spectrum.top(graph, 12, rng())
    np.testing.assert_allclose(found.values, exact.values, atol=1e-10)


# -- eigenspaces -------------------------------------------------------------------------------------------------


def test_copies_of_an_eigenvalue_are_one_level():
    values = np.array([1.0, 0.9, 0.9 - 1e-13, 0.5, 0.0, 0.0])
    np.testing.assert_array_equal(spectrum.levels(values), [0, 1, 1, 2, 3, 3])
    assert len(spectrum.levels(np.zeros(0))) == 0


def test_a_random_basis_spans_the_same_eigenspaces_and_is_uniform():
    """First entry of a uniform direction in 3 dimensions: mean square 1/3; 4000 draws, s.e. .0047, within 4 s.e."""
    graph = generators.blocks(4, 3, 5, 0.1, 0.04)
    pairs = spectrum.top(graph, 12, rng())
    turned = spectrum.turned(pairs, rng(3))
    Abar = graph.dense()[1]
    np.testing.assert_allclose(Abar @ turned.vectors, turned.vectors * pairs.values, atol=1e-12)
    np.testing.assert_allclose(turned.vectors[:, 0], pairs.vectors[:, 0], atol=1e-14)
    assert np.abs(turned.vectors[:, 1] - pairs.vectors[:, 1]).max() > 1e-3
    generator = rng(4)
    first = np.array([spectrum.random_rotation(3, generator)[0] for _ in range(4000)])
    for column in range(3):
        assert np.mean(first[:, column] ** 2) == pytest.approx(1 / 3, abs=4 * 0.0047)
        assert np.mean(first[:, column]) == pytest.approx(0.0, abs=4 * 0.577 / 4000**0.5)
