"""The augmentation graph with torch against the kernels: every graph, every training, and the edges."""

import numpy as np
import pytest
import torch

from sims.augmentation_graph import full_scale, full_scale_blocks, full_scale_cube, full_scale_glyphs
from sims.engine import execute, get_lab
from sims.engine.backends import choose
from sims.engine.confirmations import Place
from sims.graphs import on_device
from sims.graphs.generators import glyph_images, kronecker
from sims.graphs.glyphs import strokes
from sims.graphs.solver_on_device import beyond
from theory.graphs import population_eigenvalue, sampled_eigenvalue

LAB = get_lab("augmentation_graph")
GRAPHS = {
    "blocks": {},
    "ring": {"graph": "ring", "ring_nodes": 48, "n_features": 5},
    "hypercube": {"graph": "hypercube", "cube_dim": 6, "flip_probs": (0.02, 0.1, 0.3), "n_features": 5},
    "gaussian": {"graph": "gaussian", "grid_points": 120, "n_features": 3},
    "mixture": {"graph": "gaussian", "grid_points": 120, "separation": 3.0, "n_features": 2},
    "glyphs": {"graph": "glyphs", "rotations": 4, "shifts": 2, "colours": 2, "n_features": 6},
    "symmetric glyphs": {"graph": "glyphs", "glyph_set": "one_symmetric", "rotations": 4, "shifts": 2, "colours": 2},
    "two symmetric glyphs": {"graph": "glyphs", "glyph_set": "two_symmetric", "rotations": 4, "shifts": 1},
}
TRAININGS = {
    "eigen": {"training": "eigen"},
    "rk4": {"training": "gradient_flow", "init_scale": 0.02, "learning_rate": 0.5},
    "euler": {"training": "gradient_flow", "integrator": "euler", "init_scale": 0.02, "learning_rate": 0.5},
    "planted": {"training": "gradient_flow", "start": "planted", "init_scale": 0.01, "learning_rate": 0.5},
    "sgd": {"training": "sgd"},
    "planted sgd": {"training": "sgd", "start": "planted"},
    "clipped sgd": {"training": "sgd", "clip_norm": 1.2, "init_scale": 0.5, "batch": 16},
    "network": {"training": "network", "learning_rate": 2e-3, "width": 24, "batch": 24},
    "network on all nodes": {"training": "network", "learning_rate": 2e-3, "width": 24, "batch": 200},
    "clipped network": {"training": "network", "learning_rate": 2e-3, "width": 24, "clip_norm": 0.3},
}
QUICK = {"eigen", "rk4", "sgd", "network"}
CASES = [
    pytest.param(graph, training, marks=() if graph == "blocks" or training in QUICK else pytest.mark.slow)
    for graph in GRAPHS
    for training in TRAININGS
]


def both(changes, dtype="float64"):
    params = LAB.params.make({"steps": 120, "replicates": 3, **changes})
    kernel = execute(LAB, params, fresh=True)
    batch = execute(LAB, params, fresh=True, backend=choose("torch", "cpu", dtype))
    assert (kernel.provenance["backend"], batch.provenance["backend"]) == ("numba", "torch")
    return kernel.trace, batch.trace


def agree(kernel, batch, rtol=1e-9, atol=1e-12):
    assert batch.stopped == kernel.stopped
    for ours, theirs in ((batch.series, kernel.series), (batch.finals, kernel.finals), (batch.frames, kernel.frames)):
        assert list(ours) == list(theirs)
        for name, values in ours.items():
            np.testing.assert_allclose(values, theirs[name], rtol=rtol, atol=atol, err_msg=name)


@pytest.mark.parametrize(("graph", "training"), CASES)
def test_float64_repeats_the_kernel(graph, training):
    agree(*both(GRAPHS[graph] | TRAININGS[training]))


