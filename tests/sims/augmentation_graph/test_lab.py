"""The lab's parameters, its limits, and what must be seen, setting by setting."""

import math

import numpy as np
import pytest

from sims.augmentation_graph import prediction, training
from sims.augmentation_graph.lab import LAB, LEAST_PAIRS, _eigenpairs
from sims.engine import BadInput, budget, execute
from sims.graphs import generators, probe, spectrum

make = LAB.params.make
CUBE = (0.02, 0.05, 0.05, 0.1, 0.2, 0.25, 0.3, 0.35)
DISTINCT = (0.02, 0.05, 0.05, 0.1, 0.25, 0.3, 0.35, 0.4)
STAIRCASE = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4)
EIGEN = {"training": "eigen", "replicates": 1}
SIXTY = {"nodes_per_block": 5}  # N = 60


def seen(**changes):
    """A run and its (m,) error of the probe on 1, 2, ... eigenvectors."""
    run = execute(LAB, make(changes))
    return run, run.trace.finals["probe_mse_by_k"][0]


# -- parameters and limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"leak_within": 0.7, "leak": 0.4}, ["leak_within = 0.7", "leaves 0.6", "Lower one"]),
        ({"subclusters": 1}, ["leak_within = 0.1", "no other one", "subclusters to 2"]),
        ({"leak": 1.1}, ["leak = 1.1", "from 0 to 1"]),
        ({"leak": -0.1}, ["leak = -0.1"]),
        ({"n_features": 65}, ["n_features = 65", "from 1 to 64"]),
        ({"nodes_per_block": 1, "n_features": 13}, ["n_features = 13", "12 nodes", "12 or less"]),
        ({"graph": "ring", "arcs": 7}, ["arcs = 7", "240 nodes", "arcs to 6", "238"]),
        ({"graph": "ring", "ring_nodes": 7, "arcs": 2}, ["arcs = 2", "Set ring_nodes to"]),
        ({"graph": "ring", "window": 120}, ["window = 120", "240 nodes", "window to 119"]),
        ({"graph": "hypercube", "cube_dim": 3}, ["flip_probs", "each of the 3 bits"]),
        ({"graph": "hypercube", "flip_probs": (0.1, 1.2)}, ["flip_probs = 0.1,1.2", "from 0 to 1"]),
        ({"graph": "hypercube", "label_bits": (0, 0)}, ["label_bits", "different bits"]),
        ({"graph": "hypercube", "label_bits": (8,)}, ["label_bits", "from 0 to 7"]),
        ({"graph": "hypercube", "label_bits": (0.5,)}, ["label_bits", "whole numbers"]),
        ({"graph": "hypercube", "label_bits": (0, 1), "cube_label": "majority"}, ["label_bits", "odd number"]),
        ({"graph": "hypercube", "cube_dim": 12}, ["training = sgd", "16777216", "training to eigen"]),
        ({"graph": "gaussian", "noise_std": 0.05, "grid_points": 100}, ["noise_std", "spacing of", "grid_points"]),
        ({"graph": "glyphs", "glyphs": 3, "glyph_set": "one_symmetric"}, ["glyphs = 3", "glyphs to 5"]),
        ({"graph": "glyphs", "colours": 1}, ["colour_swap = 0.3", "no other", "colours to 2"]),
        ({"graph": "glyphs", "colours": 1, "colour_swap": 0.0, "glyph_label": "colour"}, ["colours = 1", "told apart"]),
        ({"learning_rate": float("nan")}, ["learning_rate"]),
        ({"batch": 1}, ["batch = 1", "from 2 to 4096"]),
        ({"ring_nodes": 240}, ["ring_nodes = 240", "only when graph is ring"]),
        ({"training": "eigen", "learning_rate": 0.1}, ["learning_rate = 0.1", "only when training is"]),
        ({"training": "sgd", "width": 64}, ["width = 64", "only when training is network"]),
    ],
)
def test_bad_input_is_refused_with_a_way_out(changes, words):
    with pytest.raises(BadInput) as refusal:
        make(changes)
    for word in words:
        assert word in str(refusal.value)


