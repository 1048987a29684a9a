"""XOR clusters with torch against the kernel in every mode, and brute force against what it must be."""

import numpy as np
import pytest
import torch

from sims.engine import execute, get_lab
from sims.engine.backends import choose
from sims.engine.confirmations import Place
from sims.engine.on_device import chi_square, device_generator
from sims.xor_grokking.full_scale import Cell, run_brute, run_cell

LAB = get_lab("xor_grokking")
SMALL = {"n_train": 40, "width": 20, "n_test": 200, "steps": 40, "replicates": 2, "dim": 10_000}
MODES = {
    "stratified": {},
    "iid labels": {"label_sampler": "iid"},
    "iid signs": {"output_signs": "iid"},
    "direct": {"data_mode": "direct", "dim": 3000},
    "few dimensions": {"data_mode": "direct", "dim": 12, "label_sampler": "iid", "n_train": 64},
    "large start": {"init_ratio": 10.0, "dim": 10**6},
    "huge dimension": {"dim": 10**12, "signal": 8.0},
    "no signal": {"signal": 0.0, "label_flip_prob": 0.0},
    "large step": {"first_step_margin": 8.0},
    "more test points than fit at once": {"n_test": 1200},
}


def both(changes, dtype="float64"):
    params = LAB.params.make({**SMALL, **changes})
    kernel = execute(LAB, params, fresh=True)
    batch = execute(LAB, params, fresh=True, backend=choose("torch", "cpu", dtype))
    assert (kernel.provenance["backend"], batch.provenance["backend"]) == ("numba", "torch")
    return kernel.trace, batch.trace


@pytest.mark.parametrize("mode", MODES)
def test_float64_repeats_the_kernel(mode):
    kernel, batch = both(MODES[mode])
    for ours, theirs in ((batch.series, kernel.series), (batch.finals, kernel.finals), (batch.frames, kernel.frames)):
        for name, values in ours.items():
            np.testing.assert_allclose(values, theirs[name], rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("mode", MODES)
def test_float32_follows_to_the_horizon_of_the_theorem(mode):
    """Up to sqrt(n) steps within 1e-3, half a test point of these 200 and less."""
    kernel, batch = both(MODES[mode], "float32")
    before = kernel.step <= np.sqrt({**SMALL, **MODES[mode]}["n_train"])
    for name, values in batch.series.items():
        np.testing.assert_allclose(values[:, before], kernel.series[name][:, before], rtol=0, atol=1e-3, err_msg=name)


# -- confirmations -------------------------------------------------------------------------------------------------

BRUTE = {"n_train": 24, "dim": 900, "width": 16, "signal": 3.0, "steps": 30, "n_test": 40, "seed": 5}


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-12), ("float32", 1e-4)])
def test_brute_force_and_inner_products_are_the_same_training(dtype, bound):
    found = run_brute(BRUTE, f"{dtype} 0", Place("cpu"))
    assert 0 < found.numbers["difference"] < bound and found.dtype == dtype
    series = found.numbers["series"]
    assert series["train_accuracy"][-1] == 1.0 and found.samples == 24 * 30


def test_another_run_is_another_draw_and_the_same_run_the_same():
    one, again, other = (run_brute(BRUTE, f"float64 {r}", Place("cpu")).numbers for r in (0, 0, 1))
    assert one == again != other


@pytest.mark.slow
def test_a_cell_has_the_law_of_the_lab():
    """64 seeds of a cell on the device against 64 replicates of the lab: late error within 4 standard errors."""
    cell = Cell(40, 2.0)
    settings = {"width": 50, "steps": 60, "seed": 1, "dtype": "float64", "seeds": 64, "n_test": 400}
    train, error = run_cell(cell, settings, "cpu", (40, 0))
    params = LAB.params.make(n_train=40, signal=2.0, dim=cell.dim, width=50, steps=60, n_test=400, replicates=64)
    run = execute(LAB, params)
    for ours, name in ((1.0 - error, "late_test_accuracy"), (train, "step_one_train_accuracy")):
        theirs = run.values[name]
        se = np.hypot(np.std(ours, ddof=1), np.std(theirs, ddof=1)) / 8.0
        assert abs(np.mean(ours) - np.mean(theirs)) < 4.0 * se + 1e-12, name


def test_chi_squares_of_the_device():
    """Mean dof, variance 2 dof: 20,000 draws at three sizes, within 4 standard errors."""
    dof = torch.tensor([3.0, 40.0, 1e6], dtype=torch.float64).expand(20_000, 3).contiguous()
    drawn = chi_square(dof, device_generator("cpu", 1, 2)).numpy()
    n = len(drawn)
    for column, k in zip(drawn.T, (3.0, 40.0, 1e6), strict=True):
        assert abs(np.mean(column) - k) < 4.0 * np.sqrt(2.0 * k / n)
        assert abs(np.var(column) / (2.0 * k) - 1.0) < 4.0 * np.sqrt((2.0 + 12.0 / k) / n)
