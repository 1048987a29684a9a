"""Every generator against a graph built node by node from its definition."""

import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import norm

from sims.engine import BadInput
from sims.graphs import generators, glyphs
from sims.graphs.generators import Graph

CUBE = (0.02, 0.05, 0.05, 0.1, 0.2, 0.25, 0.3, 0.35)


def consistent(graph: Graph, tolerance: float = 1e-13) -> np.ndarray:
    """What every graph must satisfy; returns Abar from the definition."""
    aug = graph.kernel.toarray()
    np.testing.assert_allclose(aug.sum(axis=1), 1.0, atol=1e-12)
    assert graph.p_nat.sum() == pytest.approx(1.0) and (aug >= 0).all()
    W = aug.T @ (graph.p_nat[:, None] * aug)
    assert W.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(graph.w, W.sum(axis=1), atol=tolerance)
    Abar = W / np.sqrt(np.outer(graph.w, graph.w))
    B = graph.factor.toarray()
    np.testing.assert_allclose(B.T @ B, Abar, atol=tolerance)
    np.testing.assert_allclose(graph.dense()[1], Abar, atol=tolerance)
    np.testing.assert_allclose(Abar @ np.sqrt(graph.w), np.sqrt(graph.w), atol=1e-12)
    assert graph.label.shape == graph.w.shape and graph.nat_label.shape == graph.p_nat.shape
    assert graph.label.max() < graph.classes and graph.inputs.shape[0] == graph.nodes
    return Abar


def crossings(graph: Graph) -> tuple[float, float]:
    """phi and alpha from the definition."""
    W, aug = graph.dense()[0], graph.kernel.toarray()
    phi = W[graph.label[:, None] != graph.label[None, :]].sum()
    alpha = (graph.p_nat[:, None] * aug)[graph.nat_label[:, None] != graph.label[None, :]].sum()
    return float(phi), float(alpha)


def modes_product(graph: Graph) -> np.ndarray:
    found = np.ones((1, 1))
    for mode in graph.modes:
        found = np.kron(found, mode)
    return found


def test_blocks_are_the_nested_block_model():
    C, s, m, a1, a2 = 4, 3, 5, 0.1, 0.04
    graph = generators.blocks(C, s, m, a1, a2)
    consistent(graph)
    for n, x in product(range(C * s), range(C * s * m)):
        own, block = n // s, x // m
        if block == n:
            chance = 1 - a1 - a2
        elif block // s == own:
            chance = a1 / (s - 1)
        else:
            chance = a2 / ((C - 1) * s)
        assert graph.kernel[n, x] == pytest.approx(chance / m, abs=1e-15)
    assert crossings(graph) == pytest.approx((0.0778666666666667, a2), abs=1e-12)
    np.testing.assert_array_equal(graph.label, np.repeat(np.arange(C), s * m))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((4, 3, 5, 0.7, 0.4), ["leak_within = 0.7", "at most 0.6", "Lower"]),
        ((4, 1, 5, 0.1, 0.1), ["leak_within", "no other one", "subclusters to 2"]),
        ((1, 3, 5, 0.1, 0.1), ["leak = 0.1", "classes to 2"]),
    ],
)
def test_leaks_without_a_place_to_go_are_refused(arguments, words):
    with pytest.raises(BadInput) as refusal:
        generators.blocks(*arguments)
    assert all(word in str(refusal.value) for word in words)


def test_unequal_blocks_and_an_isolated_one():
    rng = np.random.default_rng(0)
    T, pi = rng.dirichlet(np.ones(6), 6), rng.dirichlet(np.ones(6))
    graph = generators.unequal_blocks(pi, T, np.array([3, 1, 4, 1, 5, 9]), np.array([0, 0, 1, 1, 2, 2]))
    consistent(graph)
    T = np.array([[1.0, 0.0], [1.0, 0.0]])
    with pytest.raises(BadInput, match="no view ever falls on block 1"):
        generators.unequal_blocks(np.full(2, 0.5), T, np.array([2, 2]), np.arange(2))