def test_the_advice_is_accepted():
    assert make(graph="ring", arcs=6).n_classes == 6 and make(graph="ring", ring_nodes=238, arcs=7).n_classes == 7
    assert make(nodes_per_block=1, n_features=12).nodes == 12
    assert make(graph="hypercube", cube_dim=12, training="eigen").nodes == 4096


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"graph": "ring"},
        {"graph": "hypercube"},
        {"graph": "gaussian"},
        {"graph": "glyphs"},
        {"graph": "glyphs", "glyph_set": "one_symmetric"},
        {"graph": "glyphs", "glyph_set": "two_symmetric", "rotations": 6},
    ],
)
def test_the_params_count_the_nodes_and_entries_of_the_graph(changes):
    params = make({**EIGEN, **changes})
    graph = training.graph_of(params)
    assert graph.nodes == params.nodes and graph.aug.nnz <= params.entries and graph.classes == params.n_classes
    assert 0.9 * params.entries < graph.aug.nnz * params.nodes / graph.nodes or params.symmetry != (1,) * 6


def test_fewer_flip_probabilities_than_bits_are_repeated_in_turn():
    assert make(graph="hypercube", cube_dim=5, flip_probs=(0.1, 0.2)).flips == (0.1, 0.2, 0.1, 0.2, 0.1)


def test_a_cut_through_very_many_copies_is_refused_with_a_way_out():
    """A cube of flips of one half has rank 1, which is fine; a ring that is not augmented is 2000 copies of 1."""
    params = make(**EIGEN, graph="hypercube", cube_dim=12, flip_probs=(0.5,), n_features=3)
    assert training.setting(params).next_value == 0.0, "beyond the rank the features are zero, not a choice"
    unchanged = make(**EIGEN, graph="ring", ring_nodes=2000, window=0, arcs=4, n_features=3)
    with pytest.raises(BadInput, match=r"n_features = 3 .*copies"):
        training.setting(unchanged)


def test_features_beyond_the_rank_are_zero_and_harmless():
    run, mse = seen(**EIGEN, nodes_per_block=5, n_features=20)
    assert run.values["loss"][0] == pytest.approx(run.prediction.prediction["min_loss"], abs=1e-10)
    np.testing.assert_allclose(run.trace.finals["feature_eigenvalues"][0, 12:], 0.0, atol=1e-12)
    np.testing.assert_allclose(mse[3:], 0.0, atol=1e-10)


def test_a_degenerate_cut_has_no_angle_and_says_why():
    run, _ = seen(**EIGEN, n_features=3)
    assert run.values["gap"][0] < 1e-12
    assert np.isnan(run.trace.series["subspace_tan"]).all() and np.isnan(run.values["subspace_sine"]).all()
    flow = execute(LAB, make(n_features=3, training="gradient_flow", steps=50, replicates=1))
    assert flow.prediction.prediction["subspace_tan"] is None
    assert "not unique" in flow.prediction.about["subspace_tan"].reason
    assert np.isfinite(flow.values["loss"][0])


def test_the_default_page_is_cheap_and_a_large_graph_is_announced():
    default, large = (
        budget.estimate(LAB, make(), workers=1),
        budget.estimate(LAB, make(steps=10_000_000), workers=1),
    )
    assert large.seconds > 1000 * default.seconds and default.bytes < 1e9


LARGE_EIGENSPACES = [
    {},
    {"classes": 10, "subclusters": 10, "nodes_per_block": 3, "n_features": 20},
    {"classes": 20, "subclusters": 1, "leak_within": 0.0, "leak": 0.0},
    {"graph": "ring", "window": 0},
    {"graph": "hypercube", "cube_dim": 9, "flip_probs": (0.1,), "n_features": 20},
    {"graph": "hypercube", "flip_probs": (0.0,)},
    {"graph": "glyphs", "glyph_swap": 0.0, "colour_swap": 0.0},
]


