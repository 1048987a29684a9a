"""The trace and its hash: equal numbers have equal hashes, and nothing else has."""

from dataclasses import replace

import numpy as np
import pytest

from sims.engine import Replicate, Stop, Trace, spread_steps, thin
from sims.engine.trace import assemble

STEP = np.array([0, 5, 10])


def trace(**changes):
    whole = Trace(
        step=STEP,
        series={"loss": np.array([[3.0, 2.0, 1.0], [3.0, 2.5, np.nan]]), "norm": np.ones((2, 3))},
        finals={"beta": np.arange(8.0).reshape(2, 4), "flips": np.array([1.0, 2.0])},
        frame_step=np.array([0, 10]),
        frames={"beta": np.arange(8.0).reshape(2, 4)},
        stopped=(None, Stop(7, "grew")),
    )
    return replace(whole, **changes)


def test_equal_traces_hash_equal_whatever_the_order_of_names_and_of_bytes():
    plain = trace()
    swapped = trace(series=dict(reversed(plain.series.items())), finals=dict(reversed(plain.finals.items())))
    big_endian = trace(series={name: a.astype(">f8") for name, a in plain.series.items()})
    strided = trace(series={name: np.asfortranarray(a) for name, a in plain.series.items()})
    assert plain.sha256 == swapped.sha256 == big_endian.sha256 == strided.sha256


def test_every_nan_is_one_nan():
    series = {name: a.copy() for name, a in trace().series.items()}
    odd = np.array([0xFFF8000000000001], dtype=np.uint64).view(np.float64)[0]
    series["loss"][1, 2] = odd
    assert np.isnan(odd) and trace(series=series).sha256 == trace().sha256


@pytest.mark.parametrize(
    "changes",
    [
        {"step": STEP + 1},
        {"series": {**trace().series, "norm": np.nextafter(np.ones((2, 3)), 2)}},
        {"series": {"loss": trace().series["loss"]}},
        {"series": {"loss": trace().series["norm"], "norm": trace().series["loss"]}},
        {"finals": {**trace().finals, "flips": np.array([1, 2])}},
        {"finals": {**trace().finals, "beta": np.arange(8.0).reshape(2, 2, 2)}},
        {"frames": {"beta": np.zeros((2, 4))}},
        {"frame_step": np.array([0, 5])},
        {"stopped": (None, None)},
        {"stopped": (None, Stop(8, "grew"))},
        {"stopped": (None, Stop(7, "shrank"))},
    ],
)
def test_any_difference_shows_in_the_hash(changes):
    assert trace(**changes).sha256 != trace().sha256


def test_a_replicate_hash_is_that_of_the_replicate_alone():
    whole = trace()
    alone = trace(
        series={name: a[1:] for name, a in whole.series.items()},
        finals={name: a[1:] for name, a in whole.finals.items()},
        frames={},
        frame_step=STEP[:0],
        stopped=whole.stopped[1:],
    )
    assert alone.replicate_sha256 == whole.replicate_sha256[1:]
    assert whole.replicate_sha256[0] != whole.replicate_sha256[1]


def test_assemble_stacks_replicates_and_keeps_the_frames_of_the_first():
    records = np.arange(12.0).reshape(2, 2, 3)
    frames = {"beta": np.zeros((1, 4))}
    replicates = [Replicate({"x": 1.0}, np.array([0]), frames), Replicate({"x": 2}, stopped=Stop(3, "grew"))]
    whole = assemble(STEP, ("a", "b"), records, replicates)
    np.testing.assert_array_equal(whole.series["b"], records[:, 1])
    np.testing.assert_array_equal(whole.finals["x"], [1.0, 2.0])
    assert whole.frames["beta"].shape == (1, 4) and whole.stopped == (None, (3, "grew"))
    assert whole.replicates == 2


@pytest.mark.parametrize("steps", [1, 2, 3, 59, 200, 201, 12345, 10**9])
def test_recorded_steps_are_few_increasing_and_hold_both_ends(steps):
    chosen = spread_steps(steps)
    assert chosen[0] == 0 and chosen[-1] == steps and len(chosen) <= 261
    assert np.all(np.diff(chosen) > 0) and chosen.dtype == np.int64
    few = thin(chosen)
    assert few[0] == 0 and few[-1] == steps and len(few) <= 120 and set(few) <= set(chosen)


def test_more_than_four_hundred_recorded_steps_are_refused():
    with pytest.raises(ValueError, match="at most 400"):
        spread_steps(10_000, linear=400)
