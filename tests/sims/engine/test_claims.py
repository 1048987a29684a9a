"""Verdicts: one rule, every branch of it."""

import math
from types import SimpleNamespace

import pytest

from sims.engine import Claim, Measured
from sims.engine.claims import judge


def run(replicates=4, **params):
    return SimpleNamespace(params=SimpleNamespace(**params), trace=SimpleNamespace(replicates=replicates))


FOUR = run()


def verdict(measured, assumes=lambda params: None, runs=(FOUR,)):
    claim = Claim("c", "It is so.", "derivation", lambda params: True, lambda runs: measured, assumes)
    return judge(claim, runs)


@pytest.mark.parametrize(
    ("measured", "word"),
    [
        (Measured(1.0, 1.05, 0.01, 0.1), "holds"),
        (Measured(1.0, 1.1, 0.0, 0.1000001), "holds"),
        (Measured(1.0, 0.95, 0.05, 0.1), "holds"),  # the error is exactly half the tolerance
        (Measured(1.0, 1.2, 0.01, 0.1), "fails"),
        (Measured(1.0, 0.8, 0.01, 0.1), "fails"),
        (Measured(1.0, 1.2, 0.051, 0.1), "undecided"),
        (Measured(1.0, 1.0, 0.051, 0.1), "undecided"),
        (Measured(1.0, 1.0, None, 0.1), "undecided"),
        (Measured(1.0, 1.0, math.nan, 0.1), "undecided"),
        (Measured(1.0, math.nan, 0.0, 0.1), "fails"),
        (Measured(1.0, math.inf, 0.0, 0.1), "fails"),
        (Measured(1.0, 1.0, 0.0, 0.0), "holds"),
        (Measured(1.0, 1.0, 0.1, 0.0), "undecided"),
        (Measured(1.0, 1.0, 1e200, 1e-100), "undecided"),
    ],
)
def test_the_verdict_follows_from_four_numbers(measured, word):
    assert verdict(measured).verdict == word


def test_a_broken_assumption_is_outside_whatever_was_measured():
    broken = verdict(Measured(1.0, 1.0, 0.0, 0.1), assumes=lambda params: "small steps" if params.rate > 1 else None,
                     runs=(run(rate=0.5), run(rate=2.0)))  # fmt: skip
    assert (broken.verdict, broken.reason, broken.measured) == ("outside", "small steps", None)


@pytest.mark.parametrize(("error", "enough"), [(0.1, 16), (0.06, 6), (0.05001, 5), (0.5, 400)])
def test_undecided_says_how_many_replicates_would_decide(error, enough):
    """4 replicates with standard error e need 4*(2e/tolerance)^2, rounded up, to bring it to half the tolerance."""
    found = verdict(Measured(1.0, 1.0, error, 0.1))
    assert f"about {enough} replicates would decide" in found.reason
    assert error * math.sqrt(4 / enough) <= 0.1 / 2


def test_the_fewest_replicates_of_several_runs_count():
    found = verdict(Measured(1.0, 1.0, 0.1, 0.1), runs=(run(100), run(9)))
    assert "about 36 replicates" in found.reason


def test_without_tolerance_no_number_would_decide():
    assert "no number of replicates" in verdict(Measured(1.0, 1.0, 0.1, 0.0)).reason


def test_a_single_replicate_is_told_to_run_more():
    assert "run at least 4" in verdict(Measured(1.0, 1.0, None, 0.1), runs=(run(1),)).reason


def test_what_is_not_finite_is_absent_and_the_note_is_kept():
    found = verdict(Measured(1.0, math.nan, math.inf, 0.1, note="All diverged."))
    assert found.as_dict()["measured"] is None and found.as_dict()["error"] is None
    assert found.reason.endswith("All diverged.")