@pytest.mark.parametrize("changes", LARGE_EIGENSPACES)
def test_the_estimate_counts_the_copies_of_an_eigenvalue(changes):
    """All copies are held, turned and probed: 240 of the default ring without a window, for 18 of the default graph."""
    params = make(changes, training="eigen")
    counted = _eigenpairs(params, max(LEAST_PAIRS, params.n_features + 4))
    assert counted == pytest.approx(len(training.setting(params).level), rel=0.2)


# -- spectra, losses and probes --------------------------------------------------------------------------------


def test_nested_blocks():
    run, mse = seen(**EIGEN, nodes_per_block=25)
    values = run.trace.finals["eigenvalues"][0]
    np.testing.assert_allclose(values[:12], [1.0, *[0.8961777777777777] * 3, *[0.6561] * 8], atol=1e-10)
    np.testing.assert_allclose(values[12:], 0.0, atol=1e-10)
    np.testing.assert_allclose(mse[:6], [0.75, 0.5, 0.25, 0.0, 0.0, 0.0], atol=1e-10)
    assert run.values["phi"][0] == pytest.approx(0.0778666666666667, abs=1e-10)


@pytest.mark.parametrize(
    ("k", "loss", "bound"),
    [(1, -1.0, 0.75), (2, -1.803135, None), (3, -2.606269, None), (4, -3.409404, 0.2264), (5, -3.839871, None),
     (8, -5.131273, None), (12, -6.853142, 0.0779)],
)  # fmt: skip
def test_the_least_loss_of_nested_blocks_and_its_bound(k, loss, bound):
    run, _ = seen(**EIGEN, nodes_per_block=25, n_features=k)
    assert run.values["loss"][0] == pytest.approx(loss, abs=5e-7)
    assert run.values["loss"][0] == pytest.approx(run.prediction.prediction["min_loss"], abs=1e-10)
    assert run.values["probe_mse"][0] <= run.values["probe_bound"][0] + 1e-12
    assert bound is None or run.values["probe_bound"][0] == pytest.approx(bound, abs=1e-4)


def test_the_loss_is_a_low_rank_factorisation():
    here = training.setting(make(nodes_per_block=25, n_features=12))
    Abar = here.graph.dense()[1]
    for k in (2, 4, 12):
        F = generators.np.random.default_rng(k).standard_normal((300, k)) * 0.1
        expected = np.sum((Abar - F @ F.T) ** 2) - np.sum(Abar**2)
        assert training.loss(here, F) == pytest.approx(expected, rel=1e-11)


def test_the_ring_has_no_cliff():
    run, mse = seen(**EIGEN, graph="ring", n_features=15)
    expected = [0.833333, 0.529352, 0.301328, 0.166163, 0.109118, 0.096942, 0.096942, 0.090721]
    np.testing.assert_allclose(mse[:15:2], expected, atol=1e-6)
    assert run.values["phi"][0] == pytest.approx(0.0740741, abs=1e-6)
    assert run.values["alpha"][0] == pytest.approx(0.0555556, abs=1e-6)
    assert run.trace.finals["probe_error_by_k"][0, 2] == 0.0, "and yet the argmax is right from k = 3 on"


def test_the_cube_learns_characters():
    run, mse = seen(**EIGEN, graph="hypercube", flip_probs=CUBE, n_features=1)
    top = [1, 0.9216, 0.81, 0.81, 0.746496, 0.746496, 0.6561, 0.64]
    np.testing.assert_allclose(run.trace.finals["eigenvalues"][0, :8], top, atol=1e-10)
    np.testing.assert_allclose(mse[:2], [0.5, 0.0], atol=1e-10)
    assert run.values["probe_bound"][0] == pytest.approx(0.5, abs=1e-10)
    majority, _ = seen(**EIGEN, graph="hypercube", label_bits=(0, 1, 2), cube_label="majority")
    assert majority.values["phi"][0] == pytest.approx(0.1067173, abs=1e-6)


def test_the_gaussian_ladder_on_a_grid():
    run, _ = seen(**EIGEN, graph="gaussian", n_features=5)
    values, r = run.trace.finals["eigenvalues"][0], 1.5**2 / (1.5**2 + 0.8**2)
    np.testing.assert_allclose(values[:4], r ** np.arange(4), atol=1e-7)
    assert values[5] == pytest.approx(r**5, abs=5e-7)


