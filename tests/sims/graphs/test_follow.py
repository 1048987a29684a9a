"""A training that is followed: what is recorded and framed at which step, until it ends or diverges."""

import numpy as np
import pytest

from sims.engine.trace import Monitor
from sims.graphs.descent import DIVERGED, DONE
from sims.graphs.follow import follow, resting

STEP = np.array([0, 2, 5, 9])


def watched(series=2):
    return Monitor(np.zeros(1, np.uint8), np.zeros(1, np.int64), np.full((series, len(STEP)), np.nan))


def counter(last=99):
    """A number that grows by one a step, and diverges at `last`."""
    now = np.zeros(1)

    def advance(first, wanted):
        now[0] = min(wanted, last)
        return (DONE, wanted) if wanted < last else (DIVERGED, last)

    return advance, lambda: now.copy()


def squares(x, at):
    return np.array([x[0] ** 2, at])


def test_what_is_recorded_is_what_was_there():
    monitor = watched()
    end = follow(STEP, STEP[[0, 2]], *counter(), squares, lambda x: {"x": x, "twice": 2 * x}, monitor)
    np.testing.assert_array_equal(monitor.records, [STEP**2, STEP])
    np.testing.assert_array_equal(end.frames["x"], [[0], [5]])
    np.testing.assert_array_equal(end.frames["twice"], [[0], [10]])
    assert end.trained == 9 and end.step == 9 and not end.diverged


def test_nothing_is_recorded_after_a_divergence():
    monitor = watched()
    end = follow(STEP, STEP, *counter(4), squares, lambda x: {"x": x}, monitor)
    assert end.diverged and end.step == 4 and end.trained == 2
    np.testing.assert_array_equal(monitor.records, [[0, 4, np.nan, np.nan], [0, 2, np.nan, np.nan]])
    np.testing.assert_array_equal(end.frames["x"], [[0], [2], [np.nan], [np.nan]])


@pytest.mark.parametrize("frames", [STEP[-1:], STEP[:0]])
def test_what_rests_is_measured_once(frames):
    monitor, measured = watched(1), []

    def measure(x, at):
        measured.append(at)
        return x

    advance = resting(monitor)
    end = follow(STEP, frames, advance, lambda: np.ones(1), measure, lambda x: {"x": x}, monitor, moves=False)
    assert measured == [0] and monitor.progress[0] == 9 and end.frames["x"].shape == (len(frames), 1)
    np.testing.assert_array_equal(monitor.records, np.ones((1, 4)))