def test_isolated_nodes_are_dropped():
    aug = np.array([[0.5, 0.0, 0.5, 0.0], [0.0, 0.0, 1.0, 0.0]])
    label = np.array([0, 1, 1, 0])
    graph, kept = generators.from_kernel(np.array([0.25, 0.75]), aug, label, np.array([0, 1]), 2)
    np.testing.assert_array_equal(kept, [0, 2])
    np.testing.assert_array_equal(graph.label, [0, 1])
    np.testing.assert_allclose(graph.w, [0.125, 0.875])
    with pytest.raises(BadInput, match="sum to 1"):
        generators.from_kernel(np.array([0.25, 0.75]), 2 * aug, label, np.array([0, 1]), 2)


def test_the_ring_shifts_by_at_most_its_window():
    N, r, C = 24, 2, 6
    graph = generators.ring(generators.window_kernel(N, r), C)
    consistent(graph)
    for n, x in product(range(N), range(N)):
        near = min((n - x) % N, (x - n) % N) <= r
        assert graph.kernel[n, x] == pytest.approx(near / (2 * r + 1), abs=1e-15)
    phi, alpha = crossings(graph)
    draws = range(-r, r + 1)
    assert phi == pytest.approx(C * np.mean([abs(a - b) for a in draws for b in draws]) / N, abs=1e-12)
    assert alpha == pytest.approx(C * np.mean(np.abs(draws)) / N, abs=1e-12)


def test_any_kernel_of_shifts_makes_a_ring():
    kernel = np.random.default_rng(1).dirichlet(np.ones(12))
    graph = generators.ring(kernel, 3)
    consistent(graph)
    assert graph.kernel[2, 7] == pytest.approx(kernel[5]) and graph.kernel[7, 2] == pytest.approx(kernel[7])


def test_a_ring_that_does_not_divide_is_refused_with_a_way_out():
    with pytest.raises(BadInput, match=r"arcs = 7 .*arcs to 6"):
        generators.ring(generators.window_kernel(240, 4), 7)
    with pytest.raises(BadInput, match="window to 5"):
        generators.window_kernel(11, 6)


@pytest.mark.parametrize("rule", ["parity", "majority"])
def test_the_hypercube_flips_every_bit_on_its_own(rule):
    q, bits = (0.1, 0.2, 0.35, 0.0), (0, 2, 3)
    graph = generators.hypercube(q, bits, rule)
    Abar = consistent(graph)
    np.testing.assert_allclose(modes_product(graph), Abar, atol=1e-14)
    signs = np.array(list(product([1, -1], repeat=4)))
    np.testing.assert_array_equal(graph.inputs, signs)
    for n, x in product(range(16), range(16)):
        chance = math.prod(f if a != b else 1 - f for a, b, f in zip(signs[n], signs[x], q, strict=True))
        assert graph.kernel[n, x] == pytest.approx(chance, abs=1e-15)
    chosen = signs[:, bits]
    y = chosen.prod(axis=1) if rule == "parity" else np.sign(chosen.sum(axis=1))
    np.testing.assert_array_equal(graph.label, (y < 0).astype(int))
    assert crossings(graph)[0] <= 2 * crossings(graph)[1]


def test_the_label_of_a_cube_must_name_bits():
    for bits in ((), (1, 1), (8,), (-1,)):
        with pytest.raises(BadInput, match="label_bits"):
            generators.hypercube(CUBE, bits)
    with pytest.raises(BadInput, match="odd number"):
        generators.hypercube(CUBE, (0, 1), "majority")


def test_a_cube_too_large_for_its_kernel_keeps_its_modes():
    graph = generators.hypercube((0.1,) * 14, (0,))
    assert graph.aug is None and len(graph.modes) == 14 and graph.inputs is None
    with pytest.raises(BadInput, match="spectrum only"):
        _ = graph.kernel