def test_two_gaussians_carry_a_ladder_each():
    run, _ = seen(**EIGEN, graph="gaussian", separation=3.0, signal_std=1.0, n_features=2)
    values = run.trace.finals["eigenvalues"][0]
    assert 1 - values[1] == pytest.approx(0.018670, abs=1e-3) and 1 - values[1] <= 2 * run.values["phi"][0]
    assert 2 * run.values["phi"][0] == pytest.approx(0.030943, abs=1e-4)
    np.testing.assert_allclose(values[2:4], [0.6065, 0.5557], atol=1e-3)
    assert run.prediction.prediction["min_loss"] is None and run.prediction.about["min_loss"].reason


@pytest.mark.parametrize(
    ("glyph_set", "seventh", "nodes"),
    [("distinct", 0.7285534, 720), ("one_symmetric", 0.7116976, 660), ("two_symmetric", 0.6948418, 570)],
)
def test_glyphs_and_their_symmetries(glyph_set, seventh, nodes):
    run, mse = seen(**EIGEN, graph="glyphs", glyph_set=glyph_set, n_features=6)
    values = run.trace.finals["eigenvalues"][0]
    np.testing.assert_allclose(values[1:6], 0.861184, atol=1e-10)
    np.testing.assert_allclose(values[6:8], seventh, atol=1e-7)
    np.testing.assert_allclose(mse[:6], 1 - np.arange(1, 7) / 6, atol=1e-10)
    assert run.values["n_nodes"][0] == nodes and run.values["eigenvalue_error"][0] < 1e-12
    assert run.values["phi"][0] == pytest.approx(0.11568, abs=1e-10)


def test_colour_as_the_label_is_learned_by_nobody():
    """The pure colour modes are numbers 55 and 56."""
    run, mse = seen(**EIGEN, graph="glyphs", glyph_label="colour", n_features=56)
    np.testing.assert_allclose(mse[:54], 2 / 3, atol=1e-10)
    np.testing.assert_allclose(mse[54:56], [1 / 3, 0.0], atol=1e-10)
    assert run.values["phi"][0] == pytest.approx(0.465, abs=1e-10)


def test_rotations_of_one_symmetric_glyph_are_those_of_the_folded_ring():
    graph = generators.glyph_images((generators._glyphs.STROKES["Z"],), 8, 1, 1, 0.0, 0.0)
    values = spectrum.dense(graph, 4).values
    assert graph.nodes == 4
    np.testing.assert_allclose(values, [1.0, 0.25, 0.25, 0.0], atol=1e-12)


def test_wrong_order_spends_features_on_sub_clusters():
    run, mse = seen(**EIGEN, leak_within=0.005, leak=0.1, n_features=12)
    np.testing.assert_allclose(run.trace.finals["eigenvalues"][0, [1, 9]], [0.7965563, 0.7511111], atol=1e-6)
    np.testing.assert_allclose(mse[:12], [0.75] * 9 + [0.5, 0.25, 0.0], atol=1e-10)


@pytest.mark.parametrize("leak", [0.0, 0.04, 0.0809, 0.0811, 0.3, 0.44])
def test_the_bound_turns_vacuous_long_before_the_error_does(leak):
    run, _ = seen(**EIGEN, leak=leak)
    assert run.values["probe_mse"][0] == pytest.approx(0.0, abs=1e-10)
    assert (2 * run.values["probe_bound"][0] >= 0.75) == (leak > 0.081)
    beyond, _ = seen(**EIGEN, leak=0.46)
    assert beyond.values["probe_mse"][0] == pytest.approx(0.75, abs=1e-10)


