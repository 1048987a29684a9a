"""The augmentation graph with torch against the kernels: every graph, every training, and the edges."""

import numpy as np
import pytest

from sims.augmentation_graph import full_scale
from sims.engine import execute, get_lab
from sims.engine.backends import choose

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