@pytest.mark.parametrize(("mu", "tau"), [(0.0, 1.5), (3.0, 1.0)])
def test_the_gaussian_grid_sums_to_one_and_knows_the_sign(mu, tau):
    sig, points = 0.8, 121
    graph = generators.gaussian(tau, sig, mu, points)
    consistent(graph, tolerance=1e-12)
    assert graph.nodes <= points and graph.w.min() >= generators.LEAST_WEIGHT
    x = graph.inputs[:, 0] * (math.hypot(tau, sig) + mu)
    np.testing.assert_array_equal(graph.label, (x > 0).astype(int))
    spacing = x[1] - x[0]
    density = 0.5 * (norm.pdf(x, mu, math.hypot(tau, sig)) + norm.pdf(x, -mu, math.hypot(tau, sig)))
    np.testing.assert_allclose(graph.w, density * spacing, atol=1e-4)
    rows = graph.kernel.toarray()
    middle = len(rows) // 2
    assert graph.nodes == len(rows)
    expected = np.exp(-0.5 * ((x - x[middle]) / sig) ** 2)
    np.testing.assert_allclose(rows[middle], expected / expected.sum(), atol=1e-13)


def test_a_grid_drops_what_weighs_nothing_and_shows_no_less_noise_than_its_spacing():
    graph = generators.gaussian(1.0, 0.5, 20.0, 800)
    assert graph.nodes < 800, "the valley between the two bumps is empty"
    consistent(graph, tolerance=1e-12)
    with pytest.raises(BadInput, match="spacing"):
        generators.gaussian(1.5, 0.05, 0.0, 100)


# -- glyphs ------------------------------------------------------------------------------------------------------


def glyph_graph(letters, rotations=8, shifts=5, colours=3, swap=0.06, colour_swap=0.3, **more):
    strokes = tuple(glyphs.STROKES[letter] for letter in letters)
    return generators.glyph_images(strokes, rotations, shifts, colours, swap, colour_swap, **more)


def test_glyphs_without_symmetry_are_a_kronecker_product():
    graph = glyph_graph("FJP", 4, 4, 2)
    Abar = consistent(graph)
    assert graph.nodes == 3 * 4 * 4 * 2
    np.testing.assert_allclose(modes_product(graph), Abar, atol=1e-14)
    sizes = (3, 4, 4, 2)
    h_rot, h_shift = {0: 0.5, 1: 0.25, 3: 0.25}, {0: 0.6, 1: 0.2, 3: 0.2}
    rng = np.random.default_rng(2)
    for n, x in rng.integers(0, graph.nodes, (400, 2)):
        (g, r, s, c), (g2, r2, s2, c2) = np.unravel_index(n, sizes), np.unravel_index(x, sizes)
        chance = 0.94 if g == g2 else 0.03
        chance *= h_rot.get((r2 - r) % 4, 0) * h_shift.get((s2 - s) % 4, 0) * (0.7 if c == c2 else 0.3)
        assert graph.kernel[n, x] == pytest.approx(chance, abs=1e-15)
    assert crossings(graph)[1] == pytest.approx(0.06, abs=1e-12)


@pytest.mark.parametrize(("letters", "nodes"), [("FJPRTY", 720), ("FJPRZY", 660), ("FJPRXZ", 570)])
def test_symmetric_glyphs_have_fewer_nodes_and_heavier_ones(letters, nodes):
    graph = glyph_graph(letters)
    assert graph.nodes == nodes and len(graph.p_nat) == 720
    consistent(graph)
    symmetry = np.array([{"Z": 2, "X": 4}.get(letter, 1) for letter in letters])
    np.testing.assert_allclose(graph.w, symmetry[graph.label] / 720, atol=1e-14)
    assert bool(graph.modes) == (nodes == 720)
    np.testing.assert_array_equal(graph.inputs, graph.pixels.reshape(nodes, -1))


@pytest.mark.parametrize(("shifts", "side", "images"), [(5, 10, 720), (4, 8, 576)])
def test_the_six_glyphs_look_different_in_every_position(shifts, side, images):
    graph = glyph_graph("FJPRTY", shifts=shifts, side=side)
    assert graph.nodes == images and graph.pixels.shape == (images, side, side, 3)
    flat = graph.inputs
    square = (flat**2).sum(axis=1)
    distance = square[:, None] + square[None, :] - 2 * flat @ flat.T + 1e9 * np.eye(images)
    assert np.sqrt(distance.min()) > 1.0


