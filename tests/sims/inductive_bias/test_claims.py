"""Every claim gives the verdict that its preset expects, and can give another one."""

import dataclasses
from functools import cache

import numpy as np
import pytest

from sims.engine import execute
from sims.engine.claims import judge
from sims.engine.ledger import QUICK_SECONDS, claim_runs, entries
from sims.inductive_bias.lab import LAB

CLAIMS = {claim.id: claim for claim in LAB.claims}
ENTRIES = {(entry.claim.id, entry.runs): entry for entry in entries(LAB)}.values()
make = LAB.params.make
run_of = cache(lambda params: execute(LAB, params))
SOLVED = {"training": "minimiser", "steps": 1, "replicates": 8}


def named(entry):
    return f"{entry.preset.id}-{entry.claim.id}-{entry.runs[0].encoder}"


@pytest.mark.parametrize(
    "entry", [pytest.param(e, id=named(e), marks=[pytest.mark.slow] * (e.seconds > QUICK_SECONDS / 4)) for e in ENTRIES]
)
def test_claims_have_the_verdict_expected(entry):
    assert judge(entry.claim, [run_of(one) for one in entry.runs]).verdict == entry.expected


def test_every_claim_is_judged_and_some_fail():
    assert {entry.claim.id for entry in entries(LAB)} == set(CLAIMS) and len(CLAIMS) == len(LAB.claims)
    failing = {entry.claim.id for entry in entries(LAB) if entry.expected == "fails"}
    assert failing == {"same_loss_same_use", "least_loss"}


def verdict(claim_id, *runs):
    return judge(dataclasses.replace(CLAIMS[claim_id], assumes=lambda params: None), runs).verdict


def with_finals(run, **changes):
    trace = dataclasses.replace(run.trace, finals={**run.trace.finals, **changes})
    return dataclasses.replace(run, trace=trace)


def as_if(run, **changes):
    """The trace of some params under others."""
    params = run.params.replace(**changes)
    other = LAB.predict(params)
    return dataclasses.replace(run, params=params, prediction=other, derived=LAB.derive(params, run.trace, other))


@pytest.mark.parametrize(
    ("claim_id", "changes", "other"),
    [
        ("spectrum", SOLVED, {"scale_low": 0.1}),
        ("sampled_spectrum", SOLVED, {"scale_low": 0.2}),
        ("sampled_spectrum_close", {**SOLVED, "scale_low": 0.5}, {"scale_low": 0.4}),
        ("invariant_directions", {**SOLVED, "augmentation": "flip"}, {"content": 2}),
        ("least_loss", SOLVED, {"scale_low": 0.1, "n_features": 5}),
        ("linear_ramp", SOLVED, {"content": 2}),
        ("random_minimiser", {**SOLVED, "augmentation": "flip", "encoder": "table"}, {"content": 1}),
    ],
)
def test_another_law_is_told_apart(claim_id, changes, other):
    run = run_of(make({**changes, "n_features": 5} if claim_id == "least_loss" else changes))
    replicates = 8 if claim_id != "random_minimiser" else 400
    run = run_of(run.params.replace(replicates=replicates))
    assert verdict(claim_id, run) == "holds"
    assert verdict(claim_id, as_if(run, **other)) in ("fails", "undecided")


def test_useless_features_are_told_from_useful_ones():
    free, linear = (run_of(make(encoder=name, training="descent", replicates=4)) for name in ("table", "linear"))
    assert verdict("same_loss_same_use", linear, linear) == "holds"
    assert verdict("same_loss_same_use", free, linear) == "fails"
    assert verdict("content_learned", linear) == "holds" and verdict("content_learned", free) == "fails"
    assert verdict("style_instead", linear) == "fails" and verdict("frozen_span", free, linear) == "fails"
    assert verdict("useless_table", dataclasses.replace(linear, prediction=free.prediction)) == "fails"
    assert verdict("network_worse", linear, linear) == "fails" and verdict("network_worse", free, linear) == "holds"
    assert verdict("network_loss", free, linear) == "holds"


def test_broken_inequalities_are_noticed():
    run = run_of(make(SOLVED, augmentation="flip"))
    assert verdict("interlacing", run) == "holds"
    more = with_finals(run, eigenvalues=run.trace.finals["eigenvalues"] + 0.1)
    assert verdict("interlacing", more) == "fails" and verdict("relu_interlacing", more) == "fails"
    trained = run_of(make(training="descent", replicates=2))
    assert verdict("never_below", trained) == "holds"
    low = dataclasses.replace(trained.trace, series={**trained.trace.series, "loss": trained.trace.series["loss"] - 1})
    assert verdict("never_below", dataclasses.replace(trained, trace=low)) == "fails"
    assert verdict("network_loss", dataclasses.replace(trained, trace=low), trained) == "fails"


def test_grams_that_are_not_separated_are_told_apart():
    run = run_of(make(training="descent", replicates=4))
    assert verdict("learned_gram", run) == "holds"
    skew = run.trace.finals["gram"] + 0.06
    for claim_id in ("learned_gram", "sgd_diagonal", "sgd_off_diagonal"):
        assert verdict(claim_id, with_finals(run, gram=skew)) == "fails"
    spare = run_of(make(training="descent", replicates=4, n_features=5))
    assert verdict("spare_style", spare) == "holds" and verdict("spare_features", spare) == "holds"
    assert verdict("spare_style", with_finals(spare, gram=1.2 * spare.trace.finals["gram"])) == "fails"
    assert verdict("spare_features", run, as_if(run, n_features=5)) == "fails"


def test_another_rate_is_told_apart():
    run = run_of(make(training="descent", learning_rate=0.01, steps=4000, replicates=2))
    assert verdict("separation_rate", run) == "holds"
    derived = {**run.derived, "separation_rate": 1.05 * run.derived["separation_rate"]}
    assert verdict("separation_rate", dataclasses.replace(run, derived=derived)) == "fails"


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 1},
        {"dim": 2, "content": 2, "n_features": 1},
        {"dim": 4, "content": 1, "augmentation": "flip", "flip_content": 0.5, "flip_style": 0.5, "n_features": 4},
        {"dim": 5, "encoder": "table", "augmentation": "flip", "flip_style": 0.0, **SOLVED},
        {"dim": 5, "encoder": "table", "steps": 20},
        {"dim": 4, "encoder": "relu", "relu_features": 5, **SOLVED, "n_features": 9},
        {"dim": 4, "n_pairs": 50, **SOLVED},
        {"dim": 4, "label": "majority", "encoder": "polynomial", "steps": 5},
        {"dim": 4, "encoder": "mlp", "width": 4, "n_test": 100, "steps": 2},
        {"learning_rate": 5.0, "steps": 50},
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
