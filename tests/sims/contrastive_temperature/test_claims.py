"""Every claim gives the verdict that its preset expects, and can give another one."""

import dataclasses
from functools import cache

import numpy as np
import pytest

from sims.contrastive_temperature.lab import LAB
from sims.engine import execute
from sims.engine.claims import judge
from sims.engine.ledger import QUICK_SECONDS, claim_runs, entries

CLAIMS = {claim.id: claim for claim in LAB.claims}
ENTRIES = {(entry.claim.id, entry.runs): entry for entry in entries(LAB)}.values()
make = LAB.params.make
run_of = cache(lambda params: execute(LAB, params))


def named(entry):
    return f"{entry.preset.id}-{entry.claim.id}-{entry.runs[0].temperature}"


@pytest.mark.parametrize(
    "entry", [pytest.param(e, id=named(e), marks=[pytest.mark.slow] * (e.seconds > QUICK_SECONDS / 4)) for e in ENTRIES]
)
def test_claims_have_the_verdict_expected(entry):
    assert judge(entry.claim, [run_of(one) for one in entry.runs]).verdict == entry.expected


def test_every_claim_is_judged_and_some_fail():
    assert {entry.claim.id for entry in entries(LAB)} == set(CLAIMS) and len(CLAIMS) == len(LAB.claims)
    failing = {entry.claim.id for entry in entries(LAB) if entry.expected == "fails"}
    assert failing == {"small_temperature", "rises_everywhere"}


def verdict(claim_id, *runs):
    return judge(dataclasses.replace(CLAIMS[claim_id], assumes=lambda params: None), runs).verdict


def as_if(run, **changes):
    """The trace of some params under others."""
    params = run.params.replace(**changes)
    other = LAB.predict(params)
    return dataclasses.replace(run, params=params, prediction=other, derived=LAB.derive(params, run.trace, other))


def with_finals(run, **changes):
    trace = dataclasses.replace(run.trace, finals={**run.trace.finals, **changes})
    return dataclasses.replace(run, trace=trace)


def ideal(**changes):
    return run_of(make(geometry="ideal", steps=50, replicates=2, **changes))


@pytest.mark.parametrize("claim_id", ["linear_law_here", "linear_law", "linear_law_few", "linear_law_exact"])
def test_another_law_is_told_apart(claim_id):
    run = ideal()
    assert verdict(claim_id, run) == "holds"
    assert verdict(claim_id, as_if(run, overlap=0.5)) == "fails"


def test_what_is_lost_and_found_is_told_apart():
    low, high = ideal(temperature=0.1), ideal(temperature=0.6)
    assert verdict("instances_lost", low, high) == "holds"
    assert verdict("instances_lost", as_if(low, temperature=0.6)) == "fails"
    assert verdict("uniformity_lost", low, high) == "holds"
    assert verdict("uniformity_lost", as_if(low, temperature=0.2)) == "fails"
    few = with_finals(low, class_accuracy=np.full(2, 0.1))
    assert verdict("classes_found", few, high) == "holds"
    assert verdict("classes_found", high, few) == "fails" and verdict("classes_found", low, high) == "fails"


def ball(**changes):
    return run_of(make(model="sphere", steps=100, replicates=4, **changes))


def test_other_spheres_are_told_apart():
    run = ball(sphere_dim=2, temperature=0.3)
    assert verdict("force_on_sphere", run) == "holds"
    assert verdict("force_on_sphere", as_if(run, temperature=0.32)) == "fails"
    hard = ball(sphere_dim=2, temperature=0.02)
    for claim_id in ("small_temperature", "nearest_only"):
        assert verdict(claim_id, hard) == "holds" and verdict(claim_id, ball(sphere_dim=16, temperature=0.1)) == "fails"
    assert verdict("entropy_rises", hard, run) == "holds" and verdict("entropy_rises", run, hard) == "fails"


def table(**changes):
    return run_of(make(model="table", classes=4, per_class=6, steps=200, replicates=2, **changes))


def test_tables_are_told_apart():
    cool, warm = table(temperature=0.1), table(temperature=1.0)
    for claim_id in ("tolerance_rises", "rises_everywhere"):
        assert verdict(claim_id, cool, warm) == "holds" and verdict(claim_id, warm, cool) == "fails"
    assert verdict("least_at_a_tenth", warm, cool) == "holds"
    assert verdict("least_at_a_tenth", warm, as_if(cool, temperature=0.2)) == "fails"
    assert verdict("blind_to_classes", warm) == "fails"


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 1},
        {"classes": 2, "per_class": 2, "feature_dim": 3, "temperature": 100.0},
        {"classes": 2, "per_class": 2, "temperature": 0.005, "geometry": "ideal"},
        {"fit": "fixed", "class_share": 0.0, "steps": 1},
        {"fit": "fixed", "class_share": 1.0, "steps": 1},
        {"model": "sphere", "sphere_dim": 1024, "temperature": 0.005, "negatives": 3, "steps": 5},
        {"model": "sphere", "sphere_dim": 2, "temperature": 100.0, "negatives": 1, "steps": 5},
        {"model": "table", "classes": 2, "per_class": 2, "swap": 1.0, "steps": 5, "sphere_dim": 2},
        {"model": "table", "swap": 0.0, "steps": 5, "own_in_denominator": False, "temperature": 0.005},
        {"model": "table", "schedule": "anneal", "start_temperature": 0.01, "steps": 5, "learning_rate": 10.0},
    ],
)
def test_claims_answer_for_any_params(changes):
    """No claim raises for a run that can be made, and the runs that it is judged on are valid."""
    run = run_of(make(changes, replicates=2, seed=7))
    for claim in LAB.claims:
        if claim.about(run.params):
            assert claim_runs(claim, run.params)
            if claim.over is None:
                assert judge(claim, [run]).verdict in ("holds", "fails", "outside", "undecided"), claim.id
    assert all(np.shape(values) == (2,) for values in run.derived.values())