def test_the_argmax_error_falls_before_the_cliff():
    """C = 10, Haar-random class directions, 60 replicates: .90 .80 .55 .32 .16 .065 .022 .006 .000 0 within .03."""
    run = execute(LAB, make(training="eigen", classes=10, n_features=10, replicates=60))
    mean = run.trace.finals["probe_error_by_k"][:, :10].mean(axis=0)
    expected = [0.90, 0.80, 0.55, 0.32, 0.16, 0.065, 0.022, 0.006, 0.0, 0.0]
    np.testing.assert_allclose(mean, expected, atol=0.03)
    mse = run.trace.finals["probe_mse_by_k"][:, :10]
    np.testing.assert_allclose(mse, np.tile(1 - np.arange(1, 11) / 10, (60, 1)), atol=1e-10)


def test_bounds_are_never_violated_on_random_graphs():
    """40 sparse graphs, k = 1..14, three inequalities each: none violated."""
    rng, checks = np.random.default_rng(7), 0
    for _ in range(40):
        graph = generators.sparse_random(rng)
        pairs = spectrum.dense(graph, 16)
        Abar = graph.dense()[1]
        U = probe.targets(graph.label, 3, graph.w)
        phi = 1 - np.sum(U * (Abar @ U))
        stays = graph.kernel.toarray() * (graph.nat_label[:, None] == graph.label[None, :])
        alpha = 1 - graph.p_nat @ stays.sum(axis=1)
        for k in range(1, min(15, graph.nodes)):
            F = pairs.vectors[:, :k]
            mse, wrong = probe.error(F, graph.label, 3, graph.w)
            vote = probe.vote_error(F, graph.label, 3, graph.w, graph.kernel, graph.p_nat, graph.nat_label)
            assert mse <= phi / (1 - pairs.values[k]) + 1e-12
            assert wrong <= 2 * mse + 1e-12 and vote <= 2 * (wrong + alpha) + 1e-12
            checks += 3
    assert checks == 40 * 14 * 3


# -- training --------------------------------------------------------------------------------------------------


def test_gradient_flow_follows_the_closed_form():
    """N = 60, k = 6, F0 = 1e-3 normal, dt = .005 up to t = 6: the loss within 1e-7, masses within 1e-7."""
    params = make(
        **SIXTY, n_features=6, training="gradient_flow", init_scale=1e-3, learning_rate=0.3, steps=1200, replicates=2
    )
    run = execute(LAB, params)
    assert run.trace.series["time"][0, -1] == pytest.approx(6.0)
    for name in ("loss", "mode_mass_1", "mode_mass_2", "mode_mass_3"):
        predicted = run.prediction.prediction[name]
        np.testing.assert_allclose(run.trace.series[name].mean(axis=0), predicted, atol=1e-7)


@pytest.mark.parametrize(("integrator", "dt", "tolerance"), [("rk4", 0.005, 1e-6), ("euler", 0.001, 0.01)])
def test_the_angle_follows_the_span_formula(integrator, dt, tolerance):
    params = make(
        **SIXTY, training="gradient_flow", init_scale=1e-3, learning_rate=60 * dt, steps=round(6 / dt), replicates=1,
        integrator=integrator,
    )  # fmt: skip
    run = execute(LAB, params)
    tangent, predicted = run.trace.series["subspace_tan"][0], run.prediction.prediction["subspace_tan"]
    np.testing.assert_allclose(tangent, predicted, rtol=tolerance)
    bound = tangent[0] * np.exp(-4 * 0.24008 * run.trace.series["time"][0])
    assert np.all(tangent <= bound * (1 + 1e-3))


def test_a_table_of_ends_decomposes_each_graph_once(monkeypatch):
    """Three leaks, four numbers of features, in an order in which the leak changes fastest."""
    decomposed, real = [], spectrum.top
    monkeypatch.setattr(spectrum, "top", lambda graph, *rest: decomposed.append(graph.nodes) or real(graph, *rest))
    prediction._all_pairs.cache_clear()
    points = [make(nodes_per_block=6, leak=leak, n_features=k) for k in (1, 3, 4, 6) for leak in (0.02, 0.05, 0.2)]
    LAB.predict_ends(points)
    assert decomposed == [72, 72, 72]


