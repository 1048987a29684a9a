"""What must be seen, setting by setting, and the limits of the parameters."""

import numpy as np
import pytest

from sims.engine import BadInput, execute
from sims.projection_head.lab import LAB

make = LAB.params.make
ROOT = np.array([0.6860, 0.9950, 0.7071, 1.4072])
POST = np.array([0.4706, 0.9901, 0.5, 1.9802])
RANDOM = {"init": "gaussian", "learning_rate": 0.004, "steps": 20_000}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"copies": (1.5,)}, ["copies = ", "whole numbers"]),
        ({"copies": (199.0, 2.0)}, ["copies", "203 features", "200 are possible"]),
        ({"relevant": 5}, ["relevant = 5", "4 kinds", "4 or less"]),
        ({"init": "gaussian", "width": 3}, ["width = 3", "4 or more"]),
        ({"strengths": (0.0, 1.0, 1.0, 0.5)}, ["strengths", "0.01"]),
        ({"n_labelled": 1}, ["n_labelled = 1", "from 2 to 2000"]),
        ({"width": 9}, ["width = 9", "only when init is gaussian"]),
        ({"batch": 9}, ["batch = 9", "only when training is sgd"]),
    ],
)
def test_bad_input_is_refused_with_a_way_out(changes, words):
    with pytest.raises(BadInput) as refusal:
        make(changes)
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_lists_that_are_too_short_repeat_their_last_entry():
    one = make(strengths=(2.0, 0.5), noises=(0.1, 0.2, 0.3, 0.4), copies=(1.0, 3.0))
    assert one.phi == (2.0, 0.5, 0.5, 0.5) and one.nu == (0.1, 0.2, 0.3, 0.4) and one.counts == (1, 3, 1, 1)
    assert make(noises=(0.3,)).nu == (0.3,) * 4


def test_a_single_layer_may_be_narrower_than_its_features():
    assert make(init="gaussian", width=2, layers=1).width == 2


def test_half_times_of_one_layer():
    run = execute(LAB, make(layers=1, init_scale=0.05, learning_rate=2e-4, steps=30_000, replicates=1))
    found = [run.values[f"half_time_{i}"][0] for i in range(1, 5)]
    np.testing.assert_allclose(found, [0.13977, 0.74613, 0.57439, 3.67861], rtol=0.01)


def test_an_undertrained_feature_has_hardly_begun():
    run = execute(LAB, make(init_scale=0.05, replicates=1))
    assert run.values["post_4"][0] == pytest.approx(0.0042, abs=2e-4) and run.values["unconverged"][0] == 1
    assert {v.id: v.verdict for v in run.claims}["post_weights"] == "outside"


@pytest.mark.parametrize("width", [8, pytest.param(16, marks=pytest.mark.slow)])
def test_small_random_starts_are_nearly_balanced(width):
    """20 starts (5 at width 8 when quick): after the head to 1e-4, before it within 11 %, the median within 6 %."""
    run = execute(LAB, make(**RANDOM, init_scale=0.3, width=width, replicates=5 if width == 8 else 20))
    g = run.trace.finals["weights"]
    np.testing.assert_allclose(g[:, 2], np.tile(POST, (len(g), 1)), atol=1e-4)
    off = np.max(np.abs(g[:, 1] / ROOT - 1), axis=1)
    assert np.max(off) < 0.08 and np.median(off) < 0.06
    np.testing.assert_allclose(run.trace.series["imbalance"][:, 0], run.values["imbalance"], rtol=0.02)
    assert np.mean(run.values["imbalance"]) == pytest.approx(np.sqrt(8) * 0.09, rel=0.35)