@pytest.mark.parametrize("training", [one for one in TRAININGS if one != "eigen"])
def test_float32_follows(training):
    """Every recorded series within 1e-3 of its largest value, over 120 steps."""
    kernel, batch = both(TRAININGS[training], "float32")
    assert kernel.sha256 != batch.sha256
    for name, values in batch.series.items():
        seen = np.isfinite(kernel.series[name])
        np.testing.assert_array_equal(np.isfinite(values), seen)
        largest = np.max(np.abs(kernel.series[name][seen]), initial=0.0)
        atol = 1e-3 * max(largest, 1e-3)  # an angle that is zero is so to the precision
        np.testing.assert_allclose(values[seen], kernel.series[name][seen], rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("training", ["sgd", "network"])
def test_pairs_drawn_in_several_blocks_are_the_same_pairs(training, monkeypatch):
    monkeypatch.setattr(full_scale, "BLOCK_NUMBERS", 2000)
    agree(*both(TRAININGS[training]))


DIVERGING = {
    "sgd": {"training": "sgd", "learning_rate": 6.0, "batch": 24, "seed": 1},
    "gradient flow": {"training": "gradient_flow", "learning_rate": 22.0, "init_scale": 0.15, "seed": 1},
    "network": {"training": "network", "learning_rate": 2.0, "width": 16, "batch": 8, "seed": 1},
}


@pytest.mark.parametrize("training", DIVERGING)
def test_replicates_that_diverge_stop_at_the_same_step(training):
    """Some of eight do; the others go on as if alone, and what was recorded before is the same."""
    kernel, batch = both({**DIVERGING[training], "replicates": 8, "steps": 200})
    assert 0 < sum(stop is not None for stop in kernel.stopped) < 8
    assert batch.stopped == kernel.stopped
    for name, values in batch.series.items():
        np.testing.assert_array_equal(np.isnan(values), np.isnan(kernel.series[name]))


# -- confirmations -------------------------------------------------------------------------------------------------

CUBE = {**full_scale_cube.CONFIRMATIONS[0].settings, "dim": 6, "count": 9, "extra": 5}
BLOCKS = {**full_scale_blocks.CONFIRMATIONS[0].settings, "nodes": 1200, "batch": 400, "pairs_per_node": 4}
PICTURES = {**full_scale_glyphs.CONFIRMATIONS[0].settings, "steps": 40, "batch": 64, "width": 16}


@pytest.mark.parametrize("most_side", [2, 4, 64])
def test_butterflies_are_the_kronecker_product(most_side):
    modes = [np.array([[1.0 - q, q], [q, 1.0 - q]]) for q in (0.1, 0.2, 0.3, 0.4)]
    apply = on_device.Kronecker(modes, "cpu", "float64", most_side)
    X = torch.randn((2, 16, 3), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    dense = torch.from_numpy(kronecker(modes).toarray())
    np.testing.assert_allclose(apply(X), dense @ X, rtol=1e-13)
    np.testing.assert_allclose(apply.add(X.clone(), X, 0.5), X + 0.5 * dense @ X, rtol=1e-13)


@pytest.mark.parametrize("part", ["distinct", "equal"])
def test_a_small_cube_is_solved_as_a_dense_matrix_is(part):
    found = full_scale_cube.run_part(CUBE, part, Place("cpu")).numbers
    dense = np.ones((1, 1))
    for q in full_scale_cube.flip_probs(CUBE, part):
        one = np.array([[1.0 - q, q], [q, 1.0 - q]])
        dense = np.kron(dense, one @ one)
    expected = np.linalg.eigvalsh(dense)[::-1][:9]
    np.testing.assert_allclose(found["eigenvalues"], expected, rtol=1e-10)
    assert min(found["characters"]) > 1 - 1e-9 and found["beyond"] < expected[-1] + 1e-9


def test_a_missing_copy_is_met_outside_of_what_was_found():
    """Take the second of six copies away: power iteration on the complement meets it."""
    apply = full_scale_cube.cube(np.full(6, 0.1), "cpu")
    vectors = full_scale_cube.walsh(6, "cpu")(torch.eye(64, dtype=torch.float64)[None])[0]
    level = full_scale_cube.over_subsets([1.0] * 6, "cpu", False)
    first = torch.nonzero(level <= 1).flatten()
    noise = torch.Generator().manual_seed(1)
    assert beyond(apply, vectors[:, first], noise) == pytest.approx(0.8**4, abs=1e-6)
    assert beyond(apply, vectors[:, np.delete(first, 1)], noise) == pytest.approx(0.64, abs=1e-6)


def test_a_sampled_graph_is_that_of_its_views():
    """The factor by rows against the definition, repeated views counted."""
    graph = full_scale_blocks.draw_graph({**BLOCKS, "nodes": 60}, "cpu")
    n, V = graph.views.shape
    aug = np.zeros((n, 60))
    np.add.at(aug, (np.arange(n)[:, None], graph.views.numpy()), 1.0 / V)
    W = aug.T @ aug / n
    w = W.sum(axis=1)
    np.testing.assert_allclose(graph.w, w, rtol=1e-12, atol=1e-15)
    scale = np.where(w > 0, 1.0 / np.sqrt(np.maximum(w, 1e-300)), 0.0)
    found = full_scale_blocks.operator(graph, "float64")(torch.eye(60, dtype=torch.float64)[None])[0]
    np.testing.assert_allclose(found, W * np.outer(scale, scale), rtol=1e-12, atol=1e-15)


def test_the_population_is_counted_out_of_a_sampled_eigenvalue():
    for value in (0.9, 0.66, 0.3):
        assert population_eigenvalue(sampled_eigenvalue(value, 8, 16.0), 8, 16.0) == pytest.approx(value, rel=1e-12)
    assert sampled_eigenvalue(1.0, 8, 16.0) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="do not show"):
        sampled_eigenvalue(0.05, 8, 16.0)


def test_pictures_and_pairs_are_those_of_the_graph():
    """Pixels of every node; pairs as often as the kernel says: 40,000 of them, chi-square within 5 standard errors."""
    settings = {**PICTURES, "glyphs": 3, "rotations": 3, "shifts": 2, "colours": 2}
    graph = glyph_images(strokes(3), 3, 2, 2, 0.06, 0.3, side=8)
    pictures = full_scale_glyphs.all_pictures(settings, "cpu")
    pixels = pictures.of(torch.arange(pictures.nodes)).double() * pictures.spread + pictures.mean
    np.testing.assert_allclose(pixels.permute(0, 2, 3, 1), graph.pixels, atol=1e-6)
    first, second = full_scale_glyphs.draw_pairs(settings, 40_000, torch.Generator().manual_seed(1)).numpy()
    W, _ = graph.dense()
    seen, expected = np.zeros_like(W), 40_000 * W
    np.add.at(seen, (first, second), 1.0)
    likely = expected > 5.0
    chi = np.sum((seen - expected)[likely] ** 2 / expected[likely])
    assert abs(chi - likely.sum()) < 5.0 * np.sqrt(2.0 * likely.sum()) and not seen[W == 0].any()


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("batch", [64, 400])
def test_an_encoder_learns_from_pictures(kind, batch):
    """From the batch as it comes and from every picture once: the loss falls, and never below the least."""
    settings = {**PICTURES, "encoders": ["mlp", "conv"], "channels": [4, 8], "batch": batch}
    found = full_scale_glyphs.run_encoder(settings, f"{kind} 0", Place("cpu")).numbers
    assert -4.8 < found["loss"][-1] < found["loss"][0] - 0.1 and len(found["mode_r2"]) == 8


class Stopped(Exception):
    pass


@pytest.mark.parametrize(
    ("run", "settings", "part", "keeps"),
    [
        (full_scale_cube.run_part, {**CUBE, "flow_steps": 60}, "flow", 20),
        (full_scale_cube.run_part, CUBE, "distinct", 1),
        (full_scale_blocks.run_part, BLOCKS, "float32", 8),
        (full_scale_glyphs.run_encoder, PICTURES, "mlp 0", 15),
    ],
)
def test_a_part_that_was_killed_goes_on_to_the_same_numbers(run, settings, part, keeps, tmp_path, monkeypatch):
    whole = run(settings, part, Place("cpu")).numbers
    place = Place("cpu", tmp_path / "state.pt", "this part", 0.0)
    keep, count = Place.keep, [0]

    def stop(self, state):
        keep(self, state)
        count[0] += 1
        if count[0] == keeps:
            raise Stopped

    monkeypatch.setattr(Place, "keep", stop)
    with pytest.raises(Stopped):
        run(settings, part, place)
    monkeypatch.setattr(Place, "keep", keep)
    again = run(settings, part, place).numbers
    for name, value in whole.items():
        np.testing.assert_allclose(again[name], value, rtol=1e-6, atol=1e-6, err_msg=name)
