"""What must be seen, setting by setting, and the limits of the parameters."""

import math

import numpy as np
import pytest

from sims.contrastive_temperature.lab import LAB
from sims.engine import BadInput, execute
from theory.contrastive_temperature import best_share

make = LAB.params.make
GRID = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
TABLE = {"model": "table", "classes": 8, "per_class": 12, "steps": 600}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": 100, "per_class": 11}, ["per_class = 11", "1100 examples", "1000 are possible"]),
        ({"classes": 20, "feature_dim": 12}, ["feature_dim = 12", "20 or more"]),
        ({"classes": 100, "per_class": 10, "feature_dim": 8192}, ["feature_dim = 8192", "exceed"]),
        ({"model": "table", "classes": 100, "per_class": 100}, ["per_class = 100"]),
        ({"temperature": 0.0}, ["temperature = 0", "from 0.005 to 100"]),
        ({"overlap": 1.0}, ["overlap = 1", "0.999"]),
        ({"per_class": 1}, ["per_class = 1", "from 2 to 100"]),
        ({"class_share": 0.5}, ["class_share = 0.5", "only when model is two_level and fit is fixed"]),
        ({"swap": 0.1}, ["swap = 0.1", "only when model is table"]),
    ],
)
def test_bad_input_is_refused_with_a_way_out(changes, words):
    with pytest.raises(BadInput) as refusal:
        make(changes)
    assert all(word in str(refusal.value) for word in words), refusal.value


def at_best_share(tau, replicates):
    share = best_share(tau, 0.6, 10, 10)
    fixed = {"feature_dim": 64, "fit": "fixed", "steps": 1, "class_share": share}
    return execute(LAB, make(fixed, temperature=tau, replicates=replicates)).values


def test_accuracy_retrieval_and_uniformity_in_64_dimensions():
    """20 draws each, seed 0: the standard deviation of one draw is 0.06, 0.01 and 0.014."""
    expected = {
        "class_accuracy": ([0.161, 0.336, 0.711, 0.997, 1, 1, 1, 1], 0.05),
        "retrieval": ([0.999, 0.999, 1.0, 1.0, 1.0, 1.0, 1.0, 0.1], 0.01),
        "uniformity": ([-3.863, -3.839, -3.788, -3.630, -3.359, -2.945, -2.396, -2.230], 0.015),
    }
    found = [at_best_share(tau, 20) for tau in GRID]
    for name, (values, tolerance) in expected.items():
        np.testing.assert_allclose([np.mean(one[name]) for one in found], values, atol=tolerance, err_msg=name)


@pytest.mark.parametrize(
    ("dim", "shares"),
    [(4096, [0.19040, 0.37980, 0.56919, 0.75839]), (256, [0.2060, 0.3933, 0.5819, 0.7696])],
)
def test_shares_in_many_and_in_few_dimensions(dim, shares):
    """3 draws each: within 0.003 in 4096 dimensions, 0.01 in 256."""
    found = [
        np.mean(execute(LAB, make(feature_dim=dim, temperature=tau, steps=40, replicates=3)).values["share"])
        for tau in (0.1, 0.2, 0.3, 0.4)
    ]
    np.testing.assert_allclose(found, shares, atol=0.003 if dim == 4096 else 0.01)


def test_class_directions_that_are_merely_random_are_less_uniform():
    """At collapse the formula is -2.230 with orthonormal classes."""
    assert at_best_share(0.6, 2)["uniformity"] == pytest.approx([-2.2297, -2.2297], abs=1e-4)


def test_tolerance_and_uniformity_of_a_table():
    """One seed each of three; seeds agree to 0.001."""
    expected = {
        0.05: (0.885, -2.109), 0.1: (0.869, -2.131), 0.2: (0.902, -2.111), 0.3: (0.961, -2.034), 0.5: (1.0, -1.952),
        1.0: (1.0, -1.951),
    }  # fmt: skip
    for tau, (tolerance, uniformity) in expected.items():
        values = execute(LAB, make(TABLE, temperature=tau, replicates=1)).values
        assert values["tolerance"][0] == pytest.approx(tolerance, abs=0.02), tau
        assert values["uniformity"][0] == pytest.approx(uniformity, abs=0.02), tau


def test_a_table_collapses_from_a_temperature_of_04():
    near, beyond = (execute(LAB, make(TABLE, temperature=tau, replicates=1)).values for tau in (0.35, 0.4))
    assert near["tolerance"][0] == pytest.approx(0.988, abs=0.01) and beyond["tolerance"][0] > 0.999


@pytest.mark.slow
@pytest.mark.parametrize(
    ("own", "tolerances"), [(True, (0.949, 0.885, 0.869)), (False, (0.87, 0.848, 0.854))], ids=["with", "without"]
)
def test_the_rise_at_low_temperatures_is_no_lack_of_training(own, tolerances):
    """Ten times finer steps, 6000 of them, with and without the example itself among those it is compared with."""
    fine = {**TABLE, "steps": 6000, "learning_rate": 0.05, "replicates": 1, "own_in_denominator": own}
    for tau, expected in zip((0.02, 0.05, 0.1), tolerances, strict=True):
        values = execute(LAB, make(fine, temperature=tau)).values
        assert values["tolerance"][0] == pytest.approx(expected, abs=0.01 if own and tau >= 0.05 else 0.02), tau


def test_a_table_that_knows_no_class_is_uniform():
    """Its tolerance is a claim."""
    values = execute(LAB, make(TABLE, swap=0.0, temperature=0.1, replicates=2, steps=300)).values
    assert values["uniformity"] == pytest.approx([-2.156, -2.156], abs=0.005)


def test_collapse_is_total_with_orthogonal_directions():
    run = execute(LAB, LAB.focus(LAB.preset("collapse")))
    assert run.values["share"][0] == pytest.approx(1.0, abs=1e-9)
    assert run.values["retrieval"][0] == pytest.approx(0.1) and run.values["class_accuracy"][0] == 1.0


def test_where_the_limit_of_small_temperatures_fails():
    run = execute(LAB, make(model="sphere", sphere_dim=16, temperature=0.07, negatives=5000, replicates=2))
    assert np.mean(run.values["mean_similarity"]) == pytest.approx(0.5950, abs=0.005)
    assert run.values["small_temperature_similarity"][0] == pytest.approx(0.475)
    assert math.isfinite(run.prediction.prediction["log_mean_exp"])