def test_two_glyphs_with_an_equal_image_are_refused():
    with pytest.raises(BadInput, match="glyphs 0 and 1 have an equal image"):
        glyph_graph("FF")
    with pytest.raises(BadInput, match="divisor of the side"):
        glyph_graph("FJ", shifts=3, side=10)


def test_a_pixel_is_its_distance_to_the_nearest_stroke():
    """A horizontal stroke through the middle, turned by a quarter: vertical; values along the line by hand."""
    bar = ((-0.5, 0.0, 0.5, 0.0),)
    flat, turned = glyphs.draw(bar, 0.0, 10), glyphs.draw(bar, math.pi / 2, 10)
    np.testing.assert_allclose(turned, flat.T, atol=1e-12)
    centre = (np.arange(10) + 0.5) / 10 * 2 - 1
    for i, y in enumerate(-centre):
        for j, x in enumerate(centre):
            distance = math.hypot(max(abs(x) - 0.5, 0.0), y)
            assert flat[i, j] == pytest.approx(min(1.0, max(0.0, 1 - (distance - 0.08) * 5)), abs=1e-12)
    upright = glyphs.draw(glyphs.STROKES["T"], 0.0, 10)
    assert upright[:3].sum() > 2 * upright[-3:].sum(), "the bar of a T is on top"


def test_more_glyphs_are_polylines_of_their_number():
    first, again = glyphs.strokes(9), glyphs.strokes(12)[:9]
    assert first == again and len(first[7]) == 3 and len(set(first)) == 9
    points = np.random.Generator(np.random.Philox(6)).uniform(-0.7, 0.7, (4, 2))
    assert first[6][1] == (*points[1], *points[2])
    graph = generators.glyph_images(glyphs.strokes(8), 4, 1, 1, 0.1, 0.0)
    assert graph.nodes == 32


def test_the_side_of_an_image_is_a_multiple_of_its_shifts():
    for shifts in range(1, 10):
        side = glyphs.side_for(shifts)
        assert side % shifts == 0 and 8 <= side <= 16
    assert glyphs.side_for(5) == 10 and glyphs.side_for(4) == 8


# -- graphs without structure ------------------------------------------------------------------------------------


def test_sampled_blocks_add_repeated_views_up():
    graph = generators.sampled_blocks(200, np.random.default_rng(3))
    aug = graph.kernel
    assert aug.shape[0] == 400 and np.allclose(aug.sum(axis=1), 1.0)
    np.testing.assert_allclose(aug.data * 8, np.round(aug.data * 8), atol=1e-12)
    home = graph.label[aug.indices] == np.repeat(graph.nat_label, np.diff(aug.indptr))
    share = float(np.sum(aug.data * home) / 400)
    assert share == pytest.approx(1 - 0.15 * 0.9, abs=4 * math.sqrt(0.135 * 0.865 / 3200))


def test_a_sparse_random_graph_labels_nodes_by_their_heaviest_class():
    graph = generators.sparse_random(np.random.default_rng(4))
    aug = graph.kernel.toarray()
    mass = np.stack([(graph.p_nat * (graph.nat_label == c)) @ aug for c in range(3)])
    np.testing.assert_array_equal(graph.label, mass.argmax(axis=0))
    assert graph.w.min() > 0 and graph.nodes <= 40


def test_the_empirical_graph_weighs_repeated_naturals():
    graph = generators.hypercube((0.1, 0.2, 0.3), (0,))
    drawn = np.array([0, 0, 5, 0])
    found = generators.empirical(graph, drawn)
    expected = graph.kernel.toarray()[drawn].mean(axis=0)
    np.testing.assert_allclose(found.w, expected, atol=1e-15)
    np.testing.assert_allclose(found.p_nat, [0.75, 0.25])
