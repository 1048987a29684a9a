"""What is timed side by side is the same training."""

import numpy as np
import pytest

from sims.engine import get_lab
from sims.xor_grokking import timing
from sims.xor_grokking.lab import DIRECT_NUMBERS, XorGrokkingParams, flops

make = XorGrokkingParams.make


@pytest.mark.parametrize("changes", [{}, {"width": 71, "output_signs": "iid"}, {"init_ratio": 1.0, "signal": 1.0}])
def test_both_take_the_same_steps(changes):
    """Outputs after 20 steps agree to 1e-10 of the largest, and have moved."""
    params = make(**({"n_train": 40, "dim": 3000, "width": 66} | changes))
    X, W, y, a = timing.in_full(params)
    in_gram = timing.gram_steps(params, X @ X.T, W @ X.T, y, a)
    first = in_gram(1)
    fast = in_gram(19)
    slow = timing.brute_steps(params, X, W.copy(), y, a)(20)
    assert np.max(np.abs(fast - slow)) < 1e-10 * np.max(np.abs(slow))
    assert np.max(np.abs(fast - first)) > 0.1 * np.max(np.abs(fast))


def test_the_points_are_those_of_the_lab():
    params = make(n_train=40, dim=3000, width=10)
    X, W, y, a = timing.in_full(params)
    assert X.shape == (40, 3000) and W.shape == (10, 3000) and y.shape == (40,) and np.sum(a) == 0.0
    assert np.std(W) == pytest.approx(params.init_std, rel=0.03)  # 30 000 normals: standard error 0.4 percent
    assert np.mean(np.abs(X[:, :2] @ np.ones(2))) == pytest.approx(params.mu, rel=0.1)


def test_a_comparison_names_both_and_how_far_they_are_apart():
    row = timing.side_by_side(make(n_train=40, dim=2000, width=10), rounds=1, steps=2)
    assert row.dim == 2000 and row.brute_ms > 0 and row.gram_ms > 0 and row.ratio > 0
    assert row.difference < 1e-10


def test_where_brute_force_does_not_fit_only_gram_space_is_timed():
    params = make(n_train=40, dim=10**9, width=10)
    assert not timing.fits(params) and timing.fits(params.replace(dim=DIRECT_NUMBERS // 40))
    row = timing.side_by_side(params, rounds=1, steps=2)
    assert row.brute_ms is None and row.ratio is None and row.difference is None and row.gram_ms > 0


def test_no_operation_of_a_run_depends_on_the_dimension():
    few, many = (flops(make(n_train=100, width=200, dim=dim)) for dim in (10**4, 10**12))
    assert few == many
    assert get_lab("xor_grokking").work(make(dim=10**4)) == get_lab("xor_grokking").work(make(dim=10**12))