def test_modes_switch_on_at_their_half_times():
    run = execute(LAB, LAB.focus(LAB.preset("staircase")))
    expected = [1.727, 1.863, 2.100, 2.264, 2.611, 2.816]
    found = [run.values[f"half_time_{i}"][0] for i in range(1, 7)]
    np.testing.assert_allclose(found, expected, rtol=0.005)
    predicted = [run.prediction.prediction[f"half_time_{i}"] for i in range(1, 7)]
    np.testing.assert_allclose(predicted, expected, atol=6e-4)
    assert run.prediction.prediction["half_time_7"] is None


def test_half_times_of_nested_blocks_by_euler():
    params = make(
        **SIXTY, n_features=12, training="gradient_flow", integrator="euler", start="planted", init_scale=1e-3,
        learning_rate=0.06, steps=4000, replicates=1,
    )  # fmt: skip
    run = execute(LAB, params)
    found = [run.values[f"half_time_{i}"][0] for i in (1, 2, 3)]
    np.testing.assert_allclose(found, [1.730, 1.915, 2.555], rtol=1e-3)
    np.testing.assert_allclose(found, [1.7269, 1.9117, 2.5518], rtol=5e-3)


@pytest.mark.slow
def test_the_noise_floor_of_sgd():
    """N = 60, t = 267, 5 seeds: sin .0890(8) and .0635(11), excess .0345(15) and .0159(7) at eta 1 and .5."""
    found = {}
    for rate in (1.0, 0.5):
        run = execute(LAB, make(**SIXTY, learning_rate=rate, steps=round(267 * 60 / rate), replicates=5))
        found[rate] = run.values["late_subspace_sine"].mean(), run.values["late_excess_loss"].mean()
    assert found[1.0][0] == pytest.approx(0.0890, abs=0.005) and found[0.5][0] == pytest.approx(0.0635, abs=0.005)
    assert found[1.0][0] / found[0.5][0] == pytest.approx(1.40, abs=0.1)
    assert found[1.0][1] / found[0.5][1] == pytest.approx(2.2, abs=0.3)


@pytest.mark.slow
def test_the_network_spans_the_top_characters():
    """8-128-128-6, 3000 steps of Adam: loss within .01 of the least, R^2 of the six above .99, of the seventh below."""
    run = execute(LAB, LAB.focus(LAB.preset("network")))
    assert run.values["loss"][0] == pytest.approx(-4.27606, abs=0.01)
    r2 = run.trace.finals["mode_r2"][0]
    assert (r2[:6] > 0.99).all() and (r2[6:] < 0.01).all()
    lam = run.trace.finals["eigenvalues"][0, :6]
    np.testing.assert_allclose(run.trace.finals["feature_eigenvalues"][0], lam, atol=0.03)


def test_the_empirical_graph_costs_one_over_n():
    """Cube d = 8, k = 6, 6 draws at n = 256 and 4096: slope of log excess over log n is -1 within .25."""
    graph = generators.hypercube(DISTINCT, (0,))
    here = training.setting(make(**EIGEN, graph="hypercube", flip_probs=DISTINCT, n_features=6))
    least = -np.sum(here.pairs.values[:6] ** 2)
    rng, excess = np.random.default_rng(11), {}
    for n in (256, 4096):
        found = []
        for _ in range(6):
            drawn = generators.empirical(graph, rng.integers(0, 256, n))
            assert drawn.nodes == 256
            pairs = spectrum.dense(drawn, 6)
            f = pairs.vectors * np.sqrt(pairs.values) / np.sqrt(drawn.w)[:, None]
            found.append(training.loss(here, f * np.sqrt(graph.w)[:, None]) - least)
        excess[n] = np.mean(found)
    slope = math.log(excess[4096] / excess[256]) / math.log(16)
    assert slope == pytest.approx(-1.0, abs=0.25) and 10 < 4096 * excess[4096] < 25


def test_clipping_keeps_the_embedding_short():
    free = execute(LAB, make(**SIXTY, steps=2000, replicates=1))
    short = execute(LAB, make(**SIXTY, steps=2000, replicates=1, clip_norm=1.0))
    assert short.values["loss"][0] > free.values["loss"][0] + 0.3
