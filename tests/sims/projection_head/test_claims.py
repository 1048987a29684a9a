"""Every claim gives the verdict that its preset expects, and can give another one."""

import dataclasses
from functools import cache

import numpy as np
import pytest

from sims.engine import execute
from sims.engine.claims import judge
from sims.engine.ledger import QUICK_SECONDS, claim_runs, entries
from sims.projection_head.lab import LAB

CLAIMS = {claim.id: claim for claim in LAB.claims}
ENTRIES = {(entry.claim.id, entry.runs): entry for entry in entries(LAB)}.values()
make = LAB.params.make
run_of = cache(lambda params: execute(LAB, params))


def named(entry):
    return f"{entry.preset.id}-{entry.claim.id}-{entry.runs[0].layers}"


@pytest.mark.parametrize(
    "entry", [pytest.param(e, id=named(e), marks=[pytest.mark.slow] * (e.seconds > QUICK_SECONDS / 4)) for e in ENTRIES]
)
def test_claims_have_the_verdict_expected(entry):
    assert judge(entry.claim, [run_of(one) for one in entry.runs]).verdict == entry.expected


def test_every_claim_is_judged_and_some_fail():
    assert {entry.claim.id for entry in entries(LAB)} == set(CLAIMS) and len(CLAIMS) == len(LAB.claims)
    failing = {entry.claim.id for entry in entries(LAB) if entry.expected == "fails"}
    assert failing == {"post_weights", "pre_is_root", "keeps_best", "always_discard"}


def verdict(claim_id, *runs):
    return judge(dataclasses.replace(CLAIMS[claim_id], assumes=lambda params: None), runs).verdict


def as_if(run, **changes):
    """The trace of some params under others."""
    params = run.params.replace(**changes)
    other = LAB.predict(params)
    return dataclasses.replace(run, params=params, prediction=other, derived=LAB.derive(params, run.trace, other))


def with_series(run, name, values):
    trace = dataclasses.replace(run.trace, series={**run.trace.series, name: values})
    return dataclasses.replace(run, trace=trace)


QUICK = {"learning_rate": 0.02, "steps": 4000, "replicates": 2}


@pytest.mark.parametrize(
    "claim_id", ["post_weights", "pre_is_root", "sgd_post", "sgd_pre", "decayed_post", "decayed_pre"]
)
def test_weights_of_other_features_are_told_apart(claim_id):
    run = run_of(make(QUICK))
    assert verdict(claim_id, run) == "holds"
    assert verdict(claim_id, as_if(run, noises=(0.5, 0.1, 0.5, 0.05))) == "fails"


@pytest.mark.parametrize("claim_id", ["course", "half_times_two_layers", "half_times_one_layer"])
def test_another_course_is_told_apart(claim_id):
    layers = 1 if claim_id == "half_times_one_layer" else 2
    run = run_of(make(QUICK, layers=layers, learning_rate=0.0005, steps=60_000))
    assert verdict(claim_id, run) == "holds"
    assert verdict(claim_id, as_if(run, init_scale=0.22)) == "fails"


def test_orders_and_deaths_are_told_apart():
    run = run_of(make(QUICK))
    assert verdict("strength_decides", run) == "holds"
    times = {f"half_time_{i}": np.full(2, 10.0 - i) for i in range(1, 5)}
    finals = dataclasses.replace(run.trace, finals={**run.trace.finals, **times})
    assert verdict("strength_decides", dataclasses.replace(run, trace=finals)) == "fails"
    assert verdict("small_start_dies", run) == "holds"
    assert verdict("small_start_dies", as_if(run, weight_decay=0.2, init_scale=0.05)) == "fails"
    assert verdict("keeps_fast", run) == "holds" and verdict("keeps_best", run) == "holds"
    slow = run_of(make(QUICK, init_scale=0.05))
    assert verdict("keeps_best", slow) == "fails"


def test_the_imbalance_is_told_apart():
    kept, decayed = (
        run_of(make(init="gaussian", weight_decay=decay, learning_rate=0.002, steps=2000, replicates=2))
        for decay in (0.0, 0.3)
    )
    assert verdict("imbalance_kept", kept) == "holds" and verdict("imbalance_kept", decayed) == "fails"
    assert verdict("imbalance_decays", decayed) == "holds"
    assert verdict("imbalance_decays", as_if(decayed, weight_decay=0.29)) == "fails"
    assert verdict("never_below", kept) == "holds"
    assert verdict("never_below", with_series(kept, "loss", kept.trace.series["loss"] - 5)) == "fails"


def test_errors_downstream_are_told_apart():
    run = run_of(LAB.focus(LAB.preset("augmented_away")))
    for claim_id in ("downstream", "discard_gain", "best_layer"):
        assert verdict(claim_id, run) == "holds"
        assert verdict(claim_id, as_if(run, strengths=(0.6, 1.0), noises=(0.1, 0.7))) == "fails", claim_id
    assert verdict("always_discard", run) == "holds"
    assert verdict("always_discard", run_of(LAB.focus(LAB.preset("weak_clean")))) == "fails"


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 1},
        {"strengths": (1.0,), "noises": (0.0,), "relevant": 1, "steps": 50},
        {"layers": 6, "steps": 50, "weight_decay": 5.0},
        {"layers": 1, "weight_decay": 3.0, "steps": 50},
        {"layers": 1, "init": "gaussian", "n_outputs": 1, "steps": 50},
        {"init_scale": 5.0, "steps": 50},
        {"training": "sgd", "batch": 4, "steps": 50, "head_ratio": 3.0},
        {"training": "sgd", "learning_rate": 1.0, "init_scale": 3.0, "steps": 50},
        {"copies": (1.0, 30.0), "n_labelled": 15, "steps": 50, "ridge": 0.0},
        {"strengths": (1.0,) * 6, "noises": (0.5,) * 6, "init": "gaussian", "steps": 20, "relevant": 6},
        {"init_scale": 10.0, "head_ratio": 10.0, "layers": 6, "learning_rate": 1.0, "steps": 50},
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
