"""Every claim gives the verdict that its preset expects, and can give another one."""

import dataclasses
from functools import cache

import numpy as np
import pytest

from sims.engine import execute
from sims.engine.claims import judge
from sims.engine.ledger import QUICK_SECONDS, entries
from sims.linear_transfer.lab import LAB
from tests.claims import assert_they_answer

CLAIMS = {claim.id: claim for claim in LAB.claims}
ENTRIES = list({(entry.claim.id, entry.runs): entry for entry in entries(LAB)}.values())
make = LAB.params.make
run_of = cache(lambda params: execute(LAB, params))
LINKS = {"graph": "random", "classes": 5, "within": 0.5, "across_classes": 0.15, "across_both": 0.05}


def verdict(claim_id, *runs):
    """As the judge alone sees it, whatever the claim assumes."""
    return judge(dataclasses.replace(CLAIMS[claim_id], assumes=lambda params: None), runs).verdict


def named(entry):
    return f"{entry.preset.id}-{entry.claim.id}-{entry.runs[0].n_features}"


def test_every_claim_is_judged_and_some_fail():
    assert {entry.claim.id for entry in ENTRIES} == set(CLAIMS) and len(CLAIMS) == len(LAB.claims)
    failing = {entry.claim.id for entry in ENTRIES if entry.expected == "fails"}
    assert failing == {"source_tells_target", "needs_invariance", "limit_with_ten_nodes"}
    assert {entry.claim.id for entry in ENTRIES if entry.expected == "outside"} == {"perfect_transfer"}


@pytest.mark.parametrize(
    "entry",
    [pytest.param(e, id=named(e), marks=[pytest.mark.slow] * (e.seconds > QUICK_SECONDS)) for e in ENTRIES],
)
def test_claims_of_the_presets(entry):
    broken = next(filter(None, map(entry.claim.assumes, entry.runs)), None)
    if broken:
        assert entry.expected == "outside"
    else:
        assert judge(entry.claim, [run_of(one) for one in entry.runs]).verdict == entry.expected


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 3},
        {"across_domains": 0.02, "training": "eigen"},
        {"within": 0.0, "across_domains": 0.5, "training": "eigen", "n_features": 4},
        {"within": 0.1, "across_domains": 0.8, "across_classes": 0.8, "across_both": 0.1, "n_features": 4, "steps": 9},
        {"classes": 20, "domains": 10, "training": "eigen", "n_features": 64},
        {"classes": 3, "domains": 3, "across_domains": 0.01, "across_both": 0.3, "training": "eigen", "n_features": 4},
        {"across_classes": 0.8, "training": "eigen", "n_features": 2},
        {"head": "averaging", "walk_steps": 50, "training": "eigen"},
        {"ridge": 10.0, "n_features": 1, "training": "eigen"},
        {**LINKS, "nodes_per_block": 4, "training": "eigen"},
        {"graph": "random", "nodes_per_block": 1, "n_features": 4, "steps": 5},
        {"learning_rate": 4000.0, "steps": 50},
    ],
)
def test_claims_answer_for_any_params(changes):
    """No claim raises for a run that can be made, and the runs that it is judged on are valid and more than one."""
    assert_they_answer(LAB, run_of(make(changes, replicates=2, seed=7)), ("holds", "fails", "undecided"))


# -- each can fail ---------------------------------------------------------------------------------------------------


def eigen(**changes):
    return run_of(make(training="eigen", steps=1, replicates=2, **changes))


def as_if(run, **changes):
    """The trace of one graph under the params of another."""
    params = run.params.replace(**changes)
    other = LAB.predict(params)
    return dataclasses.replace(run, params=params, prediction=other, derived=LAB.derive(params, run.trace, other))


def with_end(run, name, value):
    """The run as if a series had ended elsewhere."""
    series = {**run.trace.series, name: np.full_like(run.trace.series[name], value)}
    return dataclasses.replace(run, trace=dataclasses.replace(run.trace, series=series))


@pytest.mark.parametrize(
    ("claim_id", "changes", "other"),
    [
        ("spectrum", {}, {"across_both": 0.021}),
        ("gain_formula", {"n_features": 4}, {"across_domains": 0.101}),
        ("verdicts", {}, {"across_domains": 0.01}),
        ("distances", {}, {"across_classes": 0.081}),
        ("full_gain", {"n_features": 4}, {"within": 0.801}),
        ("averaged_gain", {"head": "averaging", "n_features": 4}, {"walk_steps": 2}),
    ],
)
def test_another_graph_is_told_apart(claim_id, changes, other):
    run = eigen(**changes)
    assert verdict(claim_id, run) == "holds"
    assert verdict(claim_id, as_if(run, **other)) == "fails"


def test_transfer_where_there_is_none_is_noticed():
    right, wrong = eigen(), eigen(across_domains=0.01)
    assert verdict("perfect_transfer", right) == "holds" and verdict("perfect_transfer", wrong) == "fails"
    assert verdict("wrong_wiring", wrong) == "holds" and verdict("wrong_wiring", right) == "fails"
    assert verdict("source_tells_target", right) == "holds" and verdict("source_tells_target", wrong) == "fails"
    unseen = eigen(across_classes=0.01, across_domains=0.2)
    assert verdict("needs_invariance", unseen) == "holds", "here no linear classifier sees the domain"
    assert verdict("needs_invariance", right) == "fails"


def test_features_that_are_not_trained_are_told_apart():
    run = run_of(make(steps=1500, replicates=4))
    assert verdict("trained_transfer", run) == "holds" and verdict("never_below", run) == "holds"
    assert verdict("trained_transfer", with_end(run, "target_accuracy", 0.5)) == "fails"
    assert verdict("never_below", with_end(run, "loss", -3.0)) == "fails"


def test_labels_that_walk_otherwise_are_told_apart():
    assert verdict("labels_spread", eigen(head="averaging", n_features=4)) == "holds"
    assert verdict("labels_spread", eigen(head="averaging", n_features=3)) == "fails"


def test_sampled_graphs_of_other_kinds_are_told_apart():
    few = {**LINKS, "nodes_per_block": 10, "n_features": 6}
    below, above = (run_of(make(few, training="eigen", steps=1, across_domains=a, replicates=8)) for a in (0.01, 0.2))
    for claim_id in ("sampled_jump", "averages_jump"):
        assert verdict(claim_id, with_end(below, "target_accuracy", 0.0)) == "holds"
        assert verdict(claim_id, with_end(below, "target_accuracy", 1.0)) == "fails"
    assert verdict("soft_margin", with_end(above, "target_accuracy", 0.4)) == "fails"
    assert verdict("domains_stay_apart", with_end(above, "domain_accuracy", 0.5)) == "fails"
    for claim_id in ("enough_nodes", "limit_with_ten_nodes"):
        assert verdict(claim_id, with_end(above, "target_accuracy", 1.0)) == "holds"
        assert verdict(claim_id, with_end(above, "target_accuracy", 0.4)) == "fails"