@pytest.mark.slow
def test_without_spare_width_some_starts_are_late():
    run = execute(LAB, make(**RANDOM, init_scale=0.3, width=4, replicates=20))
    late = np.max(np.abs(run.trace.finals["weights"][:, 2] - POST), axis=1) > 0.01
    assert 0 < np.sum(late) < 12
    np.testing.assert_array_equal(run.values["unconverged"] > 0, late)
    assert np.median(run.trace.finals["weights"][:, 2], axis=0) == pytest.approx(POST, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("width", [4, 8, 16])
def test_large_random_starts_are_not_balanced(width):
    """20 starts of seed 0: the worst feature before the head is off by more than 10 %, mostly by more than 20 %.

    Without spare width a start can come near by chance: 2 of 100 did, so of 20 the standard error is 0.6.
    """
    run = execute(LAB, make(**RANDOM, init_scale=1.0, width=width, replicates=20))
    g = run.trace.finals["weights"]
    off = np.max(np.abs(g[:, 1] / ROOT - 1), axis=1)
    assert np.sum(off < 0.1) <= (2 if width == 4 else 0) and np.median(off) > 0.2
    if width > 4:
        np.testing.assert_allclose(g[:, 2], np.tile(POST, (20, 1)), atol=1e-3)


@pytest.mark.slow
def test_a_head_four_times_as_large_is_further_off_and_needs_halved_steps():
    """18 starts: 29 to 85 % off where it was tried; here beyond 20 %."""
    run = execute(LAB, make(**RANDOM, init_scale=1.0, head_ratio=4.0, replicates=18))
    off = np.max(np.abs(run.trace.finals["weights"][:, 1] / ROOT - 1), axis=1)
    assert np.min(off) > 0.2 and np.mean(run.values["parts"]) > 20_000


def test_decay_restores_the_balance():
    """Decay 0.01 for a time of 400, starts of size 0.6, two replicates; imbalance about 1 at the start."""
    for width in (4, 8):
        run = execute(
            LAB,
            make(
                init="gaussian",
                init_scale=0.6,
                weight_decay=0.01,
                width=width,
                learning_rate=0.008,
                steps=50_000,
                replicates=1,
            ),
        )
        g = run.trace.finals["weights"]
        np.testing.assert_allclose(g[:, 1], [[0.68577, 0.99441, 0.70622, 1.40541]], atol=1e-3)
        np.testing.assert_allclose(g[:, 2], [[0.47028, 0.98885, 0.49875, 1.97518]], atol=1e-3)
        assert run.values["imbalance"][0] < 1e-3


def test_starts_too_small_for_the_decay_die():
    expected = {
        0.02: [0, 0, 0, 0],
        0.04: [0.4703, 0, 0, 0],
        0.06: [0.4703, 0.9888, 0.4987, 0],
        0.12: [0.4703, 0.9888, 0.4987, 1.9752],
    }
    for scale, post in expected.items():
        run = execute(LAB, make(weight_decay=0.01, init_scale=scale, steps=200_000, replicates=1))
        np.testing.assert_allclose(run.trace.finals["weights"][0, 2], post, atol=1e-3)


@pytest.mark.slow
def test_sgd_shifts_the_balance_always_the_same_way():
    run = execute(LAB, make(training="sgd", init_scale=0.3, replicates=3))
    g = run.trace.finals["weights"]
    np.testing.assert_allclose(np.mean(g[:, 2], axis=0), [0.4706, 0.9901, 0.5003, 1.9797], rtol=0.005)
    np.testing.assert_allclose(np.mean(g[:, 1], axis=0), [0.674, 1.003, 0.706, 1.424], rtol=0.01)
    assert np.max(np.std(g[:, 1], axis=0)) < 2e-3 and np.mean(run.values["imbalance"]) == pytest.approx(0.108, abs=0.02)


def test_a_bottleneck_keeps_what_is_fast():
    """Two outputs, starts of size 0.1: after the head features 1 and 2, of the heavy feature 4 a part at most."""
    run = execute(LAB, make(**RANDOM, init_scale=0.1, n_outputs=2, replicates=4))
    g = run.trace.finals["weights"][:, 2]
    np.testing.assert_allclose(g[:, 0], 0.47, atol=0.01)
    np.testing.assert_allclose(g[:, 1], 0.99, atol=0.05)
    assert np.max(g[:, 2]) < 0.05 and np.max(g[:, 3]) < 0.6


ERRORS = {
    "augmented_away": [0.0, 0.061, 0.351],
    "weak_clean": [0.404, 0.274, 0.073],
}


@pytest.mark.parametrize("preset", ERRORS)
def test_wrong_signs_downstream(preset):
    """40 draws each; standard error at most 0.008."""
    run = execute(LAB, LAB.focus(LAB.preset(preset)))
    np.testing.assert_allclose(np.mean(run.trace.finals["error_by_layer"], axis=0), ERRORS[preset], atol=0.03)
