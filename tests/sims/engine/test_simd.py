"""Eight numbers side by side: one order of every sum, no subnormal squares, vectors at cache lines."""

import numpy as np
from numba import njit

from sims.engine.simd import WIDTH, aligned, any_sign, fused, load, signs, spread, squared, store, store_totals, total
from tests.simd import lane_total, rounded_once


@njit
def lanes_end(x, out):
    """What `total` gives alone beside what `store_totals` gives for four at once."""
    a, b, c, d = load(x, 0), load(x, WIDTH), load(x, 2 * WIDTH), load(x, 3 * WIDTH)
    store_totals(out, 0, a, b, c, d)
    return total(a), total(b), total(c), total(d)


@njit
def squares(x, out):
    for j in range(0, x.size, WIDTH):
        store(out, j, squared(load(x, j)))


@njit
def combined(x, number, out):
    """Every operation between lanes, one result after the other."""
    a, b, one = load(x, 0), load(x, WIDTH), spread(number)
    store(out, 0, a + b)
    store(out, WIDTH, a - b)
    store(out, 2 * WIDTH, a * b)
    store(out, 3 * WIDTH, fused(a, b, one))
    return any_sign(signs(a, b))


def test_vectors_begin_at_a_cache_line():
    arrays = [aligned(size) for size in range(1, 40)]
    assert all(array.ctypes.data % 64 == 0 and not array.any() for array in arrays)


def test_totals_are_added_in_one_order():
    x, out = np.random.default_rng(0).standard_normal(4 * WIDTH), np.empty(4)
    alone = lanes_end(x, out)
    assert tuple(out) == alone == tuple(lane_total(part, np.ones(WIDTH)) for part in x.reshape(4, WIDTH))


def test_each_lane_is_its_own_number():
    x, out = np.random.default_rng(1).random(2 * WIDTH), np.empty(4 * WIDTH)
    assert not combined(x, 0.3, out)
    a, b = x.reshape(2, WIDTH)
    assert np.array_equal(out, np.concatenate([a + b, a - b, a * b, rounded_once(a, b, 0.3)]))
    for lane in range(2 * WIDTH):
        assert combined(np.where(np.arange(2 * WIDTH) == lane, -x, x), 0.3, out)


def test_squares_are_exact_or_nothing():
    """No square is subnormal: with such numbers a step takes seven times as long."""

    edge = 2.0**-511
    x = np.array([0.0, -0.0, edge, -edge, np.nextafter(edge, 0), -np.nextafter(edge, 0), 5e-324, -1e-160])
    x = np.concatenate([x, [1.0, -3.7, 1e-150, 1e200, np.inf, -np.inf, np.nan, 2e-154]])
    out = np.empty_like(x)
    squares(x, out)
    with np.errstate(over="ignore", under="ignore"):
        expected = np.where(np.abs(x) < edge, 0.0, x * x)
    np.testing.assert_array_equal(out, expected)
    assert not np.any((out > 0) & (out < np.finfo(float).tiny))
